//! Messages that one stage of a group derives for the next, against the ledger: what each settled source range gave must be in the internal topic.
//!
//! The topic is read once and counted as the next stage counts it: what a rewind has read again since does not count, and what is not above all that was seen
//! of its source partition is a repetition. Each internal partition so gives the offsets of a source partition in rising order, over all epochs, and a range is
//! judged and forgotten as soon as all of them have passed it. Memory is that of the ranges between the slowest and the fastest internal partition, a page of
//! ranges where there is only one.

mod counting;

use std::collections::{HashMap, VecDeque};

use activity_consumers::Headers as _;
use activity_platform::clickhouse::{self, Database, quoted};
use activity_platform::settings::KafkaSettings;
use activity_runtime::headers::KafkaHeaders;
use activity_runtime::rewinds::Rewinds;
use activity_runtime::source::{Marks, SOURCE_HEADER, Source};
use rdkafka::Message;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use self::counting::{Counting, Open};
use super::findings::Findings;
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
            counting: Counting::new(topic, internal_partitions, of),
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
            internal, offset, ..
        } = message;
        if (self.span.from..self.span.to).contains(&offset) {
            self.reach(offset).await?;
            self.counting.count(offset);
        }
        self.counting.pass(internal, offset, horizon);
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
    rewinds: &Rewinds,
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
    let reader = {
        let rewinds = rewinds.clone();
        tokio::task::spawn_blocking(move || read(log, &rewinds, &index, &sender))
    };
    let mut sources: Vec<SourcePartition<'_>> = partitions
        .iter()
        .map(|(of, span)| {
            SourcePartition::new(
                database,
                of,
                *span,
                rewinds.epoch(),
                topic,
                internal_partitions,
            )
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
    rewinds: &Rewinds,
    index: &HashMap<(String, i32), usize>,
    sender: &Sender<Handful>,
) -> Result<Horizon, Error> {
    let mut marks: Vec<Marks> = vec![Marks::default(); log.partitions()];
    let mut messages = Vec::with_capacity(HANDFUL);
    log.read(|step| {
        let (ended, horizon) = match step {
            Step::Message(message, horizon) => {
                let headers = KafkaHeaders(message.headers());
                let taken = headers
                    .get(SOURCE_HEADER)
                    .and_then(Source::parse)
                    // First: a message that does not count must not hide those that do.
                    .filter(|source| rewinds.count_source(source))
                    .filter(|source| marks[message.partition() as usize].advance(source));
                let known = taken.and_then(|source| {
                    let key = (source.topic.to_owned(), source.partition);
                    Some((*index.get(&key)?, source.offset))
                });
                messages.extend(known.map(|(source, offset)| Derived {
                    source,
                    internal: message.partition(),
                    offset,
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
