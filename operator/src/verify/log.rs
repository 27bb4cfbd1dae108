//! Reads a whole topic once, from what its log still has to where it ended when it was opened.

use std::time::{Duration, Instant};

use activity_platform::kafka::{self, Inspector, Watermarks};
use activity_platform::settings::KafkaSettings;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::Error;

/// How long one poll waits.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long Kafka may be silent while a topic is read.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How far the clocks of brokers and of groups may differ.
const CLOCK_SKEW_MAX_MS: i64 = 60_000;

/// From when on a log has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Append time of the first message behind the last hole, milliseconds since 1970-01-01 UTC; None: the log has everything.
    since_ms: Option<i64>,
}

impl Horizon {
    /// A log from which nothing is gone.
    pub const WHOLE: Self = Self { since_ms: None };

    /// A log of which only what was appended since then is there.
    pub const fn since(at_ms: i64) -> Self {
        Self {
            since_ms: Some(at_ms),
        }
    }

    /// Whether a message that was sent at this time or later may be gone. A range's messages are sent after its claim.
    pub fn may_have_lost(&self, sent_at_ms: i64) -> bool {
        self.since_ms
            .is_some_and(|since_ms| sent_at_ms < since_ms.saturating_add(CLOCK_SKEW_MAX_MS))
    }
}

/// One partition of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Partition {
    /// Offset that the next message should have; the first of all is 0.
    position: i64,
    /// First offset that the log has.
    first: i64,
    /// Offset after the last that is read.
    next: i64,
    done: bool,
}

/// How far a topic was read, and what turned out to be gone. Pure.
struct Reading {
    partitions: Vec<Partition>,
    horizon: Horizon,
}

impl Reading {
    fn took(&mut self, index: usize, offset: i64, appended_at_ms: i64) {
        if offset > self.partitions[index].position {
            self.hole_before(appended_at_ms);
        }
        self.partitions[index].position = offset + 1;
    }

    fn end(&mut self, index: usize) {
        self.partitions[index].done = true;
        if self.partitions[index].position < self.partitions[index].next {
            self.hole_before(i64::MAX);
        }
    }

    fn is_wanted(&self, index: usize, offset: i64) -> bool {
        !self.partitions[index].done && offset < self.partitions[index].next
    }

    fn hole_before(&mut self, appended_at_ms: i64) {
        let since_ms = self.horizon.since_ms.unwrap_or(i64::MIN);
        self.horizon = Horizon::since(since_ms.max(appended_at_ms));
    }
}

/// What a topic gives.
pub enum Step<'a> {
    /// A message, and from when on the log has everything as far as it is known by then.
    Message(&'a BorrowedMessage<'a>, Horizon),
    /// A partition was read to its end.
    End(i32, Horizon),
}

/// A topic that is about to be read.
pub struct Log {
    topic: String,
    consumer: BaseConsumer,
    reading: Reading,
}

impl Log {
    /// Looks where the topic's partitions begin and end now. Blocking, as [`read`](Self::read) is.
    ///
    /// # Errors
    /// If Kafka does not answer or the topic is not there.
    pub fn open(settings: &KafkaSettings, topic: &str) -> Result<Self, Error> {
        let mut config = kafka::client_config(settings).map_err(kafka::Error::from)?;
        config
            .set("group.id", "activity-verify")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // Retention may pass the reader: it goes on with what is left.
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer =
            BaseConsumer::from_config(&config).map_err(kafka::Error::from)?;
        let inspector = Inspector::new(settings, "activity-verify")?;
        let partitions = (0..inspector.partitions(topic)?).map(|number| {
            let Watermarks { first, next } = inspector.watermarks(topic, number)?;
            Ok(Partition {
                position: 0,
                first,
                next,
                done: false,
            })
        });
        let reading = Reading {
            partitions: partitions.collect::<Result<Vec<_>, Error>>()?,
            horizon: Horizon::WHOLE,
        };
        Ok(Self {
            topic: topic.to_owned(),
            consumer,
            reading,
        })
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> usize {
        self.reading.partitions.len()
    }

    /// Reads all messages, those of each partition in their order, until `take` says false; says from when on the log had all of them.
    ///
    /// # Errors
    /// If Kafka fails or falls silent before the end.
    pub fn read(self, mut take: impl FnMut(Step<'_>) -> bool) -> Result<Horizon, Error> {
        let Self {
            topic,
            consumer,
            mut reading,
        } = self;
        let mut list = TopicPartitionList::new();
        for index in 0..reading.partitions.len() {
            let Partition { first, next, .. } = reading.partitions[index];
            if first < next {
                list.add_partition_offset(&topic, index as i32, Offset::Offset(first))
                    .map_err(kafka::Error::from)?;
            } else {
                reading.end(index);
                take(Step::End(index as i32, reading.horizon));
            }
        }
        consumer.assign(&list).map_err(kafka::Error::from)?;
        let mut heard = Instant::now();
        while reading.partitions.iter().any(|partition| !partition.done) {
            let (index, next) = match consumer.poll(POLL_TIMEOUT) {
                // Also after an event of the client itself: silence is told by the clock.
                None if heard.elapsed() < SILENCE_MAX => continue,
                None => return Err(Error::Silent { topic }),
                Some(Ok(message)) => {
                    let (index, offset) = (message.partition() as usize, message.offset());
                    if reading.is_wanted(index, offset) {
                        reading.took(index, offset, message.timestamp().to_millis().unwrap_or(0));
                        if !take(Step::Message(&message, reading.horizon)) {
                            break;
                        }
                    }
                    (index, offset + 1)
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => (partition as usize, i64::MAX),
                Some(Err(error)) => return Err(kafka::Error::from(error).into()),
            };
            heard = Instant::now();
            if !reading.partitions[index].done && next >= reading.partitions[index].next {
                reading.end(index);
                let mut list = TopicPartitionList::new();
                list.add_partition(&topic, index as i32);
                consumer.pause(&list).map_err(kafka::Error::from)?;
                if !take(Step::End(index as i32, reading.horizon)) {
                    break;
                }
            }
        }
        Ok(reading.horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_before_the_first_message_left_may_be_gone() {
        assert!(!Horizon::WHOLE.may_have_lost(0));
        let horizon = Horizon::since(1_000_000);
        assert!(horizon.may_have_lost(999_999));
        assert!(horizon.may_have_lost(1_000_000 + CLOCK_SKEW_MAX_MS - 1));
        assert!(!horizon.may_have_lost(1_000_000 + CLOCK_SKEW_MAX_MS));
        assert!(Horizon::since(i64::MAX).may_have_lost(i64::MAX - 1));
    }
    fn reading(first: i64, next: i64) -> Reading {
        Reading {
            partitions: vec![Partition {
                position: 0,
                first,
                next,
                done: false,
            }],
            horizon: Horizon::WHOLE,
        }
    }

    #[test]
    fn a_log_that_is_read_from_its_first_message_to_its_last_is_whole() {
        let mut whole = reading(0, 2);
        whole.took(0, 0, 5);
        whole.took(0, 1, 6);
        whole.end(0);
        assert_eq!(whole.horizon, Horizon::WHOLE);
        let mut empty = reading(0, 0);
        empty.end(0);
        assert_eq!(empty.horizon, Horizon::WHOLE);
    }

    #[test]
    fn what_retention_took_before_or_during_the_reading_is_noticed() {
        let mut cut = reading(7, 20);
        cut.took(0, 7, 50);
        assert_eq!(cut.horizon, Horizon::since(50));
        cut.took(0, 8, 51);
        assert_eq!(cut.horizon, Horizon::since(50));
        cut.took(0, 15, 60);
        assert_eq!(cut.horizon, Horizon::since(60));
        cut.end(0);
        assert_eq!(cut.horizon, Horizon::since(i64::MAX));
        let mut emptied = reading(9, 9);
        emptied.end(0);
        assert_eq!(emptied.horizon, Horizon::since(i64::MAX));
    }
}
