//! The ledger's ranges of one partition, read page by page, and whether they tile the log. Asking stands first, judging below.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use activity_platform::clickhouse::{self, Database, quoted};
use serde::Deserialize;

use super::findings::{Findings, Kind, Subject, What};
use super::holes::Excused;
use super::scope::Span;
use crate::lag::PartitionLag;

/// Ranges that are held at once, and that one query tells apart.
pub const RANGES_MAX: usize = 2_000;
/// Rows that one query counts exactly: bounds the memory that ClickHouse needs for it. A single range may have more.
const WINDOW_ROWS: u64 = 500_000;

/// One range of the ledger.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct LedgerRange {
    /// First offset.
    pub start: i64,
    /// Offset after the last.
    pub end: i64,
    /// Messages read.
    pub events: u64,
    /// Of these, dead letters.
    pub rejects: u64,
    /// Offsets that the log no longer had.
    pub lost: u64,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// When the range was claimed, milliseconds since 1970-01-01 UTC.
    pub claimed_at_ms: i64,
}

impl LedgerRange {
    /// How many offsets it spans.
    pub fn offsets(&self) -> u64 {
        (self.end - self.start).max(0) as u64
    }

    /// Offsets that are neither messages read nor messages lost.
    pub fn untold(&self) -> u64 {
        self.offsets().saturating_sub(self.events + self.lost)
    }

    /// Rows that counting it may touch, at least.
    fn weight(&self) -> u64 {
        self.rows
            .values()
            .copied()
            .fold(self.offsets(), std::cmp::max)
    }
}

/// The ledger of one partition in one epoch, as a SQL condition. What begins below the committed offset is settled as a whole.
pub fn condition(of: &PartitionLag, epoch: u32, span: Span) -> String {
    format!(
        "consumer_group = {} AND topic = {} AND partition = {} AND epoch = {epoch} AND start_offset < {} AND end_offset > {}",
        quoted(&of.group),
        quoted(&of.topic),
        of.partition,
        span.to,
        span.from
    )
}

/// Reads a partition's ranges in the order of their offsets, a window at a time.
pub struct Pager<'a> {
    database: &'a Database,
    condition: String,
    /// First offset that the next page may begin with.
    next_start: i64,
    /// Whether the last page has been read.
    at_end: bool,
    ahead: VecDeque<LedgerRange>,
    /// Offset up to which windows were given out.
    from: i64,
    to: i64,
}

impl<'a> Pager<'a> {
    /// Begins at the start of a span.
    pub fn new(database: &'a Database, of: &PartitionLag, epoch: u32, span: Span) -> Self {
        Self {
            database,
            condition: condition(of, epoch, span),
            next_start: i64::MIN,
            at_end: false,
            ahead: VecDeque::new(),
            from: span.from,
            to: span.to,
        }
    }

    /// The next window; None when the span is at its end.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn next(&mut self) -> Result<Option<Window>, clickhouse::Error> {
        if self.ahead.len() < RANGES_MAX && !self.at_end {
            self.read_page().await?;
        }
        let window = cut(self.from, self.to, &mut self.ahead);
        if let Some(window) = &window {
            self.from = window.to;
        }
        Ok(window)
    }

    async fn read_page(&mut self) -> Result<(), clickhouse::Error> {
        let sql = format!(
            "SELECT start_offset AS start, end_offset AS end, events, rejects, lost, rows, toUnixTimestamp64Milli(claimed_at) AS claimed_at_ms \
             FROM {{database}}.ledger FINAL WHERE {} AND start_offset >= {} ORDER BY start_offset LIMIT {RANGES_MAX}",
            self.condition, self.next_start
        );
        let page: Vec<LedgerRange> = self.database.rows(&sql).await?;
        self.at_end = page.len() < RANGES_MAX;
        if let Some(last) = page.last() {
            self.next_start = last.start + 1;
        }
        self.ahead.extend(page);
        Ok(())
    }
}

/// Some of a partition's offsets with all ranges of the ledger that begin in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// First offset.
    pub from: i64,
    /// Offset after the last.
    pub to: i64,
    /// Ranges in the order of their offsets; none: a hole of any length.
    pub ranges: Vec<LedgerRange>,
}

/// Takes the next window off the ranges that were read; the last one ends at `to` or after it.
fn cut(from: i64, to: i64, ahead: &mut VecDeque<LedgerRange>) -> Option<Window> {
    let Some(first) = ahead.front() else {
        return (from < to).then_some(Window {
            from,
            to,
            ranges: Vec::new(),
        });
    };
    if first.start.saturating_sub(from) as u64 > WINDOW_ROWS && first.start > from {
        let to = first.start;
        return Some(Window {
            from,
            to,
            ranges: Vec::new(),
        });
    }
    let (mut end, mut rows, mut ranges) = (from, 0, Vec::new());
    while let Some(range) = ahead.front() {
        let weight = range.weight() + (range.start - end).max(0) as u64;
        if !ranges.is_empty() && (rows + weight > WINDOW_ROWS || ranges.len() == RANGES_MAX) {
            break;
        }
        end = end.max(range.end);
        rows += weight;
        ranges.extend(ahead.pop_front());
    }
    Some(Window {
        from,
        to: end,
        ranges,
    })
}

/// Whether ranges tile the offsets that they must, from the first that the log has to the committed one.
#[derive(Clone, Debug)]
pub struct Tiling {
    must_from: i64,
    must_to: i64,
    /// End of what is covered so far; None: nothing yet.
    covered: Option<i64>,
}

impl Tiling {
    /// Nothing is covered yet.
    pub fn new(span: Span) -> Self {
        Self {
            must_from: span.must_from,
            must_to: span.must_to,
            covered: None,
        }
    }

    /// The next range in the order of start offsets.
    pub fn take(&mut self, range: &LedgerRange, excused: Excused, findings: &mut Findings) {
        self.uncovered_up_to(range.start, findings);
        if let Some(covered) = self.covered {
            let end = covered.min(range.end);
            let overlap = (end - range.start).max(0) as u64;
            findings.add(
                ledger(Kind::Duplicate, "offsets in two ranges"),
                range.start,
                end,
                overlap,
            );
        }
        self.covered = Some(self.covered.unwrap_or(range.end).max(range.end));
        findings.add(
            ledger(Kind::Missing, "offsets without a message"),
            range.start,
            range.end,
            range
                .untold()
                .saturating_sub(excused.empty + excused.expired),
        );
        findings.add(
            ledger(Kind::Unexpected, "messages more than offsets"),
            range.start,
            range.end,
            (range.events + range.lost).saturating_sub(range.offsets()),
        );
    }

    /// There are no more ranges.
    pub fn finish(&mut self, findings: &mut Findings) {
        self.uncovered_up_to(self.must_to, findings);
    }

    fn uncovered_up_to(&mut self, end: i64, findings: &mut Findings) {
        // What lies between two ranges is missing even where the log itself has forgotten it.
        let start = self.covered.unwrap_or(self.must_from);
        findings.add(
            ledger(Kind::Missing, "committed offsets in no range"),
            start,
            end,
            (end - start).max(0) as u64,
        );
    }
}

fn ledger(kind: Kind, note: impl Into<Cow<'static, str>>) -> Subject {
    Subject::new(kind, What::Ledger, "ledger", note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn range(start: i64, end: i64) -> LedgerRange {
        LedgerRange {
            start,
            end,
            events: (end - start) as u64,
            ..LedgerRange::default()
        }
    }

    fn judged(ranges: &[LedgerRange]) -> Findings {
        let mut findings = Findings::new("t", 0);
        let mut tiling = Tiling::new(Span::whole(0, 100));
        for range in ranges {
            tiling.take(range, Excused::default(), &mut findings);
        }
        tiling.finish(&mut findings);
        findings
    }

    fn places(findings: Findings) -> Vec<(Kind, i64, i64, u64)> {
        findings
            .into_list()
            .into_iter()
            .map(|finding| {
                (
                    finding.subject.kind,
                    finding.start,
                    finding.end,
                    finding.count,
                )
            })
            .collect()
    }

    #[test]
    fn ranges_that_tile_the_log_are_clean() {
        assert_eq!(
            places(judged(&[range(0, 40), range(40, 41), range(41, 100)])),
            []
        );
    }

    #[test]
    fn every_kind_of_hole_is_missing_with_its_place() {
        for (ranges, start, end, count) in [
            (vec![range(0, 40), range(45, 100)], 40, 45, 5),
            (vec![range(10, 100)], 0, 10, 10),
            (vec![range(0, 80)], 80, 100, 20),
            (vec![], 0, 100, 100),
            (
                vec![
                    range(0, 50),
                    LedgerRange {
                        events: 43,
                        ..range(50, 100)
                    },
                ],
                50,
                100,
                7,
            ),
        ] {
            assert_eq!(
                places(judged(&ranges)),
                [(Kind::Missing, start, end, count)],
                "{ranges:?}"
            );
        }
    }

    #[test]
    fn a_hole_that_the_log_has_forgotten_is_missing_still() {
        let mut findings = Findings::new("t", 0);
        let mut tiling = Tiling::new(Span::whole(90, 100));
        for range in [range(0, 40), range(45, 100)] {
            tiling.take(&range, Excused::default(), &mut findings);
        }
        tiling.finish(&mut findings);
        assert_eq!(places(findings), [(Kind::Missing, 40, 45, 5)]);
    }

    #[test]
    fn a_hole_and_an_overlap_do_not_cancel_out() {
        assert_eq!(
            places(judged(&[
                range(0, 40),
                range(35, 50),
                range(55, 80),
                range(60, 70),
                range(80, 100)
            ])),
            [
                (Kind::Duplicate, 35, 40, 5),
                (Kind::Missing, 50, 55, 5),
                (Kind::Duplicate, 60, 70, 10)
            ]
        );
    }

    #[test]
    fn lost_messages_are_neither_missing_nor_unexpected() {
        let lost = LedgerRange {
            events: 60,
            lost: 40,
            ..range(0, 100)
        };
        assert_eq!(places(judged(&[lost])), []);
    }

    #[test]
    fn offsets_in_which_no_message_is_missed_are_not_missing() {
        let marked = LedgerRange {
            events: 90,
            ..range(0, 100)
        };
        let missing = |empty, expired| {
            let mut findings = Findings::new("t", 0);
            let excused = Excused { empty, expired };
            Tiling::new(Span::whole(0, 100)).take(&marked, excused, &mut findings);
            findings.missing
        };
        assert_eq!((missing(10, 0), missing(0, 10), missing(7, 0)), (0, 0, 3));
    }

    #[test]
    fn more_messages_than_offsets_are_unexpected() {
        let more = LedgerRange {
            events: 103,
            ..range(0, 100)
        };
        assert_eq!(places(judged(&[more])), [(Kind::Unexpected, 0, 100, 3)]);
    }

    proptest! {
        /// Against the naive model: an array of offsets, each with the number of ranges that it lies in.
        #[test]
        fn holes_and_overlaps_are_those_of_the_naive_model(pieces in prop::collection::btree_map(0_i64..120, 1_i64..30, 0..12), committed in 0_i64..150, first in 0_i64..50) {
            let ranges: Vec<LedgerRange> = pieces.iter().map(|(start, length)| range(*start, start + length)).collect();
            let mut findings = Findings::new("t", 0);
            let mut tiling = Tiling::new(Span::whole(first, committed));
            for range in &ranges {
                tiling.take(range, Excused::default(), &mut findings);
            }
            tiling.finish(&mut findings);
            let cover = |offset: i64| ranges.iter().filter(|range| (range.start..range.end).contains(&offset)).count() as u64;
            // Above the committed offset only a range that begins above a hole says that the hole matters.
            let last = ranges.iter().map(|range| range.start).max().unwrap_or(0).max(committed);
            let begin = ranges.first().map_or(first, |range| range.start.min(first));
            let missing = (begin..last).filter(|offset| cover(*offset) == 0).count() as u64;
            let duplicate: u64 = (0..200).map(|offset| cover(offset).saturating_sub(1)).sum();
            prop_assert_eq!(findings.missing, missing);
            prop_assert_eq!(findings.duplicate, duplicate);
            for finding in findings.into_list() {
                if finding.subject.kind == Kind::Missing {
                    prop_assert!((finding.start..finding.end).all(|offset| cover(offset) == 0));
                }
            }
        }

        #[test]
        fn windows_hold_each_range_once_side_by_side_and_none_is_too_large(pieces in prop::collection::btree_map(0_i64..3_000_000, 0_i64..400_000, 0..40), from in 0_i64..1_000_000) {
            let ranges: Vec<LedgerRange> = pieces.iter().map(|(start, length)| range(*start, start + length)).collect();
            let mut ahead: VecDeque<LedgerRange> = ranges.iter().cloned().collect();
            let (mut at, to, mut seen) = (from, 4_000_000, Vec::new());
            while let Some(window) = cut(at, to, &mut ahead) {
                prop_assert_eq!(window.from, at);
                prop_assert!(window.to >= at);
                let rows: u64 = window.ranges.iter().map(LedgerRange::weight).sum();
                prop_assert!(window.ranges.len() == 1 || rows <= WINDOW_ROWS);
                seen.extend(window.ranges);
                at = window.to;
            }
            prop_assert!(at >= to);
            prop_assert_eq!(seen, ranges);
        }
    }
}
