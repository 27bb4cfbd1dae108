//! From a message to what a group sees of it: decodes events, drops derived messages and resubmits that were seen before. No I/O.

use std::sync::Arc;
use std::time::Instant;

use activity_consumers::{Input, Reject};
use activity_schemas::{Content, DecodeError, EventKind, Topic};

use crate::decoding::Schemas;
use crate::lane::Message;
use crate::resubmit::{Feed, LetterSet, Resubmit};
use crate::rewinds::Rewinds;
use crate::source::{Marks, SOURCE_HEADER, Source};

/// Reads the messages of one partition, in order.
pub(crate) struct Reader {
    feed: Feed,
    rewinds: Arc<Rewinds>,
    /// What was seen of derived messages: a part of the lane's state.
    pub marks: Marks,
    resubmits: Resubmits,
}

/// What is known of a topic of resubmits. It is no part of a snapshot: the topic is small, and read from its start by whoever gets it.
#[derive(Default)]
struct Resubmits {
    /// Topics that the group reads, by full name, and the full name of this one.
    topics: Vec<(Topic, String)>,
    name: String,
    seen: LetterSet,
    /// Offset that is handled, and when it was first.
    first: Option<(i64, Instant)>,
}

/// What a message says.
pub(crate) struct Reading<'a> {
    /// The topic that the message was published to first.
    pub topic: Topic,
    /// Headers of ours in front of its own.
    pub headers_from: usize,
    /// None: it was seen before, or its source was read again since.
    pub input: Option<Input<'a>>,
}

/// Why a message says nothing.
pub(crate) enum Unreadable {
    /// The schema of this id must be fetched first.
    Schema(u32),
    /// It is a dead letter.
    Reject(Reject),
}

impl Reader {
    /// `name` is the full name of the topic; `reads` is what its group reads.
    pub fn new(
        feed: Feed,
        group: &str,
        reads: &[Topic],
        name: &str,
        rewinds: Arc<Rewinds>,
    ) -> Self {
        let prefix = name.strip_suffix(&crate::resubmit::resubmit_topic(group));
        let resubmits = match (feed, prefix) {
            (Feed::Resubmits, Some(prefix)) => Resubmits {
                topics: reads
                    .iter()
                    .map(|topic| (*topic, topic.full_name(prefix)))
                    .collect(),
                name: name.to_owned(),
                ..Resubmits::default()
            },
            _ => Resubmits::default(),
        };
        Self {
            feed,
            rewinds,
            marks: Marks::default(),
            resubmits,
        }
    }

    /// What a message says; `replayed`: it is only read to rebuild state.
    pub fn read<'a>(
        &mut self,
        message: &Message<'a>,
        schemas: &Schemas,
        replayed: bool,
        now: Instant,
    ) -> Result<Reading<'a>, Unreadable> {
        let topic = match self.feed {
            Feed::Reads(topic) => topic,
            Feed::Resubmits => {
                let rewinds = &self.rewinds;
                return self
                    .resubmits
                    .read(message, schemas, rewinds, replayed, now);
            }
        };
        let input = match topic.content {
            Content::Events(kind) => {
                let decoded = decode(kind, message, schemas, |id| schemas.is_missing(id))?;
                Some(decoded)
            }
            Content::Derived => {
                let source = message.headers.get(SOURCE_HEADER).and_then(Source::parse);
                let source = source.ok_or_else(|| no_source(SOURCE_HEADER))?;
                // In this order: a message that does not count must not hide those that do.
                (self.rewinds.count_source(&source) && self.marks.advance(&source))
                    .then(|| Input::Derived(message.payload.unwrap_or_default()))
            }
        };
        Ok(Reading {
            topic,
            headers_from: 0,
            input,
        })
    }
}

impl Resubmits {
    fn read<'a>(
        &mut self,
        message: &Message<'a>,
        schemas: &Schemas,
        rewinds: &Rewinds,
        replayed: bool,
        now: Instant,
    ) -> Result<Reading<'a>, Unreadable> {
        let chain = Resubmit::chain(message.headers, 0, &self.name);
        let (Some(outer), Some(origin)) = (chain.first(), chain.last()) else {
            return Err(no_source(crate::resubmit::RESUBMIT_HEADER));
        };
        let known = self.topics.iter().find(|(_, name)| name == origin.topic);
        let Some((topic, _)) = known else {
            let why = format!("the group does not read {}", origin.topic);
            return Err(Unreadable::Reject(Reject::new("no_source", why)));
        };
        let mut reading = Reading {
            topic: *topic,
            headers_from: chain.len(),
            input: None,
        };
        let (epoch, partition, offset) = (outer.epoch, outer.partition, outer.offset);
        let counts = |link: &Resubmit<'_>| {
            rewinds.count(link.epoch, link.topic, link.partition, link.offset)
        };
        // A message that was read again where it was rejected, since then, has gone through there.
        if !chain.iter().all(counts) {
            return Ok(reading);
        }
        if replayed {
            self.seen.insert(epoch, outer.topic, partition, offset);
            return Ok(reading);
        }
        if self.seen.contains(epoch, outer.topic, partition, offset) {
            return Ok(reading);
        }
        let first = match self.first {
            Some((at, first)) if at == message.offset => first,
            _ => now,
        };
        self.first = Some((message.offset, first));
        let input = match topic.content {
            // Somebody may have registered what was missing: only an answer that came after this message counts.
            Content::Events(kind) => decode(kind, message, schemas, |id| {
                schemas
                    .missing_since(id)
                    .is_some_and(|since| since >= first)
            }),
            Content::Derived => Ok(Input::Derived(message.payload.unwrap_or_default())),
        };
        if !matches!(input, Err(Unreadable::Schema(_))) {
            self.seen.insert(epoch, outer.topic, partition, offset);
        }
        reading.input = Some(input?);
        Ok(reading)
    }
}

fn decode<'a>(
    kind: EventKind,
    message: &Message<'a>,
    schemas: &Schemas,
    is_missing: impl Fn(u32) -> bool,
) -> Result<Input<'a>, Unreadable> {
    schemas
        .decode(kind, message.payload.unwrap_or_default())
        .map(Input::Event)
        .map_err(|error| match error {
            DecodeError::UnknownSchema { id } if !is_missing(id) => Unreadable::Schema(id),
            error => Unreadable::Reject(Reject::new(error.reason(), error.to_string())),
        })
}

fn no_source(header: &str) -> Unreadable {
    Unreadable::Reject(Reject::new(
        "no_source",
        format!("header {header} is missing or malformed"),
    ))
}
