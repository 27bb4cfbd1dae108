//! What an event costs as things grow: partitions, events, bytes, groups, and as batches shrink. All topics lie in one broker, and the cases take turns, so that a
//! slow minute of the machine is no growth.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use crate::account::{Noted, cpu_seconds};
use crate::fill::Filling;
use crate::report::{Spread, thousands, write_json};
use crate::scene::{CONSUMERS, Sample, Scene};

const END_PATIENCE: Duration = Duration::from_secs(12);
/// Rows of a full batch: the default of `activity consume`.
const FULL_BATCH: u32 = 131_072;
/// Far below what the machine takes: batches are closed by their age.
const LOW_RATE: f64 = 2_000.0;

/// How many cases further each round begins.
const TURNED_BY: usize = 3;

/// How often, and how far.
#[derive(Args, Debug)]
pub struct GrowthArgs {
    /// Rounds of every case.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Events of the largest topic.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    events_max: u64,
    /// Only the cases whose name contains this, and nothing at a low rate.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seconds at a low rate.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A topic, and how it is read.
#[derive(Clone, Copy, Debug, Serialize)]
struct Case {
    name: &'static str,
    topic_prefix: &'static str,
    events: u64,
    partitions: u16,
    padding_bytes: usize,
    groups: usize,
    batch_rows: u32,
}

/// What all others differ from in one thing.
const BASE: Case = Case {
    name: "3 million events of 0.3 kB, 4 partitions, 1 group, full batches",
    topic_prefix: "base.",
    events: 3_000_000,
    partitions: 4,
    padding_bytes: 0,
    groups: 1,
    batch_rows: FULL_BATCH,
};

fn cases(events_max: u64) -> Vec<Case> {
    let small = Case {
        topic_prefix: "small.",
        events: 1_000_000,
        ..BASE
    };
    let large = Case {
        topic_prefix: "large.",
        events: events_max,
        ..BASE
    };
    vec![
        BASE,
        Case {
            name: "1 million events",
            ..small
        },
        // With more partitions a million events fill hardly two batches each.
        Case {
            name: "1 million events, 1 partition",
            topic_prefix: "one.small.",
            partitions: 1,
            ..small
        },
        Case {
            name: "the most events, 1 partition",
            topic_prefix: "one.",
            partitions: 1,
            ..large
        },
        Case {
            name: "the most events, 4 partitions",
            ..large
        },
        Case {
            name: "the most events, 12 partitions",
            topic_prefix: "twelve.",
            partitions: 12,
            ..large
        },
        Case {
            name: "1 million events of 1.6 kB",
            topic_prefix: "heavy.",
            padding_bytes: 1_300,
            ..small
        },
        Case {
            name: "2 groups, each with a database of its own",
            groups: 2,
            ..BASE
        },
        Case {
            name: "4 groups",
            groups: 4,
            ..BASE
        },
        Case {
            name: "1 million events in batches of 10,000 rows",
            batch_rows: 10_000,
            ..small
        },
        Case {
            name: "1 million events in batches of 1,000 rows",
            batch_rows: 1_000,
            ..small
        },
    ]
}

#[derive(Debug, Serialize)]
struct Grown {
    case: Case,
    rounds: Vec<Round>,
}

/// One reading.
#[derive(Debug, Serialize)]
struct Round {
    sample: Sample,
    /// CPU-seconds of all consumers, of those in the sample, until each had a partition.
    start_seconds: f64,
    /// CPU-seconds of the first consumer for the first million events, the second, and so on.
    by_million: Vec<f64>,
}

impl Round {
    /// CPU-seconds of all consumers for their events.
    fn for_events(&self) -> f64 {
        CONSUMERS
            .iter()
            .map(|name| self.sample.of(name))
            .sum::<f64>()
            - self.start_seconds
    }
}

impl Grown {
    fn of(&self, value: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(value))
    }

    /// Events that were read and rows that were written, millions.
    fn read_millions(&self) -> f64 {
        self.case.events as f64 * self.case.groups as f64 / 1e6
    }

    /// CPU-seconds of the consumers for a million events that one of them read.
    fn consumer(&self) -> Spread {
        self.of(|round| round.for_events() / self.read_millions())
    }

    /// What each million of the events cost: whether the last ones cost more than those before.
    fn millions(&self) -> String {
        let counts = self.rounds.iter().map(|round| round.by_million.len());
        let median = |million: usize| self.of(|round| round.by_million[million]).median;
        let medians: Vec<f64> = (0..counts.min().unwrap_or(0)).map(median).collect();
        let each: Vec<String> = medians
            .iter()
            .map(|seconds| format!("{seconds:.2}"))
            .collect();
        let later = Spread::of(medians.iter().skip(1).copied());
        format!(
            "{}, million by million, CPU-seconds of the consumer: {}. From the second on {:.2} ({:.2}–{:.2}); the first {:.2} more.",
            self.case.name,
            each.join(" "),
            later.median,
            later.min,
            later.max,
            medians.first().unwrap_or(&0.0) - later.median,
        )
    }

    fn line(&self, base: f64) -> String {
        let consumer = self.consumer();
        let millions = self.read_millions();
        let clickhouse = self.of(|round| round.sample.of("clickhouse") / millions);
        let start = self.of(|round| round.start_seconds / self.case.groups as f64);
        let rows_per_second = self.of(|round| millions * 1e6 / round.sample.seconds);
        let parts = self.of(|round| round.sample.parts as f64);
        let memory = self.of(|round| round.sample.peak_memory_bytes as f64 / 1e6);
        format!(
            "| {} | {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.2} | {:.2} | {} | {:.0} | {:.0} |",
            self.case.name,
            thousands(self.case.events as f64),
            consumer.median,
            consumer.min,
            consumer.max,
            consumer.median / base,
            start.median,
            clickhouse.median,
            thousands(rows_per_second.median),
            parts.median,
            memory.max,
        )
    }
}

/// Runs all rounds and prints the tables.
pub async fn run(args: GrowthArgs) -> anyhow::Result<()> {
    let mut scene = Scene::start(filling(&BASE)).await?;
    let mut grown: Vec<Grown> = Vec::new();
    let wanted = |case: &Case| (args.only.iter()).all(|text| case.name.contains(text.as_str()));
    for case in cases(args.events_max).into_iter().filter(wanted) {
        scene.turn_to(case.topic_prefix, filling(&case)).await?;
        grown.push(Grown {
            case,
            rounds: Vec::new(),
        });
    }
    for round in 1..=args.rounds {
        for place in 0..grown.len() {
            // No case is always the one that comes after the same other one.
            let place = (place + TURNED_BY * (round - 1)) % grown.len();
            let Grown { case, rounds } = &mut grown[place];
            scene.turn_to(case.topic_prefix, filling(case)).await?;
            let measured = measure(&scene, case).await?;
            eprintln!(
                "round {round} of {}: {}: {:.1} s, CPU-seconds {:.2?}, {:.2} until there was something to read",
                args.rounds,
                case.name,
                measured.sample.seconds,
                measured.sample.cpu_seconds,
                measured.start_seconds
            );
            rounds.push(measured);
        }
    }
    let base = grown.first().map_or(1.0, |base| base.consumer().median);
    println!(
        "{} rounds in turns; CPU-seconds of the consumer for a million events, median (min–max), and apart from them those of its start, until it has a partition; ClickHouse's \
         for a million rows, merges among them; peak memory of the first consumer.\n\n\
         | case | events | consumer s/M | ÷ the first | start s | ClickHouse s/M | rows/s | parts | peak memory MB |\n|---|---|---|---|---|---|---|---|---|",
        args.rounds
    );
    for case in &grown {
        println!("{}", case.line(base));
    }
    let longer = |grown: &&Grown| grown.case.events > 1_000_000 && grown.case.groups == 1;
    for case in grown.iter().filter(longer) {
        println!("\n{}", case.millions());
    }
    if args.only.is_none() {
        println!("\n{}", at_low_rate(&mut scene, args.seconds).await?);
    }
    println!("\n{}", scene.versions().await?.join(" · "));
    scene.end().await?;
    if let Some(path) = &args.json {
        write_json(path, &grown)?;
    }
    Ok(())
}

const fn filling(case: &Case) -> Filling {
    Filling {
        events: case.events,
        partitions: case.partitions,
        padding_bytes: case.padding_bytes,
        rate: None,
    }
}

/// As many groups as the case has read the whole topic at the same time.
async fn measure(scene: &Scene, case: &Case) -> anyhow::Result<Round> {
    let databases = scene.databases(case.groups).await?;
    let rows = case.batch_rows.to_string();
    let folder = tempfile::tempdir()?;
    let mut processes = Vec::new();
    for (number, database) in databases.iter().enumerate() {
        let by_million = by_million_file(&folder, number);
        let by_million = by_million.to_str().context("a folder's name is no text")?;
        let arguments = [
            "plain",
            "--batch-rows-max",
            &rows,
            "--cpu-by-million",
            by_million,
        ];
        let group = scene.fresh_group();
        processes.push(scene.spawn(&arguments, &group, database.name()).await?);
    }
    let ids = processes.iter().map(activity_devstack::Process::id);
    let consumers: BTreeMap<_, _> = CONSUMERS.into_iter().zip(ids).collect();
    // What they have used so far is not in the sample.
    let before: f64 = consumers.values().map(|id| cpu_seconds(*id)).sum();
    let sample = scene
        .measure(consumers, async {
            for database in &databases {
                scene.wait_for_rows(database).await?;
            }
            Ok(())
        })
        .await;
    for mut process in processes {
        process.terminate(END_PATIENCE).await;
    }
    // Why a consumer failed says more than what it has not noted.
    let sample = sample?;
    let noted = (0..case.groups).map(|number| Noted::read(&by_million_file(&folder, number)));
    let noted = noted.collect::<std::io::Result<Vec<_>>>()?;
    Ok(Round {
        sample,
        start_seconds: noted.iter().map(|noted| noted.start).sum::<f64>() - before,
        by_million: noted.into_iter().next().unwrap_or_default().millions,
    })
}

fn by_million_file(folder: &TempDir, consumer: usize) -> PathBuf {
    folder.path().join(format!("by-million-{consumer}"))
}

/// What an event costs where batches are small because little comes.
async fn at_low_rate(scene: &mut Scene, seconds: u64) -> anyhow::Result<String> {
    let slow = Filling {
        events: 0,
        ..filling(&BASE)
    };
    scene.turn_to("slow.", slow).await?;
    let databases = scene.databases(1).await?;
    let mut process = scene
        .spawn(&["plain"], &scene.fresh_group(), databases[0].name())
        .await?;
    // Its start, and the first of everything, are not what is asked for.
    let events = (LOW_RATE * seconds as f64) as u64;
    let live = |events| Filling {
        events,
        rate: Some(LOW_RATE),
        ..slow
    };
    let warm_up = (LOW_RATE * 5.0) as u64;
    scene.filler(live(warm_up)).await?.await??;
    scene.events = warm_up;
    scene.wait_for_rows(&databases[0]).await?;
    scene.events += events;
    let consumers = BTreeMap::from([(CONSUMERS[0], process.id())]);
    let sample = scene
        .measure(consumers, async {
            scene.filler(live(events)).await?.await??;
            scene.wait_for_rows(&databases[0]).await
        })
        .await?;
    let idle = scene
        .measure(BTreeMap::from([(CONSUMERS[0], process.id())]), async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        })
        .await?;
    process.terminate(END_PATIENCE).await;
    let per_million = |name| sample.of(name) / (events as f64 / 1e6);
    Ok(format!(
        "At {} events/s for {seconds} s, into {} parts: consumer {:.1}, ClickHouse {:.1}, Kafka {:.1} CPU-seconds for a million events. With nothing to read the \
         consumer uses {:.1} % of a core.",
        thousands(LOW_RATE),
        sample.parts,
        per_million(CONSUMERS[0]),
        per_million("clickhouse"),
        per_million("kafka"),
        100.0 * idle.of(CONSUMERS[0]) / idle.seconds,
    ))
}
