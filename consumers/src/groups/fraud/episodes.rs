//! Episodes: when a user, an address or a device is under suspicion, from when until when. A row when suspicion begins, and one now and then while it lasts;
//! it is over when the actor was silent for long, which is judged when it is read.
//!
//! About 130 bytes an actor. A user's standing is the mean score of the latest clicks; that of an address or a device is the mean over its latest users, so
//! that one script behind a carrier's gateway does not put everybody there under suspicion.

use serde::{Deserialize, Serialize};

use super::habits::Latest;
use super::{AlertRow, Passing};
use crate::fingerprint::fingerprint;
use crate::lru::Lru;
use crate::{Millis, Output};

/// An actor whose standing is that high is under suspicion.
pub const ALERT_SCORE: f32 = 0.5;
/// Clicks before which nothing is said of an actor.
const CLICKS_MIN: u32 = 4;
/// A longer silence ends an episode.
const EPISODE_GAP_MS: i64 = 1_800_000;
/// An episode has at most one row in that time, after its first.
const UPDATE_MS: i64 = 300_000;
/// What the latest click counts in a user's standing.
const LATEST_CLICK: f32 = 0.2;

/// All actors.
#[derive(Serialize, Deserialize)]
pub(super) struct Episodes {
    actors: [Lru<Actor>; 3],
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Actor {
    latest_ms: i64,
    /// Clicks since the actor came up, or came again.
    clicks: u32,
    mean: f32,
    users: Latest,
    /// 0: not under suspicion.
    opened_ms: i64,
    told_ms: i64,
    suspected_clicks: u32,
    peak: f32,
}

/// Kinds of actors, in the order of [`Episodes::actors`].
const KINDS: [&str; 3] = ["user", "address", "device"];

impl Episodes {
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            actors: std::array::from_fn(|_| Lru::new(actors_max)),
        }
    }

    pub(super) fn bounded(self, actors_max: usize) -> Self {
        Self {
            actors: self.actors.map(|actors| actors.bounded(actors_max)),
        }
    }

    /// Takes a scored click.
    pub(super) fn note(
        &mut self,
        click: &Passing<'_>,
        score: f32,
        reasons: &[&str],
        out: &mut Output,
    ) {
        let names = [Some(click.user_id), click.ip, click.device_id];
        for ((actors, kind), name) in self.actors.iter_mut().zip(KINDS).zip(names) {
            let Some(name) = name else {
                continue;
            };
            let actor = actors.touch(fingerprint(name));
            let Some(state) = actor.note(kind, click, score) else {
                continue;
            };
            out.insert(&AlertRow {
                kind,
                actor: name,
                state,
                event_id: click.event_id,
                opened_at: Millis(actor.opened_ms),
                seen_at: Millis(actor.latest_ms),
                clicks: actor.suspected_clicks,
                score: actor.mean,
                peak_score: actor.peak,
                reasons,
            });
        }
    }
}

impl Actor {
    /// The state of a row that is due.
    fn note(&mut self, kind: &str, click: &Passing<'_>, score: f32) -> Option<&'static str> {
        let at_ms = click.received_at_ms;
        if at_ms - self.latest_ms > EPISODE_GAP_MS {
            *self = Self::default();
        }
        self.latest_ms = self.latest_ms.max(at_ms).max(1);
        self.clicks = self.clicks.saturating_add(1);
        self.mean = if kind == "user" {
            let share = LATEST_CLICK.max(1.0 / self.clicks as f32);
            self.mean + (score - self.mean) * share
        } else {
            self.users.add(fingerprint(click.user_id), score, false);
            self.users.all().map_or(0.0, |all| all.suspicion)
        };
        if self.opened_ms == 0 {
            let suspected = self.clicks >= CLICKS_MIN && self.mean >= ALERT_SCORE;
            if !suspected {
                return None;
            }
            (self.opened_ms, self.told_ms) = (self.latest_ms, self.latest_ms);
            (self.suspected_clicks, self.peak) = (1, self.mean);
            return Some("opened");
        }
        self.suspected_clicks = self.suspected_clicks.saturating_add(1);
        self.peak = self.peak.max(self.mean);
        if at_ms - self.told_ms < UPDATE_MS {
            return None;
        }
        self.told_ms = at_ms;
        Some("updated")
    }
}
