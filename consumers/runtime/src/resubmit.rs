//! Resubmits: dead letters that go through their group once more, by a topic that only that group reads. Pure.
//!
//! A resubmitted message is the original one, key, value and headers, with one header of ours in front that says where it was read and rejected. One that was
//! rejected again and resubmitted again has one such header more in front of the others: the chain is told from the outside in.
//!
//! Whoever resubmits may send a letter twice (killed, run again, run by two at once): the group keeps which letters it has seen, by reading the topic from its
//! start, and takes each once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use activity_consumers::Group;
use activity_schemas::Topic;
use roaring::RoaringTreemap;

use crate::headers::MessageHeaders;

/// The header in front of every resubmitted message.
pub const RESUBMIT_HEADER: &str = "resubmit";

/// The topic of a group's resubmits, without prefix.
pub fn resubmit_topic(group: &str) -> String {
    format!("resubmits.{group}")
}

/// What the messages of a topic are to a group that consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// What the group reads.
    Reads(Topic),
    /// What it rejected before.
    Resubmits,
}

/// Every topic that a group consumes, by its full name: those that it reads, and that of its resubmits.
pub fn feeds(group: &Group, prefix: &str) -> Vec<(Feed, Arc<str>)> {
    group
        .reads
        .iter()
        .map(|topic| (Feed::Reads(*topic), topic.full_name(prefix).into()))
        .chain([(
            Feed::Resubmits,
            format!("{prefix}{}", resubmit_topic(group.name)).into(),
        )])
        .collect()
}

/// Where a resubmitted message was read and rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resubmit<'a> {
    /// Epoch of the group then.
    pub epoch: u32,
    /// Full name of the topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When it was resubmitted, milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

impl fmt::Display for Resubmit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "v1;{};{};{};{};{}",
            self.epoch, self.topic, self.partition, self.offset, self.at_ms
        )
    }
}

impl<'a> Resubmit<'a> {
    /// Reads the header at a place.
    pub fn at(headers: &'a dyn MessageHeaders, place: usize) -> Option<Self> {
        let (name, value) = headers.at(place)?;
        let mut parts = std::str::from_utf8(value?).ok()?.split(';');
        if name != RESUBMIT_HEADER || parts.next()? != "v1" {
            return None;
        }
        let resubmit = Self {
            epoch: parts.next()?.parse().ok()?,
            topic: parts.next()?,
            partition: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
            at_ms: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(resubmit)
    }

    /// The headers of ours from a place on, last resubmission first; `resubmits` is the full name of the topic itself.
    pub fn chain(headers: &'a dyn MessageHeaders, from: usize, resubmits: &str) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::new();
        while chain.last().is_none_or(|last| last.topic == resubmits)
            && let Some(resubmit) = Self::at(headers, from + chain.len())
        {
            chain.push(resubmit);
        }
        chain
    }
}

/// A set of dead letters, by where they were rejected, in a few bytes for each.
#[derive(Debug, Default)]
pub struct LetterSet(BTreeMap<String, BTreeMap<(u32, i32), RoaringTreemap>>);

impl LetterSet {
    /// Remembers one; false if it was there already.
    pub fn insert(&mut self, epoch: u32, topic: &str, partition: i32, offset: i64) -> bool {
        if !self.0.contains_key(topic) {
            self.0.insert(topic.to_owned(), BTreeMap::new());
        }
        self.0.get_mut(topic).is_some_and(|partitions| {
            partitions
                .entry((epoch, partition))
                .or_default()
                .insert(offset.unsigned_abs())
        })
    }

    /// Whether one is there.
    pub fn contains(&self, epoch: u32, topic: &str, partition: i32, offset: i64) -> bool {
        self.0
            .get(topic)
            .and_then(|partitions| partitions.get(&(epoch, partition)))
            .is_some_and(|offsets| offsets.contains(offset.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{KafkaHeaders, Tail};
    use activity_consumers::{GROUPS, Headers};
    use proptest::prelude::*;
    use rdkafka::message::{Header, OwnedHeaders};

    const RESUBMITS: &str = "activity.resubmits.analytics";

    fn with(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    }

    fn resubmit(topic: &str, offset: i64) -> Resubmit<'_> {
        Resubmit {
            epoch: 2,
            topic,
            partition: 3,
            offset,
            at_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn every_group_consumes_what_it_reads_and_its_resubmits() {
        for group in GROUPS {
            let feeds = feeds(group, "activity.");
            assert_eq!(feeds.len(), group.reads.len() + 1);
            assert_eq!(
                *feeds[group.reads.len()].1,
                *format!("activity.resubmits.{}", group.name)
            );
        }
    }

    proptest! {
        #[test]
        fn the_origin_of_a_chain_is_told_although_the_message_bears_the_same_header(times in 0_i64..5, own in prop::collection::vec("(resubmit|label)", 0..4)) {
            let mut headers = OwnedHeaders::new();
            for offset in (0..times).rev() {
                headers = with(headers, RESUBMIT_HEADER, &resubmit(RESUBMITS, offset).to_string());
            }
            headers = with(headers, RESUBMIT_HEADER, &resubmit("activity.clicks", 77).to_string());
            for name in &own {
                headers = with(headers, name, &resubmit("own", 1).to_string());
            }
            let read = KafkaHeaders(Some(&headers));
            let chain = Resubmit::chain(&read, 0, RESUBMITS);
            prop_assert_eq!(chain.len(), times as usize + 1);
            prop_assert_eq!(chain.last(), Some(&resubmit("activity.clicks", 77)));
            prop_assert_eq!(read.copied_from(chain.len()).len(), own.len());
            let tail = Tail { headers: &read, from: chain.len() };
            prop_assert_eq!(tail.get("resubmit").is_some(), own.iter().any(|name| name == "resubmit"));
        }
    }

    #[test]
    fn what_does_not_begin_with_our_header_has_no_origin() {
        for (name, value) in [
            ("label", "v1;1;activity.clicks;0;1;2"),
            ("resubmit", "v1;1;activity.clicks;0;1"),
        ] {
            let headers = with(OwnedHeaders::new(), name, value);
            assert_eq!(
                Resubmit::chain(&KafkaHeaders(Some(&headers)), 0, RESUBMITS),
                []
            );
        }
    }

    #[test]
    fn a_letter_is_known_by_epoch_topic_partition_and_offset() {
        let mut known = LetterSet::default();
        assert!(known.insert(1, "t", 0, 5));
        assert!(!known.insert(1, "t", 0, 5));
        assert!(known.contains(1, "t", 0, 5));
        for (epoch, topic, partition, offset) in [
            (2, "t", 0, 5),
            (1, "u", 0, 5),
            (1, "t", 1, 5),
            (1, "t", 0, 6),
        ] {
            assert!(!known.contains(epoch, topic, partition, offset));
            assert!(known.insert(epoch, topic, partition, offset));
        }
    }
}
