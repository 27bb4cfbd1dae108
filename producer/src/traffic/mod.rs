//! The traffic model: an endless, seeded stream of clicks and watches that could come from people (and a few scripts).
//!
//! Pure: time, seed and limits come from the caller. The same seed and settings give the same events, bit for bit, on every machine and however
//! slowly or fast they are taken. Model time moves on at `events_per_second`: at each of its moments either an open session that is due goes on,
//! or a new session begins. So the rate is right from the first event on, and the number of open sessions finds its own level.
//!
//! Promises: `received_at` never falls; `occurred_at` is never above it, and never falls within a user; a user has one session at a time.
//!
//! - `random`: the pinned generator; `catalogue`: titles and items; `people`: who is there; `journey`: what a visit does; `playback`: how a title is
//!   watched; `attack`: scripts; [`malformed`]: bytes that are no events.

mod attack;
mod catalogue;
mod journey;
pub mod malformed;
mod people;
mod playback;
mod random;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use crate::source::{EventSource, Outgoing, SourceError};
use catalogue::Catalogue;
use journey::{Around, Begun, Session, Sources};
use people::Person;
use random::Random;

/// Of a thousand events, how many reach the collecting service late (the device was offline).
const LATE_PER_THOUSAND: u32 = 8;
const LATE_MS: (i64, i64) = (5_000, 900_000);
const NETWORK_MS: (i64, i64) = (15, 700);
/// A session that falls behind its plan by more than this (the model's rate is spent on others) is taken to have paused.
const BEHIND_MS_MAX: i64 = 1_000;
/// How often another user is tried if the first is in a session already.
const FREE_USER_TRIES: u32 = 8;

/// What a world looks like. Two worlds of the same seed and settings are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficSettings {
    /// Where model time begins: milliseconds since 1970-01-01 UTC.
    pub start_at_ms: i64,
    /// Events per second of model time. With fewer than some 100 users for each event per second people act faster than they do in life.
    pub events_per_second: f64,
    /// How many users there are; some come far more often than others.
    pub users: u32,
    /// How many titles there are to watch.
    pub titles: u32,
    /// How many items there are to click on.
    pub items: u32,
    /// Of a million users, how many are scripts.
    pub attackers_per_million: u32,
}

impl Default for TrafficSettings {
    fn default() -> Self {
        Self {
            start_at_ms: 1_767_225_600_000, // 2026-01-01T00:00:00Z
            events_per_second: 20.0,
            users: 5_000,
            titles: 1_200,
            items: 3_000,
            attackers_per_million: 4_000,
        }
    }
}

/// A user's facts that change.
#[derive(Clone, Copy, Default)]
struct UserState {
    begun: Begun,
    last_at_ms: i64,
    in_session: bool,
}

/// An endless stream of events.
pub struct Traffic {
    seed: u64,
    settings: TrafficSettings,
    catalogue: Catalogue,
    sources: Sources,
    random: Random,
    /// Event ids have a stream of their own.
    ids: Random,
    users: Vec<UserState>,
    sessions: Vec<Session>,
    closed: Vec<u32>,
    /// (when the next event arrives, session).
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// Model time since the start, and how far it moves per event on average.
    elapsed_ns: u64,
    step_ns: u64,
    event_id: [u8; 36],
}

impl Traffic {
    /// The world of this seed, at its beginning.
    pub fn new(seed: u64, settings: TrafficSettings) -> Self {
        let settings = TrafficSettings {
            users: settings.users.max(1),
            ..settings
        };
        Self {
            seed,
            catalogue: Catalogue::new(settings.titles, settings.items),
            sources: Sources::new(),
            random: Random::new(seed, 0),
            ids: Random::new(seed, 1),
            users: vec![UserState::default(); settings.users as usize],
            sessions: Vec::new(),
            closed: Vec::new(),
            due: BinaryHeap::new(),
            elapsed_ns: 0,
            step_ns: (1e9 / settings.events_per_second.max(1e-3)) as u64,
            event_id: [0; 36],
            settings,
        }
    }

    /// The next event. It borrows from the model until the one after it.
    pub fn next_event(&mut self) -> Outgoing<'_> {
        let now_ms = self.tick();
        let delay_ms = self.random.skewed(NETWORK_MS.0, NETWORK_MS.1);
        let is_due = self
            .due
            .peek()
            .is_some_and(|Reverse((due_ms, _))| *due_ms <= now_ms);
        let newcomer = if is_due { None } else { self.free_user() };
        let (slot, occurred_ms) = match newcomer {
            Some(user) => self.open_session(user, now_ms - delay_ms),
            None => self.next_due(now_ms, delay_ms),
        };
        let session = &mut self.sessions[slot as usize];
        let user = &mut self.users[session.user as usize];
        let mut around = Around {
            catalogue: &self.catalogue,
            random: &mut self.random,
            begun: &mut user.begun,
        };
        let (fact, next) = session.step(occurred_ms, &mut around);
        user.last_at_ms = occurred_ms;
        match next {
            Some(gap_ms) => {
                session.next_at_ms = occurred_ms + gap_ms;
                let arrives_ms = session.next_at_ms + arrival_delay_ms(&mut self.random);
                self.reschedule(newcomer.is_some(), slot, arrives_ms);
            }
            None => {
                user.in_session = false;
                if newcomer.is_none() {
                    self.due.pop();
                }
                self.closed.push(slot);
            }
        }
        uuid::Builder::from_random_bytes(self.ids.bytes())
            .into_uuid()
            .hyphenated()
            .encode_lower(&mut self.event_id);
        let session = &self.sessions[slot as usize];
        Outgoing {
            event: session.event(
                fact,
                std::str::from_utf8(&self.event_id).unwrap_or_default(),
                (occurred_ms, now_ms),
                &self.catalogue,
            ),
            label: Some(if session.attack.is_some() { "1" } else { "0" }),
            attack: Some(session.attack.map_or("", attack::Attack::name)),
        }
    }

    /// Moves model time on and gives it in milliseconds. Steps are uneven: an even pulse would be the most regular thing in the traffic.
    fn tick(&mut self) -> i64 {
        let share = u128::from(self.random.bits() >> 32);
        self.elapsed_ns += ((share * 2 * u128::from(self.step_ns)) >> 32) as u64;
        self.settings.start_at_ms + (self.elapsed_ns / 1_000_000) as i64
    }

    /// A user who is in no session. Low numbers come more often (the square of a uniform number).
    fn free_user(&mut self) -> Option<u32> {
        (0..FREE_USER_TRIES).find_map(|_| {
            let unit = u64::from(self.random.below(u32::MAX));
            let square = (unit * unit) >> 32;
            let user = (square * u64::from(self.settings.users)) >> 32;
            (!self.users[user as usize].in_session).then_some(user as u32)
        })
    }

    fn open_session(&mut self, user: u32, occurred_ms: i64) -> (u32, i64) {
        let slot = self.closed.pop().unwrap_or_else(|| {
            self.sessions.push(Session::closed());
            (self.sessions.len() - 1) as u32
        });
        let state = &mut self.users[user as usize];
        state.in_session = true;
        let person = Person::new(self.seed, user, self.settings.attackers_per_million);
        let mut around = Around {
            catalogue: &self.catalogue,
            random: &mut self.random,
            begun: &mut state.begun,
        };
        self.sessions[slot as usize].open(user, person, &self.sources, &mut around);
        (slot, occurred_ms.max(state.last_at_ms))
    }

    /// The session whose turn it is, and when its event occurred: as planned, unless the session fell behind or is called early.
    fn next_due(&self, now_ms: i64, delay_ms: i64) -> (u32, i64) {
        let Some(&Reverse((due_ms, slot))) = self.due.peek() else {
            unreachable!("a user who is not free has a session that is due some time")
        };
        let session = &self.sessions[slot as usize];
        let on_time = (due_ms..=due_ms + BEHIND_MS_MAX).contains(&now_ms);
        let occurred_ms = if on_time {
            session.next_at_ms
        } else {
            (now_ms - delay_ms).max(session.last_at_ms)
        };
        (slot, occurred_ms)
    }

    fn reschedule(&mut self, is_new: bool, slot: u32, arrives_ms: i64) {
        if is_new {
            self.due.push(Reverse((arrives_ms, slot)));
        } else if let Some(mut first) = self.due.peek_mut() {
            *first = Reverse((arrives_ms, slot));
            // Sifts it down to its place: cheaper than taking it out and putting it in.
            drop::<PeekMut<'_, _>>(first);
        }
    }
}

fn arrival_delay_ms(random: &mut Random) -> i64 {
    if random.chance(LATE_PER_THOUSAND) {
        random.skewed(LATE_MS.0, LATE_MS.1)
    } else {
        random.skewed(NETWORK_MS.0, NETWORK_MS.1)
    }
}

impl EventSource for Traffic {
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>> {
        Some(Ok(Traffic::next_event(self)))
    }
}

#[cfg(test)]
mod tests;
