//! The loop of one group: one thread polls, feeds lanes, claims and commits; inserts run beside it on the async runtime.
//!
//! `intake.rs` holds the part that takes messages and feeds them, `places.rs` the part that gives partitions their place, `flush.rs` the part that claims and
//! commits, `report.rs` what is told to the outside.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use activity_consumers::Group;
use activity_platform::clickhouse;
use activity_platform::clickhouse::Database;
use activity_platform::health::Readiness;
use activity_platform::kafka;
use activity_platform::metrics::Metrics;
use activity_platform::registry::{self, Registry};
use activity_platform::settings::{KafkaSettings, Targets};
use foldhash::HashMap;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cycle::{Outcome, Sink};
use crate::decoding::Schemas;
use crate::delivery::Delivery;
use crate::fetch_queue::FetchQueue;
use crate::lane::{Lane, Phase};
use crate::life::Life;
use crate::look_up::{Desk, LookUps};
use crate::membership::{Membership, Partition};
use crate::open::OpenEnd;
use crate::reject_limit::RejectLimit;
use crate::resubmit::{Feed, feeds};
use crate::rewinds::Rewinds;
use crate::settings::RuntimeSettings;
use crate::standing::Role;
use crate::trouble::{CommitTrouble, ReadTrouble};

/// How long the loop only waits for a cycle when a lane is full. Longer, and full lanes pause, which costs what was fetched ahead.
const FULL_WAIT_MAX: Duration = Duration::from_millis(500);

/// What a group's process talks to.
pub struct Clients {
    /// Kafka, registry and ClickHouse.
    pub targets: Targets,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Readiness of the process.
    pub readiness: Readiness,
    /// What the process answers.
    pub look_ups: LookUps,
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

/// The loop's state.
pub(crate) struct Driver {
    pub(crate) group: &'static Group,
    pub(crate) settings: RuntimeSettings,
    pub(crate) consumer: Arc<BaseConsumer<Membership>>,
    /// Where messages come in.
    pub(crate) fetched: Arc<FetchQueue>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) readiness: Readiness,
    pub(crate) runtime: Handle,
    pub(crate) epoch: u32,
    pub(crate) rewinds: Arc<Rewinds>,
    pub(crate) role: Role,
    /// Ends this driver's life.
    pub(crate) over: CancellationToken,
    pub(crate) fingerprint: Option<String>,
    pub(crate) topics: Vec<(Feed, Arc<str>)>,
    /// Which of the topics the group rejects too much of.
    pub(crate) limits: Vec<(Arc<str>, RejectLimit)>,
    /// One has just been passed: nothing more is polled before its partitions are paused.
    pub(crate) limit_passed: bool,
    pub(crate) panic_said: bool,
    pub(crate) lanes: HashMap<u64, Lane>,
    pub(crate) by_partition: HashMap<Partition, u64>,
    /// The coordinator has given us our share, be it empty.
    pub(crate) joined: bool,
    pub(crate) opened: (Sender<OpenEnd>, Receiver<OpenEnd>),
    /// When the cycle under way began; None: there is none.
    pub(crate) cycle_began: Option<Instant>,
    pub(crate) cycles: (Sender<CycleEnd>, Receiver<CycleEnd>),
    pub(crate) next_cycle_at: Instant,
    pub(crate) commit_trouble: CommitTrouble,
    pub(crate) read_trouble: ReadTrouble,
    /// Deliveries that failed in a row, by partition.
    pub(crate) delivery_failures: HashMap<Partition, u32>,
    /// Snapshots on their way.
    pub(crate) writes: JoinSet<()>,
    pub(crate) schemas: Schemas,
    pub(crate) housekeeping_at: Instant,
    pub(crate) watermarks_at: Instant,
    pub(crate) topics_at: Instant,
    /// Looks at whether topics were made anew, under way.
    pub(crate) looks: JoinSet<()>,
    /// Of a group that answers look-ups.
    pub(crate) desk: Option<Desk>,
    full_since: Option<Instant>,
    pub(crate) registry: Registry,
    pub(crate) registry_silent_until: Instant,
}

/// What became of the batches of a cycle, by the number of their lane's assignment.
pub(crate) type CycleEnd = Vec<(u64, Outcome)>;

/// The consumer of one group, configured for the promise.
fn consumer(
    group_id: &str,
    settings: &RuntimeSettings,
    kafka_settings: &KafkaSettings,
    client_id: Option<String>,
) -> Result<BaseConsumer<Membership>, kafka::Error> {
    let mut config = kafka::client_config(kafka_settings)?;
    if let Some(client_id) = client_id {
        config.set("client.id", client_id);
    }
    config
        .set("group.id", group_id)
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
    pub(crate) fn new(
        group: &'static Group,
        settings: RuntimeSettings,
        clients: &Clients,
        runtime: Handle,
        life: Life,
    ) -> Result<Self, RunError> {
        let kafka = &clients.targets.kafka;
        let look_ups = &clients.look_ups;
        let member = consumer(&life.group_id, &settings, kafka, look_ups.client_id())?;
        let consumer = Arc::new(member);
        let desk = Desk::of(group, look_ups, &kafka.topic_prefix, &life.group_id);
        let delivery = Delivery::new(&clients.targets.kafka, group.name)?;
        let topics = feeds(group, &clients.targets.kafka.topic_prefix);
        let limits = topics
            .iter()
            .map(|(_, name)| (name.clone(), RejectLimit::new(&settings)))
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
            reads: group.reads,
            tables: group.tables,
            table_suffix: life.table_suffix,
            database: Database::new(&clients.targets.clickhouse)?,
            delivery,
            settings: settings.clone(),
            metrics: clients.metrics.clone(),
        };
        Ok(Self {
            group,
            settings,
            fetched: Arc::new(FetchQueue::new(consumer.clone())),
            consumer,
            sink: Arc::new(sink),
            readiness: clients.readiness.clone(),
            runtime,
            epoch: life.rewinds.epoch(),
            rewinds: Arc::new(life.rewinds),
            role: life.role,
            over: life.over,
            fingerprint,
            lanes: HashMap::default(),
            by_partition: HashMap::default(),
            joined: false,
            cycle_began: None,
            full_since: None,
            commit_trouble: CommitTrouble::default(),
            read_trouble: ReadTrouble::default(),
            desk,
            registry_silent_until: Instant::now(),
            cycles: channel(),
            next_cycle_at: Instant::now(),
            writes: JoinSet::new(),
            registry: Registry::new(&clients.targets.registry)?,
            schemas: Schemas::new(),
            topics,
            limits,
            limit_passed: false,
            panic_said: false,
            opened: channel(),
            housekeeping_at: Instant::now(),
            watermarks_at: Instant::now(),
            topics_at: Instant::now(),
            looks: JoinSet::new(),
            delivery_failures: HashMap::default(),
        })
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) -> Result<(), RunError> {
        self.apply_changes();
        self.apply_opened();
        self.seek_lanes();
        self.finish_cycle(Duration::ZERO);
        self.start_cycle(Instant::now(), false);
        if !self.waits_for_cycle(Instant::now()) {
            self.apply_pauses();
            self.poll();
            self.tend_redos();
        }
        self.sink.delivery.take_acknowledgements();
        self.housekeep(Instant::now());
        let consumer_error = || {
            self.consumer
                .client()
                .fatal_error()
                .map(|(code, why)| format!("{code}: {why}"))
        };
        match self.sink.delivery.fatal_error().or_else(consumer_error) {
            Some(fatal) => Err(RunError::Fatal(fatal)),
            None => Ok(()),
        }
    }

    /// Whether this turn only waits, because a lane is full and the cycle that makes room for it ends soon: heartbeats go on by themselves, and a pause would
    /// throw away what was fetched ahead.
    fn waits_for_cycle(&mut self, now: Instant) -> bool {
        if self.cycle_began.is_none() || !self.is_full() {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert(now);
        let waits = now.saturating_duration_since(since) < FULL_WAIT_MAX;
        if waits {
            self.finish_cycle(Duration::from_millis(50));
        }
        waits
    }

    /// Whether a lane, or all together, hold as much as they may.
    fn is_full(&self) -> bool {
        self.bytes() >= self.settings.buffered_bytes_max
            || self.lanes.values().any(|lane| lane.is_full(&self.settings))
    }

    /// Memory held by batches.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.values().map(Lane::bytes).sum()
    }

    /// Pauses lanes that cannot take more and resumes those that can.
    pub(crate) fn apply_pauses(&mut self) {
        let all_full = self.bytes() >= self.settings.buffered_bytes_max;
        for lane in self.lanes.values_mut() {
            // A range that is built again, and state that is rebuilt, must come to their ends; both are bounded by what was once a batch.
            let full = lane.is_full(&self.settings)
                || (all_full && !lane.is_redoing() && !lane.is_replaying());
            let is_stopped = || {
                let of_lane = |(topic, _): &&(Arc<str>, RejectLimit)| *topic == lane.name;
                let limit = self.limits.iter().find(of_lane);
                limit.is_some_and(|(_, limit)| limit.is_passed()) && !lane.is_redoing()
            };
            let wanted = lane.phase != Phase::Running || full || is_stopped();
            if wanted == lane.paused {
                continue;
            }
            let list = lane.partition_list();
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
}
