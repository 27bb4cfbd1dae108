//! `activity status` on the real stack: well where all is well, and otherwise what is not and what to do.

use activity_producer::SimulateArgs;
use serde_json::Value;

use crate::in_world;
use crate::support::{World, groups};

/// Exit code and what is printed for programs.
fn status(world: &World, more: &[&str]) -> (Option<i32>, Value) {
    let arguments: Vec<&str> = ["status", "-o", "json"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let output = world.command(&arguments).output().unwrap();
    let printed = serde_json::from_slice(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    (
        output.status.code(),
        printed.unwrap_or_else(|_| panic!("{error}")),
    )
}

fn needs(status: &Value) -> Vec<String> {
    let needs = status["needs"].as_array().unwrap().iter();
    needs
        .map(|need| {
            format!(
                "{} | {}",
                need["what"].as_str().unwrap(),
                need["next"].as_str().unwrap()
            )
        })
        .collect()
}

fn group<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut groups = status["groups"].as_array().unwrap().iter();
    groups.find(|group| group["group"] == name).unwrap()
}

#[test]
fn groups_that_nobody_runs_and_letters_that_wait_need_attention_and_then_all_is_well() {
    in_world("status", 2, |world| async move {
        world
            .simulate(SimulateArgs {
                events: Some(2_000),
                seed: Some(3),
                malformed_share: 0.01,
                ..SimulateArgs::default()
            })
            .await;
        let _analytics = world.consume(&["analytics"], &["--metrics", "127.0.0.1:0"]);
        world.caught_up(&["analytics"]).await;
        let (code, told) = status(&world, &[]);
        assert_eq!(code, Some(3), "{told:#}");
        let wanted = needs(&told);
        let has = |text: &str| wanted.iter().any(|need| need.contains(text));
        assert!(
            has("nobody runs truth | activity consume truth"),
            "{wanted:#?}"
        );
        assert!(
            has("| activity deadletters show analytics --reason"),
            "{wanted:#?}"
        );
        assert!(!has("nobody runs analytics"), "{wanted:#?}");

        let analytics = group(&told, "analytics");
        assert_eq!(
            (&analytics["lag"], &analytics["unowned"]),
            (&0.into(), &0.into())
        );
        assert!(
            analytics["events_per_second"].as_f64().unwrap() > 0.0,
            "{told:#}"
        );
        assert!(
            analytics["freshness_ms_p99"].as_f64().unwrap() > 0.0,
            "{told:#}"
        );
        assert_eq!(analytics["rejected"], 20);
        let owner = &analytics["owners"][0];
        assert_eq!(owner["ready"], true, "{told:#}");
        let owned = owner["partitions"].as_array().unwrap();
        assert!(
            ["clicks/0", "clicks/1", "watches/1"]
                .iter()
                .all(|partition| owned.contains(&(*partition).into())),
            "{owner}"
        );
        assert!(group(&told, "truth")["lag"].as_i64().unwrap() > 0);
        for service in told["services"].as_array().unwrap() {
            assert_eq!(service["up"], true, "{service}");
        }
        assert!(
            told["services"][1]["version"].is_string()
                && told["services"][2]["version"].is_string(),
            "{told:#}"
        );
    });
}

#[test]
fn all_is_well_where_every_group_runs() {
    in_world("status_well", 1, |world| async move {
        world.simulate_events(500, 4).await;
        let _all = world.consume(&[], &["--metrics", "127.0.0.1:0"]);
        let names: Vec<&str> = groups(&[]).iter().map(|group| group.name).collect();
        world.caught_up(&names).await;
        world
            .until(|| async { status(&world, &[]).0 == Some(0) })
            .await;
        let screen = world.command(&["status"]).output().unwrap();
        let screen = String::from_utf8(screen.stdout).unwrap();
        assert!(screen.contains("all is well"), "{screen}");
        for name in names {
            assert!(screen.contains(name), "{screen}");
        }
    });
}

#[test]
fn what_does_not_answer_is_told_and_the_rest_all_the_same() {
    in_world("status_down", 1, |world| async move {
        // A port of ours that nobody listens on: it was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let address = format!("http://{free}");
        let (code, told) = status(
            &world,
            &["--clickhouse", &address, "--prometheus", &address],
        );
        assert_eq!(code, Some(3));
        let wanted = needs(&told);
        for service in ["clickhouse", "prometheus"] {
            assert!(
                wanted
                    .iter()
                    .any(|need| need.starts_with(&format!("{service} is down"))),
                "{wanted:#?}"
            );
        }
        assert!(group(&told, "analytics")["lag"].is_i64(), "{told:#}");
        assert!(
            group(&told, "analytics")["events_per_second"].is_null(),
            "{told:#}"
        );
        assert!(told["alerts"].is_null());
    });
}
