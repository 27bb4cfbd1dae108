//! Which offsets are verified: all below the committed ones, or those of a time range.

use std::collections::BTreeMap;

use activity_platform::clickhouse::{self, Database};
use activity_platform::kafka::Inspector;
use activity_platform::settings::KafkaSettings;
use activity_runtime::store::{self, PartitionOf};
use serde::Deserialize;

use super::ledger;
use crate::Error;
use crate::lag::PartitionLag;

/// A range of append times, milliseconds since 1970-01-01 UTC; the default is all of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// First.
    pub since_ms: Option<i64>,
    /// One past the last.
    pub until_ms: Option<i64>,
}

impl Scope {
    fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// Rows that were appended in the time range, as a SQL condition.
    pub fn row_condition(&self) -> String {
        let since = self
            .since_ms
            .map(|at| format!(" AND _appended_at >= fromUnixTimestamp64Milli({at})"));
        let until = self
            .until_ms
            .map(|at| format!(" AND _appended_at < fromUnixTimestamp64Milli({at})"));
        since.unwrap_or_default() + &until.unwrap_or_default()
    }
}

/// The offsets of one partition that are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First offset whose rows and ranges are looked at.
    pub from: i64,
    /// Offset after the last; a range that begins below it is looked at to its own end.
    pub to: i64,
    /// First offset that must lie in a range of the ledger.
    pub must_from: i64,
    /// Offset after the last that must.
    pub must_to: i64,
}

impl Span {
    /// All below the committed offset; the log begins at `first`.
    pub fn whole(first: i64, committed: i64) -> Self {
        Self {
            from: 0,
            to: committed,
            must_from: first,
            must_to: committed,
        }
    }

    /// About how many messages are to be looked at.
    pub fn messages(&self) -> u64 {
        (self.to - self.from.max(self.must_from)).max(0) as u64
    }
}

/// Where the times of a scope lie in the logs of partitions.
pub struct Times {
    since: Option<BTreeMap<(String, i32), i64>>,
    until: Option<BTreeMap<(String, i32), i64>>,
}

impl Times {
    /// Asks Kafka, where the scope has times at all.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn ask(
        kafka: &KafkaSettings,
        scope: Scope,
        partitions: &[PartitionLag],
    ) -> Result<Self, Error> {
        if scope.is_whole() {
            return Ok(Self {
                since: None,
                until: None,
            });
        }
        let kafka = kafka.clone();
        let partitions: Vec<(String, i32)> = partitions
            .iter()
            .map(|lag| (lag.topic.clone(), lag.partition))
            .collect();
        tokio::task::spawn_blocking(move || {
            let inspector = Inspector::new(&kafka, "activity-verify")?;
            let at = |time: Option<i64>| {
                time.map(|time| inspector.offsets_at(&partitions, time))
                    .transpose()
            };
            Ok(Self {
                since: at(scope.since_ms)?,
                until: at(scope.until_ms)?,
            })
        })
        .await?
    }

    /// The offsets of a partition that lie in the time range by Kafka's account, as far as they are committed.
    fn span(&self, of: &PartitionLag, committed: i64) -> (i64, i64) {
        let key = (of.topic.clone(), of.partition);
        // No message at or after that time: it lies after all that there are.
        let offset = |found: &BTreeMap<(String, i32), i64>| {
            found.get(&key).copied().unwrap_or(committed).min(committed)
        };
        let from = self.since.as_ref().map_or(of.first.min(committed), offset);
        let to = self.until.as_ref().map_or(committed, offset);
        (from, to.max(from))
    }
}

/// The span of one partition; None where the group has never been.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn span(
    database: &Database,
    of: &PartitionLag,
    epoch: u32,
    scope: Scope,
    times: &Times,
) -> Result<Option<Span>, clickhouse::Error> {
    let partition = PartitionOf {
        group: &of.group,
        topic: &of.topic,
        partition: of.partition,
    };
    // The ledger knows how far the group was, also where the committed offset expired, was deleted or set back.
    let settled = store::ledger_end(database, partition, epoch).await?;
    let Some(committed) = of.committed.max(settled) else {
        return Ok(None);
    };
    let whole = Span::whole(of.first, committed);
    if scope.is_whole() {
        return Ok(Some(whole));
    }
    let (must_from, must_to) = times.span(of, committed);
    let ranges = overlapping(database, of, epoch, scope, whole, (must_from, must_to)).await?;
    let (from, to) = ranges.map_or((must_from, must_to), |(start, end)| {
        (start.min(must_from), end.max(must_to))
    });
    Ok(Some(Span {
        from,
        to,
        must_from,
        must_to,
    }))
}

/// First and last offset of the ledger's ranges that have messages of the time range, by their own append times or by Kafka's offsets: where the log no
/// longer has the messages, the ledger still knows the times.
async fn overlapping(
    database: &Database,
    of: &PartitionLag,
    epoch: u32,
    scope: Scope,
    whole: Span,
    (must_from, must_to): (i64, i64),
) -> Result<Option<(i64, i64)>, clickhouse::Error> {
    #[derive(Deserialize)]
    struct Found {
        ranges: u64,
        start: i64,
        end: i64,
    }
    let since = scope.since_ms.unwrap_or(0);
    // Up to the end of what DateTime64(3) can hold.
    let until = scope.until_ms.unwrap_or(10_413_792_000_000);
    let sql = format!(
        "SELECT count() AS ranges, min(start_offset) AS start, max(end_offset) AS end FROM {{database}}.ledger FINAL WHERE {} AND \
         ((events > 0 AND toUnixTimestamp64Milli(appended_last) >= {since} AND toUnixTimestamp64Milli(appended_first) < {until}) \
         OR ({must_from} < {must_to} AND end_offset > {must_from} AND start_offset < {must_to}))",
        ledger::condition(of, epoch, whole)
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .first()
        .filter(|found| found.ranges > 0)
        .map(|found| (found.start, found.end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(first: i64, committed: i64) -> PartitionLag {
        PartitionLag {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            first,
            committed: Some(committed),
            claimed: Some(committed),
            end: committed,
            lag: 0,
        }
    }

    fn at(offset: i64) -> Option<BTreeMap<(String, i32), i64>> {
        Some(BTreeMap::from([(("t".to_owned(), 0), offset)]))
    }

    #[test]
    fn a_time_range_covers_only_what_is_committed() {
        let times = |since, until| Times { since, until };
        let none = || Some(BTreeMap::new());
        for (times, expected) in [
            (times(None, None), (5, 100)),
            (times(at(10), None), (10, 100)),
            (times(at(10), at(20)), (10, 20)),
            (times(at(90), at(120)), (90, 100)),
            (times(at(120), at(130)), (100, 100)),
            (times(at(50), none()), (50, 100)),
            (times(none(), none()), (100, 100)),
            (times(None, at(7)), (5, 7)),
        ] {
            assert_eq!(times.span(&lag(5, 100), 100), expected);
        }
    }
}
