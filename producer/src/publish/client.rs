//! The connection to Kafka: configuration, schemas, topics, and the count of what was delivered.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use activity_platform::{kafka, registry::Registry, settings};
use activity_schemas::{CLICKS, Encoder, EventKind, WATCHES};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, Producer, ProducerContext},
};
use tokio_util::sync::CancellationToken;

use super::{Ended, LOGGED_MAX, Progress, PublishError, Published, Run, publication::Publication};
use crate::source::EventSource;

/// What librdkafka may hold, and for how long.
const QUEUE: [(&str, &str); 7] = [
    // Few enough that a message is still in the processor's caches when it is sent: 50,000 cost a quarter more CPU.
    ("queue.buffering.max.messages", "20000"),
    ("queue.buffering.max.kbytes", "65536"),
    // Batches fill within this; nobody waits for a single event.
    ("linger.ms", "10"),
    ("batch.num.messages", "10000"),
    ("batch.size", "1000000"),
    // A broker may be away this long before an event counts as failed.
    ("message.timeout.ms", "300000"),
    // What is neither queued nor failed is acknowledged; a report for each would cost the publishing thread a tenth of its time.
    ("delivery.report.only.error", "true"),
];
/// How long the brokers may take to tell their topics.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a topic may take to appear, and how often it is looked for.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(2);
const TOPICS_EVERY: Duration = Duration::from_millis(100);

/// Counts failed deliveries; librdkafka's reports arrive here.
#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) failed: AtomicU64,
}

impl Deliveries {
    pub(super) fn count_failure(&self, topic: &str, error: &KafkaError) {
        if self.failed.fetch_add(1, Ordering::Relaxed) < LOGGED_MAX {
            tracing::error!(%error, topic, "an event was not acknowledged");
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::client_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, outcome: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = outcome {
            self.count_failure(message.topic(), error);
        }
    }
}

/// Where the events of one kind go.
pub(super) struct Outlet {
    pub(super) topic: String,
    pub(super) encoder: Encoder,
}

/// A connection to Kafka that publishes events. One publication at a time: its counts are those of the connection.
pub struct Publisher {
    pub(super) producer: BaseProducer<Deliveries>,
    clicks: Outlet,
    watches: Outlet,
}

impl Publisher {
    /// Registers the schemas and makes the client.
    ///
    /// # Errors
    /// If an address is missing, the registry does not answer or refuses a schema.
    pub async fn connect(
        kafka: &settings::KafkaSettings,
        registry: &settings::RegistrySettings,
    ) -> Result<Self, PublishError> {
        let config = kafka::producer_config(kafka).map_err(kafka::Error::from)?;
        let looked = kafka.clone();
        let reached = tokio::task::spawn_blocking(move || kafka::reach(&looked)).await;
        reached.map_err(kafka::Error::from)??;
        let prefix = &kafka.topic_prefix;
        let registry = Registry::new(registry)?;
        let clicks = registry
            .register(EventKind::Click, &CLICKS.full_name(prefix))
            .await?;
        let watches = registry
            .register(EventKind::Watch, &WATCHES.full_name(prefix))
            .await?;
        Self::new(config, prefix, clicks, watches)
    }

    /// A publisher with schemas that are registered already under these ids.
    ///
    /// # Errors
    /// If the client cannot be made of this configuration.
    pub fn new(
        mut config: ClientConfig,
        topic_prefix: &str,
        click_schema_id: u32,
        watch_schema_id: u32,
    ) -> Result<Self, PublishError> {
        for (key, value) in QUEUE {
            // What the caller has set stands.
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        Ok(Self {
            producer: BaseProducer::from_config_and_context(&config, Deliveries::default())
                .map_err(kafka::Error::from)?,
            clicks: Outlet {
                topic: CLICKS.full_name(topic_prefix),
                encoder: Encoder::new(EventKind::Click, click_schema_id),
            },
            watches: Outlet {
                topic: WATCHES.full_name(topic_prefix),
                encoder: Encoder::new(EventKind::Watch, watch_schema_id),
            },
        })
    }

    pub(super) fn outlet(&self, kind: EventKind) -> &Outlet {
        match kind {
            EventKind::Click => &self.clicks,
            EventKind::Watch => &self.watches,
        }
    }

    /// A topic that is missing would be waited for until messages time out. Asks for all topics: asking for one may create it. One that was created
    /// a moment ago may not be known to every broker yet.
    fn require_topics(&self) -> Result<(), kafka::Error> {
        let deadline = Instant::now() + TOPICS_TIMEOUT;
        loop {
            let metadata = self
                .producer
                .client()
                .fetch_metadata(None, METADATA_TIMEOUT)?;
            let is_there = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
            let outlets = [&self.clicks, &self.watches];
            match outlets.into_iter().find(|outlet| !is_there(&outlet.topic)) {
                None => return Ok(()),
                Some(missing) if Instant::now() > deadline => {
                    return Err(kafka::Error::NoSuchTopic {
                        topic: missing.topic.clone(),
                    });
                }
                Some(_) => std::thread::sleep(TOPICS_EVERY),
            }
        }
    }

    /// Publishes until the source ends, a limit is reached or `stop` is cancelled, then waits for the acknowledgements. `progress` is called about
    /// twice a second. Blocking: give it a thread ([`super::publish()`] does).
    ///
    /// # Errors
    /// If it could not begin. What happens later is told by [`Published`].
    pub fn run(
        self,
        source: &mut impl EventSource,
        run: &Run,
        stop: &CancellationToken,
        progress: impl FnMut(&Progress),
    ) -> Result<Published, PublishError> {
        self.require_topics()?;
        let mut publication = Publication::new(&self, run, stop, progress);
        let ended = publication.send_all(source);
        publication.flush();
        let counts = publication.count().clone();
        let complete = counts.acknowledged == counts.sent
            && (run.unmappable_allowed || counts.unmappable == 0)
            && !matches!(ended, Ended::Broken(_));
        Ok(Published {
            counts,
            ended,
            complete,
        })
    }
}
