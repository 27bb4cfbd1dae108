//! A browser for tests of the dashboards' pages: Debian's headless Chromium with those libraries that a small machine lacks, fetched by `apt-get download`,
//! verified and unpacked without being installed; where that cannot be had, one that the machine has.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::apt::Package;
use crate::cache::Cache;
use crate::clients::on_path;
use crate::error::Doing;
use crate::parts::Part;
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

/// What it consists of: lines of hash and `name=version`.
pub(crate) fn packages() -> Vec<Package> {
    let lines = PACKAGES.lines().filter_map(|line| line.split_once("  "));
    let pinned = lines.filter_map(|(sha256, package)| Some((sha256, package.split_once('=')?)));
    pinned
        .map(|(sha256, (name, version))| Package {
            name,
            version,
            sha256,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_whole_pin_and_a_version() {
        assert_eq!(packages().len(), PACKAGES.lines().count());
        assert!(packages().iter().all(|package| package.sha256.len() == 64));
    }
}
