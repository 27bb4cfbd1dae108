//! The panels on the real engine: every query of every dashboard answers, from our own tables only, with units where there are numbers; and `activity query`.

use std::collections::BTreeSet;
use std::process::Output;

use activity_consumers::GROUPS;
use activity_consumers::groups::fraud::ALERT_SCORE;
use activity_producer::SimulateArgs;
use activity_viewer::{Asking, Reader, named_queries};
use serde_json::Value;

use crate::in_world;
use crate::support::World;

/// Traffic of half a day, through all groups.
async fn populate(world: &World) -> Asking {
    let begin: jiff::Timestamp = "2026-01-05T06:00:00Z".parse().unwrap();
    world
        .simulate(SimulateArgs {
            events: Some(12_000),
            seed: Some(61),
            users: Some(60),
            start_at: Some(begin.to_string().parse().unwrap()),
            ..SimulateArgs::default()
        })
        .await;
    let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    let _consumers: Vec<_> = names
        .iter()
        .map(|name| world.consume(&[name], &[]))
        .collect();
    world.caught_up(&names).await;
    let from_ms = begin.as_millisecond();
    Asking {
        from_ms: Some(from_ms),
        to_ms: Some(from_ms + 24 * 3_600_000),
        values: Vec::new(),
    }
}

/// The tables and table functions that a query reads, as the engine understands it.
async fn sources(reader: &Reader, sql: &str) -> BTreeSet<String> {
    let tree = reader.json(&format!("EXPLAIN QUERY TREE {sql}")).await;
    let tree: Value = serde_json::from_slice(&tree.unwrap()).unwrap();
    let named = |row: &Value| {
        let line = row[0].as_str()?;
        let (_, rest) = line
            .split_once("table_name: ")
            .or_else(|| line.split_once("table_function_name: "))?;
        Some(rest.split([',', ' ']).next()?.to_owned())
    };
    let rows = tree["data"].as_array().unwrap();
    rows.iter().filter_map(named).collect()
}

#[test]
fn every_panel_answers_from_our_own_tables_and_every_number_in_a_table_has_a_unit() {
    in_world("panels", 2, |world| async move {
        let of_data = populate(&world).await;
        let reader = Reader::new(world.database());
        let mut empty = Vec::new();
        for query in named_queries().unwrap() {
            // The ledger's clock is now; what people did was in January.
            let asking = match query.name.starts_with("pipeline/") {
                true => Asking::default(),
                false => of_data.clone(),
            };
            let sql = reader.sql_of(&query, &asking).await.unwrap();
            for source in sources(&reader, &sql).await {
                let is_ours = source.starts_with(&format!("{}.", world.name));
                assert!(
                    is_ours || source.starts_with("_subquery"),
                    "{} reads {source}",
                    query.name
                );
            }
            let answer = reader.json(&sql).await;
            let answer: Value = serde_json::from_slice(
                &answer.unwrap_or_else(|error| panic!("{}: {error}", query.name)),
            )
            .unwrap();
            if answer["rows"] == 0 {
                empty.push(query.name.clone());
            }
            for column in answer["meta"].as_array().unwrap() {
                let r#type = column["type"].as_str().unwrap();
                let is_number = ["Int", "UInt", "Float"]
                    .iter()
                    .any(|number| r#type.trim_start_matches("Nullable(").starts_with(number));
                let name = column["name"].as_str().unwrap();
                assert!(
                    !is_number || query.has_unit(name),
                    "{}: {name} has no unit",
                    query.name
                );
            }
        }
        // Suspicion needs more traffic than this.
        let may_be_empty = |name: &String| {
            [
                "alerts-over-time",
                "top-actors",
                "actor-scores",
                "actor-clicks",
            ]
            .iter()
            .any(|fraud| name.ends_with(fraud))
        };
        empty.retain(|name| !may_be_empty(name));
        assert_eq!(empty, Vec::<String>::new(), "nothing to see");
    });
}

#[test]
fn the_bound_of_scores_in_panels_is_that_of_the_group() {
    let twentieths = format!("twentieth >= {:.0}", ALERT_SCORE * 20.0);
    for query in named_queries().unwrap() {
        for (at, _) in query.raw_sql().match_indices("twentieth >=") {
            assert!(
                query.raw_sql()[at..].starts_with(&twentieths),
                "{}",
                query.name
            );
        }
    }
}

fn run(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = world.command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn activity_query_answers_names_and_sql_and_refuses_what_writes() {
    in_world("query", 1, |world| async move {
        let (code, out, _) = run(&world, &["query", "--list"]);
        assert!(code == Some(0) && out.contains("fraud/top-actors"), "{out}");
        let (code, out, _) = run(
            &world,
            &["query", "SELECT 6 * 7 AS answer, 'x' AS word", "-o", "json"],
        );
        let rows: Value = serde_json::from_str(&out).unwrap();
        assert!(
            code == Some(0) && rows == serde_json::json!([{ "answer": 42, "word": "x" }]),
            "{out}"
        );
        let (code, out, _) = run(
            &world,
            &[
                "query",
                "recommendations/user-history",
                "--var",
                "user=o'brien",
                "--sql",
            ],
        );
        assert!(code == Some(0) && out.contains(r"'o\'brien'"), "{out}");
        for (arguments, advice) in [
            (
                &["query", "fraud/top-actor"][..],
                "there is fraud/top-actors",
            ),
            (
                &["query", "fraud/top-actors", "--var", "user=x"],
                "has no variable user",
            ),
            (&["query", "SELECT usr FROM clicks"], "DESCRIBE TABLE"),
            (&["query", "SELECT 1 FROM nowhere"], "SHOW TABLES"),
            (
                &["query", "INSERT INTO truth (attack) VALUES ('x')"],
                "only reads",
            ),
            (&["query", "DROP TABLE truth"], "only reads"),
        ] {
            let (code, out, error) = run(&world, arguments);
            assert!(code == Some(1) && out.is_empty(), "{arguments:?}: {out}");
            assert!(
                error.contains(advice) && error.len() < 600,
                "{arguments:?}: {error}"
            );
        }
        assert_eq!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.truth")
                .await,
            0
        );
    });
}
