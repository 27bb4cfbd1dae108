//! What `activity verify` must find, each made by hand: it is named with its place, and the exit code is 3.

mod sent;

use std::collections::BTreeSet;

use activity_operator::lag::PartitionLag;
use activity_platform::settings::Targets;
use activity_producer::SimulateArgs;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::in_world;
use crate::support::{World, groups};

/// A range of the ledger with at least one row in the table.
#[derive(Clone, Debug, Deserialize)]
struct Range {
    topic: String,
    partition: i32,
    start: i64,
    end: i64,
}

impl Range {
    fn rows(&self) -> String {
        format!(
            "_topic = '{}' AND _partition = {} AND _offset >= {} AND _offset < {}",
            self.topic, self.partition, self.start, self.end
        )
    }
}

/// Fills the tables and stops in order.
async fn fill(world: &World, group: &str, args: SimulateArgs) {
    world.simulate(args).await;
    let mut consumer = world.consume(&[group], &["--batch-rows-max", "500"]);
    world.caught_up(&[group]).await;
    assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
}

fn events(events: u64, seed: u64) -> SimulateArgs {
    SimulateArgs {
        events: Some(events),
        seed: Some(seed),
        ..SimulateArgs::default()
    }
}

/// A range in the middle of a partition, with more than 20 rows in the table.
async fn some_range(world: &World, group: &str, table: &str) -> Range {
    let sql = format!(
        "SELECT topic, partition, start_offset AS start, end_offset AS end FROM {{database}}.ledger FINAL \
         WHERE consumer_group = '{group}' AND rows['{table}'] > 20 AND start_offset > 0 ORDER BY topic, partition, start LIMIT 1"
    );
    let ranges: Vec<Range> = world.database().rows(&sql).await.unwrap();
    ranges[0].clone()
}

async fn execute(world: &World, sql: &str) {
    world.database().execute(sql).await.unwrap();
}

async fn delete_rows(world: &World, table: &str, condition: &str) {
    let sql = format!(
        "ALTER TABLE {{database}}.{table} DELETE WHERE {condition} SETTINGS mutations_sync = 2"
    );
    execute(world, &sql).await;
}

/// Inserts rows of a table into it once more, some columns changed.
async fn insert_again(world: &World, table: &str, condition: &str, changed: &str) {
    let replaced = if changed.is_empty() {
        String::new()
    } else {
        format!(" REPLACE ({changed})")
    };
    let sql = format!(
        "INSERT INTO {{database}}.{table} SELECT *{replaced} FROM {{database}}.{table} WHERE {condition} \
         SETTINGS insert_deduplicate = 0, deduplicate_insert = 'disable'"
    );
    execute(world, &sql).await;
}

/// Runs the verb; gives its exit code and what it says of the group.
fn verify(world: &World, group: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments: Vec<&str> = ["verify", group, "-o", "json"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let output = world.command(&arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report["groups"][0].clone())
}

/// Kind, name, topic, partition, start, end, count.
type Place = (String, String, String, i64, i64, i64, i64);

/// The places, without their words.
fn places(report: &Value) -> BTreeSet<Place> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| value.as_i64().unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            assert!(!finding["words"].as_str().unwrap().is_empty());
            (
                text(&finding["kind"]),
                text(&finding["name"]),
                text(&finding["topic"]),
                number(&finding["partition"]),
                number(&finding["start"]),
                number(&finding["end"]),
                number(&finding["count"]),
            )
        })
        .collect()
}

fn place(kind: &str, name: &str, range: &Range, start: i64, end: i64, count: i64) -> Place {
    (
        kind.to_owned(),
        name.to_owned(),
        range.topic.clone(),
        i64::from(range.partition),
        start,
        end,
        count,
    )
}

#[test]
fn rows_that_were_deleted_are_missing_at_exactly_their_offsets() {
    in_world("verify_deleted", 2, |world| async move {
        fill(&world, "analytics", events(5_000, 60)).await;
        assert_eq!(verify(&world, "analytics", &[]).0, Some(0));
        let range = some_range(&world, "analytics", "clicks").await;
        let (first, second) = (range.start + 3, range.start + 10);
        let condition = format!(
            "{} AND (_offset = {first} OR _offset IN ({second}, {}))",
            range.rows(),
            second + 1
        );
        delete_rows(&world, "clicks", &condition).await;
        let (code, report) = verify(&world, "analytics", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        assert_eq!(
            places(&report),
            BTreeSet::from([
                place("missing", "clicks", &range, first, first + 1, 1),
                place("missing", "clicks", &range, second, second + 2, 2)
            ])
        );
        assert_eq!(report["missing"], 3, "{report:#}");
    });
}

#[test]
fn a_row_that_was_inserted_twice_and_one_that_is_gone_elsewhere_are_two_findings() {
    in_world("verify_twice", 2, |world| async move {
        fill(&world, "recommendation", events(20_000, 61)).await;
        let table = "recommendation_outcomes";
        let range = some_range(&world, "recommendation", table).await;
        let offset = world
            .number(&format!(
                "SELECT max(_offset) AS number FROM {{database}}.{table} WHERE {}",
                range.rows()
            ))
            .await;
        insert_again(
            &world,
            table,
            &format!("{} AND _offset = {offset}", range.rows()),
            "",
        )
        .await;
        // Rows of this table are not one for each message: the range is the place.
        let before = world
            .number(&format!(
                "SELECT max(_offset) AS number FROM {{database}}.{table} WHERE _topic = '{}' AND _offset < {}",
                range.topic, range.start
            ))
            .await;
        let condition = format!("_topic = '{}' AND _offset = {before}", range.topic);
        delete_rows(&world, table, &condition).await;
        let (code, report) = verify(&world, "recommendation", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        assert_eq!(
            (&report["missing"], &report["duplicate"]),
            (&1.into(), &1.into()),
            "{report:#}"
        );
        let mut places = places(&report);
        assert_eq!(
            places.pop_first(),
            Some(place("duplicate", table, &range, offset, offset + 1, 1))
        );
        let missing = places.pop_first().unwrap();
        assert_eq!((&*missing.0, &*missing.1), ("missing", table));
        assert!(
            missing.4 <= before && before < missing.5 && missing.5 <= range.start,
            "{missing:?}"
        );
    });
}

#[test]
fn rows_of_another_epoch_or_of_no_range_are_unexpected() {
    in_world("verify_epoch", 2, |world| async move {
        fill(&world, "truth", events(5_000, 62)).await;
        let range = some_range(&world, "truth", "truth").await;
        let two = format!(
            "{} AND _offset IN ({}, {})",
            range.rows(),
            range.start + 5,
            range.start + 8
        );
        insert_again(&world, "truth", &two, "toUInt32(0) AS _epoch").await;
        let (code, report) = verify(&world, "truth", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        assert_eq!(
            places(&report),
            BTreeSet::from([place(
                "unexpected",
                "truth",
                &range,
                range.start + 5,
                range.start + 9,
                2
            )])
        );
        assert!(
            report["findings"][0]["words"]
                .as_str()
                .unwrap()
                .contains("epoch 0"),
            "{report:#}"
        );
        delete_rows(&world, "truth", "_epoch = 0").await;
        insert_again(&world, "truth", &two, "toUInt32(1) AS _n").await;
        let (code, report) = verify(&world, "truth", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        assert_eq!(
            places(&report),
            BTreeSet::from([place(
                "unexpected",
                "truth",
                &range,
                range.start + 5,
                range.start + 9,
                2
            )])
        );
        delete_rows(&world, "truth", "_n = 1").await;
        assert_eq!(verify(&world, "truth", &[]).0, Some(0));
    });
}

#[test]
fn a_range_that_is_gone_from_the_ledger_is_a_gap_and_its_rows_are_unexpected() {
    in_world("verify_ledger", 2, |world| async move {
        fill(&world, "truth", events(5_000, 63)).await;
        let range = some_range(&world, "truth", "truth").await;
        let rows = world
            .number(&format!(
                "SELECT toInt64(count()) AS number FROM {{database}}.truth WHERE {}",
                range.rows()
            ))
            .await;
        let condition = format!(
            "topic = '{}' AND partition = {} AND start_offset = {}",
            range.topic, range.partition, range.start
        );
        delete_rows(&world, "ledger", &condition).await;
        let (code, report) = verify(&world, "truth", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        let offsets = range.end - range.start;
        assert_eq!(
            places(&report),
            BTreeSet::from([
                place("missing", "ledger", &range, range.start, range.end, offsets),
                place("unexpected", "truth", &range, range.start, range.end, rows)
            ])
        );
    });
}

#[test]
fn a_range_that_was_skipped_by_hand_is_missing_and_only_in_its_time() {
    in_world("verify_skipped", 1, |world| async move {
        fill(&world, "truth", events(3_000, 64)).await;
        let before = now_and_over(&world).await;
        world.simulate(events(1_000, 65)).await;
        let skipped = world.lag(&groups(&["truth"])).await;
        commit_ends(&world, "truth", &skipped);
        let after = now_and_over(&world).await;
        world.simulate(events(1_000, 66)).await;
        let _consumer = world.consume(&["truth"], &[]);
        world.caught_up(&["truth"]).await;

        let (code, report) = verify(&world, "truth", &[]);
        assert_eq!(code, Some(3), "{report:#}");
        let expected: BTreeSet<Place> = skipped
            .iter()
            .filter(|lag| lag.end > 0)
            .map(|lag| {
                let committed = lag.committed.unwrap();
                let range = Range {
                    topic: lag.topic.clone(),
                    partition: lag.partition,
                    start: committed,
                    end: lag.end,
                };
                place("missing", "ledger", &range, committed, lag.end, lag.lag)
            })
            .collect();
        assert_eq!(places(&report), expected);
        assert_eq!(report["missing"], 1_000, "{report:#}");

        let (code, report) = verify(&world, "truth", &["--until", &before]);
        assert_eq!((code, &report["events"]), (Some(0), &3_000.into()));
        let (code, report) = verify(&world, "truth", &["--since", &after]);
        assert_eq!((code, &report["events"]), (Some(0), &1_000.into()));
        let (code, report) = verify(&world, "truth", &["--since", &before, "--until", &after]);
        assert_eq!((code, &report["events"]), (Some(3), &0.into()));
        assert_eq!(places(&report), expected);
        let (code, report) = verify(&world, "truth", &["--since", "1h"]);
        assert_eq!((code, &report["missing"]), (Some(3), &1_000.into()));
    });
}

/// This moment, when it is over: what is appended from now on is later.
async fn now_and_over(world: &World) -> String {
    let now = jiff::Timestamp::now();
    world
        .until(|| async { jiff::Timestamp::now().as_millisecond() > now.as_millisecond() + 1 })
        .await;
    now.to_string()
}

/// Commits the ends of the log in the group's name, as somebody does who wants to be rid of a lag.
fn commit_ends(world: &World, group: &str, lags: &[PartitionLag]) {
    let group_id = format!("{}{group}", world.targets.kafka.group_prefix);
    let consumer: BaseConsumer =
        BaseConsumer::from_config(client(world).set("group.id", group_id)).unwrap();
    let mut list = TopicPartitionList::new();
    for lag in lags {
        list.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(lag.end))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

fn client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.targets.kafka.brokers().unwrap());
    config
}

#[test]
fn while_traffic_flows_with_malformed_messages_among_it_every_look_is_clean() {
    in_world("verify_flowing", 2, |world| async move {
        let _consumer = world.consume(&[], &["--batch-age-ms", "100"]);
        let stop = CancellationToken::new();
        let args = SimulateArgs {
            seed: Some(69),
            rate: Some(1_000.0),
            malformed_share: 0.1,
            ..SimulateArgs::default()
        };
        let Targets {
            kafka, registry, ..
        } = &world.targets;
        let traffic = activity_producer::simulate(&args, kafka, registry, stop.clone(), |_| ());
        let looks = async {
            let mut seen = 0;
            while seen < 2_000 {
                let reports = world.verified(&[]).await;
                seen = reports.iter().map(|report| report.events).min().unwrap();
            }
            stop.cancel();
        };
        let (published, ()) = tokio::join!(traffic, looks);
        let counts = published.unwrap().counts;
        world.caught_up(&[]).await;
        let reports = world.verified(&[]).await;
        for report in &reports {
            assert_eq!((report.lag, report.expired), (0, 0), "{report:#?}");
        }
        let analytics = &reports[0];
        assert_eq!(analytics.events, counts.acknowledged);
        assert_eq!(analytics.dead_letters, counts.malformed);
    });
}
