//! `activity up` as a user runs it: the real binary on the real services, ended by itself, by Ctrl-C and by SIGKILL. Each test has folders of its own.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod past;
mod running;
#[path = "../support/mod.rs"]
mod support;
mod up;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use running::Running;
use serde_json::Value;
use support::{groups, place, scratch, signal};
use up::{PATIENCE, Up, within};

/// How long what a killed `up` had started may take to be gone: a killed engine gives back gigabytes first.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(15);
const SERVICES: usize = 4;

#[test]
fn asked_for_events_end_the_run_and_the_next_start_on_the_folder_finds_them() {
    let _place = place();
    let folder = fresh_folder("up_events");
    let mut up = Up::start(&folder, &["--events", "5000", "--seed", "1", "-o", "json"]);
    assert_eq!(up.exit_code_within(PATIENCE), Some(0), "{}", up.tails());
    let printed = fs::read_to_string(&up.stdout).unwrap();
    let reconciliation: Value = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("stdout is not JSON alone ({error}): {printed}"));
    assert_clean(&reconciliation, 5_000);
    let said = fs::read_to_string(&up.stderr).unwrap();
    assert!(said.contains("READY"), "{said}");

    let mut up = Up::start(&folder, &["--no-traffic"]);
    let urls = up.ready();
    assert!(urls[1].ends_with("/play"), "{urls:?}");
    // Dashboards, ClickHouse's page, Prometheus, and each group.
    assert_eq!(urls.len(), 3 + groups(&[]).len(), "{urls:?}");
    for url in &urls {
        assert!(answers(url), "{url}");
    }
    let prometheus = &urls[2];
    up.until("prometheus reads every group", |_| {
        scraped(prometheus) == groups(&[]).len()
    });
    assert_clean(&up.json(&["verify"]), 5_000);
    assert_eq!(lag(&up), 0);

    for arguments in [&["--no-traffic"][..], &["--no-traffic", "--fresh"]] {
        let mut second = Up::start_beside(&folder, "second", arguments);
        assert_eq!(second.exit_code_within(PATIENCE), Some(1));
        let refused = fs::read_to_string(&second.stderr).unwrap();
        let holder = format!("in use by process {}", up.child.id());
        assert!(refused.contains(&holder), "{refused}");
    }
    assert_clean(&up.json(&["verify"]), 5_000);
    up.end_with_ctrl_c();

    let mut up = Up::start(&folder, &["--fresh", "--no-traffic", "--no-prometheus"]);
    let urls = up.ready();
    assert_eq!(urls.len(), 2 + groups(&[]).len(), "{urls:?}");
    assert_clean(&up.json(&["verify"]), 0);
    let ends = up.json(&["lag"]);
    assert!(all(&ends).iter().all(|lag| lag["end"] == 0), "{ends:#}");
    up.end_with_ctrl_c();
}

#[test]
fn two_stacks_started_at_once_run_side_by_side_and_each_has_its_own_data() {
    let _place = place();
    let mut ups =
        ["up_one", "up_other"].map(|name| Up::start(&fresh_folder(name), &["--no-traffic"]));
    let urls = ups.each_mut().map(Up::ready);
    assert!(urls[0].iter().all(|url| !urls[1].contains(url)), "{urls:?}");
    for (up, events) in ups.iter_mut().zip([300, 200]) {
        up.produce(events);
    }
    for (up, events) in ups.iter_mut().zip([300, 200]) {
        up.until("all groups have caught up", |up| lag(up) == 0);
        assert_clean(&up.json(&["verify"]), events);
    }
    // The end of the one is nothing to the other.
    let [mut one, mut other] = ups;
    one.end_with_ctrl_c();
    assert_clean(&other.json(&["verify"]), 200);
    other.end_with_ctrl_c();
}

#[test]
fn a_killed_group_is_started_again_and_a_killed_up_leaves_nobody_behind_and_clean_data() {
    let _place = place();
    let folder = fresh_folder("up_killed");
    let mut up = Up::start(&folder, &["--seed", "2"]);
    up.ready();

    let killed = up.group("analytics").expect("analytics runs");
    signal(killed.id, "KILL");
    // Another program may have its port before it is back; where this comes too late for that, it does no harm.
    let _taken = take(killed.metrics_address());
    up.until("another process runs analytics", |up| {
        up.group("analytics").is_some_and(|group| group != killed)
    });
    let said = fs::read_to_string(&up.stderr).unwrap();
    assert!(said.contains("group analytics ended by itself"), "{said}");
    let before = events(&up.json(&["verify", "analytics"]), "analytics");
    up.until("the new process takes events", |up| {
        events(&up.json(&["verify", "analytics"]), "analytics") > before
    });

    let started = up.descendants();
    assert!(started.len() >= SERVICES + groups(&[]).len(), "{started:?}");
    signal(up.child.id(), "KILL");
    assert_eq!(up.exit_code_within(ORPHANS_PATIENCE), None);
    let all_gone = within(ORPHANS_PATIENCE, || !started.iter().any(Running::is_alive));
    assert!(all_gone, "of {started:?} some live on\n{}", up.tails());

    let mut up = Up::start(&folder, &["--no-traffic"]);
    up.ready();
    up.until("all groups have caught up", |up| lag(up) == 0);
    let verified = up.json(&["verify"]);
    let events = events(&verified, "analytics");
    assert!(events > before, "{verified:#}");
    assert_clean(&verified, events);
    up.end_with_ctrl_c();
}

#[test]
fn a_broker_of_three_that_dies_is_named_and_comes_back_and_the_folder_keeps_its_three() {
    let _place = place();
    let folder = fresh_folder("up_brokers");
    let mut up = Up::start(&folder, &["--brokers", "3", "--no-traffic"]);
    up.ready();
    let killed = up.broker(2).expect("broker 2 runs");
    signal(killed.id, "KILL");
    up.until("another process is broker 2", |up| {
        up.broker(2).is_some_and(|broker| broker != killed)
    });
    let said = fs::read_to_string(&up.stderr).unwrap();
    assert!(said.contains("kafka-2 ended by itself"), "{said}");
    up.produce(500);
    up.until("all groups have caught up", |up| lag(up) == 0);
    assert_clean(&up.json(&["verify"]), 500);
    up.end_with_ctrl_c();

    let mut single = Up::start_beside(&folder, "single", &["--brokers", "1", "--no-traffic"]);
    assert_eq!(single.exit_code_within(PATIENCE), Some(1));
    let refused = fs::read_to_string(&single.stderr).unwrap();
    assert!(
        refused.contains("begun with 3") && refused.contains("--fresh"),
        "{refused}"
    );

    let mut up = Up::start(&folder, &["--no-traffic"]);
    up.ready();
    assert!(up.broker(3).is_some(), "{}", up.tails());
    assert_clean(&up.json(&["verify"]), 500);
    up.end_with_ctrl_c();
}

#[test]
fn a_migration_that_waits_for_a_rewind_leaves_the_services_up_until_that_is_given_up() {
    let _place = place();
    let folder = fresh_folder("up_rewind_first");
    let mut up = Up::start(&folder, &["--no-traffic"]);
    up.ready();
    // As an older build leaves it: a rewind that was killed while it read, and a migration that it did not know.
    for statement in [
        "INSERT INTO activity.rewinds (consumer_group, epoch, version, from_epoch, phase, asked) VALUES ('analytics', 2, 1, 1, 'reading', 'beginning')",
        "ALTER TABLE activity.migrations DELETE WHERE number = (SELECT max(number) FROM activity.migrations) SETTINGS mutations_sync = 1",
    ] {
        up.execute(statement);
    }
    up.end_with_ctrl_c();

    let mut up = Up::start(&folder, &["--no-traffic"]);
    let says_so = |up: &mut Up| {
        let said = fs::read_to_string(&up.stderr).unwrap();
        said.contains("waits for an unfinished rewind of analytics")
            && said.contains("activity rewind analytics --abort")
    };
    up.until("it names the way on", says_so);
    let given_up = up.json(&["rewind", "analytics", "--abort"]);
    assert_eq!(given_up["rewound"]["phase"], "aborted", "{given_up:#}");
    up.ready();
    assert_clean(&up.json(&["verify"]), 0);
    up.end_with_ctrl_c();
}

/// Listens on a port that becomes free in this moment, if it does.
fn take(address: &str) -> Option<TcpListener> {
    let began = Instant::now();
    std::iter::repeat_with(|| TcpListener::bind(address).ok())
        .take_while(|_| began.elapsed() < Duration::from_millis(150))
        .find_map(|listener| listener)
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = scratch(name);
    fs::remove_dir_all(&folder).unwrap();
    folder
}

fn answers(url: &str) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = runtime.block_on(client.get(url).send());
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// How many processes the Prometheus at this address reads with success.
fn scraped(prometheus: &str) -> usize {
    let url = format!("{prometheus}/api/v1/targets");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = runtime.block_on(async { client.get(url).send().await.unwrap().text().await });
    answer.unwrap().matches(r#""health":"up""#).count()
}

fn all(list: &Value) -> &[Value] {
    list.as_array().unwrap()
}

fn lag(up: &Up) -> i64 {
    all(&up.json(&["lag"]))
        .iter()
        .map(|lag| lag["lag"].as_i64().unwrap())
        .sum()
}

fn events(verified: &Value, group: &str) -> u64 {
    let mut reports = all(&verified["groups"]).iter();
    let report = reports.find(|report| report["group"] == group).unwrap();
    report["events"].as_u64().unwrap()
}

/// Every group is in the object and clean; analytics has read `expected` events and made a row of each.
fn assert_clean(verified: &Value, expected: u64) {
    let reports = all(&verified["groups"]);
    assert_eq!(reports.len(), groups(&[]).len(), "{verified:#}");
    for report in reports {
        for problem in ["missing", "duplicate", "dead_letters"] {
            assert_eq!(report[problem], 0, "{problem}: {report:#}");
        }
    }
    assert_eq!(events(verified, "analytics"), expected, "{verified:#}");
    let analytics = reports
        .iter()
        .find(|report| report["group"] == "analytics")
        .unwrap();
    let rows = analytics["rows"].as_object().unwrap().values();
    assert_eq!(
        rows.map(|rows| rows.as_u64().unwrap()).sum::<u64>(),
        expected,
        "{analytics:#}"
    );
}
