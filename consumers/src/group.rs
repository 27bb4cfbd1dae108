//! The trait that a consumer group implements, and its type-erased form that the lists and the runtime work with.

use std::sync::Arc;

use activity_schemas::{Content, Event, Partitions, Topic};

use crate::Models;
use crate::look_up::{Answers, LookUp};
use crate::output::{Output, TableSpec};

/// A deterministic function from events to rows.
///
/// The runtime makes one instance for each assigned topic partition, feeds it that partition's events in offset order, and drops it when the partition
/// is revoked. After a crash the same events are fed again from a snapshot: the same events must give the same rows, byte for byte.
pub trait ConsumerGroup: Sized + Send + 'static {
    /// Kafka `group.id`, command-line word, metric label: one name, said once.
    const NAME: &'static str;
    /// What the group is for, in half a line, for help texts.
    const ABOUT: &'static str;
    /// Topics that the group reads, its own internal topics among them.
    const READS: &'static [Topic];
    /// Tables that the group writes, each the [`Row::TABLE`](crate::Row::TABLE) of a row type.
    const TABLES: &'static [&'static TableSpec];
    /// 0: keeps no state, so that nothing is stored or re-read. Else raise it whenever [`process`](Self::process) or the snapshot's form changes:
    /// an older snapshot is then not used, and the state is built again from the log.
    const STATE_VERSION: u32 = 0;
    /// What others may ask of the group by key, of the instance that owns the topic named there.
    const LOOK_UP: Option<LookUp> = None;

    /// A fresh instance for one partition of `topic`.
    fn new(settings: &Settings, topic: Topic) -> Self;

    /// Handles one event: changes the state, appends rows and derived messages to `out`. Batches are invisible here.
    ///
    /// # Errors
    /// [`Reject`] sends the message to the group's dead letters; what was appended for it is taken back. State must not have been changed.
    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject>;

    /// Appends the state to `into`, in the same bytes for the same state.
    fn snapshot(&self, _into: &mut Vec<u8>) {}

    /// Takes over the state of a snapshot.
    ///
    /// # Errors
    /// [`StaleSnapshot`] if the bytes are not a snapshot of this version; the state is then built again from the log.
    fn restore(&mut self, _from: &[u8]) -> Result<(), StaleSnapshot> {
        Ok(())
    }

    /// What answers [`LOOK_UP`](Self::LOOK_UP) from now on, beside the thread that the instance works on. Asked for when the state is whole.
    fn answers(&self) -> Option<Arc<dyn Answers>> {
        None
    }
}

/// One message, as a group sees it.
pub struct Received<'a> {
    /// Where it was read.
    pub topic: Topic,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
    /// When the broker appended it, milliseconds since 1970-01-01 UTC.
    pub appended_at_ms: i64,
    /// Kafka headers; only the group `truth` reads them.
    pub headers: &'a dyn Headers,
    /// What it says.
    pub input: Input<'a>,
}

/// What a message says.
pub enum Input<'a> {
    /// An event, borrowed from the message.
    Event(Event<'a>),
    /// The payload that an earlier stage of the same group gave to [`Output::send`].
    Derived(&'a [u8]),
}

/// A message's headers.
pub trait Headers {
    /// The value of the first header of that name.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

/// A message without headers.
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

/// What can be set about groups; each limit holds for one instance, that is for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Users, devices or addresses whose state is kept; beyond it the one seen longest ago is forgotten.
    pub actors_max: usize,
    /// Items in a list of recommendations.
    pub list_items_max: usize,
    /// What was fitted for the group, in versions.
    pub models: Models,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            actors_max: 1_000_000,
            list_items_max: 20,
            models: Models::default(),
        }
    }
}

/// Why a group does not take an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// One word of few, for metrics and dead letters: `invalid_event_id`.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
}

impl Reject {
    /// A reject for one reason.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// The bytes are not a snapshot that this code can take over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stale snapshot: {0}")]
pub struct StaleSnapshot(pub String);

/// A group without its type: what lists, command line, verification and runtime need of it.
#[derive(Clone, Copy)]
pub struct Group {
    /// [`ConsumerGroup::NAME`]
    pub name: &'static str,
    /// [`ConsumerGroup::ABOUT`]
    pub about: &'static str,
    /// [`ConsumerGroup::READS`]
    pub reads: &'static [Topic],
    /// [`ConsumerGroup::TABLES`]
    pub tables: &'static [&'static TableSpec],
    /// [`ConsumerGroup::STATE_VERSION`]
    pub state_version: u32,
    /// [`ConsumerGroup::LOOK_UP`]
    pub look_up: Option<LookUp>,
    new: fn(&Settings, Topic) -> Box<dyn Instance>,
}

impl Group {
    /// The erased form of a group.
    ///
    /// # Panics
    /// If a group without state reads a derived topic, at compile time: what it has seen of that topic is part of its state, and lost without it.
    /// If the topic whose instance answers look-ups has more than one partition: nobody would know every key.
    pub const fn of<G: ConsumerGroup>() -> Self {
        let mut index = 0;
        while index < G::READS.len() {
            let is_derived = matches!(G::READS[index].content, Content::Derived);
            assert!(
                !is_derived || G::STATE_VERSION > 0,
                "a group that reads a derived topic needs a STATE_VERSION above 0"
            );
            index += 1;
        }
        if let Some(look_up) = &G::LOOK_UP {
            assert!(
                matches!(look_up.topic.partitions, Partitions::One),
                "look-ups are answered by the owner of a topic of one partition"
            );
        }
        Self {
            name: G::NAME,
            about: G::ABOUT,
            reads: G::READS,
            tables: G::TABLES,
            state_version: G::STATE_VERSION,
            look_up: G::LOOK_UP,
            new: |settings, topic| Box::new(G::new(settings, topic)),
        }
    }

    /// A fresh instance for one partition of `topic`.
    pub fn instance(&self, settings: &Settings, topic: Topic) -> Box<dyn Instance> {
        (self.new)(settings, topic)
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The methods of [`ConsumerGroup`] that work on an instance.
pub trait Instance: Send {
    /// [`ConsumerGroup::process`]
    ///
    /// # Errors
    /// As there.
    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject>;
    /// [`ConsumerGroup::snapshot`]
    fn snapshot(&self, into: &mut Vec<u8>);
    /// [`ConsumerGroup::restore`]
    ///
    /// # Errors
    /// As there.
    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot>;
    /// [`ConsumerGroup::answers`]
    fn answers(&self) -> Option<Arc<dyn Answers>>;
}

impl<G: ConsumerGroup> Instance for G {
    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        ConsumerGroup::process(self, received, out)
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        ConsumerGroup::snapshot(self, into);
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        ConsumerGroup::restore(self, from)
    }

    fn answers(&self) -> Option<Arc<dyn Answers>> {
        ConsumerGroup::answers(self)
    }
}
