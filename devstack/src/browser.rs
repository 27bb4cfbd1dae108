//! A browser for tests of the dashboards' pages: Debian's headless Chromium with those libraries that a small machine lacks, fetched by `apt-get download`,
//! verified and unpacked without being installed; where that cannot be had, one that the machine has.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use sha2::Sha256;

use crate::cache::Cache;
use crate::clients::on_path;
use crate::error::Doing;
use crate::parts::{Part, Workshop, verify};
use crate::process::Spawner;
use crate::{Progress, StackError};

pub(crate) const LABEL: &str = "Chromium 150 (headless)";
pub(crate) const FOLDER: &str = "chromium-150";
/// Of a Debian release itself, whose packages stay until the next point release; those of its security archive go within days.
pub(crate) const PACKAGES: &str = include_str!("pins/chromium.debs");

const PROGRAM: &str = "usr/lib/chromium/chromium-headless-shell";
const LIBRARIES: [&str; 2] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/pulseaudio",
];
const ON_THE_MACHINE: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "google-chrome",
    "google-chrome-stable",
];

/// A headless browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browser {
    /// The program; it takes Chromium's flags.
    pub program: PathBuf,
    /// What must stand in its `LD_LIBRARY_PATH`.
    pub library_path: Option<OsString>,
}

/// The pinned browser, fetched if it is not in the cache yet; else the machine's own. `cache_dir` as for [`crate::prefetch`].
///
/// # Errors
/// If there is neither: the fetch's own error, which says what to do.
pub async fn browser(
    cache_dir: Option<PathBuf>,
    progress: Arc<dyn Progress>,
) -> Result<Browser, StackError> {
    let spawner = Spawner::new().doing(|| "starting a thread")?;
    let cache = Cache::new(cache_dir, spawner, None, Arc::clone(&progress))?;
    let error = match cache.ensure(Part::Browser).await {
        Ok((home, _)) => return pinned(&home),
        Err(error) => error,
    };
    let found = ON_THE_MACHINE.into_iter().find_map(on_path);
    let program = found.ok_or_else(|| StackError::NoBrowser {
        source: Box::new(error),
    })?;
    progress.step(&format!(
        "{LABEL} cannot be fetched; taking {}",
        program.display()
    ));
    Ok(Browser {
        program,
        library_path: None,
    })
}

fn pinned(home: &Path) -> Result<Browser, StackError> {
    let folders = LIBRARIES.map(|folder| home.join(folder));
    let library_path = env::join_paths(folders)
        .map_err(io::Error::other)
        .doing(|| format!("the cache folder {}", home.display()))?;
    Ok(Browser {
        program: home.join(PROGRAM),
        library_path: Some(library_path),
    })
}

/// Pairs of hash and `name=version`.
fn packages() -> impl Iterator<Item = (&'static str, &'static str)> {
    PACKAGES.lines().filter_map(|line| line.split_once("  "))
}

/// It downloads into the folder that it runs in.
pub(crate) fn ask(command: &mut Command, shop: &Workshop) {
    // The user that apt would change to cannot write there.
    command.args(["download", "-qq", "-o", "APT::Sandbox::User=root"]);
    command.args(packages().map(|(_, package)| package));
    command.current_dir(&shop.packed);
}

pub(crate) fn install(shop: &Workshop) -> Result<(), StackError> {
    for (sha256, package) in packages() {
        let unpacking = || format!("unpacking {package}");
        let archive = downloaded(&shop.packed, package).doing(unpacking)?;
        verify::<Sha256>(&archive, sha256)?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&archive).arg(&shop.home);
        let status = unpack.stdin(Stdio::null()).status().doing(unpacking)?;
        if !status.success() {
            return Err(io::Error::other(status.to_string())).doing(unpacking);
        }
    }
    Ok(())
}

/// The file that apt has written for `name=version`: it writes a version's colon otherwise, and the architecture after it.
fn downloaded(folder: &Path, package: &str) -> io::Result<PathBuf> {
    let name = package.split('=').next().unwrap_or(package);
    let prefix = format!("{name}_");
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{package} was not fetched"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_whole_pin_and_a_version() {
        assert_eq!(packages().count(), PACKAGES.lines().count());
        assert!(packages().all(|(sha256, package)| sha256.len() == 64 && package.contains('=')));
    }
}
