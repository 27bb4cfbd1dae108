//! Counts the derived messages of one source partition against the ranges of the ledger that they come from. Pure.

use std::collections::VecDeque;

use serde::Deserialize;

use super::super::findings::{Findings, Kind, Subject, What};
use super::super::log::Horizon;
use crate::lag::PartitionLag;

/// A range of the ledger whose messages are being counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Whether the ledger says how many there should be: it did not always.
    is_known: bool,
    expected: u64,
    claimed_at_ms: i64,
    #[serde(default)]
    found: u64,
}

/// Messages of one source partition.
pub(super) struct Counting {
    pub(super) topic: String,
    pub(super) open: VecDeque<Open>,
    /// Lowest offset that each internal partition may still give.
    pub(super) passed: Vec<i64>,
    pub(super) expired: u64,
    pub(super) findings: Findings,
}

impl Counting {
    pub(super) fn new(topic: &str, internal_partitions: usize, of: &PartitionLag) -> Self {
        Self {
            topic: topic.to_owned(),
            open: VecDeque::new(),
            passed: vec![i64::MIN; internal_partitions],
            expired: 0,
            findings: Findings::new(&of.topic, of.partition),
        }
    }

    fn subject(&self, kind: Kind, note: &'static str) -> Subject {
        Subject::new(kind, What::Derived, &self.topic, note)
    }

    /// A message that was derived from the event at an offset, which the open ranges reach.
    pub(super) fn count(&mut self, offset: i64) {
        let index = self.open.partition_point(|range| range.end <= offset);
        match self.open.get_mut(index) {
            Some(range) if range.start <= offset => range.found += 1,
            _ => {
                let subject = self.subject(
                    Kind::Unexpected,
                    "messages of offsets in no range of the ledger",
                );
                self.findings.add(subject, offset, offset + 1, 1);
            }
        }
    }

    /// An internal partition will give no offset below this one any more.
    pub(super) fn pass(&mut self, internal: i32, offset: i64, horizon: Horizon) {
        if let Some(passed) = self.passed.get_mut(internal as usize) {
            *passed = offset.max(*passed);
        }
        let all_passed = self.passed.iter().copied().min().unwrap_or(i64::MAX);
        while self
            .open
            .front()
            .is_some_and(|range| range.end <= all_passed)
        {
            if let Some(range) = self.open.pop_front() {
                self.judge(&range, horizon);
            }
        }
    }

    fn judge(&mut self, range: &Open, horizon: Horizon) {
        if !range.is_known {
            return;
        }
        let missing = range.expected.saturating_sub(range.found);
        if missing > 0 && horizon.may_have_lost(range.claimed_at_ms) {
            self.expired += missing;
        } else {
            let subject = self.subject(Kind::Missing, "missing messages");
            self.findings.add(subject, range.start, range.end, missing);
        }
        let subject = self.subject(Kind::Unexpected, "messages beyond the count of the ledger");
        let surplus = range.found.saturating_sub(range.expected);
        self.findings.add(subject, range.start, range.end, surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of() -> PartitionLag {
        PartitionLag {
            group: "g".into(),
            topic: "source".into(),
            partition: 0,
            first: 0,
            committed: Some(100),
            claimed: Some(100),
            end: 100,
            lag: 0,
        }
    }

    fn counting(expected: &[u64], internal_partitions: usize) -> Counting {
        let mut counting = Counting::new("internal", internal_partitions, &of());
        counting.open = expected
            .iter()
            .enumerate()
            .map(|(index, expected)| Open {
                start: index as i64 * 10,
                end: index as i64 * 10 + 10,
                is_known: true,
                expected: *expected,
                claimed_at_ms: 1_000_000,
                found: 0,
            })
            .collect();
        counting
    }

    fn given(counting: &mut Counting, internal: i32, offsets: &[i64], horizon: Horizon) {
        for offset in offsets {
            counting.count(*offset);
            counting.pass(internal, *offset, horizon);
        }
        counting.pass(internal, i64::MAX, horizon);
    }

    #[test]
    fn a_message_of_one_range_does_not_stand_in_for_one_of_another() {
        let mut counting = counting(&[2, 1, 0], 1);
        given(&mut counting, 0, &[3, 11, 12], Horizon::WHOLE);
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (1, 1)
        );
        let list = counting.findings.into_list();
        assert_eq!(
            list[0].words,
            "internal, source/0, offsets 0 to 9: missing messages: 1"
        );
        assert_eq!((list[1].start, list[1].end), (10, 20));
    }

    #[test]
    fn ranges_from_before_the_ledger_counted_are_not_judged() {
        let mut counting = counting(&[2], 1);
        counting.open[0].is_known = false;
        given(&mut counting, 0, &[3], Horizon::WHOLE);
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (0, 0)
        );
    }

    #[test]
    fn what_retention_has_deleted_is_expired_and_not_missing() {
        let mut counting = counting(&[2], 1);
        given(&mut counting, 0, &[3], Horizon::since(2_000_000));
        assert_eq!((counting.expired, counting.findings.missing), (1, 0));
    }

    #[test]
    fn a_range_is_kept_until_every_internal_partition_has_passed_it() {
        let mut counting = counting(&[2, 2], 2);
        given(&mut counting, 0, &[3, 15], Horizon::WHOLE);
        assert_eq!(counting.open.len(), 2);
        counting.count(4);
        counting.pass(1, 4, Horizon::WHOLE);
        assert_eq!(counting.open.len(), 2);
        counting.count(10);
        counting.pass(1, 10, Horizon::WHOLE);
        assert_eq!(counting.open.len(), 1);
        counting.pass(1, i64::MAX, Horizon::WHOLE);
        assert!(counting.open.is_empty());
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (0, 0)
        );
    }

    proptest! {
        /// Against the naive model, which counts the messages of each range by itself.
        #[test]
        fn messages_are_judged_as_the_naive_model_judges_them(
            expected in prop::collection::vec(0_u64..4, 1..8),
            mut first in prop::collection::vec(0_i64..80, 0..12),
            mut second in prop::collection::vec(0_i64..80, 0..12),
        ) {
            first.sort_unstable();
            second.sort_unstable();
            let mut counting = counting(&expected, 2);
            given(&mut counting, 0, &first, Horizon::WHOLE);
            given(&mut counting, 1, &second, Horizon::WHOLE);
            let end = expected.len() as i64 * 10;
            let all = || first.iter().chain(&second);
            let (mut missing, mut unexpected) = (0, all().filter(|offset| **offset >= end).count() as u64);
            for (index, expected) in expected.iter().enumerate() {
                let found = all().filter(|offset| **offset / 10 == index as i64).count() as u64;
                missing += expected.saturating_sub(found);
                unexpected += found.saturating_sub(*expected);
            }
            prop_assert_eq!((counting.findings.missing, counting.findings.unexpected), (missing, unexpected));
        }
    }
}
