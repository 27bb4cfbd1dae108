//! `activity forget`: shows what there is of a user, asks, deletes it, and says what is left elsewhere.

use std::io::{IsTerminal, Write};

use activity_operator::forget::{self, Kept};
use activity_platform::settings::Targets;
use anyhow::bail;
use clap::Args;

use crate::Verdict;
use crate::cli::{Output, OutputArgs};
use crate::print::{self, count};

/// `activity forget`
#[derive(Args, Debug)]
pub struct ForgetArgs {
    /// The user's id, as the events have it.
    #[arg(value_name = "USER")]
    pub user: String,
    /// Only show what there is.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the command cannot delete, and what becomes of it.
const LEFT: &str = "Kafka has the user's messages until the topics' retention ends, the dead letters too; a rewind reads them again, so run this once more after one. \
The groups' state has what it remembers of the user until others take its place. ClickHouse removes the old parts from its disk within minutes, back-ups keep theirs.";

/// `activity forget`
pub async fn run(args: ForgetArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let kept = forget::find(targets, &args.user).await?;
    if args.dry_run || kept.is_empty() {
        print::result(args.output.output, &kept, || table(&kept))?;
        return Ok(Verdict::Done);
    }
    if args.output.output == Output::Table {
        eprintln!("{}", table(&kept));
    }
    if !args.yes && !asked(&args.user)? {
        return Ok(Verdict::Done);
    }
    let deleted = forget::run(targets, &args.user).await?;
    print::result(args.output.output, &deleted, || {
        let rows: u64 = deleted.iter().map(|kept| kept.rows).sum();
        format!("{} rows are nobody's now. {LEFT}", count(rows))
    })?;
    Ok(Verdict::Done)
}

fn table(kept: &[Kept]) -> String {
    if kept.is_empty() {
        return "no table has anything of this user".to_owned();
    }
    let rows = kept
        .iter()
        .map(|kept| vec![kept.table.to_owned(), count(kept.rows)]);
    print::table(&["table", "rows"], 1, rows)
}

fn asked(user: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: pass --yes to do it, or --dry-run to see it only");
    }
    eprint!("Delete this of {user:?} for ever? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
