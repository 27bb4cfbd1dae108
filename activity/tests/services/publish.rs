//! Publication into real Kafka: what arrives, what a full queue does, how it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use activity_platform::kafka;
use activity_producer::Pace;
use activity_producer::publish::{
    Ended, MalformedShare, Progress, PublishError, Published, Publisher, Run,
};
use activity_producer::replay::{Replay, mapping::Mapping};
use activity_producer::source::EventSource;
use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_schemas::truth::LABEL_HEADER;
use activity_schemas::{Decoders, Event, EventKind, avro};
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::support::World;
use crate::{endpoints, in_world};

/// Schema ids that these messages are framed with; the topics are read by this test alone.
const IDS: [u32; 2] = [11, 12];

fn publisher(world: &World, settings: &[(&str, &str)]) -> Publisher {
    let mut config = kafka::producer_config(&world.targets.kafka).unwrap();
    for (key, value) in settings {
        config.set(*key, *value);
    }
    Publisher::new(config, &world.targets.kafka.topic_prefix, IDS[0], IDS[1]).unwrap()
}

/// Each event once: what arrives is known by its id.
fn traffic() -> Traffic {
    let mut settings = TrafficSettings::default();
    settings.scenario.duplicates_per_million = 0;
    Traffic::new(3, settings)
}

fn events(count: u64) -> Run {
    Run {
        events_max: Some(count),
        ..Run::EVERYTHING
    }
}

/// Publication blocks: off the async threads with it.
fn run(
    publisher: Publisher,
    mut source: impl EventSource,
    run: &Run,
    stop: &CancellationToken,
    progress: impl FnMut(&Progress),
) -> Result<Published, PublishError> {
    tokio::task::block_in_place(|| publisher.run(&mut source, run, stop, progress))
}

fn run_to_end(publisher: Publisher, wanted: &Run) -> Published {
    run(
        publisher,
        traffic(),
        wanted,
        &CancellationToken::new(),
        |_| (),
    )
    .unwrap()
}

/// What is in the topics: by event id the label; and the number of messages that do not decode.
fn read(world: &World, messages: u64) -> (BTreeMap<String, String>, u64) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.targets.kafka.brokers().unwrap())
        .set("group.id", "test")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = BaseConsumer::from_config(&config).unwrap();
    let topics =
        ["clicks", "watches"].map(|topic| format!("{}{topic}", world.targets.kafka.topic_prefix));
    let mut list = TopicPartitionList::new();
    for topic in &topics {
        for partition in 0..2 {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
    }
    consumer.assign(&list).unwrap();
    let mut decoders = EventKind::ALL.map(Decoders::new);
    for (index, kind) in EventKind::ALL.into_iter().enumerate() {
        decoders[index].add(IDS[index], avro::newest(kind).json);
    }
    let (mut labels, mut bad) = (BTreeMap::new(), 0);
    while labels.len() as u64 + bad < messages {
        // None: an event of the client itself.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message.unwrap();
        let decoder = &decoders[usize::from(message.topic() == topics[1])];
        let Ok(event) = decoder.decode(message.payload().unwrap()) else {
            bad += 1;
            continue;
        };
        let (event_id, user_id) = match event {
            Event::Click(click) => (click.event_id, click.user_id),
            Event::Watch(watch) => (watch.event_id, watch.user_id),
        };
        assert_eq!(message.key().unwrap(), user_id.as_bytes());
        let label = message
            .headers()
            .unwrap()
            .iter()
            .find(|header| header.key == LABEL_HEADER)
            .unwrap();
        labels.insert(
            event_id.to_owned(),
            String::from_utf8_lossy(label.value.unwrap()).into_owned(),
        );
    }
    (labels, bad)
}

#[test]
fn every_event_arrives_once_with_its_key_and_headers() {
    in_world("arrives_once", 2, |world| async move {
        let published = run_to_end(publisher(&world, &[]), &events(5_000));
        assert!(published.complete);
        assert_eq!(published.ended, Ended::LimitReached);
        assert_eq!(
            (published.counts.sent, published.counts.acknowledged),
            (5_000, 5_000)
        );
        let (labels, bad) = read(&world, 5_000);
        assert_eq!((labels.len(), bad), (5_000, 0));
        assert!(labels.values().all(|label| label == "0" || label == "1"));
    });
}

#[test]
fn a_full_queue_slows_the_source_and_drops_nothing() {
    in_world("full_queue", 2, |world| async move {
        let small = publisher(&world, &[("queue.buffering.max.messages", "50")]);
        assert_eq!(run_to_end(small, &events(3_000)).counts.acknowledged, 3_000);
        assert_eq!(read(&world, 3_000).0.len(), 3_000);
    });
}

#[test]
fn malformed_messages_go_out_beside_the_good_ones_in_their_exact_share() {
    in_world("malformed_share", 2, |world| async move {
        let share = MalformedShare {
            seed: 1,
            per_million: 100_000,
        };
        let published = run_to_end(
            publisher(&world, &[]),
            &Run {
                malformed: Some(share),
                ..events(2_000)
            },
        );
        assert_eq!(
            (published.counts.sent, published.counts.malformed),
            (2_200, 200)
        );
        let (labels, bad) = read(&world, 2_200);
        assert_eq!((labels.len(), bad), (2_000, 200));
    });
}

#[test]
fn the_same_seed_puts_the_same_bytes_into_kafka() {
    in_world("same_bytes", 2, |world| async move {
        run_to_end(publisher(&world, &[]), &events(2_000));
        let once = read(&world, 2_000).0;
        run_to_end(publisher(&world, &[]), &events(2_000));
        assert_eq!(read(&world, 2_000).0, once, "a second run has other events");
    });
}

#[test]
fn the_stop_signal_ends_an_endless_source_and_all_that_was_sent_is_accounted_for() {
    in_world("stop_signal", 2, |world| async move {
        let stop = CancellationToken::new();
        let published = run(
            publisher(&world, &[]),
            traffic(),
            &Run::EVERYTHING,
            &stop,
            |_| stop.cancel(),
        )
        .unwrap();
        assert_eq!(published.ended, Ended::Stopped);
        assert_eq!(published.counts.acknowledged, published.counts.sent);
    });
}

#[test]
fn a_gap_of_years_can_be_stopped_and_is_told_in_progress() {
    in_world("gap_of_years", 2, |world| async move {
        let mapping = Mapping::shipped("weblog_clicks_first80").unwrap();
        let line = |year| {
            format!(
                "{{\"event_id\": \"{year}\", \"ip\": \"a\", \"ts\": \"{year}-01-01T00:00:00Z\"}}\n"
            )
        };
        let text = line(2001) + "no event\n" + &line(2004);
        let stop = CancellationToken::new();
        let original = Run {
            pace: Pace::AsReceived(1.0),
            ..Run::EVERYTHING
        };
        let mut told = None;
        let published = run(
            publisher(&world, &[]),
            Replay::new(text.as_bytes(), mapping),
            &original,
            &stop,
            |progress| {
                told = told.or(progress.next_event_in_s);
                stop.cancel();
            },
        )
        .unwrap();
        let years = told.unwrap() / 86_400.0 / 365.0;
        assert!((2.9..3.1).contains(&years));
        assert_eq!(
            (published.counts.acknowledged, published.counts.unmappable),
            (1, 1)
        );
        assert!(!published.complete);
    });
}

#[test]
fn a_missing_topic_is_refused_at_once() {
    let endpoints = endpoints();
    crate::RUNTIME.block_on(async {
        let world = World::empty(&endpoints, "no_topics");
        let refused = tokio::spawn(async move {
            run(
                publisher(&world, &[]),
                traffic(),
                &events(1),
                &CancellationToken::new(),
                |_| (),
            )
        });
        assert!(matches!(
            refused.await.unwrap(),
            Err(PublishError::Kafka(kafka::Error::NoSuchTopic { .. }))
        ));
    });
}
