//! Between a device and the collecting service: delays, and events that are on their way longer than later ones, or for the second time.
//!
//! What is held has its own copy of the visit's words, in memory that is used again.

use super::{identity::Identity, journey::Fact, random::Random};

const NETWORK_MS: (i64, i64) = (15, 700);

/// How long an event is on its way as a rule.
pub(crate) fn network_ms(random: &mut Random) -> i64 {
    random.skewed(NETWORK_MS.0, NETWORK_MS.1)
}

/// How long an event is on its way that others overtake: most for seconds, some for minutes.
pub(crate) fn detour_ms(random: &mut Random) -> i64 {
    random.log_normal(8_000, 24).clamp(1_500, 3_600_000)
}

/// How long until a client that saw no answer sends again.
pub(crate) fn retry_ms(random: &mut Random) -> i64 {
    random.log_normal(5_000, 20).clamp(800, 600_000)
}

/// How long a phone has no network.
pub(crate) fn offline_ms(random: &mut Random) -> i64 {
    random.log_normal(240_000, 24).clamp(10_000, 12 * 3_600_000)
}

/// An event on its way.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) identity: Identity,
    pub(crate) fact: Fact,
    pub(crate) occurred_ms: i64,
    pub(crate) event_id: EventId,
}

/// A UUID as text.
#[derive(Clone, Copy)]
pub(crate) struct EventId([u8; 36]);

impl Default for EventId {
    fn default() -> Self {
        Self([b'0'; 36])
    }
}

impl EventId {
    pub(crate) fn new(ids: &mut Random) -> Self {
        let mut text = [0; 36];
        uuid::Builder::from_random_bytes(ids.bytes())
            .into_uuid()
            .hyphenated()
            .encode_lower(&mut text);
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// All events on their way.
#[derive(Default)]
pub(crate) struct Transit {
    held: Vec<Held>,
    free: Vec<u32>,
}

impl Transit {
    /// Holds a copy; tells where.
    pub(crate) fn hold(
        &mut self,
        identity: &Identity,
        fact: Fact,
        occurred_ms: i64,
        event_id: EventId,
    ) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.held.push(Held::default());
            (self.held.len() - 1) as u32
        });
        let held = &mut self.held[index as usize];
        held.identity.copy(identity);
        (held.fact, held.occurred_ms, held.event_id) = (fact, occurred_ms, event_id);
        index
    }

    /// It arrives: it can be read until the next one is held.
    pub(crate) fn release(&mut self, index: u32) -> &Held {
        self.free.push(index);
        &self.held[index as usize]
    }

    pub(crate) fn get(&self, index: u32) -> &Held {
        &self.held[index as usize]
    }
}
