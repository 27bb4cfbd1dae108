//! Messages that one stage of a group derives for the next, against the ledger: what each settled source range gave must be in the internal topic.
//!
//! The topic is read once and counted as the next stage counts it: what is not above all that was seen of its source partition is a repetition. Each internal
//! partition so gives the offsets of a source partition in rising order, and a range is judged and forgotten as soon as all of them have passed it. Memory is
//! that of the ranges between the slowest and the fastest internal partition, a page of ranges where there is only one.
//!
//! After a rewind the ranges before its point are the old ones, and so are their messages: of a range those of the highest epoch count. Offsets begin anew
//! with an epoch, so that ranges are then kept until the messages of the group's epoch pass them.

use std::collections::{HashMap, VecDeque};

use activity_platform::clickhouse::{self, Database, quoted};
use activity_platform::settings::KafkaSettings;
use activity_runtime::source::{Marks, SOURCE_HEADER, Source};
use rdkafka::Message;
use rdkafka::message::Headers;
use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::findings::{Findings, Kind, Subject, What};
use super::ledger;
use super::log::{Horizon, Log, Step};
use super::scope::Span;
use crate::Error;
use crate::lag::PartitionLag;

/// Ranges that one query of the ledger gives.
const PAGE_RANGES: usize = 500;
/// Messages that are handed over at once.
const HANDFUL: usize = 4_096;
/// Handfuls that may wait.
const HANDFULS_MAX: usize = 4;

/// A range of the ledger whose messages are being counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Open {
    start: i64,
    end: i64,
    /// Whether the ledger says how many there should be: it did not always.
    is_known: bool,
    expected: u64,
    claimed_at_ms: i64,
    #[serde(default)]
    found: u64,
    /// Epoch of those that were found: the highest.
    #[serde(default)]
    found_epoch: u32,
}

/// Messages of one source partition.
struct Counting {
    topic: String,
    /// The group's epoch.
    epoch: u32,
    open: VecDeque<Open>,
    /// Lowest offset that each internal partition may still give.
    passed: Vec<i64>,
    expired: u64,
    findings: Findings,
}

impl Counting {
    fn new(topic: &str, internal_partitions: usize, of: &PartitionLag, epoch: u32) -> Self {
        Self {
            topic: topic.to_owned(),
            epoch,
            open: VecDeque::new(),
            passed: vec![i64::MIN; internal_partitions],
            expired: 0,
            findings: Findings::new(&of.topic, of.partition),
        }
    }

    fn subject(&self, kind: Kind, note: &'static str) -> Subject {
        Subject::new(kind, What::Derived, &self.topic, note)
    }

    /// A message that was derived from the event at an offset, which the open ranges reach.
    fn count(&mut self, offset: i64, epoch: u32) {
        let index = self.open.partition_point(|range| range.end <= offset);
        match self.open.get_mut(index) {
            Some(range) if range.start <= offset => {
                if epoch > range.found_epoch {
                    (range.found, range.found_epoch) = (0, epoch);
                }
                range.found += u64::from(epoch == range.found_epoch);
            }
            _ if epoch < self.epoch => (),
            _ => {
                let subject = self.subject(
                    Kind::Unexpected,
                    "messages of offsets in no range of the ledger",
                );
                self.findings.add(subject, offset, offset + 1, 1);
            }
        }
    }

    /// An internal partition will give no offset below this one any more.
    fn pass(&mut self, internal: i32, offset: i64, horizon: Horizon) {
        if let Some(passed) = self.passed.get_mut(internal as usize) {
            *passed = offset.max(*passed);
        }
        let all_passed = self.passed.iter().copied().min().unwrap_or(i64::MAX);
        while self
            .open
            .front()
            .is_some_and(|range| range.end <= all_passed)
        {
            if let Some(range) = self.open.pop_front() {
                self.judge(&range, horizon);
            }
        }
    }

    fn judge(&mut self, range: &Open, horizon: Horizon) {
        if !range.is_known {
            return;
        }
        let missing = range.expected.saturating_sub(range.found);
        if missing > 0 && horizon.may_have_lost(range.claimed_at_ms) {
            self.expired += missing;
        } else {
            let subject = self.subject(Kind::Missing, "missing messages");
            self.findings.add(subject, range.start, range.end, missing);
        }
        let subject = self.subject(Kind::Unexpected, "messages beyond the count of the ledger");
        if range.found_epoch == self.epoch {
            let surplus = range.found.saturating_sub(range.expected);
            self.findings.add(subject, range.start, range.end, surplus);
        }
    }
}

/// A source partition: its counts, and the ledger's ranges ahead of them.
struct SourcePartition<'a> {
    database: &'a Database,
    condition: String,
    span: Span,
    next_start: i64,
    at_end: bool,
    counting: Counting,
}

impl<'a> SourcePartition<'a> {
    fn new(
        database: &'a Database,
        of: &PartitionLag,
        span: Span,
        epoch: u32,
        topic: &str,
        internal_partitions: usize,
    ) -> Self {
        Self {
            database,
            condition: ledger::condition(of, epoch, span),
            span,
            next_start: i64::MIN,
            at_end: false,
            counting: Counting::new(topic, internal_partitions, of, epoch),
        }
    }

    /// Reads ranges until one reaches beyond an offset.
    async fn reach(&mut self, offset: i64) -> Result<(), clickhouse::Error> {
        let is_short = |open: &VecDeque<Open>| open.back().is_none_or(|range| range.end <= offset);
        while !self.at_end && is_short(&self.counting.open) {
            self.read_page().await?;
        }
        Ok(())
    }

    async fn read_page(&mut self) -> Result<(), clickhouse::Error> {
        let topic = quoted(&self.counting.topic);
        let sql = format!(
            "SELECT start_offset AS start, end_offset AS end, toBool(mapContains(derived, {topic})) AS is_known, derived[{topic}] AS expected, \
             toUnixTimestamp64Milli(claimed_at) AS claimed_at_ms \
             FROM {{database}}.ledger FINAL WHERE {} AND start_offset >= {} ORDER BY start_offset LIMIT {PAGE_RANGES}",
            self.condition, self.next_start
        );
        let page: Vec<Open> = self.database.rows(&sql).await?;
        self.at_end = page.len() < PAGE_RANGES;
        self.next_start = page.last().map_or(self.next_start, |last| last.start + 1);
        self.counting.open.extend(page);
        Ok(())
    }

    async fn take(&mut self, message: Derived, horizon: Horizon) -> Result<(), clickhouse::Error> {
        let Derived {
            internal,
            offset,
            epoch,
            ..
        } = message;
        if (self.span.from..self.span.to).contains(&offset) {
            self.reach(offset).await?;
            self.counting.count(offset, epoch);
        }
        if epoch == self.counting.epoch {
            self.counting.pass(internal, offset, horizon);
        }
        Ok(())
    }

    /// All messages were counted.
    async fn finish(&mut self, horizon: Horizon) -> Result<(), clickhouse::Error> {
        self.counting.passed.fill(i64::MAX);
        loop {
            self.counting.pass(0, i64::MAX, horizon);
            if self.at_end {
                return Ok(());
            }
            self.read_page().await?;
        }
    }
}

/// One derived message that is not a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Derived {
    /// Which source partition.
    source: usize,
    /// Partition of the internal topic.
    internal: i32,
    /// Offset of the event that it was derived from.
    offset: i64,
    /// Epoch of the group that sent it.
    epoch: u32,
}

/// Some messages, or the end of an internal partition.
struct Handful {
    messages: Vec<Derived>,
    ended: Option<i32>,
    horizon: Horizon,
}

/// What was found about one source partition.
pub struct Report {
    /// Messages that retention has deleted.
    pub expired: u64,
    /// What is wrong.
    pub findings: Findings,
}

/// Compares one internal topic with what the ledger says of the source partitions; `topic` is its full name.
///
/// # Errors
/// If Kafka or ClickHouse does not answer.
pub async fn verify(
    kafka: &KafkaSettings,
    database: &Database,
    topic: &str,
    epoch: u32,
    partitions: &[(PartitionLag, Span)],
) -> Result<Vec<Report>, Error> {
    let index: HashMap<(String, i32), usize> = partitions
        .iter()
        .enumerate()
        .map(|(index, (of, _))| ((of.topic.clone(), of.partition), index))
        .collect();
    let log = {
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || Log::open(&kafka, &topic)).await??
    };
    let internal_partitions = log.partitions();
    let (sender, mut receiver) = channel(HANDFULS_MAX);
    let reader = tokio::task::spawn_blocking(move || read(log, epoch, &index, &sender));
    let mut sources: Vec<SourcePartition<'_>> = partitions
        .iter()
        .map(|(of, span)| {
            SourcePartition::new(database, of, *span, epoch, topic, internal_partitions)
        })
        .collect();
    let counted = count(&mut receiver, &mut sources).await;
    // Else the reader waits for ever for somebody who takes its messages.
    drop(receiver);
    let horizon = reader.await??;
    counted?;
    for source in &mut sources {
        source.finish(horizon).await?;
    }
    Ok(sources
        .into_iter()
        .map(|source| Report {
            expired: source.counting.expired,
            findings: source.counting.findings,
        })
        .collect())
}

async fn count(
    receiver: &mut Receiver<Handful>,
    sources: &mut [SourcePartition<'_>],
) -> Result<(), clickhouse::Error> {
    while let Some(handful) = receiver.recv().await {
        for message in handful.messages {
            if let Some(source) = sources.get_mut(message.source) {
                source.take(message, handful.horizon).await?;
            }
        }
        if let Some(internal) = handful.ended {
            for source in sources.iter_mut() {
                source.counting.pass(internal, i64::MAX, handful.horizon);
            }
        }
    }
    Ok(())
}

/// Reads the topic and hands on what the next stage would take.
fn read(
    log: Log,
    epoch: u32,
    index: &HashMap<(String, i32), usize>,
    sender: &Sender<Handful>,
) -> Result<Horizon, Error> {
    let mut marks: Vec<Marks> = vec![Marks::default(); log.partitions()];
    let mut messages = Vec::with_capacity(HANDFUL);
    log.read(|step| {
        let (ended, horizon) = match step {
            Step::Message(message, horizon) => {
                let taken = header(message)
                    .and_then(Source::parse)
                    .filter(|source| source.epoch <= epoch)
                    .filter(|source| marks[message.partition() as usize].advance(source));
                let known = taken.and_then(|source| {
                    let key = (source.topic.to_owned(), source.partition);
                    Some((*index.get(&key)?, source.offset, source.epoch))
                });
                messages.extend(known.map(|(source, offset, epoch)| Derived {
                    source,
                    internal: message.partition(),
                    offset,
                    epoch,
                }));
                (None, horizon)
            }
            Step::End(partition, horizon) => (Some(partition), horizon),
        };
        if ended.is_none() && messages.len() < HANDFUL {
            return true;
        }
        let handful = Handful {
            messages: std::mem::take(&mut messages),
            ended,
            horizon,
        };
        sender.blocking_send(handful).is_ok()
    })
}

fn header<'a>(message: &'a rdkafka::message::BorrowedMessage<'_>) -> Option<&'a [u8]> {
    message
        .headers()?
        .iter()
        .find(|header| header.key == SOURCE_HEADER)?
        .value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of() -> PartitionLag {
        PartitionLag {
            group: "g".into(),
            topic: "source".into(),
            partition: 0,
            first: 0,
            committed: Some(100),
            claimed: Some(100),
            end: 100,
            lag: 0,
        }
    }

    fn counting(expected: &[u64], internal_partitions: usize) -> Counting {
        let mut counting = Counting::new("internal", internal_partitions, &of(), 1);
        counting.open = expected
            .iter()
            .enumerate()
            .map(|(index, expected)| Open {
                start: index as i64 * 10,
                end: index as i64 * 10 + 10,
                is_known: true,
                expected: *expected,
                claimed_at_ms: 1_000_000,
                found: 0,
                found_epoch: 0,
            })
            .collect();
        counting
    }

    fn given(counting: &mut Counting, internal: i32, offsets: &[i64], horizon: Horizon) {
        for offset in offsets {
            counting.count(*offset, 1);
            counting.pass(internal, *offset, horizon);
        }
        counting.pass(internal, i64::MAX, horizon);
    }

    fn given_in(counting: &mut Counting, epoch: u32, offsets: &[i64]) {
        for offset in offsets {
            counting.count(*offset, epoch);
            counting.pass(0, *offset, Horizon::WHOLE);
        }
        counting.pass(0, i64::MAX, Horizon::WHOLE);
    }

    #[test]
    fn a_message_of_one_range_does_not_stand_in_for_one_of_another() {
        let mut counting = counting(&[2, 1, 0], 1);
        given(&mut counting, 0, &[3, 11, 12], Horizon::WHOLE);
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (1, 1)
        );
        let list = counting.findings.into_list();
        assert_eq!(
            list[0].words,
            "internal, source/0, offsets 0 to 9: missing messages: 1"
        );
        assert_eq!((list[1].start, list[1].end), (10, 20));
    }

    #[test]
    fn ranges_from_before_the_ledger_counted_are_not_judged() {
        let mut counting = counting(&[2], 1);
        counting.open[0].is_known = false;
        given(&mut counting, 0, &[3], Horizon::WHOLE);
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (0, 0)
        );
    }

    #[test]
    fn after_a_rewind_ranges_before_its_point_keep_their_old_messages() {
        let mut counting = counting(&[2, 2, 0], 1);
        counting.epoch = 2;
        for offset in [3, 4, 11, 12, 13, 25] {
            counting.count(offset, 1);
        }
        // Read again from offset 10 on, by code that derives less.
        given_in(&mut counting, 2, &[11, 12]);
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (0, 0)
        );
    }

    #[test]
    fn after_a_rewind_old_messages_do_not_stand_in_for_new_ones() {
        let mut counting = counting(&[0, 2], 1);
        counting.epoch = 2;
        for offset in [11, 12] {
            counting.count(offset, 1);
        }
        given_in(&mut counting, 2, &[11]);
        assert_eq!(counting.findings.missing, 1);
    }

    #[test]
    fn what_retention_has_deleted_is_expired_and_not_missing() {
        let mut counting = counting(&[2], 1);
        given(&mut counting, 0, &[3], Horizon::since(2_000_000));
        assert_eq!((counting.expired, counting.findings.missing), (1, 0));
    }

    #[test]
    fn a_range_is_kept_until_every_internal_partition_has_passed_it() {
        let mut counting = counting(&[2, 2], 2);
        given(&mut counting, 0, &[3, 15], Horizon::WHOLE);
        assert_eq!(counting.open.len(), 2);
        counting.count(4, 1);
        counting.pass(1, 4, Horizon::WHOLE);
        assert_eq!(counting.open.len(), 2);
        counting.count(10, 1);
        counting.pass(1, 10, Horizon::WHOLE);
        assert_eq!(counting.open.len(), 1);
        counting.pass(1, i64::MAX, Horizon::WHOLE);
        assert!(counting.open.is_empty());
        assert_eq!(
            (counting.findings.missing, counting.findings.unexpected),
            (0, 0)
        );
    }

    proptest! {
        /// Against the naive model, which counts the messages of each range by itself.
        #[test]
        fn messages_are_judged_as_the_naive_model_judges_them(
            expected in prop::collection::vec(0_u64..4, 1..8),
            mut first in prop::collection::vec(0_i64..80, 0..12),
            mut second in prop::collection::vec(0_i64..80, 0..12),
        ) {
            first.sort_unstable();
            second.sort_unstable();
            let mut counting = counting(&expected, 2);
            given(&mut counting, 0, &first, Horizon::WHOLE);
            given(&mut counting, 1, &second, Horizon::WHOLE);
            let end = expected.len() as i64 * 10;
            let all = || first.iter().chain(&second);
            let (mut missing, mut unexpected) = (0, all().filter(|offset| **offset >= end).count() as u64);
            for (index, expected) in expected.iter().enumerate() {
                let found = all().filter(|offset| **offset / 10 == index as i64).count() as u64;
                missing += expected.saturating_sub(found);
                unexpected += found.saturating_sub(*expected);
            }
            prop_assert_eq!((counting.findings.missing, counting.findings.unexpected), (missing, unexpected));
        }
    }
}
