//! Named moments at which a fault test ends or halts this very process, so that "killed between the insert and the next commit" is a place and not luck.
//!
//! Armed by the environment of one process, `ACTIVITY_FAULT=POINT#N=kill|hold` and `ACTIVITY_FAULT_MARK=FILE`: when the point is passed for the Nth time, FILE is
//! written; `kill` then ends the process with SIGKILL, `hold` halts the thread until FILE is deleted. Not armed, a point costs one load of a static.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Environment variable that arms a point.
pub const FAULT: &str = "ACTIVITY_FAULT";
/// Environment variable with the file that says that the point was reached.
pub const FAULT_MARK: &str = "ACTIVITY_FAULT_MARK";
/// A held thread looks for its release this often.
const HOLD_STEP: Duration = Duration::from_millis(5);

macro_rules! points {
    ($($(#[doc = $about:literal])+ $name:ident = $word:literal,)+) => {
        /// The points, each named once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $about])+ $name,)+ }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Point] = &[$(Point::$name),+];

            /// Its name in the environment and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Point::$name => $word),+ }
            }

            /// What happens there.
            pub const fn about(self) -> &'static str {
                match self { $(Point::$name => concat!($($about),+)),+ }
            }
        }
    };
}

points! {
    /// Offsets, and with them claims, are about to be committed.
    BeforeCommit = "before_commit",
    /// Offsets, and with them claims, were committed.
    AfterCommit = "after_commit",
    /// An insert's body was sent in part.
    InsertBody = "insert_body",
    /// An insert was answered, and nobody knows it yet.
    InsertAnswered = "insert_answered",
    /// One table of a batch has its rows, another has not.
    BetweenTables = "between_tables",
    /// All rows of a batch are in, its row in the ledger is not.
    BeforeLedger = "before_ledger",
    /// The ledger has the batch, the committed offset does not say so yet.
    AfterLedger = "after_ledger",
    /// The first of a batch's dead letters was handed to the Kafka client.
    DeadLetterSent = "dead_letter_sent",
    /// All dead letters and derived messages of a batch are acknowledged.
    Delivered = "delivered",
    /// A stored state was read, and is not restored yet.
    SnapshotRead = "snapshot_read",
    /// The first message is fed again to rebuild state.
    Replaying = "replaying",
    /// A state was written in part.
    SnapshotWrite = "snapshot_write",
    /// A rebalance takes partitions away.
    Revoking = "revoking",
    /// A statement of a migration was run, the next was not.
    BetweenStatements = "between_statements",
    /// All statements of a migration were run, and nobody knows it yet.
    BeforeMigrationRow = "before_migration_row",
    /// A rewind has copied the rows that stay, and nobody knows it yet.
    RewindCopied = "rewind_copied",
    /// A rewind has read again what it replaces, and nobody knows it yet.
    RewindRead = "rewind_read",
    /// One table of a rewound group is exchanged, the others and the offsets are not.
    BetweenExchanges = "between_exchanges",
    /// The tables of a rewound group are exchanged, its offsets are not yet those of the rewind.
    BeforeRewindCommit = "before_rewind_commit",
    /// The offsets of a rewound group are those of the rewind, its epoch is the old one.
    BeforeEpoch = "before_epoch",
    /// A rewound group is in its new epoch, its old tables are still there.
    AfterEpoch = "after_epoch",
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = |point: &&Point| point.name() == name;
        let found = Point::ALL.iter().find(named);
        found
            .copied()
            .ok_or_else(|| format!("{name:?} is no fault point"))
    }
}

/// What happens at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// The thread halts until the mark is deleted.
    Hold,
}

/// A point, the how manyth time it is passed, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub point: Point,
    /// 1: the first time.
    pub nth: u32,
    /// What.
    pub action: Action,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Kill => "kill",
            Action::Hold => "hold",
        };
        write!(f, "{}#{}={action}", self.point, self.nth)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{FAULT}: {text:?} is not of the form POINT#N=kill|hold");
        let (place, action) = text.split_once('=').ok_or_else(malformed)?;
        let (point, nth) = place.split_once('#').ok_or_else(malformed)?;
        let action = match action {
            "kill" => Action::Kill,
            "hold" => Action::Hold,
            _ => return Err(malformed()),
        };
        Ok(Self {
            point: point.parse()?,
            nth: nth.parse().map_err(|_| malformed())?,
            action,
        })
    }
}

struct Armed {
    fault: Fault,
    mark: PathBuf,
    passed: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Reads the environment; to be called once, first of all. Says what it arms: nobody shall meet an armed process unaware.
///
/// # Errors
/// If the environment asks for something that there is not.
pub fn arm() -> Result<(), String> {
    let Some(fault) = std::env::var_os(FAULT) else {
        return Ok(());
    };
    let fault: Fault = fault.to_string_lossy().parse()?;
    let mark = std::env::var_os(FAULT_MARK)
        .ok_or_else(|| format!("{FAULT} needs {FAULT_MARK}, a file to be written"))?;
    tracing::warn!(%fault, "armed for a fault test");
    let armed = Armed {
        fault,
        mark: mark.into(),
        passed: AtomicU32::new(0),
    };
    // A second call finds the first one's.
    let _ = ARMED.set(armed);
    Ok(())
}

/// Passes a point.
#[inline]
pub fn reach(point: Point) {
    if let Some(armed) = ARMED.get() {
        armed.pass(point);
    }
}

impl Armed {
    #[cold]
    fn pass(&self, point: Point) {
        if point != self.fault.point
            || self.passed.fetch_add(1, Ordering::Relaxed) + 1 != self.fault.nth
        {
            return;
        }
        if let Err(error) = std::fs::write(&self.mark, point.name()) {
            tracing::error!(%error, mark = %self.mark.display(), "the mark cannot be written");
            return;
        }
        match self.fault.action {
            // Only fails for a process that is not there; this one is.
            Action::Kill => {
                let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
            }
            Action::Hold => {
                while self.mark.exists() {
                    std::thread::sleep(HOLD_STEP);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_as_it_was_written() {
        for point in Point::ALL {
            for action in [Action::Kill, Action::Hold] {
                let fault = Fault {
                    point: *point,
                    nth: 3,
                    action,
                };
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in [
            "",
            "before_commit",
            "before_commit#1",
            "before_commit=kill",
            "nowhere#1=kill",
            "before_commit#x=kill",
            "before_commit#1=maim",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
