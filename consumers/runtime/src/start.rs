//! Where a newly assigned partition goes on: the committed offset and the ledger are two witnesses, the log a third. Pure.

use crate::claim::{CLAIMED_AT_UNKNOWN, Claim, Range};
use crate::settings::BATCH_ROWS_LIMIT;

/// What to do where a topic was made anew.
const OF_THE_OLD_TOPIC: &str = "Its tables are of the old topic: run `activity setup` with another --database and start the group with it and another --group-prefix";

/// A range whose claim is gone was one batch, and is built again as one, in memory. A batch has at most [`BATCH_ROWS_LIMIT`] messages that give a row or a dead
/// letter, each perhaps with the marker of a transaction behind it. One of messages that give nothing may have been longer: the partition stops over it too.
const RANGE_OFFSETS_MAX: i64 = 2 * BATCH_ROWS_LIMIT as i64;

/// What is known of a partition when it is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnesses {
    /// Committed offset and, if it is ours, its claim.
    pub committed: Option<(i64, Option<Claim>)>,
    /// End of the ledger's last range in the group's epoch.
    pub ledger_end: Option<i64>,
    /// First offset that the log has.
    pub log_first: i64,
    /// Offset that the next message will get.
    pub log_next: i64,
}

/// How a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Read from here; what is before is in ClickHouse, or lost.
    At {
        /// S.
        offset: i64,
        /// Offsets below `offset` that nobody has processed and that the log no longer has.
        lost: Option<Range>,
        /// What an operator should know about it.
        notice: Option<String>,
    },
    /// [S, E) was claimed and its outcome is not known: build it again and send it under its token.
    Redo {
        /// [S, E).
        range: Range,
        /// When it was claimed, milliseconds since 1970-01-01 UTC; or [`CLAIMED_AT_UNKNOWN`].
        claimed_at_ms: i64,
        /// First offset of the range that the log still has, where that is not S.
        log_first: Option<i64>,
        /// What an operator should know about it.
        notice: Option<String>,
    },
    /// Nothing sensible can be done without an operator.
    Stop {
        /// Why, and what to do.
        why: String,
    },
}

/// Decides from the witnesses, for a group in `epoch`.
pub fn decide(witnesses: &Witnesses, epoch: u32) -> Start {
    let Witnesses {
        committed,
        ledger_end,
        log_first,
        log_next,
    } = witnesses.clone();
    let claimed_end = committed.map(|(offset, claim)| {
        claim
            .filter(|claim| claim.epoch == epoch)
            .map_or(offset, |claim| claim.end.max(offset))
    });
    if let Some(end) = ledger_end.max(claimed_end)
        && end > log_next
    {
        return made_anew(end, log_next);
    }
    let in_flight = committed.and_then(|(offset, claim)| {
        claim
            .filter(|claim| claim.epoch == epoch && claim.end > offset)
            .map(|claim| (offset, claim))
    });
    if let Some((start, claim)) = in_flight
        && ledger_end.is_none_or(|end| end <= start)
    {
        let notice = ledger_end
            .filter(|end| *end < start)
            .map(|end| gap_notice(end, start));
        return redo(
            Range {
                start,
                end: claim.end,
            },
            claim.claimed_at_ms,
            log_first,
            notice,
        );
    }
    match (committed.map(|(offset, _)| offset), ledger_end) {
        (None, None) => Start::At {
            offset: log_first,
            lost: None,
            notice: None,
        },
        (None, Some(end)) => at(
            end,
            log_first,
            Some(format!(
                "no committed offset: going on at the ledger's end, {end}"
            )),
        ),
        (Some(offset), None) => at(offset, log_first, None),
        (Some(offset), Some(end)) if offset > end => {
            at(offset, log_first, Some(gap_notice(end, offset)))
        }
        // A claim that the ledger already has: the process ended between ledger and commit.
        (Some(_), Some(end)) if in_flight.is_some_and(|(_, claim)| claim.end == end) => {
            at(end, log_first, None)
        }
        (Some(offset), Some(end)) if offset < end => {
            let notice = format!(
                "committed offset {offset} is below the ledger's end {end} (overwritten or reset from outside): going on at the ledger's end; to read again use `activity rewind`"
            );
            at(end, log_first, Some(notice))
        }
        (Some(offset), Some(_)) => at(offset, log_first, None),
    }
}

/// Where rows must be looked for before a start is believed. Whoever inserts has claimed the range in Kafka first; where the committed offset is not ours any more
/// (deleted, or set from outside), that claim is gone, and its rows may be there without a row of the ledger.
pub fn unvouched_from(
    start: &Start,
    committed: Option<(i64, Option<Claim>)>,
    epoch: u32,
) -> Option<i64> {
    let Start::At { offset, lost, .. } = start else {
        return None;
    };
    let from = lost.map_or(*offset, |lost| lost.start);
    let is_vouched = committed.is_some_and(|(offset, claim)| {
        claim.is_some_and(|claim| claim.epoch == epoch && (offset == from || claim.end == from))
    });
    (!is_vouched).then_some(from)
}

/// Why a partition must stop whose log is of another topic than the ledger, although it is long enough: messages are appended one after the other, so that a log whose
/// first message was appended later than all that the ledger has up to `ledger_end` cannot begin below that. It must be the first one: where the producers say the
/// times, one in the middle (a transaction's marker, or what was aborted) may be a little later than those behind it.
pub fn of_another_topic(ledger_end: i64, first: i64, first_after: Option<i64>) -> Option<String> {
    (first < ledger_end && first_after == Some(first)).then(|| {
        format!(
            "the topic was made anew: its first message, at offset {first}, was appended after the group had read up to offset {ledger_end}. {OF_THE_OLD_TOPIC}"
        )
    })
}

/// The start where there are rows up to `last_row` behind an unvouched one: they are the rows of a range whose claim is gone, so that it is built again, and what
/// is not there of it is inserted. It stops where that cannot have been one batch: then it is not a claim that is missing, but a part of the ledger.
pub fn over_rows(start: Start, last_row: i64, log: Range) -> Start {
    let Start::At {
        offset,
        lost,
        notice,
    } = start
    else {
        return start;
    };
    if last_row >= log.end {
        return made_anew(last_row + 1, log.end);
    }
    let range = Range {
        start: lost.map_or(offset, |lost| lost.start),
        end: last_row + 1,
    };
    if range.end - range.start > RANGE_OFFSETS_MAX {
        return older_ledger(range);
    }
    let found = format!(
        "there are rows of offsets {} to {} that no claim tells of: what is not there of them is inserted",
        range.start, range.end
    );
    let notice = notice.map_or(found.clone(), |notice| format!("{notice}; {found}"));
    redo(range, CLAIMED_AT_UNKNOWN, log.start, Some(notice))
}

/// What the log has lost of the messages between a snapshot and `settled_below`, from where on nothing was settled. Their rows are in ClickHouse, but the state
/// that is rebuilt goes without them, and what it gives from there on may be other rows than before.
pub fn gap_in_state(state_offset: i64, log_first: i64, settled_below: i64) -> Option<Range> {
    let end = log_first.min(settled_below);
    (state_offset < end).then_some(Range {
        start: state_offset,
        end,
    })
}

fn made_anew(end: i64, log_next: i64) -> Start {
    Start::Stop {
        why: format!(
            "the topic was made anew: the group has read up to offset {end}, the log ends at {log_next}. {OF_THE_OLD_TOPIC}"
        ),
    }
}

fn older_ledger(range: Range) -> Start {
    let Range { start, end } = range;
    Start::Stop {
        why: format!(
            "there are rows of offsets {start} to {end} that neither a claim nor the ledger tells of, more than a batch ever has: the ledger is older than the \
             tables. `activity rewind` with --to and offset {start} of this partition reads them again"
        ),
    }
}

fn gap_notice(ledger_end: i64, committed: i64) -> String {
    format!(
        "committed offset {committed} is above the ledger's end {ledger_end}: offsets {ledger_end} to {committed} were skipped from outside"
    )
}

fn at(offset: i64, log_first: i64, notice: Option<String>) -> Start {
    let lost = (offset < log_first).then_some(Range {
        start: offset,
        end: log_first,
    });
    Start::At {
        offset: offset.max(log_first),
        lost,
        notice,
    }
}

fn redo(range: Range, claimed_at_ms: i64, log_first: i64, notice: Option<String>) -> Start {
    let log_first = (log_first > range.start).then_some(log_first);
    Start::Redo {
        range,
        claimed_at_ms,
        log_first,
        notice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witnesses(committed: Option<(i64, Option<Claim>)>, ledger_end: Option<i64>) -> Witnesses {
        Witnesses {
            committed,
            ledger_end,
            log_first: 0,
            log_next: 1_000,
        }
    }

    fn claim(end: i64) -> Option<Claim> {
        Some(Claim {
            end,
            epoch: 1,
            claimed_at_ms: 7,
        })
    }

    fn offset(start: Start) -> (i64, bool) {
        match start {
            Start::At { offset, notice, .. } => (offset, notice.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_group_begins_at_the_start_of_the_log() {
        let found = Witnesses {
            committed: None,
            ledger_end: None,
            log_first: 5,
            log_next: 10,
        };
        assert_eq!(
            decide(&found, 1),
            Start::At {
                offset: 5,
                lost: None,
                notice: None
            }
        );
    }

    #[test]
    fn a_claim_in_flight_is_built_again() {
        let expected = Start::Redo {
            range: Range {
                start: 100,
                end: 200,
            },
            claimed_at_ms: 7,
            log_first: None,
            notice: None,
        };
        assert_eq!(
            decide(&witnesses(Some((100, claim(200))), Some(100)), 1),
            expected
        );
        assert_eq!(
            decide(&witnesses(Some((100, claim(200))), None), 1),
            expected
        );
    }

    #[test]
    fn a_claim_that_the_ledger_already_has_is_done() {
        assert_eq!(
            offset(decide(&witnesses(Some((100, claim(200))), Some(200)), 1)),
            (200, false)
        );
    }

    #[test]
    fn a_claim_of_another_epoch_is_not_in_flight() {
        assert_eq!(
            offset(decide(&witnesses(Some((100, claim(200))), None), 2)),
            (100, false)
        );
    }

    #[test]
    fn an_offset_that_was_lost_or_set_back_goes_on_at_the_ledgers_end_and_says_so() {
        assert_eq!(offset(decide(&witnesses(None, Some(300)), 1)), (300, true));
        assert_eq!(
            offset(decide(&witnesses(Some((50, None)), Some(300)), 1)),
            (300, true)
        );
        assert_eq!(
            offset(decide(&witnesses(Some((50, claim(120))), Some(300)), 1)),
            (300, true)
        );
    }

    #[test]
    fn an_offset_above_the_ledger_reports_the_gap() {
        assert_eq!(
            offset(decide(&witnesses(Some((400, claim(400))), Some(300)), 1)),
            (400, true)
        );
    }

    #[test]
    fn a_topic_made_anew_stops_the_partition() {
        for (committed, ledger_end) in [
            (Some((2_000, None)), Some(2_000)),
            (Some((2_000, None)), None),
            (Some((900, claim(1_100))), Some(900)),
            (None, Some(2_000)),
        ] {
            let start = decide(&witnesses(committed, ledger_end), 1);
            assert!(matches!(start, Start::Stop { .. }), "{start:?}");
        }
    }

    #[test]
    fn retention_that_passed_us_is_counted_exactly() {
        let found = Witnesses {
            committed: Some((100, claim(100))),
            ledger_end: Some(100),
            log_first: 130,
            log_next: 1_000,
        };
        assert_eq!(
            decide(&found, 1),
            Start::At {
                offset: 130,
                lost: Some(Range {
                    start: 100,
                    end: 130
                }),
                notice: None
            }
        );
        let found = Witnesses {
            committed: Some((100, claim(200))),
            ledger_end: Some(100),
            log_first: 130,
            log_next: 1_000,
        };
        assert_eq!(
            decide(&found, 1),
            Start::Redo {
                range: Range {
                    start: 100,
                    end: 200
                },
                claimed_at_ms: 7,
                log_first: Some(130),
                notice: None
            }
        );
    }

    /// Where rows are looked for.
    fn looks_from(committed: Option<(i64, Option<Claim>)>, ledger_end: Option<i64>) -> Option<i64> {
        unvouched_from(&decide(&witnesses(committed, ledger_end), 1), committed, 1)
    }

    #[test]
    fn rows_are_looked_for_exactly_where_no_claim_of_this_epoch_vouches_for_the_start() {
        // Ours: nothing in flight, in flight, and settled but not said yet.
        assert_eq!(looks_from(Some((100, claim(100))), Some(100)), None);
        assert_eq!(looks_from(Some((100, claim(200))), Some(100)), None);
        assert_eq!(looks_from(Some((100, claim(200))), Some(200)), None);
        // Not ours: deleted, set back, set forward, of another epoch, and overwritten by one that came late.
        assert_eq!(looks_from(None, None), Some(0));
        assert_eq!(looks_from(None, Some(100)), Some(100));
        assert_eq!(looks_from(Some((0, None)), Some(100)), Some(100));
        assert_eq!(looks_from(Some((150, None)), Some(100)), Some(150));
        let of_another = claim(100).map(|claim| Claim { epoch: 2, ..claim });
        assert_eq!(looks_from(Some((100, of_another)), Some(100)), Some(100));
        assert_eq!(looks_from(Some((50, claim(80))), Some(100)), Some(100));
    }

    #[test]
    fn rows_that_no_claim_tells_of_are_built_again_and_not_under_a_token_of_now() {
        const LOG: Range = Range {
            start: 130,
            end: 1_000,
        };
        let found = Witnesses {
            committed: None,
            ledger_end: Some(100),
            log_first: 130,
            log_next: 1_000,
        };
        let start = over_rows(decide(&found, 1), 149, LOG);
        let Start::Redo {
            range,
            claimed_at_ms,
            log_first,
            notice,
        } = start
        else {
            panic!("{start:?}")
        };
        assert_eq!((range.start, range.end), (100, 150));
        assert_eq!((claimed_at_ms, log_first), (CLAIMED_AT_UNKNOWN, Some(130)));
        let notice = notice.unwrap();
        assert!(
            notice.contains("no committed offset") && notice.contains("100 to 150"),
            "{notice}"
        );
        let start = over_rows(decide(&found, 1), 1_000, LOG);
        assert!(matches!(start, Start::Stop { .. }), "{start:?}");
    }

    #[test]
    fn rows_of_more_offsets_than_a_batch_ever_has_are_not_built_again_in_memory() {
        const LOG: Range = Range {
            start: 0,
            end: 20_000_000,
        };
        let over = |last_row| {
            let (offset, lost, notice) = (100, None, None);
            let start = Start::At {
                offset,
                lost,
                notice,
            };
            over_rows(start, last_row, LOG)
        };
        let start = over(100 + RANGE_OFFSETS_MAX - 1);
        assert!(matches!(start, Start::Redo { .. }), "{start:?}");
        let start = over(100 + RANGE_OFFSETS_MAX);
        assert!(matches!(start, Start::Stop { .. }), "{start:?}");
        let Start::Stop { why } = over(10_000_000) else {
            panic!("a range of ten million offsets is built as one batch")
        };
        assert!(why.contains("activity rewind"), "{why}");
    }

    #[test]
    fn a_gap_in_the_state_ends_where_the_log_begins_or_where_losses_are_counted_as_such() {
        let gap = |state_offset, log_first, settled_below| {
            gap_in_state(state_offset, log_first, settled_below)
                .map(|range| (range.start, range.end))
        };
        assert_eq!(gap(50, 70, 100), Some((50, 70)));
        assert_eq!(gap(50, 130, 100), Some((50, 100)));
        assert_eq!(gap(50, 50, 100), None);
        assert_eq!(gap(100, 130, 100), None);
    }

    #[test]
    fn a_topic_that_was_made_anew_and_has_outgrown_the_old_one_stops_the_partition() {
        assert!(of_another_topic(100, 0, Some(0)).is_some());
        assert!(of_another_topic(100, 30, Some(30)).is_some());
        // The same topic: one to which nothing has come since, one whose beginning is gone, and one with a marker that is later than the message behind it.
        assert_eq!(of_another_topic(100, 0, None), None);
        assert_eq!(of_another_topic(100, 0, Some(100)), None);
        assert_eq!(of_another_topic(100, 130, Some(130)), None);
        assert_eq!(of_another_topic(100, 0, Some(98)), None);
    }
}
