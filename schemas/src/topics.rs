//! Topics by name and content. A topic that carries events is declared here; an internal topic of a group is declared in the group's own file.

use crate::EventKind;

/// What a topic's messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// One event each, in the Confluent wire format.
    Events(EventKind),
    /// Messages that one stage of a group derives for its next stage: the group's own bytes.
    Derived,
}

/// How many partitions a topic gets when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partitions {
    /// As many as the operator asks for (`--partitions`).
    Configured,
    /// One: what it carries must be known whole and in order.
    One,
}

/// A Kafka topic, without the prefix that the settings put in front of every topic name (`activity.`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Name without prefix: `clicks`.
    pub name: &'static str,
    /// What its messages hold.
    pub content: Content,
    /// Partitions at creation.
    pub partitions: Partitions,
}

/// Every click, keyed by user.
pub const CLICKS: Topic = Topic::events("clicks", EventKind::Click);
/// Every watch event, keyed by user.
pub const WATCHES: Topic = Topic::events("watches", EventKind::Watch);

impl Topic {
    /// A topic of events, partitioned as the operator asks.
    pub const fn events(name: &'static str, kind: EventKind) -> Self {
        Self {
            name,
            content: Content::Events(kind),
            partitions: Partitions::Configured,
        }
    }

    /// An internal topic, named `<group>.<what>-by-<key>`.
    pub const fn derived(name: &'static str, partitions: Partitions) -> Self {
        Self {
            name,
            content: Content::Derived,
            partitions,
        }
    }

    /// The name in Kafka: `activity.clicks`.
    pub fn full_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name)
    }
}
