//! From Kafka into ClickHouse with all events waiting: every contender reads the whole topic in every round, in turns, into the same empty table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::engine::{self, EngineSettings};
use crate::fill::Filling;
use crate::floor;
use crate::report::{CatchUp, Contender, write_json};
use crate::scene::{CONSUMERS, Sample, Scene};

/// How long our process may take to end in order.
const END_PATIENCE: Duration = Duration::from_secs(12);

/// What is read, and how often.
#[derive(Args, Debug)]
pub struct CatchUpArgs {
    /// Clicks in the topic.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: u16,
    /// Bytes added to each event, which has about 300.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    padding_bytes: usize,
    /// Rounds of every contender.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only ours, for a profiler.
    #[arg(long)]
    only_ours: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Ours,
    Engine(EngineSettings),
    Floor,
}

/// Name, promise and kind; ours first.
const CONTENDERS: &[(&str, &str, Kind)] = &[
    (
        "activity, group `plain`",
        "exactly once in effect",
        Kind::Ours,
    ),
    (
        "ClickHouse Kafka engine, blocks of 131,072 rows",
        "at least once",
        Kind::Engine(EngineSettings {
            block_rows: Some(131_072),
            consumers: 1,
        }),
    ),
    (
        "ClickHouse Kafka engine, its default blocks",
        "at least once",
        Kind::Engine(EngineSettings {
            block_rows: None,
            consumers: 1,
        }),
    ),
    (
        "floor: read and discard, insert ready-made blocks",
        "none",
        Kind::Floor,
    ),
];

/// Runs all rounds and prints the table.
pub async fn run(args: CatchUpArgs) -> anyhow::Result<()> {
    let filling = Filling {
        events: args.events,
        partitions: args.partitions,
        padding_bytes: args.padding_bytes,
        rate: None,
    };
    let scene = Scene::start(filling).await?;
    let blocks = floor::prepare(&scene).await?;
    let contenders = &CONTENDERS[..if args.only_ours { 1 } else { CONTENDERS.len() }];
    let mut rounds: Vec<Contender> = contenders
        .iter()
        .map(|(name, promise, _)| Contender {
            name: (*name).to_owned(),
            promise,
            samples: Vec::new(),
        })
        .collect();
    for round in 1..=args.rounds {
        for (index, (name, _, kind)) in contenders.iter().enumerate() {
            scene.reset().await?;
            let group = format!("bench.{index}.{round}.");
            let sample = match kind {
                Kind::Ours => ours(&scene, &group).await?,
                Kind::Engine(settings) => engine::run(&scene, *settings, &group).await?,
                Kind::Floor => floor::run(&scene, &blocks, round).await?,
            };
            eprintln!(
                "round {round} of {}: {name}: {:.1} s, CPU-seconds {:.2?}",
                args.rounds, sample.seconds, sample.cpu_seconds
            );
            rounds[index].samples.push(sample);
        }
    }
    let run = CatchUp {
        events: args.events,
        partitions: args.partitions,
        versions: scene.versions().await?,
        contenders: rounds,
    };
    scene.end().await?;
    println!("{}", run.markdown());
    if let Some(path) = &args.json {
        write_json(path, &run)?;
    }
    Ok(())
}

/// Our group in a process of its own, as `activity consume` runs it.
async fn ours(scene: &Scene, group_prefix: &str) -> anyhow::Result<Sample> {
    let database = &scene.database;
    let mut process = scene
        .spawn(&["plain"], group_prefix, database.name())
        .await?;
    let consumers = BTreeMap::from([(CONSUMERS[0], process.id())]);
    // Its own start is charged to it: nothing was used before.
    let sample = scene
        .measure(consumers, scene.wait_for_rows(database))
        .await;
    process.terminate(END_PATIENCE).await;
    sample
}
