//! `activity rewind`: a group reads again, after a bug. Its tables are built beside the live ones, in a new epoch, and exchanged with them when they are whole,
//! so that whoever reads them never sees doubles or holes.
//!
//! A row in the table `rewinds` says how far it has come. Each phase may be repeated, so that a rewind that was killed is resumed where it was, and until the
//! first of its tables is exchanged it can be given up, because nothing of the group's own is touched before: it reads as a Kafka group of its own, in an epoch
//! of its own, into tables of its own. As long as it is unfinished the group's processes wait (see `activity_runtime::standing`).
//!
//! ```text
//! planned ─► copying ─► reading ─► exchanging ─► done
//!    └──────────┴──────────┴───────────┴─► aborted
//! ```

mod error;
mod groups;
mod offsets;
mod plan;
mod points;
mod reading;
mod tables;
mod to;

use std::sync::Arc;
use std::time::Duration;

use activity_consumers::Group;
use activity_platform::clickhouse::Database;
use activity_platform::fault::{self, Point};
use activity_platform::metrics::Metrics;
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::RuntimeSettings;
use activity_runtime::standing::{Phase, Record, Standing};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use error::RewindError;
use error::members;
pub use groups::Member;
use groups::{GroupClient, Lease};
pub use plan::{Plan, TablePlan};
pub use points::PartitionPlan;
pub use to::{NotAPlace, To};

use crate::Error;

/// How often it is looked whether the group's processes have stepped aside.
const STEP_ASIDE_LOOK: Duration = Duration::from_millis(500);
/// How long they may take.
const STEP_ASIDE_WAIT: Duration = Duration::from_secs(60);

/// What is happening.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The next step, in words.
    Step(String),
    /// The group reads again.
    Reading {
        /// Messages that are settled.
        read: u64,
        /// Messages that are to be settled, as far as it is known.
        of: u64,
        /// What stands in the way, or what comes first.
        waits_for: Option<String>,
    },
}

/// What a rewind has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rewound {
    /// The group.
    pub group: String,
    /// How far back.
    pub to: String,
    /// The epoch that the group is in now.
    pub epoch: u32,
    /// `done` or `aborted`.
    pub phase: Phase,
}

/// How a rewind is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back.
    pub to: To,
    /// Processes of the group that run are asked to step aside; else they forbid it.
    pub stop_group: bool,
    /// The old tables are kept, as `<table>__epoch_<n>`.
    pub keep_old: bool,
}

/// One group that is rewound, or may be.
pub struct Rewinder<'a> {
    targets: &'a Targets,
    group: &'static Group,
    settings: RuntimeSettings,
    metrics: Arc<Metrics>,
    progress: &'a (dyn Fn(Progress) + Sync),
    stop: CancellationToken,
    /// For questions and repeatable statements.
    database: Database,
    /// For statements that move whole tables, and that must not be sent twice.
    mover: Database,
}

fn live_group_id(settings: &KafkaSettings, group: &str) -> String {
    format!("{}{group}", settings.group_prefix)
}

/// The Kafka group that reads for a rewind.
fn rewind_group_id(settings: &KafkaSettings, group: &str, epoch: u32) -> String {
    format!("{}{group}.rewind-{epoch}", settings.group_prefix)
}

impl<'a> Rewinder<'a> {
    /// Nothing is asked or changed yet.
    ///
    /// # Errors
    /// If ClickHouse cannot be used as configured.
    pub fn new(
        targets: &'a Targets,
        group: &'static Group,
        settings: RuntimeSettings,
        metrics: Arc<Metrics>,
        progress: &'a (dyn Fn(Progress) + Sync),
        stop: CancellationToken,
    ) -> Result<Self, RewindError> {
        let database = Database::new(&targets.clickhouse)?;
        Ok(Self {
            targets,
            group,
            settings,
            metrics,
            progress,
            stop,
            mover: database.clone().unhurried(),
            database: database.patient(),
        })
    }

    /// What a rewind would do. Changes nothing.
    ///
    /// # Errors
    /// [`RewindError`] where it cannot be done.
    pub async fn plan(&self, to: &To) -> Result<Plan, RewindError> {
        self.none_unfinished().await?;
        plan::plan(self.targets, &self.database, self.group, to).await
    }

    /// Rewinds the group.
    ///
    /// # Errors
    /// [`RewindError`]; once the rewind is begun it stays, to be resumed or given up.
    pub async fn begin(&self, options: &Options) -> Result<Rewound, RewindError> {
        let running = self.members().await?;
        if !running.is_empty() && !options.stop_group {
            return Err(self.running(running));
        }
        let _lease = self.lease().await?;
        self.none_unfinished().await?;
        let engine = tables::engine(&self.database).await?;
        if engine != "Atomic" {
            let database = self.database.name().to_owned();
            return Err(RewindError::NotAtomic { database, engine });
        }
        let standing = Standing::of(&self.database, self.group.name).await?;
        let mut record = Record {
            consumer_group: self.group.name.to_owned(),
            epoch: standing.next_epoch(),
            version: 0,
            from_epoch: standing.epoch(),
            phase: Phase::Planned,
            asked: options.to.to_string(),
            points: Default::default(),
            tables: Default::default(),
            keep_old: options.keep_old,
        };
        self.write(&mut record, Phase::Planned).await?;
        // From here on every process that comes waits; those that came before are counted once more.
        let begun = self.stepped_aside(options.stop_group).await;
        let begun = match begun {
            Ok(()) => self.drive(&mut record).await,
            Err(error) => Err(error),
        };
        if begun.is_err() && record.phase == Phase::Planned {
            // Nothing has been done yet: the group goes on as it was.
            self.write(&mut record, Phase::Aborted).await?;
        }
        begun?;
        Ok(self.rewound(&record))
    }

    /// Goes on with a rewind that was interrupted.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn resume(&self, stop_group: bool) -> Result<Rewound, RewindError> {
        let _lease = self.lease().await?;
        let mut record = self.unfinished().await?;
        // Whoever worked on it before, and wakes up again, finds another version.
        let phase = record.phase;
        self.write(&mut record, phase).await?;
        self.stepped_aside(stop_group).await?;
        self.drive(&mut record).await?;
        Ok(self.rewound(&record))
    }

    /// Gives an unfinished rewind up: everything is as it was before.
    ///
    /// # Errors
    /// [`RewindError::TooLate`] if one of the new tables has taken its place.
    pub async fn abort(&self) -> Result<Rewound, RewindError> {
        let _lease = self.lease().await?;
        let mut record = self.unfinished().await?;
        if record.phase == Phase::Exchanging
            && tables::is_begun(&self.database, self.group, &record).await?
        {
            let group = self.group.name.to_owned();
            return Err(RewindError::TooLate { group });
        }
        // First: what is left of the tables is dropped by the next rewind, but without them this one could not be resumed.
        self.write(&mut record, Phase::Aborted).await?;
        tables::drop_beside(&self.database, self.group).await?;
        self.forget_reading_group(&record).await;
        Ok(self.rewound(&record))
    }

    /// From the phase that it is in to the end.
    async fn drive(&self, record: &mut Record) -> Result<(), RewindError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(RewindError::Interrupted);
            }
            match record.phase {
                Phase::Planned => self.set_points(record).await?,
                Phase::Copying => {
                    tokio::select! {
                        copied = self.copy(record) => copied?,
                        () = self.stop.cancelled() => return Err(RewindError::Interrupted),
                    }
                }
                Phase::Reading => self.read(record).await?,
                Phase::Exchanging => self.exchange(record).await?,
                Phase::Done | Phase::Aborted => return Ok(()),
            }
        }
    }

    async fn set_points(&self, record: &mut Record) -> Result<(), RewindError> {
        let to = To::parse(&record.asked, jiff::Timestamp::now())?;
        let plan = plan::plan(self.targets, &self.database, self.group, &to).await?;
        record.points = plan.points();
        self.write(record, Phase::Copying).await
    }

    async fn copy(&self, record: &mut Record) -> Result<(), RewindError> {
        tables::make_beside(&self.mover, self.group, record.epoch).await?;
        for table in self.group.tables {
            self.step(format!("copying the rows of {} that stay", table.name));
            tables::copy_rows(&self.mover, table.name, record).await?;
        }
        tables::copy_ledger(&self.mover, self.group, record).await?;
        fault::reach(Point::RewindCopied);
        record.tables = tables::identities(&self.database, self.group).await?;
        self.write(record, Phase::Reading).await
    }

    async fn read(&self, record: &mut Record) -> Result<(), RewindError> {
        tables::check(&self.database, self.group, record).await?;
        self.step(format!("reading again, in epoch {}", record.epoch));
        let (kafka, group, at) = (self.targets.kafka.clone(), self.group, record.clone());
        blocking(move || offsets::begin_reading(&kafka, group, &at)).await?;
        let reading = reading::Reading {
            targets: self.targets,
            database: &self.database,
            group: self.group,
            record,
            progress: self.progress,
        };
        reading
            .read(self.settings.clone(), self.metrics.clone(), &self.stop)
            .await?;
        fault::reach(Point::RewindRead);
        // Once more, as long as it can be given up: what was read went into tables of these names, whoever has made them.
        tables::check(&self.database, self.group, record).await?;
        self.write(record, Phase::Exchanging).await
    }

    async fn exchange(&self, record: &mut Record) -> Result<(), RewindError> {
        self.step("exchanging the tables".to_owned());
        let (kafka, group, at) = (self.targets.kafka.clone(), self.group, record.clone());
        let offsets = blocking(move || {
            // First: nobody may still write to the new tables under their old names.
            offsets::reading_group(&kafka, group, &at)?;
            offsets::reading_offsets(&kafka, group, &at)
        })
        .await?;
        tables::exchange(&self.mover, self.group, record).await?;
        fault::reach(Point::BeforeRewindCommit);
        // The group goes on where the reading group stands, with the same words: a claim that it left in flight is in flight for the group.
        let kafka = self.targets.kafka.clone();
        blocking(move || {
            let client = GroupClient::new(&kafka, &live_group_id(&kafka, group.name))?;
            Ok(client.commit(&offsets)?)
        })
        .await?;
        fault::reach(Point::BeforeEpoch);
        let row = serde_json::json!({ "consumer_group": self.group.name, "epoch": record.epoch });
        self.database.insert_json("epochs", &[row]).await?;
        fault::reach(Point::AfterEpoch);
        if record.keep_old {
            tables::keep_old(&self.mover, self.group, record).await?;
        } else {
            tables::drop_beside(&self.mover, self.group).await?;
        }
        self.write(record, Phase::Done).await?;
        self.forget_reading_group(record).await;
        Ok(())
    }

    /// Waits until nobody is in the group; without `stop_group` there must be nobody.
    async fn stepped_aside(&self, stop_group: bool) -> Result<(), RewindError> {
        let began = tokio::time::Instant::now();
        loop {
            let running = self.members().await?;
            if running.is_empty() {
                return Ok(());
            }
            if !stop_group || began.elapsed() > STEP_ASIDE_WAIT {
                return Err(self.running(running));
            }
            self.step(format!("waiting for {} to step aside", members(&running)));
            tokio::select! {
                () = self.stop.cancelled() => return Err(RewindError::Interrupted),
                () = tokio::time::sleep(STEP_ASIDE_LOOK) => (),
            }
        }
    }

    async fn members(&self) -> Result<Vec<Member>, RewindError> {
        let (kafka, group) = (self.targets.kafka.clone(), self.group.name);
        blocking(move || Ok(GroupClient::new(&kafka, &live_group_id(&kafka, group))?.members()?))
            .await
    }

    async fn lease(&self) -> Result<Lease, RewindError> {
        let (kafka, group) = (self.targets.kafka.clone(), self.group);
        let group_id = format!("{}{}.rewind", kafka.group_prefix, group.name);
        let topic = group
            .reads
            .first()
            .map(|topic| topic.full_name(&kafka.topic_prefix));
        let topic = topic.unwrap_or_default();
        blocking(move || Lease::acquire(&kafka, &group_id, &topic, group.name)).await
    }

    async fn none_unfinished(&self) -> Result<(), RewindError> {
        match self.unfinished().await {
            Err(RewindError::NothingUnfinished { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(record) => Err(RewindError::Unfinished {
                group: record.consumer_group,
                epoch: record.epoch,
                phase: record.phase,
            }),
        }
    }

    /// What can be done about a rewind of the group that was left unfinished, if there is one as far as ClickHouse says.
    pub async fn ways_on(&self) -> Option<String> {
        let record = self.unfinished().await.ok()?;
        Some(record.phase.ways_on(self.group.name))
    }

    async fn unfinished(&self) -> Result<Record, RewindError> {
        let standing = Standing::of(&self.database, self.group.name).await?;
        standing
            .unfinished()
            .cloned()
            .ok_or_else(|| RewindError::NothingUnfinished {
                group: self.group.name.to_owned(),
            })
    }

    /// Writes how far the rewind has come, unless somebody else has written meanwhile.
    async fn write(&self, record: &mut Record, phase: Phase) -> Result<(), RewindError> {
        let found = activity_runtime::standing::records(&self.database, self.group.name).await?;
        let found = found.iter().find(|found| found.epoch == record.epoch);
        if found.map_or(0, |found| found.version) != record.version {
            return Err(RewindError::TakenOver);
        }
        let next = Record {
            version: record.version + 1,
            phase,
            ..record.clone()
        };
        self.database.insert_json("rewinds", &[&next]).await?;
        *record = next;
        Ok(())
    }

    async fn forget_reading_group(&self, record: &Record) {
        let group_id = rewind_group_id(&self.targets.kafka, self.group.name, record.epoch);
        if let Err(error) = groups::delete(&self.targets.kafka, &group_id).await {
            tracing::debug!(%error, group_id, "the kafka group of the rewind stays until its offsets expire");
        }
    }

    fn step(&self, what: String) {
        (self.progress)(Progress::Step(what));
    }

    fn running(&self, running: Vec<Member>) -> RewindError {
        let group = self.group.name.to_owned();
        RewindError::Running { group, running }
    }

    fn rewound(&self, record: &Record) -> Rewound {
        Rewound {
            group: record.consumer_group.clone(),
            to: record.asked.clone(),
            epoch: if record.phase == Phase::Done {
                record.epoch
            } else {
                record.from_epoch
            },
            phase: record.phase,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RewindError> + Send + 'static,
) -> Result<T, RewindError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::from)?
}
