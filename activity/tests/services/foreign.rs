//! What others' clients may send although ours never do: packed batches of every kind, header names that are not UTF-8, an event that is as large as Kafka takes.

use activity_runtime::headers::UNREADABLE;
use activity_schemas::codec::Encoder;
use activity_schemas::{ClickEvent, EventKind, WatchAction, WatchEvent};

use crate::dead_letters::{Raw, publish, read};
use crate::in_world;
use crate::support::World;

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
        .unwrap()
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
        .unwrap()
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
