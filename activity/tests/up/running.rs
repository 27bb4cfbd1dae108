//! Who runs on this machine, from /proc.

use std::fs;

/// A process as /proc shows it (proc(5)); its start tells it from a later one of the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub id: u32,
    pub parent: u32,
    started: u64,
    pub command: String,
}

impl Running {
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(Self::find).collect()
    }

    /// None: gone, or a zombie.
    fn find(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let command = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        // From the third field on: the second, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (!["Z", "X"].contains(&fields[0])).then_some(())?;
        Some(Self {
            id,
            parent: fields[1].parse().ok()?,
            started: fields[19].parse().ok()?,
            command: command.replace('\0', " "),
        })
    }

    pub fn metrics_address(&self) -> &str {
        let (_, after) = self.command.split_once("--metrics ").unwrap();
        after.split(' ').next().unwrap()
    }

    pub fn is_alive(&self) -> bool {
        Self::find(self.id).is_some_and(|found| found.started == self.started)
    }
}
