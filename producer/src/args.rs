//! The two verbs of `activity produce`, as the command line takes them, and what they ask for.

use std::{path::PathBuf, str::FromStr, time::Duration};

use activity_platform::settings::{KafkaSettings, RegistrySettings};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    pace::Pace,
    publish::{MalformedShare, Progress, PublishError, Published, Publisher, Run, publish},
    replay::{self, mapping::mapping_for},
    traffic::{Traffic, TrafficSettings},
};

/// So many users live in the model for each event per second: then a user acts as often as people do.
const USERS_PER_EVENT_PER_SECOND: f64 = 250.0;
const USERS_MIN: u32 = 5_000;
/// More than that would cost memory for little: from 800 events per second on, users just act more often.
const USERS_MAX: u32 = 200_000;

/// Publish simulated clicks and watches: users with tastes, sessions that make sense, a few scripts among them.
#[derive(Args, Clone, Debug, Default)]
pub struct SimulateArgs {
    /// End after so many events. Default: go on until Ctrl-C
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// End after so long: 90s, 15m, 1h 30m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Events per second on the wall clock. Default: as fast as Kafka takes them
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Same seed (and --users, --start-at), same events: key, headers and value, whatever the --rate.
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
    /// Send so many malformed messages for each good one (0.1: 10 for 100), beside --events: wrong magic, unknown schema id, truncated, trailing
    /// bytes, random bytes
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub malformed_share: f64,
}

/// Publish recorded events: NDJSON, plain or gzipped, one event a line.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording
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
        match text.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(StartAt::At(moment.as_millisecond())),
            Err(_) => Err("neither `now` nor a time like 2026-01-31T12:00:00Z".to_owned()),
        }
    }
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
    /// How it is published.
    pub run: Run,
}

impl SimulateArgs {
    /// What these arguments ask for at this moment. With a seed the moment does not matter, unless simulated time begins `now`.
    pub fn settle(&self, now_ms: i64) -> Simulation {
        let defaults = TrafficSettings::default();
        let follows_clock = match self.start_at {
            Some(start_at) => start_at == StartAt::Now,
            None => self.seed.is_none(),
        };
        // Live: simulated time is the wall clock's. Otherwise the rate must not change what happens, only when it is sent.
        let live_rate = self.rate.filter(|_| follows_clock);
        let users = self.users.unwrap_or_else(|| match live_rate {
            Some(rate) => ((rate * USERS_PER_EVENT_PER_SECOND) as u32).clamp(USERS_MIN, USERS_MAX),
            None => USERS_MIN,
        });
        let events_per_second = live_rate.unwrap_or(f64::from(users) / USERS_PER_EVENT_PER_SECOND);
        let start_at_ms = match self.start_at {
            Some(StartAt::At(at_ms)) => at_ms,
            Some(StartAt::Now) => now_ms,
            None if !follows_clock => defaults.start_at_ms,
            // Flat out, so many events are a history: it ends now.
            None => match (self.events, live_rate) {
                (Some(events), None) => {
                    now_ms - (events as f64 * 1000.0 / events_per_second) as i64
                }
                _ => now_ms,
            },
        };
        let seed = self.seed.unwrap_or(now_ms as u64);
        Simulation {
            seed,
            traffic: TrafficSettings {
                start_at_ms,
                events_per_second,
                users,
                ..defaults
            },
            run: Run {
                pace: match (self.rate, live_rate) {
                    (None, _) => Pace::FlatOut,
                    (Some(_), Some(_)) => Pace::AsReceived(1.0),
                    (Some(rate), None) => Pace::PerSecond(rate),
                },
                events_max: self.events,
                duration_max: self.duration,
                malformed: (self.malformed_share > 0.0).then(|| MalformedShare {
                    seed,
                    per_million: (self.malformed_share * 1e6).round() as u32,
                }),
                unmappable_allowed: false,
            },
        }
    }
}

impl ReplayArgs {
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

/// `activity produce simulate`.
///
/// # Errors
/// If it could not begin; how it went is told by [`Published`].
pub async fn simulate(
    args: &SimulateArgs,
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    let simulation = args.settle(jiff::Timestamp::now().as_millisecond());
    tracing::info!(
        seed = simulation.seed,
        users = simulation.traffic.users,
        start_at_ms = simulation.traffic.start_at_ms,
        "simulating"
    );
    let publisher = Publisher::connect(kafka, registry).await?;
    let traffic = Traffic::new(simulation.seed, simulation.traffic);
    publish(publisher, traffic, simulation.run, stop, progress).await
}

/// `activity produce replay`.
///
/// # Errors
/// If it could not begin; how it went is told by [`Published`].
pub async fn replay(
    args: &ReplayArgs,
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    let mapping = mapping_for(&args.file, args.mapping.as_deref())?;
    let recording = replay::open(&args.file, mapping).map_err(|cause| PublishError::Recording {
        path: args.file.display().to_string(),
        cause,
    })?;
    let publisher = Publisher::connect(kafka, registry).await?;
    publish(publisher, recording, args.settle(), stop, progress).await
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
        assert_eq!(simulation.traffic.events_per_second, 400.0);
        assert_eq!(simulation.traffic.users, 100_000);
    }

    #[test]
    fn without_a_seed_a_number_of_events_is_a_history_that_ends_now() {
        let simulation = settle("--events 20000", NOW_MS);
        assert_eq!(simulation.traffic.start_at_ms, NOW_MS - 1_000_000);
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
