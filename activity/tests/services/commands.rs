//! The command line as a user meets it: exit codes, forms of output, errors that say what to do.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::in_world;
use crate::support::{ACTIVITY, scratch};

fn activity(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(ACTIVITY)
        .args(arguments)
        .current_dir(scratch("commands"))
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn wrong_use_exits_with_two_and_help_names_every_group() {
    assert_eq!(activity(&["conusme"]).0, Some(2));
    assert_eq!(activity(&["consume", "nobody"]).0, Some(2));
    let (code, help, _) = activity(&["consume", "--help"]);
    assert_eq!(code, Some(0));
    for group in activity_consumers::GROUPS {
        assert!(
            help.contains(group.name) && help.contains(group.about),
            "{help}"
        );
    }
}

#[test]
fn a_verb_without_addresses_says_what_to_type() {
    for verb in [
        &["lag"][..],
        &["status"],
        &["tail", "clicks"],
        &["tail", "alerts"],
        &["verify"],
        &["rewind", "analytics", "--to", "beginning"],
        &["consume"],
        &["setup"],
        &["view"],
        &["produce", "simulate", "--events", "1"],
        &["quality", "recommendation"],
        &["quality", "fraud"],
        &["fraud", "fit"],
        &["deadletters", "list"],
        &["deadletters", "show", "analytics"],
        &["deadletters", "resubmit", "analytics"],
    ] {
        let (code, _, error) = activity(verb);
        assert_eq!(code, Some(1), "{verb:?}: {error}");
        assert!(error.contains("activity up"), "{verb:?}: {error}");
    }
}

#[test]
fn a_setting_that_does_not_exist_is_refused() {
    let file = scratch("commands").join("wrong.toml");
    std::fs::write(&file, "batch_rows = 5\n").unwrap();
    let (code, _, error) = activity(&["--config", file.to_str().unwrap(), "config"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("batch_rows") && error.contains("activity config"),
        "{error}"
    );
}

#[test]
fn settings_are_listed_for_programs() {
    let (code, settings, _) = activity(&["config", "-o", "json"]);
    assert_eq!(code, Some(0));
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    assert!(
        settings
            .as_array()
            .unwrap()
            .iter()
            .any(|setting| setting["name"] == "batch-rows-max" && setting["value"] == "131072"),
        "{settings}"
    );
}

#[test]
fn a_dry_run_of_set_up_changes_nothing_and_names_all() {
    let (code, plan, _) = activity(&["setup", "--dry-run"]);
    assert_eq!(code, Some(0));
    for expected in [
        "activity.clicks (4 partitions)",
        "activity.recommendation.watches-by-model (1 partitions)",
        "0001_pipeline",
    ] {
        assert!(plan.contains(expected), "{plan}");
    }
}

#[test]
fn lag_is_watched_line_by_line_until_nobody_reads_any_more() {
    in_world("watched", 1, |world| async move {
        let mut watching = world
            .command(&["lag", "analytics", "--watch", "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            let lags: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(lags[0]["group"], "analytics", "{line}");
        }
        drop(lines);
        assert_eq!(watching.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn recommendations_are_measured_beside_popularity() {
    in_world("quality", 1, |world| async move {
        world.simulate_events(30_000, 40).await;
        let _consumer = world.consume(&["recommendation"], &[]);
        world.caught_up(&["recommendation"]).await;
        let output = world
            .command(&["quality", "recommendation", "-o", "json"])
            .output()
            .unwrap();
        let quality: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(quality["events"].as_u64().unwrap() > 100, "{quality}");
        let of_cohorts = |kind: &str| -> u64 {
            let cohorts = quality[kind].as_array().unwrap().iter();
            cohorts
                .map(|cohort| cohort["events"].as_u64().unwrap())
                .sum()
        };
        assert_eq!(of_cohorts("users"), quality["events"], "{quality}");
        assert_eq!(of_cohorts("titles"), quality["events"], "{quality}");
        assert!(quality["hit_novelty"].as_f64().unwrap() > 0.0, "{quality}");
        let shares = [
            "recall_at_20",
            "popularity_recall_at_20",
            "mrr",
            "popularity_mrr",
            "coverage",
            "hit_coverage",
        ];
        for share in shares {
            assert!(
                (0.0..=1.0).contains(&quality[share].as_f64().unwrap()),
                "{quality}"
            );
        }
    });
}

#[test]
fn a_recording_is_replayed_line_by_line_and_a_bad_line_fails_the_run() {
    in_world("replayed", 1, |world| async move {
        let file = scratch("commands").join("otto_clicks.ndjson");
        let line = |n: u32| {
            format!(
                r#"{{"event_id":"otto-{n}","user_id":"u{}","session_id":"s","item_id":"1","page":null,"element":"clicks","device":null,"ip":null,"country":null,"ts":"2022-07-31T22:00:00.025000+00:00"}}"#,
                n % 7
            )
        };
        let lines: Vec<String> = (0..100).map(line).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let replay = ["produce", "replay", file.to_str().unwrap(), "-o", "json"];
        let output = world.command(&replay).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let published: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (
                published["sent"].as_u64(),
                published["acknowledged"].as_u64()
            ),
            (Some(100), Some(100))
        );
        std::fs::write(&file, format!("{}\nnot json\n", line(100))).unwrap();
        assert_eq!(
            world.command(&replay).output().unwrap().status.code(),
            Some(1)
        );
        let _consumer = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        assert_eq!(world.verified(&["analytics"]).await[0].rows["clicks"], 101);
    });
}
