//! From which offset each partition is read again. Pure.
//!
//! A point never lies above the end of the ledger, never below the first offset of the log, and never inside of a range of the ledger if that can be helped: it
//! moves down to the range's start, so that ranges and their counts are copied whole. Only the range that the log's own start lies in is cut.

use activity_platform::kafka::Watermarks;
use activity_runtime::claim::Range;
use serde::Serialize;

/// What is known of a partition that a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Full name of the topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The topic is the group's own: one stage derives what the next one reads.
    pub internal: bool,
    /// What the log has that can be read again.
    pub log: Watermarks,
    /// End of the ledger's last range; None: the group has not read the partition.
    pub ledger_end: Option<i64>,
}

/// What a rewind does to a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionPlan {
    /// Full name of the topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The topic is the group's own.
    pub internal: bool,
    /// First offset that can be read again.
    pub log_first: i64,
    /// Offset that the next message will get.
    pub log_end: i64,
    /// The partition is read again from here on.
    pub point: i64,
    /// Messages that are read again, or for the first time.
    pub reread: u64,
    /// Messages that were asked for and that the log, or that of a topic behind it, no longer has: their rows are kept.
    pub gone: u64,
}

impl Facts {
    /// Where the group would go on without a rewind.
    fn end(&self) -> i64 {
        self.ledger_end.unwrap_or(self.log.first)
    }

    /// The point before ranges are looked at; None asked: the partition keeps its place.
    pub fn place(&self, asked: Option<i64>) -> i64 {
        asked.map_or(self.end(), |asked| {
            asked.max(self.log.first).min(self.end())
        })
    }

    /// The point, where `range` is the ledger's range that it lies in, if it lies inside of one.
    pub fn settle(&self, point: i64, range: Option<Range>) -> i64 {
        match range.filter(|range| range.start < point && point < range.end) {
            Some(range) => range.start.max(self.log.first).min(point),
            None => point,
        }
    }

    /// Whether messages that the group has read are read again from this point on.
    pub fn rewinds(&self, point: i64) -> bool {
        point < self.end()
    }

    /// What a rewind to `point` does, where offsets from `asked` on were asked for.
    pub fn plan(&self, point: i64, asked: Option<i64>) -> PartitionPlan {
        let gone_end = self.log.first.min(self.end());
        PartitionPlan {
            topic: self.topic.clone(),
            partition: self.partition,
            internal: self.internal,
            log_first: self.log.first,
            log_end: self.log.next,
            point,
            reread: (self.log.next - point.max(self.log.first)).max(0) as u64,
            gone: asked.map_or(0, |asked| (gone_end - asked).max(0) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(first: i64, next: i64, ledger_end: Option<i64>) -> Facts {
        Facts {
            topic: "t".into(),
            partition: 0,
            internal: false,
            log: Watermarks { first, next },
            ledger_end,
        }
    }

    #[test]
    fn a_partition_that_is_not_asked_for_keeps_its_place() {
        assert_eq!(facts(0, 100, Some(80)).place(None), 80);
        assert_eq!(facts(5, 100, None).place(None), 5);
    }

    #[test]
    fn a_point_lies_within_what_the_log_has_and_the_ledger_knows() {
        let facts = facts(20, 100, Some(80));
        assert_eq!(
            [0, 50, 90].map(|asked| facts.place(Some(asked))),
            [20, 50, 80]
        );
    }

    #[test]
    fn a_point_moves_down_to_the_start_of_its_range() {
        let range = |start, end| Some(Range { start, end });
        let facts = facts(20, 100, Some(80));
        assert_eq!(facts.settle(50, range(40, 60)), 40);
        assert_eq!(facts.settle(40, range(40, 60)), 40);
        assert_eq!(facts.settle(50, None), 50);
        // The log's own start lies in the range: it is cut there.
        assert_eq!(facts.settle(25, range(10, 30)), 20);
    }

    #[test]
    fn what_the_log_no_longer_has_is_said() {
        let plan = facts(20, 100, Some(80)).plan(20, Some(0));
        assert_eq!((plan.gone, plan.reread), (20, 80));
        assert_eq!(facts(0, 100, Some(80)).plan(0, Some(0)).gone, 0);
    }

    proptest! {
        #[test]
        fn no_range_is_cut_except_by_the_start_of_the_log(
            first in 0_i64..50, length in 0_i64..100, lengths in prop::collection::vec(1_i64..20, 0..12), begin in 0_i64..50, asked in prop::option::of(0_i64..200)
        ) {
            let mut ranges = Vec::new();
            let mut end = begin;
            for length in lengths {
                ranges.push(Range { start: end, end: end + length });
                end += length;
            }
            let ledger_end = ranges.last().map(|range| range.end);
            let next = (first + length).max(ledger_end.unwrap_or(0));
            let facts = facts(first, next, ledger_end);
            let placed = facts.place(asked);
            let inside = ranges.iter().copied().find(|range| range.start < placed && placed < range.end);
            let point = facts.settle(placed, inside);
            prop_assert!(point <= placed && point <= facts.end());
            prop_assert!(point >= first.min(facts.end()));
            let cut = ranges.iter().any(|range| range.start < point && point < range.end);
            prop_assert!(!cut || point == first);
            prop_assert!(asked.is_some() || point == facts.end());
        }
    }
}
