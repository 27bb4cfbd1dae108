//! The loop of one group: one thread polls, feeds lanes, claims and commits; inserts run beside it on the async runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use activity_consumers::{Group, Headers};
use activity_platform::clickhouse::Database;
use activity_platform::health::Readiness;
use activity_platform::kafka;
use activity_platform::metrics::Metrics;
use activity_platform::registry::{self, Registry};
use activity_platform::settings::{ClickHouseSettings, KafkaSettings, RegistrySettings};
use activity_platform::{clickhouse, metrics};
use activity_schemas::Topic;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;
use crate::cycle::{Outcome, Sink};
use crate::decoding::Schemas;
use crate::delivery::Delivery;
use crate::lane::{Assignment, Handled, Lane, Message, MessageHeaders, Phase};
use crate::membership::{Change, Membership, Partition};
use crate::open::{Opened, Opening, open};
use crate::settings::RuntimeSettings;
use crate::start::Start;
use crate::store;

/// How long one poll waits for a message: bounds how late a finished cycle is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(10);
/// Messages between two looks at everything else.
const POLL_MESSAGES_MAX: usize = 1_000;
/// Metrics and pauses are brought up to date this often.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(200);
/// How long the loop waits for the registry before the partition is paused and others go on.
const REGISTRY_WAIT: Duration = Duration::from_secs(1);
/// A partition that needs an operator is looked at again this often.
const STOPPED_FOR: Duration = Duration::from_secs(30);
/// How long one seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a group's process talks to.
pub struct Clients {
    /// Kafka.
    pub kafka: KafkaSettings,
    /// The registry.
    pub registry: RegistrySettings,
    /// ClickHouse.
    pub clickhouse: ClickHouseSettings,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Readiness of the process.
    pub readiness: Readiness,
}

/// Why a group cannot run, or cannot run on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Kafka cannot be used as configured.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The registry cannot be used as configured.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// ClickHouse cannot be used as configured.
    #[error(transparent)]
    ClickHouse(#[from] clickhouse::Error),
    /// The Kafka client met an error that it cannot come back from.
    #[error("kafka client: {0}")]
    Fatal(String),
}

/// The loop's state; `flush.rs` holds the half that claims and commits.
pub(crate) struct Driver {
    pub(crate) group: &'static Group,
    pub(crate) settings: RuntimeSettings,
    pub(crate) consumer: Arc<BaseConsumer<Membership>>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) readiness: Readiness,
    pub(crate) runtime: Handle,
    pub(crate) epoch: u32,
    pub(crate) fingerprint: Option<String>,
    pub(crate) lanes: HashMap<u64, Lane>,
    pub(crate) by_partition: HashMap<Partition, u64>,
    pub(crate) cycle_in_flight: bool,
    pub(crate) cycles: (Sender<CycleEnd>, Receiver<CycleEnd>),
    pub(crate) next_cycle_at: Instant,
    /// Snapshots on their way.
    pub(crate) writes: JoinSet<()>,
    registry: Registry,
    schemas: Schemas,
    topics: Vec<(Topic, Arc<str>)>,
    opened: (Sender<OpenEnd>, Receiver<OpenEnd>),
    housekeeping_at: Instant,
}

type CycleEnd = Vec<(u64, Outcome)>;
type OpenEnd = (u64, Opened);

/// Runs one group until `stop` is cancelled or an error ends it. Blocking: give it a thread of its own; `runtime` carries its inserts.
///
/// # Errors
/// [`RunError`] where trying again would not help. What comes and goes (brokers, registry, ClickHouse) is waited for.
pub fn run(
    group: &'static Group,
    settings: RuntimeSettings,
    clients: &Clients,
    runtime: Handle,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let database = Database::new(&clients.clickhouse)?;
    let Some(epoch) = runtime.block_on(wait_for_epoch(
        &database,
        group.name,
        &clients.readiness,
        stop,
    )) else {
        return Ok(());
    };
    let mut driver = Driver::new(group, settings, clients, database, runtime, epoch)?;
    let names: Vec<&str> = driver
        .topics
        .iter()
        .map(|(_, name)| name.as_ref())
        .collect();
    driver
        .consumer
        .subscribe(&names)
        .map_err(kafka::Error::from)?;
    while !stop.is_cancelled() {
        driver.turn()?;
    }
    driver.shut_down();
    Ok(())
}

/// ClickHouse may come later than we do.
async fn wait_for_epoch(
    database: &Database,
    group: &str,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Option<u32> {
    let mut attempt = 0;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return None,
            asked = store::epoch(database, group) => asked,
        };
        attempt += 1;
        match asked {
            Ok(epoch) => {
                readiness.ready(group);
                return Some(epoch);
            }
            Err(error) => {
                if attempt == 1 {
                    tracing::warn!(group, %error, "waiting for clickhouse; if the database is missing run `activity setup`");
                }
                readiness.not_ready(group, error.to_string());
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(backoff(attempt)) => (),
        }
    }
}

/// The consumer of one group, configured for the promise.
fn consumer(
    group: &Group,
    settings: &RuntimeSettings,
    kafka_settings: &KafkaSettings,
) -> Result<BaseConsumer<Membership>, kafka::Error> {
    let mut config = kafka::client_config(kafka_settings)?;
    config
        .set(
            "group.id",
            format!("{}{}", kafka_settings.group_prefix, group.name),
        )
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set(
            "session.timeout.ms",
            settings.session_timeout_ms.to_string(),
        )
        .set(
            "heartbeat.interval.ms",
            (settings.session_timeout_ms / 4).to_string(),
        )
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("statistics.interval.ms", "1000")
        .set(
            "queued.max.messages.kbytes",
            settings.prefetch_kb_max.to_string(),
        )
        .set("fetch.message.max.bytes", "4194304")
        // The default of a second makes a consumer that paused ten times slower once its queue has filled.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100");
    Ok(BaseConsumer::from_config_and_context(
        &config,
        Membership::default(),
    )?)
}

impl Driver {
    fn new(
        group: &'static Group,
        settings: RuntimeSettings,
        clients: &Clients,
        database: Database,
        runtime: Handle,
        epoch: u32,
    ) -> Result<Self, RunError> {
        let consumer = Arc::new(consumer(group, &settings, &clients.kafka)?);
        let delivery = Delivery::new(&clients.kafka, group.name)?;
        let topics = group
            .reads
            .iter()
            .map(|topic| (*topic, topic.full_name(&clients.kafka.topic_prefix).into()))
            .collect();
        let fingerprint = (group.state_version > 0).then(|| {
            format!(
                "{}/v{}/{:?}",
                group.name,
                group.state_version,
                settings.for_groups()
            )
        });
        let sink = Sink {
            group: group.name,
            tables: group.tables,
            database,
            delivery,
            settings: settings.clone(),
            metrics: clients.metrics.clone(),
        };
        Ok(Self {
            group,
            settings,
            consumer,
            sink: Arc::new(sink),
            readiness: clients.readiness.clone(),
            runtime,
            epoch,
            fingerprint,
            lanes: HashMap::new(),
            by_partition: HashMap::new(),
            cycle_in_flight: false,
            cycles: channel(),
            next_cycle_at: Instant::now(),
            writes: JoinSet::new(),
            registry: Registry::new(&clients.registry)?,
            schemas: Schemas::new(),
            topics,
            opened: channel(),
            housekeeping_at: Instant::now(),
        })
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), RunError> {
        self.apply_changes();
        self.apply_opened();
        self.seek_lanes();
        self.finish_cycle(Duration::ZERO);
        self.start_cycle(Instant::now(), false);
        if self.is_full() && self.cycle_in_flight {
            // Nothing can be taken before the cycle ends; the group's heartbeats go on by themselves.
            self.finish_cycle(Duration::from_millis(50));
        }
        self.poll();
        self.housekeep(Instant::now());
        if let Some(fatal) = self.sink.delivery.fatal_error().or_else(|| {
            self.consumer
                .client()
                .fatal_error()
                .map(|(code, why)| format!("{code}: {why}"))
        }) {
            return Err(RunError::Fatal(fatal));
        }
        Ok(())
    }

    /// Makes and drops lanes as the group's coordinator says.
    pub(crate) fn apply_changes(&mut self) {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Revoked(partition) => {
                    if let Some(assignment) = self.by_partition.remove(&partition) {
                        self.lanes.remove(&assignment);
                    }
                    self.forget(&partition);
                }
                Change::Assigned {
                    partition,
                    assignment,
                    cancel,
                } => self.add_lane(partition, assignment, cancel),
            }
        }
    }

    fn add_lane(&mut self, partition: Partition, assignment: u64, cancel: CancellationToken) {
        let Some((topic, name)) = self
            .topics
            .iter()
            .find(|(_, name)| **name == *partition.0)
            .cloned()
        else {
            return;
        };
        self.readiness.not_ready(&part(&partition), "opening");
        if let Some(previous) = self.by_partition.insert(partition.clone(), assignment) {
            self.lanes.remove(&previous);
        }
        let at = Assignment {
            topic,
            name,
            partition: partition.1,
            number: assignment,
            cancel,
        };
        let lane = Lane::new(self.group, &self.settings, self.epoch, at);
        self.lanes.insert(assignment, lane);
        self.open_lane(assignment);
    }

    /// Asks, beside the loop, where a lane stands.
    pub(crate) fn open_lane(&mut self, assignment: u64) {
        let Some(lane) = self.lanes.get_mut(&assignment) else {
            return;
        };
        lane.phase = Phase::Opening;
        let opening = Opening {
            group: self.group.name,
            topic: lane.name.clone(),
            partition: lane.partition,
            epoch: self.epoch,
            fingerprint: self.fingerprint.clone(),
        };
        let (consumer, database, cancel) = (
            self.consumer.clone(),
            self.sink.database.clone(),
            lane.cancel.clone(),
        );
        let (readiness, part, done) = (
            self.readiness.clone(),
            part(&(lane.name.to_string(), lane.partition)),
            self.opened.0.clone(),
        );
        self.runtime.spawn(async move {
            let report = |why: String| readiness.not_ready(&part, why);
            if let Some(opened) = open(opening, consumer, database, cancel, report).await {
                // The loop is gone if nobody receives.
                let _ = done.send((assignment, opened));
            }
        });
    }

    fn apply_opened(&mut self) {
        while let Ok((assignment, opened)) = self.opened.1.try_recv() {
            self.place_lane(assignment, opened);
        }
        let now = Instant::now();
        let again: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(_, lane)| matches!(lane.phase, Phase::Stopped { until } if until <= now))
            .map(|(assignment, _)| *assignment)
            .collect();
        for assignment in again {
            self.open_lane(assignment);
        }
    }

    fn place_lane(&mut self, assignment: u64, mut opened: Opened) {
        let Some(lane) = self.lanes.get(&assignment) else {
            return;
        };
        let at = Assignment {
            topic: lane.topic,
            name: lane.name.clone(),
            partition: lane.partition,
            number: assignment,
            cancel: lane.cancel.clone(),
        };
        let (name, partition) = (at.name.clone(), at.partition);
        let part = part(&(name.to_string(), partition));
        let (group, now) = (self.group, Instant::now());
        if let Start::Stop { why } = &opened.start {
            tracing::error!(group = group.name, topic = %name, partition, "{why}");
            self.readiness.not_ready(&part, why);
            if let Some(lane) = self.lanes.get_mut(&assignment) {
                lane.phase = Phase::Stopped {
                    until: now + STOPPED_FOR,
                };
            }
            return;
        }
        // A fresh lane each time: what an earlier placement had built belongs to nobody.
        let fresh = || Lane::new(group, &self.settings, self.epoch, at.clone());
        let mut lane = fresh();
        let stateful = self.fingerprint.is_some();
        if opened.unfit_snapshot {
            tracing::warn!(group = group.name, topic = %name, partition, "the stored state is of other code or settings: rebuilding it from the start of the log");
        }
        let (slot, snapshot) = opened
            .snapshot
            .take()
            .map_or((0, None), |(slot, snapshot)| {
                (1 - slot.min(1), Some(snapshot))
            });
        let placed = lane.place(&opened.start, opened.log_first, snapshot.as_ref(), stateful, now).or_else(|error| {
            tracing::warn!(group = group.name, topic = %name, partition, %error, "rebuilding the state from the start of the log");
            lane = fresh();
            lane.place(&opened.start, opened.log_first, None, stateful, now)
        });
        let Ok(to) = placed else {
            return;
        };
        lane.snapshots.slot = slot;
        lane.phase = Phase::Seeking {
            to,
            not_before: now,
        };
        self.say_where(&opened, &name, partition, to);
        self.sink
            .metrics
            .restore_seconds
            .with_label_values(&[group.name])
            .observe(opened.began.elapsed().as_secs_f64());
        self.lanes.insert(assignment, lane);
    }

    fn say_where(&self, opened: &Opened, topic: &str, partition: i32, to: i64) {
        let group = self.group.name;
        let (Start::At { notice, .. } | Start::Redo { notice, .. }) = &opened.start else {
            return;
        };
        if let Some(notice) = notice {
            tracing::warn!(group, topic, partition, "{notice}");
        }
        if let Start::At {
            lost: Some(lost), ..
        } = &opened.start
        {
            let messages = lost.end - lost.start;
            tracing::error!(
                group,
                topic,
                partition,
                messages,
                from = lost.start,
                to = lost.end,
                "the log no longer has messages that this group has not read"
            );
            self.sink
                .metrics
                .events_lost
                .with_label_values(&[group, topic, &partition.to_string()])
                .inc_by(messages as u64);
        }
        tracing::debug!(group, topic, partition, start = ?opened.start, read_from = to, "partition opened");
    }

    /// Sends lanes that know their place there, and lets their messages come.
    fn seek_lanes(&mut self) {
        let now = Instant::now();
        for lane in self.lanes.values_mut() {
            let Phase::Seeking { to, not_before } = lane.phase else {
                continue;
            };
            if now < not_before {
                continue;
            }
            let mut list = TopicPartitionList::new();
            let sought = list
                .add_partition_offset(&lane.name, lane.partition, Offset::Offset(to))
                .and_then(|()| self.consumer.seek_partitions(list, SEEK_TIMEOUT))
                .and_then(|list| {
                    list.elements()
                        .iter()
                        .try_for_each(|element| element.error())
                });
            match sought {
                Ok(()) => {
                    lane.phase = Phase::Running;
                    self.readiness
                        .ready(&part(&(lane.name.to_string(), lane.partition)));
                }
                // Right after an assignment the client may not be ready to seek.
                Err(error) => {
                    tracing::debug!(topic = %lane.name, partition = lane.partition, %error, "seek failed; trying again");
                    lane.phase = Phase::Seeking {
                        to,
                        not_before: now + Duration::from_millis(100),
                    };
                }
            }
        }
        self.apply_pauses();
    }

    /// Polls a bounded number of messages and feeds them to their lanes.
    fn poll(&mut self) {
        let consumer = self.consumer.clone();
        let mut timeout = if self.cycle_in_flight {
            Duration::from_millis(1)
        } else {
            POLL_TIMEOUT
        };
        for _ in 0..POLL_MESSAGES_MAX {
            match consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => self.receive(&message),
                Some(Err(error)) => tracing::debug!(group = self.group.name, %error, "poll"),
            }
            timeout = Duration::ZERO;
        }
        let mut lost = Vec::new();
        for (partition, assignment) in &self.by_partition {
            let running = |lane: &&mut Lane| lane.phase == Phase::Running && lane.is_redoing();
            if let Some(lane) = self.lanes.get_mut(assignment).filter(running) {
                lane.close_redo();
                let log_first = consumer
                    .context()
                    .log_ends(partition)
                    .map_or(0, |ends| ends.first);
                lost.extend(lane.redo_is_lost(log_first).then_some(*assignment));
            }
        }
        lost.into_iter()
            .for_each(|assignment| self.open_lane(assignment));
    }

    fn receive(&mut self, message: &BorrowedMessage<'_>) {
        let (topic, partition) = (message.topic(), message.partition());
        let Some(lane) = self.lanes.values_mut().find(|lane| {
            lane.partition == partition && *lane.name == *topic && lane.phase == Phase::Running
        }) else {
            return;
        };
        let headers = KafkaHeaders(message.headers());
        let offset = message.offset();
        let received = Message {
            offset,
            appended_at_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            payload: message.payload(),
            headers: &headers,
        };
        let now = Instant::now();
        let log_first = if offset > lane.next() {
            self.consumer
                .context()
                .log_ends(&(topic.to_owned(), partition))
                .map_or(0, |ends| ends.first)
        } else {
            0
        };
        loop {
            match lane.handle(&received, &self.schemas, log_first, now) {
                Handled::Taken(Some(reason)) => {
                    let labels = [self.group.name, topic, &partition.to_string(), reason];
                    self.sink
                        .metrics
                        .events_rejected
                        .with_label_values(&labels)
                        .inc();
                    return;
                }
                Handled::Taken(None) | Handled::Replayed | Handled::Skipped => return,
                Handled::UnknownSchema(id) => {
                    let asked = self.runtime.block_on(async {
                        tokio::time::timeout(REGISTRY_WAIT, self.registry.schema(id)).await
                    });
                    match asked {
                        Ok(Ok(json)) => self.schemas.add(id, &json),
                        Ok(Err(registry::Error::NoSuchSchema { .. })) => {
                            self.schemas.add_missing(id, now)
                        }
                        Ok(Err(error)) => {
                            return stall(lane, offset, &self.readiness, &error.to_string());
                        }
                        Err(_) => {
                            return stall(
                                lane,
                                offset,
                                &self.readiness,
                                "schema registry: no answer",
                            );
                        }
                    }
                }
            }
        }
    }

    /// Whether a lane, or all together, hold as much as they may.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.settings.buffered_bytes_max
            || self
                .lanes
                .values()
                .any(|lane| lane.sealed.is_some() && lane.is_full(&self.settings))
    }

    /// Memory held by batches.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.values().map(Lane::bytes).sum()
    }

    /// Pauses lanes that cannot take more and resumes those that can.
    pub(crate) fn apply_pauses(&mut self) {
        let all_full = self.bytes() >= self.settings.buffered_bytes_max;
        for lane in self.lanes.values_mut() {
            let full = lane.sealed.is_some() && (all_full || lane.is_full(&self.settings));
            let wanted = lane.phase != Phase::Running || full;
            if wanted == lane.paused {
                continue;
            }
            let mut list = TopicPartitionList::new();
            list.add_partition(&lane.name, lane.partition);
            let done = if wanted {
                self.consumer.pause(&list)
            } else {
                self.consumer.resume(&list)
            };
            match done {
                Ok(()) => lane.paused = wanted,
                Err(error) => {
                    tracing::debug!(topic = %lane.name, partition = lane.partition, %error, "pause or resume failed")
                }
            }
        }
    }

    fn housekeep(&mut self, now: Instant) {
        if now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = now + HOUSEKEEPING_INTERVAL;
        self.schemas.tidy(now);
        let metrics = &self.sink.metrics;
        metrics
            .buffered_bytes
            .with_label_values(&[self.group.name])
            .set(self.bytes() as i64);
        for ((topic, partition), assignment) in &self.by_partition {
            let Some(lane) = self.lanes.get_mut(assignment) else {
                continue;
            };
            let labels = [self.group.name, topic.as_str(), &partition.to_string()];
            metrics
                .events_read
                .with_label_values(&labels)
                .inc_by(std::mem::take(&mut lane.read));
            metrics
                .events_processed
                .with_label_values(&labels)
                .inc_by(std::mem::take(&mut lane.processed));
            metrics
                .events_replayed
                .with_label_values(&labels)
                .inc_by(std::mem::take(&mut lane.replayed));
            metrics
                .paused
                .with_label_values(&labels)
                .set(i64::from(lane.paused));
            if let Some(settled) = lane.committed {
                metrics
                    .current_offset
                    .with_label_values(&labels)
                    .set(settled);
            }
            if let Some(ends) = self
                .consumer
                .context()
                .log_ends(&(topic.clone(), *partition))
                .filter(|ends| ends.next >= 0)
            {
                let lag = (ends.next - lane.committed.unwrap_or(lane.building.start)).max(0);
                metrics.lag.with_label_values(&labels).set(lag);
                let age_ms = if lag > 0 && lane.settled_appended_ms > 0 {
                    crate::cycle::now_ms() - lane.settled_appended_ms
                } else {
                    0
                };
                metrics.lag_ms.with_label_values(&labels).set(age_ms.max(0));
            }
        }
    }

    fn forget(&self, partition: &Partition) {
        self.readiness.ready(&part(partition));
        let (topic, id, group, m) = (
            &partition.0,
            partition.1.to_string(),
            self.group.name,
            &self.sink.metrics,
        );
        metrics::forget_partition(&m.lag, group, topic, &id);
        metrics::forget_partition(&m.lag_ms, group, topic, &id);
        metrics::forget_partition(&m.current_offset, group, topic, &id);
        metrics::forget_partition(&m.paused, group, topic, &id);
    }
}

/// A partition's name in readiness reports.
pub(crate) fn part((topic, partition): &Partition) -> String {
    format!("{topic}/{partition}")
}

/// The lane waits for the registry and reads the message again; others go on.
fn stall(lane: &mut Lane, offset: i64, readiness: &Readiness, why: &str) {
    tracing::warn!(topic = %lane.name, partition = lane.partition, offset, why, "waiting for a schema");
    readiness.not_ready(&part(&(lane.name.to_string(), lane.partition)), why);
    lane.phase = Phase::Seeking {
        to: offset,
        not_before: Instant::now() + Duration::from_secs(1),
    };
}

struct KafkaHeaders<'a>(Option<&'a BorrowedHeaders>);

impl Headers for KafkaHeaders<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0?.iter().find(|header| header.key == name)?.value
    }
}

impl MessageHeaders for KafkaHeaders<'_> {
    fn copied(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let Some(headers) = self.0 else {
            return Vec::new();
        };
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    }
}
