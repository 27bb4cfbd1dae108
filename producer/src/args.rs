//! The two verbs of `activity produce`, as the command line takes them, and what they ask for.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;

use crate::{
    pace::Pace,
    publish::{MalformedShare, Run},
    replay,
    traffic::{
        Past, Traffic, TrafficSettings,
        scenario::{self, Scenario},
    },
};

/// So many users live in the model for each event per second: then a user acts as often as people do.
const USERS_PER_EVENT_PER_SECOND: f64 = 250.0;
const USERS_MIN: u32 = 5_000;
/// More than that would cost memory for little: from 800 events per second on, users just act more often.
const USERS_MAX: u32 = 200_000;
/// Warped traffic that is to end nowhere begins so long ago.
const WARP_BEGINS_AGO_MS: i64 = 7 * 24 * 3_600_000;
/// Publish simulated clicks and watches: users with tastes, sessions that make sense, attackers and their innocent look-alikes among them.
#[derive(Args, Clone, Debug, Default)]
pub struct SimulateArgs {
    /// End after so many events. Default: go on until Ctrl-C
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// End after so long: 90s, 15m, 1h 30m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Events per second on the wall clock. Without --seed it is the rate at the start and then follows people's days and the scenario's phases.
    /// Default: as fast as Kafka takes them
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Same seed (and --users, --start-at, --scenario), same events: key, headers and value, whatever the --rate.
    /// Default: a new one each time; it is logged
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many users there are. Default: 5000, or 250 for each event per second of live traffic up to 200000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub users: Option<u32>,
    /// When the simulated time begins: 2026-01-31T12:00:00Z, or `now`.
    /// Default: 2026-01-01T00:00:00Z with --seed; `now` without, where --events at no --rate end now
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<StartAt>,
    /// Publish only what is received from this moment of simulated time on: a piece out of the middle, the same as in the whole
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<i64>,
    /// What kind of traffic; none: the ordinary one.
    #[arg(long, value_name = "NAME|FILE", value_parser = Scenario::named, help = scenario_help())]
    pub scenario: Option<Scenario>,
    /// So many seconds of simulated time in each second: 1000 runs a week in ten minutes, at 1000 times the events of one --users.
    /// Default of --start-at is then so that it ends now (with --for), or a week ago
    #[arg(long, value_name = "FACTOR", value_parser = positive, conflicts_with = "rate")]
    pub warp: Option<f64>,
    /// Publish nothing: tell how good a recommender could be at best on these events (recall@20 of one that knows every taste), and how good popularity is
    #[arg(long, conflicts_with_all = ["rate", "warp", "duration", "malformed_share"])]
    pub oracle: bool,
    /// Send so many malformed messages for each good one (0.1: 10 for 100), beside --events: wrong magic, unknown schema id, truncated, trailing
    /// bytes, random bytes
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub malformed_share: f64,
    /// So many of the events arrive a second time, with the same id. Default: as the scenario says
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub duplicate_share: Option<f64>,
}

/// Publish recorded events: NDJSON (one event a line) or CSV (a header row names the fields; known by the file's name), plain or gzipped.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording: NDJSON, one event a line, or CSV (.csv, .csv.gz), whose header row names the fields; plain or gzipped
    pub file: PathBuf,
    /// A shipped mapping's name or the path of a mapping file (.toml).
    /// Default: the shipped one that is named after the recording (otto_clicks.ndjson.gz: otto_clicks)
    #[arg(long, value_name = "NAME|FILE")]
    pub mapping: Option<String>,
    /// `max`: as fast as Kafka takes it; `original`: with the gaps between the recorded times; a number: so many times faster than recorded.
    /// A gap of years stays a gap: progress says how long until the next event
    #[arg(long, default_value = "max", value_name = "max|original|FACTOR")]
    pub speed: Speed,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// Move the recording in time: its first event is received at this moment (2026-01-31T12:00:00Z, or `now`), all others keep their distance from it
    #[arg(long, value_name = "TIME")]
    pub shift_to: Option<StartAt>,
    /// From its end begin anew, until --events or Ctrl-C: each round follows the one before in time, with event ids of its own, the same each time
    #[arg(long = "loop")]
    pub repeats: bool,
    /// Exit with 0 even if some lines are no events. They are skipped, counted and (the first 20) logged in any case
    #[arg(long)]
    pub skip_bad_lines: bool,
}

/// Where simulated time begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the wall clock.
    Now,
    /// At this moment, milliseconds since 1970.
    At(i64),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(StartAt::Now);
        }
        moment(text)
            .map(StartAt::At)
            .map_err(|_| "neither `now` nor a time like 2026-01-31T12:00:00Z".to_owned())
    }
}

/// Milliseconds since 1970.
fn moment(text: &str) -> Result<i64, String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => Ok(moment.as_millisecond()),
        Err(_) => Err("no time like 2026-01-31T12:00:00Z".to_owned()),
    }
}

/// What `--scenario` takes, with the shipped ones and what each is about.
pub fn scenario_help() -> String {
    let shipped: Vec<String> = scenario::shipped_names()
        .map(|name| match Scenario::named(name) {
            Ok(scenario) => format!("- {name}: {}", scenario.about),
            Err(error) => format!("- {name}: {error}"),
        })
        .collect();
    format!(
        "What kind of traffic: a shipped scenario's name, or the path of a scenario file (.toml) [default: {}]\n{}",
        scenario::ORDINARY,
        shipped.join("\n")
    )
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as Kafka takes it.
    Max,
    /// So many times the original pace.
    Factor(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Speed::Max),
            "original" => Ok(Speed::Factor(1.0)),
            _ => positive(text)
                .map(Speed::Factor)
                .map_err(|_| "neither `max` nor `original` nor a number above zero".to_owned()),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("must be above zero".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err("must be between 0 and 1".to_owned())
    }
}

/// A simulation, settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// The seed.
    pub seed: u64,
    /// The world.
    pub traffic: TrafficSettings,
    /// What is received before is not published, milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// How it is published.
    pub run: Run,
}

impl Simulation {
    /// The traffic itself.
    pub fn world(&self) -> Traffic {
        let mut traffic = Traffic::new(self.seed, self.traffic.clone());
        if let Some(from_ms) = self.from_ms {
            traffic.skip_until(from_ms);
        }
        traffic
    }
}

impl SimulateArgs {
    /// What these arguments ask for at this moment. With a seed the moment does not matter, unless simulated time begins `now`.
    pub fn settle(&self, now_ms: i64) -> Simulation {
        let mut traffic = TrafficSettings {
            scenario: self.scenario.clone().unwrap_or_default(),
            ..TrafficSettings::default()
        };
        if let Some(share) = self.duplicate_share {
            traffic.scenario.duplicates_per_million = (share * 1e6).round() as u32;
        }
        let follows_clock = match self.start_at {
            Some(start_at) => start_at == StartAt::Now,
            None => self.seed.is_none(),
        };
        // Live: simulated time is the wall clock's. Otherwise the rate must not change what happens, only when it is sent.
        let live_rate = self.rate.filter(|_| follows_clock);
        traffic.users = self.users.unwrap_or_else(|| match live_rate {
            Some(rate) => ((rate * USERS_PER_EVENT_PER_SECOND) as u32).clamp(USERS_MIN, USERS_MAX),
            None => USERS_MIN,
        });
        traffic.events_per_second = f64::from(traffic.users) / USERS_PER_EVENT_PER_SECOND;
        traffic.start_at_ms = self.settle_start(&traffic, follows_clock, now_ms);
        if let Some(rate) = live_rate {
            traffic.events_per_second = rate / traffic.level(traffic.start_at_ms);
        }
        let seed = self.seed.unwrap_or(now_ms as u64);
        Simulation {
            seed,
            traffic,
            from_ms: self.from,
            run: Run {
                pace: match (self.rate, live_rate, self.warp) {
                    (_, _, Some(warp)) => Pace::AsReceived(warp),
                    (None, ..) => Pace::FlatOut,
                    (Some(_), Some(_), _) => Pace::AsReceived(1.0),
                    (Some(rate), None, _) => Pace::PerSecond(rate),
                },
                events_max: self.events,
                duration_max: self.duration,
                received_before_ms: None,
                malformed: (self.malformed_share > 0.0).then(|| MalformedShare {
                    seed,
                    per_million: (self.malformed_share * 1e6).round() as u32,
                }),
                unmappable_allowed: false,
            },
        }
    }
}

/// The past of live traffic: published at once, before it goes on by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackFill {
    /// How long ago it begins.
    pub span: Duration,
    /// So many events, about; fewer where the live rate would not give so many.
    pub events: u64,
    /// Nothing after it.
    pub ends_with_it: bool,
}

impl SimulateArgs {
    /// Live traffic at `rate` events per second that was there before: the same world, begun [`BackFill::span`] ago, thinner until now.
    pub fn settle_with_past(&self, back_fill: BackFill, rate: f64, now_ms: i64) -> Simulation {
        let live = Self {
            start_at: Some(StartAt::Now),
            rate: Some(rate),
            ..self.clone()
        };
        let mut simulation = live.settle(now_ms);
        let traffic = &mut simulation.traffic;
        let span_ms = i64::try_from(back_fill.span.as_millis()).unwrap_or(i64::MAX);
        traffic.start_at_ms = now_ms.saturating_sub(span_ms).max(0);
        let past = |per_million| Past {
            until_ms: now_ms,
            per_million,
        };
        traffic.past = Some(past(1_000_000));
        let share = back_fill.events as f64 / traffic.events_until(now_ms).max(1.0);
        traffic.past = Some(past((share * 1e6).clamp(1.0, 1e6) as u32));
        simulation.run.pace = Pace::OnTime {
            started_at_ms: now_ms,
        };
        simulation.run.received_before_ms = back_fill.ends_with_it.then_some(now_ms);
        simulation
    }

    fn settle_start(&self, traffic: &TrafficSettings, follows_clock: bool, now_ms: i64) -> i64 {
        match (self.start_at, self.warp, self.duration) {
            (Some(StartAt::At(at_ms)), ..) => at_ms,
            (Some(StartAt::Now), ..) => now_ms,
            _ if !follows_clock => traffic.start_at_ms,
            (_, Some(warp), Some(duration)) => {
                now_ms - (duration.as_secs_f64() * 1e3 * warp) as i64
            }
            (_, Some(_), None) => now_ms - WARP_BEGINS_AGO_MS,
            // Flat out, so many events are a history: it ends now.
            _ => match (self.events, self.rate) {
                (Some(events), None) => history_start(traffic, events, now_ms),
                _ => now_ms,
            },
        }
    }
}

/// When a world has to begin for so many events to be over at this moment.
fn history_start(traffic: &TrafficSettings, events: u64, now_ms: i64) -> i64 {
    let mut traffic = traffic.clone();
    let mut span_ms = events as f64 * 1000.0 / traffic.events_per_second;
    // More events in the span found so far: a shorter one. It soon settles, as levels change slowly.
    for _ in 0..6 {
        traffic.start_at_ms = now_ms - span_ms as i64;
        span_ms *= events as f64 / traffic.events_until(now_ms).max(1.0);
    }
    now_ms - span_ms as i64
}

impl ReplayArgs {
    /// What becomes of the recording at this moment.
    pub fn options(&self, now_ms: i64) -> replay::Options {
        replay::Options {
            shift_to_ms: self.shift_to.map(|to| match to {
                StartAt::Now => now_ms,
                StartAt::At(at_ms) => at_ms,
            }),
            repeats: self.repeats,
        }
    }

    /// How the recording is published.
    pub fn settle(&self) -> Run {
        Run {
            pace: match self.speed {
                Speed::Max => Pace::FlatOut,
                Speed::Factor(factor) => Pace::AsReceived(factor),
            },
            events_max: self.events,
            unmappable_allowed: self.skip_bad_lines,
            ..Run::EVERYTHING
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Simulate {
        #[command(flatten)]
        args: SimulateArgs,
    }

    const NOW_MS: i64 = 1_800_000_000_000;

    fn settle(arguments: &str, now_ms: i64) -> Simulation {
        let arguments = std::iter::once("simulate").chain(arguments.split_whitespace());
        Simulate::parse_from(arguments).args.settle(now_ms)
    }

    #[test]
    fn a_seed_settles_the_world_whatever_the_moment_and_the_rate() {
        let simulation = settle("--seed 7", NOW_MS);
        let other = settle("--seed 7 --rate 500 --for 1m", NOW_MS + 99);
        assert_eq!(
            (simulation.seed, &simulation.traffic),
            (other.seed, &other.traffic)
        );
        assert_eq!(simulation.run.pace, Pace::FlatOut);
        assert_eq!(other.run.pace, Pace::PerSecond(500.0));
    }

    #[test]
    fn without_a_seed_a_rate_means_live_traffic() {
        let simulation = settle("--rate 400", NOW_MS);
        assert_eq!(simulation.run.pace, Pace::AsReceived(1.0));
        assert_eq!(simulation.traffic.start_at_ms, NOW_MS);
        let at_start = simulation.traffic.events_per_second * simulation.traffic.level(NOW_MS);
        assert!((at_start - 400.0).abs() < 1e-6);
        assert_eq!(simulation.traffic.users, 100_000);
    }

    #[test]
    fn without_a_seed_a_number_of_events_is_a_history_that_ends_now() {
        let simulation = settle("--events 20000", NOW_MS);
        let events = simulation.traffic.events_until(NOW_MS);
        assert!((events - 20_000.0).abs() < 100.0, "{events}");
    }

    #[test]
    fn a_warped_run_ends_now_and_keeps_its_events_whatever_the_warp() {
        let simulation = settle("--warp 1000 --for 10m", NOW_MS);
        assert_eq!(simulation.traffic.start_at_ms, NOW_MS - 600_000_000);
        assert_eq!(simulation.run.pace, Pace::AsReceived(1000.0));
        let seeded = settle("--seed 7 --warp 60", NOW_MS);
        assert_eq!(seeded.traffic, settle("--seed 7", NOW_MS).traffic);
    }

    #[test]
    fn a_scenario_is_taken_by_its_name() {
        let simulation = settle("--scenario black-friday", NOW_MS);
        let expected = Scenario::named("black-friday").unwrap();
        assert_eq!(simulation.traffic.scenario, expected);
        let simulation = settle("--duplicate-share 0.25", NOW_MS);
        assert_eq!(simulation.traffic.scenario.duplicates_per_million, 250_000);
    }

    #[test]
    fn the_help_lists_the_shipped_scenarios() {
        let help = <Simulate as clap::CommandFactory>::command().render_help();
        let help = help.to_string();
        assert!(scenario::shipped_names().count() >= 5);
        for name in scenario::shipped_names() {
            assert!(help.contains(name), "{name}");
        }
    }

    #[test]
    fn a_past_has_about_as_many_events_as_asked_for_and_live_traffic_its_own_rate() {
        let back_fill = BackFill {
            span: Duration::from_secs(6 * 3600),
            events: 30_000,
            ends_with_it: false,
        };
        let simulation = SimulateArgs::default().settle_with_past(back_fill, 500.0, NOW_MS);
        let traffic = &simulation.traffic;
        assert_eq!(traffic.start_at_ms, NOW_MS - 6 * 3_600_000);
        let expected = traffic.events_until(NOW_MS);
        assert!((expected - 30_000.0).abs() < 300.0, "{expected}");
        let live = traffic.events_per_second * traffic.level(NOW_MS);
        assert!((live - 500.0).abs() < 1e-6, "{live}");

        let mut world = simulation.world();
        let mut count_until = |until_ms: i64| {
            let events =
                std::iter::repeat_with(|| crate::source::received_at(&world.next_event().event));
            events
                .take_while(|received_ms| *received_ms < until_ms)
                .count()
        };
        let past = count_until(NOW_MS);
        assert!((29_000..31_000).contains(&past), "{past}");
        // Those who come now stay for some minutes: so long the rate rises.
        let rising = count_until(NOW_MS + 600_000);
        assert!((150_000..300_000).contains(&rising), "{rising}");
        let live = count_until(NOW_MS + 620_000);
        assert!((8_500..11_500).contains(&live), "{live}");
    }

    #[test]
    fn two_runs_without_a_seed_have_different_ones() {
        assert_ne!(settle("", NOW_MS).seed, settle("", NOW_MS + 1).seed);
    }

    #[test]
    fn a_share_of_malformed_messages_is_kept_to_the_message() {
        let simulation = settle("--malformed-share 0.1", NOW_MS);
        assert_eq!(simulation.run.malformed.unwrap().per_million, 100_000);
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            "--rate 0",
            "--rate nan",
            "--malformed-share 2",
            "--start-at noon",
            "--from noon",
            "--scenario holiday",
            "--warp 0",
            "--warp 10 --rate 5",
            "--for 3",
            "--users 0",
        ] {
            let arguments = std::iter::once("simulate").chain(wrong.split_whitespace());
            assert!(Simulate::try_parse_from(arguments).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "fast", "inf"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
