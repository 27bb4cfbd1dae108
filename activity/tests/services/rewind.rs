//! Rewinds: whatever is read again, killed or given up, the tables hold each row once at every moment, and `verify` is clean.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use activity_platform::fault::{FAULT, FAULT_MARK, Point};
use activity_producer::SimulateArgs;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use crate::in_world;
use crate::support::{World, scratch, signal};

/// Runs `activity rewind …` to its end.
fn rewind(world: &World, arguments: &[&str]) -> Output {
    let arguments: Vec<&str> = ["rewind"].iter().chain(arguments).copied().collect();
    world.command(&arguments).output().unwrap()
}

/// Runs it and expects it to succeed.
fn rewound(world: &World, arguments: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = arguments.iter().chain(&["-o", "json"]).copied().collect();
    let output = rewind(world, &all);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lets groups read all there is, and stops them in order.
async fn read_all(world: &World, groups: &[&str]) {
    let mut consumer = world.consume(groups, &["--batch-rows-max", "500"]);
    world.caught_up(groups).await;
    assert_eq!(consumer.terminate(), Some(0), "{}", consumer.log());
}

/// What a table holds, whatever the epoch that its rows are of and the offsets of the group's own topics: rows, and a sum of their content.
async fn content(world: &World, tables: &[&str], but: &str) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for table in tables {
        let rows = format!("SELECT toInt64(count()) AS number FROM {{database}}.{table}");
        let sum = format!(
            "SELECT toInt64(sum(cityHash64(toString(tuple(*))) % 1000000007)) AS number FROM (SELECT * EXCEPT ({but}) FROM {{database}}.{table})"
        );
        all.push((world.number(&rows).await, world.number(&sum).await));
    }
    all
}

const EVENTS: &[&str] = &["clicks", "watches"];
const MODEL: &[&str] = &[
    "recommendations",
    "recommendation_outcomes",
    "recommendation_completions",
];

async fn epochs_of(world: &World, table: &str) -> i64 {
    let sql = format!(
        "SELECT toInt64(if(uniqExact(_epoch) = 1, max(_epoch), -1)) AS number FROM {{database}}.{table}"
    );
    world.number(&sql).await
}

/// How far a rewind has come.
async fn phase(world: &World, group: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Found {
        phase: String,
    }
    let sql = format!(
        "SELECT phase FROM {{database}}.rewinds FINAL WHERE consumer_group = '{group}' ORDER BY epoch DESC LIMIT 1"
    );
    let found: Vec<Found> = world.database().rows(&sql).await.unwrap();
    found.into_iter().next().map(|found| found.phase)
}

/// Starts `activity rewind …` and leaves it running.
fn start(world: &World, arguments: &[&str]) -> Child {
    let arguments: Vec<&str> = ["rewind"].iter().chain(arguments).copied().collect();
    world
        .command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_group_rewound_to_the_beginning_holds_the_same_rows_in_another_epoch() {
    in_world("rewind_beginning", 3, |world| async move {
        world.simulate_events(8_000, 70).await;
        read_all(&world, &["analytics"]).await;
        let before = content(&world, EVENTS, "_epoch").await;
        let done = rewound(&world, &["analytics", "--to", "beginning", "--yes"]);
        assert_eq!(
            (
                done["rewound"]["epoch"].as_u64(),
                done["rewound"]["phase"].as_str()
            ),
            (Some(2), Some("done")),
            "{done:#}"
        );
        assert_eq!(content(&world, EVENTS, "_epoch").await, before);
        assert_eq!(epochs_of(&world, "clicks").await, 2);
        world.verified(&["analytics"]).await;
        // It goes on from there, and can be rewound again.
        world.simulate_events(2_000, 71).await;
        read_all(&world, &["analytics"]).await;
        rewound(&world, &["analytics", "--to", "beginning", "--yes"]);
        let reports = world.verified(&["analytics"]).await;
        assert_eq!(reports[0].events, 10_000);
        assert_eq!(epochs_of(&world, "watches").await, 3);
    });
}

#[test]
fn a_chain_of_stages_is_made_anew_as_a_whole() {
    in_world("rewind_chain", 1, |world| async move {
        world.simulate_events(15_000, 72).await;
        read_all(&world, &["recommendation"]).await;
        let but = "_epoch, _offset, _appended_at";
        let before = content(&world, MODEL, but).await;
        assert!(before.iter().all(|(rows, _)| *rows > 0), "{before:?}");
        rewound(&world, &["recommendation", "--to", "beginning", "--yes"]);
        assert_eq!(content(&world, MODEL, but).await, before);
        world.verified(&["recommendation"]).await;
        // From the middle on: what was derived from events before it counts as it is, the rest is derived again.
        let half = world.number("SELECT toInt64(max(end_offset) / 2) AS number FROM {database}.ledger WHERE topic LIKE '%watches'").await;
        let to = format!("watches/0={half}");
        rewound(&world, &["recommendation", "--to", &to, "--yes"]);
        assert_eq!(content(&world, MODEL, but).await, before);
        world.verified(&["recommendation"]).await;
        world.simulate_events(3_000, 73).await;
        read_all(&world, &["recommendation"]).await;
        world.verified(&["recommendation"]).await;
    });
}

#[test]
fn offsets_and_times_leave_the_rows_before_them_alone() {
    in_world("rewind_points", 2, |world| async move {
        world.simulate_events(4_000, 74).await;
        read_all(&world, &["analytics", "truth"]).await;
        let between = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        world.simulate_events(4_000, 75).await;
        read_all(&world, &["analytics", "truth"]).await;
        for (group, tables) in [("analytics", EVENTS), ("truth", &["truth"][..])] {
            let before = content(&world, tables, "_epoch").await;
            let plan = rewound(&world, &[group, "--to", &between, "--dry-run"]);
            let sum = |field: &str| -> u64 {
                let tables = plan["tables"].as_array().unwrap();
                tables
                    .iter()
                    .map(|table| table[field].as_u64().unwrap())
                    .sum()
            };
            assert!(sum("kept") > 0 && sum("replaced") > 0, "{plan:#}");
            rewound(&world, &[group, "--to", &between, "--yes"]);
            assert_eq!(content(&world, tables, "_epoch").await, before);
            rewound(
                &world,
                &[group, "--to", "clicks/1=700", "--yes", "--keep-old"],
            );
            assert_eq!(content(&world, tables, "_epoch").await, before);
            world.verified(&[group]).await;
        }
        let kept = "SELECT toInt64(count()) AS number FROM system.tables WHERE database = '{database}' AND name = 'truth__epoch_2'";
        assert_eq!(world.number(kept).await, 1);
        let ahead = rewind(&world, &["analytics", "--to", "0s", "--yes"]);
        assert_eq!(ahead.status.code(), Some(1));
        assert!(stderr(&ahead).contains("nothing"), "{}", stderr(&ahead));
    });
}

#[test]
fn a_running_group_forbids_it_or_steps_aside_and_goes_on() {
    in_world("rewind_running", 2, |world| async move {
        world.simulate_events(3_000, 76).await;
        let mut consumer = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        let refused = rewind(&world, &["analytics", "--to", "beginning", "--yes"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = stderr(&refused);
        assert!(
            said.contains("analytics runs") && said.contains("--stop-group"),
            "{said}"
        );
        assert_eq!(phase(&world, "analytics").await, None);
        let to_beginning = ["analytics", "--to", "beginning", "--yes", "--stop-group"];
        rewound(&world, &to_beginning);
        world.simulate_events(3_000, 77).await;
        world.caught_up(&["analytics"]).await;
        assert!(consumer.is_running(), "{}", consumer.log());
        assert_eq!(world.verified(&["analytics"]).await[0].events, 6_000);
        assert_eq!(epochs_of(&world, "clicks").await, 2);
    });
}

#[test]
fn a_rewind_that_is_killed_in_any_phase_is_resumed_and_a_group_that_starts_meanwhile_waits() {
    in_world("rewind_killed", 2, |world| async move {
        world.simulate_events(60_000, 78).await;
        read_all(&world, &["analytics"]).await;
        let before = content(&world, EVENTS, "_epoch").await;
        let mut reached = std::collections::BTreeSet::new();
        for (round, wanted) in ["planned", "copying", "reading", "exchanging"]
            .iter()
            .enumerate()
        {
            let to = ["beginning", "clicks/0=5000,watches/1=100"][round % 2];
            let mut child = start(
                &world,
                &["analytics", "--to", to, "--yes", "--batch-rows-max", "500"],
            );
            // Killed as soon as it is seen there; it may have come further by then, or have ended.
            while child.try_wait().unwrap().is_none()
                && phase(&world, "analytics").await.as_deref() != Some(wanted)
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let at = phase(&world, "analytics").await.unwrap();
            reached.insert(at.clone());
            if at != "done" {
                let waiting = world.consume(&["analytics"], &[]);
                world
                    .until(|| async { waiting.log().contains("--resume") })
                    .await;
                let twice = rewind(&world, &["analytics", "--to", "beginning", "--yes"]);
                assert!(stderr(&twice).contains("unfinished"), "{}", stderr(&twice));
                drop(waiting);
                rewound(&world, &["analytics", "--resume"]);
            }
            assert_eq!(
                content(&world, EVENTS, "_epoch").await,
                before,
                "killed while {at}"
            );
            assert_eq!(epochs_of(&world, "clicks").await, round as i64 + 2);
            world.verified(&["analytics"]).await;
        }
        assert!(
            reached.contains("copying") || reached.contains("reading"),
            "{reached:?}"
        );
    });
}

#[test]
fn a_kill_between_the_exchange_of_two_tables_exchanges_none_of_them_back() {
    in_world("rewind_exchanged", 2, |world| async move {
        world.simulate_events(20_000, 87).await;
        read_all(&world, &["analytics"]).await;
        let before = content(&world, EVENTS, "_epoch").await;
        let slowly = [
            "analytics",
            "--to",
            "beginning",
            "--yes",
            "--batch-rows-max",
            "100",
        ];
        let mut child = start(&world, &slowly);
        world
            .until(|| async { phase(&world, "analytics").await.as_deref() == Some("reading") })
            .await;
        child.kill().unwrap();
        child.wait().unwrap();
        // What it would have done until the moment in between; what was not read again yet is left to the group.
        for statement in [
            "INSERT INTO {database}.rewinds SELECT * REPLACE('exchanging' AS phase, version + 1 AS version) FROM {database}.rewinds FINAL",
            "EXCHANGE TABLES {database}.clicks AND {database}.clicks__rewind",
        ] {
            world.database().execute(statement).await.unwrap();
        }
        let late = rewind(&world, &["analytics", "--abort"]);
        assert!(stderr(&late).contains("--resume"), "{}", stderr(&late));
        rewound(&world, &["analytics", "--resume"]);
        read_all(&world, &["analytics"]).await;
        assert_eq!(content(&world, EVENTS, "_epoch").await, before);
        for table in EVENTS {
            assert_eq!(epochs_of(&world, table).await, 2, "{table}");
        }
        world.verified(&["analytics"]).await;
    });
}

#[test]
fn a_rewind_whose_new_tables_were_made_anew_by_another_says_so_and_is_given_up() {
    in_world("rewind_other_tables", 2, |world| async move {
        world.simulate_events(3_000, 88).await;
        read_all(&world, &["analytics"]).await;
        let before = content(&world, EVENTS, "_topic").await;
        let mark = scratch("rewind_other_tables").join("mark");
        for is_exchanging in [false, true] {
            let _ = std::fs::remove_file(&mark);
            let to_beginning = ["rewind", "analytics", "--to", "beginning", "--yes"];
            let mut command = world.command(&to_beginning);
            command
                .env(FAULT, format!("{}#1=kill", Point::RewindRead))
                .env(FAULT_MARK, &mark);
            let killed = command.output().unwrap();
            assert!(killed.status.code().is_none(), "{}", stderr(&killed));
            let exchanging = "INSERT INTO {database}.rewinds SELECT * REPLACE('exchanging' AS phase, version + 1 AS version) \
                 FROM {database}.rewinds FINAL WHERE phase = 'reading'";
            let made_anew = [
                "DROP TABLE {database}.clicks__rewind SYNC",
                "CREATE TABLE {database}.clicks__rewind AS {database}.clicks",
            ];
            let statements = is_exchanging.then_some(exchanging);
            for statement in statements.into_iter().chain(made_anew) {
                world.database().execute(statement).await.unwrap();
            }
            let refused = rewind(&world, &["analytics", "--resume"]);
            assert_eq!(refused.status.code(), Some(1));
            let said = stderr(&refused);
            assert!(said.contains("--abort"), "{said}");
            rewound(&world, &["analytics", "--abort"]);
            assert_eq!(content(&world, EVENTS, "_topic").await, before);
            world.verified(&["analytics"]).await;
        }
    });
}

#[test]
fn who_counts_rows_all_the_while_never_sees_doubles_or_holes() {
    in_world("rewind_watched", 2, |world| async move {
        world.simulate_events(30_000, 79).await;
        read_all(&world, &["analytics"]).await;
        let rows = "SELECT toInt64(count()) AS number FROM {database}.clicks";
        let before = world.number(rows).await;
        let mut child = start(&world, &["analytics", "--to", "beginning", "--yes"]);
        let mut looks = 0;
        while child.try_wait().unwrap().is_none() {
            assert_eq!(world.number(rows).await, before);
            looks += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(child.wait().unwrap().success() && looks > 10, "{looks}");
        assert_eq!(world.number(rows).await, before);
        assert_eq!(epochs_of(&world, "clicks").await, 2);
    });
}

#[test]
fn a_rewind_that_is_given_up_leaves_everything_as_it_was() {
    in_world("rewind_aborted", 1, |world| async move {
        world.simulate_events(40_000, 80).await;
        read_all(&world, &["recommendation"]).await;
        let before = content(&world, MODEL, "_topic").await;
        let mut child = start(
            &world,
            &[
                "recommendation",
                "--to",
                "beginning",
                "--yes",
                "--batch-rows-max",
                "100",
            ],
        );
        world
            .until(|| async {
                let derived = "SELECT toInt64(count()) AS number FROM {database}.ledger WHERE epoch = 2 AND topic LIKE '%by-model'";
                world.number(derived).await > 0
            })
            .await;
        signal(child.id(), "KILL");
        child.wait().unwrap();
        assert_eq!(
            phase(&world, "recommendation").await.as_deref(),
            Some("reading")
        );
        // What is live is whole all the time.
        world.verified(&["recommendation"]).await;
        let done = rewound(&world, &["recommendation", "--abort"]);
        assert_eq!(done["rewound"]["phase"], "aborted");
        assert_eq!(content(&world, MODEL, "_topic").await, before);
        // What the rewind had derived counts for nobody: not for the group, and not for the next rewind.
        read_all(&world, &["recommendation"]).await;
        assert_eq!(content(&world, MODEL, "_topic").await, before);
        rewound(&world, &["recommendation", "--to", "beginning", "--yes"]);
        let but = "_epoch, _offset, _appended_at";
        let again = content(&world, MODEL, but).await;
        read_all(&world, &["recommendation"]).await;
        assert_eq!(content(&world, MODEL, but).await, again);
        assert_eq!(
            again.iter().map(|(rows, _)| rows).sum::<i64>(),
            before.iter().map(|(rows, _)| rows).sum::<i64>()
        );
        assert_eq!(epochs_of(&world, "recommendations").await, 3);
        world.verified(&["recommendation"]).await;
        assert_eq!(
            rewind(&world, &["recommendation", "--abort"]).status.code(),
            Some(1)
        );
    });
}

#[test]
fn a_process_that_slept_through_a_rewind_goes_on_in_the_new_epoch() {
    in_world("rewind_slept", 2, |world| async move {
        let limits = ["--batch-rows-max", "300"];
        let sleeper = world.consume(&["analytics"], &limits);
        world.simulate_events(1_000, 84).await;
        world.caught_up(&["analytics"]).await;
        world.simulate_events(20_000, 85).await;
        // In the middle of whatever it does.
        signal(sleeper.id(), "STOP");
        rewound(
            &world,
            &["analytics", "--to", "beginning", "--yes", "--stop-group"],
        );
        signal(sleeper.id(), "CONT");
        world.simulate_events(1_000, 86).await;
        world.caught_up(&["analytics"]).await;
        let reports = world.verified(&["analytics"]).await;
        assert_eq!(reports[0].events, 22_000, "{}", sleeper.log());
        assert_eq!(
            (
                epochs_of(&world, "clicks").await,
                epochs_of(&world, "watches").await
            ),
            (2, 2)
        );
    });
}

#[test]
fn what_the_log_of_a_stage_has_lost_is_neither_lost_nor_doubled() {
    in_world("rewind_retention", 2, |world| async move {
        world.simulate_events(6_000, 82).await;
        read_all(&world, &["recommendation"]).await;
        world.simulate_events(6_000, 83).await;
        read_all(&world, &["recommendation"]).await;
        let rows =
            |table: &str| format!("SELECT toInt64(count()) AS number FROM {{database}}.{table}");
        let playbacks = world.number(&rows("recommendation_outcomes")).await;
        // Not as many as playbacks: some events arrive twice.
        let different =
            "SELECT toInt64(uniqExact(event_id)) AS number FROM {database}.recommendation_outcomes";
        let events = world.number(different).await;
        let topic = format!(
            "{}recommendation.watches-by-model",
            world.targets.kafka.topic_prefix
        );
        let first = world.number("SELECT toInt64(max(end_offset) / 3) AS number FROM {database}.ledger WHERE topic LIKE '%by-model'").await;
        delete_below(&world, &topic, first).await;
        rewound(&world, &["recommendation", "--to", "beginning", "--yes"]);
        assert_eq!(
            world.number(&rows("recommendation_outcomes")).await,
            playbacks
        );
        assert_eq!(world.number(different).await, events);
        world.verified(&["recommendation"]).await;
    });
}

/// As retention does.
async fn delete_below(world: &World, topic: &str, offset: i64) {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", world.targets.kafka.brokers().unwrap());
    let admin: AdminClient<_> = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    admin
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
}

#[test]
fn dead_letters_that_are_written_again_count_once() {
    in_world("rewind_letters", 2, |world| async move {
        let args = SimulateArgs {
            events: Some(5_000),
            seed: Some(81),
            malformed_share: 0.1,
            ..SimulateArgs::default()
        };
        world.simulate(args).await;
        read_all(&world, &["analytics"]).await;
        let before = world.verified(&["analytics"]).await;
        assert!(before[0].dead_letters > 0, "{before:#?}");
        rewound(&world, &["analytics", "--to", "beginning", "--yes"]);
        let after = world.verified(&["analytics"]).await;
        assert_eq!(
            (after[0].dead_letters, &after[0].rows),
            (before[0].dead_letters, &before[0].rows)
        );
    });
}
