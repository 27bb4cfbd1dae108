//! The shipped mappings on hand-made lines of the same shape, bad lines, and bad mappings.

use std::{fs::File, io::Write};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::{convert::Converter, mapping::mapping_for, *};
use activity_schemas::Event;

fn json(outgoing: &Outgoing<'_>) -> serde_json::Value {
    let mut value = match &outgoing.event {
        Event::Click(click) => serde_json::to_value(click).unwrap(),
        Event::Watch(watch) => serde_json::to_value(watch).unwrap(),
    };
    value
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    serde_json::json!({ "event": value, "label": outgoing.label, "attack": outgoing.attack })
}

fn mapped(name: &str, lines: &[&str]) -> Vec<serde_json::Value> {
    let mut converter = Converter::new(Mapping::shipped(name).unwrap());
    lines
        .iter()
        .map(|line| json(&converter.convert(line.as_bytes()).unwrap()))
        .collect()
}

#[test]
fn ratings_become_watch_events() {
    let lines = [
        r#"{"event_id":"ml_latest_small_2016-7","user_id":"12","session_id":null,"video_id":"34","position_s":61,"duration_s":5849,"action":"pause","ts":"1995-01-09T11:46:49Z","x_rating":3.0,"x_synth":["action"]}"#,
        r#"{"event_id":"ml_latest_small_2016-8","user_id":"12","session_id":null,"video_id":"35","position_s":70.5,"duration_s":70.5,"action":"complete","ts":"1995-01-09T11:46:50Z"}"#,
    ];
    insta::assert_json_snapshot!(mapped("movielens_small_watches", &lines));
}

#[test]
fn shop_sessions_become_clicks() {
    let lines = [
        r#"{"event_id":"otto-0","user_id":"u0","session_id":"s0","item_id":"1517085","page":null,"element":"carts","device":null,"ip":null,"country":null,"ts":"2022-07-31T22:00:00.025000+00:00"}"#,
    ];
    insta::assert_json_snapshot!(mapped("otto_clicks", &lines));
}

#[test]
fn requests_become_clicks_of_their_address_with_the_truth_about_them() {
    let lines = [
        r#"{"event_id":"ela-0","user_id":null,"session_id":null,"item_id":"/a.png","page":"http://example.com/","element":"GET","device":null,"ip":"a0000","country":null,"ts":"2015-05-17T10:00:00Z","x_status":200,"x_label_bot":0,"x_order":0}"#,
        r#"{"event_id":"ela-1","user_id":null,"session_id":null,"item_id":"/b","page":null,"element":"GET","device":null,"ip":"a0001","country":null,"ts":"2015-05-17T10:00:00Z","x_status":200,"x_label_bot":1,"x_order":1}"#,
        r#"{"event_id":"ela-2","user_id":null,"session_id":null,"item_id":"/c","page":null,"element":"GET","device":null,"ip":"a0002","country":null,"ts":"2015-05-17T10:00:00Z","x_status":200,"x_label_bot":-1,"x_order":2}"#,
    ];
    insta::assert_json_snapshot!(mapped("weblog_clicks_first80", &lines));
}

#[test]
fn every_shipped_mapping_can_be_used_and_is_found_by_the_name_of_its_recording() {
    let names: Vec<&str> = Mapping::shipped_names().collect();
    assert_eq!(names.len(), 3);
    for name in names {
        let mapping = Mapping::shipped(name).unwrap();
        let recording = format!("some/folder/{name}.ndjson.gz");
        assert_eq!(mapping_for(Path::new(&recording), None).unwrap(), mapping);
    }
}

const SMALL: &str = r#"
    event = "watch"
    [fields]
    event_id = { field = "id", uuid5 = "test" }
    occurred_at = { field = "at", time = "epoch_s" }
    received_at = { field = "took", time = "epoch_ms" }
    user_id = { first_of = ["/who/id", "address"] }
    video_id = { constant = 7 }
    action = { field = "what", values = { end = "complete", "*" = "heartbeat" } }
    rebuffer_ms = { field = "waited", unit = "ms" }
    [headers]
    truth-label = { field = "bad" }
    truth-attack = { field = "attack" }
"#;

#[test]
fn units_constants_pointers_value_maps_and_labels_are_applied() {
    let mut converter = Converter::new(Mapping::parse(SMALL).unwrap());
    let lines = [
        r#"{"id": 17, "at": 1.5, "took": "1600", "who": {"id": "ada"}, "what": "end", "waited": 12.4, "bad": true, "attack": "sweep"}"#,
        r#"{"id": 18, "at": "2", "took": 2100, "who": {"id": ""}, "address": "::1", "what": "else", "bad": null}"#,
    ];
    let mapped: Vec<_> = lines
        .iter()
        .map(|line| json(&converter.convert(line.as_bytes()).unwrap()))
        .collect();
    insta::assert_json_snapshot!(mapped);
}

#[test]
fn a_time_without_zone_is_utc_and_a_zone_is_honoured() {
    let text = SMALL.replace("epoch_s\"", "rfc3339\"");
    let mut converter = Converter::new(Mapping::parse(&text).unwrap());
    for (at, expected) in [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T00:00:01.250", 1_250),
        ("1970-01-01 00:00:01", 1_000),
        ("1970-01-01T02:00:01+02:00", 1_000),
    ] {
        let line =
            format!(r#"{{"id": 1, "at": "{at}", "took": 5000, "address": "a", "what": "end"}}"#);
        let Event::Watch(watch) = converter.convert(line.as_bytes()).unwrap().event else {
            panic!("a watch mapping makes watches");
        };
        assert_eq!(watch.occurred_at, expected, "{at}");
    }
}

#[test]
fn a_record_that_cannot_be_mapped_is_refused_with_the_reason() {
    let mut converter = Converter::new(Mapping::parse(SMALL).unwrap());
    let reasons: Vec<String> = [
        "not json",
        "[1]",
        "{}",
        r#"{"id": 1, "at": "noon", "took": 1, "address": "a", "what": "end"}"#,
        r#"{"id": 1, "at": 1e300, "took": 1, "address": "a", "what": "end"}"#,
        r#"{"id": 1, "at": 9223372036854775807, "took": 1, "address": "a", "what": "end"}"#,
        r#"{"id": 1, "at": 1, "took": 1, "address": null, "what": "end"}"#,
        r#"{"id": 1, "at": 1, "took": 1, "address": ["a"], "what": "end"}"#,
        r#"{"id": 1, "at": 1, "took": 1, "address": "a", "what": "end", "bad": "maybe"}"#,
    ]
    .iter()
    .map(|line| converter.convert(line.as_bytes()).unwrap_err())
    .collect();
    insta::assert_json_snapshot!(reasons);
}

#[test]
fn a_mapping_that_makes_no_sense_is_refused_with_what_would_be_right() {
    let reasons: Vec<String> = [
        ("event = \"watch\"", "event = \"swim\""),
        ("[headers]", "[header]"),
        ("uuid5 =", "uuid6 ="),
        ("rebuffer_ms", "buffer_ms"),
        (
            "rebuffer_ms = { field = \"waited\", unit = \"ms\" }",
            "rebuffer_ms = { field = \"waited\" }",
        ),
        ("time = \"epoch_s\"", "unit = \"s\""),
        ("user_id =", "ip ="),
        ("{ constant = 7 }", "{ constant = 7, field = \"video\" }"),
        ("\"complete\"", "\"unknown\""),
        ("truth-label", "label"),
    ]
    .iter()
    .map(|(from, to)| {
        Mapping::parse(&SMALL.replace(from, to))
            .unwrap_err()
            .to_string()
    })
    .chain([mapping_for(Path::new("holiday.ndjson"), None)
        .unwrap_err()
        .to_string()])
    .collect();
    insta::assert_json_snapshot!(reasons);
}

fn good_line(id: usize) -> String {
    format!(r#"{{"id": {id}, "at": {id}, "took": 100000, "address": "a", "what": "end"}}"#)
}

/// What a replay gives: Ok with the moment of the event, Err with the line's number.
fn outcomes(lines: impl BufRead) -> Vec<Result<i64, u64>> {
    let mut replay = Replay::new(lines, Mapping::parse(SMALL).unwrap());
    let mut outcomes = Vec::new();
    while let Some(outcome) = replay.next_event() {
        outcomes.push(match outcome {
            Ok(outgoing) => match outgoing.event {
                Event::Watch(watch) => Ok(watch.occurred_at),
                Event::Click(_) => unreachable!("a watch mapping makes watches"),
            },
            Err(SourceError::Unmappable { line, .. }) => Err(line),
            Err(broken) => panic!("{broken}"),
        });
    }
    outcomes
}

#[test]
fn a_bad_line_is_reported_by_its_number_and_the_replay_goes_on() {
    let long = "x".repeat(records::RECORD_BYTES_MAX as usize + 10);
    let text = format!(
        "{}\n\n{{\n{}\r\n{long}\n{}",
        good_line(1),
        good_line(2),
        good_line(3)
    );
    let expected = [Ok(1000), Err(3), Ok(2000), Err(5), Ok(3000)];
    assert_eq!(outcomes(text.as_bytes()), expected);
}

#[test]
fn gzip_is_known_by_its_content_and_several_members_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording.ndjson");
    let mut file = File::create(&path).unwrap();
    for id in [1, 2] {
        let mut member = GzEncoder::new(&mut file, Compression::fast());
        writeln!(member, "{}", good_line(id)).unwrap();
        member.finish().unwrap();
    }
    let mut replay = open(&path, Mapping::parse(SMALL).unwrap(), Options::default()).unwrap();
    assert!(replay.next_event().unwrap().is_ok());
    assert!(replay.next_event().unwrap().is_ok());
    assert!(replay.next_event().is_none());
}

#[test]
fn a_recording_that_is_cut_off_is_an_error_and_not_an_end() {
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    for id in 0..1000 {
        writeln!(member, "{}", good_line(id)).unwrap();
    }
    let whole = member.finish().unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let lines = records::decompressed(io::Cursor::new(cut)).unwrap();
    let mut replay = Replay::new(lines, Mapping::parse(SMALL).unwrap());
    let broken = std::iter::from_fn(|| replay.next_event().map(|outcome| outcome.is_err()))
        .find(|broken| *broken);
    assert_eq!(broken, Some(true));
}

/// Seconds at which an event occurred, and its id, of the first events of this recording.
fn first_events(text: &str, name: &str, options: Options, events: usize) -> Vec<(i64, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut replay = open(&path, Mapping::parse(SMALL).unwrap(), options).unwrap();
    let mut found = Vec::new();
    while found.len() < events
        && let Some(outcome) = replay.next_event()
    {
        if let Ok(Outgoing {
            event: Event::Watch(watch),
            ..
        }) = outcome
        {
            found.push((watch.occurred_at / 1000, watch.event_id.to_owned()));
        }
    }
    found
}

fn seconds(events: &[(i64, String)]) -> Vec<i64> {
    events.iter().map(|(second, _)| *second).collect()
}

const TABLE: &str = "id,at,took,address,what,bad\n1,1.5,5000,a,end,0\n2,2,6000,\"b,\nc\",else,1\n3,noon,7000,a,end,0\n4,4\n5,5,8000,a,end,0\n";

#[test]
fn a_table_is_mapped_by_the_names_in_its_header_as_lines_are() {
    let as_table = first_events(TABLE, "some.CSV", Options::default(), 9);
    assert_eq!(seconds(&as_table), [1, 2, 5]);
    let line = r#"{"id": 1, "at": 1.5, "took": 5000, "address": "a", "what": "end", "bad": 0}"#;
    let as_line = first_events(line, "some.ndjson", Options::default(), 9);
    assert_eq!(as_table[0], as_line[0]);
}

#[test]
fn a_bad_row_is_reported_by_its_line_and_the_replay_goes_on() {
    let mut replay = Replay {
        records: records::Records::new(TABLE.as_bytes(), records::Form::Csv),
        ..Replay::new("".as_bytes(), Mapping::parse(SMALL).unwrap())
    };
    let mut lines = Vec::new();
    while let Some(outcome) = replay.next_event() {
        match outcome {
            Ok(_) => (),
            Err(SourceError::Unmappable { line, .. }) => lines.push(line),
            Err(broken) => panic!("{broken}"),
        }
    }
    assert_eq!(lines, [5, 6]);
}

#[test]
fn a_table_can_be_gzipped() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(TABLE.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.csv.gz");
    std::fs::write(&path, packed.finish().unwrap()).unwrap();
    let mut replay = open(&path, Mapping::parse(SMALL).unwrap(), Options::default()).unwrap();
    assert!(replay.next_event().unwrap().is_ok());
}

#[test]
fn a_quote_that_is_never_closed_ends_the_replay_with_the_reason() {
    let text = format!("id,at\n1,\"{}", "x".repeat(3_000_000));
    let mut replay = Replay {
        records: records::Records::new(text.as_bytes(), records::Form::Csv),
        ..Replay::new("".as_bytes(), Mapping::parse(SMALL).unwrap())
    };
    let broken = replay.next_event().unwrap().unwrap_err().to_string();
    assert!(broken.contains("quote"), "{broken}");
}

#[test]
fn the_first_event_falls_where_the_recording_is_shifted_to_and_the_others_keep_their_distance() {
    let text = [3, 1, 8].map(good_line).join("\n");
    let options = Options {
        shift_to_ms: Some(1_000_000_000),
        ..Options::default()
    };
    // Received at 100 s, all of them, and occurred before.
    let shifted = first_events(&text, "some.ndjson", options, 9);
    assert_eq!(seconds(&shifted), [3, 1, 8].map(|at| 1_000_000 + at - 100));
}

#[test]
fn rounds_follow_each_other_in_time_and_have_ids_of_their_own() {
    let line = |id: i64| {
        let took_ms = id * 10_000;
        format!(r#"{{"id": {id}, "at": {id}, "took": {took_ms}, "address": "a", "what": "end"}}"#)
    };
    let text = [1, 2, 4].map(line).join("\n");
    let options = Options {
        repeats: true,
        ..Options::default()
    };
    let rounds = first_events(&text, "some.ndjson", options, 9);
    assert_eq!(seconds(&rounds), [1, 2, 4, 31, 32, 34, 61, 62, 64]);
    let ids: std::collections::BTreeSet<&str> = rounds.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids.len(), 9);
    assert_eq!(first_events(&text, "some.ndjson", options, 9), rounds);
}

#[test]
fn a_recording_without_an_event_ends_although_it_is_to_repeat() {
    let options = Options {
        repeats: true,
        ..Options::default()
    };
    assert!(first_events("no\nevent\n", "some.ndjson", options, 9).is_empty());
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
        Just("end".into()),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("id|bad", inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_record_makes_the_converter_panic_and_what_it_accepts_can_be_encoded(
        record in prop::collection::hash_map("id|at|took|who|address|what|waited|bad|attack", any_json(), 0..9)
    ) {
        let encoder = activity_schemas::Encoder::new(activity_schemas::EventKind::Watch, 1);
        let mut converter = Converter::new(Mapping::parse(SMALL).unwrap());
        let line = serde_json::to_vec(&record).unwrap();
        if let Ok(outgoing) = converter.convert(&line) {
            let mut bytes = Vec::new();
            prop_assert!(crate::encode::encode(&encoder, &outgoing.event, &mut bytes).is_ok());
        }
    }

    #[test]
    fn any_bytes_end_as_outcomes_of_lines(bytes: Vec<u8>) {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        prop_assert_eq!(outcomes(bytes.as_slice()).len(), lines);
    }
}
