//! One viewing of one title: start, heartbeats, pauses, jumps, waiting for data, and an end.
//!
//! Positions follow the clock: between two events the position moves by the time that passed, less the time spent waiting for data. How far the
//! user will watch is settled when the playback begins; who waits too long for data gives up earlier.

use activity_schemas::WatchAction;

use super::{
    people::Network,
    random::{Random, mix},
};

/// Clients report a dozen times per title, but not more often than this.
const BEAT_MS_MIN: i64 = 20_000;
const BEATS: i64 = 12;
/// An end that is this close has been reached.
const NEAR_MS: i64 = 1_000;

/// A wait at the start, and one in between, after which some give up; of a thousand, so many.
const STARTUP_MS_BORNE: i64 = 6_000;
const STALL_MS_BORNE: i64 = 8_000;
const GIVE_UP_PER_THOUSAND: u32 = 250;

/// How well data comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Median of the wait at the start.
    startup_ms: i64,
    /// Of a thousand reports, how many tell of a wait for data.
    stalls_per_thousand: u32,
    stall_ms: i64,
}

impl Quality {
    /// On such a network in this country at this moment. About one hour in fifty is bad for a whole country.
    pub(crate) fn of(network: Network, country: &str, at_ms: i64) -> Self {
        let country = country
            .bytes()
            .fold(0, |bits, byte| (bits << 8) | u64::from(byte));
        let hour = at_ms.div_euclid(3_600_000) as u64;
        let is_bad = mix((country << 40) ^ hour).is_multiple_of(50);
        let (startup_ms, stalls_per_thousand, stall_ms) = match network {
            Network::Home => (450, 20, 1_200),
            Network::Office => (600, 25, 1_200),
            Network::Mobile => (1_100, 70, 2_500),
        };
        let worse = if is_bad { 5 } else { 1 };
        Self {
            startup_ms: startup_ms * worse,
            stalls_per_thousand: stalls_per_thousand * worse as u32,
            stall_ms: stall_ms * worse.min(3),
        }
    }
}

/// A playback under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Playback {
    pub(crate) title: u32,
    duration_ms: i64,
    /// Where the user stops watching: the duration, if the title is seen to its end.
    goal_ms: i64,
    position_ms: i64,
    state: State,
    quality: Quality,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begins,
    Plays,
    Paused,
    Over,
}

/// What a playback reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) title: u32,
    pub(crate) action: WatchAction,
    pub(crate) position_ms: i64,
    pub(crate) duration_ms: i64,
    pub(crate) rebuffer_ms: i64,
}

impl Playback {
    pub(crate) fn new(
        title: u32,
        duration_ms: i64,
        completes_per_thousand: u32,
        quality: Quality,
        random: &mut Random,
    ) -> Self {
        let goal_ms = if random.chance(completes_per_thousand) {
            duration_ms
        } else {
            random.skewed(NEAR_MS, duration_ms * 9 / 10)
        };
        Self {
            title,
            duration_ms,
            goal_ms,
            position_ms: 0,
            state: State::Begins,
            quality,
        }
    }

    /// What is reported `elapsed_ms` after the previous event, and how long until the next report (none: it is over).
    pub(crate) fn step(&mut self, elapsed_ms: i64, random: &mut Random) -> (Report, Option<i64>) {
        let (action, rebuffer_ms) = match self.state {
            State::Begins => {
                self.state = State::Plays;
                let waited_ms = random.log_normal(self.quality.startup_ms, 14);
                if waited_ms > STARTUP_MS_BORNE && random.chance(GIVE_UP_PER_THOUSAND) {
                    self.goal_ms = self.goal_ms.min(random.skewed(NEAR_MS, 30_000));
                }
                (WatchAction::Start, waited_ms)
            }
            State::Paused => {
                self.state = State::Plays;
                (WatchAction::Resume, 0)
            }
            State::Plays | State::Over => self.play_on(elapsed_ms, random),
        };
        let report = Report {
            title: self.title,
            action,
            position_ms: self.position_ms,
            duration_ms: self.duration_ms,
            rebuffer_ms,
        };
        (report, self.next_in_ms(random))
    }

    fn play_on(&mut self, elapsed_ms: i64, random: &mut Random) -> (WatchAction, i64) {
        let rebuffer_ms = if random.chance(self.quality.stalls_per_thousand) {
            let waited_ms = random.log_normal(self.quality.stall_ms, 16);
            waited_ms.min(elapsed_ms / 2)
        } else {
            0
        };
        self.position_ms = (self.position_ms + elapsed_ms - rebuffer_ms).min(self.goal_ms);
        if rebuffer_ms > STALL_MS_BORNE && random.chance(GIVE_UP_PER_THOUSAND) {
            self.goal_ms = self.position_ms;
        }
        if self.position_ms + NEAR_MS >= self.goal_ms {
            self.state = State::Over;
            self.position_ms = self.goal_ms;
            let action = if self.goal_ms == self.duration_ms {
                WatchAction::Complete
            } else {
                WatchAction::Stop
            };
            return (action, rebuffer_ms);
        }
        let action = match random.below(1000) {
            0..50 => {
                self.state = State::Paused;
                WatchAction::Pause
            }
            50..85 => {
                let back_ms = self.position_ms.min(30_000);
                let ahead_ms = (self.goal_ms - self.position_ms - NEAR_MS).min(120_000);
                self.position_ms += random.between(-back_ms, ahead_ms.max(1));
                WatchAction::Seek
            }
            _ => WatchAction::Heartbeat,
        };
        (action, rebuffer_ms)
    }

    fn next_in_ms(&self, random: &mut Random) -> Option<i64> {
        match self.state {
            State::Over => None,
            State::Paused => Some(random.skewed(3_000, 600_000)),
            State::Begins | State::Plays => {
                let beat_ms = (self.duration_ms / BEATS).max(BEAT_MS_MIN);
                Some((self.goal_ms - self.position_ms).clamp(1, beat_ms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, completes_per_thousand: u32) -> Vec<Report> {
        let mut random = Random::new(seed, 0);
        let quality = Quality::of(Network::Home, "SE", 0);
        let mut playback = Playback::new(1, 600_000, completes_per_thousand, quality, &mut random);
        let (mut reports, mut elapsed_ms) = (Vec::new(), 0);
        loop {
            let (report, next) = playback.step(elapsed_ms, &mut random);
            reports.push(report);
            match next {
                Some(gap_ms) => elapsed_ms = gap_ms,
                None => return reports,
            }
        }
    }

    #[test]
    fn a_playback_starts_once_and_ends_once() {
        for seed in 0..500 {
            let reports = run(seed, 500);
            let ends = |report: &Report| {
                matches!(report.action, WatchAction::Complete | WatchAction::Stop)
            };
            assert_eq!(reports[0].action, WatchAction::Start);
            assert!(reports[1..].iter().all(|r| r.action != WatchAction::Start));
            assert_eq!(reports.iter().filter(|report| ends(report)).count(), 1);
            assert!(ends(&reports[reports.len() - 1]));
        }
    }

    #[test]
    fn mobile_networks_wait_longer_and_bad_hours_are_few_and_felt() {
        let startups = |network| -> Vec<i64> {
            let hours = (0..2_000).map(|hour| Quality::of(network, "DE", hour * 3_600_000));
            hours.map(|quality| quality.startup_ms).collect()
        };
        let (home, mobile) = (startups(Network::Home), startups(Network::Mobile));
        assert!(home.iter().zip(&mobile).all(|(home, mobile)| home < mobile));
        let bad = home
            .iter()
            .filter(|startup_ms| **startup_ms > 1_000)
            .count();
        assert!((20..70).contains(&bad), "{bad}");
    }

    #[test]
    fn positions_lie_within_the_title_and_go_back_only_in_jumps() {
        for seed in 0..500 {
            let mut before = 0;
            for report in run(seed, 700) {
                assert!((0..=report.duration_ms).contains(&report.position_ms));
                assert!(report.position_ms >= before || report.action == WatchAction::Seek);
                before = report.position_ms;
            }
        }
    }

    #[test]
    fn a_title_seen_to_its_end_completes_at_its_duration() {
        let reports = run(1, 1000);
        let last = reports[reports.len() - 1];
        assert_eq!(
            (last.action, last.position_ms),
            (WatchAction::Complete, 600_000)
        );
    }

    #[test]
    fn a_paused_playback_goes_on_where_it_was() {
        let pairs: Vec<[Report; 2]> = (0..200)
            .flat_map(|seed| {
                run(seed, 900)
                    .windows(2)
                    .map(|pair| [pair[0], pair[1]])
                    .collect::<Vec<_>>()
            })
            .filter(|pair| pair[0].action == WatchAction::Pause)
            .collect();
        assert!(!pairs.is_empty());
        for [pause, next] in pairs {
            assert_eq!(next.action, WatchAction::Resume);
            assert_eq!(pause.position_ms, next.position_ms);
        }
    }
}
