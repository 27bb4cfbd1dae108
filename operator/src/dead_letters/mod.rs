//! `activity deadletters`: what groups rejected, by reason; each message as it was; and once more through its group.
//!
//! A letter may be in its topic twice (a batch is built again after a crash): all verbs know it by epoch, topic, partition and offset of its message, and count
//! it once. Of each letter only its offset is kept, so that memory stays small however many there are.

pub mod list;
pub mod resubmit;
pub mod show;

use activity_consumers::Group;
use activity_platform::settings::KafkaSettings;
use activity_runtime::dead_letter::{Letter, dead_letter_topic};
use activity_runtime::resubmit::resubmit_topic;
use jiff::Timestamp;
use rdkafka::message::{BorrowedMessage, Message};
use serde::Serialize;

use crate::Error;
use crate::lag::{self, PartitionLag};

/// Which dead letters are meant; what is None is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Reason.
    pub reason: Option<String>,
    /// Topic of the message, with or without prefix.
    pub topic: Option<String>,
    /// Partition of the message.
    pub partition: Option<i32>,
    /// Offset of the message.
    pub offset: Option<i64>,
    /// The letter's key: `group/topic/partition/offset`.
    pub key: Option<String>,
}

impl Filter {
    /// Whether a letter of a group is one of those that are meant.
    fn matches(&self, group: &str, prefix: &str, letter: &Letter<'_>) -> bool {
        let is_topic =
            |topic: &str| letter.topic == topic || letter.topic.strip_prefix(prefix) == Some(topic);
        self.reason
            .as_ref()
            .is_none_or(|reason| reason == letter.reason)
            && self.topic.as_deref().is_none_or(is_topic)
            && self
                .partition
                .is_none_or(|partition| partition == letter.partition)
            && self.offset.is_none_or(|offset| offset == letter.offset)
            && self
                .key
                .as_ref()
                .is_none_or(|key| *key == letter.letter_key(group))
    }
}

/// What became of a letter that was resubmitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The group has not come to it yet.
    Waiting,
    /// The group took it.
    Processed,
    /// The group rejected it again: a letter of its own, under this key.
    Rejected(String),
}

/// Full names of a group's own topics.
struct Topics {
    letters: String,
    resubmits: String,
}

impl Topics {
    fn of(group: &Group, kafka: &KafkaSettings) -> Self {
        Self {
            letters: format!("{}{}", kafka.topic_prefix, dead_letter_topic(group.name)),
            resubmits: format!("{}{}", kafka.topic_prefix, resubmit_topic(group.name)),
        }
    }
}

/// How far a group is in all that it consumes. Blocking.
struct Committed(Vec<PartitionLag>);

impl Committed {
    fn of(group: &'static Group, kafka: &KafkaSettings) -> Result<Self, Error> {
        Ok(Self(lag::Watcher::new(kafka, &[group])?.gather()?))
    }

    /// Whether what was decided about a message stands: until then its range may be built again. Of a topic that is no longer read nothing is.
    fn is_past(&self, topic: &str, partition: i32, offset: i64) -> bool {
        self.0
            .iter()
            .find(|lag| lag.topic == topic && lag.partition == partition)
            .is_none_or(|lag| lag.committed.is_some_and(|committed| offset < committed))
    }
}

/// When the broker appended a message.
fn appended_at(message: &BorrowedMessage<'_>) -> Timestamp {
    timestamp(message.timestamp().to_millis().unwrap_or(0))
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}
