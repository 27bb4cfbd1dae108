//! Which cells there are. What each does is in `disturb.rs`.

use activity_platform::fault::Point;

/// The group of most cells.
const ANALYTICS: &str = "analytics";

/// What is done to the group, or to what it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The group's process is killed at the point.
    Killed,
    /// The group's process is killed at the point, while it takes up where an earlier one was killed.
    KilledTakingUp,
    /// `activity setup` is killed at the point.
    SetupKilled,
    /// While the process is held at the point, another joins the group.
    Join,
    /// While the process is held at the point, another leaves the group.
    Leave,
    /// The process is stopped (SIGSTOP) at the point until another has taken over and caught up, then goes on.
    Zombie,
    /// While the process is held at the point, ClickHouse is killed and started again.
    EngineKilled,
    /// ClickHouse is killed as soon as its deduplication log has grown.
    EngineKilledAtItsLog,
    /// ClickHouse is stopped in order and started again.
    EngineRestarted,
    /// ClickHouse accepts and never answers, for 8 s.
    EngineHung,
    /// ClickHouse takes no writes, for 5 s.
    EngineReadOnly,
    /// ClickHouse has no memory for inserts, for 5 s.
    EngineOutOfMemory,
    /// ClickHouse finds no space on its disk, for 5 s.
    EngineDiskFull,
    /// ClickHouse may write no byte to any file (file size limit), for 5 s.
    EngineFileSize,
    /// ClickHouse is down for a minute while traffic goes on.
    EngineDown,
    /// The broker is killed and started again.
    BrokerKilled,
    /// The broker that leads the group is killed, two of three go on; it comes back.
    OneOfThreeBrokersKilled,
    /// All three brokers are killed, and started again.
    AllBrokersKilled,
    /// The three brokers are restarted in order, one after the other.
    BrokersRolled,
    /// The registry is down when the group starts, and comes 3 s later.
    RegistryDown,
    /// The registry does not answer for 5 s.
    RegistrySlow,
    /// A tenth of the messages is malformed, unknown schema ids among them.
    UnknownIds,
    /// The group's offsets are deleted while it is down.
    OffsetsDeleted,
    /// The group's offsets are set back to the log's start while it is down.
    OffsetsSetBack,
    /// While the group is down, or was killed at the point, retention takes half of what it has not read.
    RetentionPassed,
    /// A topic is deleted and made anew; the group says so, and goes on in another database.
    TopicRecreated,
    /// `activity rewind` to the middle of what is settled is killed at the point, and resumed.
    RewindKilled,
    /// `activity rewind` is killed at the point, and given up; then the group is rewound after all.
    RewindGivenUp,
    /// Two instances are stopped and continued in turn for two minutes, so that each takes the other's partitions.
    Fight,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub disturbance: Disturbance,
    /// Where the process is killed or held: the point, and the how manyth time it is passed.
    pub at: Option<(Point, u32)>,
    pub group: &'static str,
    /// Share of the messages that is malformed.
    pub malformed_share: f64,
    /// CI runs it.
    pub short: bool,
}

impl Cell {
    const fn new(disturbance: Disturbance, at: Option<(Point, u32)>) -> Self {
        Self {
            disturbance,
            at,
            group: ANALYTICS,
            malformed_share: 0.0,
            short: false,
        }
    }

    const fn group(mut self, group: &'static str) -> Self {
        self.group = group;
        self
    }

    const fn malformed(mut self, share: f64) -> Self {
        self.malformed_share = share;
        self
    }

    const fn short(mut self) -> Self {
        self.short = true;
        self
    }

    pub fn point(&self) -> Option<Point> {
        self.at.map(|(point, _)| point)
    }

    /// Brokers of its stack.
    pub fn brokers(&self) -> u8 {
        match self.disturbance {
            Disturbance::OneOfThreeBrokersKilled
            | Disturbance::AllBrokersKilled
            | Disturbance::BrokersRolled => 3,
            _ => 1,
        }
    }

    /// Fit for a database's name.
    pub fn name(&self) -> String {
        let disturbance =
            format!("{:?}", self.disturbance)
                .chars()
                .fold(String::new(), |mut name, letter| {
                    if letter.is_uppercase() && !name.is_empty() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_lowercase());
                    name
                });
        let at = self.at.map(|(point, nth)| format!("_{point}_{nth}"));
        let group = (self.group != ANALYTICS).then(|| format!("_{}", self.group));
        [Some(disturbance), at, group]
            .into_iter()
            .flatten()
            .collect()
    }

    /// What happens, in words.
    pub fn about(&self) -> String {
        let done = match self.disturbance {
            Disturbance::Killed => "the process is killed",
            Disturbance::KilledTakingUp => {
                "the process is killed while it takes up where another was killed"
            }
            Disturbance::SetupKilled => "`activity setup` is killed and run again",
            Disturbance::Join => "another instance joins",
            Disturbance::Leave => "another instance leaves",
            Disturbance::Zombie => "the process is stopped past its session, replaced, and goes on",
            Disturbance::EngineKilled => "ClickHouse is killed and started again",
            Disturbance::EngineKilledAtItsLog => {
                "ClickHouse is killed between its deduplication log and its part, five times"
            }
            Disturbance::EngineRestarted => "ClickHouse is restarted in order",
            Disturbance::EngineHung => "ClickHouse accepts and never answers, 8 s",
            Disturbance::EngineReadOnly => "ClickHouse is read-only, 5 s",
            Disturbance::EngineOutOfMemory => "ClickHouse is over its memory limit, 5 s",
            Disturbance::EngineDiskFull => "ClickHouse has no space on its disk, 5 s",
            Disturbance::EngineFileSize => "ClickHouse is not allowed to write to files, 5 s",
            Disturbance::EngineDown => "ClickHouse is killed and stays away for 60 s",
            Disturbance::BrokerKilled => "the only broker is killed and started again",
            Disturbance::OneOfThreeBrokersKilled => {
                "one of three brokers is killed, and comes back"
            }
            Disturbance::AllBrokersKilled => "all three brokers are killed and started again",
            Disturbance::BrokersRolled => "three brokers are restarted, one after the other",
            Disturbance::RegistryDown => {
                "the registry is down when the group starts, and comes 3 s later"
            }
            Disturbance::RegistrySlow => "the registry does not answer, 5 s",
            Disturbance::UnknownIds => "a tenth of the messages is malformed",
            Disturbance::OffsetsDeleted => "the committed offsets are deleted",
            Disturbance::OffsetsSetBack => {
                "the committed offsets are set back to the start of the log"
            }
            Disturbance::RetentionPassed => {
                "retention takes half of what the group, which is down, has not read (counted as lost, not as missing)"
            }
            Disturbance::TopicRecreated => {
                "a topic is deleted and made anew; the group goes on in another database"
            }
            Disturbance::RewindKilled => "`activity rewind` is killed and resumed",
            Disturbance::RewindGivenUp => {
                "`activity rewind` is killed and given up, then run again"
            }
            Disturbance::Fight => {
                "two instances are stopped and continued in turn, each taking the other's partitions"
            }
        };
        match self.at {
            Some((point, nth)) => format!("{done}: {} ({nth})", point.about().trim()),
            None => done.to_owned(),
        }
    }
}

/// All cells.
pub fn all() -> Vec<Cell> {
    use Disturbance as D;
    use Point as P;
    let at = |disturbance, point, nth| Cell::new(disturbance, Some((point, nth)));
    let mut cells = vec![
        at(D::Killed, P::BeforeCommit, 1),
        at(D::Killed, P::BeforeCommit, 3),
        at(D::Killed, P::AfterCommit, 1),
        at(D::Killed, P::AfterCommit, 3).short(),
        at(D::Killed, P::InsertBody, 2).short(),
        at(D::Killed, P::InsertAnswered, 2).short(),
        at(D::Killed, P::BetweenTables, 1)
            .group("recommendation")
            .short(),
        at(D::Killed, P::BeforeLedger, 2).short(),
        at(D::Killed, P::AfterLedger, 2),
        at(D::Killed, P::DeadLetterSent, 3).malformed(0.1).short(),
        at(D::Killed, P::Delivered, 1).malformed(0.1),
        at(D::Killed, P::Delivered, 2).group("recommendation"),
        at(D::Killed, P::SnapshotWrite, 1).group("recommendation"),
        at(D::KilledTakingUp, P::SnapshotRead, 1).group("recommendation"),
        at(D::KilledTakingUp, P::Replaying, 1)
            .group("recommendation")
            .short(),
        at(D::KilledTakingUp, P::InsertBody, 1),
        at(D::KilledTakingUp, P::BeforeLedger, 1),
        at(D::Killed, P::Revoking, 1),
        at(D::SetupKilled, P::BetweenStatements, 3).short(),
        at(D::SetupKilled, P::BeforeMigrationRow, 2),
    ];
    for point in [
        P::BeforeCommit,
        P::AfterCommit,
        P::InsertBody,
        P::InsertAnswered,
        P::BeforeLedger,
        P::AfterLedger,
    ] {
        cells.push(at(D::Join, point, 3));
        cells.push(at(D::Leave, point, 3));
        cells.push(at(D::Zombie, point, 3));
    }
    for point in [P::InsertBody, P::InsertAnswered, P::BeforeLedger] {
        cells.push(at(D::EngineKilled, point, 2));
    }
    for (point, nth) in [
        (P::RewindCopied, 1),
        (P::AfterCommit, 2),
        (P::InsertAnswered, 2),
        (P::RewindRead, 1),
        (P::BeforeRewindCommit, 1),
        (P::BeforeEpoch, 1),
        (P::AfterEpoch, 1),
    ] {
        cells.push(at(D::RewindKilled, point, nth));
    }
    cells.extend([
        at(D::RewindKilled, P::BetweenExchanges, 1).short(),
        at(D::RewindKilled, P::RewindRead, 1).group("recommendation"),
        at(D::RewindGivenUp, P::RewindCopied, 1),
        at(D::RewindGivenUp, P::InsertAnswered, 2),
        at(D::RewindGivenUp, P::RewindRead, 1).group("recommendation"),
        Cell::new(D::EngineKilledAtItsLog, None).short(),
        Cell::new(D::EngineRestarted, None),
        Cell::new(D::EngineHung, None),
        Cell::new(D::EngineReadOnly, None),
        Cell::new(D::EngineOutOfMemory, None),
        Cell::new(D::EngineDiskFull, None).short(),
        Cell::new(D::EngineFileSize, None),
        Cell::new(D::EngineDown, None),
        Cell::new(D::BrokerKilled, None),
        Cell::new(D::OneOfThreeBrokersKilled, None),
        Cell::new(D::AllBrokersKilled, None),
        Cell::new(D::BrokersRolled, None),
        Cell::new(D::RegistryDown, None).short(),
        Cell::new(D::RegistrySlow, None),
        Cell::new(D::UnknownIds, None).malformed(0.1),
        Cell::new(D::OffsetsDeleted, None),
        at(D::OffsetsDeleted, P::BeforeLedger, 3),
        Cell::new(D::OffsetsSetBack, None),
        Cell::new(D::RetentionPassed, None).short(),
        at(D::RetentionPassed, P::AfterCommit, 3),
        at(D::RetentionPassed, P::BeforeLedger, 3),
        Cell::new(D::TopicRecreated, None),
        Cell::new(D::Fight, None),
    ]);
    for cell in &mut cells {
        let is_short = matches!(
            (cell.disturbance, cell.point()),
            (D::Zombie, Some(P::InsertBody)) | (D::Join, Some(P::InsertAnswered))
        );
        cell.short |= is_short;
    }
    cells
}
