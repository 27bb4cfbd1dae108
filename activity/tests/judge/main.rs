//! The departments, judged: what their outputs are worth, and that it is the same however the stream is partitioned, by how many processes it is read, and
//! whatever is killed meanwhile.
//!
//! Without arguments a short version runs, as CI does. `cargo test --release -p activity --test judge -- --full --write docs/quality.md` runs all of it and writes
//! the tables; `-- --look-ups` times the look-ups alone, and `-- --spread 12/3` compares one way to divide the stream with the plainest.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod asked;
mod course;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use activity_devstack::Stack;
use clap::Parser;
use course::{Course, Measured, Spread};
use support::{World, fresh_stack};

/// How far apart a measure of quality may be.
const APART_MAX: f64 = 0.005;
/// The same of the short version, whose few playbacks and clicks chance moves further.
const APART_SHORT_MAX: f64 = 0.02;
/// The spreads of one event stream; the first is what the others are compared with.
const SPREADS: [Spread; 5] = [
    Spread::new(1, 1),
    Spread::new(4, 1),
    Spread::new(12, 1),
    Spread::new(4, 3),
    Spread::new(12, 3),
];

/// The departments, judged.
#[derive(Debug, Parser)]
struct Arguments {
    /// Everything; without it what CI runs.
    #[arg(long)]
    full: bool,
    /// Write the tables of a full run to this file, relative to the workspace.
    #[arg(long, value_name = "FILE", requires = "full")]
    write: Option<PathBuf>,
    /// Only the part of a full run that times look-ups.
    #[arg(long, conflicts_with = "full")]
    look_ups: bool,
    /// Only so many partitions and processes, beside one partition and one process
    #[arg(long, value_name = "PARTITIONS/PROCESSES", conflicts_with_all = ["full", "look_ups"])]
    spread: Option<Spread>,
    /// What the standard test harness takes, taken and ignored.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let findings = runtime.block_on(run(&arguments));
    runtime.shutdown_background();
    for finding in &findings {
        println!("    {finding}");
    }
    let word = if findings.is_empty() { "ok" } else { "FAILED" };
    println!("test result: {word}. {} findings", findings.len());
    ExitCode::from(u8::from(!findings.is_empty()))
}

async fn run(arguments: &Arguments) -> Vec<String> {
    let stack = fresh_stack("judge").await;
    if arguments.look_ups {
        println!("{}", look_ups(&stack).await);
        stack.stop().await.unwrap();
        return Vec::new();
    }
    let mut text = String::new();
    let mut findings = Vec::new();
    let is_whole = arguments.full || arguments.spread.is_some();
    let spread = if is_whole {
        Course {
            events: 120_000,
            rate: 2_000.0,
            kills: 0,
            seed: 77,
        }
    } else {
        Course {
            events: 60_000,
            rate: 2_000.0,
            kills: 0,
            seed: 77,
        }
    };
    let spreads = match arguments.spread {
        Some(other) => vec![SPREADS[0], other],
        None if arguments.full => SPREADS.to_vec(),
        None => vec![SPREADS[0], SPREADS[3]],
    };
    let runs = over(&stack, "spread", spread, &spreads).await;
    findings.extend(apart(
        &runs,
        if is_whole { APART_MAX } else { APART_SHORT_MAX },
    ));
    text += &report::spreads(&spread, &runs);
    if arguments.full {
        let calm = Course {
            events: 1_000_000,
            rate: 8_000.0,
            kills: 0,
            seed: 78,
        };
        let disturbed = Course { kills: 10, ..calm };
        let two = [Spread::new(4, 2)];
        let mut runs = over(&stack, "calm", calm, &two).await;
        runs.extend(over(&stack, "killed", disturbed, &two).await);
        findings.extend(apart(&runs, APART_MAX));
        text += &report::disturbed(&disturbed, &runs);
        let world = World::new(stack.endpoints(), "judge_attacks", 4).await;
        text += &report::attacks(&course::attacks(&world).await);
        text += &look_ups(&stack).await;
    }
    stack.stop().await.unwrap();
    println!("{text}");
    if let Some(path) = arguments.write.as_ref().filter(|_| findings.is_empty()) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(path);
        std::fs::write(&path, report::document(&text)).unwrap();
    }
    findings
}

/// How long look-ups take at each rate.
async fn look_ups(stack: &Stack) -> String {
    let mut asked = Vec::new();
    for rate in asked::RATES {
        let world = World::new(stack.endpoints(), &format!("judge_asked_{rate}"), 4).await;
        asked.push(asked::under_load(&world, rate).await);
    }
    report::asked(&asked)
}

/// The same events, once for each spread.
async fn over(
    stack: &Stack,
    name: &str,
    course: Course,
    spreads: &[Spread],
) -> Vec<(Spread, Measured)> {
    let mut runs = Vec::new();
    for spread in spreads {
        let name = format!("judge_{name}_{}_{}", spread.partitions, spread.instances);
        let world = World::new(stack.endpoints(), &name, spread.partitions).await;
        let measured = course.run(&world, *spread).await;
        println!("{}", report::line(&name, &measured));
        runs.push((*spread, measured));
    }
    runs
}

/// Where a run is not as the first.
fn apart(runs: &[(Spread, Measured)], apart_max: f64) -> Vec<String> {
    let Some(((_, first), others)) = runs.split_first() else {
        return Vec::new();
    };
    let mut findings: Vec<String> = Vec::new();
    if first.lists.events < 300 || !(0.6..=1.0).contains(&first.fraud_auc()) {
        findings.push(format!("nothing to judge by: {first:?}"));
    }
    for (spread, other) in others {
        let told = |what: &str, a: f64, b: f64| format!("{spread}: {what} {b} instead of {a}");
        if other.tables != first.tables {
            findings.push(format!(
                "{spread}: analytics has {:?} instead of {:?}",
                other.tables, first.tables
            ));
        }
        for (what, a, b) in [
            (
                "recall@20",
                first.lists.recall_at_20,
                other.lists.recall_at_20,
            ),
            ("fraud AUC", first.fraud_auc(), other.fraud_auc()),
        ] {
            if (a - b).abs() > apart_max {
                findings.push(told(what, a, b));
            }
        }
    }
    findings
}
