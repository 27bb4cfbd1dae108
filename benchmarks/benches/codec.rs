//! What one event costs between the bytes of a message and the bytes of a block: ours, and the alternatives that it was chosen over.
//!
//! `cargo bench -p activity-benchmarks --bench codec`; the column to read is the items per second.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark may end where it cannot go on"
)]

use activity_consumers::{LowCardinality, Millis, Origin, Output, Row as _};
use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_schemas::{ClickEvent, Decoders, Encoder, Event, EventKind, avro};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use serde::Deserialize as _;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState, read::SliceRead};
use uuid::Uuid;

/// More than the caches of the branch predictor hold, less than those of the memory.
const EVENTS: usize = 2_000;
const SCHEMA_ID: u32 = 1;

fn main() {
    divan::main();
}

/// Framed clicks of the traffic model.
fn messages() -> Vec<Vec<u8>> {
    let encoder = Encoder::new(EventKind::Click, SCHEMA_ID);
    let mut traffic = Traffic::new(7, TrafficSettings::default());
    let mut messages = Vec::new();
    while messages.len() < EVENTS {
        if let Event::Click(click) = traffic.next_event().event {
            let mut message = Vec::new();
            encoder.encode(&click, &mut message).unwrap();
            messages.push(message);
        }
    }
    messages
}

fn decoders() -> Decoders {
    let mut decoders = Decoders::new(EventKind::Click);
    decoders.add(SCHEMA_ID, avro::newest(EventKind::Click).json);
    decoders
}

fn clicks(messages: &[Vec<u8>]) -> Vec<ClickEvent<'_>> {
    let decoders = decoders();
    let click = |message| match decoders.decode(message).unwrap() {
        Event::Click(click) => click,
        Event::Watch(_) => ClickEvent::default(),
    };
    messages.iter().map(|message| click(message)).collect()
}

mod decode {
    use super::*;

    /// A plan made for the writer's schema.
    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (messages, decoders) = (messages(), decoders());
        bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
            for message in &messages {
                let _ = black_box(decoders.decode(black_box(message)).unwrap());
            }
        });
    }

    /// What decodes where the plan does not.
    #[divan::bench]
    fn serde_avro_fast(bencher: Bencher<'_, '_>) {
        let messages = messages();
        let schema: serde_avro_fast::Schema = avro::newest(EventKind::Click).json.parse().unwrap();
        bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
            for message in &messages {
                let config = DeserializerConfig::new(&schema);
                let read = SliceRead::new(black_box(&message[5..]));
                let mut state = DeserializerState::with_config(read, config);
                let _ = black_box(ClickEvent::deserialize(state.deserializer()).unwrap());
            }
        });
    }

    /// The reference implementation's own values.
    #[divan::bench]
    fn apache_avro_value(bencher: Bencher<'_, '_>) {
        let messages = messages();
        let schema = apache_avro::Schema::parse_str(avro::newest(EventKind::Click).json).unwrap();
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
            .build()
            .unwrap();
        bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
            for message in &messages {
                let _ = black_box(reader.read_value(&mut black_box(&message[5..])).unwrap());
            }
        });
    }
}

mod encode {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let messages = messages();
        let clicks = clicks(&messages);
        let encoder = Encoder::new(EventKind::Click, SCHEMA_ID);
        let mut into = Vec::new();
        bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
            for click in &clicks {
                into.clear();
                encoder.encode(black_box(click), &mut into).unwrap();
                black_box(&into);
            }
        });
    }
}

activity_consumers::rows! {
    /// A click whose repetitive strings have dictionaries.
    pub struct WithDictionaries<'a> in "with_dictionaries" {
        event_id: Uuid,
        occurred_at: Millis,
        user_id: &'a str,
        country: LowCardinality<Option<&'a str>>,
        user_agent: LowCardinality<Option<&'a str>>,
        page: Option<&'a str>,
    }

    /// The same click, all strings as they are.
    pub struct WithoutDictionaries<'a> in "without_dictionaries" {
        event_id: Uuid,
        occurred_at: Millis,
        user_id: &'a str,
        country: Option<&'a str>,
        user_agent: Option<&'a str>,
        page: Option<&'a str>,
    }
}

mod columns {
    use super::*;

    fn bench(bencher: Bencher<'_, '_>, insert: fn(&mut Output, &ClickEvent<'_>)) {
        let messages = messages();
        let clicks = clicks(&messages);
        let tables = &[WithDictionaries::TABLE, WithoutDictionaries::TABLE];
        let mut output = Output::new(tables);
        let origin = Origin {
            topic: "activity.clicks",
            partition: 0,
            epoch: 1,
        };
        bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
            for (offset, click) in clicks.iter().enumerate() {
                output.begin_event(offset as i64, click.received_at);
                insert(&mut output, black_box(click));
            }
            let (tables, _) = output.take();
            let filled = tables.into_iter().filter(|rows| !rows.is_empty());
            filled
                .map(|rows| rows.into_native_block(&origin))
                .collect::<Vec<_>>()
        });
    }

    #[divan::bench]
    fn with_dictionaries(bencher: Bencher<'_, '_>) {
        bench(bencher, |output, click| {
            output.insert(&WithDictionaries {
                event_id: Uuid::try_parse(click.event_id).unwrap(),
                occurred_at: Millis(click.occurred_at),
                user_id: click.user_id,
                country: LowCardinality(click.country),
                user_agent: LowCardinality(click.user_agent),
                page: click.page,
            });
        });
    }

    #[divan::bench]
    fn without_dictionaries(bencher: Bencher<'_, '_>) {
        bench(bencher, |output, click| {
            output.insert(&WithoutDictionaries {
                event_id: Uuid::try_parse(click.event_id).unwrap(),
                occurred_at: Millis(click.occurred_at),
                user_id: click.user_id,
                country: click.country,
                user_agent: click.user_agent,
                page: click.page,
            });
        });
    }
}
