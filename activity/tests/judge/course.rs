//! One run: traffic through all groups, and what they made of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use activity_consumers::GROUPS;
use activity_operator::fraud::{self, Fit};
use activity_operator::quality::fraud::FraudQuality;
use activity_operator::quality::{self, recommendation::Scores};
use activity_operator::verify::Scope;
use activity_producer::SimulateArgs;
use activity_producer::args::StartAt;
use activity_producer::traffic::scenario::Scenario;
use serde::Deserialize;

use crate::support::{Consumer, World, groups};

/// Events of the traffic that attacks are measured on, before the fit and after it.
const ATTACK_EVENTS: u64 = 300_000;

/// Traffic, and what is done to the groups meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    pub events: u64,
    /// Events per second: one that the groups keep up with, so that no partition is read far ahead of another.
    pub rate: f64,
    /// How often a process is killed, and its partitions move to another and back.
    pub kills: u32,
    pub seed: u64,
}

/// How the stream is divided.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub partitions: u16,
    /// Processes, each with all groups.
    pub instances: usize,
}

impl Spread {
    pub const fn new(partitions: u16, instances: usize) -> Self {
        Self {
            partitions,
            instances,
        }
    }
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(partitions, instances)| {
            Some(Spread::new(
                partitions.parse().ok()?,
                instances.parse().ok()?,
            ))
        });
        numbers
            .filter(|spread| spread.partitions > 0 && spread.instances > 0)
            .ok_or_else(|| "two numbers above 0, as in 12/3".to_owned())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} partitions, {} processes",
            self.partitions, self.instances
        )
    }
}

/// A table's rows, whatever message they came from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Table {
    pub rows: u64,
    pub duplicates: u64,
    pub hash: u64,
}

/// What the groups made of a course.
#[derive(Debug)]
pub struct Measured {
    pub seconds: f64,
    pub kills: u32,
    /// Missing, duplicate and unexpected in all groups, as `verify` counts.
    pub wrong: u64,
    pub tables: Vec<Table>,
    pub lists: Scores,
    pub fraud: FraudQuality,
}

impl Measured {
    pub fn fraud_auc(&self) -> f64 {
        self.fraud.per_event.auc.unwrap_or(f64::NAN)
    }
}

impl Course {
    pub async fn run(&self, world: &World, spread: Spread) -> Measured {
        let began = Instant::now();
        let mut processes: Vec<Consumer> = (0..spread.instances)
            .map(|_| world.consume(&[], &[]))
            .collect();
        joined(world, &processes).await;
        let traffic = world.simulate(SimulateArgs {
            events: Some(self.events),
            rate: Some(self.rate),
            seed: Some(self.seed),
            users: Some(2_000),
            ..SimulateArgs::default()
        });
        let length = Duration::from_secs_f64(self.events as f64 / self.rate);
        let kills = async {
            for turn in 0..self.kills {
                tokio::time::sleep(length / (self.kills + 1)).await;
                let victim = turn as usize % processes.len();
                processes[victim].kill();
                processes[victim] = world.consume(&[], &[]);
            }
        };
        let ((), published) = tokio::join!(kills, traffic);
        assert_eq!(published.counts.acknowledged, self.events);
        world.caught_up(&[]).await;
        let seconds = began.elapsed().as_secs_f64();
        let reports = world.verified(&[]).await;
        let wrong = |report: &activity_operator::verify::GroupReport| {
            report.missing + report.duplicate + report.unexpected
        };
        Measured {
            seconds,
            kills: self.kills,
            wrong: reports.iter().map(wrong).sum(),
            tables: vec![
                table(world, "clicks", self.events).await,
                table(world, "watches", self.events).await,
            ],
            lists: lists(world).await,
            fraud: quality::fraud::fraud(&world.targets, Scope::default())
                .await
                .unwrap(),
        }
    }
}

/// Waits until every group of every process has its share of the partitions: one that joins while events come in is read later than the others, and what is
/// learned in order is learned in another one.
async fn joined(world: &World, processes: &[Consumer]) {
    let said = processes.len() * GROUPS.len();
    world
        .until(|| async {
            // All of them write into one log, a line for each group with the address of its process; before these may stand those of an earlier run.
            let log = processes[0].log();
            let addresses: Vec<&str> = log
                .split_whitespace()
                .filter_map(|word| word.strip_prefix("metrics=")?.strip_suffix("/metrics"))
                .collect();
            let latest = addresses.get(addresses.len().saturating_sub(said)..);
            let latest: BTreeSet<&str> = latest.unwrap_or_default().iter().copied().collect();
            latest.len() == processes.len() && are_balanced(world, &latest).await
        })
        .await;
}

/// Whether processes are ready, and have as many partitions of each group as any other, but for one. Ready alone is not enough: who comes later joins with
/// nothing first, and gets its share when another has given it up.
async fn are_balanced(world: &World, processes: &BTreeSet<&str>) -> bool {
    let mut said = Vec::new();
    for process in processes {
        let metrics = page(process, "metrics").await;
        if page(process, "readyz").await.is_none() {
            return false;
        }
        said.extend(metrics);
    }
    let lags = world.lag(&groups(&[])).await;
    GROUPS.iter().all(|group| {
        // A partition's gauge is served by its owner alone.
        let gauge = format!(
            "activity_partition_paused{{consumergroup=\"{}\"",
            group.name
        );
        let owned = said.iter().map(|text| text.matches(&gauge).count());
        let all = lags.iter().filter(|lag| lag.group == group.name).count();
        let most = all.div_ceil(processes.len());
        owned.clone().sum::<usize>() == all && owned.max() == Some(most)
    })
}

/// What a process says there, where that is good news.
async fn page(process: &str, name: &str) -> Option<String> {
    let answer = reqwest::get(format!("{process}/{name}")).await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

/// All of a table's rows but where they came from.
async fn table(world: &World, name: &str, events_max: u64) -> Table {
    let sql = format!(
        "SELECT count() AS rows, countIf(is_duplicate) AS duplicates, groupBitXor(sipHash64(toString(tuple(* EXCEPT (_topic, _partition, _offset, _epoch, _appended_at))), is_duplicate)) AS hash FROM {{database}}.{name}"
    );
    let table: Table = world.database().rows(&sql).await.unwrap().remove(0);
    assert!(0 < table.rows && table.rows < events_max);
    table
}

async fn lists(world: &World) -> Scores {
    let scope = quality::recommendation::Scope::default();
    quality::recommendation::measure(&world.targets, &scope)
        .await
        .unwrap()
        .all
}

/// How fraud does on attacks, before and after it was fitted.
#[derive(Debug)]
pub struct Attacks {
    pub label_free: FraudQuality,
    pub fitted: FraudQuality,
    pub fitted_from: u64,
}

/// Attacks without labels; then weights are fitted from them, and other attacks come.
pub async fn attacks(world: &World) -> Attacks {
    let _process = world.consume(&["fraud", "truth"], &[]);
    let scenario = Scenario::named("bot-attack").unwrap();
    let traffic = |seed, start_at: &str| {
        let start_at: StartAt = start_at.parse().unwrap();
        world.simulate(SimulateArgs {
            start_at: Some(start_at),
            events: Some(ATTACK_EVENTS),
            rate: Some(6_000.0),
            seed: Some(seed),
            scenario: Some(scenario.clone()),
            ..SimulateArgs::default()
        })
    };
    traffic(3, "2026-01-05T12:00:00Z").await;
    world.caught_up(&["fraud", "truth"]).await;
    let all = Scope::default();
    let label_free = quality::fraud::fraud(&world.targets, all).await.unwrap();
    let fit = Fit {
        scope: all,
        clicks_max: 200_000,
        from_beginning: false,
        dry_run: false,
    };
    let fitted = fraud::run(&world.targets, &fit).await.unwrap();
    let effective_at: jiff::Timestamp = fitted.effective_at.unwrap().parse().unwrap();
    let left = effective_at.duration_since(jiff::Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
    traffic(4, "2026-01-12T12:00:00Z").await;
    world.caught_up(&["fraud", "truth"]).await;
    let since = Scope {
        since_ms: Some(effective_at.as_millisecond()),
        until_ms: None,
    };
    Attacks {
        label_free,
        fitted: quality::fraud::fraud(&world.targets, since).await.unwrap(),
        fitted_from: fitted.clicks,
    }
}
