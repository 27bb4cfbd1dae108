//! From the moment that an event is handed to the producer to the moment that it can be queried, event by event: at parts of the capacity, and through what
//! goes wrong at half of it. Producer, broker, group and ClickHouse share the machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use activity_devstack::{Process, Service};
use anyhow::ensure;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::fill::{Filling, now_ms};
use crate::report::{thousands, write_json};
use crate::scene::{Scene, rows};

/// Events that the capacity is measured with, after as many to warm up.
const CAPACITY_EVENTS: u64 = 1_000_000;
const GROUP_PREFIX: &str = "bench.freshness.";
const END_PATIENCE: Duration = Duration::from_secs(12);

/// How long, and how fast.
#[derive(Args, Debug)]
pub struct FreshnessArgs {
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: u16,
    /// Seconds of each load.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Events per second that count as the capacity. Default: measured first.
    #[arg(long, value_name = "RATE")]
    capacity: Option<f64>,
    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What happens in the middle of a load.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Nothing,
    Rebalance,
    GroupKilled,
    ClickHouseRestarted,
}

/// The part of the capacity, and what happens.
const LOADS: &[(f64, Event, &str)] = &[
    (0.1, Event::Nothing, "10 % of the capacity"),
    (0.5, Event::Nothing, "50 %"),
    (0.9, Event::Nothing, "90 %"),
    (
        0.5,
        Event::Rebalance,
        "50 %, a second process joins and leaves",
    ),
    (
        0.5,
        Event::GroupKilled,
        "50 %, the group is killed and started again",
    ),
    (
        0.5,
        Event::ClickHouseRestarted,
        "50 %, ClickHouse is restarted",
    ),
];

/// Milliseconds of one load.
#[derive(Debug, Deserialize, Serialize)]
struct Ages {
    rows: u64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Load {
    name: &'static str,
    events_per_second: f64,
    ages_ms: Ages,
}

/// Runs all loads and prints the table.
pub async fn run(args: FreshnessArgs) -> anyhow::Result<()> {
    let mut bench = Bench::start(&args).await?;
    let capacity = match args.capacity {
        Some(capacity) => capacity,
        None => bench.capacity().await?,
    };
    println!(
        "capacity: {} events/s, from the producer to ClickHouse\n",
        thousands(capacity)
    );
    println!("| load | events/s | p50 ms | p95 ms | p99 ms | max ms |\n|---|---|---|---|---|---|");
    let mut loads = Vec::new();
    for (part, event, name) in LOADS {
        let rate = part * capacity;
        let ages = bench.load(rate, args.seconds, *event).await?;
        println!(
            "| {name} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            thousands(rate),
            ages.p50,
            ages.p95,
            ages.p99,
            ages.max
        );
        loads.push(Load {
            name,
            events_per_second: rate,
            ages_ms: ages,
        });
    }
    if let Some(path) = &args.json {
        write_json(path, &loads)?;
    }
    bench.end().await
}

/// The group, in a process of its own.
async fn plain(scene: &Scene) -> anyhow::Result<Process> {
    let database = scene.database.name();
    scene.spawn(&["plain"], GROUP_PREFIX, database).await
}

struct Bench {
    scene: Scene,
    partitions: u16,
    published: u64,
    group: Option<Process>,
}

impl Bench {
    async fn start(args: &FreshnessArgs) -> anyhow::Result<Self> {
        let nothing = Filling {
            events: 0,
            partitions: args.partitions,
            padding_bytes: 0,
            rate: None,
        };
        let scene = Scene::start(nothing).await?;
        let group = Some(plain(&scene).await?);
        Ok(Self {
            scene,
            partitions: args.partitions,
            published: 0,
            group,
        })
    }

    /// Events per second that come through when the producer is not held back.
    async fn capacity(&mut self) -> anyhow::Result<f64> {
        self.publish(CAPACITY_EVENTS, None).await?;
        self.all_in().await?;
        let began = Instant::now();
        self.publish(CAPACITY_EVENTS, None).await?;
        self.all_in().await?;
        Ok(CAPACITY_EVENTS as f64 / began.elapsed().as_secs_f64())
    }

    /// One load, and the ages of its events.
    async fn load(&mut self, rate: f64, seconds: u64, event: Event) -> anyhow::Result<Ages> {
        let from_ms = now_ms();
        let events = (rate * seconds as f64) as u64;
        let half = Duration::from_secs(seconds / 2);
        let filling = self.filling(events, Some(rate));
        let publishing = self.scene.filler(filling).await?;
        tokio::time::sleep(half).await;
        self.disturb(event).await?;
        publishing.await??;
        self.published += events;
        self.all_in().await?;
        self.ages(from_ms).await
    }

    async fn disturb(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Nothing => (),
            Event::Rebalance => {
                let mut second = plain(&self.scene).await?;
                tokio::time::sleep(Duration::from_secs(10)).await;
                second.terminate(END_PATIENCE).await;
            }
            Event::GroupKilled => {
                if let Some(mut group) = self.group.take() {
                    group.kill().await;
                }
                self.group = Some(plain(&self.scene).await?);
            }
            Event::ClickHouseRestarted => self.scene.stack.restart(Service::ClickHouse).await?,
        }
        Ok(())
    }

    fn filling(&self, events: u64, rate: Option<f64>) -> Filling {
        Filling {
            events,
            partitions: self.partitions,
            padding_bytes: 0,
            rate,
        }
    }

    async fn publish(&mut self, events: u64, rate: Option<f64>) -> anyhow::Result<()> {
        self.scene
            .filler(self.filling(events, rate))
            .await?
            .await??;
        self.published += events;
        Ok(())
    }

    async fn all_in(&mut self) -> anyhow::Result<()> {
        self.scene.events = self.published;
        self.scene.wait_for_rows(&self.scene.database).await?;
        let rows = rows(&self.scene.database).await?;
        ensure!(
            rows == self.published,
            "{rows} rows of {} events",
            self.published
        );
        Ok(())
    }

    /// Of all events that were handed to the producer since then: the ledger says when the range that an event is in could be queried.
    async fn ages(&self, from_ms: i64) -> anyhow::Result<Ages> {
        let sql = format!(
            "SELECT count() AS rows, quantileExact(0.5)(age) AS p50, quantileExact(0.95)(age) AS p95, quantileExact(0.99)(age) AS p99, max(age) AS max
             FROM (
                 SELECT toFloat64(toUnixTimestamp64Milli(ranges.inserted_at) - toUnixTimestamp64Milli(clicks.received_at)) AS age
                 FROM {{database}}.plain_clicks AS clicks
                 ASOF JOIN (SELECT partition, start_offset, inserted_at FROM {{database}}.ledger FINAL WHERE consumer_group = 'plain') AS ranges
                 ON clicks._partition = ranges.partition AND clicks._offset >= ranges.start_offset
                 WHERE clicks.received_at >= fromUnixTimestamp64Milli({from_ms})
             )"
        );
        let mut ages: Vec<Ages> = self.scene.database.rows(&sql).await?;
        ensure!(ages.len() == 1, "one line of ages");
        Ok(ages.remove(0))
    }

    async fn end(mut self) -> anyhow::Result<()> {
        if let Some(mut group) = self.group.take() {
            group.terminate(END_PATIENCE).await;
        }
        self.scene.end().await
    }
}
