//! Messages out: dead letters and derived messages, each acknowledged by Kafka before the source offset moves.

use std::sync::Arc;
use std::time::Duration;

use activity_consumers::Derived;
use activity_platform::fault::{self, Point};
use activity_platform::kafka;
use activity_platform::settings::KafkaSettings;
use activity_schemas::Topic;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::batch::Sealed;
use crate::dead_letter::{self, DEAD_LETTER_BYTES_MAX, dead_letter_topic, letter_key};
use crate::outstanding::Outstanding;
use crate::source::{SOURCE_HEADER, Source};

/// Bytes that wait in the producer; a full queue slows the group, it never drops.
const QUEUE_KB_MAX: &str = "32768";
/// Pause before a full queue is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// Whoever waits for acknowledgements looks for them this often.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A message was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("{topic}: {error}")]
pub struct DeliveryError {
    topic: String,
    error: KafkaError,
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::client_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Outstanding>;

    fn delivery(&self, result: &DeliveryResult<'_>, outstanding: Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            tracing::warn!(%error, "message was not delivered");
            outstanding.fail(error.clone());
        }
        outstanding.one_less();
    }
}

/// One idempotent producer for all that a group sends.
///
/// Without a thread of its own: the crate's spins for the last millisecond of each tenth of a second, because the client waits for whole milliseconds only, and
/// that was more than half of what an idle group used.
#[derive(Clone)]
pub struct Delivery {
    producer: Arc<BaseProducer<Context>>,
    topic_prefix: Arc<str>,
    dead_letter_topic: Arc<str>,
    group: &'static str,
}

/// Which partition a batch is of.
#[derive(Clone, Copy, Debug)]
pub struct BatchSource<'a> {
    /// Full name of the topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Epoch of the group.
    pub epoch: u32,
}

impl Delivery {
    /// The producer of one group.
    ///
    /// # Errors
    /// If no brokers were given or the producer cannot be made.
    pub fn new(settings: &KafkaSettings, group: &'static str) -> Result<Self, kafka::Error> {
        let mut config = kafka::producer_config(settings)?;
        config
            // No timeout: a message that was dropped by time would leave a hole that nobody notices.
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", DEAD_LETTER_BYTES_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KB_MAX)
            .set("linger.ms", "2")
            // The next stage drops what is not above what it has seen: a message that overtakes a failed one would make it lost.
            .set("enable.gapless.guarantee", "true");
        Ok(Self {
            producer: Arc::new(BaseProducer::from_config_and_context(&config, Context)?),
            topic_prefix: settings.topic_prefix.as_str().into(),
            dead_letter_topic: format!("{}{}", settings.topic_prefix, dead_letter_topic(group))
                .into(),
            group,
        })
    }

    /// Gives a derived message to the client, without waiting for anything; false where its queue is full, or it takes the message never, which is noted as the
    /// batch's failure.
    pub fn try_send(
        &self,
        derived: &Derived,
        source: BatchSource<'_>,
        outstanding: &Arc<Outstanding>,
    ) -> bool {
        let header = Source {
            epoch: source.epoch,
            topic: source.topic,
            partition: source.partition,
            offset: derived.offset,
            n: derived.n,
        }
        .to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: SOURCE_HEADER,
            value: Some(&header),
        });
        let topic = self.full_name(derived.topic);
        let payload = Some(derived.payload.as_slice());
        self.enqueue(&topic, &derived.key, payload, headers, outstanding)
    }

    /// Sends all dead letters of a batch, and the derived messages that the client did not take before, and waits until each is acknowledged.
    ///
    /// # Errors
    /// If one was not acknowledged; the batch's partition must then begin anew.
    pub async fn send(&self, batch: &Sealed, source: BatchSource<'_>) -> Result<(), DeliveryError> {
        if batch.dead_letters.is_empty() && batch.derived_counts.is_empty() {
            return Ok(());
        }
        let outstanding = &batch.outstanding;
        for derived in &batch.derived {
            while !outstanding.has_failed() && !self.try_send(derived, source, outstanding) {
                self.wait_for_room().await;
            }
        }
        for letter in &batch.dead_letters {
            let key = letter_key(self.group, source.topic, source.partition, letter.offset);
            let written = dead_letter::write(letter, source);
            while !outstanding.has_failed()
                && !self.enqueue(
                    &self.dead_letter_topic,
                    key.as_bytes(),
                    written.payload,
                    written.headers.clone(),
                    outstanding,
                )
            {
                self.wait_for_room().await;
            }
            fault::reach(Point::DeadLetterSent);
        }
        // Whether one fails or not: none of them is on its way any more when the partition begins anew.
        let ended = self.ended(outstanding).await;
        fault::reach(Point::Delivered);
        ended.map_err(|error| DeliveryError {
            topic: source.topic.to_owned(),
            error,
        })
    }

    /// [`Outstanding::ended`], beside which somebody must take the acknowledgements.
    async fn ended(&self, outstanding: &Outstanding) -> Result<(), KafkaError> {
        loop {
            self.take_acknowledgements();
            let ended = tokio::time::timeout(LOOK_EVERY, outstanding.ended());
            if let Ok(ended) = ended.await {
                return ended;
            }
        }
    }

    async fn wait_for_room(&self) {
        tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        self.take_acknowledgements();
    }

    /// Takes what Kafka has answered and the client's errors and log lines, without waiting. Whoever holds the producer calls this every few milliseconds:
    /// nothing else counts a message as delivered or makes room in the queue.
    pub fn take_acknowledgements(&self) {
        // A poll takes one answer, which is for many messages. Those that are sent meanwhile end the loop early, which does no harm.
        loop {
            let before = self.producer.in_flight_count();
            if before == 0 {
                return;
            }
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() >= before {
                return;
            }
        }
    }

    /// A topic's name in Kafka.
    pub fn full_name(&self, topic: Topic) -> String {
        topic.full_name(&self.topic_prefix)
    }

    fn enqueue(
        &self,
        topic: &str,
        key: &[u8],
        payload: Option<&[u8]>,
        headers: OwnedHeaders,
        outstanding: &Arc<Outstanding>,
    ) -> bool {
        outstanding.one_more();
        let mut record = BaseRecord::with_opaque_to(topic, outstanding.clone())
            .key(key)
            .headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        let Err((error, _)) = self.producer.send(record) else {
            return true;
        };
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            outstanding.fail(error);
        }
        outstanding.one_less();
        false
    }

    /// Whether the producer has met an error that it cannot come back from.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer
            .client()
            .fatal_error()
            .map(|(code, reason)| format!("{code}: {reason}"))
    }
}
