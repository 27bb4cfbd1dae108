//! The traffic model: an endless, seeded stream of clicks and watches that could come from people, with attackers and their innocent look-alikes among them.
//!
//! Pure: time, seed and limits come from the caller. The same seed and settings give the same events, bit for bit, on every machine and however
//! slowly or fast they are taken. Model time moves on at `events_per_second`, more by day and less at night: at each of its moments either an open
//! session that is due goes on, or a new session begins. So the rate is right from the first event on, and the number of open sessions finds its own level.
//!
//! Promises: `received_at` never falls; what really happened in a session is in order, and the device's clock is off by the same all the time. One person has
//! one session at a time, unless a phone that lost the network still has something to tell.
//!
//! - `random`: the pinned generator; [`scenario`]: how much of what; `settings`: what a world looks like; `arrival`: when people come; `people`: who is there; `cast`: attackers and look-alikes;
//!   `catalogue`: titles and items; `journey`: what a visit does; `playback`: how a title is watched; `script`: visits by plan; `identity`: the words of an
//!   event; `transit`: delays and duplicates; [`malformed`]: bytes that are no events; [`mod@oracle`]: how well taste could be guessed.

mod arrival;
mod cast;
mod catalogue;
mod identity;
mod journey;
pub mod malformed;
pub mod oracle;
mod people;
mod playback;
mod random;
pub mod scenario;
mod script;
mod settings;
mod transit;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use crate::source::{EventSource, Outgoing, SourceError};
use cast::{Appearance, Cast};
use catalogue::Catalogue;
use identity::Identity;
use journey::{Around, Fact, Session, Sources, Visitor};
use people::{Network, Person};
use random::Random;
use scenario::Phase;
pub use settings::{Past, TrafficSettings};
use transit::{EventId, Transit};

/// A session that falls behind its plan by more than this (the model's rate is spent on others) is taken to have paused.
const BEHIND_MS_MAX: i64 = 4_000;
/// Events come faster while what is due is later than this, until the rate is ahead by so many events.
const LATE_MS_MAX: i64 = 400;
const AHEAD_STEPS_MAX: u64 = 150;
/// How often another user is tried if the first is in a session already, or asleep.
const FREE_USER_TRIES: u32 = 16;
/// In a smaller world everybody is known.
const USERS_FOR_NEWCOMERS: u32 = 100;
/// Numbers of people stay below those of the cast.
const NUMBERS_MAX: u64 = 400_000_000;
/// Of a thousand users whose phone loses the network, how many go on elsewhere.
const ELSEWHERE_PER_THOUSAND: u32 = 400;
/// Marks what is due as an event on its way; else it is a session.
const IN_TRANSIT: u32 = 1 << 31;

/// A user's facts that change.
#[derive(Clone, Copy, Default)]
struct UserState {
    /// How many had this place before.
    generation: u32,
    last_at_ms: i64,
    in_session: bool,
}

/// Where the words of the latest event are.
#[derive(Clone, Copy)]
enum Source {
    Session(u32),
    Transit(u32),
}

/// An endless stream of events.
pub struct Traffic {
    seed: u64,
    settings: TrafficSettings,
    catalogue: Catalogue,
    sources: Sources,
    cast: Cast,
    random: Random,
    /// Event ids have a stream of their own.
    ids: Random,
    users: Vec<UserState>,
    /// The titles that each user has begun, a bit for each, in so many words.
    begun: Vec<u64>,
    begun_words: usize,
    sessions: Vec<Session>,
    closed: Vec<u32>,
    transit: Transit,
    /// (when the next event arrives, session or event on its way).
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// Model time since the start, and how far it moves per event on average, at most until then.
    elapsed_ns: u64,
    step_ns: u64,
    step_until_ms: i64,
    /// How much less it moved than it should have.
    ahead_ns: u64,
    phase: Phase,
    /// What arrives earlier happens, and is not told.
    not_before_ms: i64,
    /// The latest event.
    latest: (Source, Fact, i64, EventId),
}

impl Traffic {
    /// The world of this seed, at its beginning.
    pub fn new(seed: u64, settings: TrafficSettings) -> Self {
        let settings = TrafficSettings {
            users: settings.users.max(1),
            ..settings
        };
        let start_ms = settings.start_at_ms;
        let catalogue = Catalogue::new(settings.titles, settings.items, start_ms);
        let begun_words = catalogue.titles().div_ceil(64) as usize;
        let events_per_1000_s = (settings.events_per_second * 1000.0) as u64;
        Self {
            seed,
            catalogue,
            sources: Sources::new(),
            cast: Cast::new(
                seed,
                &settings.scenario.actors_per_million,
                events_per_1000_s,
            ),
            random: Random::new(seed, 0),
            ids: Random::new(seed, 1),
            users: vec![UserState::default(); settings.users as usize],
            begun: vec![0; begun_words * settings.users as usize],
            begun_words,
            sessions: Vec::new(),
            closed: Vec::new(),
            transit: Transit::default(),
            due: BinaryHeap::new(),
            elapsed_ns: 0,
            step_ns: 0,
            step_until_ms: start_ms,
            ahead_ns: 0,
            phase: settings.phase(start_ms),
            not_before_ms: i64::MIN,
            latest: (Source::Session(0), Fact::default(), 0, EventId::default()),
            settings,
        }
    }

    /// The next event. It borrows from the model until the one after it.
    pub fn next_event(&mut self) -> Outgoing<'_> {
        let now_ms = loop {
            let now_ms = self.tick();
            while !self.turn(now_ms) {}
            self.cast.count();
            if now_ms >= self.not_before_ms {
                break now_ms;
            }
        };
        let (source, fact, occurred_ms, event_id) = &self.latest;
        let identity = self.identity(*source);
        Outgoing {
            event: identity.event(
                *fact,
                event_id.as_str(),
                (*occurred_ms, now_ms),
                &self.catalogue,
            ),
            label: Some(if identity.role.is_attack() { "1" } else { "0" }),
            attack: Some(identity.role.name()),
        }
    }

    /// Goes on to the first event that is received at this moment or later.
    pub fn skip_until(&mut self, at_ms: i64) {
        self.not_before_ms = at_ms;
    }

    /// What the latest event was, and whose.
    fn latest(&self) -> (&Identity, Fact) {
        (self.identity(self.latest.0), self.latest.1)
    }

    fn identity(&self, source: Source) -> &Identity {
        match source {
            Source::Session(slot) => &self.sessions[slot as usize].identity,
            Source::Transit(index) => &self.transit.get(index).identity,
        }
    }

    /// Moves model time on and gives it in milliseconds. Steps are uneven: an even pulse would be the most regular thing in the traffic.
    fn tick(&mut self) -> i64 {
        let at_ms = self.settings.start_at_ms + (self.elapsed_ns / 1_000_000) as i64;
        if at_ms >= self.step_until_ms {
            self.look_around(at_ms);
        }
        let step_ns = self.step(at_ms);
        let share = u128::from(self.random.bits() >> 32);
        self.elapsed_ns += ((share * 2 * u128::from(step_ns)) >> 32) as u64;
        self.settings.start_at_ms + (self.elapsed_ns / 1_000_000) as i64
    }

    /// How far time moves until the next event. While sessions are behind their plans it moves less, which is made up for when nobody is due: the rate
    /// swings a little, as it does in life, and what people and scripts do keeps its rhythm.
    fn step(&mut self, at_ms: i64) -> u64 {
        let late_ms = match self.due.peek() {
            Some(Reverse((due_ms, _))) => at_ms - due_ms,
            None => -1,
        };
        if late_ms > LATE_MS_MAX && self.ahead_ns < AHEAD_STEPS_MAX * self.step_ns {
            let less_ns = self.step_ns / 3;
            self.ahead_ns += self.step_ns - less_ns;
            less_ns
        } else if late_ms < 0 {
            let more_ns = self.ahead_ns.min(self.step_ns);
            self.ahead_ns -= more_ns;
            self.step_ns + more_ns
        } else {
            self.step_ns
        }
    }

    /// Takes note of what changes slowly: the rate, the scenario's phase, the catalogue.
    fn look_around(&mut self, at_ms: i64) {
        let step_ns = 1e9 / self.settings.events_per_second.max(1e-3);
        let level_per_million = self.settings.level_per_million(at_ms);
        self.step_ns = (step_ns as u64).saturating_mul(1_000_000) / level_per_million.max(1);
        self.step_until_ms = self.settings.level_until(at_ms);
        self.phase = self.settings.phase(at_ms);
        let (begun, words) = (&mut self.begun, self.begun_words);
        self.catalogue.renew(at_ms, |title| {
            let (word, bit) = (title as usize / 64, 1u64 << (title % 64));
            for of_user in begun.chunks_exact_mut(words) {
                of_user[word] &= !bit;
            }
        });
    }

    /// Takes what is due, or lets somebody come. False: what came of it does not arrive now.
    fn turn(&mut self, now_ms: i64) -> bool {
        let due = self.due.peek().map(|Reverse(due)| *due);
        let is_due = due.is_some_and(|(due_ms, _)| due_ms <= now_ms);
        if !is_due && let Some(slot) = self.newcomer(now_ms) {
            return self.go_on(slot, None, now_ms);
        }
        match due {
            Some((_, what)) if what & IN_TRANSIT != 0 => {
                self.due.pop();
                let index = what & !IN_TRANSIT;
                let held = self.transit.release(index);
                let source = Source::Transit(index);
                self.latest = (source, held.fact, held.occurred_ms, held.event_id);
                true
            }
            Some((due_ms, slot)) => self.go_on(slot, Some(due_ms), now_ms),
            None => unreachable!("a user who is not free has a session that is due some time"),
        }
    }

    /// A session that begins now: of the cast if it is behind its share, else of a person, if there is one who is free.
    fn newcomer(&mut self, now_ms: i64) -> Option<u32> {
        let attacks = self.phase.attacks_per_thousand;
        let occurred_ms = now_ms - transit::network_ms(&mut self.random);
        if let Some(appearance) = self.cast.next(now_ms, attacks, &mut self.random) {
            return Some(self.open(None, Some(appearance), occurred_ms));
        }
        let user = self.free_user(now_ms)?;
        Some(self.open(Some(user), None, occurred_ms))
    }

    /// A user who is in no session, more likely one whose local time people come at. Low numbers come more often (the square of a uniform number).
    fn free_user(&mut self, now_ms: i64) -> Option<u32> {
        let users = self.settings.users;
        if users >= USERS_FOR_NEWCOMERS
            && self
                .random
                .chance(self.settings.scenario.newcomers_per_thousand)
        {
            let user = self.random.below(users);
            if !self.users[user as usize].in_session {
                self.replace(user);
                return Some(user);
            }
        }
        let mut free = None;
        for _ in 0..FREE_USER_TRIES {
            let unit = u64::from(self.random.below(u32::MAX));
            let square = (unit * unit) >> 32;
            let user = ((square * u64::from(users)) >> 32) as u32;
            if self.users[user as usize].in_session {
                continue;
            }
            free = Some(user);
            let level = arrival::level(self.person(user).local_ms(now_ms));
            if i64::from(self.random.below(arrival::LEVEL_MAX as u32)) < level {
                break;
            }
        }
        free
    }

    /// Somebody leaves for good, and somebody else comes for the first time.
    fn replace(&mut self, user: u32) {
        let state = &mut self.users[user as usize];
        *state = UserState {
            generation: state.generation + 1,
            ..UserState::default()
        };
        let from = user as usize * self.begun_words;
        self.begun[from..from + self.begun_words].fill(0);
    }

    fn person(&self, user: u32) -> Person {
        let generation = u64::from(self.users[user as usize].generation);
        let number = generation * u64::from(self.settings.users) + u64::from(user);
        Person::new(self.seed, (number % NUMBERS_MAX) as u32)
    }

    fn open(&mut self, user: Option<u32>, appearance: Option<Appearance>, at_ms: i64) -> u32 {
        let slot = self.closed.pop().unwrap_or_else(|| {
            self.sessions.push(Session::default());
            (self.sessions.len() - 1) as u32
        });
        let visitor = match (user, appearance) {
            (Some(user), _) => {
                let person = self.person(user);
                let origin = person.origin(at_ms, self.settings.users, &mut self.random);
                Visitor {
                    person,
                    origin,
                    appearance: None,
                }
            }
            (None, Some(appearance)) => Visitor {
                person: Person::new(self.seed, appearance.account),
                origin: appearance.origin,
                appearance: Some(appearance),
            },
            (None, None) => unreachable!("a visit is somebody's"),
        };
        let mut session = std::mem::take(&mut self.sessions[slot as usize]);
        session.user = user;
        let mut at_ms = at_ms;
        if let Some(state) = user.map(|user| &mut self.users[user as usize]) {
            state.in_session = true;
            at_ms = at_ms.max(state.last_at_ms);
        } else {
            session.begun.clear();
            session.begun.resize(self.begun_words, 0);
        }
        let mut own = std::mem::take(&mut session.begun);
        session.open(&visitor, &mut self.around(user, &mut own, at_ms));
        session.begun = own;
        (session.last_at_ms, session.next_at_ms) = (at_ms, at_ms);
        self.sessions[slot as usize] = session;
        slot
    }

    fn around<'a>(&'a mut self, user: Option<u32>, own: &'a mut [u64], now_ms: i64) -> Around<'a> {
        let begun = match user {
            Some(user) => {
                let from = user as usize * self.begun_words;
                &mut self.begun[from..from + self.begun_words]
            }
            None => own,
        };
        Around {
            catalogue: &self.catalogue,
            scenario: &self.settings.scenario,
            sources: &self.sources,
            random: &mut self.random,
            begun,
            now_ms,
        }
    }

    /// The next event of a session, which is new or was due then. False: it does not arrive now.
    fn go_on(&mut self, slot: u32, due_ms: Option<i64>, now_ms: i64) -> bool {
        let mut session = std::mem::take(&mut self.sessions[slot as usize]);
        let occurred_ms = occurred_ms(&session, due_ms, now_ms, &mut self.random);
        let mut own = std::mem::take(&mut session.begun);
        let mut around = self.around(session.user, &mut own, occurred_ms);
        let (fact, next) = session.step(occurred_ms, &mut around);
        session.begun = own;
        self.cast.spend(session.identity.role, session.events);
        if let Some(user) = session.user {
            self.users[user as usize].last_at_ms = occurred_ms;
        }
        match next {
            Some(gap_ms) => {
                session.next_at_ms = occurred_ms + gap_ms;
                self.lose_network(&mut session);
                let arrives_ms = session.next_at_ms.max(session.online_at_ms)
                    + transit::network_ms(&mut self.random);
                self.reschedule(due_ms.is_none(), slot, arrives_ms);
            }
            None => {
                if let Some(user) = session.user {
                    self.users[user as usize].in_session = false;
                }
                if due_ms.is_some() {
                    self.due.pop();
                }
                self.cast.settle(session.identity.role, session.events);
                self.closed.push(slot);
            }
        }
        let event_id = EventId::new(&mut self.ids);
        let arrives = self.send(&session.identity, fact, occurred_ms, event_id, now_ms);
        self.sessions[slot as usize] = session;
        self.latest = (Source::Session(slot), fact, occurred_ms, event_id);
        arrives
    }

    /// Now and then a phone loses the network after an event; its user may go on with another device meanwhile.
    fn lose_network(&mut self, session: &mut Session) {
        let per_million = self.settings.scenario.offline_per_million;
        let is_lost = session.network == Network::Mobile
            && session.online_at_ms < session.last_at_ms
            && self.random.below(1_000_000) < per_million;
        if !is_lost {
            return;
        }
        session.online_at_ms = session.last_at_ms + transit::offline_ms(&mut self.random);
        if let Some(user) = session.user
            && self.random.chance(ELSEWHERE_PER_THOUSAND)
        {
            self.users[user as usize].in_session = false;
            let from = user as usize * self.begun_words;
            session.begun.clear();
            session
                .begun
                .extend_from_slice(&self.begun[from..from + self.begun_words]);
            session.user = None;
        }
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

    /// Sends an event on its way; true if it arrives at once. Some are overtaken by others, some arrive a second time.
    fn send(
        &mut self,
        identity: &Identity,
        fact: Fact,
        occurred_ms: i64,
        event_id: EventId,
        now_ms: i64,
    ) -> bool {
        let roll = self.random.below(1_000_000);
        let scenario = &self.settings.scenario;
        let (delayed, doubled) = (
            scenario.delayed_per_million,
            scenario.duplicates_per_million,
        );
        // They are far from certain, so that one number decides about both; duplicates first.
        let (again_ms, is_here) = if roll < doubled {
            (transit::retry_ms(&mut self.random), true)
        } else if roll < doubled.saturating_add(delayed) {
            (transit::detour_ms(&mut self.random), false)
        } else {
            return true;
        };
        let index = self.transit.hold(identity, fact, occurred_ms, event_id);
        self.due
            .push(Reverse((now_ms + again_ms, index | IN_TRANSIT)));
        is_here
    }
}

/// When the event of a session occurred that arrives now: as planned, unless the session fell behind or is called early.
fn occurred_ms(session: &Session, due_ms: Option<i64>, now_ms: i64, random: &mut Random) -> i64 {
    let Some(due_ms) = due_ms else {
        return session.next_at_ms;
    };
    let was_offline = session.next_at_ms < session.online_at_ms;
    let on_time = (due_ms..=due_ms + BEHIND_MS_MAX).contains(&now_ms);
    if on_time || (was_offline && now_ms >= due_ms) {
        session.next_at_ms
    } else {
        (now_ms - transit::network_ms(random)).max(session.last_at_ms)
    }
}

impl EventSource for Traffic {
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>> {
        Some(Ok(Traffic::next_event(self)))
    }
}

#[cfg(test)]
mod tests;
