//! What processes have used, as the kernel counts it: CPU-seconds and peak memory, read from `/proc` (proc(5)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{SysconfVar, sysconf};

/// Seconds of both cores that a process has used so far, its ended threads among them; 0 where it is gone.
pub fn cpu_seconds(process_id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / ticks_per_second()
}

/// CPU-seconds of this process so far, or of all its children that have ended and were waited for.
pub fn cpu_seconds_of(who: UsageWho) -> io::Result<f64> {
    let used = getrusage(who)?;
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

fn ticks_per_second() -> f64 {
    match sysconf(SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) => ticks as f64,
        // What Linux has had on every architecture for twenty years.
        _ => 100.0,
    }
}

/// The most memory that a process ever had resident, bytes; 0 where it is gone.
pub fn peak_memory_bytes(process_id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// What some processes use from one moment on, by their names.
pub struct Meter {
    before: BTreeMap<&'static str, (u32, f64)>,
}

impl Meter {
    /// Counts from now on.
    pub fn start(processes: impl IntoIterator<Item = (&'static str, u32)>) -> Self {
        let counted = |(name, id)| (name, (id, cpu_seconds(id)));
        Self {
            before: processes.into_iter().map(counted).collect(),
        }
    }

    /// CPU-seconds of each process since then.
    pub fn read(&self) -> BTreeMap<&'static str, f64> {
        let used =
            |(name, (id, before)): (&&'static str, &(u32, f64))| (*name, cpu_seconds(*id) - before);
        self.before.iter().map(used).collect()
    }
}

const MILLION: u64 = 1_000_000;

/// What this process has used when it has its first partition, and each time that it has read another million events: CPU-seconds since its start, a line each in
/// a file.
pub struct ByMillion {
    has_started: Once,
    events: AtomicU64,
    file: File,
}

/// What was noted of a process, CPU-seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Noted {
    /// Until it had its first partition.
    pub start: f64,
    /// From there on for the first million events, from there on for the second, and so on.
    pub millions: Vec<f64>,
}

impl ByMillion {
    /// Nothing read yet.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            has_started: Once::new(),
            events: AtomicU64::new(0),
            file: File::create(path)?,
        })
    }

    /// A partition is there to be read.
    pub fn start(&self) {
        self.has_started.call_once(|| self.note());
    }

    /// Counts events that were read, at most a million at once.
    pub fn count(&self, events: u64) {
        let before = self.events.fetch_add(events, Ordering::Relaxed);
        if before / MILLION < (before + events) / MILLION {
            self.note();
        }
    }

    fn note(&self) {
        let noted =
            cpu_seconds_of(UsageWho::RUSAGE_SELF).and_then(|used| writeln!(&self.file, "{used}"));
        if let Err(error) = noted {
            eprintln!("what the events cost cannot be noted: {error}");
        }
    }
}

impl Noted {
    /// Reads the file of a process.
    ///
    /// # Errors
    /// If it cannot be read, or holds anything else.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut before = 0.0;
        let since = |line: &str| {
            let used: f64 = line.parse().map_err(io::Error::other)?;
            Ok(used - std::mem::replace(&mut before, used))
        };
        let text = fs::read_to_string(path)?;
        let mut noted = text.lines().map(since);
        Ok(Self {
            start: noted.next().transpose()?.unwrap_or_default(),
            millions: noted.collect::<io::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_million_events_is_charged_for_what_was_used_since_the_one_before_and_the_first_not_for_the_start()
     {
        let file = tempfile::NamedTempFile::new().unwrap();
        let by_million = ByMillion::create(file.path()).unwrap();
        (0..2).for_each(|_| by_million.start());
        (0..2_500).for_each(|_| by_million.count(1_000));
        let noted = Noted::read(file.path()).unwrap();
        assert!(noted.start > 0.0, "{noted:?}");
        assert_eq!(noted.millions.len(), 2);
        assert!(
            noted.millions.iter().all(|seconds| *seconds >= 0.0),
            "{noted:?}"
        );
    }

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        let meter = Meter::start([("me", std::process::id())]);
        let mut sum = 0_u64;
        while meter.read()["me"] < 0.05 {
            sum = (0..1_000_000_u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(peak_memory_bytes(std::process::id()) > 1_000_000, "{sum}");
    }

    #[test]
    fn a_process_that_is_gone_has_used_nothing() {
        assert!(cpu_seconds(u32::MAX) < f64::EPSILON);
        assert_eq!(peak_memory_bytes(u32::MAX), 0);
    }
}
