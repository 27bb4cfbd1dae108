//! What a world looks like, and how much traffic there is in it at each moment.

use super::{
    people,
    scenario::{Phase, Scenario},
};

/// So long the rate stays as it is.
pub(super) const LEVEL_EVERY_MS: i64 = 60_000;

/// What a world looks like. Two worlds of the same seed and settings are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficSettings {
    /// Where model time begins: milliseconds since 1970-01-01 UTC.
    pub start_at_ms: i64,
    /// Events per second of model time, on average over a week in a phase at the usual rate. With fewer than some 100 users for each event per second
    /// people act faster than they do in life.
    pub events_per_second: f64,
    /// How many users there are at a time; some come far more often than others.
    pub users: u32,
    /// How many titles there are to watch at a time.
    pub titles: u32,
    /// How many items there are to click on.
    pub items: u32,
    /// How much of what.
    pub scenario: Scenario,
    /// A thinner beginning.
    pub past: Option<Past>,
}

/// What a world was before somebody came to look: the same people, of whom fewer do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its end, milliseconds since 1970-01-01 UTC. The scenario's phases count from there.
    pub until_ms: i64,
    /// Events before that, per million of what there would be otherwise.
    pub per_million: u32,
}

impl Default for TrafficSettings {
    fn default() -> Self {
        Self {
            start_at_ms: 1_767_225_600_000, // 2026-01-01T00:00:00Z
            events_per_second: 20.0,
            users: 5_000,
            titles: 1_200,
            items: 3_000,
            scenario: Scenario::default(),
            past: None,
        }
    }
}

impl TrafficSettings {
    /// How much traffic there is at a moment beside the mean of an ordinary week: 1 is as much.
    pub fn level(&self, at_ms: i64) -> f64 {
        self.level_per_million(at_ms) as f64 / 1e6
    }

    /// Events from the start up to this moment, on average.
    pub fn events_until(&self, until_ms: i64) -> f64 {
        let minutes = (self.start_at_ms..until_ms).step_by(LEVEL_EVERY_MS as usize);
        let levels = minutes.map(|at_ms| {
            let span_ms = LEVEL_EVERY_MS.min(until_ms - at_ms);
            self.level(at_ms) * span_ms as f64 / 1000.0
        });
        levels.sum::<f64>() * self.events_per_second
    }

    pub(super) fn level_per_million(&self, at_ms: i64) -> u64 {
        let phase = self.phase(at_ms);
        let level = people::world_level(at_ms).max(1) as u64 * u64::from(phase.rate_per_thousand);
        match self.past {
            Some(past) if at_ms < past.until_ms => level * u64::from(past.per_million) / 1_000_000,
            _ => level,
        }
    }

    /// Until when the level at this moment holds.
    pub(super) fn level_until(&self, at_ms: i64) -> i64 {
        let until_ms = at_ms + LEVEL_EVERY_MS;
        match self.past {
            Some(past) if at_ms < past.until_ms => until_ms.min(past.until_ms),
            _ => until_ms,
        }
    }

    pub(super) fn phase(&self, at_ms: i64) -> Phase {
        let begins_ms = self.past.map_or(self.start_at_ms, |past| past.until_ms);
        self.scenario.phase(at_ms - begins_ms)
    }
}
