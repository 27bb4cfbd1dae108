//! What the runtime keeps in ClickHouse about itself: epochs, ledger, snapshots.

use std::collections::BTreeMap;

use activity_platform::clickhouse::{Database, Error, quoted};
use activity_platform::fault::{self, Point};
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::claim::Range;

/// Longest chunk of a snapshot in one row.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One row of the ledger.
#[derive(Clone, Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "documented in the migration that creates the table"
)]
pub struct LedgerRow {
    pub consumer_group: &'static str,
    pub topic: String,
    pub partition: i32,
    pub epoch: u32,
    pub start_offset: i64,
    pub end_offset: i64,
    pub events: u64,
    pub rejects: u64,
    pub reasons: BTreeMap<&'static str, u64>,
    pub lost: u64,
    pub rows: BTreeMap<&'static str, u64>,
    pub derived: BTreeMap<String, u64>,
    pub bytes: u64,
    pub attempt: u32,
    pub insert_ms: u32,
    pub freshness_ms: i64,
    pub lag: i64,
    #[serde(serialize_with = "as_text")]
    pub appended_first: i64,
    #[serde(serialize_with = "as_text")]
    pub appended_last: i64,
    #[serde(serialize_with = "as_text")]
    pub claimed_at: i64,
    #[serde(serialize_with = "as_text")]
    pub inserted_at: i64,
}

/// A DateTime64 as text: of numbers, ClickHouse reads small ones as something else.
fn as_text<S: serde::Serializer>(millis: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let at = jiff::Timestamp::from_millisecond(*millis).unwrap_or_default();
    serializer.collect_str(&at.strftime("%Y-%m-%d %H:%M:%S%.3f"))
}

/// A partition of a group, as the tables name it.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOf<'a> {
    /// The group's name.
    pub group: &'a str,
    /// Full name of the topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
}

impl PartitionOf<'_> {
    fn condition(&self) -> String {
        format!(
            "consumer_group = {} AND topic = {} AND partition = {}",
            quoted(self.group),
            quoted(self.topic),
            self.partition
        )
    }
}

/// A group's epoch: 1 until its first rewind.
///
/// # Errors
/// If ClickHouse does not answer or the set-up was not run.
pub async fn epoch(database: &Database, group: &str) -> Result<u32, Error> {
    #[derive(Deserialize)]
    struct Found {
        epoch: u32,
    }
    let sql = format!(
        "SELECT max(epoch) AS epoch FROM {{database}}.epochs WHERE consumer_group = {}",
        quoted(group)
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found.first().map_or(1, |found| found.epoch.max(1)))
}

/// End of the last range that the ledger has of a partition.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn ledger_end(
    database: &Database,
    of: PartitionOf<'_>,
    epoch: u32,
) -> Result<Option<i64>, Error> {
    #[derive(Deserialize)]
    struct Found {
        ranges: u64,
        end: i64,
    }
    let sql = format!(
        "SELECT count() AS ranges, max(end_offset) AS end FROM {{database}}.ledger WHERE {} AND epoch = {epoch}",
        of.condition()
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .first()
        .filter(|found| found.ranges > 0)
        .map(|found| found.end))
}

/// The beginning of what the ledger has of a partition from `first` on, a tenth of it: the offset that it ends at, and when the latest message up to there was appended,
/// milliseconds since 1970-01-01 UTC; None where it has no range with a message.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn ledger_beginning(
    database: &Database,
    of: PartitionOf<'_>,
    epoch: u32,
    first: i64,
) -> Result<Option<(i64, i64)>, Error> {
    #[derive(Deserialize)]
    struct Found {
        end: i64,
        appended_last_ms: i64,
    }
    let ranges = format!(
        "FROM {{database}}.ledger WHERE {} AND epoch = {epoch}",
        of.condition()
    );
    let sql = format!(
        "WITH (SELECT (greatest(min(start_offset), toInt64({first})), max(end_offset)) {ranges}) AS span \
         SELECT max(end_offset) AS end, toUnixTimestamp64Milli(max(appended_last)) AS appended_last_ms \
         {ranges} AND start_offset <= span.1 + intDiv(span.2 - span.1, 10)"
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .first()
        .filter(|found| found.appended_last_ms > 0)
        .map(|found| (found.end, found.appended_last_ms)))
}

/// Writes rows of the ledger, in one insert.
///
/// # Errors
/// If ClickHouse does not take them; the ranges count as unsettled then.
pub async fn write_ledger(database: &Database, rows: &[LedgerRow]) -> Result<(), Error> {
    database.insert_json("ledger", rows).await
}

/// How many rows of a range a table has.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn count_rows(
    database: &Database,
    table: &str,
    topic: &str,
    partition: i32,
    range: Range,
    epoch: u32,
) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Found {
        rows: u64,
    }
    let sql = format!(
        "SELECT count() AS rows FROM {{database}}.{table} WHERE {}",
        range_condition(topic, partition, range, epoch)
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found.first().map_or(0, |found| found.rows))
}

/// The offsets of a range that have a row in at least one of the tables.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn count_offsets(
    database: &Database,
    tables: &[String],
    topic: &str,
    partition: i32,
    range: Range,
    epoch: u32,
) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Found {
        offsets: u64,
    }
    let condition = range_condition(topic, partition, range, epoch);
    let parts: Vec<String> = tables
        .iter()
        .map(|table| format!("SELECT _offset FROM {{database}}.{table} WHERE {condition}"))
        .collect();
    if parts.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "SELECT uniqExact(_offset) AS offsets FROM ({})",
        parts.join(" UNION ALL ")
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found.first().map_or(0, |found| found.offsets))
}

/// The highest offset, at or above `from`, of which one of the tables has a row.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn last_offset(
    database: &Database,
    tables: &[String],
    topic: &str,
    partition: i32,
    from: i64,
    epoch: u32,
) -> Result<Option<i64>, Error> {
    #[derive(Deserialize)]
    struct Found {
        rows: u64,
        last: i64,
    }
    let behind = Range {
        start: from,
        end: i64::MAX,
    };
    let condition = range_condition(topic, partition, behind, epoch);
    let mut last = None;
    for table in tables {
        let sql = format!(
            "SELECT count() AS rows, max(_offset) AS last FROM {{database}}.{table} WHERE {condition}"
        );
        let found: Vec<Found> = database.rows(&sql).await?;
        let there = found.first().filter(|found| found.rows > 0);
        last = last.max(there.map(|found| found.last));
    }
    Ok(last)
}

/// The rows of a range, as a SQL condition.
pub fn range_condition(topic: &str, partition: i32, range: Range, epoch: u32) -> String {
    format!(
        "_topic = {} AND _partition = {partition} AND _offset >= {} AND _offset < {} AND _epoch = {epoch}",
        quoted(topic),
        range.start,
        range.end
    )
}

/// A stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state after all messages below this offset.
    pub state_offset: i64,
    /// Version of code and settings.
    pub fingerprint: String,
    /// The state.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Row, Serialize)]
struct SnapshotRow<'a> {
    consumer_group: &'a str,
    topic: &'a str,
    partition: i32,
    slot: u8,
    chunk: u32,
    chunks: u32,
    epoch: u32,
    state_offset: i64,
    fingerprint: &'a str,
    made_at: i64,
    #[serde(with = "serde_bytes")]
    bytes: &'a [u8],
}

/// Writes a snapshot to one of the two slots. The snapshot's offset must be committed: a reader never looks above the committed offset.
///
/// # Errors
/// If ClickHouse does not take it; the previous one in the other slot stays.
pub async fn write_snapshot(
    database: &Database,
    of: PartitionOf<'_>,
    epoch: u32,
    slot: u8,
    made_at_ms: i64,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let chunks: Vec<&[u8]> = if snapshot.bytes.is_empty() {
        vec![&[]]
    } else {
        snapshot.bytes.chunks(CHUNK_BYTES_MAX).collect()
    };
    let mut insert = database
        .client()
        .insert::<SnapshotRow<'_>>("snapshots")
        .await?
        .with_setting("async_insert", "0");
    for (index, chunk) in chunks.iter().enumerate() {
        let row = SnapshotRow {
            consumer_group: of.group,
            topic: of.topic,
            partition: of.partition,
            slot,
            chunk: index as u32,
            chunks: chunks.len() as u32,
            epoch,
            state_offset: snapshot.state_offset,
            fingerprint: &snapshot.fingerprint,
            made_at: made_at_ms,
            bytes: chunk,
        };
        insert.write(&row).await?;
        fault::reach(Point::SnapshotWrite);
    }
    insert.end().await?;
    Ok(())
}

/// The newest whole snapshot at or below an offset, with the slot that it lies in: one of this fingerprint if there is one, else one that does not fit.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn read_snapshot(
    database: &Database,
    of: PartitionOf<'_>,
    epoch: u32,
    offset_max: i64,
    fingerprint: &str,
) -> Result<Option<(u8, Snapshot)>, Error> {
    #[derive(Deserialize)]
    struct Found {
        slot: u8,
        state_offset: i64,
        fingerprint: String,
        made_at_ms: i64,
    }
    // Rows of an older, longer snapshot in the same slot have another made_at, so they make no whole one.
    let sql = format!(
        "SELECT slot, state_offset, any(fingerprint) AS fingerprint, toUnixTimestamp64Milli(made_at) AS made_at_ms \
         FROM {{database}}.snapshots WHERE {} AND epoch = {epoch} AND state_offset <= {offset_max} \
         GROUP BY slot, made_at, state_offset HAVING uniqExact(chunk) = any(chunks) ORDER BY fingerprint = {} DESC, state_offset DESC, made_at DESC LIMIT 1",
        of.condition(),
        quoted(fingerprint)
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    let Some(found) = found.into_iter().next() else {
        return Ok(None);
    };
    #[derive(Row, Deserialize)]
    struct Chunk {
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    }
    let sql = format!(
        "SELECT any(bytes) AS bytes FROM {}.snapshots WHERE {} AND epoch = {epoch} AND slot = {} AND made_at = fromUnixTimestamp64Milli({}) GROUP BY chunk ORDER BY chunk",
        database.name(),
        of.condition(),
        found.slot,
        found.made_at_ms
    );
    let mut cursor = database.client().query_raw(&sql).fetch::<Chunk>()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = cursor.next().await? {
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(Some((
        found.slot,
        Snapshot {
            state_offset: found.state_offset,
            fingerprint: found.fingerprint,
            bytes,
        },
    )))
}
