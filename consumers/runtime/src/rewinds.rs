//! Which messages count after a group was rewound. Pure.
//!
//! A rewind raises the group's epoch and reads each partition again from its point on. What was derived from an event in an earlier epoch stays in Kafka, so
//! whoever reads it must know whether the event was read again since: a message that carries the coordinates of its source (epoch, topic, partition, offset)
//! counts in the current epoch only if no later rewind has its source at or above its point. Messages of a rewind that was given up never count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::Source;

/// From which offset each partition is read again, by full name of the topic and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, i64>", into = "BTreeMap<String, i64>")]
pub struct Points(BTreeMap<String, BTreeMap<i32, i64>>);

impl Points {
    /// The point of a partition; None: it was not there when the group was rewound.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// All points, as (topic, partition, offset).
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, offset)| (topic.as_str(), *partition, *offset))
        })
    }
}

impl FromIterator<(String, i32, i64)> for Points {
    fn from_iter<I: IntoIterator<Item = (String, i32, i64)>>(points: I) -> Self {
        let mut all: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (topic, partition, offset) in points {
            all.entry(topic).or_default().insert(partition, offset);
        }
        Self(all)
    }
}

/// As a table holds them: keyed `topic/partition`. What is no such key is nobody's partition and left out.
impl From<BTreeMap<String, i64>> for Points {
    fn from(flat: BTreeMap<String, i64>) -> Self {
        flat.into_iter()
            .filter_map(|(key, offset)| {
                let (topic, partition) = key.rsplit_once('/')?;
                Some((topic.to_owned(), partition.parse().ok()?, offset))
            })
            .collect()
    }
}

impl From<Points> for BTreeMap<String, i64> {
    fn from(points: Points) -> Self {
        points
            .iter()
            .map(|(topic, partition, offset)| (format!("{topic}/{partition}"), offset))
            .collect()
    }
}

/// One rewind of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The epoch that it raised the group to.
    pub epoch: u32,
    /// Where each partition was read again from.
    pub points: Points,
}

/// The epoch that a group is in, and the rewinds that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewinds {
    epoch: u32,
    rewinds: Vec<Rewind>,
}

impl Rewinds {
    /// A group in `epoch`. `rewinds` are those that were finished, and the one that `epoch` belongs to; later ones are none of its business.
    pub fn new(epoch: u32, rewinds: impl IntoIterator<Item = Rewind>) -> Self {
        let rewinds = rewinds
            .into_iter()
            .filter(|rewind| rewind.epoch <= epoch)
            .collect();
        Self { epoch, rewinds }
    }

    /// The epoch that the group is in.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether one of the rewinds has read a partition again from this offset on.
    pub fn has_point(&self, topic: &str, partition: i32, offset: i64) -> bool {
        let is_point = |rewind: &Rewind| rewind.points.get(topic, partition) == Some(offset);
        self.rewinds.iter().any(is_point)
    }

    /// Whether a message that was derived from an event in an epoch still counts.
    pub fn count(&self, epoch: u32, topic: &str, partition: i32, offset: i64) -> bool {
        // Epochs between are those of rewinds that were given up.
        let is_ours =
            epoch == FIRST_EPOCH || self.rewinds.iter().any(|rewind| rewind.epoch == epoch);
        let is_superseded = |rewind: &Rewind| {
            rewind.epoch > epoch
                && rewind
                    .points
                    .get(topic, partition)
                    .is_some_and(|point| offset >= point)
        };
        is_ours && !self.rewinds.iter().any(is_superseded)
    }

    /// [`count`](Self::count) for a derived message.
    pub fn count_source(&self, source: &Source<'_>) -> bool {
        self.count(source.epoch, source.topic, source.partition, source.offset)
    }
}

/// The epoch of a group that was never rewound.
pub const FIRST_EPOCH: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewind(epoch: u32, point: i64) -> Rewind {
        let points = [("t".to_owned(), 0, point)].into_iter().collect();
        Rewind { epoch, points }
    }

    fn counts(rewinds: &Rewinds, epoch: u32, offset: i64) -> bool {
        rewinds.count(epoch, "t", 0, offset)
    }

    #[test]
    fn without_a_rewind_all_of_the_first_epoch_counts_and_nothing_else() {
        let rewinds = Rewinds::new(1, []);
        assert!(counts(&rewinds, 1, 0));
        assert!(!counts(&rewinds, 2, 0));
    }

    #[test]
    fn what_was_read_again_counts_from_the_new_epoch_alone() {
        let rewinds = Rewinds::new(2, [rewind(2, 100)]);
        assert!(counts(&rewinds, 1, 99));
        assert!(!counts(&rewinds, 1, 100));
        assert!(counts(&rewinds, 2, 100));
    }

    #[test]
    fn a_rewind_that_was_given_up_neither_counts_nor_supersedes() {
        let rewinds = Rewinds::new(3, [rewind(3, 100)]);
        assert!(!counts(&rewinds, 2, 50));
        assert!(counts(&rewinds, 1, 50));
    }

    #[test]
    fn an_earlier_epoch_never_sees_a_later_rewind() {
        let rewinds = Rewinds::new(1, [rewind(2, 0)]);
        assert!(counts(&rewinds, 1, 7));
        assert!(!counts(&rewinds, 2, 7));
    }

    #[test]
    fn a_partition_that_came_later_is_not_superseded() {
        let rewinds = Rewinds::new(2, [rewind(2, 0)]);
        assert!(rewinds.count(1, "t", 1, 7));
        assert!(rewinds.count(1, "u", 0, 7));
    }

    #[test]
    fn points_read_back_as_they_were_written_and_topics_may_hold_slashes() {
        let points: Points = [("a/b".to_owned(), 3, 7), ("c".to_owned(), 0, 1)]
            .into_iter()
            .collect();
        let flat: BTreeMap<String, i64> = points.clone().into();
        assert_eq!(flat.get("a/b/3"), Some(&7));
        assert_eq!(Points::from(flat), points);
        assert_eq!(
            Points::from(BTreeMap::from([("nonsense".to_owned(), 1)])),
            Points::default()
        );
    }

    proptest! {
        /// The model: reading again writes the offsets from the point on anew, in the new epoch.
        #[test]
        fn each_offset_counts_from_exactly_the_epoch_that_read_it_last(points in prop::collection::vec((0_i64..30, any::<bool>()), 0..6)) {
            let mut last = [1_u32; 30];
            let mut finished = Vec::new();
            for (index, (point, is_finished)) in points.iter().enumerate() {
                let epoch = index as u32 + 2;
                if *is_finished {
                    last[*point as usize..].fill(epoch);
                    finished.push(rewind(epoch, *point));
                }
            }
            let current = finished.last().map_or(1, |rewind| rewind.epoch);
            let rewinds = Rewinds::new(current, finished);
            for (offset, last) in last.iter().enumerate() {
                // A rewind derives nothing from below its point.
                let derives = |epoch: &u32| *epoch == 1 || points[*epoch as usize - 2].0 <= offset as i64;
                for epoch in (1..=points.len() as u32 + 1).filter(derives) {
                    prop_assert_eq!(counts(&rewinds, epoch, offset as i64), epoch == *last);
                }
            }
        }
    }
}
