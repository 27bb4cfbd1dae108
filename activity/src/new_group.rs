//! `activity new-group`: what people type, and what they see.

use std::path::PathBuf;

use activity_operator::new_group::{self, Written};
use clap::Args;

use crate::Verdict;
use crate::cli::OutputArgs;
use crate::print;

/// What it looks like.
pub const EXAMPLES: &str = "Examples:
  activity new-group countries                # in a clone of the source tree: clicks per country, to begin with
  cargo test -p activity-consumers            # it is covered already
  cargo run --release -- up                   # and runs

docs/write-your-own-group.md goes through it line by line.";

/// `activity new-group`
#[derive(Args, Debug)]
pub struct NewGroupArgs {
    /// Its name: small letters, digits, underscores. It is the module, the Kafka group, the metric label and the beginning of the table's name.
    name: String,
    /// A folder in the source tree.
    #[arg(long, value_name = "DIR", default_value = ".")]
    tree: PathBuf,
    /// Write also where there are changes that are not committed.
    #[arg(long)]
    allow_dirty: bool,
    /// How to print the result.
    #[command(flatten)]
    output: OutputArgs,
}

/// `activity new-group`
pub fn run(args: &NewGroupArgs) -> anyhow::Result<Verdict> {
    let written = new_group::run(&args.tree, &args.name, args.allow_dirty)?;
    print::result(args.output.output, &written, || told(&written))?;
    Ok(Verdict::Done)
}

fn told(written: &Written) -> String {
    let lines = |what: &str, paths: &[String]| -> String {
        paths
            .iter()
            .map(|path| format!("  {what:8}{path}\n"))
            .collect()
    };
    let Written { group, table, .. } = written;
    format!(
        "group {group}, in {}\n{}{}\nit counts clicks per country: a row of {table} for each click. Next:\n  \
         cargo test -p activity-consumers     # it is covered already\n  \
         INSTA_UPDATE=always cargo test -p activity --test services data_dictionary   # writes its table into docs/\n  \
         cargo run --release -- up            # runs it, from the start of the log; other groups notice nothing\n  \
         SELECT country, count() AS clicks FROM activity.{table} GROUP BY country ORDER BY clicks DESC\n\
         then make it yours: {}, line by line in docs/write-your-own-group.md",
        written.tree.display(),
        lines("wrote", &written.created),
        lines("changed", &written.changed),
        written.created.first().map_or("its file", String::as_str),
    )
}
