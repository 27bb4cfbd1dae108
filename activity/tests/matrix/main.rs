//! The kill-point matrix: processes of ours are killed or halted at named points, services at chosen moments, memberships and offsets are meddled with, and after
//! each of it everything must be there once.
//!
//! Without arguments the short version runs, as CI does. `cargo test --release -p activity --test matrix -- --full --write docs/faults.md` runs all of it and writes
//! the table; `-- --soak 30m` kills something every few seconds for as long.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod bench;
mod cells;
mod disturb;
mod report;
mod soak;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use activity_platform::fault::Point;
use bench::{Bench, Outcome};
use cells::Cell;
use clap::Parser;

/// The kill-point matrix.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only cells whose name contains one of these.
    cells: Vec<String>,
    /// Every cell; without it those that CI runs.
    #[arg(long)]
    full: bool,
    /// Write the table of a full run to this file, relative to the workspace.
    #[arg(long, value_name = "FILE", requires = "full")]
    write: Option<PathBuf>,
    /// Say which cells there are.
    #[arg(long)]
    list: bool,
    /// Kill something every few seconds for this long, instead of the matrix.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// Seed of the soak's victims and moments.
    #[arg(long)]
    seed: Option<u64>,
    /// Events per second of the soak.
    #[arg(long, default_value_t = 15_000.0)]
    rate: f64,
    /// What the standard test harness takes, taken and ignored.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(length) = arguments.soak {
        return soak::run(length, arguments.seed, arguments.rate);
    }
    let chosen: Vec<Cell> = cells::all()
        .into_iter()
        .filter(|cell| arguments.full || cell.short || !arguments.cells.is_empty())
        .filter(|cell| {
            arguments.cells.is_empty()
                || arguments
                    .cells
                    .iter()
                    .any(|part| cell.name().contains(part))
        })
        .collect();
    if arguments.list {
        chosen
            .iter()
            .for_each(|cell| println!("{}: {}", cell.name(), cell.about()));
        return ExitCode::SUCCESS;
    }
    let whole = arguments.full && arguments.cells.is_empty();
    if whole {
        let forgotten: Vec<&Point> = Point::ALL
            .iter()
            .filter(|point| !chosen.iter().any(|cell| cell.point() == Some(**point)))
            .collect();
        assert!(forgotten.is_empty(), "no cell passes {forgotten:?}");
    }
    // What a cell says when it fails is in its row.
    std::panic::set_hook(Box::new(|_| ()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let rows = runtime.block_on(run(chosen));
    // What a failed cell left waiting for a broker that is gone is not waited for.
    runtime.shutdown_background();
    let clean = rows.iter().all(|(_, outcome)| outcome.is_clean());
    println!("\n{}", report::summary(&rows));
    if let Some(path) = arguments.write.filter(|_| whole && clean) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, report::document(&rows)).unwrap();
    }
    ExitCode::from(u8::from(!clean))
}

async fn run(cells: Vec<Cell>) -> Vec<(Cell, Outcome)> {
    let mut bench = Bench::new();
    let mut rows = Vec::new();
    for cell in cells {
        let outcome = bench.run(&cell).await;
        println!("{}", report::line(&cell, &outcome));
        rows.push((cell, outcome));
    }
    bench.end().await;
    rows
}
