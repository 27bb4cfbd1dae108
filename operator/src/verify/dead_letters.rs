//! Dead letters against the ledger, one by one: each range's rejects against the distinct letters with an offset in it.
//!
//! Letters of messages that a rewind has read again since do not count. The topic is read once; offsets are kept as compressed bitmaps, at most two bytes for each letter and far less where they lie close together.

use std::collections::HashMap;
use std::ops::AddAssign;

use activity_platform::settings::KafkaSettings;
use activity_runtime::dead_letter::{Letter, dead_letter_topic};
use activity_runtime::headers::KafkaHeaders;
use activity_runtime::rewinds::Rewinds;
use rdkafka::Message;
use roaring::RoaringTreemap;

use super::findings::{Findings, Kind, Subject, What};
use super::ledger::LedgerRange;
use super::log::{Horizon, Log, Step};
use crate::Error;

/// The dead letters of one group.
pub struct DeadLetters {
    topic: String,
    offsets: HashMap<(String, i32), RoaringTreemap>,
    horizon: Horizon,
}

/// The dead letters of one source partition.
pub struct PartitionLetters<'a> {
    of: &'a DeadLetters,
    offsets: Option<&'a RoaringTreemap>,
}

impl DeadLetters {
    /// Reads what counts of the group's dead-letter topic. Blocking.
    ///
    /// # Errors
    /// If Kafka does not answer or the topic is not there.
    pub fn read(kafka: &KafkaSettings, group: &str, rewinds: &Rewinds) -> Result<Self, Error> {
        let topic = format!("{}{}", kafka.topic_prefix, dead_letter_topic(group));
        let mut offsets: HashMap<(String, i32), RoaringTreemap> = HashMap::new();
        let horizon = Log::open(kafka, &topic)?.read(|step| {
            if let Step::Message(message, _) = step
                && let Some(letter) = Letter::parse(&KafkaHeaders(message.headers()))
                && rewinds.count(letter.epoch, letter.topic, letter.partition, letter.offset)
                && let Ok(offset) = u64::try_from(letter.offset)
            {
                offsets
                    .entry((letter.topic.to_owned(), letter.partition))
                    .or_default()
                    .insert(offset);
            }
            true
        })?;
        Ok(Self {
            topic,
            offsets,
            horizon,
        })
    }

    /// Those of one source partition.
    pub fn of(&self, topic: &str, partition: i32) -> PartitionLetters<'_> {
        PartitionLetters {
            of: self,
            offsets: self.offsets.get(&(topic.to_owned(), partition)),
        }
    }
}

/// What was found about the letters of ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// Letters of messages that the ledger counts.
    pub there: u64,
    /// Letters that retention has deleted.
    pub expired: u64,
}

impl AddAssign for Letters {
    fn add_assign(&mut self, other: Self) {
        self.there += other.there;
        self.expired += other.expired;
    }
}

impl PartitionLetters<'_> {
    /// Offsets in [start, end) that have a letter.
    pub fn within(&self, start: i64, end: i64) -> Vec<i64> {
        let (start, end) = (start.max(0) as u64, end.max(0) as u64);
        self.offsets.map_or(Vec::new(), |offsets| {
            let mut iter = offsets.iter();
            iter.advance_to(start);
            iter.take_while(|offset| *offset < end)
                .map(|offset| offset as i64)
                .collect()
        })
    }

    /// How many offsets in [start, end) have a letter.
    fn count(&self, start: i64, end: i64) -> u64 {
        let below = |offset: i64| match (self.offsets, offset) {
            (Some(offsets), 1..) => offsets.rank(offset as u64 - 1),
            _ => 0,
        };
        below(end) - below(start).min(below(end))
    }

    /// Compares a range's rejects with its letters. `ends_at_point`: a rewind has read again from the range's end on.
    pub fn judge(
        &self,
        range: &LedgerRange,
        ends_at_point: bool,
        findings: &mut Findings,
    ) -> Letters {
        let there = self.count(range.start, range.end);
        let subject =
            |kind, note: &'static str| Subject::new(kind, What::DeadLetters, &self.of.topic, note);
        let mut letters = Letters { there, expired: 0 };
        let missing = range.rejects.saturating_sub(there);
        if missing > 0 && self.of.horizon.may_have_lost(range.claimed_at_ms) {
            letters.expired = missing;
        } else {
            findings.add(
                subject(Kind::Missing, "rejected messages without a dead letter"),
                range.start,
                range.end,
                missing,
            );
        }
        let surplus = there.saturating_sub(range.rejects);
        // Of a range that a rewind has cut, which counts none, and of messages that the log has lost nobody knows how many were rejected.
        let may_be_cut = ends_at_point && range.rejects == 0;
        if may_be_cut || range.lost > 0 {
            letters.there -= surplus;
        } else if surplus > 0 {
            let offsets = self.within(range.start, range.end);
            let first = offsets.first().copied().unwrap_or(range.start);
            let last = offsets.last().copied().unwrap_or(range.end - 1);
            findings.add(
                subject(
                    Kind::Unexpected,
                    "dead letters of messages that were not rejected",
                ),
                first,
                last + 1,
                surplus,
            );
        }
        letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letters(offsets: &[u64], horizon: Horizon) -> DeadLetters {
        DeadLetters {
            topic: "dead".into(),
            offsets: HashMap::from([(("t".to_owned(), 0), offsets.iter().copied().collect())]),
            horizon,
        }
    }

    fn range(rejects: u64) -> LedgerRange {
        LedgerRange {
            start: 10,
            end: 20,
            events: 10,
            rejects,
            claimed_at_ms: 1_000_000,
            ..LedgerRange::default()
        }
    }

    fn judged(letters: &DeadLetters, range: &LedgerRange) -> (Letters, Findings) {
        let mut findings = Findings::new("t", 0);
        let counted = letters.of("t", 0).judge(range, false, &mut findings);
        (counted, findings)
    }

    #[test]
    fn a_letter_of_another_range_does_not_stand_in_for_one_that_is_missing() {
        let (counted, findings) = judged(&letters(&[9, 12, 20], Horizon::WHOLE), &range(2));
        assert_eq!((counted.there, findings.missing), (1, 1));
        assert_eq!(
            findings.into_list()[0].words,
            "dead, t/0, offsets 10 to 19: rejected messages without a dead letter: 1"
        );
    }

    #[test]
    fn what_retention_has_deleted_is_expired_and_not_missing() {
        let (counted, findings) = judged(&letters(&[], Horizon::since(2_000_000)), &range(2));
        assert_eq!((counted.expired, findings.missing), (2, 0));
        let (counted, findings) = judged(&letters(&[], Horizon::since(500_000)), &range(2));
        assert_eq!((counted.expired, findings.missing), (0, 2));
    }

    #[test]
    fn a_letter_of_a_message_that_was_taken_is_unexpected() {
        let (counted, findings) = judged(&letters(&[12, 15], Horizon::WHOLE), &range(1));
        assert_eq!((counted.there, findings.unexpected), (2, 1));
        let finding = &findings.into_list()[0];
        assert_eq!((finding.start, finding.end), (12, 16));
    }

    #[test]
    fn what_is_left_of_a_range_that_was_cut_or_lost_may_have_more_letters_than_rejects() {
        let both = letters(&[12, 15], Horizon::WHOLE);
        let unexpected = |range: &LedgerRange, ends_at_point| {
            let mut findings = Findings::new("t", 0);
            let counted = both.of("t", 0).judge(range, ends_at_point, &mut findings);
            (counted.there, findings.unexpected)
        };
        assert_eq!(unexpected(&range(0), true), (0, 0));
        let lost = LedgerRange {
            lost: 3,
            ..range(1)
        };
        assert_eq!(unexpected(&lost, false), (1, 0));
        // It counts its rejects, so that it is whole.
        assert_eq!(unexpected(&range(1), true), (2, 1));
    }

    proptest! {
        #[test]
        fn letters_are_counted_as_a_set_counts_them(offsets in prop::collection::btree_set(0_u64..200_000, 0..60), start in 0_i64..200_000, length in 0_i64..100_000) {
            let offsets: Vec<u64> = offsets.into_iter().collect();
            let all = letters(&offsets, Horizon::WHOLE);
            let expected: Vec<i64> = offsets.iter().map(|offset| *offset as i64).filter(|offset| (start..start + length).contains(offset)).collect();
            prop_assert_eq!(all.of("t", 0).count(start, start + length), expected.len() as u64);
            prop_assert_eq!(all.of("t", 0).within(start, start + length), expected);
        }
    }
}
