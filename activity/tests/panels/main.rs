//! Every panel's SQL on a month of data, on the real engine, timed.
//!
//! Simulated traffic of three days goes through the real groups. What they wrote is then copied nine times within ClickHouse, each time three days earlier, with
//! new event ids and, but for every fourth user, new users; the ledger gets what a busy pipeline writes. Without arguments a small month, as CI does it:
//! no panel may fail. `cargo test --release -p activity --test panels -- --full --write docs/panels.md` measures 20 million events and writes the table.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod month;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use activity_viewer::{Asking, NamedQuery, Reader, named_queries};
use clap::Parser;
use support::{World, fresh_stack};

/// The panels, timed.
#[derive(Debug, Parser)]
struct Arguments {
    /// 20 million events; without it a small month.
    #[arg(long)]
    full: bool,
    /// Events of the three days that are simulated and copied.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// How often each panel is asked.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rounds: usize,
    /// Write the table to this file, relative to the workspace.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What the standard test harness takes, taken and ignored.
    #[arg(long, hide = true)]
    nocapture: bool,
}

/// A panel and how long it took each time.
struct Timed {
    name: String,
    question: String,
    outcome: Result<Vec<Duration>, String>,
}

impl Timed {
    /// The duration that this share of the rounds stayed within.
    fn quantile_ms(&self, share: f64) -> f64 {
        let Ok(times) = &self.outcome else {
            return 0.0;
        };
        let mut sorted = times.clone();
        sorted.sort();
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
        sorted[index].as_secs_f64() * 1e3
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let failed = runtime.block_on(run(&arguments));
    runtime.shutdown_background();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {failed} panels failed");
    ExitCode::from(u8::from(failed > 0))
}

async fn run(arguments: &Arguments) -> usize {
    let (events, rounds) = if arguments.full {
        (2_000_000, 20)
    } else {
        (20_000, 1)
    };
    let events = arguments.events.unwrap_or(events);
    let rounds = if arguments.rounds == 0 {
        rounds
    } else {
        arguments.rounds
    };
    let stack = fresh_stack("panels").await;
    let world = World::new(stack.endpoints(), "panels", 4).await;
    let began = Instant::now();
    let month = month::make(&world, events).await;
    println!(
        "{} events over 30 days after {:.0} s",
        month.events,
        began.elapsed().as_secs_f64()
    );
    let reader = Reader::new(world.database());
    let mut timed = Vec::new();
    for query in named_queries().unwrap() {
        let outcome = measure(&reader, &query, &month.asking, rounds).await;
        timed.push(Timed {
            name: query.name.clone(),
            question: query.title.clone(),
            outcome,
        });
    }
    let page = report(&month, &mut timed, rounds);
    println!("{page}");
    if let Some(file) = &arguments.write {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(file);
        std::fs::write(path, page).unwrap();
    }
    timed.iter().filter(|timed| timed.outcome.is_err()).count()
}

/// Asks once to warm up, then so many times.
async fn measure(
    reader: &Reader,
    query: &NamedQuery,
    asking: &Asking,
    rounds: usize,
) -> Result<Vec<Duration>, String> {
    let sql = reader
        .sql_of(query, asking)
        .await
        .map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    for round in 0..=rounds {
        let began = Instant::now();
        reader.json(&sql).await.map_err(|error| error.to_string())?;
        if round > 0 {
            times.push(began.elapsed());
        }
    }
    Ok(times)
}

fn report(month: &month::Month, timed: &mut [Timed], rounds: usize) -> String {
    timed.sort_by(|a, b| b.quantile_ms(0.5).total_cmp(&a.quantile_ms(0.5)));
    let mut page = format!(
        "# Panels on a month of data\n\n{} events over 30 days ({}), each panel asked {rounds} times over all 30 days after one warm-up, slowest first. \
         Written by `cargo test --release -p activity --test panels -- --full --write docs/panels.md`.\n\n\
         | panel | question | p50 ms | p95 ms |\n|---|---|---:|---:|\n",
        month.events, month.rows
    );
    for one in timed.iter() {
        let (middle, late) = match &one.outcome {
            Ok(_) => (
                format!("{:.0}", one.quantile_ms(0.5)),
                format!("{:.0}", one.quantile_ms(0.95)),
            ),
            Err(error) => (format!("failed: {error}"), "-".to_owned()),
        };
        writeln!(
            page,
            "| {} | {} | {middle} | {late} |",
            one.name, one.question
        )
        .unwrap();
    }
    page
}
