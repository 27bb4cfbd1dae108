//! What others' clients may send although ours never do: packed batches of every kind, header names that are not UTF-8, an event that is as large as Kafka takes.

use std::time::Duration;

use activity_operator::verify;
use activity_runtime::headers::UNREADABLE;
use activity_schemas::codec::Encoder;
use activity_schemas::{ClickEvent, EventKind, WatchAction, WatchEvent};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::dead_letters::{Raw, publish, read};
use crate::in_world;
use crate::support::{World, groups};

/// The schema id that the set-up gave to what a topic carries.
async fn schema_id(world: &World, topic: &str) -> u32 {
    let registry = world.targets.registry.url().unwrap();
    let subject = format!("{}{topic}-value", world.targets.kafka.topic_prefix);
    let answer = reqwest::get(format!("{registry}/subjects/{subject}/versions/latest"))
        .await
        .unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    answer["id"].as_u64().unwrap() as u32
}

fn message(payload: Vec<u8>) -> Raw {
    Raw {
        key: Some(b"u1".to_vec()),
        payload: Some(payload),
        headers: Vec::new(),
    }
}

fn click(schema_id: u32, n: usize) -> Raw {
    let event_id = format!("00000000-0000-4000-8000-{n:012x}");
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
    message(payload)
}

#[test]
fn a_batch_is_read_however_its_producer_packs_it() {
    in_world("packed", 1, |world| async move {
        let id = schema_id(&world, "clicks").await;
        let codecs = ["zstd", "lz4", "snappy", "gzip", "none"];
        for (at, codec) in codecs.into_iter().enumerate() {
            let messages: Vec<Raw> = (0..100).map(|n| click(id, at * 100 + n)).collect();
            let config = [("compression.type", codec), ("linger.ms", "20")];
            publish(&world, "clicks", &messages, &config);
        }
        let consumer = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        let reports = world.verified(&["analytics"]).await;
        assert_eq!(reports[0].rows["clicks"], 500, "{}", consumer.log());
    });
}

fn watch(schema_id: u32, n: usize, user_id: &str) -> Raw {
    let event_id = format!("00000000-0000-4000-8000-{n:012x}");
    let event = WatchEvent {
        event_id: &event_id,
        occurred_at: 1_700_000_000_000,
        received_at: 1_700_000_000_500,
        user_id,
        video_id: "title-1",
        action: WatchAction::Start,
        ..WatchEvent::default()
    };
    let mut payload = Vec::new();
    Encoder::new(EventKind::Watch, schema_id)
        .encode(&event, &mut payload)
        .unwrap();
    message(payload)
}

#[test]
fn an_event_whose_derived_message_kafka_would_not_take_is_a_dead_letter_and_the_rest_goes_on() {
    in_world("large_user", 1, |world| async move {
        let id = schema_id(&world, "watches").await;
        let users = ["u1".to_owned(), "u".repeat(530_000), "u2".to_owned()];
        let messages: Vec<Raw> = users
            .iter()
            .enumerate()
            .map(|(n, user_id)| watch(id, n, user_id))
            .collect();
        publish(&world, "watches", &messages, &[]);
        let mut consumer = world.consume(&["recommendation"], &[]);
        world.caught_up(&["recommendation"]).await;
        let report = world.verified(&["recommendation"]).await.remove(0);
        assert_eq!(report.dead_letters, 1, "{}", consumer.log());
        assert_eq!(report.rows["recommendation_outcomes"], 2, "{report:#?}");
        assert!(consumer.is_running());
    });
}

/// Publishes so many transactions of so many clicks; each leaves a marker in the log, which takes an offset.
fn publish_in_transactions(world: &World, schema_id: u32, transactions: usize, clicks: usize) {
    const WAIT: Duration = Duration::from_secs(60);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.targets.kafka.brokers().unwrap())
        .set("transactional.id", &world.name);
    let producer: BaseProducer = config.create().unwrap();
    let topic = format!("{}clicks", world.targets.kafka.topic_prefix);
    producer.init_transactions(WAIT).unwrap();
    for transaction in 0..transactions {
        producer.begin_transaction().unwrap();
        for n in 0..clicks {
            let click = click(schema_id, transaction * clicks + n);
            let payload = click.payload.as_deref().unwrap();
            let record = BaseRecord::<[u8], [u8]>::to(&topic).payload(payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(WAIT).unwrap();
        producer.commit_transaction(WAIT).unwrap();
    }
}

#[test]
fn messages_in_transactions_are_read_verified_and_read_again_like_others() {
    in_world("transactions", 1, |world| async move {
        let id = schema_id(&world, "clicks").await;
        publish_in_transactions(&world, id, 10, 10);
        let mut consumer = world.consume(&["analytics"], &["--batch-rows-max", "30"]);
        // Not until the lag is zero: the last marker lies behind the last message that can be settled.
        let settled = "SELECT toInt64(sum(events)) AS number FROM {database}.ledger FINAL";
        let is_settled = || async { world.number(settled).await == 100 };
        world.until(is_settled).await;
        assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
        let before = world.verified(&["analytics"]).await;
        assert_eq!((before[0].rows["clicks"], before[0].expired), (100, 0));
        let to_beginning = ["rewind", "analytics", "--to", "beginning", "--yes"];
        let rewound = world.command(&to_beginning).output().unwrap();
        assert!(rewound.status.success(), "{rewound:?}");
        let after = world.verified(&["analytics"]).await;
        assert_eq!((&after[0].rows, after[0].expired), (&before[0].rows, 0));
        // A message that the ledger does not count is missed in spite of the markers around it.
        let passed_over = "INSERT INTO {database}.ledger SELECT * REPLACE (events - 1 AS events, inserted_at + INTERVAL 1 SECOND AS inserted_at) \
             FROM {database}.ledger FINAL WHERE epoch = 2 AND events > 0 ORDER BY start_offset LIMIT 1";
        world.database().execute(passed_over).await.unwrap();
        let report = verify::run(&world.targets, &groups(&["analytics"])).await;
        let report = report.unwrap().remove(0);
        assert_eq!((report.missing, report.unexpected), (1, 0), "{report:#?}");
    });
}

/// A name in Latin-1, as a client of another language may send it.
#[allow(
    unsafe_code,
    reason = "the client takes a name as text only; it copies its bytes, and nothing reads them as text"
)]
fn latin_1_name() -> String {
    unsafe { String::from_utf8_unchecked(b"gr\xf6\xdfe".to_vec()) }
}

#[test]
fn a_message_with_a_header_name_that_is_not_utf_8_is_a_dead_letter_like_any_other() {
    in_world("latin_1", 1, |world| async move {
        let id = schema_id(&world, "clicks").await;
        let mut bad = message(b"no event".to_vec());
        let value = Some(b"value".to_vec());
        bad.headers = vec![
            (latin_1_name(), value.clone()),
            ("trace".to_owned(), value.clone()),
        ];
        let messages = [click(id, 1), bad, click(id, 2)];
        publish(&world, "clicks", &messages, &[]);
        let mut consumer = world.consume(&["analytics", "truth"], &[]);
        world.caught_up(&["analytics", "truth"]).await;
        let report = world.verified(&["analytics"]).await.remove(0);
        assert_eq!((report.rows["clicks"], report.dead_letters), (2, 1));
        assert!(consumer.is_running(), "{}", consumer.log());
        let letters = read(&world, "dead-letters.analytics");
        let letter = letters.values().next().unwrap();
        let own = [(UNREADABLE.to_owned(), None), ("trace".to_owned(), value)];
        assert!(letter.headers.ends_with(&own), "{letter:?}");
    });
}
