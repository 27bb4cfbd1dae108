//! What publication takes its events from: the traffic model, a replayed file, or anything else that lends one event at a time.

use activity_schemas::Event;

/// An event on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing<'a> {
    /// What goes into the message's value; its user is the key.
    pub event: Event<'a>,
    /// Value of the header [`LABEL_HEADER`](activity_schemas::truth::LABEL_HEADER), if the truth is known.
    pub label: Option<&'a str>,
    /// Value of the header [`ATTACK_HEADER`](activity_schemas::truth::ATTACK_HEADER).
    pub attack: Option<&'a str>,
}

/// Why a source has no event to give.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// One record is no event; the next one may be.
    #[error("line {line} cannot be mapped: {why}")]
    Unmappable {
        /// Where it stands, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The source cannot be read on.
    #[error("cannot read on after line {line}: {cause}")]
    Broken {
        /// The last line that was read, from 1.
        line: u64,
        /// What the system says.
        cause: std::io::Error,
    },
}

/// Lends events, one at a time. None: that was the last one.
pub trait EventSource {
    /// The next event; it borrows from the source until the one after it.
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>>;
}

/// The user of an event: the message's key.
pub(crate) fn user_id<'a>(event: &Event<'a>) -> &'a str {
    match event {
        Event::Click(click) => click.user_id,
        Event::Watch(watch) => watch.user_id,
    }
}

/// When the collecting service took an event.
pub(crate) fn received_at(event: &Event<'_>) -> i64 {
    match event {
        Event::Click(click) => click.received_at,
        Event::Watch(watch) => watch.received_at,
    }
}
