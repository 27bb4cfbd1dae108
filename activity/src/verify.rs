//! `activity verify`: the verb, and its report for people.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use activity_operator::verify::{self, GroupReport, Scope};
use activity_platform::settings::Targets;
use clap::Args;
use serde::Serialize;

use crate::Verdict;
use crate::cli::{OutputArgs, group_names};
use crate::consume::groups;
use crate::print::{self, count};

/// Places of one group that people are shown.
const PLACES_SHOWN_MAX: usize = 20;

/// `activity verify`
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Groups to verify. Default: all.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    pub groups: Vec<String>,
    /// Only what was appended to Kafka from then on: 2026-01-31T12:00:00Z, or 15m for a quarter of an hour ago. Ranges of the ledger are verified whole,
    /// so some messages before that time are, too.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only what was appended to Kafka before then, in the same forms; again the ranges that overlap it are verified whole.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A time, as people say it: in RFC 3339, or as so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since 1970-01-01 UTC.
    At(i64),
    /// So long before now.
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(at.as_millisecond()));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            "neither a time like 2026-01-31T12:00:00Z nor a duration like 15m".to_owned()
        })
    }
}

impl Moment {
    /// The time that is meant, milliseconds since 1970-01-01 UTC.
    pub fn at_ms(self, now_ms: i64) -> i64 {
        match self {
            Self::At(at_ms) => at_ms,
            Self::Ago(ago) => {
                now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// `activity verify`
pub async fn run(args: &VerifyArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let scope = Scope {
        since_ms: args.since.map(|since| since.at_ms(now_ms)),
        until_ms: args.until.map(|until| until.at_ms(now_ms)),
    };
    if let (Some(since_ms), Some(until_ms)) = (scope.since_ms, scope.until_ms) {
        anyhow::ensure!(
            since_ms < until_ms,
            "--since is not before --until: nothing lies between them"
        );
    }
    let bar = print::bar(
        "{wide_bar} {human_pos} of {human_len} messages, {msg}",
        Some(0),
    );
    let shown = bar.clone();
    let verified = verify::run_within(targets, &groups(&args.groups), scope, move |progress| {
        shown.set_length(progress.total);
        shown.set_position(progress.messages);
        shown.set_message(progress.now.clone());
    })
    .await;
    bar.finish_and_clear();
    let groups = verified?;
    let clean = groups.iter().all(GroupReport::is_clean);
    print::result(args.output.output, &Verified { groups: &groups }, || {
        table(&groups)
    })?;
    Ok(if clean { Verdict::Done } else { Verdict::Found })
}

#[derive(Serialize)]
struct Verified<'a> {
    groups: &'a [GroupReport],
}

/// The reconciliation for people: a line for each group, then what is wrong and where.
pub fn table(groups: &[GroupReport]) -> String {
    let rows = groups.iter().map(|group| {
        let rows: Vec<String> = group
            .rows
            .iter()
            .map(|(table, rows)| format!("{table} {}", count(*rows)))
            .collect();
        let mut row = vec![group.group.clone(), rows.join(", ")];
        row.extend(
            [
                group.events,
                group.dead_letters,
                group.missing,
                group.duplicate,
                group.unexpected,
                group.lost,
            ]
            .map(count),
        );
        row.push(count(group.lag));
        row
    });
    let mut text = print::table(
        &[
            "group",
            "rows",
            "events",
            "dead letters",
            "missing",
            "duplicate",
            "unexpected",
            "lost",
            "lag",
        ],
        2,
        rows,
    );
    for group in groups {
        text += &places(group);
    }
    text
}

/// What is wrong with a group and where: as much as a person reads.
fn places(group: &GroupReport) -> String {
    let mut text = String::new();
    let name = &group.group;
    for finding in group.findings.iter().take(PLACES_SHOWN_MAX) {
        let _ = write!(text, "\n{name}: {}", finding.words);
    }
    let more =
        group.findings.len().saturating_sub(PLACES_SHOWN_MAX) as u64 + group.findings_left_out;
    if more > 0 {
        let _ = write!(
            text,
            "\n{name}: {} more places; `-o json` names {}",
            count(more),
            if group.findings_left_out > 0 {
                "more of them"
            } else {
                "all"
            }
        );
    }
    if group.expired > 0 {
        let _ = write!(
            text,
            "\n{name}: {} dead letters, derived messages or offsets without a message are past their retention and were not compared",
            count(group.expired)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity_operator::verify::{Finding, Kind, Subject, What};

    #[test]
    fn a_moment_is_a_time_or_so_long_ago() {
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Moment::At(1_000)));
        assert_eq!("15m".parse(), Ok(Moment::Ago(Duration::from_secs(15 * 60))));
        for wrong in ["yesterday", "", "15", "2026-01-31"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
        assert_eq!(Moment::Ago(Duration::from_secs(1)).at_ms(5_000), 4_000);
    }

    #[test]
    fn people_see_the_first_places_and_how_many_more_there_are() {
        let finding = Finding {
            subject: Subject::new(Kind::Missing, What::Table, "clicks", "missing rows"),
            topic: "activity.clicks".into(),
            partition: 0,
            start: 0,
            end: 1,
            count: 1,
            words: "clicks, activity.clicks/0, offset 0: missing rows: 1".into(),
        };
        let mut group = GroupReport {
            group: "analytics".into(),
            findings: vec![finding; PLACES_SHOWN_MAX],
            ..GroupReport::default()
        };
        assert_eq!(places(&group).lines().count(), 1 + PLACES_SHOWN_MAX);
        group.findings.push(group.findings[0].clone());
        assert!(places(&group).ends_with("analytics: 1 more places; `-o json` names all"));
        group.findings_left_out = 2_000;
        assert!(
            places(&group).ends_with("analytics: 2 001 more places; `-o json` names more of them")
        );
    }
}
