//! `activity deadletters`: what people type, and what they see.

use std::fmt::Write as _;

use activity_consumers::Group;
use activity_operator::dead_letters::list::{self, Listing};
use activity_operator::dead_letters::resubmit::{self, Report, Request};
use activity_operator::dead_letters::show::{self, Shown};
use activity_operator::dead_letters::{Fate, Filter};
use activity_platform::settings::Targets;
use anyhow::Context;
use clap::{Args, Subcommand};

use crate::Verdict;
use crate::cli::{OutputArgs, group_names};
use crate::consume::groups;
use crate::print::{self, count};

/// Bytes in a line of a dump.
const DUMP_BYTES: usize = 16;

/// `activity deadletters …`
#[derive(Debug, Subcommand)]
pub enum DeadLettersVerb {
    /// Count dead letters by group, topic and reason, and say what became of those that were resubmitted.
    List(ListArgs),
    /// Show dead letters as they are: where and why, and the message's key, headers and bytes.
    Show(ShowArgs),
    /// Send dead letters through their group once more, after a fix: each once, however often this is run.
    ///
    /// No other group sees them. The group judges each by itself: one that keeps a history of its users judges it without.
    Resubmit(ResubmitArgs),
}

/// `activity deadletters list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Groups to look at. Default: all.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    groups: Vec<String>,
    /// How to print the result.
    #[command(flatten)]
    output: OutputArgs,
}

/// Which dead letters are meant.
#[derive(Args, Debug)]
struct FilterArgs {
    /// Only of this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only of messages that were read from this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only of messages that were read from this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Only of the message at this offset.
    #[arg(long)]
    offset: Option<i64>,
}

impl FilterArgs {
    fn filter(&self, key: Option<&String>) -> Filter {
        Filter {
            reason: self.reason.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            key: key.cloned(),
        }
    }
}

/// `activity deadletters show`
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The group that rejected them.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    group: String,
    /// Only the one of this key: group/topic/partition/offset.
    key: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// How to print the result.
    #[command(flatten)]
    output: OutputArgs,
}

/// `activity deadletters resubmit`
#[derive(Args, Debug)]
pub struct ResubmitArgs {
    /// The group that rejected them.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    group: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only the one of this key: group/topic/partition/offset.
    #[arg(long)]
    key: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// How to print the result.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs one of the verbs.
pub async fn run(verb: DeadLettersVerb, targets: &Targets) -> anyhow::Result<Verdict> {
    match verb {
        DeadLettersVerb::List(args) => list(args, targets).await,
        DeadLettersVerb::Show(args) => show(args, targets).await,
        DeadLettersVerb::Resubmit(args) => resubmit(args, targets).await,
    }
}

async fn list(args: ListArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let bar = Bar::new();
    let listing = list::run(targets, &groups(&args.groups), bar.update()).await;
    bar.finish();
    let listing = listing?;
    print::result(args.output.output, &listing, || listing_table(&listing))?;
    Ok(Verdict::Done)
}

async fn show(args: ShowArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let filter = args.filter.filter(args.key.as_ref());
    let bar = Bar::new();
    let group = group(&args.group)?;
    let shown = show::run(targets, group, filter, args.limit, bar.update()).await;
    bar.finish();
    let shown = shown?;
    print::result(args.output.output, &shown, || {
        if shown.is_empty() {
            return "no dead letter matches".to_owned();
        }
        let texts: Vec<String> = shown.iter().map(shown_text).collect();
        texts.join("\n")
    })?;
    Ok(Verdict::Done)
}

async fn resubmit(args: ResubmitArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let request = Request {
        filter: args.filter.filter(args.key.as_ref()),
        limit: args.limit,
        dry_run: args.dry_run,
    };
    let bar = Bar::new();
    let group = group(&args.group)?;
    let report = resubmit::run(targets, group, request, bar.update()).await;
    bar.finish();
    let report = report?;
    print::result(args.output.output, &report, || report_text(&report))?;
    Ok(Verdict::Done)
}

fn group(name: &str) -> anyhow::Result<&'static Group> {
    groups(&[name.to_owned()])
        .pop()
        .with_context(|| format!("no group is called {name}"))
}

fn listing_table(listing: &Listing) -> String {
    let rows = listing.summaries.iter().map(|summary| {
        let mut row = vec![
            summary.group.clone(),
            summary.topic.clone(),
            summary.reason.clone(),
            summary.example.clone(),
            summary.first.strftime("%F %T").to_string(),
            summary.last.strftime("%F %T").to_string(),
        ];
        row.extend(
            [
                summary.letters,
                summary.read_again,
                summary.resubmitted,
                summary.processed,
                summary.rejected_again,
                summary.waiting,
            ]
            .map(count),
        );
        row
    });
    let header = [
        "group",
        "topic",
        "reason",
        "example",
        "first (UTC)",
        "last (UTC)",
        "letters",
        "read again",
        "resubmitted",
        "processed",
        "rejected again",
        "waiting",
    ];
    let mut text = print::table(&header, 6, rows);
    let cut: u64 = listing.summaries.iter().map(|summary| summary.cut).sum();
    if cut > 0 {
        let _ = write!(text, "\n{} were too large to be kept whole", count(cut));
    }
    if listing.unreadable > 0 {
        let unreadable = count(listing.unreadable);
        let _ = write!(text, "\n{unreadable} messages there are no dead letters");
    }
    text
}

fn report_text(report: &Report) -> String {
    let verb = if report.dry_run {
        "would be resubmitted"
    } else {
        "resubmitted"
    };
    let mut text = format!(
        "{} of {} dead letters {verb}",
        count(report.resubmitted),
        count(report.matched)
    );
    for (left_out, why) in [
        (report.already, "were resubmitted before"),
        (
            report.read_again,
            "are of messages that a rewind has read again since",
        ),
        (
            report.unsettled,
            "belong to a batch that the group has not settled yet: try again",
        ),
        (
            report.cut,
            "were too large to be kept whole: their messages are in the source topic",
        ),
        (report.beyond_limit, "are beyond the limit"),
    ] {
        if left_out > 0 {
            let _ = write!(text, "\n{} {why}", count(left_out));
        }
    }
    text
}

fn shown_text(shown: &Shown) -> String {
    let mut text = format!(
        "{}\n  reason      {}: {}\n  appended    {}\n  rejected    {} (epoch {}, dead letter {})\n",
        shown.key,
        shown.reason,
        shown.error,
        shown.appended_at,
        shown.rejected_at,
        shown.epoch,
        shown.letter_offset
    );
    for earlier in &shown.earlier {
        let _ = writeln!(
            text,
            "  before      {}, resubmitted {}",
            earlier.key, earlier.resubmitted_at
        );
    }
    if let Some(trail) = &shown.resubmitted {
        let fate = match &trail.fate {
            Fate::Waiting => "waiting for the group".to_owned(),
            Fate::Processed => "processed".to_owned(),
            Fate::Rejected(key) => format!("rejected again: {key}"),
        };
        let _ = writeln!(
            text,
            "  resubmitted {} at offset {}: {fate}",
            trail.at, trail.offset
        );
    }
    if let Some(cut) = &shown.cut {
        let _ = writeln!(
            text,
            "  cut         the message had {} bytes, a key of {} bytes, {} headers",
            cut.payload_bytes, cut.key_bytes, cut.headers
        );
    }
    let key = shown.message_key.as_ref();
    let _ = writeln!(text, "  key         {}", value(key.map(|key| &key.0[..])));
    for header in &shown.headers {
        let bytes = header.value.as_ref().map(|bytes| &bytes.0[..]);
        let _ = writeln!(text, "  header      {}: {}", header.name, value(bytes));
    }
    if let Some(event) = &shown.event {
        let _ = writeln!(text, "  event       {event}");
    }
    match &shown.payload {
        None => text.push_str("  no value\n"),
        Some(payload) => text.push_str(&dump(&payload.0)),
    }
    text
}

/// Bytes of a key or header, in one line.
fn value(bytes: Option<&[u8]>) -> String {
    bytes.map_or("none".to_owned(), |bytes| {
        format!("\"{}\"", bytes.escape_ascii())
    })
}

/// Offset, bytes in hex, and as characters where they are readable.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(DUMP_BYTES).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let readable = |byte: &u8| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        let characters: String = bytes.iter().map(readable).collect();
        let width = 3 * DUMP_BYTES;
        let _ = writeln!(
            text,
            "  {:08x}  {hex:width$} {characters}",
            line * DUMP_BYTES
        );
    }
    text
}

/// How far reading is, where a person looks.
struct Bar(indicatif::ProgressBar);

impl Bar {
    fn new() -> Self {
        let target = if print::is_terminal() {
            indicatif::ProgressDrawTarget::stderr()
        } else {
            indicatif::ProgressDrawTarget::hidden()
        };
        let bar = indicatif::ProgressBar::with_draw_target(None, target);
        let style = "{wide_bar} {human_pos} of {human_len} messages read, {per_sec}";
        if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn update(&self) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let bar = self.0.clone();
        move |read, all| {
            bar.set_length(all);
            bar.set_position(read);
        }
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_shown_in_hex_and_as_characters() {
        assert_eq!(
            super::dump(b"\0ab~\x7f\xff0123456789Z"),
            "  00000000  00 61 62 7e 7f ff 30 31 32 33 34 35 36 37 38 39  .ab~..0123456789\n  \
             00000010  5a                                               Z\n"
        );
    }
}
