//! Dead letters from end to end: listed, shown byte for byte, resubmitted exactly once, and a group that rejects most of a topic stops.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use activity_producer::SimulateArgs;
use activity_schemas::codec::Encoder;
use activity_schemas::{ClickEvent, EventKind, avro};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::in_world;
use crate::support::World;

const GROUP: &str = "analytics";
const WAIT: Duration = Duration::from_secs(30);

pub type OwnHeaders = Vec<(String, Option<Vec<u8>>)>;

/// A message as it is in Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: OwnHeaders,
}

/// What a verb prints for programs.
fn json_of(world: &World, arguments: &[&str]) -> Value {
    let output = world
        .command(arguments)
        .args(["-o", "json"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(world: &World) -> Vec<Value> {
    let listing = json_of(world, &["deadletters", "list", GROUP]);
    assert_eq!(listing["unreadable"], 0);
    listing["summaries"].as_array().unwrap().clone()
}

/// The sum of a field over the letters of the topics that the world's producers write, or of the group's own resubmits.
fn sum(listing: &[Value], of_resubmits: bool, field: &str) -> u64 {
    let is_meant = |summary: &&Value| {
        summary["topic"].as_str().unwrap().contains(".resubmits.") == of_resubmits
    };
    let numbers = listing
        .iter()
        .filter(is_meant)
        .map(|summary| summary[field].as_u64().unwrap());
    numbers.sum()
}

fn client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.targets.kafka.brokers().unwrap())
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .set("message.max.bytes", "20000000")
        .set("compression.type", "none");
    config
}

fn full_name(world: &World, topic: &str) -> String {
    format!("{}{topic}", world.targets.kafka.topic_prefix)
}

/// All messages of a topic, by partition and offset.
pub fn read(world: &World, topic: &str) -> BTreeMap<(i32, i64), Raw> {
    let consumer: BaseConsumer = BaseConsumer::from_config(&client(world)).unwrap();
    let topic = full_name(world, topic);
    let metadata = consumer.fetch_metadata(Some(&topic), WAIT).unwrap();
    let (mut list, mut wanted) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (first, next) = consumer
            .fetch_watermarks(&topic, partition.id(), WAIT)
            .unwrap();
        wanted += next - first;
        list.add_partition_offset(&topic, partition.id(), Offset::Offset(first))
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let message = |_| {
        let message = consumer.poll(WAIT).unwrap().unwrap();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let headers = headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect();
        let raw = Raw {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
        };
        ((message.partition(), message.offset()), raw)
    };
    (0..wanted).map(message).collect()
}

/// Publishes messages; one that is too large is refused without a word.
pub fn publish(world: &World, topic: &str, messages: &[Raw], config: &[(&str, &str)]) {
    let mut client = client(world);
    for (name, value) in config {
        client.set(*name, *value);
    }
    let producer: BaseProducer = BaseProducer::from_config(&client).unwrap();
    let topic = full_name(world, topic);
    for message in messages {
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: value.as_ref(),
                })
            });
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).headers(headers);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        while let Err((_, returned)) = producer.send(record) {
            record = returned;
            producer.poll(Duration::from_millis(20));
        }
    }
    producer.flush(WAIT).unwrap();
}

/// A message as `show` gives it back.
fn shown(letter: &Value) -> Raw {
    let bytes = |value: &Value| value.as_str().map(|text| STANDARD.decode(text).unwrap());
    let headers = letter["headers"].as_array().unwrap().iter();
    Raw {
        key: bytes(&letter["message_key"]),
        payload: bytes(&letter["payload"]),
        headers: headers
            .map(|header| {
                let name = header["name"].as_str().unwrap().to_owned();
                (name, bytes(&header["value"]))
            })
            .collect(),
    }
}

/// Every letter of the world's own topics is shown with the message that stands at its coordinates.
fn letters_are_their_messages(world: &World, letters: &[Value]) {
    let topics: BTreeMap<String, _> = ["clicks", "watches"]
        .map(|topic| (full_name(world, topic), read(world, topic)))
        .into();
    for letter in letters {
        let source = &topics[letter["topic"].as_str().unwrap()];
        let partition = letter["partition"].as_i64().unwrap() as i32;
        let message = &source[&(partition, letter["offset"].as_i64().unwrap())];
        assert_eq!(shown(letter), *message, "{letter:#}");
    }
}

#[test]
fn malformed_messages_are_listed_shown_as_they_were_and_without_a_fix_rejected_again() {
    in_world("letters_in_vain", 2, |world| async move {
        let published = world
            .simulate(SimulateArgs {
                events: Some(5_000),
                seed: Some(71),
                malformed_share: 0.2,
                ..SimulateArgs::default()
            })
            .await;
        assert_eq!(published.counts.malformed, 1_000);
        let _consumer = world.consume(&[GROUP, "truth"], &[]);
        world.caught_up(&[GROUP, "truth"]).await;
        let listing = list(&world);
        assert_eq!(sum(&listing, false, "letters"), 1_000);
        let reasons: BTreeSet<&str> = listing
            .iter()
            .map(|summary| summary["reason"].as_str().unwrap())
            .collect();
        let expected = [
            "trailing_bytes",
            "truncated",
            "unknown_schema",
            "wrong_magic",
        ];
        assert!(reasons.is_superset(&expected.into()), "{reasons:?}");

        let all = json_of(&world, &["deadletters", "show", GROUP, "--limit", "9999"]);
        let letters = all.as_array().unwrap();
        assert_eq!(letters.len(), 1_000);
        letters_are_their_messages(&world, letters);
        let key = letters[500]["key"].as_str().unwrap();
        let one = json_of(&world, &["deadletters", "show", GROUP, key]);
        assert_eq!(one, json!([letters[500]]));

        let resubmit = ["deadletters", "resubmit", GROUP];
        let dry = json_of(&world, &[&resubmit[..], &["--dry-run"]].concat());
        assert_eq!(dry["resubmitted"], 1_000);
        assert_eq!(read(&world, &format!("resubmits.{GROUP}")).len(), 0);
        assert_eq!(json_of(&world, &resubmit)["resubmitted"], 1_000);
        world.caught_up(&[GROUP]).await;
        let listing = list(&world);
        assert_eq!(sum(&listing, false, "letters"), 1_000);
        assert_eq!(sum(&listing, false, "rejected_again"), 1_000);
        assert_eq!(sum(&listing, true, "letters"), 1_000);
        let one = &json_of(&world, &["deadletters", "show", GROUP, key])[0];
        let again = one["resubmitted"]["fate"]["rejected"].as_str().unwrap();
        let again = &json_of(&world, &["deadletters", "show", GROUP, again])[0];
        assert_eq!(again["earlier"][0]["key"], key);
        assert_eq!(shown(again), shown(&letters[500]));

        // What was rejected again is a letter of its own, and goes through once more; the first letters do not.
        let second = json_of(&world, &resubmit);
        assert_eq!(
            (second["resubmitted"].as_u64(), second["already"].as_u64()),
            (Some(1_000), Some(1_000))
        );
        world.caught_up(&[GROUP]).await;
        let reports = world.verified(&[GROUP, "truth"]).await;
        assert_eq!((reports[0].events, reports[0].dead_letters), (8_000, 3_000));
        assert_eq!(reports[0].rows.values().sum::<u64>(), 5_000);
        // Nobody else has seen them.
        assert_eq!((reports[1].events, reports[1].dead_letters), (6_000, 1_000));
    });
}

/// Registers a schema that has one field more than the newest one, at the end; gives its id. (The registry takes one with another description for the same.)
async fn register_variant(world: &World, n: u32) -> u32 {
    let mut schema: Value = serde_json::from_str(avro::newest(EventKind::Click).json).unwrap();
    let more = json!({"name": format!("more_{n}"), "type": ["null", "string"], "default": null});
    schema["fields"].as_array_mut().unwrap().push(more);
    let registry = world.targets.registry.url().unwrap();
    let subject = format!("{}clicks-value", world.targets.kafka.topic_prefix);
    let answer = reqwest::Client::new()
        .post(format!("{registry}/subjects/{subject}/versions"))
        .json(&json!({"schema": schema.to_string()}))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["id"].as_u64().unwrap() as u32
}

/// A click in the wire format, its id made of two numbers.
fn click(schema_id: u32, n: u32) -> Raw {
    let event_id = format!("{schema_id:08x}-0000-4000-8000-{n:012x}");
    let event = ClickEvent {
        event_id: &event_id,
        occurred_at: 1_700_000_000_000,
        received_at: 1_700_000_000_500,
        user_id: "u1",
        ..ClickEvent::default()
    };
    let mut payload = Vec::new();
    Encoder::new(EventKind::Click, schema_id)
        .encode(&event, &mut payload)
        .unwrap();
    // The field that only those schemas have: null.
    payload.push(0);
    Raw {
        key: Some(format!("u{n}").into_bytes()),
        payload: Some(payload),
        headers: vec![("n".to_owned(), Some(n.to_be_bytes().to_vec()))],
    }
}

#[test]
fn what_a_later_schema_makes_readable_is_resubmitted_exactly_once_although_the_command_was_killed()
{
    in_world("letters_fixed", 2, |world| async move {
        const OF_EACH: u32 = 1_500;
        let first = register_variant(&world, 0).await + 20;
        let ids = first..first + 20;
        let messages: Vec<Raw> = (0..OF_EACH)
            .flat_map(|n| ids.clone().map(move |id| click(id, n)))
            .collect();
        publish(&world, "clicks", &messages, &[]);
        let all = messages.len() as u64;
        let mut consumer = world.consume(&[GROUP, "truth"], &["--dead-letter-share-max", "1"]);
        world.caught_up(&[GROUP, "truth"]).await;
        assert_eq!(sum(&list(&world), false, "letters"), all);

        // The fix: those who write so register what they write. Others may take some of the ids meanwhile.
        let (mut ours, mut n) = (BTreeSet::new(), 0);
        while ours.last().is_none_or(|last| *last < ids.end) {
            n += 1;
            ours.insert(register_variant(&world, n).await);
        }
        let readable = ids.filter(|id| ours.contains(id)).count() as u64 * u64::from(OF_EACH);
        assert!(readable > 0, "{ours:?}");

        let resubmit = ["deadletters", "resubmit", GROUP];
        let topic = full_name(&world, &format!("resubmits.{GROUP}"));
        let watch: BaseConsumer = BaseConsumer::from_config(&client(&world)).unwrap();
        let sent = || watch.fetch_watermarks(&topic, 0, WAIT).unwrap().1 as u64;
        let mut command = world.command(&resubmit).spawn().unwrap();
        while sent() == 0 && command.try_wait().unwrap().is_none() {}
        command.kill().unwrap();
        command.wait().unwrap();
        let before = sent();
        consumer.kill();
        assert!((1..all).contains(&before), "{before}");
        let rest = json_of(&world, &resubmit);
        assert_eq!(rest["matched"], all);
        assert!(
            rest["resubmitted"].as_u64().unwrap() <= all - before,
            "{rest}"
        );
        let again = json_of(&world, &resubmit);
        assert_eq!(
            (again["resubmitted"].as_u64(), again["already"].as_u64()),
            (Some(0), Some(all))
        );

        let _consumer = world.consume(&[GROUP, "truth"], &["--dead-letter-share-max", "1"]);
        world.caught_up(&[GROUP, "truth"]).await;
        let listing = list(&world);
        assert_eq!(sum(&listing, false, "letters"), all);
        assert_eq!(sum(&listing, false, "processed"), readable);
        assert_eq!(sum(&listing, false, "rejected_again"), all - readable);
        let clicks = "SELECT toInt64(count()) AS number FROM {database}.clicks";
        assert_eq!(world.number(clicks).await as u64, readable);
        let distinct = "SELECT toInt64(uniqExact(event_id)) AS number FROM {database}.clicks";
        assert_eq!(world.number(distinct).await as u64, readable);
        let reports = world.verified(&[GROUP, "truth"]).await;
        assert_eq!(reports[0].rows["clicks"], readable);
        assert_eq!(reports[1].events, all);
        let shown = &json_of(&world, &["deadletters", "show", GROUP, "--limit", "1"])[0];
        let is_readable = shown["resubmitted"]["fate"] == "processed";
        assert_eq!(shown["event"]["user_id"] == "u1", is_readable, "{shown:#}");
    });
}

#[test]
fn headers_come_back_in_order_and_the_largest_message_that_kafka_takes_is_kept() {
    in_world("letters_large", 1, |world| async move {
        let own = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let headers = vec![
            own("dead-letter-reason", Some(b"not ours")),
            own("twice", Some(b"1")),
            own("empty", Some(b"")),
            own("twice", None),
            own("resubmit", Some(b"v1;1;x;0;0;0")),
            own("twice", Some(b"1")),
        ];
        let odd = |key: Option<&[u8]>, payload: Option<&[u8]>| Raw {
            key: key.map(<[u8]>::to_vec),
            payload: payload.map(<[u8]>::to_vec),
            headers: headers.clone(),
        };
        let messages = [
            odd(Some(b"\xff\x00"), Some(b"\x01\xfe")),
            odd(None, Some(b"")),
            odd(Some(b""), None),
        ];
        publish(&world, "clicks", &messages, &[]);
        // Kafka's limit is that of a batch: the largest message is found by trying.
        let watch: BaseConsumer = BaseConsumer::from_config(&client(&world)).unwrap();
        let topic = full_name(&world, "clicks");
        let count = || watch.fetch_watermarks(&topic, 0, WAIT).unwrap().1;
        let mut bytes = 1_048_588;
        while count() == 3 {
            bytes -= 16;
            let large = odd(Some(b"k"), Some(&vec![7; bytes]));
            publish(&world, "clicks", &[large], &[]);
        }
        assert!(bytes > 1_048_000, "{bytes}");
        let huge = odd(Some(b"k"), Some(&vec![7; 9_000_000]));
        publish(&world, "clicks", &[huge], &[("compression.type", "gzip")]);
        assert_eq!(count(), 5);

        let _consumer = world.consume(&[GROUP], &[]);
        world.caught_up(&[GROUP]).await;
        let all = json_of(&world, &["deadletters", "show", GROUP]);
        let letters = all.as_array().unwrap();
        assert_eq!(letters.len(), 5);
        letters_are_their_messages(&world, &letters[..4]);
        assert_eq!(letters[4]["cut"]["payload_bytes"], 9_000_000);
        assert_eq!(shown(&letters[4]).headers, headers);

        let report = json_of(&world, &["deadletters", "resubmit", GROUP]);
        assert_eq!(
            (&report["resubmitted"], &report["cut"]),
            (&json!(4), &json!(1))
        );
        world.caught_up(&[GROUP]).await;
        let resubmits = read(&world, &format!("resubmits.{GROUP}"));
        let sources = read(&world, "clicks");
        for (resubmitted, source) in resubmits.values().zip(sources.values()) {
            assert_eq!(resubmitted.headers[0].0, "resubmit");
            let without_ours = Raw {
                headers: resubmitted.headers[1..].to_vec(),
                ..resubmitted.clone()
            };
            assert_eq!(without_ours, *source);
        }
        assert_eq!(sum(&list(&world), false, "rejected_again"), 4);
        let reports = world.verified(&[GROUP]).await;
        assert_eq!((reports[0].events, reports[0].dead_letters), (9, 9));
    });
}

#[test]
fn a_group_that_rejects_most_of_a_topic_stops_taking_it_until_it_is_started_again() {
    in_world("letters_limit", 2, |world| async move {
        let junk = |n: u32| Raw {
            key: Some(n.to_be_bytes().to_vec()),
            payload: Some(vec![9; 20]),
            headers: Vec::new(),
        };
        let messages: Vec<Raw> = (0..3_000).map(junk).collect();
        publish(&world, "clicks", &messages, &[]);
        let limits = [
            "--dead-letter-events-min",
            "1000",
            "--metrics",
            "127.0.0.1:0",
        ];
        // The log of an earlier run says the same.
        let log = format!("{}-{GROUP}.log", world.name);
        let _ = std::fs::remove_file(Path::new(env!("CARGO_TARGET_TMPDIR")).join(log));
        let mut consumer = world.consume(&[GROUP], &limits);
        world
            .until(|| async { consumer.log().contains("rejected; see") })
            .await;
        // The other topic goes on, and what was taken is settled.
        world.simulate_events(2_000, 72).await;
        let watches = read(&world, "watches").len() as i64;
        let count = "SELECT toInt64(count()) AS number FROM {database}.watches";
        world
            .until(|| async { world.number(count).await == watches })
            .await;
        world
            .until(|| async { sum(&list(&world), false, "letters") == 1_000 })
            .await;
        let log = consumer.log();
        let address = log.split("http://").nth(1).unwrap();
        let address = address.split("/metrics").next().unwrap();
        let ready = reqwest::get(format!("http://{address}/readyz"))
            .await
            .unwrap();
        assert_eq!(ready.status().as_u16(), 503);
        let why = ready.text().await.unwrap();
        assert!(why.contains("deadletters list"), "{why}");
        let metrics = reqwest::get(format!("http://{address}/metrics"));
        let metrics = metrics.await.unwrap().text().await.unwrap();
        let paused = metrics
            .lines()
            .filter(|line| line.starts_with("activity_partition_paused") && line.ends_with(" 1"));
        assert_eq!(paused.count(), 2, "{metrics}");
        assert_eq!(log.matches("ERROR").count(), 1, "{log}");
        assert_eq!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.clicks")
                .await,
            0
        );
        assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());

        let _consumer = world.consume(&[GROUP], &["--dead-letter-share-max", "1"]);
        world.caught_up(&[GROUP]).await;
        assert_eq!(sum(&list(&world), false, "letters"), 3_000);
        let reports = world.verified(&[GROUP]).await;
        assert_eq!((reports[0].events, reports[0].dead_letters), (5_000, 3_000));
    });
}
