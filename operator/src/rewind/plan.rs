//! What a rewind would do: asks Kafka and ClickHouse where the group stands and computes the points.

use std::collections::HashMap;

use activity_consumers::Group;
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::kafka::{Inspector, Watermarks};
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::claim::Range;
use activity_runtime::resubmit::{Feed, feeds};
use activity_runtime::rewinds::Points;
use activity_runtime::standing::Standing;
use activity_runtime::start::of_another_topic;
use activity_runtime::store::PartitionOf;
use activity_schemas::Content;
use serde::{Deserialize, Serialize};

use super::groups::{GroupClient, Member};
use super::points::{Facts, PartitionPlan};
use super::to::{PartitionOffset, To};
use super::{RewindError, live_group_id, tables};
use crate::Error;

/// What a rewind does to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TablePlan {
    /// The table.
    pub table: String,
    /// Rows that are copied.
    pub kept: u64,
    /// Rows that give way to what the group makes of the messages now.
    pub replaced: u64,
}

/// What a rewind does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The group.
    pub group: String,
    /// How far back, as it was asked for.
    pub to: String,
    /// The epoch that the group is in.
    pub from_epoch: u32,
    /// The epoch that it is raised to.
    pub epoch: u32,
    /// By partition.
    pub partitions: Vec<PartitionPlan>,
    /// By table.
    pub tables: Vec<TablePlan>,
    /// Messages before the points that are read only to rebuild state.
    pub replayed: u64,
    /// Processes of the group that run now.
    pub running: Vec<Member>,
}

impl Plan {
    /// Messages that are read again.
    pub fn reread(&self) -> u64 {
        self.partitions.iter().map(|plan| plan.reread).sum()
    }

    /// Messages that were asked for and that the log no longer has.
    pub fn gone(&self) -> u64 {
        self.partitions.iter().map(|plan| plan.gone).sum()
    }

    /// The points.
    pub fn points(&self) -> Points {
        self.partitions
            .iter()
            .map(|plan| (plan.topic.clone(), plan.partition, plan.point))
            .collect()
    }
}

/// Computes what a rewind would do now.
///
/// # Errors
/// [`RewindError`] where it cannot be done.
pub async fn plan(
    targets: &Targets,
    database: &Database,
    group: &'static Group,
    to: &To,
) -> Result<Plan, RewindError> {
    let standing = Standing::of(database, group.name).await?;
    let epoch = standing.epoch();
    // First: the group may still run, and what it has settled by now lies below the ends of the logs that are asked for next.
    let ends = ledger_ends(database, group, epoch).await?;
    let (kafka, wanted) = (targets.kafka.clone(), to.clone());
    let asked = tokio::task::spawn_blocking(move || ask_kafka(&kafka, group, &wanted, &ends)).await;
    let Asked { logs, running } = asked.map_err(Error::from)??;
    let mut partitions = Vec::new();
    let mut rewinds = false;
    for (facts, asked) in logs {
        let of = PartitionOf {
            group: group.name,
            topic: &facts.topic,
            partition: facts.partition,
        };
        // Internal topics come behind those that they are derived from: once a source is read again, all that comes after it is made anew.
        let asked = if facts.internal {
            rewinds.then_some(0)
        } else {
            asked
        };
        let placed = facts.place(asked);
        let range = range_around(database, of, epoch, placed).await?;
        let point = facts.settle(placed, range);
        rewinds |= facts.rewinds(point);
        partitions.push(facts.plan(point, asked));
    }
    if !rewinds {
        return Err(RewindError::NothingToRead { to: to.to_string() });
    }
    let mut plan = Plan {
        group: group.name.to_owned(),
        to: to.to_string(),
        from_epoch: epoch,
        epoch: standing.next_epoch(),
        replayed: replayed(group, &partitions),
        partitions,
        tables: Vec::new(),
        running,
    };
    let points = plan.points();
    for table in group.tables {
        let (kept, replaced) = tables::count(database, table.name, epoch, &points).await?;
        plan.tables.push(TablePlan {
            table: table.name.to_owned(),
            kept,
            replaced,
        });
    }
    Ok(plan)
}

/// Where the ledger of a partition ends.
#[derive(Deserialize)]
struct LedgerEnd {
    topic: String,
    partition: i32,
    /// Offset after its last.
    end: i64,
    /// When the last message that it has was appended, milliseconds since 1970-01-01 UTC; 0: it has none.
    appended_last_ms: i64,
}

type LedgerEnds = HashMap<(String, i32), LedgerEnd>;

/// Where the ledger of each partition ends, by full name of the topic and partition.
async fn ledger_ends(database: &Database, group: &Group, epoch: u32) -> Result<LedgerEnds, Error> {
    let sql = format!(
        "SELECT topic, partition, max(end_offset) AS end, toUnixTimestamp64Milli(max(appended_last)) AS appended_last_ms \
         FROM {{database}}.ledger WHERE consumer_group = {} AND epoch = {epoch} GROUP BY topic, partition",
        quoted(group.name)
    );
    let found: Vec<LedgerEnd> = database.rows(&sql).await?;
    Ok(found
        .into_iter()
        .map(|found| ((found.topic.clone(), found.partition), found))
        .collect())
}

/// Whether a log is of another topic than the ledger: it ends too early, or begins below the ledger's end with what was appended after all that the ledger has.
fn is_made_anew(
    inspector: &Inspector,
    ledger: &LedgerEnd,
    log: Watermarks,
) -> Result<bool, RewindError> {
    if ledger.end > log.next || ledger.appended_last_ms <= 0 {
        return Ok(ledger.end > log.next);
    }
    let partition = (ledger.topic.clone(), ledger.partition);
    let after = inspector.offsets_at(
        std::slice::from_ref(&partition),
        ledger.appended_last_ms + 1,
    )?;
    let first_after = after.get(&partition).copied();
    Ok(of_another_topic(ledger.end, log.first, first_after).is_some())
}

/// What a group with state reads only to have it again.
fn replayed(group: &Group, partitions: &[PartitionPlan]) -> u64 {
    let before = |plan: &PartitionPlan| (plan.point - plan.log_first).max(0) as u64;
    if group.state_version == 0 {
        return 0;
    }
    partitions.iter().map(before).sum()
}

/// The range of the ledger that an offset lies inside of.
async fn range_around(
    database: &Database,
    of: PartitionOf<'_>,
    epoch: u32,
    offset: i64,
) -> Result<Option<Range>, Error> {
    #[derive(Deserialize)]
    struct Found {
        start: i64,
        end: i64,
    }
    let sql = format!(
        "SELECT start_offset AS start, end_offset AS end FROM {{database}}.ledger FINAL WHERE consumer_group = {} AND topic = {} AND partition = {} \
         AND epoch = {epoch} AND start_offset < {offset} AND end_offset > {offset} ORDER BY start LIMIT 1",
        quoted(of.group),
        quoted(of.topic),
        of.partition
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found.into_iter().next().map(|found| Range {
        start: found.start,
        end: found.end,
    }))
}

struct Asked {
    /// The logs, sources first, and what was asked for of each.
    logs: Vec<(Facts, Option<i64>)>,
    running: Vec<Member>,
}

/// Whether the topic holds what comes from messages of other topics that the group reads: what it derived, or what it rejected and takes once more.
pub fn is_internal(feed: Feed) -> bool {
    match feed {
        Feed::Reads(topic) => topic.content == Content::Derived,
        Feed::Resubmits => true,
    }
}

/// What comes before what: sources, then resubmits, from which something may be derived, too, then what is derived.
pub fn stage(feed: Feed) -> u8 {
    match feed {
        Feed::Resubmits => 1,
        derived if is_internal(derived) => 2,
        Feed::Reads(_) => 0,
    }
}

/// One topic that a group reads.
struct Log {
    feed: Feed,
    name: String,
    partitions: Vec<(String, i32)>,
    marks: Vec<Watermarks>,
}

fn ask_kafka(
    settings: &KafkaSettings,
    group: &'static Group,
    to: &To,
    ledger_ends: &LedgerEnds,
) -> Result<Asked, RewindError> {
    let group_id = live_group_id(settings, group.name);
    let inspector = Inspector::new(settings, &group_id)?;
    let client = GroupClient::new(settings, &group_id)?;
    let mut logs = Vec::new();
    for (feed, name) in feeds(group, &settings.topic_prefix) {
        let name = name.to_string();
        let partitions: Vec<_> = (0..inspector.partitions(&name)?)
            .map(|partition| (name.clone(), partition))
            .collect();
        let marks = partitions
            .iter()
            .map(|(name, partition)| inspector.watermarks(name, *partition));
        logs.push(Log {
            feed,
            name,
            marks: marks.collect::<Result<_, _>>()?,
            partitions,
        });
    }
    // Sources before what is derived from them, whatever order the group names them in.
    logs.sort_by_key(|log| stage(log.feed));
    let mut offsets = match to {
        To::Offsets(offsets) => offsets.clone(),
        _ => Vec::new(),
    };
    let mut asked = Vec::new();
    for (index, log) in logs.iter().enumerate() {
        let firsts = firsts(&client, log, &logs[index + 1..])?;
        let wanted = wanted(&client, log, to, &mut offsets)?;
        for (place, key) in log.partitions.iter().enumerate() {
            let (topic, partition) = key;
            let (next, ledger) = (log.marks[place].next, ledger_ends.get(key));
            if let Some(ledger) = ledger
                && is_made_anew(&inspector, ledger, log.marks[place])?
            {
                let topic = topic.clone();
                return Err(RewindError::TopicMadeAnew { topic });
            }
            let facts = Facts {
                topic: topic.clone(),
                partition: *partition,
                internal: is_internal(log.feed),
                log: Watermarks {
                    first: firsts[place].min(next),
                    next,
                },
                ledger_end: ledger.map(|ledger| ledger.end),
            };
            asked.push((facts, wanted[place]));
        }
    }
    if let Some(left) = offsets.into_iter().next() {
        return Err(RewindError::NoSuchPartition {
            group: group.name.to_owned(),
            partition: format!("{}/{}", left.topic, left.partition),
        });
    }
    Ok(Asked {
        logs: asked,
        running: client.members()?,
    })
}

/// The first offsets that can be read again: those that the log has, unless a topic behind it has lost what was derived from them. The rows of that are kept, so
/// that it must not be derived once more. What is derived is appended later than its source, so time tells where that begins.
fn firsts(client: &GroupClient, log: &Log, behind: &[Log]) -> Result<Vec<i64>, RewindError> {
    let mut firsts: Vec<i64> = log.marks.iter().map(|marks| marks.first).collect();
    let lost = |log: &&Log| is_internal(log.feed);
    for log_behind in behind.iter().filter(lost) {
        for ((name, partition), marks) in log_behind.partitions.iter().zip(&log_behind.marks) {
            if marks.first == 0 {
                continue;
            }
            let offsets = if marks.first < marks.next {
                let at_ms = client.appended_at(name, *partition, marks.first)?;
                client.offsets_at(&log.partitions, at_ms + 1)?
            } else {
                vec![None; firsts.len()]
            };
            for (first, offset) in firsts.iter_mut().zip(offsets) {
                *first = offset.map_or(i64::MAX, |offset| offset.max(*first));
            }
        }
    }
    Ok(firsts)
}

/// What was asked for of each partition of a topic; None: it keeps its place.
fn wanted(
    client: &GroupClient,
    log: &Log,
    to: &To,
    offsets: &mut Vec<PartitionOffset>,
) -> Result<Vec<Option<i64>>, RewindError> {
    let count = log.partitions.len();
    Ok(match to {
        _ if is_internal(log.feed) => vec![None; count],
        To::Beginning => vec![Some(0); count],
        To::Time(at) => client
            .offsets_at(&log.partitions, at.as_millisecond())?
            .into_iter()
            // Nothing was appended since: the partition keeps its place.
            .map(|offset| offset.or(Some(i64::MAX)))
            .collect(),
        To::Offsets(_) => log
            .partitions
            .iter()
            .map(|(_, partition)| take_offset(offsets, log, *partition))
            .collect(),
    })
}

/// Takes what was asked for of one partition out of the list.
fn take_offset(offsets: &mut Vec<PartitionOffset>, log: &Log, partition: i32) -> Option<i64> {
    let Feed::Reads(topic) = log.feed else {
        return None;
    };
    let is_it = |at: &PartitionOffset| {
        at.partition == partition && (at.topic == topic.name || at.topic == log.name)
    };
    let index = offsets.iter().position(is_it)?;
    Some(offsets.remove(index).offset)
}
