//! `activity deadletters resubmit`: sends letters through their group once more, each once however often the command runs.
//!
//! The group's topic of resubmits is both the way and the memory: it is read first, and what it has is left out. A command that was killed, or two at once, can
//! only send a letter twice; the group takes it once. So there is no lock, and no transaction, whose markers would be holes in the log.
//!
//! What is left: a process that dies between writing a letter and settling its batch, and whose successor then takes the message after all because its schema
//! came up in between, leaves a letter of a message that is processed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activity_consumers::Group;
use activity_platform::clickhouse::Database;
use activity_platform::kafka;
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::cycle::now_ms;
use activity_runtime::dead_letter::{Letter, NAMES, TOPIC_BYTES_MAX};
use activity_runtime::headers::{KafkaHeaders, MessageHeaders};
use activity_runtime::resubmit::{LetterSet, RESUBMIT_HEADER, Resubmit};
use activity_runtime::rewinds::Rewinds;
use activity_runtime::standing::{Role, Standing};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde::Serialize;

use super::{Committed, Filter, Topics};
use crate::Error;
use crate::log::{self, Progress};

/// Bytes that wait in the producer.
const QUEUE_KB_MAX: &str = "32768";
/// How long one poll of the producer waits.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// What is to be resubmitted.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which letters.
    pub filter: Filter,
    /// At most so many.
    pub limit: Option<u64>,
    /// Only say how many.
    pub dry_run: bool,
}

/// What was resubmitted, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The group's name.
    pub group: String,
    /// Nothing was sent.
    pub dry_run: bool,
    /// Letters that match, each counted once.
    pub matched: u64,
    /// Sent now, or to be sent.
    pub resubmitted: u64,
    /// Left out: resubmitted before.
    pub already: u64,
    /// Left out: a rewind has read their messages again since, or was given up.
    pub read_again: u64,
    /// Left out: the group has not settled the batch that they belong to; try again.
    pub unsettled: u64,
    /// Left out: too large to have been written whole. Their messages are in the source topic.
    pub cut: u64,
    /// Left out: beyond the limit.
    pub beyond_limit: u64,
}

/// Resubmits dead letters of a group.
///
/// # Errors
/// If Kafka or ClickHouse does not answer, or a message was not acknowledged: run it again, which sends the rest.
pub async fn run(
    targets: &Targets,
    group: &'static Group,
    request: Request,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Report, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let standing = Standing::of(&database, group.name).await?;
    let rewinds = standing
        .rewinds(Role::Live)
        .ok_or_else(|| Error::NotResubmitted(standing.why_not(group.name)))?;
    let kafka = targets.kafka.clone();
    let resubmit = move || resubmit(&kafka, group, &request, rewinds, &progress);
    tokio::task::spawn_blocking(resubmit).await?
}

fn resubmit(
    kafka: &KafkaSettings,
    group: &'static Group,
    request: &Request,
    rewinds: Rewinds,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    let topics = Topics::of(group, kafka);
    let mut choice = Choice {
        sent: sent(kafka, &topics, progress)?,
        seen: LetterSet::default(),
        committed: Committed::of(group, kafka)?,
        rewinds,
        limit: request.limit.unwrap_or(u64::MAX),
        report: Report {
            group: group.name.to_owned(),
            dry_run: request.dry_run,
            ..Report::default()
        },
    };
    let sender = Sender::new(kafka, &topics.resubmits)?;
    log::read(kafka, &topics.letters, 0, progress, |message| {
        let headers = KafkaHeaders(message.headers());
        let letter = Letter::parse(&headers).filter(|letter| {
            request
                .filter
                .matches(group.name, &kafka.topic_prefix, letter)
        });
        if let Some(letter) = letter
            && choice.takes(&letter)
            && !request.dry_run
        {
            sender.send(message, &headers, &letter)?;
        }
        Ok::<_, Error>(ControlFlow::Continue(()))
    })?;
    sender.finish()?;
    Ok(choice.report)
}

/// What the topic of resubmits has.
fn sent(
    kafka: &KafkaSettings,
    topics: &Topics,
    progress: Progress<'_>,
) -> Result<LetterSet, Error> {
    let mut sent = LetterSet::default();
    log::read(kafka, &topics.resubmits, 0, progress, |message| {
        if let Some(of) = Resubmit::at(&KafkaHeaders(message.headers()), 0) {
            sent.insert(of.epoch, of.topic, of.partition, of.offset);
        }
        Ok::<_, Error>(ControlFlow::Continue(()))
    })?;
    Ok(sent)
}

/// Decides which letters are sent, and counts why others are not.
struct Choice {
    sent: LetterSet,
    seen: LetterSet,
    committed: Committed,
    rewinds: Rewinds,
    limit: u64,
    report: Report,
}

impl Choice {
    fn takes(&mut self, letter: &Letter<'_>) -> bool {
        let (epoch, topic, partition, offset) =
            (letter.epoch, letter.topic, letter.partition, letter.offset);
        if !self.seen.insert(epoch, topic, partition, offset) {
            return false;
        }
        let report = &mut self.report;
        report.matched += 1;
        let counted = if self.sent.contains(epoch, topic, partition, offset) {
            &mut report.already
        } else if !self.rewinds.count(epoch, topic, partition, offset) {
            &mut report.read_again
        } else if letter.cut.is_some() {
            &mut report.cut
        } else if !self.committed.is_past(topic, partition, offset) {
            &mut report.unsettled
        } else if report.resubmitted >= self.limit {
            &mut report.beyond_limit
        } else {
            report.resubmitted += 1;
            return true;
        };
        *counted += 1;
        false
    }
}

/// Acknowledgements of what was sent.
#[derive(Default)]
struct Acknowledged {
    outstanding: AtomicU64,
    failed: AtomicU64,
}

struct Context(Arc<Acknowledged>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::client_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::error!(%error, "a dead letter was not resubmitted");
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.0.outstanding.fetch_sub(1, Ordering::Release);
    }
}

/// Sends letters to the topic of resubmits, in order.
struct Sender<'a> {
    producer: BaseProducer<Context>,
    acknowledged: Arc<Acknowledged>,
    topic: &'a str,
}

impl<'a> Sender<'a> {
    fn new(settings: &KafkaSettings, topic: &'a str) -> Result<Self, Error> {
        let acknowledged = Arc::new(Acknowledged::default());
        let mut config = kafka::producer_config(settings).map_err(kafka::Error::from)?;
        config
            .set("message.max.bytes", TOPIC_BYTES_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KB_MAX)
            .set("linger.ms", "5")
            .set("enable.gapless.guarantee", "true");
        let context = Context(acknowledged.clone());
        Ok(Self {
            producer: BaseProducer::from_config_and_context(&config, context)
                .map_err(kafka::Error::from)?,
            acknowledged,
            topic,
        })
    }

    fn send(
        &self,
        message: &BorrowedMessage<'_>,
        headers: &dyn MessageHeaders,
        letter: &Letter<'_>,
    ) -> Result<(), Error> {
        let mut record = BaseRecord::<[u8], [u8]>::to(self.topic)
            .partition(0)
            .headers(resubmit_headers(headers, letter, now_ms()));
        record.key = letter.key;
        record.payload = message.payload();
        self.acknowledged
            .outstanding
            .fetch_add(1, Ordering::Relaxed);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    self.producer.poll(POLL_TIMEOUT);
                }
                Err((error, _)) => return Err(kafka::Error::from(error).into()),
            }
        }
        self.producer.poll(Duration::ZERO);
        self.failed()
    }

    /// Waits until all is acknowledged.
    fn finish(&self) -> Result<(), Error> {
        while self.acknowledged.outstanding.load(Ordering::Acquire) > 0 {
            self.producer.poll(POLL_TIMEOUT);
            if let Some((code, reason)) = self.producer.client().fatal_error() {
                return Err(Error::NotResubmitted(format!("{code}: {reason}")));
            }
        }
        self.failed()
    }

    fn failed(&self) -> Result<(), Error> {
        match self.acknowledged.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(Error::NotResubmitted(format!(
                "{failed} messages were not acknowledged"
            ))),
        }
    }
}

/// Where the letter's message was read, then the message's own headers.
fn resubmit_headers(headers: &dyn MessageHeaders, letter: &Letter<'_>, at_ms: i64) -> OwnedHeaders {
    let from = Resubmit {
        epoch: letter.epoch,
        topic: letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        at_ms,
    }
    .to_string();
    let first = OwnedHeaders::new().insert(Header {
        key: RESUBMIT_HEADER,
        value: Some(from.as_bytes()),
    });
    (NAMES.len()..)
        .map_while(|place| headers.at(place))
        .fold(first, |all, (key, value)| all.insert(Header { key, value }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lag::PartitionLag;

    fn choice(limit: u64) -> Choice {
        let committed = PartitionLag {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            first: 0,
            committed: Some(100),
            claimed: Some(100),
            end: 200,
            lag: 100,
        };
        Choice {
            sent: LetterSet::default(),
            seen: LetterSet::default(),
            committed: Committed(vec![committed]),
            rewinds: Rewinds::new(1, []),
            limit,
            report: Report::default(),
        }
    }

    fn letter(epoch: u32, offset: i64) -> Letter<'static> {
        Letter {
            reason: "bad",
            error: "",
            topic: "t",
            partition: 0,
            offset,
            appended_at_ms: 0,
            epoch,
            key: None,
            cut: None,
        }
    }

    #[test]
    fn each_letter_is_taken_once_and_each_that_is_left_out_is_counted_with_its_cause() {
        let mut choice = choice(2);
        choice.sent.insert(1, "t", 0, 1);
        let cut = Letter {
            cut: Some(activity_runtime::dead_letter::Cut {
                payload_bytes: 1,
                key_bytes: 0,
                headers: 0,
            }),
            ..letter(1, 2)
        };
        let letters = [
            letter(1, 0),
            letter(1, 0),
            letter(1, 1),
            cut,
            letter(2, 3),
            letter(1, 100),
            letter(1, 4),
            letter(1, 5),
        ];
        let taken: Vec<bool> = letters.iter().map(|letter| choice.takes(letter)).collect();
        assert_eq!(
            taken,
            [true, false, false, false, false, false, true, false]
        );
        let expected = Report {
            matched: 7,
            resubmitted: 2,
            already: 1,
            cut: 1,
            read_again: 1,
            unsettled: 1,
            beyond_limit: 1,
            ..Report::default()
        };
        assert_eq!(choice.report, expected);
    }
}
