//! `activity verify`: compares Kafka, ledger and tables, for each group and partition, while traffic flows: only what lies below the committed offset counts.
//!
//! - The ledger's ranges tile [first, committed) without gap or overlap, and hold as many messages as offsets (topics of ours are neither compacted nor
//!   written in transactions).
//! - Each table holds each (`_topic`, `_partition`, `_offset`, `_n`) once, and as many rows as the ledger counted.
//! - Each reject is in the dead-letter topic.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use activity_consumers::Group;
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::kafka;
use activity_platform::settings::Targets;
use activity_runtime::delivery::dead_letter_topic;
use activity_runtime::store;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::lag::{self, PartitionLag};

/// Offsets that one query looks at: bounds the memory that ClickHouse needs for it.
const WINDOW_OFFSETS: i64 = 2_000_000;
/// How long one poll waits.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long Kafka may be silent while dead letters are read.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// One group, over all its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The group's name.
    pub group: String,
    /// Messages below the committed offsets that the group has read.
    pub events: u64,
    /// Rows below the committed offsets, by table.
    pub rows: BTreeMap<String, u64>,
    /// Messages of these that are in the dead-letter topic.
    pub dead_letters: u64,
    /// Offsets and rows that should be there and are not.
    pub missing: u64,
    /// Offsets and rows that are there more than once.
    pub duplicate: u64,
    /// Rows that the ledger does not know.
    pub unexpected: u64,
    /// Messages that the log no longer had when the group came to read them.
    pub lost: u64,
    /// Messages above the committed offsets.
    pub lag: i64,
    /// Where something is wrong, in words.
    pub findings: Vec<String>,
}

impl GroupReport {
    /// Whether nothing is missing, doubled or unexpected.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicate == 0 && self.unexpected == 0
    }

    fn find(
        &mut self,
        count: u64,
        field: impl Fn(&mut Self) -> &mut u64,
        words: impl FnOnce() -> String,
    ) {
        if count > 0 {
            *field(self) += count;
            self.findings.push(words());
        }
    }
}

/// Verifies groups.
///
/// # Errors
/// If Kafka or ClickHouse does not answer. What is wrong with the data is in the reports.
pub async fn run(targets: &Targets, groups: &[&'static Group]) -> Result<Vec<GroupReport>, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let mut reports = Vec::new();
    for group in groups {
        reports.push(verify_group(targets, &database, group).await?);
    }
    Ok(reports)
}

async fn verify_group(
    targets: &Targets,
    database: &Database,
    group: &'static Group,
) -> Result<GroupReport, Error> {
    let mut report = GroupReport {
        group: group.name.to_owned(),
        ..GroupReport::default()
    };
    report.rows = group
        .tables
        .iter()
        .map(|table| (table.name.to_owned(), 0))
        .collect();
    let epoch = store::epoch(database, group.name).await?;
    // Taken before the tables are looked at: what is committed then stays there.
    let partitions = lag::gather(&targets.kafka, &[group]).await?;
    let mut rejects = 0;
    for partition in &partitions {
        report.lag += partition.lag;
        let ranges = ledger(
            database,
            partition,
            partition.committed.unwrap_or(i64::MAX),
            epoch,
        )
        .await?;
        if partition.committed.is_none() && ranges.ranges == 0 {
            continue;
        }
        // A committed offset that expired or was deleted: the ledger knows how far the group was.
        let committed = partition.committed.unwrap_or(ranges.end);
        report.events += ranges.events;
        report.lost += ranges.lost;
        rejects += ranges.rejects;
        judge_ledger(&mut report, partition, committed, &ranges);
        for table in group.tables {
            let found = table_rows(database, table.name, partition, committed, epoch).await?;
            judge_table(
                &mut report,
                partition,
                table.name,
                ranges.rows.get(table.name).copied().unwrap_or(0),
                found,
            );
        }
    }
    if rejects > 0 {
        report.dead_letters = dead_letters(targets, group, &partitions).await?;
        let missing = rejects.saturating_sub(report.dead_letters);
        report.find(
            missing,
            |report| &mut report.missing,
            || format!("{missing} rejected messages are not in the dead-letter topic"),
        );
    }
    Ok(report)
}

/// What the ledger says of one partition below the committed offset.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
struct Ledger {
    ranges: u64,
    first: i64,
    end: i64,
    covered: u64,
    gaps: u64,
    overlaps: u64,
    events: u64,
    rejects: u64,
    lost: u64,
    rows: BTreeMap<String, u64>,
}

async fn ledger(
    database: &Database,
    of: &PartitionLag,
    committed: i64,
    epoch: u32,
) -> Result<Ledger, Error> {
    let condition = format!(
        "consumer_group = {} AND topic = {} AND partition = {} AND epoch = {epoch} AND end_offset <= {committed}",
        quoted(&of.group),
        quoted(&of.topic),
        of.partition
    );
    let sql = format!(
        "SELECT count() AS ranges, min(start_offset) AS first, max(end_offset) AS end, toUInt64(sum(end_offset - start_offset)) AS covered, \
         toUInt64(sum(greatest(start_offset - before, 0))) AS gaps, toUInt64(sum(greatest(before - start_offset, 0))) AS overlaps, \
         sum(events) AS events, sum(rejects) AS rejects, sum(lost) AS lost, sumMap(rows) AS rows \
         FROM (SELECT *, lagInFrame(end_offset, 1, start_offset) OVER (ORDER BY start_offset ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before \
         FROM {{database}}.ledger FINAL WHERE {condition})"
    );
    let found: Vec<Ledger> = database.rows(&sql).await?;
    Ok(found.into_iter().next().unwrap_or_default())
}

fn judge_ledger(report: &mut GroupReport, of: &PartitionLag, committed: i64, ledger: &Ledger) {
    let place = format!("{}/{}", of.topic, of.partition);
    let (first, end) = if ledger.ranges == 0 {
        (committed, committed)
    } else {
        (ledger.first, ledger.end)
    };
    report.find(
        ledger.gaps,
        |report| &mut report.missing,
        || {
            format!(
                "{place}: {} offsets lie between ranges of the ledger",
                ledger.gaps
            )
        },
    );
    report.find(
        ledger.overlaps,
        |report| &mut report.duplicate,
        || {
            format!(
                "{place}: {} offsets lie in two ranges of the ledger",
                ledger.overlaps
            )
        },
    );
    let unread = (first - of.first).max(0) as u64;
    report.find(
        unread,
        |report| &mut report.missing,
        || format!("{place}: offsets {} to {first} were never read", of.first),
    );
    let uncovered = (committed - end).max(0) as u64;
    report.find(
        uncovered,
        |report| &mut report.missing,
        || format!("{place}: offsets {end} to {committed} are committed but not in the ledger"),
    );
    let holes = ledger.covered.saturating_sub(ledger.lost + ledger.events);
    let surplus = (ledger.lost + ledger.events).saturating_sub(ledger.covered);
    report.find(
        surplus,
        |report| &mut report.unexpected,
        || format!("{place}: the ledger's ranges have {surplus} messages more than offsets"),
    );
    report.find(
        holes,
        |report| &mut report.missing,
        || format!("{place}: {holes} offsets of the ledger's ranges gave no message"),
    );
}

/// What a table holds of one partition below the committed offset.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
struct TableRows {
    rows: u64,
    distinct: u64,
}

async fn table_rows(
    database: &Database,
    table: &str,
    of: &PartitionLag,
    committed: i64,
    epoch: u32,
) -> Result<TableRows, Error> {
    let mut sum = TableRows::default();
    let mut start = 0;
    while start < committed {
        let end = committed.min(start + WINDOW_OFFSETS);
        let range = activity_runtime::claim::Range { start, end };
        let condition = store::range_condition(&of.topic, of.partition, range, epoch);
        let sql = format!(
            "SELECT count() AS rows, uniqExact(_offset, _n) AS distinct FROM {{database}}.{table} WHERE {condition}"
        );
        for found in database.rows::<TableRows>(&sql).await? {
            sum.rows += found.rows;
            sum.distinct += found.distinct;
        }
        start = end;
    }
    Ok(sum)
}

fn judge_table(
    report: &mut GroupReport,
    of: &PartitionLag,
    table: &str,
    expected: u64,
    found: TableRows,
) {
    let place = format!("{} from {}/{}", table, of.topic, of.partition);
    *report.rows.entry(table.to_owned()).or_default() += found.rows;
    let duplicate = found.rows - found.distinct;
    report.find(
        duplicate,
        |report| &mut report.duplicate,
        || format!("{place}: {duplicate} rows are there more than once"),
    );
    let missing = expected.saturating_sub(found.distinct);
    report.find(
        missing,
        |report| &mut report.missing,
        || format!("{place}: {missing} of {expected} rows are missing"),
    );
    let unexpected = found.distinct.saturating_sub(expected);
    report.find(
        unexpected,
        |report| &mut report.unexpected,
        || format!("{place}: {unexpected} rows more than the ledger's {expected}"),
    );
}

/// Messages below the committed offsets that are in the group's dead-letter topic, each counted once by its key.
async fn dead_letters(
    targets: &Targets,
    group: &'static Group,
    partitions: &[PartitionLag],
) -> Result<u64, Error> {
    let topic = format!(
        "{}{}",
        targets.kafka.topic_prefix,
        dead_letter_topic(group.name)
    );
    let kafka = targets.kafka.clone();
    let keys = tokio::task::spawn_blocking(move || keys_of(&kafka, &topic)).await??;
    let below = |key: &str| {
        let mut parts = key.rsplitn(3, '/');
        let (offset, partition) = (
            parts.next()?.parse::<i64>().ok()?,
            parts.next()?.parse::<i32>().ok()?,
        );
        let topic = parts.next()?.strip_prefix(group.name)?.strip_prefix('/')?;
        let found = partitions
            .iter()
            .find(|lag| lag.topic == topic && lag.partition == partition)?;
        found.committed.filter(|committed| offset < *committed)
    };
    Ok(keys.iter().filter(|key| below(key).is_some()).count() as u64)
}

/// The distinct keys of a topic.
fn keys_of(
    settings: &activity_platform::settings::KafkaSettings,
    topic: &str,
) -> Result<HashSet<String>, Error> {
    let mut config = kafka::client_config(settings).map_err(kafka::Error::from)?;
    config
        .set("group.id", "activity-verify")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = BaseConsumer::from_config(&config).map_err(kafka::Error::from)?;
    let (first, next) = consumer
        .fetch_watermarks(topic, 0, SILENCE_MAX)
        .map_err(kafka::Error::from)?;
    let mut keys = HashSet::new();
    if first == next {
        return Ok(keys);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(first))
        .map_err(kafka::Error::from)?;
    consumer.assign(&list).map_err(kafka::Error::from)?;
    let mut heard = Instant::now();
    loop {
        let message = match consumer.poll(POLL_TIMEOUT) {
            Some(message) => message.map_err(kafka::Error::from)?,
            // Also after an event of the client itself: silence is told by the clock.
            None if heard.elapsed() < SILENCE_MAX => continue,
            None => {
                let topic = topic.to_owned();
                return Err(Error::Silent { topic });
            }
        };
        heard = Instant::now();
        if let Some(key) = message.key() {
            keys.insert(String::from_utf8_lossy(key).into_owned());
        }
        if message.offset() + 1 >= next {
            return Ok(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionLag {
        PartitionLag {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            first: 0,
            committed: Some(100),
            claimed: Some(100),
            end: 100,
            lag: 0,
        }
    }

    fn whole() -> Ledger {
        Ledger {
            ranges: 3,
            first: 0,
            end: 100,
            covered: 100,
            events: 100,
            ..Ledger::default()
        }
    }

    fn judged(ledger: &Ledger) -> GroupReport {
        let mut report = GroupReport::default();
        judge_ledger(&mut report, &partition(), 100, ledger);
        report
    }

    #[test]
    fn a_ledger_that_tiles_the_log_is_clean() {
        assert!(judged(&whole()).is_clean());
    }

    #[test]
    fn every_kind_of_hole_is_missing() {
        for (ledger, missing) in [
            (Ledger { gaps: 5, ..whole() }, 5),
            (
                Ledger {
                    first: 10,
                    covered: 90,
                    events: 90,
                    ..whole()
                },
                10,
            ),
            (
                Ledger {
                    end: 80,
                    covered: 80,
                    events: 80,
                    ..whole()
                },
                20,
            ),
            (
                Ledger {
                    events: 93,
                    ..whole()
                },
                7,
            ),
            (Ledger::default(), 100),
        ] {
            let report = judged(&ledger);
            assert_eq!(
                (report.missing, report.findings.len()),
                (missing, 1),
                "{ledger:?}"
            );
        }
    }

    #[test]
    fn lost_messages_are_neither_missing_nor_forgotten() {
        let report = judged(&Ledger {
            events: 60,
            lost: 40,
            ..whole()
        });
        assert!(report.is_clean());
    }

    #[test]
    fn rows_are_compared_with_the_ledger() {
        let mut report = GroupReport::default();
        judge_table(
            &mut report,
            &partition(),
            "clicks",
            10,
            TableRows {
                rows: 12,
                distinct: 9,
            },
        );
        assert_eq!(
            (report.missing, report.duplicate, report.unexpected),
            (1, 3, 0)
        );
        let mut report = GroupReport::default();
        judge_table(
            &mut report,
            &partition(),
            "clicks",
            10,
            TableRows {
                rows: 11,
                distinct: 11,
            },
        );
        assert_eq!(
            (report.missing, report.duplicate, report.unexpected),
            (0, 0, 1)
        );
    }
}
