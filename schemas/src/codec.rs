//! The Confluent wire format, both ways: one zero byte, the writer's schema id (four bytes, big-endian), the Avro datum.
//!
//! Decoding borrows from the message and never allocates more than the message's length justifies. The decoder is chosen by the writer's schema id;
//! what that writer did not know is filled by the defaults of the typed events, what it knows beyond them is skipped. Schemas are handed in by the
//! caller, who fetches them from a registry when [`DecodeError::UnknownSchema`] names a new id.

use std::io::BufRead;

use foldhash::{HashMap, HashMapExt as _};
use serde::Deserialize;
use serde_avro_fast::{
    Schema,
    de::{DeserializerConfig, DeserializerState, read::SliceRead},
};

use crate::plan::Encode;
use crate::{ClickEvent, Event, EventKind, WatchEvent, plan};

/// First byte of every message.
pub const MAGIC: u8 = 0;
/// Magic byte and schema id.
pub const FRAMING_BYTES: usize = 5;
/// Longest message that is decoded: Kafka's own default limit of a record batch.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes are not an event. All but [`DecodeError::UnknownSchema`] are final: the same bytes give the same error for ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than the framing, or no payload at all.
    #[error("{bytes} bytes are too few: the framing alone takes {FRAMING_BYTES}")]
    TooShort {
        /// Length of the message.
        bytes: usize,
    },
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("{bytes} bytes are too many: the limit is {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// Length of the message.
        bytes: usize,
    },
    /// Does not begin with [`MAGIC`].
    #[error("the first byte is {found:#04x}, the Confluent wire format begins with 0x00")]
    WrongMagic {
        /// The first byte.
        found: u8,
    },
    /// No schema was handed in for this id: fetch it and try again.
    #[error("schema id {id} is not known")]
    UnknownSchema {
        /// The writer's schema id.
        id: u32,
    },
    /// The schema of this id is not one of this event.
    #[error("schema id {id} cannot be read as this event: {why}")]
    UnfitSchema {
        /// The writer's schema id.
        id: u32,
        /// What is wrong with it.
        why: String,
    },
    /// The datum ends too early.
    #[error("the datum ends too early")]
    Truncated,
    /// Bytes are left after the datum.
    #[error("{bytes} bytes are left after the datum")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The datum is not what its schema says.
    #[error("malformed datum: {0}")]
    Malformed(String),
}

impl DecodeError {
    /// A word for metrics and dead letters.
    pub const fn reason(&self) -> &'static str {
        match self {
            DecodeError::TooShort { .. } => "too_short",
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::WrongMagic { .. } => "wrong_magic",
            DecodeError::UnknownSchema { .. } => "unknown_schema",
            DecodeError::UnfitSchema { .. } => "unfit_schema",
            DecodeError::Truncated => "truncated",
            DecodeError::Trailing { .. } => "trailing_bytes",
            DecodeError::Malformed(_) => "malformed",
        }
    }
}

/// The decoders of one kind of event, one for each writer's schema id.
pub struct Decoders {
    kind: EventKind,
    by_id: HashMap<u32, Result<Writer, String>>,
}

/// How datums of one writer's schema are decoded: by the plan where it can, else, and wherever it does not take a datum, by all that Avro knows.
struct Writer {
    schema: Schema,
    plan: Plan,
}

enum Plan {
    Click(plan::Plan<ClickEvent<'static>>),
    Watch(plan::Plan<WatchEvent<'static>>),
    None,
}

impl Decoders {
    /// No decoder yet.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            by_id: HashMap::new(),
        }
    }

    /// Makes messages of a writer's schema readable. A schema that does not parse, or that describes something else, is remembered as unfit:
    /// its messages get [`DecodeError::UnfitSchema`].
    pub fn add(&mut self, id: u32, schema_json: &str) {
        self.by_id.insert(id, writer(self.kind, schema_json));
    }

    /// Whether the id was handed in.
    pub fn knows(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Decodes one message; strings borrow from it.
    ///
    /// # Errors
    /// [`DecodeError`], never a panic, whatever the bytes.
    pub fn decode<'a>(&self, message: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLong {
                bytes: message.len(),
            });
        }
        match message.first() {
            Some(&MAGIC) => (),
            Some(&found) => return Err(DecodeError::WrongMagic { found }),
            None => return Err(DecodeError::TooShort { bytes: 0 }),
        }
        let Some((id, datum)) = message[1..].split_first_chunk() else {
            return Err(DecodeError::TooShort {
                bytes: message.len(),
            });
        };
        let id = u32::from_be_bytes(*id);
        let writer = match self.by_id.get(&id) {
            Some(Ok(writer)) => writer,
            Some(Err(why)) => {
                return Err(DecodeError::UnfitSchema {
                    id,
                    why: why.clone(),
                });
            }
            None => return Err(DecodeError::UnknownSchema { id }),
        };
        match writer.planned(datum) {
            Some(event) => Ok(event),
            None => writer.any(self.kind, datum),
        }
    }
}

impl Writer {
    fn planned<'a>(&self, datum: &'a [u8]) -> Option<Event<'a>> {
        match &self.plan {
            Plan::Click(plan) => plan.decode(datum).map(Event::Click),
            Plan::Watch(plan) => plan.decode(datum).map(Event::Watch),
            Plan::None => None,
        }
    }

    fn any<'a>(&self, kind: EventKind, datum: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        match kind {
            EventKind::Click => decode_datum(&self.schema, datum).map(Event::Click),
            EventKind::Watch => decode_datum(&self.schema, datum).map(Event::Watch),
        }
    }
}

fn decode_datum<'a, T: Deserialize<'a>>(
    schema: &Schema,
    datum: &'a [u8],
) -> Result<T, DecodeError> {
    let mut config = DeserializerConfig::new(schema);
    // An element of an array takes at least no byte (an array of nulls): the datum's own length is the bound that an honest writer stays under.
    config.max_seq_size = datum.len();
    let mut state = DeserializerState::with_config(SliceRead::new(datum), config);
    let event =
        T::deserialize(state.deserializer()).map_err(|error| classify(&error.to_string()))?;
    match state.into_reader().fill_buf() {
        Ok([]) => Ok(event),
        Ok(rest) => Err(DecodeError::Trailing { bytes: rest.len() }),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// serde_avro_fast has one error type; the end of the slice is told by its text, which the tests hold.
fn classify(error: &str) -> DecodeError {
    if error.starts_with("Unexpected end of slice") || error.ends_with("(Reached EOF)") {
        DecodeError::Truncated
    } else {
        DecodeError::Malformed(error.to_owned())
    }
}

/// A writer's schema fits if it is a record with the fields that are required for ever.
fn writer(kind: EventKind, json: &str) -> Result<Writer, String> {
    let parsed = apache_avro::Schema::parse_str(json).map_err(|error| error.to_string())?;
    let apache_avro::Schema::Record(record) = &parsed else {
        return Err("not a record".to_owned());
    };
    for required in required_fields(kind) {
        if !record.fields.iter().any(|field| field.name == *required) {
            return Err(format!("field {required} is missing"));
        }
    }
    let plan = match kind {
        EventKind::Click => plan::Plan::of(record).map(Plan::Click),
        EventKind::Watch => plan::Plan::of(record).map(Plan::Watch),
    };
    Ok(Writer {
        schema: json.parse::<Schema>().map_err(|error| error.to_string())?,
        plan: plan.unwrap_or(Plan::None),
    })
}

/// Fields that no version may lack.
const fn required_fields(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::Click => &["event_id", "occurred_at", "received_at", "user_id"],
        EventKind::Watch => &[
            "event_id",
            "occurred_at",
            "received_at",
            "user_id",
            "video_id",
            "action",
        ],
    }
}

/// Encodes events of one kind in the newest version of its schema.
pub struct Encoder {
    kind: EventKind,
    framing: [u8; FRAMING_BYTES],
}

/// The event is not of the encoder's kind.
#[derive(Debug, thiserror::Error)]
#[error("a {event} event given to an encoder of {encoder} events")]
pub struct EncodeError {
    event: &'static str,
    encoder: &'static str,
}

impl Encoder {
    /// `schema_id` is what the registry gave to the newest version of the event's schema.
    pub fn new(kind: EventKind, schema_id: u32) -> Self {
        let mut framing = [MAGIC; FRAMING_BYTES];
        framing[1..].copy_from_slice(&schema_id.to_be_bytes());
        Self { kind, framing }
    }

    /// Appends the framed message to `into`.
    ///
    /// # Errors
    /// If the event is not of the encoder's kind; `into` is then as it was.
    pub fn encode<E: Encode>(&self, event: &E, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.kind != E::KIND {
            return Err(EncodeError {
                event: E::KIND.name(),
                encoder: self.kind.name(),
            });
        }
        into.extend_from_slice(&self.framing);
        event.write(into);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
