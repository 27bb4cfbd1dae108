//! Finds a Java that is new enough on this machine. Where there is none, one is fetched like any other part.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The registry needs 21; Kafka would run on 17.
pub(crate) const VERSION_MIN: u32 = 21;
const USUAL_PLACE: &str = "/usr/lib/jvm";

/// What Kafka and the registry share. The first compiler alone halves the processor time of a start and costs no
/// throughput that could be measured.
pub(crate) const FLAGS: [&str; 6] = [
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dfile.encoding=UTF-8",
    "--enable-native-access=ALL-UNNAMED",
];

/// Where Java unpacks native libraries to: a folder that is emptied at each start.
pub(crate) fn tmp_flag(tmp: &Path) -> OsString {
    let mut flag = OsString::from("-Djava.io.tmpdir=");
    flag.push(tmp);
    flag
}

/// The `java` program of the first fit home: JAVA_HOME, then the one on the PATH, then the usual place.
pub(crate) fn find() -> Option<PathBuf> {
    let named = env::var_os("JAVA_HOME").map(PathBuf::from);
    first_fit(named.into_iter().chain(on_path()).chain(in_usual_place()))
}

fn first_fit(homes: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    homes
        .filter(|home| version_of(home).is_some_and(|version| version >= VERSION_MIN))
        .map(|home| program(&home))
        .next()
}

/// The `java` program within a home.
pub(crate) fn program(home: &Path) -> PathBuf {
    home.join("bin/java")
}

fn on_path() -> Option<PathBuf> {
    let java = crate::clients::on_path("java")?.canonicalize().ok()?;
    Some(java.parent()?.parent()?.to_owned())
}

fn in_usual_place() -> Vec<PathBuf> {
    let entries = fs::read_dir(USUAL_PLACE).into_iter().flatten().flatten();
    let mut homes: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    homes.sort();
    homes
}

/// The feature version of a home that has a `java`. Every vendor's home has this file; asking the program itself would
/// cost a start of it each.
fn version_of(home: &Path) -> Option<u32> {
    program(home).is_file().then_some(())?;
    let release = fs::read_to_string(home.join("release")).ok()?;
    release
        .lines()
        .find_map(|line| line.strip_prefix("JAVA_VERSION="))
        .and_then(feature_version)
}

/// `"21.0.8"` is 21, `"1.8.0_392"` is 8, `"26-ea"` is 26.
fn feature_version(version: &str) -> Option<u32> {
    let mut numbers = version
        .trim_matches('"')
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        feature => Some(feature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path, name: &str, release: &str) -> PathBuf {
        let home = folder.join(name);
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::write(program(&home), "").unwrap();
        fs::write(home.join("release"), release).unwrap();
        home
    }

    #[test]
    fn versions_are_read_in_every_spelling() {
        let read = |version| feature_version(version);
        assert_eq!(read("\"21.0.8\""), Some(21));
        assert_eq!(read("\"25\""), Some(25));
        assert_eq!(read("\"26-ea\""), Some(26));
        assert_eq!(read("\"1.8.0_392\""), Some(8));
        assert_eq!(read("\"\""), None);
        assert_eq!(read("\"1\""), None);
    }

    #[test]
    fn the_first_home_that_is_new_enough_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let old = home(folder.path(), "17", "JAVA_VERSION=\"17.0.15\"\n");
        let silent = home(folder.path(), "silent", "");
        let fit = home(
            folder.path(),
            "21",
            "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"21.0.8\"\n",
        );
        let newer = home(folder.path(), "25", "JAVA_VERSION=\"25.0.3\"\n");
        let bare = folder.path().join("absent");
        assert_eq!(
            first_fit([bare.clone(), old.clone(), silent, fit.clone(), newer].into_iter()),
            Some(program(&fit))
        );
        assert_eq!(first_fit([bare, old].into_iter()), None);
    }
}
