//! Rows against the ledger, range by range: two errors of opposite sign in different ranges do not cancel out. Asking stands first, judging below.
//!
//! The server counts the rows of a whole window of ranges in one query, from the projection `by_offset`. That does not hold `_epoch`, so rows of other epochs are
//! looked for first, in one pass over the narrow columns; only where there are some does the count read the table itself.

use std::collections::{BTreeMap, BTreeSet};

use activity_platform::clickhouse::{self, Database, quoted};
use serde::Deserialize;

use super::findings::{Findings, Kind, Subject, What};
use super::ledger::{LedgerRange, Window};
use super::scope::Scope;
use crate::lag::PartitionLag;

/// Runs of absent offsets in one range that are told apart; beyond that the range itself is the place.
const RUNS_MAX: usize = 100;
/// Ranges of one partition whose exact offsets are looked up; beyond that the range itself is the place.
pub const LOOKUPS_MAX: usize = 200;

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
            "rows are from a partition that the group does not read".to_owned()
        } else {
            format!(
                "rows are of epoch {}, the group is in epoch {epoch}",
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
    /// Nothing is asked yet. `mixed`: there are rows of other epochs among them.
    pub fn new(
        database: &'a Database,
        table: &'static str,
        of: &PartitionLag,
        epoch: u32,
        mixed: bool,
    ) -> Self {
        let mut condition = format!(
            "_topic = {} AND _partition = {}",
            quoted(&of.topic),
            of.partition
        );
        if mixed {
            condition += &format!(" AND _epoch = {epoch}");
        }
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

/// Offsets that belong together: one range of the ledger, ranges that overlap, or a hole between ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    start: i64,
    end: i64,
    is_range: bool,
    /// Fewest and most rows that the ledger allows: they differ where ranges overlap.
    rows: (u64, u64),
    /// Every message that was not rejected has one row.
    is_row_each: bool,
}

/// What a table has of a segment.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
struct Found {
    start: i64,
    rows: u64,
    distinct: u64,
    first: i64,
    last: i64,
}

/// How many rows of a segment are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Verdict {
    missing: u64,
    duplicate: u64,
    unexpected: u64,
}

/// Where, if it is known more closely than the segment.
#[derive(Clone, Debug, Default)]
struct Places {
    missing: Vec<(i64, i64)>,
    duplicate: Option<(i64, i64)>,
    unexpected: Option<(i64, i64)>,
}

/// A window's segments: they tile it.
fn segments(window: &Window, table: &str) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = window.from;
    let hole = |start, end| Segment {
        start,
        end,
        is_range: false,
        rows: (0, 0),
        is_row_each: false,
    };
    for range in window.ranges.iter().filter(|range| range.end > range.start) {
        if range.start > at {
            segments.push(hole(at, range.start));
            at = range.start;
        }
        let expected = range.rows.get(table).copied().unwrap_or(0);
        let overlap = (at.min(range.end) - range.start) as u64;
        match segments.last_mut() {
            Some(last) if overlap > 0 => {
                last.end = last.end.max(range.end);
                // A range of which only a part is counted, or counted twice: its rows may be all those of the overlap.
                last.rows.0 += expected.saturating_sub(overlap);
                last.rows.1 += expected;
                last.is_row_each = false;
            }
            _ if range.end > at => segments.push(Segment {
                start: at,
                end: range.end,
                is_range: true,
                rows: (expected.saturating_sub(overlap), expected),
                is_row_each: overlap == 0 && is_row_each(range, expected),
            }),
            _ => (),
        }
        at = at.max(range.end);
    }
    if window.to > at {
        segments.push(hole(at, window.to));
    }
    segments
}

fn is_row_each(range: &LedgerRange, expected: u64) -> bool {
    range.lost == 0 && range.events == range.offsets() && expected + range.rejects == range.events
}

fn judge(segment: &Segment, found: Found) -> Verdict {
    if !segment.is_range {
        return Verdict {
            unexpected: found.rows,
            ..Verdict::default()
        };
    }
    Verdict {
        missing: segment.rows.0.saturating_sub(found.distinct),
        duplicate: found.rows - found.distinct,
        unexpected: found.distinct.saturating_sub(segment.rows.1),
    }
}

fn report(
    table: &str,
    segment: &Segment,
    found: Found,
    verdict: Verdict,
    places: Places,
    findings: &mut Findings,
) {
    let subject = |kind, note: &'static str| Subject::new(kind, What::Table, table, note);
    let missing = subject(Kind::Missing, "rows are missing");
    if places.missing.is_empty() {
        findings.add(missing, segment.start, segment.end, verdict.missing);
    } else {
        for (start, end) in places.missing {
            findings.add(missing.clone(), start, end, (end - start) as u64);
        }
    }
    let extent = (found.first, found.last + 1);
    let (start, end) = places.duplicate.unwrap_or(extent);
    findings.add(
        subject(Kind::Duplicate, "rows are there more than once"),
        start,
        end,
        verdict.duplicate,
    );
    let note = if segment.is_range {
        "rows more than the ledger knows"
    } else {
        "rows lie in no range of the ledger"
    };
    let (start, end) = places.unexpected.unwrap_or(extent);
    findings.add(
        subject(Kind::Unexpected, note),
        start,
        end,
        verdict.unexpected,
    );
}

/// Runs of offsets without some offsets.
fn without(runs: Vec<(i64, i64)>, excluded: &[i64]) -> Vec<(i64, i64)> {
    let excluded: BTreeSet<i64> = excluded.iter().copied().collect();
    let mut left = Vec::new();
    for (mut start, end) in runs {
        for offset in excluded.range(start..end) {
            if start < *offset {
                left.push((start, *offset));
            }
            start = offset + 1;
        }
        if start < end {
            left.push((start, end));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: i64, end: i64, rows: u64) -> LedgerRange {
        LedgerRange {
            start,
            end,
            events: (end - start) as u64,
            rows: BTreeMap::from([("t".to_owned(), rows)]),
            ..LedgerRange::default()
        }
    }

    fn window(from: i64, to: i64, ranges: Vec<LedgerRange>) -> Window {
        Window { from, to, ranges }
    }

    /// What the server answers about rows (offset, n).
    fn counted(segments: &[Segment], rows: &[(i64, u32)], start: i64) -> Found {
        let starts: Vec<i64> = segments.iter().map(|segment| segment.start).collect();
        let of_segment: Vec<(i64, u32)> = rows
            .iter()
            .copied()
            .filter(|(offset, _)| {
                starts.iter().rev().find(|start| *start <= offset) == Some(&start)
            })
            .collect();
        let distinct: BTreeSet<(i64, u32)> = of_segment.iter().copied().collect();
        Found {
            start,
            rows: of_segment.len() as u64,
            distinct: distinct.len() as u64,
            first: of_segment
                .iter()
                .map(|(offset, _)| *offset)
                .min()
                .unwrap_or(0),
            last: of_segment
                .iter()
                .map(|(offset, _)| *offset)
                .max()
                .unwrap_or(0),
        }
    }

    fn judged(window: &Window, rows: &[(i64, u32)]) -> Findings {
        let segments = segments(window, "t");
        let mut findings = Findings::new("source", 0);
        for segment in &segments {
            let found = counted(&segments, rows, segment.start);
            report(
                "t",
                segment,
                found,
                judge(segment, found),
                Places::default(),
                &mut findings,
            );
        }
        findings
    }

    #[test]
    fn errors_of_opposite_sign_in_different_ranges_do_not_cancel_out() {
        let window = window(0, 20, vec![range(0, 10, 2), range(10, 20, 2)]);
        let findings = judged(&window, &[(3, 0), (12, 0), (13, 0), (14, 0)]);
        assert_eq!((findings.missing, findings.unexpected), (1, 1));
        let places: Vec<(Kind, i64, i64)> = findings
            .into_list()
            .into_iter()
            .map(|finding| (finding.subject.kind, finding.start, finding.end))
            .collect();
        assert_eq!(places, [(Kind::Missing, 0, 10), (Kind::Unexpected, 12, 15)]);
    }

    #[test]
    fn rows_in_a_hole_of_the_ledger_are_unexpected() {
        let window = window(0, 30, vec![range(0, 10, 1), range(20, 30, 1)]);
        let findings = judged(&window, &[(3, 0), (14, 0), (15, 0), (22, 0)]);
        assert_eq!((findings.missing, findings.unexpected), (0, 2));
        assert_eq!(
            findings.into_list()[0].words,
            "t: source/0, offsets 14 to 15: 2 rows lie in no range of the ledger"
        );
    }

    #[test]
    fn rows_of_ranges_that_overlap_may_be_there_once() {
        let window = window(0, 15, vec![range(0, 10, 10), range(5, 15, 10)]);
        let rows: Vec<(i64, u32)> = (0..15).map(|offset| (offset, 0)).collect();
        let findings = judged(&window, &rows);
        assert_eq!((findings.missing, findings.unexpected), (0, 0));
        assert_eq!(judged(&window, &rows[1..]).missing, 1);
    }

    #[test]
    fn a_message_that_was_rejected_is_not_an_absent_row() {
        assert_eq!(
            without(vec![(5, 10), (20, 22)], &[1, 5, 7, 20, 21]),
            [(6, 7), (8, 10)]
        );
        assert_eq!(without(vec![(5, 10)], &[]), [(5, 10)]);
    }

    proptest! {
        /// Against the naive model, which looks at every row and every range by itself.
        #[test]
        fn ranges_are_judged_as_the_naive_model_judges_them(
            lengths in prop::collection::vec((1_i64..8, any::<bool>(), 0_u64..6), 1..8),
            rows in prop::collection::vec((0_i64..60, 0_u32..2), 0..60),
        ) {
            let (mut at, mut ranges) = (0, Vec::new());
            for (length, is_hole, expected) in lengths {
                if !is_hole {
                    ranges.push(range(at, at + length, expected));
                }
                at += length;
            }
            let rows: Vec<(i64, u32)> = rows.into_iter().filter(|(offset, _)| *offset < at).collect();
            let (mut missing, mut duplicate, mut unexpected) = (0, 0, 0);
            for range in &ranges {
                let inside: Vec<_> = rows.iter().filter(|(offset, _)| (range.start..range.end).contains(offset)).collect();
                let distinct: BTreeSet<_> = inside.iter().collect();
                let expected = range.rows["t"];
                missing += expected.saturating_sub(distinct.len() as u64);
                unexpected += (distinct.len() as u64).saturating_sub(expected);
                duplicate += (inside.len() - distinct.len()) as u64;
            }
            let outside = |offset: i64| !ranges.iter().any(|range| (range.start..range.end).contains(&offset));
            unexpected += rows.iter().filter(|(offset, _)| outside(*offset)).count() as u64;
            let findings = judged(&window(0, at, ranges), &rows);
            prop_assert_eq!((findings.missing, findings.duplicate, findings.unexpected), (missing, duplicate, unexpected));
        }

        #[test]
        fn segments_tile_their_window(pieces in prop::collection::btree_map(0_i64..100, 1_i64..40, 0..10), from in 0_i64..50) {
            let ranges: Vec<LedgerRange> = pieces.iter().map(|(start, length)| range(*start, start + length, 1)).collect();
            let to = ranges.iter().map(|range| range.end).max().unwrap_or(0).max(from) + 5;
            let mut at = from;
            for segment in segments(&window(from, to, ranges), "t") {
                prop_assert_eq!(segment.start, at);
                prop_assert!(segment.end > at);
                at = segment.end;
            }
            prop_assert_eq!(at, to);
        }
    }
}
