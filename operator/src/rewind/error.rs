//! Why a rewind is not done.

use activity_platform::{clickhouse, kafka};
use activity_runtime::RunError;
use activity_runtime::standing::Phase;

use super::groups::Member;
use super::to::NotAPlace;
use crate::Error;

/// Why a rewind is not done.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// Kafka or ClickHouse.
    #[error(transparent)]
    Target(#[from] Error),
    /// The group could not read on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The group runs.
    #[error(
        "{group} runs: {}. Stop its processes, or let them step aside with --stop-group: they wait, and go on by themselves when the rewind is done",
        members(running)
    )]
    Running {
        /// The group.
        group: String,
        /// Who is in it.
        running: Vec<Member>,
    },
    /// Another rewind has not ended.
    #[error(
        "a rewind of {group} to epoch {epoch} is unfinished ({phase}): {}",
        phase.ways_on(group)
    )]
    Unfinished {
        /// The group.
        group: String,
        /// Its epoch.
        epoch: u32,
        /// How far it has come.
        phase: Phase,
    },
    /// There is nothing to resume or to give up.
    #[error("no rewind of {group} is unfinished")]
    NothingUnfinished {
        /// The group.
        group: String,
    },
    /// Nothing lies between the place asked for and where the group is.
    #[error("{to}: the group has read nothing from there on that the log still has")]
    NothingToRead {
        /// The place.
        to: String,
    },
    /// The group does not read such a partition, or derives it itself.
    #[error("{group} reads no partition {partition} that could be rewound")]
    NoSuchPartition {
        /// The group.
        group: String,
        /// Topic and partition.
        partition: String,
    },
    /// What is remembered is no place.
    #[error(transparent)]
    NotAPlace(#[from] NotAPlace),
    /// The log is not the one that the group has read.
    #[error(
        "topic {topic} was made anew: its log is not the one that the group has read, and the rows of that one cannot be made again"
    )]
    TopicMadeAnew {
        /// Its full name.
        topic: String,
    },
    /// Tables cannot be exchanged.
    #[error(
        "database {database} has the engine {engine}; tables can be exchanged in one of the engine Atomic"
    )]
    NotAtomic {
        /// The database.
        database: String,
        /// Its engine.
        engine: String,
    },
    /// Somebody has dropped the new tables or made them anew.
    #[error(
        "the new tables beside those of {group} are not the ones that this rewind has filled: give it up with `activity rewind {group} --abort`, then rewind again"
    )]
    OtherTables {
        /// The group.
        group: String,
    },
    /// Somebody else works on it.
    #[error("another `activity rewind {group}` is at work")]
    Busy {
        /// The group.
        group: String,
    },
    /// The last phase has begun.
    #[error(
        "the new tables are taking the place of the old ones: finish it with `activity rewind {group} --resume`"
    )]
    TooLate {
        /// The group.
        group: String,
    },
    /// Somebody else went on with it.
    #[error("another process has taken this rewind over")]
    TakenOver,
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<clickhouse::Error> for RewindError {
    fn from(error: clickhouse::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<kafka::Error> for RewindError {
    fn from(error: kafka::Error) -> Self {
        Error::from(error).into()
    }
}

pub(super) fn members(running: &[Member]) -> String {
    let hosts: Vec<&str> = running.iter().map(|member| member.host.as_str()).collect();
    format!("{} process(es), on {}", running.len(), hosts.join(", "))
}
