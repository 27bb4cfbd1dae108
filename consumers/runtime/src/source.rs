//! Where a derived message comes from, and the guard that lets each be counted once. Pure.
//!
//! A derived message carries (epoch, source topic, partition, offset, n) in a header. The next stage keeps the highest (epoch, offset, n) per source partition
//! in its state and drops what is not above it: a stage that is fed again sends the same messages again.

use std::collections::BTreeMap;
use std::fmt;

use activity_consumers::{Output, Reject};
use serde::{Deserialize, Serialize};

/// Kafka header of every derived message.
pub const SOURCE_HEADER: &str = "source";

/// Largest batch that an internal topic takes, which is Kafka's own default.
pub const DERIVED_TOPIC_BYTES_MAX: usize = 1_048_588;
/// Most bytes of a derived message's key and payload: what the topic takes less the framing of a batch and the header, whose longest part is a topic's name.
pub const DERIVED_BYTES_MAX: usize = DERIVED_TOPIC_BYTES_MAX - 4096;

/// The event that a message was derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// Epoch of the group.
    pub epoch: u32,
    /// Full name of the topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Which message of that event.
    pub n: u32,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "v1;{};{};{};{};{}",
            self.epoch, self.topic, self.partition, self.offset, self.n
        )
    }
}

impl<'a> Source<'a> {
    /// Reads a header back.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(header).ok()?.split(';');
        if parts.next()? != "v1" {
            return None;
        }
        let source = Self {
            epoch: parts.next()?.parse().ok()?,
            topic: parts.next()?,
            partition: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
            n: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(source)
    }
}

/// The highest (epoch, offset, n) seen of each source partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks(BTreeMap<String, BTreeMap<i32, (u32, i64, u32)>>);

impl Marks {
    /// True, and remembered, if the message is above all that were seen of its source partition.
    pub fn advance(&mut self, source: &Source<'_>) -> bool {
        let mark = (source.epoch, source.offset, source.n);
        if !self.0.contains_key(source.topic) {
            self.0.insert(source.topic.to_owned(), BTreeMap::new());
        }
        let Some(partitions) = self.0.get_mut(source.topic) else {
            return false;
        };
        match partitions.get_mut(&source.partition) {
            Some(seen) if mark <= *seen => false,
            Some(seen) => {
                *seen = mark;
                true
            }
            None => {
                partitions.insert(source.partition, mark);
                true
            }
        }
    }
}

/// Whether the next stage's topic takes what an event gave: Kafka would refuse it for ever, and the range that it is in with it.
///
/// # Errors
/// Why the event is rejected.
pub fn can_be_sent(output: &Output) -> Result<(), Reject> {
    let bytes = output.largest_sent_bytes();
    if bytes <= DERIVED_BYTES_MAX {
        return Ok(());
    }
    Err(Reject::new(
        "derived_too_large",
        format!(
            "the message that it gives for the next stage has {bytes} bytes, at most {DERIVED_BYTES_MAX} can be sent"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity_schemas::{Content, Partitions, Topic};
    use proptest::prelude::*;

    fn source(topic: &str, partition: i32, offset: i64, n: u32) -> Source<'_> {
        Source {
            epoch: 1,
            topic,
            partition,
            offset,
            n,
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let source = source("activity.watches", 3, 77, 1);
        assert_eq!(Source::parse(source.to_string().as_bytes()), Some(source));
        assert_eq!(Source::parse(b"v1;1;t;2"), None);
        assert_eq!(Source::parse(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn however_often_a_stage_is_fed_again_each_message_counts_once(restarts in prop::collection::vec(0_i64..50, 0..6)) {
            let mut marks = Marks::default();
            let mut counted = Vec::new();
            for start in restarts.into_iter().chain([0]) {
                for offset in start..50 {
                    for n in 0..2 {
                        if marks.advance(&source("t", 0, offset, n)) {
                            counted.push((offset, n));
                        }
                    }
                }
            }
            let mut once = counted.clone();
            once.dedup();
            prop_assert_eq!(&once, &counted);
            prop_assert!(counted.is_sorted());
        }
    }

    #[test]
    fn source_partitions_do_not_disturb_each_other() {
        let mut marks = Marks::default();
        assert!(marks.advance(&source("t", 0, 10, 0)));
        assert!(marks.advance(&source("t", 1, 5, 0)));
        assert!(marks.advance(&source("u", 0, 5, 0)));
        assert!(!marks.advance(&source("t", 0, 10, 0)));
        assert!(marks.advance(&Source {
            epoch: 2,
            ..source("t", 0, 0, 0)
        }));
    }

    #[test]
    fn an_event_whose_message_the_next_stage_cannot_take_is_rejected_and_the_next_one_is_not() {
        const NEXT: Topic = Topic {
            name: "watches-by-model",
            content: Content::Derived,
            partitions: Partitions::One,
        };
        let mut output = Output::new(&[]);
        let send = |output: &mut Output, key_bytes: usize, payload_bytes: usize| {
            let payload = serde_bytes::ByteBuf::from(vec![7; payload_bytes]);
            output.send(NEXT, &"k".repeat(key_bytes), &payload);
        };
        output.begin_event(1, 0);
        send(&mut output, 3, 5);
        send(&mut output, 530_000, 530_000);
        let reject = can_be_sent(&output).unwrap_err();
        assert_eq!(reject.reason, "derived_too_large");
        output.take_back_event();
        output.begin_event(2, 0);
        send(&mut output, 3, 5);
        assert!(can_be_sent(&output).is_ok());
        output.begin_event(3, 0);
        // Three bytes say how long it is.
        send(&mut output, 40_000, DERIVED_BYTES_MAX - 40_003);
        assert_eq!(output.largest_sent_bytes(), DERIVED_BYTES_MAX);
        assert!(can_be_sent(&output).is_ok());
    }
}
