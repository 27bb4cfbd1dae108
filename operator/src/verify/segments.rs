//! Rows against the ledger, range by range: two errors of opposite sign in different ranges do not cancel out. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::findings::{Findings, Kind, Subject, What};
use super::ledger::{LedgerRange, Window};

/// Offsets that belong together: one range of the ledger, ranges that overlap, or a hole between ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First offset.
    pub start: i64,
    /// Offset after the last.
    pub end: i64,
    /// Not a hole.
    pub is_range: bool,
    /// Fewest and most rows that the ledger allows: they differ where ranges overlap.
    pub rows: (u64, u64),
    /// Every message that was not rejected has one row.
    pub is_row_each: bool,
}

/// What a table has of a segment.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Found {
    /// First offset of the segment.
    pub start: i64,
    /// Rows.
    pub rows: u64,
    /// Different (`_offset`, `_n`) among them.
    pub distinct: u64,
    /// Lowest offset.
    pub first: i64,
    /// Highest offset.
    pub last: i64,
}

/// How many rows of a segment are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that are there once more.
    pub duplicate: u64,
    /// Rows that the ledger does not count.
    pub unexpected: u64,
}

/// Where, if it is known more closely than the segment.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Runs of offsets without a row.
    pub missing: Vec<(i64, i64)>,
    /// From the first to the last offset with a row more than once.
    pub duplicate: Option<(i64, i64)>,
    /// From the first to the last offset with a row that is not counted.
    pub unexpected: Option<(i64, i64)>,
}

/// A window's segments: they tile it.
pub fn segments(window: &Window, table: &str) -> Vec<Segment> {
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

/// Compares what a table has of a segment with what it should have.
pub fn judge(segment: &Segment, found: Found) -> Verdict {
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

/// Counts what is wrong with a segment, at its places.
pub fn report(
    table: &str,
    segment: &Segment,
    found: Found,
    verdict: Verdict,
    places: Places,
    findings: &mut Findings,
) {
    let subject = |kind, note: &'static str| Subject::new(kind, What::Table, table, note);
    let missing = subject(Kind::Missing, "missing rows");
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
        subject(Kind::Duplicate, "rows more than once"),
        start,
        end,
        verdict.duplicate,
    );
    let note = if segment.is_range {
        "rows beyond the count of the ledger"
    } else {
        "rows in no range of the ledger"
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
pub fn without(runs: Vec<(i64, i64)>, excluded: &[i64]) -> Vec<(i64, i64)> {
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
    use std::collections::BTreeMap;

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
            "t, source/0, offsets 14 to 15: rows in no range of the ledger: 2"
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
