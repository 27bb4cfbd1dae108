//! Schema evolution against the real registry: it refuses what would break a reader, and older and newer writers are read right.

use std::time::Duration;

use activity_schemas::{EventKind, avro};
use apache_avro::types::Value;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use crate::in_world;
use crate::support::World;

const EVENT_ID: &str = "018f2c7e-0000-7000-8000-00000000000";

fn newer_watch_schema() -> serde_json::Value {
    let mut schema: serde_json::Value =
        serde_json::from_str(avro::newest(EventKind::Watch).json).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.insert(
        0,
        json!({"name": "app_version", "type": ["null", "string"], "default": null}),
    );
    let action = fields
        .iter_mut()
        .find(|field| field["name"] == "action")
        .unwrap();
    action["type"]["symbols"]
        .as_array_mut()
        .unwrap()
        .push(json!("cast"));
    schema
}

pub async fn register(world: &World, topic: &str, schema: &serde_json::Value) -> reqwest::Response {
    let url = format!(
        "{}/subjects/{}{topic}-value/versions",
        world.targets.registry.url().unwrap(),
        world.targets.kafka.topic_prefix
    );
    reqwest::Client::new()
        .post(url)
        .json(&json!({"schema": schema.to_string()}))
        .send()
        .await
        .unwrap()
}

fn newer_watch(schema: &apache_avro::Schema, id: u32, n: u32, action: &str) -> Vec<u8> {
    let mut record = apache_avro::types::Record::new(schema).unwrap();
    let some = |value: &str| Value::Union(1, Box::new(Value::String(value.to_owned())));
    record.put("app_version", some("9.1"));
    record.put(
        "event_id",
        Value::Uuid(format!("{EVENT_ID}{n}").parse().unwrap()),
    );
    record.put("occurred_at", Value::TimestampMillis(1_700_000_000_000));
    record.put("received_at", Value::TimestampMillis(1_700_000_000_500));
    record.put("user_id", "u1");
    for absent in [
        "session_id",
        "device_id",
        "ip",
        "country",
        "playback_id",
        "position_ms",
        "duration_ms",
        "rebuffer_ms",
    ] {
        record.put(absent, Value::Union(0, Box::new(Value::Null)));
    }
    record.put("video_id", "v1");
    let symbols = [
        "unknown",
        "start",
        "heartbeat",
        "pause",
        "resume",
        "seek",
        "complete",
        "stop",
        "cast",
    ];
    record.put(
        "action",
        Value::Enum(
            symbols.iter().position(|symbol| *symbol == action).unwrap() as u32,
            action.to_owned(),
        ),
    );
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema)
        .build()
        .unwrap();
    let datum = writer.write_value_to_vec(record).unwrap();
    [&[0], &id.to_be_bytes()[..], &datum].concat()
}

#[test]
fn a_newer_writer_is_read_and_its_unknown_action_becomes_unknown() {
    in_world("newer_writer", 1, |world| async move {
        let schema = newer_watch_schema();
        let registered = register(&world, "watches", &schema).await;
        assert!(
            registered.status().is_success(),
            "{:?}",
            registered.text().await
        );
        let id = registered.json::<serde_json::Value>().await.unwrap()["id"]
            .as_u64()
            .unwrap() as u32;
        let parsed = apache_avro::Schema::parse_str(&schema.to_string()).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.targets.kafka.brokers().unwrap());
        let producer: BaseProducer = BaseProducer::from_config(&config).unwrap();
        let topic = format!("{}watches", world.targets.kafka.topic_prefix);
        for (n, action) in ["complete", "cast"].into_iter().enumerate() {
            let payload = newer_watch(&parsed, id, n as u32, action);
            producer
                .send(BaseRecord::to(&topic).key("u1").payload(&payload))
                .unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        world.simulate_events(500, 30).await;
        let _consumer = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        let reports = world.verified(&["analytics"]).await;
        assert_eq!((reports[0].events, reports[0].dead_letters), (502, 0));
        let actions = format!(
            "SELECT toInt64(countIf(action IN ('complete', 'unknown'))) AS number FROM {{database}}.watches WHERE toString(event_id) LIKE '{EVENT_ID}%'"
        );
        assert_eq!(world.number(&actions).await, 2);
    });
}

#[test]
fn the_registry_refuses_a_version_that_some_reader_could_not_read() {
    in_world("refused_version", 1, |world| async move {
        let mut without_user: serde_json::Value =
            serde_json::from_str(avro::newest(EventKind::Click).json).unwrap();
        without_user["fields"]
            .as_array_mut()
            .unwrap()
            .retain(|field| field["name"] != "user_id");
        let refused = register(&world, "clicks", &without_user).await;
        assert_eq!(refused.status().as_u16(), 409, "{:?}", refused.text().await);
    });
}
