//! `activity tail` on the real stack: everything is shown, once, decoded or with the reason why not; nobody else notices; it ends as asked.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use activity_platform::kafka::Inspector;
use activity_producer::SimulateArgs;
use serde_json::{Value, json};

use crate::in_world;
use crate::support::{World, signal};

fn lines(world: &World, arguments: &[&str]) -> Vec<Value> {
    let tail: Vec<&str> = ["tail"].iter().chain(arguments).copied().collect();
    let output = world.command(&tail).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{tail:?}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn following(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn number(count: usize) -> String {
    count.to_string()
}

#[test]
fn every_message_is_shown_once_decoded_or_with_the_reason_why_not() {
    in_world("tail_all", 4, |world| async move {
        let published = world
            .simulate(SimulateArgs {
                events: Some(2_000),
                seed: Some(5),
                malformed_share: 0.05,
                ..SimulateArgs::default()
            })
            .await;
        assert_eq!(published.counts.malformed, 100);
        let mut decoded = 0;
        let mut undecodable = 0;
        for topic in ["clicks", "watches"] {
            let inspector = Inspector::new(&world.targets.kafka, "test").unwrap();
            let name = format!("tail_all.{topic}");
            let all: i64 = (0..4)
                .map(|partition| inspector.watermarks(&name, partition).unwrap().next)
                .sum();
            let shown = lines(
                &world,
                &[topic, "--from", "beginning", "-n", &all.to_string()],
            );
            let mut places: Vec<(i64, i64)> = shown
                .iter()
                .map(|line| {
                    (
                        line["partition"].as_i64().unwrap(),
                        line["offset"].as_i64().unwrap(),
                    )
                })
                .collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len() as i64, all, "{topic}");
            let (bad, good): (Vec<&Value>, Vec<&Value>) = shown
                .iter()
                .partition(|line| line.get("undecodable").is_some());
            assert!(
                good.iter()
                    .all(|line| line["user_id"].is_string() && line["topic"] == name)
            );
            for line in &bad {
                let why = &line["undecodable"];
                assert!(
                    why["reason"].is_string() && why["payload"].is_string(),
                    "{line}"
                );
            }
            decoded += good.len();
            undecodable += bad.len();
        }
        assert_eq!((decoded, undecodable), (2_000, 100));
    });
}

#[test]
fn only_what_is_asked_for_is_shown_and_no_group_is_joined() {
    in_world("tail_some", 2, |world| async move {
        world.simulate_events(3_000, 6).await;
        let some = lines(
            &world,
            &[
                "clicks",
                "--from",
                "beginning",
                "--where",
                "country=DE",
                "-n",
                "3",
            ],
        );
        assert_eq!(some.len(), 3);
        assert!(some.iter().all(|line| line["country"] == "DE"));
        let user = some[0]["user_id"].as_str().unwrap();
        let one = lines(
            &world,
            &["clicks", "--from", "1h", "--user", user, "-n", "1"],
        );
        assert_eq!(one[0]["user_id"], user);

        let refused = world
            .command(&["tail", "clicks", "--where", "colour=red"])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(
            error.contains("colour") && error.contains("country"),
            "{error}"
        );

        let members = Inspector::new(&world.targets.kafka, "test").unwrap();
        assert_eq!(members.members("activity-reader").unwrap(), []);
    });
}

#[test]
fn what_comes_in_is_shown_as_it_comes_in_until_ctrl_c_or_until_nobody_reads_any_more() {
    in_world("tail_live", 1, |world| async move {
        world.simulate_events(500, 7).await;
        let live = world.command(&["tail", "watches", "-o", "table"]);
        let (mut child, mut stdout) = following(live);
        let mut line = String::new();
        // It begins at the end that there is when it has come so far: send until it has.
        let reading = std::thread::spawn(move || {
            stdout.read_line(&mut line).unwrap();
            (line, stdout)
        });
        let mut seed = 8;
        while !reading.is_finished() {
            world.simulate_events(50, seed).await;
            seed += 1;
        }
        let (line, _stdout) = reading.join().unwrap();
        assert!(
            line.contains(" watches/0@") && !line.contains('\u{1b}'),
            "{line:?}"
        );
        signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(0));

        let (mut child, mut stdout) =
            following(world.command(&["tail", "clicks", "--from", "beginning"]));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        drop(stdout);
        while child.try_wait().unwrap().is_none() {
            world.simulate_events(200, seed).await;
            seed += 1;
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn alerts_are_followed_in_their_table_and_dead_letters_in_their_topics() {
    in_world("tail_others", 1, |world| async move {
        let row = |n: usize| {
            json!({
                "kind": "user", "actor": format!("user-{n}"), "state": "opened", "score": 0.5, "reasons": ["fast"],
                "_topic": "t", "_partition": n % 2, "_offset": n, "_n": 0, "_epoch": 1, "_appended_at": "2026-11-22 08:00:00.000",
            })
        };
        let rows: Vec<Value> = (0..2_500).map(row).collect();
        world
            .database()
            .insert_json("fraud_alerts", &rows)
            .await
            .unwrap();
        let shown = lines(
            &world,
            &["alerts", "--from", "beginning", "-n", &number(rows.len())],
        );
        let mut actors: Vec<&str> = shown
            .iter()
            .map(|line| line["actor"].as_str().unwrap())
            .collect();
        actors.sort_unstable();
        actors.dedup();
        assert_eq!(actors.len(), rows.len());
        let one = lines(
            &world,
            &[
                "alerts",
                "--from",
                "beginning",
                "--user",
                "user-7",
                "-n",
                "1",
            ],
        );
        assert_eq!(
            (&one[0]["offset"], &one[0]["reasons"]),
            (&json!(7), &json!(["fast"]))
        );

        world
            .simulate(SimulateArgs {
                events: Some(200),
                seed: Some(9),
                malformed_share: 0.1,
                ..SimulateArgs::default()
            })
            .await;
        let _consumer = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        let letters = lines(
            &world,
            &[
                "dead-letters",
                "--from",
                "beginning",
                "--where",
                "group=analytics",
                "-n",
                "20",
            ],
        );
        for letter in &letters {
            assert!(
                letter["reason"].is_string() && letter["source_topic"].is_string(),
                "{letter}"
            );
        }
        assert_eq!(letters.len(), 20);
    });
}
