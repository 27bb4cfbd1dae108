//! Kafka clients, configured the one way that the promise needs, and the few administrative calls that we make.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::settings::{KafkaSettings, MissingAddress};

/// How long a metadata or watermark request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes wrong with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No brokers were given.
    #[error(transparent)]
    Address(#[from] MissingAddress),
    /// A call failed.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// One topic could not be created.
    #[error("topic {topic} could not be created: {code}")]
    Topic {
        /// Its full name.
        topic: String,
        /// Kafka's error.
        code: RDKafkaErrorCode,
    },
    /// A topic that must be there is not.
    #[error("topic {topic} does not exist: run `activity setup`")]
    NoSuchTopic {
        /// Its full name.
        topic: String,
    },
}

/// What every client of ours has in common.
///
/// # Errors
/// If no brokers were given.
pub fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, MissingAddress> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers()?)
        .set("client.id", "activity")
        // A broker that was restarted is found again within a second, not ten.
        .set("reconnect.backoff.max.ms", "1000")
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "60000");
    Ok(config)
}

/// A producer that loses nothing and doubles nothing: idempotent, all replicas, Java's partitioning.
///
/// # Errors
/// If no brokers were given.
pub fn producer_config(settings: &KafkaSettings) -> Result<ClientConfig, MissingAddress> {
    let mut config = client_config(settings)?;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    Ok(config)
}

/// Creates the admin client.
fn admin(settings: &KafkaSettings) -> Result<AdminClient<DefaultClientContext>, Error> {
    Ok(AdminClient::from_config(&client_config(settings)?)?)
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicToCreate {
    /// Full name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Topic settings: `retention.ms` and the like.
    pub config: Vec<(&'static str, String)>,
}

/// Creates the topics that are not there yet; returns the names of those that it created. Several may do so at once.
///
/// # Errors
/// If Kafka refuses one for another reason than that it is there.
pub async fn create_topics(
    settings: &KafkaSettings,
    topics: &[TopicToCreate],
) -> Result<Vec<String>, Error> {
    let admin = admin(settings)?;
    let new_topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            // -1: the broker's own default.
            let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
            topic
                .config
                .iter()
                .fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT));
    let mut created = Vec::new();
    for outcome in admin.create_topics(&new_topics, &options).await? {
        match outcome {
            Ok(topic) => created.push(topic),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => (),
            Err((topic, code)) => return Err(Error::Topic { topic, code }),
        }
    }
    Ok(created)
}

/// First and next offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset that the log still has.
    pub first: i64,
    /// Offset that the next message will get.
    pub next: i64,
}

/// Reads what the brokers know of topics and groups. Blocking: call it off the async threads.
pub struct Inspector {
    consumer: BaseConsumer,
}

impl Inspector {
    /// A client that can look at one group; it never joins.
    ///
    /// # Errors
    /// If no brokers were given, or the client cannot be made.
    pub fn new(settings: &KafkaSettings, group_id: &str) -> Result<Self, Error> {
        let mut config = client_config(settings)?;
        config
            .set("group.id", group_id)
            .set("enable.auto.commit", "false");
        Ok(Self {
            consumer: BaseConsumer::from_config(&config)?,
        })
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// If the topic does not exist or no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| found.partitions().len() as i32) {
            None | Some(0) => Err(Error::NoSuchTopic {
                topic: topic.to_owned(),
            }),
            Some(partitions) => Ok(partitions),
        }
    }

    /// First and next offset of one partition.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<Watermarks, Error> {
        let (first, next) = self
            .consumer
            .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        Ok(Watermarks { first, next })
    }

    /// The first offset of each partition whose message was appended at or after a time, milliseconds since 1970-01-01 UTC; partitions without one are
    /// left out.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn offsets_at(
        &self,
        partitions: &[(String, i32)],
        at_ms: i64,
    ) -> Result<BTreeMap<(String, i32), i64>, Error> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, Offset::Offset(at_ms))?;
        }
        let found = self.consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(offsets)
    }

    /// Committed offset and metadata of partitions; those without a commit are left out.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn committed(
        &self,
        partitions: &[(String, i32)],
    ) -> Result<BTreeMap<(String, i32), Committed>, Error> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
        let present =
            committed
                .elements()
                .into_iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => Some((
                        (element.topic().to_owned(), element.partition()),
                        Committed {
                            offset,
                            metadata: element.metadata().to_owned(),
                        },
                    )),
                    _ => None,
                });
        Ok(present.collect())
    }
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: i64,
    /// What was committed with it.
    pub metadata: String,
}

/// One line of librdkafka's log. It calls every lost connection an error, although it mends them itself: those are ours to know, not the operator's.
pub fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "{message}")
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::debug!(facility, "{message}"),
        _ => tracing::trace!(facility, "{message}"),
    }
}

/// An outage is said once in this time: each client says it several times a second.
const OUTAGE_SAID_FOR: Duration = Duration::from_secs(30);

fn is_news() -> bool {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let news = said.is_none_or(|at| at.elapsed() >= OUTAGE_SAID_FOR);
    if news {
        *said = Some(Instant::now());
    }
    news
}

/// An error that librdkafka reports beside calls.
pub fn client_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) if is_news() => {
            tracing::warn!(reason, "no broker can be reached; trying again")
        }
        Some(RDKafkaErrorCode::AllBrokersDown) => (),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut,
        ) => tracing::debug!(%error, reason, "broker connection"),
        _ => tracing::warn!(%error, reason, "kafka client"),
    }
}
