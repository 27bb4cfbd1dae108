//! What a rewind asks of Kafka: who is in a group, where it stands, offsets by time; and what it tells it. Blocking: call it off the async threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use activity_platform::kafka::{self, Committed};
use activity_platform::settings::KafkaSettings;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde::Serialize;

use super::RewindError;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request is repeated while the group's coordinator is being found.
const COORDINATOR_WAIT: Duration = Duration::from_secs(30);
/// How long a rewind that was killed may still hold its lease.
const LEASE_WAIT: Duration = Duration::from_secs(20);
/// A rewind that was killed loses its lease after this long, milliseconds.
const LEASE_TIMEOUT_MS: &str = "6000";
/// How long a reader of an earlier life may still be in its group.
const EMPTY_WAIT: Duration = Duration::from_secs(120);
/// Pause between two looks at a group.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// A process that is in a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its client's name.
    pub client: String,
    /// Where it runs.
    pub host: String,
}

/// A client in the name of one group, which never joins it.
pub struct GroupClient {
    consumer: BaseConsumer,
    group_id: String,
}

impl GroupClient {
    /// Makes the client.
    ///
    /// # Errors
    /// If no brokers were given or the client cannot be made.
    pub fn new(settings: &KafkaSettings, group_id: &str) -> Result<Self, kafka::Error> {
        let mut config = kafka::client_config(settings)?;
        config
            .set("group.id", group_id)
            .set("enable.auto.commit", "false");
        Ok(Self {
            consumer: BaseConsumer::from_config(&config)?,
            group_id: group_id.to_owned(),
        })
    }

    /// Who is in the group.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn members(&self) -> Result<Vec<Member>, kafka::Error> {
        let list = repeated(|| {
            self.consumer
                .fetch_group_list(Some(&self.group_id), REQUEST_TIMEOUT)
        })?;
        let members = list.groups().iter().flat_map(|group| group.members());
        Ok(members
            .map(|member| Member {
                client: member.client_id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
            })
            .collect())
    }

    /// Waits until nobody is in the group: one who was killed is in it until its session ends.
    ///
    /// # Errors
    /// If somebody stays in it, or Kafka does not answer.
    pub fn until_empty(&self) -> Result<(), kafka::Error> {
        let began = Instant::now();
        while !self.members()?.is_empty() {
            if began.elapsed() > EMPTY_WAIT {
                let code = RDKafkaErrorCode::NonEmptyGroup;
                return Err(kafka::Error::Kafka(KafkaError::ConsumerCommit(code)));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    /// Offsets of the first messages that were appended at or after a time, milliseconds since 1970-01-01 UTC; where there is none, the end of the log.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn offsets_at(
        &self,
        partitions: &[(String, i32)],
        at_ms: i64,
    ) -> Result<Vec<Option<i64>>, kafka::Error> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, Offset::Offset(at_ms))?;
        }
        let found = self.consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
        let offset = |(topic, partition): &(String, i32)| {
            let element = found.find_partition(topic, *partition)?;
            match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        };
        Ok(partitions.iter().map(offset).collect())
    }

    /// When the first message at or after an offset was appended, milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn appended_at(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<i64, kafka::Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let began = Instant::now();
        let appended_at = loop {
            match self.consumer.poll(LOOK_PAUSE) {
                Some(message) => break message?.timestamp().to_millis(),
                None if began.elapsed() < REQUEST_TIMEOUT => (),
                None => break None,
            }
        };
        self.consumer.unassign()?;
        appended_at.ok_or_else(|| {
            kafka::Error::Kafka(KafkaError::MessageConsumption(
                RDKafkaErrorCode::OperationTimedOut,
            ))
        })
    }

    /// Commits in the name of a group that nobody is in.
    ///
    /// # Errors
    /// If Kafka does not take it: somebody is in the group.
    pub fn commit<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a (String, i32), &'a Committed)>,
    ) -> Result<(), kafka::Error> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), committed) in offsets {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(committed.offset))?;
            element.set_metadata(committed.metadata.as_str());
        }
        repeated(|| self.consumer.commit(&list, CommitMode::Sync))?;
        Ok(())
    }
}

/// Asks again for a while: after a broker's start, and for a group that is new, its coordinator must be found first.
fn repeated<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let began = Instant::now();
    loop {
        match ask() {
            Err(_) if began.elapsed() < COORDINATOR_WAIT => std::thread::sleep(LOOK_PAUSE),
            answered => return answered,
        }
    }
}

/// Removes a group that nobody needs any more. One that stays is removed by Kafka itself when its offsets expire.
pub async fn delete(settings: &KafkaSettings, group_id: &str) -> Result<(), kafka::Error> {
    let config = kafka::client_config(settings)?;
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&config)?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    admin.delete_groups(&[group_id], &options).await?;
    Ok(())
}

/// The right to work on a rewind of a group: membership of a Kafka group of its own, so that one who is killed loses it by itself.
pub struct Lease {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Waits, within bounds, until nobody else holds it.
    ///
    /// # Errors
    /// [`RewindError::Busy`] if somebody else does.
    pub fn acquire(
        settings: &KafkaSettings,
        group_id: &str,
        topic: &str,
        group: &str,
    ) -> Result<Self, RewindError> {
        let client_id = format!(
            "activity-rewind-{}-{}",
            std::process::id(),
            jiff::Timestamp::now().as_nanosecond()
        );
        let mut config = kafka::client_config(settings).map_err(kafka::Error::from)?;
        config
            .set("client.id", &client_id)
            .set("group.id", group_id)
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", LEASE_TIMEOUT_MS)
            .set("heartbeat.interval.ms", "1000")
            // Nothing is read: the topic is there for the membership alone.
            .set("auto.offset.reset", "latest")
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", "1024");
        let consumer: BaseConsumer =
            BaseConsumer::from_config(&config).map_err(kafka::Error::from)?;
        consumer.subscribe(&[topic]).map_err(kafka::Error::from)?;
        let lease = Self::hold(consumer);
        let client = GroupClient::new(settings, group_id)?;
        let began = Instant::now();
        while began.elapsed() < LEASE_WAIT {
            let members = client.members()?;
            if matches!(members.as_slice(), [only] if only.client == client_id) {
                return Ok(lease);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Err(RewindError::Busy {
            group: group.to_owned(),
        })
    }

    /// Stays in the group until it is dropped.
    fn hold(consumer: BaseConsumer) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // What little it reads is nobody's; what fails is tried again by the client itself.
                drop(consumer.poll(LOOK_PAUSE));
                if let Ok(assigned) = consumer.assignment() {
                    let _ = consumer.pause(&assigned);
                }
            }
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
