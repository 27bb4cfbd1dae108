//! Parts that come as packages of Debian: each by its exact version and hash. What the machine's own archive no longer has is not replaced by another version.

use std::path::Path;
use std::process::Command;

use sha2::Sha256;

use crate::StackError;
use crate::error::Doing;
use crate::parts::verify;

/// A package, pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// As apt knows it.
    pub(crate) name: &'static str,
    /// Debian's version.
    pub(crate) version: &'static str,
    /// Of the whole archive file.
    pub(crate) sha256: &'static str,
}

/// What makes `apt-get` fetch the packages: into its working directory, as it always does.
pub(crate) fn ask(command: &mut Command, packages: &[Package], packed: &Path) {
    command.current_dir(packed);
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    let wanted = |package: &Package| format!("{}={}", package.name, package.version);
    command.args(packages.iter().map(wanted));
}

/// Verifies the packages in `packed` and unpacks them over each other into `home`. Blocks for seconds.
pub(crate) fn install(packages: &[Package], packed: &Path, home: &Path) -> Result<(), StackError> {
    for package in packages {
        let unpacking = || format!("unpacking {}", package.name);
        let archive = archive_of(package, packed).doing(unpacking)?;
        verify::<Sha256>(&archive, package.sha256)?;
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(&archive).arg(home);
        let extracted = command.output().doing(|| "starting dpkg-deb")?;
        if !extracted.status.success() {
            let said = String::from_utf8_lossy(&extracted.stderr).into_owned();
            return Err(std::io::Error::other(said)).doing(unpacking);
        }
    }
    Ok(())
}

/// Its file: apt names it by package, version and machine.
fn archive_of(package: &Package, packed: &Path) -> std::io::Result<std::path::PathBuf> {
    let prefix = format!("{}_", package.name);
    for entry in std::fs::read_dir(packed)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    let absent = format!("no file of {} was fetched", package.name);
    Err(std::io::Error::new(std::io::ErrorKind::NotFound, absent))
}

/// What to do where apt's last words say that the archive has another version, or that it knows none.
pub(crate) fn advice(last_words: &str) -> &'static str {
    if last_words.contains("was not found") || last_words.contains("404") {
        "; the archive no longer has the pinned version"
    } else if last_words.contains("Unable to locate package") {
        "; the package lists are empty: type apt-get update"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: Package = Package {
        name: "thing",
        version: "1.0-1",
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    #[test]
    fn the_exact_version_is_asked_for() {
        let mut command = Command::new("apt-get");
        ask(&mut command, &[PACKAGE], Path::new("/packed"));
        assert!(command.get_args().any(|arg| arg == "thing=1.0-1"));
    }

    #[test]
    fn a_package_that_is_not_its_pin_is_not_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thing_1.0-1_amd64.deb"), "another").unwrap();
        let home = folder.path().join("home");
        let refused = install(&[PACKAGE], folder.path(), &home).unwrap_err();
        assert!(matches!(refused, StackError::WrongHash { .. }));
        assert!(!home.exists());
    }

    #[test]
    fn a_version_that_the_archive_gave_up_is_named_as_such() {
        assert!(advice("E: Version '1.0-1' for 'thing' was not found").contains("no longer"));
        assert!(advice("E: Unable to locate package thing").contains("apt-get update"));
        assert_eq!(advice("E: something else"), "");
    }
}
