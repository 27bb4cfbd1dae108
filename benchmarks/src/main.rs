//! Side by side with peers, on the real services: one verb for each comparison, which starts what it needs, runs the contenders in turns and prints a table.
//!
//! `cargo run --release -p activity-benchmarks -- --help`. Results go to stdout, progress to stderr, all samples to `--json FILE`.

mod account;
mod catch_up;
mod engine;
mod fill;
mod flink;
mod floor;
mod formats;
mod freshness;
mod growth;
mod peers;
mod plain;
mod produce;
mod report;
mod scene;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

/// Benchmarks against peers, in one run each, interleaved: CPU-seconds of every process beside the seconds, because seconds lie on a shared machine.
#[derive(Debug, Parser)]
#[command(name = "benchmarks", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// From Kafka into ClickHouse, one row per event, all events waiting: a group of ours, ClickHouse's own Kafka engine, Apache Flink, and the floor.
    CatchUp(catch_up::CatchUpArgs),
    /// The same rows in other formats: what client and ClickHouse spend on them.
    Formats(formats::FormatsArgs),
    /// How old events are when they can be queried: at 10, 50 and 90 % of the capacity, and through a rebalance, a killed group and a restart of ClickHouse.
    Freshness(freshness::FreshnessArgs),
    /// What an event costs as partitions, events, bytes and groups grow and as batches shrink.
    Growth(growth::GrowthArgs),
    /// Into Kafka: our publisher, Avro encoding included, beside librdkafka's and Kafka's own benchmarks.
    Produce(produce::ProduceArgs),
    /// Runs the group `plain` until it is ended: what `catch-up` starts and measures.
    #[command(hide = true)]
    Plain(plain::PlainArgs),
    /// Publishes events that are there already: what `produce` starts and measures.
    #[command(hide = true)]
    Publish(produce::PublishArgs),
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // First of all, before there are threads: this program also runs as the services' first moment.
    if let Some(code) = activity_devstack::run_hidden_verb(&arguments) {
        return code;
    }
    activity_platform::logs::start("warn");
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benchmarks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    activity_platform::stop::on_signal(&stop)?;
    let work = async {
        match cli.verb {
            Verb::CatchUp(args) => catch_up::run(args).await,
            Verb::Freshness(args) => freshness::run(args).await,
            Verb::Formats(args) => formats::run(args).await,
            Verb::Growth(args) => growth::run(args).await,
            Verb::Produce(args) => produce::run(args).await,
            Verb::Publish(args) => produce::publish_events(args).await,
            Verb::Plain(args) => plain::run(args, stop.clone()).await,
        }
    };
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        // What is under way is dropped: services and contenders die with it. The group ends by itself, in order.
        () = stop.cancelled() => match std::env::args().nth(1).as_deref() {
            Some("plain") => work.await,
            _ => anyhow::bail!("stopped"),
        },
    }
}
