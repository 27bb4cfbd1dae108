//! `activity verify`: compares Kafka, ledger and tables, for each group, topic, partition and table, while traffic flows: only what lies below the committed
//! offset counts.
//!
//! - The ledger's ranges tile [first, committed) without gap or overlap, and hold as many messages as offsets ([`ledger`]), but for those that hold none ([`holes`]).
//! - Each table holds each (`_topic`, `_partition`, `_offset`, `_n`) once, and of each range as many rows as the ledger counted; none of another epoch, none
//!   outside of the ranges ([`tables`], [`segments`]).
//! - Each reject is in the dead-letter topic ([`dead_letters`]), each derived message in the internal topic ([`derived`]).
//!
//! Memory is bounded here and in ClickHouse: ranges are read page by page, rows are counted window by window on the server, topics are read once as a stream.
//! Of the dead letters alone the offsets are kept, as compressed bitmaps.

mod dead_letters;
mod derived;
mod findings;
mod holes;
mod ledger;
mod log;
mod progress;
mod scope;
mod segments;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use activity_consumers::Group;
use activity_platform::clickhouse::Database;
use activity_platform::settings::Targets;
use activity_runtime::rewinds::Rewinds;
use activity_runtime::standing::{Phase, Standing};
use activity_schemas::Content;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::Error;
use crate::lag::{self, PartitionLag};
use dead_letters::{DeadLetters, Letters, PartitionLetters};
use findings::{FINDINGS_MAX, Findings};
pub use findings::{Finding, Kind, Subject, What};
use holes::Holes;
use ledger::{Pager, Tiling};
use progress::Meter;
pub use progress::Progress;
pub use scope::Scope;
use scope::{Span, Times};
use tables::{Strangers, TableRows};

/// Groups that are verified side by side.
const GROUPS_AT_ONCE: usize = 2;
/// Partitions of one group that are verified side by side: each asks ClickHouse one question at a time.
const PARTITIONS_AT_ONCE: usize = 2;
/// How often a group is verified anew because it was rewound meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// One group, over all its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The group's name.
    pub group: String,
    /// Messages below the committed offsets that the group has read.
    pub events: u64,
    /// Rows below the committed offsets, by table.
    pub rows: BTreeMap<String, u64>,
    /// Messages of these that are in the dead-letter topic.
    pub dead_letters: u64,
    /// Offsets, rows and messages that should be there and are not.
    pub missing: u64,
    /// Offsets and rows that are there more than once.
    pub duplicate: u64,
    /// Rows and messages that the ledger does not know.
    pub unexpected: u64,
    /// Messages that the log no longer had when the group came to read them.
    pub lost: u64,
    /// Dead letters and derived messages that retention has deleted, so that they cannot be compared; also offsets for which the ledger counts no message, where
    /// the log that could tell whether there was one is gone.
    pub expired: u64,
    /// Messages above the committed offsets.
    pub lag: i64,
    /// Where something is wrong.
    pub findings: Vec<Finding>,
    /// Places beyond those that `findings` names; all are counted.
    pub findings_left_out: u64,
}

impl GroupReport {
    /// Whether nothing is missing, doubled or unexpected.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicate == 0 && self.unexpected == 0
    }

    fn find(&mut self, findings: Findings) {
        self.missing += findings.missing;
        self.duplicate += findings.duplicate;
        self.unexpected += findings.unexpected;
        self.findings_left_out += findings.left_out;
        self.findings.extend(findings.into_list());
        let kept = self.findings.len().min(FINDINGS_MAX);
        self.findings_left_out += (self.findings.len() - kept) as u64;
        self.findings.truncate(kept);
    }
}

/// Verifies all that groups have done.
///
/// # Errors
/// If Kafka or ClickHouse does not answer. What is wrong with the data is in the reports.
pub async fn run(targets: &Targets, groups: &[&'static Group]) -> Result<Vec<GroupReport>, Error> {
    run_within(targets, groups, Scope::default(), |_| ()).await
}

/// Verifies what groups have done with the messages of a time range: all ranges of the ledger that overlap it, each as a whole. `tell` hears how far it is.
///
/// # Errors
/// As [`run`].
pub async fn run_within(
    targets: &Targets,
    groups: &[&'static Group],
    scope: Scope,
    tell: impl Fn(&Progress) + Send + Sync + 'static,
) -> Result<Vec<GroupReport>, Error> {
    let run = Run {
        targets,
        database: Database::new(&targets.clickhouse)?.patient(),
        scope,
        meter: Arc::new(Meter::new(tell)),
    };
    let verified: Vec<_> = groups.iter().map(|group| run.verify(group)).collect();
    stream::iter(verified)
        .buffered(GROUPS_AT_ONCE)
        .try_collect()
        .await
}

/// What all groups have in common.
struct Run<'a> {
    targets: &'a Targets,
    database: Database,
    scope: Scope,
    meter: Arc<Meter>,
}

/// What is known of a group before its partitions are looked at.
struct Known {
    group: &'static Group,
    rewinds: Rewinds,
    letters: DeadLetters,
    strangers: Vec<Strangers>,
}

/// What was found about one partition.
struct PartitionReport {
    events: u64,
    lost: u64,
    expired: u64,
    letters: Letters,
    rows: Vec<(&'static str, u64)>,
    findings: Findings,
}

impl Run<'_> {
    async fn verify(&self, group: &'static Group) -> Result<GroupReport, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let rewinds = self.settled(group).await?;
            let report = self.verify_epoch(group, &rewinds).await?;
            if self.settled(group).await? == rewinds {
                return Ok(report);
            }
        }
        Err(Error::Rewound {
            group: group.name.to_owned(),
        })
    }

    /// The group's epoch and what led to it, as long as all its tables are of one.
    async fn settled(&self, group: &'static Group) -> Result<Rewinds, Error> {
        let standing = Standing::of(&self.database, group.name).await?;
        match standing.unfinished() {
            Some(rewind) if rewind.phase == Phase::Exchanging => Err(Error::Exchanging {
                group: group.name.to_owned(),
            }),
            _ => Ok(standing.finished()),
        }
    }

    async fn verify_epoch(
        &self,
        group: &'static Group,
        rewinds: &Rewinds,
    ) -> Result<GroupReport, Error> {
        let epoch = rewinds.epoch();
        // Taken before all else is looked at: what is committed then stays there.
        let lags = lag::gather(&self.targets.kafka, &[group]).await?;
        let partitions = self.spans(&lags, epoch).await?;
        let mut report = GroupReport {
            group: group.name.to_owned(),
            lag: lags.iter().map(|lag| lag.lag).sum(),
            rows: group
                .tables
                .iter()
                .map(|table| (table.name.to_owned(), 0))
                .collect(),
            ..GroupReport::default()
        };
        let known = self.know(group, rewinds, &lags).await?;
        for strangers in &known.strangers {
            let mut findings = Findings::new(&strangers.topic, strangers.partition);
            strangers.judge(epoch, &mut findings);
            report.find(findings);
        }
        let verified: Vec<_> = partitions
            .iter()
            .map(|(of, span)| self.verify_partition(&known, of, *span))
            .collect();
        let mut verified = stream::iter(verified).buffered(PARTITIONS_AT_ONCE);
        while let Some(partition) = verified.try_next().await? {
            report.events += partition.events;
            report.lost += partition.lost;
            report.dead_letters += partition.letters.there;
            report.expired += partition.expired + partition.letters.expired;
            for (table, rows) in partition.rows {
                *report.rows.entry(table.to_owned()).or_default() += rows;
            }
            report.find(partition.findings);
        }
        self.verify_derived(&known, &partitions, &mut report)
            .await?;
        Ok(report)
    }

    async fn spans(
        &self,
        lags: &[PartitionLag],
        epoch: u32,
    ) -> Result<Vec<(PartitionLag, Span)>, Error> {
        let times = Times::ask(&self.targets.kafka, self.scope, lags).await?;
        let mut partitions = Vec::new();
        for of in lags {
            if let Some(span) = scope::span(&self.database, of, epoch, self.scope, &times).await? {
                self.meter.expect(span.messages());
                partitions.push((of.clone(), span));
            }
        }
        Ok(partitions)
    }

    async fn know(
        &self,
        group: &'static Group,
        rewinds: &Rewinds,
        lags: &[PartitionLag],
    ) -> Result<Known, Error> {
        self.meter.now(|| format!("{}: dead letters", group.name));
        let (kafka, counting) = (self.targets.kafka.clone(), rewinds.clone());
        let read = move || DeadLetters::read(&kafka, group.name, &counting);
        let letters = tokio::task::spawn_blocking(read).await??;
        let mut strangers = Vec::new();
        for table in group.tables {
            self.meter
                .now(|| format!("{}: rows of other epochs in {}", group.name, table.name));
            strangers.extend(
                tables::strangers(
                    &self.database,
                    group.name,
                    table.name,
                    rewinds.epoch(),
                    lags,
                    self.scope,
                )
                .await?,
            );
        }
        Ok(Known {
            group,
            rewinds: rewinds.clone(),
            letters,
            strangers,
        })
    }

    async fn verify_partition(
        &self,
        known: &Known,
        of: &PartitionLag,
        span: Span,
    ) -> Result<PartitionReport, Error> {
        let epoch = known.rewinds.epoch();
        let letters: PartitionLetters<'_> = known.letters.of(&of.topic, of.partition);
        let mut tables: Vec<TableRows<'_>> = known
            .group
            .tables
            .iter()
            .map(|table| TableRows::new(&self.database, table.name, of, epoch))
            .collect();
        let mut report = PartitionReport {
            events: 0,
            lost: 0,
            expired: 0,
            letters: Letters::default(),
            rows: Vec::new(),
            findings: Findings::new(&of.topic, of.partition),
        };
        let mut tiling = Tiling::new(span);
        let mut holes = Holes::new(&self.targets.kafka, of);
        let mut pager = Pager::new(&self.database, of, epoch, span);
        while let Some(window) = pager.next().await? {
            self.meter
                .now(|| format!("{}: {}/{}", of.group, of.topic, of.partition));
            for range in &window.ranges {
                report.events += range.events;
                report.lost += range.lost;
                let excused = holes.excused(range).await?;
                report.expired += excused.expired;
                tiling.take(range, excused, &mut report.findings);
                let ends_at_point = known.rewinds.has_point(&of.topic, of.partition, range.end);
                report.letters += letters.judge(range, ends_at_point, &mut report.findings);
            }
            for table in &mut tables {
                let rejected = |start, end| letters.within(start, end);
                table
                    .compare(&window, rejected, &mut report.findings)
                    .await?;
            }
            self.meter
                .advance(window.ranges.iter().map(|range| range.offsets()).sum());
        }
        tiling.finish(&mut report.findings);
        report.rows = tables.iter().map(TableRows::found).collect();
        Ok(report)
    }

    async fn verify_derived(
        &self,
        known: &Known,
        partitions: &[(PartitionLag, Span)],
        report: &mut GroupReport,
    ) -> Result<(), Error> {
        let kafka = &self.targets.kafka;
        let internal = known
            .group
            .reads
            .iter()
            .filter(|topic| topic.content == Content::Derived);
        for topic in internal {
            let topic = topic.full_name(&kafka.topic_prefix);
            self.meter.now(|| format!("{}: {topic}", known.group.name));
            let reports =
                derived::verify(kafka, &self.database, &topic, &known.rewinds, partitions).await?;
            for derived in reports {
                report.expired += derived.expired;
                report.find(derived.findings);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_so_many_places_and_counts_all() {
        let mut report = GroupReport::default();
        assert!(report.is_clean());
        for partition in 0..3 {
            let mut findings = Findings::new("t", partition);
            for offset in 0..FINDINGS_MAX as i64 - 1 {
                let subject = Subject::new(Kind::Missing, What::Ledger, "ledger", "offsets");
                findings.add(subject, 2 * offset, 2 * offset + 1, 1);
            }
            report.find(findings);
        }
        let all = 3 * (FINDINGS_MAX as u64 - 1);
        assert_eq!(report.missing, all);
        assert_eq!(report.findings.len(), FINDINGS_MAX);
        assert_eq!(report.findings_left_out, all - FINDINGS_MAX as u64);
        assert!(!report.is_clean());
    }
}
