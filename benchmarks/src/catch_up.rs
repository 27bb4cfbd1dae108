//! From Kafka into ClickHouse with all events waiting: every contender reads the whole topic in every round, in turns, into the same empty table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::engine::{self, EngineSettings};
use crate::fill::Filling;
use crate::flink::{Flink, Format};
use crate::floor::{self, Blocks};
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
    /// Apache Flink as well: fetches 375 MB the first time, by pip and Maven, and takes a JDK.
    #[arg(long, conflicts_with = "only_ours")]
    with_flink: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Ours,
    Engine(EngineSettings),
    Flink(Format),
    WarmFlink,
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
        "Apache Flink 2.3, JDBC sink",
        "at least once",
        Kind::Flink(Format::Text),
    ),
    (
        "Apache Flink 2.3, JDBC sink, RowBinary",
        "at least once",
        Kind::Flink(Format::RowBinary),
    ),
    (
        "Apache Flink 2.3, JDBC sink, RowBinary, warm JVM",
        "at least once",
        Kind::WarmFlink,
    ),
    (
        "floor: read and discard, insert ready-made blocks",
        "none",
        Kind::Floor,
    ),
];

/// What contenders need that is made once.
struct Props {
    scene: Scene,
    blocks: Blocks,
    /// None: it is left out.
    flink: Option<Flink>,
}

/// Runs all rounds and prints the table.
pub async fn run(args: CatchUpArgs) -> anyhow::Result<()> {
    let mut props = prepare(&args).await?;
    let contenders: Vec<_> = CONTENDERS
        .iter()
        .filter(|(_, _, kind)| match kind {
            Kind::Ours => true,
            Kind::Flink(_) | Kind::WarmFlink => props.flink.is_some(),
            Kind::Engine(_) | Kind::Floor => !args.only_ours,
        })
        .collect();
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
            let group = format!("bench.{index}.{round}.");
            let sample = props.read(*kind, &group, round).await?;
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
        versions: props.scene.versions().await?,
        contenders: rounds,
    };
    props.scene.end().await?;
    println!("{}", run.markdown());
    if let Some(path) = &args.json {
        write_json(path, &run)?;
    }
    Ok(())
}

async fn prepare(args: &CatchUpArgs) -> anyhow::Result<Props> {
    let flink = match args.with_flink {
        true => Some(Flink::prepare().await?),
        false => None,
    };
    if flink.is_none() && !args.only_ours {
        eprintln!(
            "Apache Flink is left out; --with-flink has it, and fetches 375 MB the first time"
        );
    }
    let filling = Filling {
        events: args.events,
        partitions: args.partitions,
        padding_bytes: args.padding_bytes,
        rate: None,
    };
    let scene = Scene::start(filling).await?;
    let blocks = floor::prepare(&scene).await?;
    Ok(Props {
        scene,
        blocks,
        flink,
    })
}

impl Props {
    /// One reading of the whole topic by one contender, into the empty table.
    async fn read(&mut self, kind: Kind, group: &str, round: usize) -> anyhow::Result<Sample> {
        let scene = &self.scene;
        let flink = self.flink.as_mut().context("Flink was left out");
        scene.reset().await?;
        match kind {
            Kind::Ours => ours(scene, group).await,
            Kind::Engine(settings) => engine::run(scene, settings, group).await,
            Kind::Flink(format) => flink?.fresh(scene, group, format).await,
            Kind::WarmFlink => flink?.warm(scene, group).await,
            Kind::Floor => floor::run(scene, &self.blocks, round).await,
        }
    }
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
