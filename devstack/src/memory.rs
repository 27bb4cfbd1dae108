//! How much memory the processes of a running stack have, asked from outside of it: by the log files that they write to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Resident bytes of the processes that write to a log in this data folder, by the log's name (`kafka`, `analytics`); of those that this user may see.
pub fn memory_of_running(data_dir: &Path) -> BTreeMap<String, u64> {
    let mut memory = BTreeMap::new();
    let Ok(logs) = data_dir.join("logs").canonicalize() else {
        return memory;
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for id in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // Standard error: all that we start writes it to its log.
        let Ok(log) = fs::read_link(format!("/proc/{id}/fd/2")) else {
            continue;
        };
        let is_ours = log.parent() == Some(&logs);
        if let Some(name) = log.file_stem().filter(|_| is_ours) {
            *memory
                .entry(name.to_string_lossy().into_owned())
                .or_default() += resident_bytes(id);
        }
    }
    memory
}

/// `VmRSS` of a process (proc(5)); 0 where it is gone.
fn resident_bytes(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_by_its_log() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("logs")).unwrap();
        let log = fs::File::create(data.path().join("logs/kafka-2.log")).unwrap();
        // Waits until its stdin is closed.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let memory = memory_of_running(data.path());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(memory["kafka-2"] > 0, "{memory:?}");
        assert_eq!(memory.len(), 1);
        assert!(memory_of_running(data.path()).is_empty());
    }
}
