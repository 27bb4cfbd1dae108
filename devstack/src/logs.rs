//! The services' log files: `<data_dir>/logs/<service>.log`, begun anew at each start of the stack with one older one
//! kept beside it, so that they stay bounded over many runs.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const TAIL_BYTES_MAX: u64 = 16 * 1024;
const TAIL_LINES_MAX: usize = 15;

/// Opens a log to append to, with its folder.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().create(true).append(true).open(path)
}

/// Moves the log of the last run aside, over the one before it; absent is as good.
///
/// # Errors
/// If the operating system refuses.
pub fn rotate(path: &Path) -> io::Result<()> {
    match fs::rename(path, older(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// The last lines from byte `from` on, for an error message: whatever can be had.
pub(crate) fn tail(path: &Path, from: u64) -> String {
    let text = read_end(path, from).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return "(it says nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n")
}

fn read_end(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        from.max(length.saturating_sub(TAIL_BYTES_MAX)),
    ))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_of_this_run_only() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        let old = "of an earlier run\n";
        let new: String = (1..=20).map(|n| format!("line {n}\n\n")).collect();
        fs::write(&log, format!("{old}{new}")).unwrap();
        let tail = tail(&log, old.len() as u64);
        assert!(
            tail.starts_with("line 6\n") && tail.ends_with("\nline 20"),
            "{tail}"
        );
    }

    #[test]
    fn an_absent_or_empty_log_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            tail(&folder.path().join("absent.log"), 0),
            "(it says nothing)"
        );
    }

    #[test]
    fn rotation_keeps_one_older_log_and_minds_no_absence() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/x.log");
        rotate(&log).unwrap();
        for text in ["first", "second"] {
            open(&log).unwrap();
            fs::write(&log, text).unwrap();
            rotate(&log).unwrap();
        }
        assert!(!log.exists());
        assert_eq!(fs::read_to_string(older(&log)).unwrap(), "second");
    }
}
