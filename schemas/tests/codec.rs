//! The codec against the schemas, against apache-avro as the reference, and against bytes that are no events.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;

use activity_schemas::codec::{FRAMING_BYTES, MESSAGE_BYTES_MAX};
use activity_schemas::{
    ClickEvent, DecodeError, Decoders, Encoder, Event, EventKind, WatchAction, WatchEvent, avro,
};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde_json::{Value, json};

const ID: u32 = 7;

fn decoders(kind: EventKind) -> Decoders {
    let mut decoders = Decoders::new(kind);
    decoders.add(ID, avro::newest(kind).json);
    decoders
}

/// Every golden event of a kind, as JSON.
fn golden(kind: EventKind) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(kind.name());
    let mut events: Vec<(String, String)> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    events.sort();
    events
}

fn encode(kind: EventKind, json: &str) -> Vec<u8> {
    let encoder = Encoder::new(kind, ID);
    let mut message = Vec::new();
    match kind {
        EventKind::Click => encoder.encode(
            &serde_json::from_str::<ClickEvent<'_>>(json).unwrap(),
            &mut message,
        ),
        EventKind::Watch => encoder.encode(
            &serde_json::from_str::<WatchEvent<'_>>(json).unwrap(),
            &mut message,
        ),
    }
    .unwrap();
    message
}

fn as_json(event: &Event<'_>) -> Value {
    match event {
        Event::Click(click) => serde_json::to_value(click).unwrap(),
        Event::Watch(watch) => serde_json::to_value(watch).unwrap(),
    }
}

fn schema_json(kind: EventKind) -> Value {
    serde_json::from_str(avro::newest(kind).json).unwrap()
}

#[test]
fn every_golden_event_comes_back_as_it_went_in() {
    for kind in EventKind::ALL {
        for (name, json) in golden(kind) {
            let message = encode(kind, &json);
            let back = as_json(&decoders(kind).decode(&message).unwrap());
            let went_in: Value = serde_json::from_str(&json).unwrap();
            for (field, value) in went_in.as_object().unwrap() {
                assert_eq!(&back[field], value, "{name}: {field}");
            }
        }
    }
}

#[test]
fn apache_avro_reads_what_we_write() {
    for kind in EventKind::ALL {
        let schema = Schema::parse_str(avro::newest(kind).json).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        for (name, json) in golden(kind) {
            let message = encode(kind, &json);
            let mut datum = &message[FRAMING_BYTES..];
            let value = reader
                .read_value(&mut datum)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(datum.is_empty(), "{name}");
            let apache_avro::types::Value::Record(fields) = value else {
                panic!("{name}")
            };
            let user = fields.iter().find(|(field, _)| field == "user_id").unwrap();
            let expected: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(
                user.1,
                apache_avro::types::Value::String(expected["user_id"].as_str().unwrap().to_owned()),
                "{name}"
            );
        }
    }
}

#[test]
fn the_typed_events_have_exactly_the_fields_of_the_schema() {
    let typed = [
        (
            EventKind::Click,
            serde_json::to_value(ClickEvent::default()),
        ),
        (
            EventKind::Watch,
            serde_json::to_value(WatchEvent::default()),
        ),
    ];
    for (kind, value) in typed {
        let fields: BTreeSet<String> = value
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let schema: BTreeSet<String> = schema_json(kind)["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(fields, schema);
    }
}

#[test]
fn what_an_older_writer_did_not_know_gets_the_default_of_the_schema() {
    for kind in EventKind::ALL {
        let mut older = schema_json(kind);
        let fields = older["fields"].as_array_mut().unwrap();
        let defaults: Vec<(String, Value)> = fields
            .iter()
            .filter_map(|field| {
                Some((
                    field["name"].as_str()?.to_owned(),
                    field.get("default")?.clone(),
                ))
            })
            .collect();
        assert!(!defaults.is_empty());
        fields.retain(|field| field.get("default").is_none());
        let schema: serde_avro_fast::Schema = older.to_string().parse().unwrap();
        let required = json!({
            "event_id": "00000000-0000-4000-8000-000000000001", "occurred_at": 1, "received_at": 2, "user_id": "u", "video_id": "v", "action": "start",
        });
        let mut config = serde_avro_fast::ser::SerializerConfig::new(&schema);
        let datum = match kind {
            EventKind::Click => serde_avro_fast::to_datum_vec(
                &OldClick {
                    event_id: "00000000-0000-4000-8000-000000000001",
                    occurred_at: 1,
                    received_at: 2,
                    user_id: "u",
                },
                &mut config,
            ),
            EventKind::Watch => serde_avro_fast::to_datum_vec(
                &OldWatch {
                    event_id: "00000000-0000-4000-8000-000000000001",
                    occurred_at: 1,
                    received_at: 2,
                    user_id: "u",
                    video_id: "v",
                    action: WatchAction::Start,
                },
                &mut config,
            ),
        }
        .unwrap();
        let mut decoders = Decoders::new(kind);
        decoders.add(3, &older.to_string());
        let message = [&[0, 0, 0, 0, 3][..], &datum].concat();
        let event = as_json(&decoders.decode(&message).unwrap());
        for (field, default) in defaults {
            assert_eq!(event[&field], default, "{field}");
        }
        assert_eq!(event["user_id"], required["user_id"]);
    }
}

#[derive(serde::Serialize)]
struct OldClick<'a> {
    event_id: &'a str,
    occurred_at: i64,
    received_at: i64,
    user_id: &'a str,
}

#[derive(serde::Serialize)]
struct OldWatch<'a> {
    event_id: &'a str,
    occurred_at: i64,
    received_at: i64,
    user_id: &'a str,
    video_id: &'a str,
    action: WatchAction,
}

#[test]
fn a_published_version_never_changes() {
    let fingerprints: Vec<String> = EventKind::ALL
        .into_iter()
        .flat_map(|kind| {
            avro::versions(kind)
                .iter()
                .map(move |version| (kind, version))
        })
        .map(|(kind, version)| {
            let schema = Schema::parse_str(version.json).unwrap();
            format!(
                "{} v{} {}",
                kind.name(),
                version.number,
                schema.fingerprint::<apache_avro::rabin::Rabin>()
            )
        })
        .collect();
    insta::assert_snapshot!(fingerprints.join("\n"), @r"
    click v1 5f80d44c7808f325
    watch v1 0105f13538ef9669
    ");
}

#[test]
fn every_pair_of_versions_is_readable_both_ways() {
    for kind in EventKind::ALL {
        for writer in avro::versions(kind) {
            for reader in avro::versions(kind) {
                let (writer, reader) = (
                    Schema::parse_str(writer.json).unwrap(),
                    Schema::parse_str(reader.json).unwrap(),
                );
                apache_avro::schema_compatibility::SchemaCompatibility::can_read(&writer, &reader)
                    .unwrap();
            }
        }
    }
}

#[test]
fn each_kind_of_malformed_message_has_its_error() {
    let message = encode(EventKind::Click, &golden(EventKind::Click)[0].1);
    let decoders = decoders(EventKind::Click);
    let error = |bytes: &[u8]| decoders.decode(bytes).unwrap_err();
    assert_eq!(error(&[]), DecodeError::TooShort { bytes: 0 });
    assert_eq!(error(&message[..4]), DecodeError::TooShort { bytes: 4 });
    assert_eq!(
        error(&[&[1], &message[1..]].concat()),
        DecodeError::WrongMagic { found: 1 }
    );
    assert_eq!(
        error(&[&[0, 0, 0, 0, 8], &message[5..]].concat()),
        DecodeError::UnknownSchema { id: 8 }
    );
    assert_eq!(error(&message[..message.len() - 1]), DecodeError::Truncated);
    assert_eq!(
        error(&[&message[..], &[0, 0]].concat()),
        DecodeError::Trailing { bytes: 2 }
    );
    assert_eq!(
        error(&vec![0; MESSAGE_BYTES_MAX + 1]),
        DecodeError::TooLong {
            bytes: MESSAGE_BYTES_MAX + 1
        }
    );
    assert!(matches!(
        error(&[&message[..5], &[1; 40]].concat()),
        DecodeError::Malformed(_)
    ));
}

#[test]
fn a_schema_that_is_no_version_of_the_event_is_unfit() {
    let mut decoders = Decoders::new(EventKind::Click);
    decoders.add(1, "no schema");
    decoders.add(2, "\"string\"");
    decoders.add(
        3,
        avro::newest(EventKind::Click)
            .json
            .replace("\"user_id\"", "\"who\"")
            .as_str(),
    );
    for id in 1..=3 {
        assert!(
            matches!(
                decoders.decode(&[0, 0, 0, 0, id]),
                Err(DecodeError::UnfitSchema { .. })
            ),
            "{id}"
        );
    }
}

#[test]
fn an_action_that_a_newer_writer_knows_reads_as_unknown() {
    let newer = avro::newest(EventKind::Watch)
        .json
        .replace("\"stop\"]", "\"stop\", \"cast\"]");
    let schema: serde_avro_fast::Schema = newer.parse().unwrap();
    let json = &golden(EventKind::Watch)[0].1;
    let mut event: serde_json::Map<String, Value> = serde_json::from_value(
        serde_json::to_value(serde_json::from_str::<WatchEvent<'_>>(json).unwrap()).unwrap(),
    )
    .unwrap();
    event.insert("action".to_owned(), json!("cast"));
    let datum = serde_avro_fast::to_datum_vec(
        &event,
        &mut serde_avro_fast::ser::SerializerConfig::new(&schema),
    )
    .unwrap();
    let mut decoders = Decoders::new(EventKind::Watch);
    decoders.add(9, &newer);
    let message = [&[0, 0, 0, 0, 9][..], &datum].concat();
    let Event::Watch(watch) = decoders.decode(&message).unwrap() else {
        panic!()
    };
    assert_eq!(watch.action, WatchAction::Unknown);
}
