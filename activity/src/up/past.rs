//! The past that a new data folder is given before its traffic goes live: so that whoever looks finds something to see.
//!
//! Published and read as any traffic is. It counts as there when every group has put all of it into ClickHouse, stage after stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activity_consumers::GROUPS;
use activity_operator::lag::{PartitionLag, Watcher};
use activity_operator::setup;
use activity_platform::kafka::{self, Inspector};
use activity_platform::settings::{KafkaSettings, Targets};
use activity_producer::{BackFill, Progress};
use activity_schemas::Content;
use indicatif::ProgressBar;
use tokio::sync::watch;

use crate::cli::UpArgs;
use crate::consume;
use crate::print::{self, count};

/// How far back, where nobody says.
const SPAN: Duration = Duration::from_secs(6 * 3600);
/// READY waits no longer than that for the groups to read it.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is to be filled in before the traffic, by what was asked for; None: nothing. A run that is to end, or to be repeated, is the same as ever.
pub fn wanted(args: &UpArgs) -> Option<BackFill> {
    let repeats_or_ends = args.events.is_some() || args.duration.is_some() || args.seed.is_some();
    let by_default = !args.no_traffic && !repeats_or_ends;
    let span = args.backfill.or(by_default.then_some(SPAN))?;
    (!span.is_zero()).then_some(BackFill {
        span,
        events: args.backfill_events,
        ends_with_it: args.no_traffic,
    })
}

/// Whether no event was ever published to the topics.
pub async fn is_new(kafka: &KafkaSettings) -> anyhow::Result<bool> {
    let kafka = kafka.clone();
    let look = move || {
        let inspector = Inspector::new(&kafka, "activity-reader")?;
        for topic in event_topics(&kafka) {
            for partition in 0..inspector.partitions(&topic)? {
                if inspector.watermarks(&topic, partition)?.next > 0 {
                    return Ok(false);
                }
            }
        }
        Ok::<_, kafka::Error>(true)
    };
    Ok(tokio::task::spawn_blocking(look).await??)
}

fn event_topics(kafka: &KafkaSettings) -> Vec<String> {
    let topics = setup::topics().into_iter();
    topics
        .filter(|topic| matches!(topic.content, Content::Events(_)))
        .map(|topic| topic.full_name(&kafka.topic_prefix))
        .collect()
}

/// The past on its way in.
pub struct Past {
    back_fill: BackFill,
    ends_at_ms: i64,
    told: watch::Receiver<Progress>,
    watcher: Arc<Mutex<Watcher>>,
    topics: Vec<String>,
    reached: Reached,
    sent: Sent,
    published: Option<u64>,
    began: Instant,
    bar: ProgressBar,
}

impl Past {
    /// Looks at a publication whose progress is told, and which is in the present from `ends_at_ms` on.
    pub async fn follow(
        back_fill: BackFill,
        ends_at_ms: i64,
        told: watch::Receiver<Progress>,
        targets: &Targets,
    ) -> anyhow::Result<Self> {
        let kafka = targets.kafka.clone();
        let watcher =
            tokio::task::spawn_blocking(move || Watcher::new(&kafka, &consume::groups(&[])))
                .await??;
        let bar = print::bar("{msg} {wide_bar} {percent:>3} %", Some(1000));
        let span = humantime::format_duration(back_fill.span);
        bar.set_message(format!("filling in the last {span}"));
        if !print::is_terminal() {
            eprintln!(
                "filling in the last {span}, about {} events",
                count(back_fill.events)
            );
        }
        Ok(Self {
            back_fill,
            ends_at_ms,
            told,
            watcher: Arc::new(Mutex::new(watcher)),
            topics: event_topics(&targets.kafka),
            reached: Reached::default(),
            sent: Sent::default(),
            published: None,
            began: Instant::now(),
            bar,
        })
    }

    /// Looks once; true: READY need not wait for it any longer.
    pub async fn look(&mut self) -> bool {
        let watcher = self.watcher.clone();
        let gather = move || {
            let watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
            watcher.gather()
        };
        if let Ok(Ok(lags)) = tokio::task::spawn_blocking(gather).await {
            let told = self.told.borrow().clone();
            let published = self.share_published(&told);
            if self.published.is_none() && published >= 1.0 {
                self.published = self.sent.acknowledged(&told);
            }
            let read = share_read(&lags, &self.topics);
            self.bar.set_position((1000.0 * published * read) as u64);
            if self.published.is_some() {
                self.reached.look(&lags);
            }
        }
        self.reached.is_whole() || self.began.elapsed() > WAIT_MAX
    }

    /// The publication ended: no more is to come.
    pub fn no_more(&mut self, acknowledged: u64) {
        self.published = Some(acknowledged);
    }

    fn share_published(&self, told: &Progress) -> f64 {
        let span_ms = self.back_fill.span.as_millis().max(1) as f64;
        let left_ms = |at_ms: i64| (self.ends_at_ms - at_ms).max(0) as f64;
        told.received_at_ms
            .map_or(0.0, |at_ms| 1.0 - left_ms(at_ms) / span_ms)
    }

    /// What is there, for the READY line.
    pub fn end(self) -> String {
        self.bar.finish_and_clear();
        let span = humantime::format_duration(self.back_fill.span);
        match self.published {
            Some(events) if self.reached.is_whole() => format!(
                "the last {span} are filled in ({} events in {:.1} s)",
                count(events),
                self.began.elapsed().as_secs_f64()
            ),
            _ => format!("the last {span} are still being filled in"),
        }
    }
}

/// How much of its events the slowest group has read, from 0 to 1.
fn share_read(lags: &[PartitionLag], topics: &[String]) -> f64 {
    let mut groups: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for lag in lags.iter().filter(|lag| topics.contains(&lag.topic)) {
        let (read, all) = groups.entry(&lag.group).or_default();
        *read += lag.end - lag.lag - lag.first;
        *all += lag.end - lag.first;
    }
    let share = |(read, all): &(i64, i64)| *read as f64 / (*all).max(1) as f64;
    groups.values().map(share).fold(1.0, f64::min)
}

/// Knows when the brokers have all that had been sent by the end of the past. What the present goes on to send meanwhile is always in part on its way.
#[derive(Default)]
struct Sent(Option<u64>);

impl Sent {
    /// How many events the past has, once all of them are acknowledged; asked from its end on.
    fn acknowledged(&mut self, told: &Progress) -> Option<u64> {
        let sent = *self.0.get_or_insert(told.sent);
        (told.acknowledged >= sent).then_some(sent)
    }
}

/// Knows when all that was in the log at a moment is in ClickHouse. What a stage derives is in the log only after its events are: so the logs' ends are looked at
/// anew when they have been reached, once for each stage.
#[derive(Default)]
struct Reached {
    ends: Vec<i64>,
    rounds: usize,
}

impl Reached {
    fn look(&mut self, lags: &[PartitionLag]) {
        let is_past = |(lag, end): (&PartitionLag, &i64)| {
            *end == 0 || lag.committed.is_some_and(|at| at >= *end)
        };
        if self.ends.len() != lags.len() {
            self.ends = lags.iter().map(|lag| lag.end).collect();
        } else if !self.is_whole() && lags.iter().zip(&self.ends).all(is_past) {
            self.rounds += 1;
            self.ends = lags.iter().map(|lag| lag.end).collect();
        }
    }

    fn is_whole(&self) -> bool {
        self.rounds >= stages()
    }
}

/// Stages of the longest chain of the groups.
fn stages() -> usize {
    let derived = |topic: &&activity_schemas::Topic| topic.content == Content::Derived;
    let stages = GROUPS
        .iter()
        .map(|group| 1 + group.reads.iter().filter(derived).count());
    stages.max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn of(arguments: &str) -> Option<BackFill> {
        let words = ["activity", "up"].into_iter();
        match Cli::parse_from(words.chain(arguments.split_whitespace())).verb {
            Verb::Up(args) => wanted(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_past_is_filled_in_unless_the_run_is_to_end_or_to_be_repeated() {
        assert_eq!(of("").map(|past| past.span), Some(SPAN));
        assert_eq!(of("--rate 50").map(|past| past.ends_with_it), Some(false));
        for none in [
            "--backfill 0",
            "--events 5",
            "--for 1m",
            "--seed 1",
            "--no-traffic",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn whoever_asks_for_a_past_gets_it() {
        let past = of("--no-traffic --backfill 1h --backfill-events 9").unwrap();
        let expected = BackFill {
            span: Duration::from_secs(3600),
            events: 9,
            ends_with_it: true,
        };
        assert_eq!(past, expected);
        assert!(of("--seed 1 --backfill 30m").is_some());
    }

    fn lag(topic: &str, committed: Option<i64>, end: i64) -> PartitionLag {
        PartitionLag {
            group: "a".to_owned(),
            topic: topic.to_owned(),
            partition: 0,
            first: 0,
            committed,
            claimed: committed,
            end,
            lag: end - committed.unwrap_or(0),
        }
    }

    #[test]
    fn all_is_there_when_the_ends_were_reached_once_for_each_stage() {
        let mut reached = Reached::default();
        let at = |committed, end| [lag("clicks", committed, end), lag("none", None, 0)];
        reached.look(&at(None, 10));
        reached.look(&at(Some(9), 15));
        assert_eq!(reached.rounds, 0);
        for round in 1..=stages() {
            let end = 10 + 10 * round as i64;
            reached.look(&at(Some(end), end + 10));
            assert_eq!(reached.rounds, round);
        }
        assert!(reached.is_whole());
    }

    #[test]
    fn the_past_is_published_although_something_of_the_present_is_always_on_its_way() {
        let told = |sent, acknowledged| Progress {
            sent,
            acknowledged,
            ..Progress::default()
        };
        let mut sent = Sent::default();
        assert_eq!(sent.acknowledged(&told(1_000, 990)), None);
        assert_eq!(sent.acknowledged(&told(1_020, 999)), None);
        assert_eq!(sent.acknowledged(&told(1_040, 1_035)), Some(1_000));
    }

    #[test]
    fn the_slowest_group_tells_how_far_it_is() {
        let mut other = lag("clicks", Some(10), 10);
        other.group = "b".to_owned();
        let lags = [lag("clicks", Some(5), 10), lag("else", None, 90), other];
        assert_eq!(share_read(&lags, &["clicks".to_owned()]), 0.5);
    }
}
