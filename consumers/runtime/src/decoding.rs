//! The writers' schemas that this process knows, and the ids that the registry does not have.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use activity_schemas::{DecodeError, Decoders, Event, EventKind};

/// Ids that the registry does not have are asked for again after this long.
const MISSING_FOR: Duration = Duration::from_secs(60);
/// Ids that are remembered as missing; beyond it all are forgotten and asked for again.
const MISSING_MAX: usize = 100_000;

/// Decoders of all kinds of events.
pub struct Schemas {
    click: Decoders,
    watch: Decoders,
    missing: HashMap<u32, Instant>,
}

impl Schemas {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self {
            click: Decoders::new(EventKind::Click),
            watch: Decoders::new(EventKind::Watch),
            missing: HashMap::new(),
        }
    }

    /// Decodes one message.
    ///
    /// # Errors
    /// As [`Decoders::decode`].
    pub fn decode<'a>(&self, kind: EventKind, message: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        match kind {
            EventKind::Click => self.click.decode(message),
            EventKind::Watch => self.watch.decode(message),
        }
    }

    /// The registry gave this schema for an id.
    pub fn add(&mut self, id: u32, schema_json: &str) {
        self.click.add(id, schema_json);
        self.watch.add(id, schema_json);
    }

    /// The registry does not have this id.
    pub fn add_missing(&mut self, id: u32, now: Instant) {
        if self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        self.missing.insert(id, now);
    }

    /// Whether the registry said that it does not have this id.
    pub fn is_missing(&self, id: u32) -> bool {
        self.missing.contains_key(&id)
    }

    /// When the registry said so last.
    pub fn missing_since(&self, id: u32) -> Option<Instant> {
        self.missing.get(&id).copied()
    }

    /// Forgets what was missing long ago.
    pub fn tidy(&mut self, now: Instant) {
        self.missing
            .retain(|_, since| now.saturating_duration_since(*since) < MISSING_FOR);
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self::new()
    }
}
