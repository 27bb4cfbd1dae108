//! Stops a topic of which a group rejects most: the cause is then in the group or before it, and draining the topic into dead letters helps nobody. Pure.
//!
//! Events are counted in steps of a sixtieth of the window; time is handed in. Once passed, the limit stays passed: what goes on by itself drains the topic
//! slowly. The count is that of this process; a restart begins anew, and says "go on".

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::settings::RuntimeSettings;

/// Steps of a window.
const STEPS: u32 = 60;

/// Counts the events of one topic, and says when too many were rejected.
pub struct RejectLimit {
    share_max: f64,
    events_min: u64,
    window: Duration,
    step: Duration,
    steps: VecDeque<Step>,
    events: u64,
    rejects: u64,
    passed: bool,
}

struct Step {
    began: Instant,
    events: u64,
    rejects: u64,
}

impl RejectLimit {
    /// Nothing is counted yet.
    pub fn new(settings: &RuntimeSettings) -> Self {
        let window = Duration::from_millis(settings.dead_letter_window_ms);
        Self {
            share_max: settings.dead_letter_share_max,
            events_min: settings.dead_letter_events_min,
            window,
            step: window / STEPS,
            steps: VecDeque::new(),
            events: 0,
            rejects: 0,
            passed: false,
        }
    }

    /// Counts one event. True only for the one that passes the limit.
    pub fn count(&mut self, rejected: bool, now: Instant) -> bool {
        self.forget(now);
        let age = |step: &Step| now.saturating_duration_since(step.began);
        if self.steps.back().is_none_or(|step| age(step) >= self.step) {
            self.steps.push_back(Step {
                began: now,
                events: 0,
                rejects: 0,
            });
        }
        if let Some(step) = self.steps.back_mut() {
            step.events += 1;
            step.rejects += u64::from(rejected);
        }
        self.events += 1;
        self.rejects += u64::from(rejected);
        let passes = rejected
            && !self.passed
            && self.events >= self.events_min
            && self.rejects as f64 > self.share_max * self.events as f64;
        self.passed |= passes;
        passes
    }

    /// Why nothing more of the topic is taken; None: all is well.
    pub fn why_stopped(&self, topic: &str) -> Option<String> {
        self.passed.then(|| {
            format!(
                "{topic}: stopped, because more than {} of at least {} events within {} s were rejected; see `activity deadletters list`, then start the group again with a fix, or with another --dead-letter-share-max",
                self.share_max,
                self.events_min,
                self.window.as_secs_f64()
            )
        })
    }

    /// Whether the limit was passed.
    pub fn is_passed(&self) -> bool {
        self.passed
    }

    fn forget(&mut self, now: Instant) {
        while let Some(step) = self.steps.front()
            && now.saturating_duration_since(step.began) >= self.window
        {
            self.events -= step.events;
            self.rejects -= step.rejects;
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};
    use proptest::prelude::*;

    fn limit(share_max: f64, events_min: u64, window_ms: u64) -> RejectLimit {
        let command = RuntimeSettings::augment_args(clap::Command::new("").no_binary_name(true));
        let matches = command.get_matches_from([""; 0]);
        let mut settings = RuntimeSettings::from_arg_matches(&matches).unwrap();
        settings.dead_letter_share_max = share_max;
        settings.dead_letter_events_min = events_min;
        settings.dead_letter_window_ms = window_ms;
        RejectLimit::new(&settings)
    }

    /// (share, rejected of events) within the window before a moment.
    fn within(log: &[(u64, bool)], from_ms: u64) -> (u64, u64) {
        let recent = log.iter().filter(|(at_ms, _)| *at_ms >= from_ms);
        recent.fold((0, 0), |(events, rejects), (_, rejected)| {
            (events + 1, rejects + u64::from(*rejected))
        })
    }

    proptest! {
        /// Steps blur the window by a sixtieth: the limit judges a window that is at most so much shorter than asked for.
        #[test]
        fn the_limit_is_passed_only_where_a_window_has_enough_events_and_too_many_rejects(
            events in prop::collection::vec((0_u64..40, any::<bool>()), 1..300), events_min in 1_u64..40, share_max in 0.0..1.0,
        ) {
            let (begin, mut limit) = (Instant::now(), limit(share_max, events_min, 600));
            let (mut log, mut at_ms) = (Vec::new(), 0);
            for (pause_ms, rejected) in events {
                at_ms += pause_ms;
                log.push((at_ms, rejected));
                let passes = limit.count(rejected, begin + Duration::from_millis(at_ms));
                let is_over = |from_ms: u64| {
                    let (events, rejects) = within(&log, from_ms);
                    events >= events_min && rejects as f64 > share_max * events as f64
                };
                let candidates = (0..=10).map(|blur| (at_ms + blur).saturating_sub(599));
                if passes {
                    prop_assert!(candidates.clone().any(is_over));
                    return Ok(());
                }
                prop_assert!(!rejected || !candidates.clone().all(is_over));
            }
        }

        #[test]
        fn fewer_events_than_the_least_never_pass(rejected in prop::collection::vec(any::<bool>(), 0..50)) {
            let mut limit = limit(0.0, 50, 60_000);
            let now = Instant::now();
            prop_assert!(rejected.iter().take(49).all(|rejected| !limit.count(*rejected, now)));
        }
    }

    #[test]
    fn a_group_that_rejects_everything_passes_with_the_least_number_of_events_and_says_it_once() {
        let (mut limit, now) = (limit(0.5, 20_000, 60_000), Instant::now());
        let passed: Vec<u64> = (1..=30_000).filter(|_| limit.count(true, now)).collect();
        assert_eq!(passed, [20_000]);
        assert!(
            limit
                .why_stopped("activity.clicks")
                .unwrap()
                .contains("deadletters list")
        );
    }

    #[test]
    fn half_is_not_more_than_half_and_a_share_of_one_is_never_passed() {
        let now = Instant::now();
        let mut half = limit(0.5, 10, 60_000);
        assert!((0..1_000).all(|n| !half.count(n % 2 == 1, now)));
        let mut never = limit(1.0, 10, 60_000);
        assert!((0..1_000).all(|_| !never.count(true, now)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let (mut limit, mut now) = (limit(0.5, 100, 60_000), Instant::now());
        for _ in 0..1_000 {
            now += Duration::from_secs(1);
            assert!(!limit.count(true, now));
        }
    }
}
