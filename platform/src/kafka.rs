//! Kafka clients, configured the one way that the promise needs, and the few administrative calls that we make.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::advice::{Known, advise, after_kafka, after_kafka_code, is_fatal};
use crate::settings::{KafkaSettings, SettingsError};

/// How long a metadata or watermark request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes wrong with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No brokers were given, or they cannot be spoken to as configured.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A call failed.
    #[error("kafka: {0}{hint}", hint = after_kafka(.0))]
    Kafka(#[from] KafkaError),
    /// No broker lets us in, and says why.
    #[error("kafka: {reason}{hint}", hint = after_kafka_code(*code))]
    Refused {
        /// librdkafka's error.
        code: RDKafkaErrorCode,
        /// What it says.
        reason: String,
    },
    /// One topic could not be created.
    #[error("topic {topic} could not be created: {code}{hint}", hint = after_kafka_code(*code))]
    Topic {
        /// Its full name.
        topic: String,
        /// Kafka's error.
        code: RDKafkaErrorCode,
    },
    /// A worker thread ended early.
    #[error("a worker thread ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
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
/// If no brokers were given, or settings of TLS and users do not fit together or name a file that cannot be read.
pub fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, SettingsError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers()?)
        .set("client.id", "activity")
        // A broker that was restarted is found again within a second, not ten.
        .set("reconnect.backoff.max.ms", "1000")
        .set("allow.auto.create.topics", "false")
        // What the client would measure for brokers that ask for it costs each poll a lock and a look at the clock; we have metrics of our own.
        .set("enable.metrics.push", "false")
        .set("topic.metadata.refresh.interval.ms", "60000");
    settings.security.apply(&mut config)?;
    Ok(config)
}

/// A producer that loses nothing and doubles nothing: idempotent, all replicas, Java's partitioning.
///
/// # Errors
/// As [`client_config`].
pub fn producer_config(settings: &KafkaSettings) -> Result<ClientConfig, SettingsError> {
    let mut config = client_config(settings)?;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // With more, librdkafka begins a new epoch where a request comes behind one that failed, and what another partition had under way then may be appended twice
        // (confluentinc/librdkafka issue 4953). A request is a whole batch: waiting for its answer costs no throughput that could be measured.
        .set("max.in.flight.requests.per.connection", "1")
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
    let looked = settings.clone();
    // The admin client alone would say after a while that time is up, not that the password is wrong.
    tokio::task::spawn_blocking(move || reach(&looked)).await??;
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
    consumer: BaseConsumer<Heard>,
}

impl Inspector {
    /// A client that can look at one group; it never joins.
    ///
    /// # Errors
    /// If no brokers were given, the client cannot be made, or no broker lets it in.
    pub fn new(settings: &KafkaSettings, group_id: &str) -> Result<Self, Error> {
        let mut config = client_config(settings)?;
        config
            .set("group.id", group_id)
            .set("enable.auto.commit", "false");
        let consumer = BaseConsumer::from_config_and_context(&config, Heard::default())?;
        let_in(&consumer)?;
        Ok(Self { consumer })
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

    /// How many brokers there are.
    ///
    /// # Errors
    /// If none answers.
    pub fn brokers(&self) -> Result<usize, Error> {
        // Of a topic that every Kafka may have: the list of all would be large.
        let metadata =
            (self.consumer).fetch_metadata(Some("__consumer_offsets"), REQUEST_TIMEOUT)?;
        Ok(metadata.brokers().len())
    }

    /// Who is in a group now, by its coordinator.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn members(&self, group_id: &str) -> Result<Vec<Member>, Error> {
        let groups = (self.consumer).fetch_group_list(Some(group_id), REQUEST_TIMEOUT)?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        let member = |member: &GroupMemberInfo| Member {
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
            assignment: member.assignment().unwrap_or_default().to_vec(),
        };
        Ok(members.map(member).collect())
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

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its `client.id`.
    pub client_id: String,
    /// The host that it connects from.
    pub host: String,
    /// What it was assigned, in the consumer protocol's bytes.
    pub assignment: Vec<u8>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: i64,
    /// What was committed with it.
    pub metadata: String,
}

/// Waits until a broker answers. Blocking.
///
/// # Errors
/// If none does in time, or says before that why it does not.
pub fn reach(settings: &KafkaSettings) -> Result<(), Error> {
    Inspector::new(settings, "activity.reach").map(drop)
}

/// How long one attempt of [`let_in`] waits.
const LET_IN_STEP: Duration = Duration::from_millis(500);

fn let_in(consumer: &BaseConsumer<Heard>) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        // Of a topic that every Kafka may have: the list of all would be large.
        let asked = consumer.fetch_metadata(Some("__consumer_offsets"), LET_IN_STEP);
        let Err(error) = asked else { return Ok(()) };
        // What the client has met arrives here.
        while consumer.poll(Duration::ZERO).is_some() {}
        if let Some((code, reason)) = consumer.context().refusal()
            && began.elapsed() > certain_after(code)
        {
            return Err(Error::Refused { code, reason });
        }
        if began.elapsed() > REQUEST_TIMEOUT {
            return Err(error.into());
        }
    }
}

/// How long a refusal must go on before it is believed: another broker may let us in, and a broker that closes connections may only be restarting.
fn certain_after(code: RDKafkaErrorCode) -> Duration {
    if is_fatal(Known::Kafka(code)) {
        LET_IN_STEP
    } else {
        LET_IN_STEP * 6
    }
}

/// Remembers what says why brokers do not let us in.
#[derive(Default)]
struct Heard(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Heard {
    /// The last one; librdkafka does not repeat it while it stays the same.
    fn refusal(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = refusal(&error, reason) {
            let heard = Some((code, reason.to_owned()));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        }
    }
}

impl ConsumerContext for Heard {}

/// The code of an error that does not pass by itself. A connection that is closed at once passes for one where librdkafka suspects the protocol.
fn refusal(error: &KafkaError, reason: &str) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code().filter(|code| match code {
        RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed => true,
        RDKafkaErrorCode::BrokerTransportFailure => {
            reason.contains("security.protocol") || reason.contains("SSL_HANDSHAKE")
        }
        _ => false,
    })
}

/// Why brokers do not let a client in, and what to do, if an error that librdkafka reports beside calls says so.
pub fn refused(error: &KafkaError, reason: &str) -> Option<String> {
    let code = refusal(error, reason)?;
    Some(format!("kafka: {reason}{}", after_kafka_code(code)))
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

type Said = Mutex<Option<Instant>>;
static UNREACHABLE_SAID: Said = Mutex::new(None);
static REFUSED_SAID: Said = Mutex::new(None);

fn is_news(said: &Said) -> bool {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let news = said.is_none_or(|at| at.elapsed() >= OUTAGE_SAID_FOR);
    if news {
        *said = Some(Instant::now());
    }
    news
}

/// An error that librdkafka reports beside calls.
pub fn client_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(code) if refusal(error, reason).is_some() && is_fatal(Known::Kafka(code)) => {
            if is_news(&REFUSED_SAID) {
                tracing::warn!("kafka: {reason}{}; trying again", after_kafka_code(code));
            }
        }
        Some(RDKafkaErrorCode::AllBrokersDown) if is_news(&UNREACHABLE_SAID) => {
            tracing::warn!(reason, "no broker can be reached; trying again")
        }
        Some(
            RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut,
        ) => tracing::debug!(%error, reason, "broker connection"),
        code => {
            let hint = code.and_then(|code| advise(Known::Kafka(code)));
            let hint = hint.map(|advice| advice.hint);
            tracing::warn!(%error, reason, hint, "kafka client")
        }
    }
}
