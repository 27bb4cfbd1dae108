//! The bytes of an event on the wire, by its kind.

use activity_schemas::{Encoder, Event, EventKind, codec::EncodeError};

/// Which kind an event is.
pub(crate) fn kind(event: &Event<'_>) -> EventKind {
    match event {
        Event::Click(_) => EventKind::Click,
        Event::Watch(_) => EventKind::Watch,
    }
}

/// Appends the framed event to `into`; the encoder is that of the event's kind.
pub(crate) fn encode(
    encoder: &Encoder,
    event: &Event<'_>,
    into: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match event {
        Event::Click(click) => encoder.encode(click, into),
        Event::Watch(watch) => encoder.encode(watch, into),
    }
}
