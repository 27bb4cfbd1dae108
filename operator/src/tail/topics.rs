//! Messages of Kafka, followed. Blocking: call it off the async threads.

use std::ops::ControlFlow;
use std::time::Duration;

use activity_consumers::GROUPS;
use activity_platform::kafka::{self, Inspector};
use activity_platform::registry::{self, Registry};
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::dead_letter::{Letter, dead_letter_topic};
use activity_runtime::headers::KafkaHeaders;
use activity_schemas::{Content, DecodeError, Decoders, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{From, Line, Stream, Undecodable};
use crate::Error;
use crate::log::{self, POLL_TIMEOUT};

/// How long the registry may take to give a schema.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Hands every message of a stream to `each`, until it breaks or `stop`.
pub(super) fn follow(
    targets: &Targets,
    stream: Stream,
    from: From,
    runtime: &Handle,
    stop: &CancellationToken,
    mut each: impl FnMut(&Line) -> ControlFlow<()>,
) -> Result<(), Error> {
    let consumer = log::consumer(&targets.kafka)?;
    let places = places(&targets.kafka, &topics(stream, &targets.kafka), from)?;
    consumer.assign(&places).map_err(kafka::Error::from)?;
    let mut reader = match stream.events().map(|topic| topic.content) {
        Some(Content::Events(kind)) => Some(Reader {
            decoders: Decoders::new(kind),
            registry: Registry::new(&targets.registry)?,
            runtime: runtime.clone(),
        }),
        _ => None,
    };
    while !stop.is_cancelled() {
        let Some(message) = next(&consumer)? else {
            continue;
        };
        let line = match &mut reader {
            Some(reader) => reader.event(&message),
            None => letter(&message, &targets.kafka),
        };
        if each(&line).is_break() {
            break;
        }
    }
    Ok(())
}

fn next(consumer: &BaseConsumer) -> Result<Option<BorrowedMessage<'_>>, Error> {
    match consumer.poll(POLL_TIMEOUT) {
        None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(error)) => Err(kafka::Error::from(error).into()),
    }
}

fn topics(stream: Stream, kafka: &KafkaSettings) -> Vec<String> {
    match stream.events() {
        Some(topic) => vec![topic.full_name(&kafka.topic_prefix)],
        None => GROUPS
            .iter()
            .map(|group| format!("{}{}", kafka.topic_prefix, dead_letter_topic(group.name)))
            .collect(),
    }
}

/// Where each partition is read from.
fn places(
    kafka: &KafkaSettings,
    topics: &[String],
    from: From,
) -> Result<TopicPartitionList, Error> {
    let inspector = Inspector::new(kafka, "activity-reader")?;
    let mut partitions = Vec::new();
    for topic in topics {
        let count = inspector.partitions(topic)?;
        partitions.extend((0..count).map(|partition| (topic.clone(), partition)));
    }
    let since = match from {
        From::Time(at) => inspector.offsets_at(&partitions, at.as_millisecond())?,
        From::Beginning | From::End => Default::default(),
    };
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        // The end as it is now: librdkafka would look later what it is, after messages that came meanwhile.
        let end = || {
            Ok::<_, Error>(Offset::Offset(
                inspector.watermarks(&topic, partition)?.next,
            ))
        };
        let offset = match from {
            From::Beginning => Offset::Beginning,
            From::End => end()?,
            From::Time(_) => match since.get(&(topic.clone(), partition)) {
                Some(offset) => Offset::Offset(*offset),
                None => end()?,
            },
        };
        list.add_partition_offset(&topic, partition, offset)
            .map_err(kafka::Error::from)?;
    }
    Ok(list)
}

/// Decodes events as the groups do.
struct Reader {
    decoders: Decoders,
    registry: Registry,
    runtime: Handle,
}

impl Reader {
    fn event(&mut self, message: &BorrowedMessage<'_>) -> Line {
        let payload = message.payload().unwrap_or_default();
        let mut asked = None;
        if let Err(DecodeError::UnknownSchema { id }) = self.decoders.decode(payload) {
            match self.schema(id) {
                Ok(schema) => self.decoders.add(id, &schema),
                Err(why) => asked = Some(why),
            }
        }
        let fields = match self.decoders.decode(payload) {
            Ok(Event::Click(click)) => serde_json::to_value(click),
            Ok(Event::Watch(watch)) => serde_json::to_value(watch),
            Err(error) => {
                let text = asked.unwrap_or_else(|| error.to_string());
                return line(
                    message,
                    Map::new(),
                    Some(undecodable(message, error.reason(), text)),
                );
            }
        };
        match fields {
            Ok(Value::Object(fields)) => line(message, fields, None),
            Ok(other) => line(
                message,
                Map::new(),
                Some(undecodable(message, "malformed", other.to_string())),
            ),
            Err(error) => line(
                message,
                Map::new(),
                Some(undecodable(message, "malformed", error.to_string())),
            ),
        }
    }

    /// A writer's schema; why it cannot be had.
    fn schema(&self, id: u32) -> Result<String, String> {
        let asked =
            async { tokio::time::timeout(REGISTRY_TIMEOUT, self.registry.schema(id)).await };
        match self.runtime.block_on(asked) {
            Ok(answer) => answer.map_err(|error: registry::Error| error.to_string()),
            Err(_) => Err("the schema registry does not answer in time".to_owned()),
        }
    }
}

/// A dead letter, with what its headers tell.
fn letter(message: &BorrowedMessage<'_>, kafka: &KafkaSettings) -> Line {
    let headers = KafkaHeaders(message.headers());
    let Some(letter) = Letter::parse(&headers) else {
        let why = "its headers are not those of a dead letter".to_owned();
        return line(
            message,
            Map::new(),
            Some(undecodable(message, "no_letter", why)),
        );
    };
    let group = GROUPS.iter().find(|group| {
        message.topic().strip_prefix(&kafka.topic_prefix) == Some(&dead_letter_topic(group.name))
    });
    let fields = json!({
        "group": group.map(|group| group.name),
        "reason": letter.reason,
        "error": letter.error,
        "source_topic": letter.topic,
        "source_partition": letter.partition,
        "source_offset": letter.offset,
        "user_id": letter.key.and_then(|key| std::str::from_utf8(key).ok()),
        "payload": message.payload().map(|payload| STANDARD.encode(payload)),
    });
    match fields {
        Value::Object(fields) => line(message, fields, None),
        _ => line(message, Map::new(), None),
    }
}

fn undecodable(message: &BorrowedMessage<'_>, reason: &str, error: String) -> Undecodable {
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
    Undecodable {
        reason: reason.to_owned(),
        error,
        key: key.map(str::to_owned),
        payload: message.payload().map(|payload| STANDARD.encode(payload)),
    }
}

fn line(
    message: &BorrowedMessage<'_>,
    fields: Map<String, Value>,
    undecodable: Option<Undecodable>,
) -> Line {
    let at_ms = message.timestamp().to_millis().unwrap_or(0);
    Line {
        appended_at: jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default(),
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        fields,
        undecodable,
    }
}
