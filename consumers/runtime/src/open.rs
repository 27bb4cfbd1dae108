//! Opening a partition: asks Kafka and ClickHouse where it stands, and fetches its state. Retries until it has an answer or the partition is revoked.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use activity_platform::clickhouse::{self, Database};
use activity_platform::fault::{self, Point};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::anew;
use crate::backoff::backoff;
use crate::claim::{Claim, Range};
use crate::membership::Membership;
use crate::rewinds::Rewinds;
use crate::standing::{Role, Standing};
use crate::start::{Start, Witnesses, decide, over_rows, unvouched_from};
use crate::store::{self, PartitionOf, Snapshot};

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition to be opened.
#[derive(Clone)]
pub struct Opening {
    /// Number of the assignment.
    pub assignment: u64,
    /// The group's name.
    pub group: &'static str,
    /// Full name of the topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// The group's tables, as this process writes them.
    pub tables: Vec<String>,
    /// The group's epoch, and how it came to it.
    pub rewinds: Arc<Rewinds>,
    /// In whose name the partition is read.
    pub role: Role,
    /// Cancelled, so that the process begins anew, where the group is not in that epoch any more.
    pub over: CancellationToken,
    /// Fingerprint that a snapshot must have; None: the group keeps no state.
    pub fingerprint: Option<String>,
}

impl Opening {
    /// The partition, as the tables name it.
    pub(crate) fn of(&self) -> PartitionOf<'_> {
        PartitionOf {
            group: self.group,
            topic: &self.topic,
            partition: self.partition,
        }
    }
}

/// Where a partition stands.
#[derive(Debug)]
pub struct Opened {
    /// How it goes on.
    pub start: Start,
    /// The offset that is committed, if one is.
    pub committed: Option<i64>,
    /// First offset that the log has.
    pub log_first: i64,
    /// The state to begin with, if there is one that fits, and the slot that it lies in.
    pub snapshot: Option<(u8, Snapshot)>,
    /// A snapshot was found but does not fit this code.
    pub unfit_snapshot: bool,
    /// When opening began.
    pub began: Instant,
    /// How long it took to fetch the snapshot.
    pub snapshot_read: Duration,
}

/// Why it is not known where a partition stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    ClickHouse(#[from] clickhouse::Error),
    #[error("a worker thread ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Rewound(String),
}

/// What is said to the loop of a partition, with the number of the assignment.
pub type OpenEnd = (u64, OpenState);

/// What is known of a partition.
pub enum OpenState {
    /// Where the partition stands.
    Opened(Box<Opened>),
    /// What stands in the way; it is tried again.
    Waiting(String),
    /// It is being read, but is not the one that was opened.
    Stop(String),
}

/// Opens a partition and says so; says nothing more once it is revoked. Nobody listens once the loop is gone.
pub async fn open(
    opening: Opening,
    consumer: Arc<BaseConsumer<Membership>>,
    database: Database,
    cancel: CancellationToken,
    said: Sender<OpenEnd>,
) {
    let began = Instant::now();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let outcome = tokio::select! {
            () = cancel.cancelled() => return,
            outcome = try_open(&opening, &consumer, &database, began) => outcome,
        };
        match outcome {
            Ok(opened) => {
                let _ = said.send((opening.assignment, OpenState::Opened(Box::new(opened))));
                return;
            }
            Err(error) => {
                let _ = said.send((opening.assignment, OpenState::Waiting(error.to_string())));
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff(attempt)) => (),
        }
    }
}

async fn try_open(
    opening: &Opening,
    consumer: &Arc<BaseConsumer<Membership>>,
    database: &Database,
    began: Instant,
) -> Result<Opened, OpenError> {
    let epoch = opening.rewinds.epoch();
    // Asked after the partition was assigned: a rewind that began before saw this member, one that begins later will.
    let standing = Standing::of(database, opening.group).await?;
    if standing.rewinds(opening.role).as_ref() != Some(&*opening.rewinds) {
        opening.over.cancel();
        return Err(OpenError::Rewound(standing.why_not(opening.group)));
    }
    let of = opening.of();
    let (asked, topic, partition) = (consumer.clone(), opening.topic.clone(), opening.partition);
    let kafka = tokio::task::spawn_blocking(move || kafka_witnesses(&asked, &topic, partition));
    let ledger_end = store::ledger_end(database, of, epoch).await?;
    let (committed, log_first, log_next) = kafka.await??;
    let mut start = decide(
        &Witnesses {
            committed,
            ledger_end,
            log_first,
            log_next,
        },
        epoch,
    );
    if !matches!(start, Start::Stop { .. })
        && let Some(why) = anew::look(opening, consumer, database).await?
    {
        start = Start::Stop { why };
    }
    if let Some(from) = unvouched_from(&start, committed, epoch) {
        let log = Range {
            start: log_first,
            end: log_next,
        };
        let tables = &opening.tables;
        let last =
            store::last_offset(database, tables, of.topic, of.partition, from, epoch).await?;
        if let Some(last) = last {
            start = over_rows(start, last, log);
        }
    }
    let mut opened = Opened {
        start,
        committed: committed.map(|(offset, _)| offset),
        log_first,
        snapshot: None,
        unfit_snapshot: false,
        began,
        snapshot_read: Duration::ZERO,
    };
    let offset = match &opened.start {
        Start::At { offset, .. } => *offset,
        Start::Redo { range, .. } => range.start,
        Start::Stop { .. } => return Ok(opened),
    };
    if let Some(fingerprint) = &opening.fingerprint {
        let asked = Instant::now();
        let found = store::read_snapshot(database, of, epoch, offset, fingerprint).await?;
        opened.unfit_snapshot = found
            .as_ref()
            .is_some_and(|(_, snapshot)| snapshot.fingerprint != *fingerprint);
        opened.snapshot_read = asked.elapsed();
        fault::reach(Point::SnapshotRead);
        opened.snapshot = found.filter(|(_, snapshot)| snapshot.fingerprint == *fingerprint);
    }
    Ok(opened)
}

type Committed = Option<(i64, Option<Claim>)>;

fn kafka_witnesses(
    consumer: &BaseConsumer<Membership>,
    topic: &str,
    partition: i32,
) -> Result<(Committed, i64, i64), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let list = consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
    let committed = list
        .elements()
        .first()
        .and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some((offset, Claim::parse(element.metadata()))),
            _ => None,
        });
    let (first, next) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
    Ok((committed, first, next))
}
