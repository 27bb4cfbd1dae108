//! The live view: what comes in, and how each group keeps up. A table that stays in place for a person, a line now and then for a log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activity_operator::lag::{PartitionLag, Watcher};
use activity_operator::setup;
use activity_platform::clickhouse::Database;
use activity_platform::settings::Targets;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;

use crate::consume;
use crate::print::{self, count};

/// How often the table is drawn anew.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);
/// How often a line is written where nobody looks.
const LINE_INTERVAL: Duration = Duration::from_secs(15);
/// Seconds that rates of rows are taken over.
const RATE_SECONDS: u64 = 5;

/// What a group did lately, by its ledger.
#[derive(Deserialize)]
struct Recent {
    consumer_group: String,
    rows: u64,
    freshness_ms: f64,
}

/// The view.
pub struct Live {
    watcher: Arc<Mutex<Watcher>>,
    database: Database,
    sources: Vec<String>,
    bar: Option<ProgressBar>,
    drawn: Instant,
    seen: Option<(Instant, i64)>,
}

impl Live {
    /// Connects to what is looked at.
    pub async fn start(targets: &Targets) -> anyhow::Result<Self> {
        let kafka = targets.kafka.clone();
        let watcher =
            tokio::task::spawn_blocking(move || Watcher::new(&kafka, &consume::groups(&[])))
                .await??;
        let bar = print::is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        let events = setup::topics()
            .into_iter()
            .filter(|topic| matches!(topic.content, activity_schemas::Content::Events(_)));
        Ok(Self {
            watcher: Arc::new(Mutex::new(watcher)),
            database: Database::new(&targets.clickhouse)?,
            sources: events
                .map(|topic| topic.full_name(&targets.kafka.topic_prefix))
                .collect(),
            bar,
            drawn: Instant::now(),
            seen: None,
        })
    }

    /// Looks, draws when it is time, and tells whether every group has caught up.
    pub async fn look(&mut self) -> bool {
        let watcher = self.watcher.clone();
        let gathered = tokio::task::spawn_blocking(move || {
            watcher
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .gather()
        })
        .await;
        let Ok(Ok(lags)) = gathered else {
            return false;
        };
        if self.seen.is_none() {
            self.events_per_second(&lags);
        }
        let interval = if self.bar.is_some() {
            DRAW_INTERVAL
        } else {
            LINE_INTERVAL
        };
        if self.drawn.elapsed() >= interval {
            self.drawn = Instant::now();
            self.draw(&lags).await;
        }
        lags.iter()
            .all(|lag| lag.lag == 0 && lag.committed.is_some())
    }

    async fn draw(&mut self, lags: &[PartitionLag]) {
        let events_per_second = self.events_per_second(lags);
        let recent = self.recent().await;
        let mut by_group: BTreeMap<&str, i64> = BTreeMap::new();
        for lag in lags {
            *by_group.entry(&lag.group).or_default() += lag.lag;
        }
        let rows: Vec<Vec<String>> = by_group
            .iter()
            .map(|(group, lag)| {
                let recent = recent.iter().find(|recent| recent.consumer_group == *group);
                let rate = recent.map_or(0, |recent| recent.rows / RATE_SECONDS);
                let freshness = recent.map_or("-".to_owned(), |recent| {
                    format!("{:.1} s", recent.freshness_ms / 1000.0)
                });
                vec![(*group).to_owned(), count(rate), count(*lag), freshness]
            })
            .collect();
        match &self.bar {
            Some(bar) => {
                let table = print::table(&["group", "rows/s", "lag", "freshness"], 1, rows);
                bar.set_message(format!(
                    "{table}\n {} events/s in; Ctrl-C ends",
                    count(events_per_second)
                ));
            }
            None => {
                let groups: Vec<String> = rows
                    .iter()
                    .map(|row| {
                        format!(
                            "{} {} rows/s, lag {}, freshness {}",
                            row[0], row[1], row[2], row[3]
                        )
                    })
                    .collect();
                eprintln!(
                    "{} events/s in; {}",
                    count(events_per_second),
                    groups.join("; ")
                );
            }
        }
    }

    /// Messages per second appended to the topics of events since the last drawing.
    fn events_per_second(&mut self, lags: &[PartitionLag]) -> i64 {
        let mut ends: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for lag in lags.iter().filter(|lag| self.sources.contains(&lag.topic)) {
            ends.insert((&lag.topic, lag.partition), lag.end);
        }
        let (now, total) = (Instant::now(), ends.values().sum::<i64>());
        let before = self.seen.replace((now, total));
        before.map_or(0, |(at, seen)| {
            ((total - seen) as f64 / now.duration_since(at).as_secs_f64().max(0.001)).round() as i64
        })
    }

    /// What the ledger says of the last seconds; nothing where ClickHouse does not answer.
    async fn recent(&self) -> Vec<Recent> {
        let sql = format!(
            "SELECT consumer_group, sum(arraySum(mapValues(rows))) AS rows, avg(freshness_ms) AS freshness_ms FROM {{database}}.ledger FINAL \
             WHERE inserted_at > now64(3) - INTERVAL {RATE_SECONDS} SECOND GROUP BY consumer_group"
        );
        self.database.rows(&sql).await.unwrap_or_default()
    }

    /// Says something that stays.
    pub fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.println(words),
            None => eprintln!("{words}"),
        }
    }

    /// Takes the table away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(String::new());
            bar.finish_and_clear();
        }
    }
}
