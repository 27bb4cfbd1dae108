//! Against librdkafka's own mock cluster: real batches, acknowledgements and errors, without a service.

use std::collections::BTreeMap;

use activity_schemas::{Decoders, Event, avro};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use super::*;
use crate::source::user_id;
use crate::{
    replay::{Replay, mapping::Mapping},
    traffic::{Traffic, TrafficSettings},
};
use activity_schemas::EventKind;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["test.clicks", "test.watches"] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    cluster
}

fn publisher(cluster: &Cluster, settings: &[(&str, &str)]) -> Publisher {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    Publisher::new(config, "test.", 11, 12).unwrap()
}

fn traffic() -> Traffic {
    Traffic::new(3, TrafficSettings::default())
}

fn events(count: u64) -> Run {
    Run {
        events_max: Some(count),
        ..Run::EVERYTHING
    }
}

fn run(publisher: Publisher, source: &mut impl EventSource, run: &Run) -> Published {
    let stop = CancellationToken::new();
    publisher.run(source, run, &stop, |_| ()).unwrap()
}

/// What is in the topics: by event id the label; and the number of messages that do not decode.
fn read(cluster: &Cluster, messages: u64) -> (BTreeMap<String, String>, u64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for topic in ["test.clicks", "test.watches"] {
        for partition in 0..2 {
            partitions
                .add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
    }
    consumer.assign(&partitions).unwrap();
    let mut decoders = [
        Decoders::new(EventKind::Click),
        Decoders::new(EventKind::Watch),
    ];
    decoders[0].add(11, avro::newest(EventKind::Click).json);
    decoders[1].add(12, avro::newest(EventKind::Watch).json);
    let (mut labels, mut bad) = (BTreeMap::new(), 0);
    while labels.len() as u64 + bad < messages {
        // None: an event of the client itself.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message.unwrap();
        let decoder = &decoders[usize::from(message.topic() == "test.watches")];
        let Ok(event) = decoder.decode(message.payload().unwrap()) else {
            bad += 1;
            continue;
        };
        assert_eq!(message.key().unwrap(), user_id(&event).as_bytes());
        let id = match event {
            Event::Click(click) => click.event_id,
            Event::Watch(watch) => watch.event_id,
        };
        let label = message.headers().unwrap().get(0).value.unwrap();
        labels.insert(id.to_owned(), String::from_utf8_lossy(label).into_owned());
    }
    (labels, bad)
}

#[test]
fn every_event_arrives_once_with_its_key_and_headers() {
    let cluster = cluster();
    let published = run(publisher(&cluster, &[]), &mut traffic(), &events(5_000));
    assert!(published.complete);
    assert_eq!(published.ended, Ended::LimitReached);
    assert_eq!(
        (published.counts.sent, published.counts.acknowledged),
        (5_000, 5_000)
    );
    let (labels, bad) = read(&cluster, 5_000);
    assert_eq!((labels.len(), bad), (5_000, 0));
    assert!(labels.values().all(|label| label == "0" || label == "1"));
}

#[test]
fn a_full_queue_slows_the_source_and_drops_nothing() {
    let cluster = cluster();
    let small = publisher(&cluster, &[("queue.buffering.max.messages", "50")]);
    let published = run(small, &mut traffic(), &events(3_000));
    assert_eq!(published.counts.acknowledged, 3_000);
}

#[test]
fn malformed_messages_go_out_beside_the_good_ones_in_their_exact_share() {
    let cluster = cluster();
    let share = MalformedShare {
        seed: 1,
        per_million: 100_000,
    };
    let with_malformed = Run {
        malformed: Some(share),
        ..events(2_000)
    };
    let published = run(publisher(&cluster, &[]), &mut traffic(), &with_malformed);
    assert_eq!(
        (published.counts.sent, published.counts.malformed),
        (2_200, 200)
    );
    let (labels, bad) = read(&cluster, 2_200);
    assert_eq!((labels.len(), bad), (2_000, 200));
}

#[test]
fn what_kafka_does_not_take_in_time_is_counted_as_failed() {
    let cluster = cluster();
    let hasty = publisher(
        &cluster,
        &[("message.timeout.ms", "300"), ("socket.timeout.ms", "300")],
    );
    cluster
        .broker_round_trip_time(1, Duration::from_secs(5))
        .unwrap();
    let stop = CancellationToken::new();
    // The look at the topics is slow as well: it is not what is tried here.
    let run = events(10);
    let mut source = traffic();
    let mut publication = publication::Publication::new(&hasty, &run, &stop, |_: &Progress| ());
    publication.send_all(&mut source);
    publication.flush();
    let counts = publication.count();
    assert_eq!(
        (counts.sent, counts.acknowledged, counts.failed),
        (10, 0, 10)
    );
}

#[test]
fn the_stop_signal_ends_an_endless_source_and_all_that_was_sent_is_accounted_for() {
    let cluster = cluster();
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    let published = publisher(&cluster, &[])
        .run(&mut traffic(), &Run::EVERYTHING, &stop, move |_| {
            cancel.cancel()
        })
        .unwrap();
    assert_eq!(published.ended, Ended::Stopped);
    assert_eq!(published.counts.acknowledged, published.counts.sent);
}

#[test]
fn a_gap_of_years_can_be_stopped_and_is_told_in_progress() {
    let cluster = cluster();
    let mapping = Mapping::shipped("weblog_clicks_first80").unwrap();
    let line = |year| {
        format!("{{\"event_id\": \"{year}\", \"ip\": \"a\", \"ts\": \"{year}-01-01T00:00:00Z\"}}\n")
    };
    let text = line(2001) + "no event\n" + &line(2004);
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let original = Run {
        pace: Pace::AsReceived(1.0),
        ..Run::EVERYTHING
    };
    let published = publisher(&cluster, &[])
        .run(
            &mut Replay::new(text.as_bytes(), mapping),
            &original,
            &stop,
            move |progress| {
                tell.send(progress.clone()).unwrap();
                cancel.cancel();
            },
        )
        .unwrap();
    let years = told.recv().unwrap().next_event_in_s.unwrap() / 86_400.0 / 365.0;
    assert!((2.9..3.1).contains(&years));
    assert_eq!(
        (published.counts.acknowledged, published.counts.unmappable),
        (1, 1)
    );
    assert!(!published.complete);
}

#[test]
fn a_missing_topic_is_refused_at_once() {
    let cluster: Cluster = MockCluster::new(1).unwrap();
    let stop = CancellationToken::new();
    let refused = publisher(&cluster, &[]).run(&mut traffic(), &events(1), &stop, |_| ());
    assert!(matches!(
        refused,
        Err(PublishError::Kafka(kafka::Error::NoSuchTopic { .. }))
    ));
}
