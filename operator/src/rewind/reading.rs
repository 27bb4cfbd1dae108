//! The reading phase: the runtime runs the group once more, into the new tables, until all that was there when it began is settled.
//!
//! Where it stands is read from the ledger, the same for one life as for ten. Live traffic goes on meanwhile, so an end is fixed for each topic: for sources
//! when reading begins, for an internal topic when all that it is derived from has been read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use activity_consumers::Group;
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::health::Readiness;
use activity_platform::kafka::Inspector;
use activity_platform::metrics::Metrics;
use activity_platform::settings::Targets;
use activity_runtime::resubmit::{Feed, feeds};
use activity_runtime::rewinds::Points;
use activity_runtime::standing::Record;
use activity_runtime::{Clients, LookUps, Reread, RuntimeSettings};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::plan::stage;
use super::{Progress, RewindError, rewind_group_id, tables};
use crate::Error;
use crate::messages::Messages;

/// How often the ledger is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

type Partition = (String, i32);

/// What is read, and where to.
pub struct Reading<'a> {
    /// Kafka, registry and ClickHouse.
    pub targets: &'a Targets,
    /// For questions.
    pub database: &'a Database,
    /// The group.
    pub group: &'static Group,
    /// The rewind.
    pub record: &'a Record,
    /// Who is told.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Reading<'_> {
    /// Reads until the ends are reached; then everything is settled and committed.
    ///
    /// # Errors
    /// [`RewindError::Interrupted`] if `stop` was cancelled before that, [`RewindError::Run`] if the group cannot go on.
    pub async fn read(
        &self,
        settings: RuntimeSettings,
        metrics: Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Result<(), RewindError> {
        let readiness = Readiness::default();
        let clients = Clients {
            targets: self.targets.clone(),
            metrics,
            readiness: readiness.clone(),
            look_ups: LookUps::default(),
        };
        let group = self.group;
        let reread = Reread {
            group_id: rewind_group_id(&self.targets.kafka, group.name, self.record.epoch),
            table_suffix: tables::SUFFIX,
        };
        let (runtime, ends) = (Handle::current(), stop.child_token());
        let stopping = ends.clone();
        let mut reading = tokio::task::spawn_blocking(move || {
            activity_runtime::reread(group, settings, &clients, runtime, reread, &stopping)
        });
        let reached = tokio::select! {
            ended = &mut reading => {
                ended.map_err(Error::from)??;
                return Err(if stop.is_cancelled() { RewindError::Interrupted } else { RewindError::TakenOver });
            }
            reached = self.reach_ends(&readiness) => reached,
            () = stop.cancelled() => Err(RewindError::Interrupted),
        };
        // Also where something failed: what is in flight is settled, within bounds.
        ends.cancel();
        reading.await.map_err(Error::from)??;
        reached
    }

    /// Returns once every partition has settled up to its end.
    async fn reach_ends(&self, readiness: &Readiness) -> Result<(), RewindError> {
        let mut ends: HashMap<Partition, i64> = HashMap::new();
        for stage in stages(feeds(self.group, &self.targets.kafka.topic_prefix)) {
            for name in stage {
                ends.extend(log_ends(self.targets, self.group, name.to_string()).await?);
            }
            loop {
                let settled = settled(self.database, self.group, self.record).await?;
                let points = &self.record.points;
                let (mut read, mut of) = (0, 0);
                for (partition, end) in &ends {
                    let point = points.get(&partition.0, partition.1).unwrap_or(0);
                    of += (end - point).max(0) as u64;
                    read += (position(&settled, points, partition).min(*end) - point).max(0) as u64;
                }
                let reasons = readiness.reasons();
                let waits_for = reasons.iter().map(|(part, why)| format!("{part}: {why}"));
                (self.progress)(Progress::Reading {
                    read,
                    of,
                    waits_for: waits_for.into_iter().next(),
                });
                if read >= of {
                    break;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }
}

/// What is read side by side, stage after stage: the sources, what is resubmitted, then the group's own topics in the order in which it names them.
fn stages(mut feeds: Vec<(Feed, Arc<str>)>) -> Vec<Vec<Arc<str>>> {
    feeds.sort_by_key(|(feed, _)| stage(*feed));
    let (sources, internal): (Vec<_>, Vec<_>) =
        feeds.into_iter().partition(|(feed, _)| stage(*feed) == 0);
    let name = |(_, name)| name;
    std::iter::once(sources.into_iter().map(name).collect())
        .chain(internal.into_iter().map(|feed| vec![name(feed)]))
        .collect()
}

fn position(settled: &HashMap<Partition, i64>, points: &Points, partition: &Partition) -> i64 {
    let point = points.get(&partition.0, partition.1).unwrap_or(0);
    settled.get(partition).copied().unwrap_or(0).max(point)
}

/// Where the messages of each partition of a topic end now: nothing is ever settled behind the last one, though markers of transactions may stand there.
async fn log_ends(
    targets: &Targets,
    group: &'static Group,
    topic: String,
) -> Result<Vec<(Partition, i64)>, Error> {
    let settings = targets.kafka.clone();
    let ask = move || {
        let inspector = Inspector::new(&settings, &super::live_group_id(&settings, group.name))?;
        (0..inspector.partitions(&topic)?)
            .map(|partition| {
                let log = inspector.watermarks(&topic, partition)?;
                let end = if log.first == log.next {
                    None
                } else {
                    Messages::of(&settings, &topic, partition)?.end(log)?
                };
                // Nothing can be settled of a log that has nothing.
                Ok(((topic.clone(), partition), end.unwrap_or(0)))
            })
            .collect()
    };
    tokio::task::spawn_blocking(ask).await?
}

/// Ends of the ledger in the rewind's epoch.
async fn settled(
    database: &Database,
    group: &Group,
    record: &Record,
) -> Result<HashMap<Partition, i64>, Error> {
    #[derive(Deserialize)]
    struct Found {
        topic: String,
        partition: i32,
        end: i64,
    }
    let sql = format!(
        "SELECT topic, partition, max(end_offset) AS end FROM {{database}}.ledger WHERE consumer_group = {} AND epoch = {} GROUP BY topic, partition",
        quoted(group.name),
        record.epoch
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .into_iter()
        .map(|found| ((found.topic, found.partition), found.end))
        .collect())
}
