//! Asks tables what they have of the ledger's ranges.
//!
//! The server counts the rows of a whole window of ranges in one query, from the projection `by_offset`. Rows of other epochs are looked for in one pass.

use std::collections::BTreeMap;

use activity_platform::clickhouse::{self, Database, quoted};
use serde::Deserialize;

use super::findings::{Findings, Kind, Subject, What};
use super::ledger::Window;
use super::scope::Scope;
use super::segments::{Found, Places, Segment, Verdict, judge, report, segments, without};
use crate::lag::PartitionLag;

/// Runs of absent offsets in one range that are told apart; beyond that the range itself is the place.
const RUNS_MAX: usize = 100;
/// Ranges of one partition whose exact offsets are looked up; beyond that the range itself is the place.
const LOOKUPS_MAX: usize = 200;

/// Rows that no range of the ledger can account for: of another epoch, or from a partition that the group does not read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Strangers {
    /// Table.
    #[serde(skip)]
    pub table: &'static str,
    /// `_topic`
    pub topic: String,
    /// `_partition`
    pub partition: i32,
    /// `_epoch`
    pub epoch: u32,
    /// How many.
    pub rows: u64,
    /// Lowest offset.
    pub first: i64,
    /// Highest offset.
    pub last: i64,
}

impl Strangers {
    /// Counts them.
    pub fn judge(&self, epoch: u32, findings: &mut Findings) {
        let note = if self.epoch == epoch {
            "rows of a partition that the group does not read".to_owned()
        } else {
            format!(
                "rows of epoch {} (the group is in epoch {epoch})",
                self.epoch
            )
        };
        findings.add(
            Subject::new(Kind::Unexpected, What::Table, self.table, note),
            self.first,
            self.last + 1,
            self.rows,
        );
    }
}

/// Looks for strangers in one table, a partition of the table at a time so that no query takes long.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn strangers(
    database: &Database,
    group: &str,
    table: &'static str,
    epoch: u32,
    partitions: &[PartitionLag],
    scope: Scope,
) -> Result<Vec<Strangers>, clickhouse::Error> {
    #[derive(Deserialize)]
    struct Part {
        id: String,
    }
    let sql = format!(
        "SELECT DISTINCT partition_id AS id FROM system.parts WHERE active AND database = {} AND table = {}",
        quoted(database.name()),
        quoted(table)
    );
    let parts: Vec<Part> = database.rows(&sql).await?;
    let known: Vec<String> = partitions
        .iter()
        .map(|of| format!("({}, {})", quoted(&of.topic), of.partition))
        .collect();
    let known = known.join(", ");
    let mut found: Vec<Strangers> = Vec::new();
    for part in parts {
        // A partition that only the ledger knows belonged to the topic once.
        let sql = format!(
            "SELECT _topic AS topic, _partition AS partition, _epoch AS epoch, count() AS rows, min(_offset) AS first, max(_offset) AS last \
             FROM {{database}}.{table} WHERE _partition_id = {}{} AND (_epoch != {epoch} OR (_topic, _partition) NOT IN ({known}) AND (_topic, _partition) NOT IN \
             (SELECT topic, partition FROM {{database}}.ledger WHERE consumer_group = {} AND epoch = {epoch})) GROUP BY ALL ORDER BY ALL",
            quoted(&part.id),
            scope.row_condition(),
            quoted(group)
        );
        found.extend(database.rows::<Strangers>(&sql).await?);
    }
    for strangers in &mut found {
        strangers.table = table;
    }
    Ok(found)
}

/// The rows of one source partition in one table.
pub struct TableRows<'a> {
    database: &'a Database,
    table: &'static str,
    /// The rows, as a SQL condition.
    condition: String,
    lookups: usize,
    rows: u64,
}

impl<'a> TableRows<'a> {
    /// Nothing is asked yet.
    pub fn new(database: &'a Database, table: &'static str, of: &PartitionLag, epoch: u32) -> Self {
        let condition = format!(
            "_topic = {} AND _partition = {} AND _epoch = {epoch}",
            quoted(&of.topic),
            of.partition
        );
        Self {
            database,
            table,
            condition,
            lookups: 0,
            rows: 0,
        }
    }

    /// Compares the rows of a window with its ranges. `rejected` tells which offsets of a range are dead letters.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn compare(
        &mut self,
        window: &Window,
        rejected: impl Fn(i64, i64) -> Vec<i64>,
        findings: &mut Findings,
    ) -> Result<(), clickhouse::Error> {
        let segments = segments(window, self.table);
        let found = self.count(window, &segments).await?;
        for segment in &segments {
            let found = found.get(&segment.start).copied().unwrap_or_default();
            self.rows += found.rows;
            let verdict = judge(segment, found);
            if verdict == Verdict::default() {
                continue;
            }
            let places = if segment.is_range && self.lookups < LOOKUPS_MAX {
                self.lookups += 1;
                self.places(segment, verdict, &rejected).await?
            } else {
                Places::default()
            };
            report(self.table, segment, found, verdict, places, findings);
        }
        Ok(())
    }

    /// The table, and the rows that it has of all windows so far.
    pub fn found(&self) -> (&'static str, u64) {
        (self.table, self.rows)
    }

    async fn count(
        &self,
        window: &Window,
        segments: &[Segment],
    ) -> Result<BTreeMap<i64, Found>, clickhouse::Error> {
        if segments.is_empty() {
            return Ok(BTreeMap::new());
        }
        let starts: Vec<String> = segments
            .iter()
            .map(|segment| segment.start.to_string())
            .collect();
        // Rows in a hole are unexpected each, so that a hole of any length costs no memory.
        let distinct = if window.ranges.is_empty() {
            "count()"
        } else {
            "uniqExact(_offset, _n)"
        };
        let sql = format!(
            "SELECT roundDown(_offset, [{}]::Array(Int64)) AS start, count() AS rows, {distinct} AS distinct, min(_offset) AS first, max(_offset) AS last \
             FROM {{database}}.{} WHERE {} AND _offset >= {} AND _offset < {} GROUP BY start",
            starts.join(", "),
            self.table,
            self.condition,
            window.from,
            window.to
        );
        let found: Vec<Found> = self.database.rows(&sql).await?;
        Ok(found
            .into_iter()
            .map(|found| (found.start, found))
            .collect())
    }

    /// Where exactly in a range, as far as that can be told cheaply.
    async fn places(
        &self,
        segment: &Segment,
        verdict: Verdict,
        rejected: impl Fn(i64, i64) -> Vec<i64>,
    ) -> Result<Places, clickhouse::Error> {
        let mut places = Places::default();
        let rows = format!(
            "FROM {{database}}.{} WHERE {} AND _offset >= {} AND _offset < {}",
            self.table, self.condition, segment.start, segment.end
        );
        if verdict.duplicate > 0 {
            let sql = format!(
                "SELECT count() AS rows, min(_offset) AS first, max(_offset) AS last FROM (SELECT _offset {rows} GROUP BY _offset, _n HAVING count() > 1)"
            );
            places.duplicate = self.extent(&sql).await?.map(|(_, place)| place);
        }
        if verdict.unexpected > 0 && segment.is_row_each {
            let sql = format!(
                "SELECT uniqExact(_offset, _n) AS rows, min(_offset) AS first, max(_offset) AS last {rows} AND _n > 0"
            );
            places.unexpected = self
                .extent(&sql)
                .await?
                .filter(|(rows, _)| *rows == verdict.unexpected)
                .map(|(_, place)| place);
        }
        if verdict.missing > 0 && segment.is_row_each {
            let absent = self.absent(segment, &rows).await?;
            let absent = without(absent, &rejected(segment.start, segment.end));
            let offsets: i64 = absent.iter().map(|(start, end)| end - start).sum();
            if offsets as u64 == verdict.missing {
                places.missing = absent;
            }
        }
        Ok(places)
    }

    /// Runs of offsets of a range that have no row; none if there are too many.
    async fn absent(
        &self,
        segment: &Segment,
        rows: &str,
    ) -> Result<Vec<(i64, i64)>, clickhouse::Error> {
        #[derive(Deserialize)]
        struct Run {
            start: i64,
            end: i64,
        }
        let sql = format!(
            "SELECT before + 1 AS start, _offset AS end FROM (SELECT _offset, \
             lagInFrame(_offset, 1, toInt64({})) OVER (ORDER BY _offset ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before \
             FROM (SELECT DISTINCT _offset {rows} UNION ALL SELECT toInt64({}) AS _offset)) WHERE _offset > before + 1 ORDER BY start LIMIT {}",
            segment.start - 1,
            segment.end,
            RUNS_MAX + 1
        );
        let runs: Vec<Run> = self.database.rows(&sql).await?;
        if runs.len() > RUNS_MAX {
            return Ok(Vec::new());
        }
        Ok(runs.into_iter().map(|run| (run.start, run.end)).collect())
    }

    async fn extent(&self, sql: &str) -> Result<Option<(u64, (i64, i64))>, clickhouse::Error> {
        #[derive(Deserialize)]
        struct Extent {
            rows: u64,
            first: i64,
            last: i64,
        }
        let found: Vec<Extent> = self.database.rows(sql).await?;
        Ok(found
            .first()
            .filter(|found| found.rows > 0)
            .map(|found| (found.rows, (found.first, found.last + 1))))
    }
}
