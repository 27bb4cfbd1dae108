//! How starting and fetching tell what they do. The stack never prints: whoever starts it decides what a user sees.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Told about what happens while a stack is fetched and started. Calls come from several tasks at once.
pub trait Progress: Send + Sync {
    /// One thing begins or is done, said in a few lowercase words.
    fn step(&self, message: &str);

    /// A download goes on: `bytes` so far of about `total_bytes`. Called several times a second at most, and once at the
    /// end with both equal.
    fn download(&self, what: &str, bytes: u64, total_bytes: Option<u64>);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _message: &str) {}
    fn download(&self, _what: &str, _bytes: u64, _total_bytes: Option<u64>) {}
}

/// One line on stderr per step, and one per download every two seconds while something comes.
#[derive(Debug, Default)]
pub struct Stderr {
    /// What was last said of each download: when, and at how many bytes.
    said: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Stderr {
    const PAUSE: Duration = Duration::from_secs(2);

    fn is_due(&self, what: &str, bytes: u64, is_last: bool) -> bool {
        let mut said = self
            .said
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let (at, before) = said.get(what).copied().unzip();
        let due = is_last
            || at.is_none_or(|at| at.elapsed() >= Self::PAUSE) && before.unwrap_or(0) < bytes;
        if due {
            said.insert(what.to_owned(), (Instant::now(), bytes));
        }
        due
    }
}

impl Progress for Stderr {
    fn step(&self, message: &str) {
        eprintln!("{message}");
    }

    fn download(&self, what: &str, bytes: u64, total_bytes: Option<u64>) {
        if !self.is_due(what, bytes, total_bytes == Some(bytes)) {
            return;
        }
        let megabytes = bytes / 1_000_000;
        match total_bytes {
            Some(total) => eprintln!("fetching {what}: {megabytes} of {} MB", total / 1_000_000),
            None => eprintln!("fetching {what}: {megabytes} MB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_told_at_once_then_seldom_and_at_its_end() {
        let progress = Stderr::default();
        assert!(progress.is_due("a", 1, false));
        assert!(!progress.is_due("a", 2, false));
        assert!(
            progress.is_due("b", 1, false),
            "each download has its own pace"
        );
        assert!(!progress.is_due("c", 0, false), "nothing has come yet");
        assert!(progress.is_due("a", 2, true));
    }
}
