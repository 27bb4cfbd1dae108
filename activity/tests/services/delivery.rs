//! What the promise says of bad days, each made on purpose: claims left behind, rows that an engine forgot, offsets that somebody moved.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::in_world;
use crate::support::{World, signal};

const GROUP: &str = "analytics";

/// A range of the ledger.
#[derive(Clone, Debug, Deserialize)]
struct Range {
    topic: String,
    partition: i32,
    start: i64,
    end: i64,
}

/// Fills the tables and stops in order.
async fn fill(world: &World, events: u64, seed: u64) {
    world.simulate_events(events, seed).await;
    let mut consumer = world.consume(&[GROUP], &["--batch-rows-max", "500"]);
    world.caught_up(&[GROUP]).await;
    assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
}

/// The last range of each partition.
async fn last_ranges(world: &World) -> Vec<Range> {
    let sql = "SELECT topic, partition, max(start_offset) AS start, max(end_offset) AS end FROM {database}.ledger FINAL WHERE end_offset > start_offset GROUP BY topic, partition";
    world.database().rows(sql).await.unwrap()
}

/// Commits offsets in the group's name, as a tool or an earlier life would.
fn commit(world: &World, offsets: impl IntoIterator<Item = (Range, i64, String)>) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.targets.kafka.brokers().unwrap())
        .set(
            "group.id",
            format!("{}{GROUP}", world.targets.kafka.group_prefix),
        );
    let consumer: BaseConsumer = BaseConsumer::from_config(&config).unwrap();
    let mut list = TopicPartitionList::new();
    for (range, offset, metadata) in offsets {
        let mut element = list.add_partition(&range.topic, range.partition);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(metadata);
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// Makes the last range of each partition look as if its owner had died between insert and ledger, `age_ms` ago.
async fn leave_claims_behind(world: &World, age_ms: i64) -> Vec<Range> {
    let ranges = last_ranges(world).await;
    let now_ms = activity_runtime::cycle::now_ms();
    for range in &ranges {
        let condition = format!(
            "topic = '{}' AND partition = {} AND start_offset = {}",
            range.topic, range.partition, range.start
        );
        world.database().execute(&format!("ALTER TABLE {{database}}.ledger DELETE WHERE {condition} SETTINGS mutations_sync = 1")).await.unwrap();
    }
    commit(
        world,
        ranges.iter().map(|range| {
            (
                range.clone(),
                range.start,
                format!("v1;{};1;{}", range.end, now_ms - age_ms),
            )
        }),
    );
    ranges
}

/// Takes every other row of the ranges away; the engine still remembers the tokens of their inserts.
async fn forget_half(world: &World, ranges: &[Range]) -> i64 {
    let count = "SELECT toInt64((SELECT count() FROM {database}.clicks) + (SELECT count() FROM {database}.watches)) AS number";
    let before = world.number(count).await;
    for range in ranges {
        let condition = format!(
            "_topic = '{}' AND _partition = {} AND _offset >= {} AND _offset < {} AND _offset % 2 = 0",
            range.topic, range.partition, range.start, range.end
        );
        for table in ["clicks", "watches"] {
            world.database().execute(&format!("ALTER TABLE {{database}}.{table} DELETE WHERE {condition} SETTINGS mutations_sync = 1")).await.unwrap();
        }
    }
    before - world.number(count).await
}

async fn goes_on_exactly(world: &World, events: u64) {
    world.simulate_events(1_000, 99).await;
    let consumer = world.consume(&[GROUP], &[]);
    world.caught_up(&[GROUP]).await;
    let reports = world.verified(&[GROUP]).await;
    assert_eq!(reports[0].events, events + 1_000, "{}", consumer.log());
    assert_eq!(reports[0].rows.values().sum::<u64>(), events + 1_000);
}

#[test]
fn a_claim_whose_rows_are_there_doubles_nothing() {
    in_world("claim_there", 2, |world| async move {
        fill(&world, 5_000, 20).await;
        assert!(!leave_claims_behind(&world, 0).await.is_empty());
        goes_on_exactly(&world, 5_000).await;
    });
}

#[test]
fn rows_that_an_engine_forgot_although_it_remembers_their_token_are_inserted_again() {
    in_world("engine_forgot", 2, |world| async move {
        fill(&world, 5_000, 21).await;
        let ranges = leave_claims_behind(&world, 0).await;
        assert!(forget_half(&world, &ranges).await > 0);
        goes_on_exactly(&world, 5_000).await;
    });
}

#[test]
fn a_claim_that_is_older_than_its_token_may_be_is_filled_row_by_row() {
    in_world("old_claim", 2, |world| async move {
        fill(&world, 5_000, 22).await;
        let ranges = leave_claims_behind(&world, 24 * 3600 * 1000).await;
        assert!(forget_half(&world, &ranges).await > 0);
        goes_on_exactly(&world, 5_000).await;
    });
}

#[test]
fn rows_whose_claim_somebody_deleted_before_the_ledger_knew_of_it_are_not_doubled() {
    in_world("claim_deleted", 2, |world| async move {
        fill(&world, 5_000, 28).await;
        let ranges = leave_claims_behind(&world, 0).await;
        assert!(forget_half(&world, &ranges).await > 0);
        let without_claim = ranges.into_iter().map(|range| {
            let start = range.start;
            (range, start, String::new())
        });
        commit(&world, without_claim.collect::<Vec<_>>());
        goes_on_exactly(&world, 5_000).await;
        let undated = "SELECT toInt64(count()) AS number FROM {database}.ledger WHERE claimed_at < '2000-01-01'";
        assert_eq!(world.number(undated).await, 0);
    });
}

#[test]
fn offsets_that_somebody_set_back_do_not_double_rows() {
    in_world("set_back", 2, |world| async move {
        fill(&world, 5_000, 23).await;
        let ranges = last_ranges(&world).await;
        commit(
            &world,
            ranges.into_iter().map(|range| (range, 0, String::new())),
        );
        goes_on_exactly(&world, 5_000).await;
    });
}

#[test]
fn a_gap_that_somebody_made_is_found_and_exits_with_three() {
    in_world("gap_made", 2, |world| async move {
        fill(&world, 5_000, 24).await;
        world.simulate_events(1_000, 25).await;
        let lags = world.lag(&crate::support::groups(&[GROUP])).await;
        let skipped: i64 = lags.iter().map(|lag| lag.lag).sum();
        let to_the_end = lags.into_iter().map(|lag| {
            (
                Range {
                    topic: lag.topic,
                    partition: lag.partition,
                    start: 0,
                    end: 0,
                },
                lag.end,
                String::new(),
            )
        });
        commit(&world, to_the_end.collect::<Vec<_>>());
        let _consumer = world.consume(&[GROUP], &[]);
        world.caught_up(&[GROUP]).await;
        let output = world
            .command(&["verify", GROUP, "-o", "json"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            report["groups"][0]["missing"].as_i64(),
            Some(skipped),
            "{report:#}"
        );
    });
}

#[test]
fn a_stateful_group_goes_on_from_its_snapshot_as_if_it_had_never_stopped() {
    in_world("snapshot", 2, |world| async move {
        let columns = "user_id, item_id, rank, popularity_rank, _offset, _n";
        let sum = format!(
            "SELECT toInt64(sum(cityHash64({columns})) % 1000000007) AS number FROM {{database}}.recommendation_outcomes"
        );
        world.simulate_events(10_000, 26).await;
        let mut consumer = world.consume(&["recommendation"], &[]);
        world.caught_up(&["recommendation"]).await;
        assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
        assert!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.snapshots")
                .await
                > 0
        );
        world.simulate_events(10_000, 27).await;
        let consumer = world.consume(&["recommendation"], &[]);
        world.caught_up(&["recommendation"]).await;
        world.verified(&["recommendation"]).await;
        let stopped = world.number(&sum).await;
        drop(consumer);

        // The same log, read in one life by the same group in a database of its own.
        let mut whole = World::empty(&crate::endpoints(), "snapshot_whole");
        whole.targets.kafka.topic_prefix = world.targets.kafka.topic_prefix.clone();
        activity_operator::setup::run(&whole.targets, 2)
            .await
            .unwrap();
        let _consumer = whole.consume(&["recommendation"], &[]);
        whole.caught_up(&["recommendation"]).await;
        let outcomes = "SELECT toInt64(count()) AS number FROM {database}.recommendation_outcomes";
        // Its first stage derived everything once more into the same internal topic; the guard counted each message once.
        assert_eq!(whole.number(outcomes).await, world.number(outcomes).await);
        assert_eq!(whole.number(&sum).await, stopped);
    });
}

/// Deletes the clicks and makes them anew.
async fn make_anew(world: &World) {
    let kafka = &world.targets.kafka;
    let topic = format!("{}clicks", kafka.topic_prefix);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers().unwrap());
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&config).unwrap();
    let options = AdminOptions::new();
    admin.delete_topics(&[&topic], &options).await.unwrap();
    // The old topic is gone a moment after it was deleted.
    let is_anew = || async {
        let report = activity_operator::setup::run(&world.targets, 1).await;
        report.is_ok_and(|report| report.topics_created.contains(&topic))
    };
    world.until(is_anew).await;
}

/// How often the group's processes have said that a topic was made anew. Their log outlives a run of the tests.
fn said_anew(world: &World) -> usize {
    let log = std::fs::read_to_string(world.log(&[GROUP])).unwrap_or_default();
    log.matches("the topic was made anew").count()
}

/// Waits until they say so once more than they had.
async fn says_anew(world: &World, said: usize) {
    world.until(|| async { said_anew(world) > said }).await;
}

#[test]
fn a_topic_that_was_made_anew_and_outgrew_the_old_one_is_not_read_from_the_old_ones_end() {
    in_world("outgrown", 1, |world| async move {
        let said = said_anew(&world);
        fill(&world, 1_000, 29).await;
        make_anew(&world).await;
        world.simulate_events(5_000, 30).await;
        let _consumer = world.consume(&[GROUP], &[]);
        says_anew(&world, said).await;
        // Nor are its rows given up for those of the new one.
        let rewind = ["rewind", GROUP, "--to", "beginning", "--dry-run"];
        let refused = world.command(&rewind).output().unwrap();
        let why = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{why}");
        let topic = format!("{}clicks", world.targets.kafka.topic_prefix);
        assert!(why.contains(&format!("{topic} was made anew")), "{why}");
    });
}

#[test]
fn a_topic_that_is_made_anew_while_the_group_runs_is_not_skipped_up_to_the_old_ones_end() {
    in_world("anew_running", 1, |world| async move {
        let said = said_anew(&world);
        world.simulate_events(1_000, 31).await;
        let _consumer = world.consume(&[GROUP], &[]);
        world.caught_up(&[GROUP]).await;
        make_anew(&world).await;
        world.simulate_events(200, 32).await;
        says_anew(&world, said).await;
    });
}

#[test]
fn a_topic_that_was_made_anew_and_outgrew_the_old_one_unseen_stops_the_group_in_this_life_and_the_next()
 {
    in_world("anew_unseen", 1, |world| async move {
        let said = said_anew(&world);
        world.simulate_events(1_000, 33).await;
        let mut consumer = world.consume(&[GROUP], &["--session-timeout-ms", "120000"]);
        world.caught_up(&[GROUP]).await;
        signal(consumer.id(), "STOP");
        make_anew(&world).await;
        world.simulate_events(5_000, 34).await;
        signal(consumer.id(), "CONT");
        says_anew(&world, said).await;
        assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
        let said = said_anew(&world);
        let _consumer = world.consume(&[GROUP], &[]);
        says_anew(&world, said).await;
    });
}
