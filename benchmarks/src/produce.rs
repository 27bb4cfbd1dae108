//! Into Kafka, as fast as it goes: our publisher with the encoding of every event, librdkafka's own `rdkafka_performance`, and Kafka's `ProducerPerformance`.
//! The same mean size, all replicas, idempotent; each in a process of its own, which is charged for all that it uses.

use std::path::PathBuf;
use std::process::Stdio;

use activity_devstack::Service;
use activity_platform::settings::Targets;
use activity_producer::source::{EventSource, Outgoing, SourceError};
use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_producer::{Publisher, Run, publish};
use activity_schemas::{Decoders, Encoder, Event, EventKind, avro};
use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::resource::UsageWho;
use serde::Serialize;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::account::{Meter, cpu_seconds_of};
use crate::fill::Filling;
use crate::peers;
use crate::report::{Spread, thousands, write_json};
use crate::scene::Scene;

/// Different events that ours sends again and again: more than caches hold.
const DISTINCT_EVENTS: usize = 100_000;
const SEED: u64 = 7;
/// As long as a user's id.
const PEER_KEY: &str = "u000000017";
/// What all three are set to beside their own defaults.
const ALIKE: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "10"),
    ("batch.size", "1000000"),
];

const OURS: &str = "activity, Avro encoding included";
/// As ours: each message has memory of its own and a key, and goes to another partition than the one before, though by lot and not by its key.
const KEYED: &str = "rdkafka_performance, keys, memory of its own for each message";
/// Without keys librdkafka fills one partition after the other.
const UNKEYED: &str = "rdkafka_performance, no keys, memory of its own for each message";
/// No message is copied before it is on its way, and all of them lie in the processor's cache.
const ONE_FOR_ALL: &str = "rdkafka_performance, no keys, one buffer for all messages";
const JAVA: &str = "ProducerPerformance";

/// How many events, and how often.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// Events of a round.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: u16,
    /// Rounds of every contender.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one contender did in one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// As it says itself, from its first event to the last acknowledgement.
    events_per_second: f64,
    /// Of its process, its start among them.
    cpu_seconds: f64,
    kafka_cpu_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Contender {
    name: &'static str,
    samples: Vec<Sample>,
}

/// Runs all rounds and prints the table.
pub async fn run(args: ProduceArgs) -> anyhow::Result<()> {
    let filling = Filling {
        events: 0,
        partitions: args.partitions,
        padding_bytes: 0,
        rate: None,
    };
    let rdkafka_performance = peers::rdkafka_performance().await?;
    let scene = Scene::start(filling).await?;
    let bytes = mean_bytes()?;
    let names = [OURS, KEYED, UNKEYED, ONE_FOR_ALL, JAVA];
    let mut contenders = names.map(|name| Contender {
        name,
        samples: Vec::new(),
    });
    for round in 1..=args.rounds {
        for contender in &mut contenders {
            let command = match contender.name {
                OURS => ours(&scene, args.events)?,
                JAVA => java(&scene, args.events, bytes).await?,
                name => {
                    let mut command = librdkafka(&scene, &rdkafka_performance, args.events, bytes)?;
                    command.args(of_librdkafka(name));
                    command
                }
            };
            let sample = measure(&scene, command)
                .await
                .with_context(|| contender.name)?;
            eprintln!(
                "round {round} of {}: {}: {sample:.2?}",
                args.rounds, contender.name
            );
            contender.samples.push(sample);
        }
    }
    scene.end().await?;
    println!("{}", markdown(&args, bytes, &contenders));
    if let Some(path) = &args.json {
        write_json(path, &contenders)?;
    }
    Ok(())
}

fn markdown(args: &ProduceArgs, bytes: usize, contenders: &[Contender]) -> String {
    let mut text = format!(
        "{} events of {bytes} bytes into {} partitions, {} rounds in turns; acks=all, idempotent; median (min–max).\n\n\
         | contender | events/s | ours ÷ this | events per CPU-second of the producer | Kafka s/M |\n|---|---|---|---|---|\n",
        thousands(args.events as f64),
        args.partitions,
        args.rounds
    );
    let speed = |contender: &Contender| {
        Spread::of(
            contender
                .samples
                .iter()
                .map(|sample| sample.events_per_second),
        )
    };
    let ours = contenders.first().map_or(0.0, |first| speed(first).median);
    for contender in contenders {
        let (samples, events) = (|| contender.samples.iter(), args.events as f64);
        let spread = speed(contender);
        text.push_str(&format!(
            "| {} | {} ({}–{}) | {:.2} | {} | {:.2} |\n",
            contender.name,
            thousands(spread.median),
            thousands(spread.min),
            thousands(spread.max),
            ours / spread.median,
            thousands(Spread::of(samples().map(|sample| events / sample.cpu_seconds)).median),
            Spread::of(samples().map(|sample| sample.kafka_cpu_seconds / events * 1e6)).median,
        ));
    }
    text
}

/// Runs a producer to its end.
async fn measure(scene: &Scene, mut command: Command) -> anyhow::Result<Sample> {
    let broker = scene
        .stack
        .process_id(Service::Kafka(1))
        .unwrap_or_default();
    let meter = Meter::start([("kafka", broker)]);
    // The services are none of the children that ended.
    let before = cpu_seconds_of(UsageWho::RUSAGE_CHILDREN)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command.output().await?;
    let cpu_seconds = cpu_seconds_of(UsageWho::RUSAGE_CHILDREN)? - before;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(Sample {
        events_per_second: events_per_second(&said).with_context(|| said.clone())?,
        cpu_seconds,
        kafka_cpu_seconds: meter.read()["kafka"],
    })
}

/// The last rate that a producer told: `123456 msgs/s`, or `123456.7 records/sec`.
fn events_per_second(said: &str) -> Option<f64> {
    let words: Vec<&str> = said.split_whitespace().collect();
    let is_unit = |word: &str| {
        ["msgs/s", "records/sec"]
            .iter()
            .any(|unit| word.trim_end_matches(',').eq(*unit))
    };
    let unit = words.iter().rposition(|word| is_unit(word))?;
    words.get(unit.checked_sub(1)?)?.parse().ok()
}

fn ours(scene: &Scene, events: u64) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["publish", "--events", &events.to_string()]);
    scene.environment(command.as_std_mut())?;
    Ok(command)
}

/// What makes `rdkafka_performance` the contender of this name.
fn of_librdkafka(name: &str) -> &'static [&'static str] {
    match name {
        KEYED => &["-D", "-k", PEER_KEY, "-X", "partitioner=random"],
        UNKEYED => &["-D"],
        _ => &[],
    }
}

fn librdkafka(
    scene: &Scene,
    program: &std::path::Path,
    events: u64,
    bytes: usize,
) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.args([
        "-P",
        "-q",
        "-t",
        &scene.topic(),
        "-b",
        scene.targets.kafka.brokers()?,
    ]);
    command.args([
        "-s",
        &bytes.to_string(),
        "-c",
        &events.to_string(),
        "-a",
        "-1",
    ]);
    for (name, value) in ALIKE.iter().filter(|(name, _)| *name != "acks") {
        command.args(["-X", &format!("{name}={value}")]);
    }
    command.args([
        "-X",
        "queue.buffering.max.messages=200000",
        "-X",
        "batch.num.messages=10000",
    ]);
    Ok(command)
}

async fn java(scene: &Scene, events: u64, bytes: usize) -> anyhow::Result<Command> {
    let mut command = Command::from(peers::producer_performance().await?);
    command.args([
        "--topic",
        &scene.topic(),
        "--num-records",
        &events.to_string(),
    ]);
    command.args([
        "--record-size",
        &bytes.to_string(),
        "--throughput",
        "-1",
        "--producer-props",
    ]);
    command.arg(format!(
        "bootstrap.servers={}",
        scene.targets.kafka.brokers()?
    ));
    command.args(ALIKE.iter().map(|(name, value)| format!("{name}={value}")));
    Ok(command)
}

/// Where ours publishes to, and how much.
#[derive(Args, Debug)]
pub struct PublishArgs {
    #[command(flatten)]
    targets: Targets,
    /// Events.
    #[arg(long)]
    events: u64,
}

/// The process that `produce` measures: publishes events that are there already, and says how fast.
pub async fn publish_events(args: PublishArgs) -> anyhow::Result<()> {
    let publisher = Publisher::connect(&args.targets.kafka, &args.targets.registry).await?;
    let source = Again {
        events: kept_events()?,
        next: 0,
    };
    let run = Run {
        events_max: Some(args.events),
        ..Run::EVERYTHING
    };
    let published =
        publish::publish(publisher, source, run, CancellationToken::new(), |_| ()).await?;
    ensure!(published.complete, "{published:?}");
    println!(
        "{:.0} msgs/s",
        args.events as f64 / published.counts.seconds
    );
    Ok(())
}

/// The same events again and again.
struct Again {
    events: Vec<Event<'static>>,
    next: usize,
}

impl EventSource for Again {
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>> {
        let event = self.events[self.next].clone();
        self.next = (self.next + 1) % self.events.len();
        Some(Ok(Outgoing {
            event,
            label: None,
            attack: None,
        }))
    }
}

/// Clicks of the traffic model that stay for the life of the process.
pub fn kept_events() -> anyhow::Result<Vec<Event<'static>>> {
    let mut decoders = Decoders::new(EventKind::Click);
    decoders.add(1, avro::newest(EventKind::Click).json);
    encoded()?
        .into_iter()
        .map(|bytes| Ok(decoders.decode(bytes.leak())?))
        .collect()
}

fn encoded() -> anyhow::Result<Vec<Vec<u8>>> {
    let encoder = Encoder::new(EventKind::Click, 1);
    let mut traffic = Traffic::new(SEED, TrafficSettings::default());
    let mut encoded = Vec::with_capacity(DISTINCT_EVENTS);
    while encoded.len() < DISTINCT_EVENTS {
        if let Event::Click(click) = traffic.next_event().event {
            let mut bytes = Vec::new();
            encoder.encode(&click, &mut bytes)?;
            encoded.push(bytes);
        }
    }
    Ok(encoded)
}

fn mean_bytes() -> anyhow::Result<usize> {
    let encoded = encoded()?;
    Ok(encoded.iter().map(Vec::len).sum::<usize>() / encoded.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rate_that_was_told_is_the_one_that_counts() {
        let librdkafka = "% 500 messages produced (1000 bytes), 7 msgs/s\n% 1000 messages sent in 2ms: 350000 msgs/s and 99.1 MB/s";
        assert_eq!(events_per_second(librdkafka), Some(350_000.0));
        let java = "10 records sent, 5.0 records/sec (0.1 MB/sec), 3 ms\n20 records sent, 412371.1 records/sec (122.90 MB/sec), 1.5 ms avg latency";
        assert_eq!(events_per_second(java), Some(412_371.1));
        assert_eq!(events_per_second("nothing"), None);
    }
}
