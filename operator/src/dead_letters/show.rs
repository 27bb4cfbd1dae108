//! `activity deadletters show`: letters as they are, with the message that was rejected byte for byte, and what became of them.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use activity_consumers::Group;
use activity_platform::registry::Registry;
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::dead_letter::{Cut, Letter, NAMES, letter_key};
use activity_runtime::headers::{KafkaHeaders, MessageHeaders};
use activity_runtime::resubmit::{LetterSet, Resubmit};
use activity_schemas::{Content, DecodeError, Decoders, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use serde::{Serialize, Serializer};

use super::{Committed, Fate, Filter, Topics, appended_at, timestamp};
use crate::Error;
use crate::log::{self, Progress};

/// Bytes; base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: Option<Bytes>,
}

/// Where a message was read and rejected before it was resubmitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Key of the letter that was resubmitted.
    pub key: String,
    /// When.
    pub resubmitted_at: Timestamp,
}

/// What became of a letter after it was resubmitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trail {
    /// When.
    pub at: Timestamp,
    /// Offset in the group's topic of resubmits.
    pub offset: i64,
    /// What became of it.
    pub fate: Fate,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Its key.
    pub key: String,
    /// Its offset in the topic of dead letters.
    pub letter_offset: i64,
    /// Full name of the topic that the message was read from.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The group's epoch.
    pub epoch: u32,
    /// Why it was rejected.
    pub reason: String,
    /// What exactly was wrong.
    pub error: String,
    /// When the message was appended.
    pub appended_at: Timestamp,
    /// When it was rejected.
    pub rejected_at: Timestamp,
    /// Where it was rejected before, last first.
    pub earlier: Vec<Earlier>,
    /// The message's key.
    pub message_key: Option<Bytes>,
    /// The message's headers, in order.
    pub headers: Vec<ShownHeader>,
    /// The message's value.
    pub payload: Option<Bytes>,
    /// What the message had before it was cut, if it was too large.
    pub cut: Option<Cut>,
    /// The event, where the value can be read as one.
    pub event: Option<serde_json::Value>,
    /// What became of it after it was resubmitted.
    pub resubmitted: Option<Trail>,
}

/// The first `limit` letters that match, in the order in which they were rejected.
///
/// # Errors
/// If Kafka does not answer or a topic is missing. What the registry does not give only leaves the event out.
pub async fn run(
    targets: &Targets,
    group: &'static Group,
    filter: Filter,
    limit: usize,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Vec<Shown>, Error> {
    let kafka = targets.kafka.clone();
    let find = move || {
        let mut shown = find(&kafka, group, &filter, limit, &progress)?;
        trace(&kafka, group, &mut shown, &progress)?;
        Ok::<_, Error>(shown)
    };
    let mut shown = tokio::task::spawn_blocking(find).await??;
    let registry = Registry::new(&targets.registry)?;
    decode(&registry, group, &targets.kafka.topic_prefix, &mut shown).await;
    Ok(shown)
}

fn find(
    kafka: &KafkaSettings,
    group: &Group,
    filter: &Filter,
    limit: usize,
    progress: Progress<'_>,
) -> Result<Vec<Shown>, Error> {
    let topics = Topics::of(group, kafka);
    let (mut shown, mut seen) = (Vec::new(), LetterSet::default());
    log::read(kafka, &topics.letters, 0, progress, |message| {
        let headers = KafkaHeaders(message.headers());
        let matching = Letter::parse(&headers)
            .filter(|letter| filter.matches(group.name, &kafka.topic_prefix, letter));
        if let Some(letter) = matching
            && shown.len() < limit
            && seen.insert(letter.epoch, letter.topic, letter.partition, letter.offset)
        {
            shown.push(show(group, &topics, message, &headers, &letter));
        }
        Ok::<_, Error>(if shown.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })?;
    Ok(shown)
}

fn show(
    group: &Group,
    topics: &Topics,
    message: &BorrowedMessage<'_>,
    headers: &dyn MessageHeaders,
    letter: &Letter<'_>,
) -> Shown {
    let ours = if letter.topic == topics.resubmits {
        Resubmit::chain(headers, NAMES.len(), &topics.resubmits)
    } else {
        Vec::new()
    };
    let earlier = ours.iter().map(|resubmit| Earlier {
        key: letter_key(
            group.name,
            resubmit.topic,
            resubmit.partition,
            resubmit.offset,
        ),
        resubmitted_at: timestamp(resubmit.at_ms),
    });
    let own = headers.copied_from(NAMES.len() + ours.len());
    Shown {
        key: letter.letter_key(group.name),
        letter_offset: message.offset(),
        topic: letter.topic.to_owned(),
        partition: letter.partition,
        offset: letter.offset,
        epoch: letter.epoch,
        reason: letter.reason.to_owned(),
        error: letter.error.to_owned(),
        appended_at: timestamp(letter.appended_at_ms),
        rejected_at: appended_at(message),
        earlier: earlier.collect(),
        message_key: letter.key.map(|key| Bytes(key.to_vec())),
        headers: own
            .into_iter()
            .map(|(name, value)| ShownHeader {
                name,
                value: value.map(Bytes),
            })
            .collect(),
        payload: message.payload().map(|payload| Bytes(payload.to_vec())),
        cut: letter.cut,
        event: None,
        resubmitted: None,
    }
}

/// Finds out which letters were resubmitted, and what became of them.
fn trace(
    kafka: &KafkaSettings,
    group: &'static Group,
    shown: &mut [Shown],
    progress: Progress<'_>,
) -> Result<(), Error> {
    let topics = Topics::of(group, kafka);
    // First: what is committed now has its letters below the end of their log.
    let committed = Committed::of(group, kafka)?;
    let wanted: HashMap<(String, u32), usize> = shown
        .iter()
        .enumerate()
        .map(|(index, shown)| ((shown.key.clone(), shown.epoch), index))
        .collect();
    let mut traced = HashSet::new();
    log::read(kafka, &topics.resubmits, 0, progress, |message| {
        let headers = KafkaHeaders(message.headers());
        if let Some(resubmit) = Resubmit::at(&headers, 0)
            && let key = letter_key(
                group.name,
                resubmit.topic,
                resubmit.partition,
                resubmit.offset,
            )
            && let Some(index) = wanted.get(&(key, resubmit.epoch))
            && shown[*index].resubmitted.is_none()
        {
            let is_past = committed.is_past(&topics.resubmits, 0, message.offset());
            traced.insert(message.offset());
            shown[*index].resubmitted = Some(Trail {
                at: appended_at(message),
                offset: message.offset(),
                fate: if is_past {
                    Fate::Processed
                } else {
                    Fate::Waiting
                },
            });
        }
        Ok::<_, Error>(ControlFlow::Continue(()))
    })?;
    let Some(from) = shown.first().map(|shown| shown.letter_offset) else {
        return Ok(());
    };
    if traced.is_empty() {
        return Ok(());
    }
    let mut again = HashSet::new();
    log::read(kafka, &topics.letters, from, progress, |message| {
        let headers = KafkaHeaders(message.headers());
        let letter = Letter::parse(&headers);
        let is_traced = |letter: &Letter<'_>| {
            letter.topic == topics.resubmits && traced.contains(&letter.offset)
        };
        again.extend(letter.filter(is_traced).map(|letter| letter.offset));
        Ok::<_, Error>(ControlFlow::Continue(()))
    })?;
    let trails = shown
        .iter_mut()
        .filter_map(|shown| shown.resubmitted.as_mut());
    for trail in trails.filter(|trail| again.contains(&trail.offset)) {
        let key = letter_key(group.name, &topics.resubmits, 0, trail.offset);
        trail.fate = Fate::Rejected(key);
    }
    Ok(())
}

/// Reads the values as the group does, with the schemas that the registry gives.
async fn decode(registry: &Registry, group: &Group, prefix: &str, shown: &mut [Shown]) {
    for shown in shown.iter_mut().filter(|shown| shown.cut.is_none()) {
        let read_from = shown.earlier.last().map(|earlier| &earlier.key);
        let kind = group.reads.iter().find_map(|topic| {
            let name = topic.full_name(prefix);
            let is_origin = match read_from {
                Some(key) => key.starts_with(&format!("{}/{name}/", group.name)),
                None => shown.topic == name,
            };
            match topic.content {
                Content::Events(kind) if is_origin => Some(kind),
                _ => None,
            }
        });
        let (Some(kind), Some(Bytes(payload))) = (kind, &shown.payload) else {
            continue;
        };
        let mut decoders = Decoders::new(kind);
        if let Err(DecodeError::UnknownSchema { id }) = decoders.decode(payload)
            && let Ok(schema) = registry.schema(id).await
        {
            decoders.add(id, &schema);
        }
        shown.event = match decoders.decode(payload) {
            Ok(Event::Click(click)) => serde_json::to_value(click).ok(),
            Ok(Event::Watch(watch)) => serde_json::to_value(watch).ok(),
            Err(_) => None,
        };
    }
}
