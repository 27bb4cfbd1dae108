//! The same of what a group sends: its dead letters, and the messages for its next stage.

use std::collections::BTreeSet;

use activity_producer::SimulateArgs;
use activity_runtime::dead_letter::NAMES;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Range, client, events, execute, fill, place, places, some_range, verify};
use crate::in_world;
use crate::support::{PATIENCE, World};

/// Sends one message to partition 0 of a topic.
fn send(world: &World, topic: &str, key: &str, headers: &[(&str, &str)]) {
    let producer: BaseProducer = BaseProducer::from_config(&client(world)).unwrap();
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            let value = (!value.is_empty()).then_some(*value);
            headers.insert(Header { key, value })
        });
    let record = BaseRecord::to(topic)
        .partition(0)
        .key(key)
        .payload("by hand")
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// What retention does, at once: the log of partition 0 begins at its end.
async fn delete_log(world: &World, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config(&client(world)).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::End).unwrap();
    admin
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
}

/// Writes a range of the ledger anew with a column changed.
async fn rewrite_range(world: &World, range: &Range, changed: &str) {
    let sql = format!(
        "INSERT INTO {{database}}.ledger SELECT * REPLACE ({changed}, inserted_at + INTERVAL 1 SECOND AS inserted_at) FROM {{database}}.ledger FINAL \
         WHERE topic = '{}' AND partition = {} AND start_offset = {}",
        range.topic, range.partition, range.start
    );
    execute(world, &sql).await;
}

/// Writes a dead letter of analytics for a message of a range's partition, as if the group had rejected it in this epoch.
fn write_letter(world: &World, range: &Range, offset: i64, epoch: u32) {
    let topic = format!("{}dead-letters.analytics", world.targets.kafka.topic_prefix);
    let key = format!("analytics/{}/{}/{offset}", range.topic, range.partition);
    let (partition, offset) = (range.partition.to_string(), offset.to_string());
    let epoch = epoch.to_string();
    let said = [
        "by-hand",
        "written by hand",
        &range.topic,
        &partition,
        &offset,
        "0",
        &epoch,
        "",
        "",
    ];
    let headers: Vec<(&str, &str)> = NAMES.into_iter().zip(said).collect();
    send(world, &topic, &key, &headers);
}

#[test]
fn a_dead_letter_of_a_message_that_was_taken_is_found_in_any_epoch() {
    in_world("verify_letters_rewound", 2, |world| async move {
        let malformed = SimulateArgs {
            malformed_share: 0.1,
            ..events(3_000, 69)
        };
        fill(&world, "analytics", malformed).await;
        let (_, before) = verify(&world, "analytics", &[]);
        let arguments = ["rewind", "analytics", "--to", "beginning", "--yes"];
        let rewound = world.command(&arguments).output().unwrap();
        assert!(rewound.status.success(), "{rewound:?}");
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(
            (code, &report["dead_letters"]),
            (Some(0), &before["dead_letters"])
        );
        let range = some_range(&world, "analytics", "clicks").await;
        let taken = format!(
            "SELECT min(_offset) AS number FROM {{database}}.clicks WHERE {}",
            range.rows()
        );
        let taken = world.number(&taken).await;
        write_letter(&world, &range, taken, 2);
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(
            (code, &report["unexpected"], &report["missing"]),
            (Some(3), &1.into(), &0.into()),
            "{report:#}"
        );
    });
}

#[test]
fn dead_letters_are_matched_one_by_one_and_those_past_retention_are_not_missing() {
    in_world("verify_letters", 2, |world| async move {
        let malformed = SimulateArgs {
            malformed_share: 0.1,
            ..events(5_000, 67)
        };
        fill(&world, "analytics", malformed).await;
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!((code, &report["dead_letters"]), (Some(0), &500.into()));

        let range = some_range(&world, "analytics", "clicks").await;
        let topic = format!("{}dead-letters.analytics", world.targets.kafka.topic_prefix);
        let taken = world
            .number(&format!(
                "SELECT min(_offset) AS number FROM {{database}}.clicks WHERE {}",
                range.rows()
            ))
            .await;
        rewrite_range(&world, &range, "rejects + 1 AS rejects").await;
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        let missing = place("missing", &topic, &range, range.start, range.end, 1);
        assert_eq!(places(&report), BTreeSet::from([missing]));

        // The letter of another range does not make up for it.
        rewrite_range(&world, &range, "rejects - 1 AS rejects").await;
        write_letter(&world, &range, taken, 1);
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(
            (code, &report["unexpected"], &report["missing"]),
            (Some(3), &1.into(), &0.into())
        );
        let found = places(&report).pop_first().unwrap();
        assert_eq!((&*found.0, &*found.1), ("unexpected", &*topic));
        assert!(range.start <= found.4 && found.5 <= range.end, "{found:?}");

        delete_log(&world, &topic).await;
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(
            (code, &report["expired"], &report["dead_letters"]),
            (Some(0), &500.into(), &0.into()),
            "{report:#}"
        );
    });
}

#[test]
fn derived_messages_are_compared_range_by_range_as_far_as_the_internal_topic_has_them() {
    in_world("verify_derived", 2, |world| async move {
        let group = "recommendation";
        fill(&world, group, events(20_000, 68)).await;
        assert_eq!(verify(&world, group, &[]).0, Some(0));
        let topic = format!(
            "{}recommendation.watches-by-model",
            world.targets.kafka.topic_prefix
        );
        let sql = format!(
            "SELECT topic, partition, start_offset AS start, end_offset AS end FROM {{database}}.ledger FINAL \
             WHERE derived['{topic}'] > 0 ORDER BY topic, partition, start"
        );
        let ranges: Vec<Range> = world.database().rows(&sql).await.unwrap();
        let (range, last) = (&ranges[0], ranges.last().unwrap());
        let counted = |difference: &str| {
            format!(
                "mapUpdate(derived, map('{topic}', toUInt64(derived['{topic}'] {difference}))) AS derived"
            )
        };
        rewrite_range(&world, range, &counted("+ 1")).await;
        // Above all that was derived from the partition: the next stage would take it.
        let source = format!("v1;1;{};{};{};99", last.topic, last.partition, last.end - 1);
        send(&world, &topic, "somebody", &[("source", source.as_str())]);
        let (code, report) = verify(&world, group, &[]);
        assert_eq!(code, Some(3), "{report:#}");
        assert_eq!(
            places(&report),
            BTreeSet::from([
                place("missing", &topic, range, range.start, range.end, 1),
                place("unexpected", &topic, last, last.start, last.end, 1)
            ])
        );

        // A range from before the ledger counted derived messages is not judged.
        rewrite_range(&world, range, "map() AS derived").await;
        assert_eq!(verify(&world, group, &[]).1["missing"], 0);

        delete_log(&world, &topic).await;
        rewrite_range(&world, range, &counted("+ 5")).await;
        let (_, report) = verify(&world, group, &[]);
        assert_eq!(
            (&report["missing"], &report["unexpected"]),
            (&0.into(), &0.into()),
            "{report:#}"
        );
        assert!(report["expired"].as_u64().unwrap() > 5, "{report:#}");
    });
}
