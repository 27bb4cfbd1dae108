//! Malformed messages: all good ones are processed, all bad ones are dead letters, the counters balance.

use std::collections::BTreeMap;
use std::time::Duration;

use activity_producer::SimulateArgs;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::in_world;
use crate::support::World;

#[test]
fn good_messages_are_processed_and_bad_ones_are_dead_letters_with_their_place_and_reason() {
    in_world("malformed", 4, |world| async move {
        let published = world
            .simulate(SimulateArgs {
                events: Some(20_000),
                seed: Some(7),
                malformed_share: 0.1,
                ..SimulateArgs::default()
            })
            .await;
        assert_eq!(published.counts.malformed, 2_000);
        let _consumer = world.consume(&["analytics", "fraud"], &[]);
        world.caught_up(&["analytics", "fraud"]).await;
        let reports = world.verified(&["analytics", "fraud"]).await;
        assert_eq!(
            (reports[0].events, reports[0].dead_letters),
            (22_000, 2_000)
        );
        assert_eq!(reports[0].rows.values().sum::<u64>(), 20_000);
        // A click that is taken goes through two stages.
        assert_eq!(
            reports[1].events,
            reports[1].dead_letters + 2 * reports[1].rows["fraud_scores"]
        );
        let letters = dead_letters(&world, "analytics");
        assert_eq!(letters.values().sum::<u64>(), 2_000);
        for reason in [
            "wrong_magic",
            "unknown_schema",
            "truncated",
            "trailing_bytes",
        ] {
            assert!(letters.contains_key(reason), "{letters:?}");
        }
    });
}

/// Counts a group's dead letters by reason; each must name its place.
fn dead_letters(world: &World, group: &str) -> BTreeMap<String, u64> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.targets.kafka.brokers().unwrap())
        .set("group.id", "test")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = BaseConsumer::from_config(&config).unwrap();
    let topic = format!("{}dead-letters.{group}", world.targets.kafka.topic_prefix);
    let (first, next) = consumer
        .fetch_watermarks(&topic, 0, Duration::from_secs(10))
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(first))
        .unwrap();
    consumer.assign(&list).unwrap();
    let mut reasons = BTreeMap::new();
    for _ in first..next {
        let message = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
        let headers = message.headers().unwrap();
        let header = |name: &str| {
            headers
                .iter()
                .find(|header| header.key == name)
                .map(|header| String::from_utf8_lossy(header.value.unwrap()).into_owned())
                .unwrap()
        };
        let key = format!(
            "{group}/{}/{}/{}",
            header("dead-letter-topic"),
            header("dead-letter-partition"),
            header("dead-letter-offset")
        );
        assert_eq!(message.key().unwrap(), key.as_bytes());
        assert!(!header("dead-letter-error").is_empty());
        *reasons.entry(header("dead-letter-reason")).or_default() += 1;
    }
    reasons
}
