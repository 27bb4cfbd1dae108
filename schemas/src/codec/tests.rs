//! What a plan takes, against the decoder that knows all of Avro.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::avro;

/// A field of some writer, and its value's bytes.
type Written = (Value, Vec<u8>);

/// The fields of the newest version and some that no version has.
fn pool(kind: EventKind) -> Vec<Value> {
    let newest: Value = serde_json::from_str(avro::newest(kind).json).unwrap();
    let unknown = json!([
        {"name": "x_text", "type": "string"},
        {"name": "x_count", "type": "long"},
        {"name": "x_maybe", "type": ["string", "null"]},
        {"name": "x_later", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "x_flag", "type": "boolean"},
        {"name": "x_words", "type": {"type": "array", "items": "string"}},
    ]);
    let of = |fields: &Value| fields.as_array().unwrap().clone();
    [of(&newest["fields"]), of(&unknown)].concat()
}

fn number(value: i64, into: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

/// Some value of a type, decided by a number.
fn put(of_type: &Value, seed: u64, into: &mut Vec<u8>) {
    let name = of_type.as_str().or_else(|| of_type["type"].as_str());
    match (name, of_type.as_array()) {
        (Some("string"), _) => {
            let text = "é".repeat(seed as usize % 70) + &seed.to_string();
            number(text.len() as i64, into);
            into.extend_from_slice(text.as_bytes());
        }
        (Some("long"), _) => number(seed as i64 >> (seed % 64), into),
        (Some("enum"), _) => number(seed as i64 & 7, into),
        (Some("boolean"), _) => into.push(seed as u8 & 1),
        (Some("array"), _) => into.push(0),
        (_, Some(branches)) => {
            let branch = seed as usize % branches.len();
            number(branch as i64, into);
            put(&branches[branch], seed / 2, into);
        }
        _ => (),
    }
}

/// A writer's schema with its fields in some order, some of the optional ones left out and some unknown ones added, and a datum.
fn written(kind: EventKind) -> impl Strategy<Value = Vec<Written>> {
    let fields = Just(pool(kind)).prop_shuffle();
    (fields, prop::collection::vec(any::<(u64, bool)>(), 20)).prop_map(move |(fields, dice)| {
        let is_required =
            |field: &Value| required_fields(kind).contains(&field["name"].as_str().unwrap());
        let kept = fields.into_iter().zip(dice);
        kept.filter(|(field, (_, keep))| *keep || is_required(field))
            .map(|(field, (seed, _))| {
                let mut bytes = Vec::new();
                put(&field["type"], seed, &mut bytes);
                (field, bytes)
            })
            .collect()
    })
}

fn writer_of(kind: EventKind, fields: &[Written]) -> Writer {
    let fields: Vec<&Value> = fields.iter().map(|(field, _)| field).collect();
    let schema = json!({"type": "record", "name": "Other", "fields": fields});
    writer(kind, &schema.to_string()).unwrap()
}

/// Whether the plan took it.
fn check(kind: EventKind, writer: &Writer, datum: &[u8]) -> bool {
    let planned = writer.planned(datum);
    if let Some(event) = &planned {
        assert_eq!(writer.any(kind, datum).as_ref(), Ok(event));
    }
    planned.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_plan_reads_any_writers_datums_as_the_whole_of_avro_does(click in written(EventKind::Click), watch in written(EventKind::Watch)) {
        for (kind, fields) in [(EventKind::Click, click), (EventKind::Watch, watch)] {
            let writer = writer_of(kind, &fields);
            let datum: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let beyond = ["x_flag", "x_words"].map(|name| fields.iter().any(|(field, _)| field["name"] == name));
            prop_assert_eq!(check(kind, &writer, &datum), beyond == [false, false]);
        }
    }

    #[test]
    fn what_a_plan_takes_of_a_damaged_datum_is_what_the_whole_of_avro_reads(
        click in written(EventKind::Click),
        watch in written(EventKind::Watch),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        for (kind, fields) in [(EventKind::Click, click), (EventKind::Watch, watch)] {
            let writer = writer_of(kind, &fields);
            let mut datum: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            for (index, byte) in &changes {
                let index = index.index(datum.len());
                datum[index] = *byte;
            }
            if is_cut {
                datum.truncate(cut.index(datum.len()));
            }
            check(kind, &writer, &datum);
        }
    }
}

/// What serde_avro_fast writes of an event in the newest schema.
fn reference<E: serde::Serialize>(kind: EventKind, event: &E) -> Vec<u8> {
    let schema: Schema = avro::newest(kind).json.parse().unwrap();
    let mut config = serde_avro_fast::ser::SerializerConfig::new(&schema);
    serde_avro_fast::to_datum_vec(event, &mut config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_event_is_written_as_the_whole_of_avro_writes_it(click in written(EventKind::Click), watch in written(EventKind::Watch)) {
        for (kind, fields) in [(EventKind::Click, click), (EventKind::Watch, watch)] {
            let writer = writer_of(kind, &fields);
            let datum: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let mut written = Vec::new();
            let expected = match writer.any(kind, &datum).unwrap() {
                Event::Click(click) => {
                    click.write(&mut written);
                    reference(kind, &click)
                }
                Event::Watch(watch) => {
                    watch.write(&mut written);
                    reference(kind, &watch)
                }
            };
            prop_assert_eq!(written, expected);
        }
    }
}

#[test]
fn an_encoder_takes_events_of_its_own_kind_only() {
    let mut into = vec![1];
    let error = Encoder::new(EventKind::Watch, 1).encode(&ClickEvent::default(), &mut into);
    assert_eq!(
        error.unwrap_err().to_string(),
        "a click event given to an encoder of watch events"
    );
    assert_eq!(into, [1]);
}

#[test]
fn the_newest_versions_have_plans_and_every_field_of_an_event_is_in_its_table() {
    for kind in EventKind::ALL {
        let newest: Value = serde_json::from_str(avro::newest(kind).json).unwrap();
        let fields: Vec<Written> = newest["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| {
                let mut bytes = Vec::new();
                // The second branch of each union: nothing is null.
                put(&field["type"], 3, &mut bytes);
                (field.clone(), bytes)
            })
            .collect();
        let datum: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert!(check(kind, &writer_of(kind, &fields), &datum), "{kind:?}");
    }
}
