//! The command line: one binary, `activity <verb>`. Parses, calls, prints.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use, 3 the check found something. Progress and logs go to stderr, results to stdout.

mod cli;
mod consume;
mod dead_letters;
mod examples;
mod forget;
mod fraud;
mod new_group;
mod print;
mod query;
mod rewind;
mod settings_file;
mod shell;
mod status;
mod tail;
mod up;
mod verbs;
mod verify;
mod view;

use std::process::ExitCode;

use activity_devstack::find_running;
use activity_platform::advice::after_io;
use activity_platform::settings::Targets;
use anyhow::Context;
use clap::FromArgMatches;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, ProduceVerb, QualityVerb, Verb};

/// What a verb that ran to its end says.
enum Verdict {
    Done,
    Failed,
    Found,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // First of all, before there are threads: this program also runs as the services' first moment.
    if let Some(code) = activity_devstack::run_hidden_verb(&arguments) {
        return code;
    }
    match run() {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Ok(Verdict::Found) => ExitCode::from(3),
        Err(error) => {
            eprintln!("activity: {}", in_words(&error));
            ExitCode::from(1)
        }
    }
}

/// An error and its causes, those left out that are in its text already, and what to do where the operating system refuses.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    let refused = error.root_cause().downcast_ref::<std::io::Error>();
    let hint = refused.map(after_io).unwrap_or_default();
    if !text.ends_with(&hint) {
        text.push_str(&hint);
    }
    text
}

fn run() -> anyhow::Result<Verdict> {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let command = match settings_file::find(&arguments) {
        Some(path) => settings_file::apply(cli::command(), &path)?,
        None => cli::command(),
    };
    let cli =
        Cli::from_arg_matches(&command.clone().get_matches()).unwrap_or_else(|error| error.exit());
    activity_platform::logs::start(default_log_filter(&cli.verb));
    activity_platform::fault::arm().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot be started")?;
    runtime.block_on(dispatch(cli, &command))
}

/// Long-running verbs log what they do; the others say it in their results.
fn default_log_filter(verb: &Verb) -> &'static str {
    match verb {
        Verb::Consume(_) => "info",
        _ => "warn",
    }
}

async fn dispatch(cli: Cli, command: &clap::Command) -> anyhow::Result<Verdict> {
    let data_dir = cli.data_dir;
    let targets = || targets(cli.targets.clone(), &data_dir);
    match cli.verb {
        Verb::Up(args) => up::run(&args, cli.targets.clone(), &data_dir, stop()?).await,
        Verb::Produce(ProduceVerb::Simulate(args)) => {
            verbs::simulate(&args, &targets(), stop()?).await
        }
        Verb::Produce(ProduceVerb::Replay(args)) => verbs::replay(&args, &targets(), stop()?).await,
        Verb::Consume(args) => consume::run(args, targets(), stop()?).await,
        Verb::Setup(args) => verbs::setup(&args, &targets()).await,
        Verb::Status(args) => status::run(&args, &targets(), &data_dir).await,
        Verb::Lag(args) => verbs::lag(&args, &targets(), stop()?).await,
        Verb::Tail(args) => tail::run(&args, &targets(), stop()?).await,
        Verb::Verify(args) => verify::run(&args, &targets()).await,
        Verb::DeadLetters(verb) => dead_letters::run(verb, &targets()).await,
        Verb::Rewind(args) => rewind::run(args, &targets()).await,
        Verb::Forget(args) => forget::run(args, &targets()).await,
        Verb::Quality(QualityVerb::Recommendation(args)) => {
            verbs::quality_recommendation(&args, &targets()).await
        }
        Verb::Quality(QualityVerb::Fraud(args)) => fraud::quality(&args, &targets()).await,
        Verb::Fraud(verb) => fraud::run(&verb, &targets()).await,
        Verb::Query(args) => query::run(&args, &targets()).await,
        Verb::View(args) => view::run(&args, &targets(), stop()?).await,
        Verb::NewGroup(args) => new_group::run(&args),
        Verb::Config(args) => verbs::config(args, command),
        Verb::Completions(args) => shell::completions(&args, command),
        Verb::Man(args) => shell::man(&args, command),
    }
}

/// For verbs that end in order: from now on Ctrl-C asks them to.
fn stop() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    activity_platform::stop::on_signal(&token).context("signals cannot be handled")?;
    Ok(token)
}

/// Addresses that were given nowhere are those of the stack that runs on the data folder.
fn targets(mut targets: Targets, data_dir: &std::path::Path) -> Targets {
    if let Some(running) = find_running(data_dir) {
        targets.kafka.kafka.get_or_insert(running.kafka);
        targets.registry.registry.get_or_insert(running.registry);
        targets
            .clickhouse
            .clickhouse
            .get_or_insert(running.clickhouse);
    }
    targets
}
