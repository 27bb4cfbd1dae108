//! One user is deleted from the real tables: nothing of the user is left in them, everybody else's rows are as they were, and every event still has its rows.

use serde::Deserialize;
use serde_json::Value;

use crate::in_world;
use crate::support::World;

const GROUPS: &[&str] = &["analytics", "recommendation", "fraud"];
const TABLES: &[&str] = &[
    "clicks",
    "watches",
    "recommendations",
    "recommendation_outcomes",
    "recommendation_completions",
    "fraud_scores",
    "session_rollup",
    "playback_rollup",
];

#[derive(Deserialize)]
struct Somebody {
    user_id: String,
}

fn forget(world: &World, user: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    let verb = [&["forget", user, "-o", "json"][..], more].concat();
    let output = world.command(&verb).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), json, said)
}

async fn rows_of(world: &World, table: &str, user: &str) -> i64 {
    let sql = format!(
        "SELECT toInt64(count()) AS number FROM {{database}}.{table} WHERE user_id = '{user}'"
    );
    world.number(&sql).await
}

/// What tables have of everybody else, as a number that any change would change.
async fn others(world: &World, table: &str, user: &str) -> i64 {
    let sql = format!(
        "SELECT toInt64(sum(cityHash64(toString(tuple(*)))) % 1000000007) AS number FROM {{database}}.{table} WHERE user_id != '{user}' AND NOT startsWith(user_id, 'forgotten-')"
    );
    world.number(&sql).await
}

#[test]
fn a_user_is_deleted_from_every_table_and_every_event_keeps_its_rows() {
    in_world("forget", 2, |world| async move {
        world.simulate_events(20_000, 11).await;
        let consumer = world.consume(GROUPS, &[]);
        world.caught_up(GROUPS).await;
        world.verified(GROUPS).await;
        let sql = "SELECT user_id FROM {database}.recommendation_completions WHERE user_id IN (SELECT user_id FROM {database}.clicks WHERE ip IS NOT NULL GROUP BY user_id HAVING count() > 1) GROUP BY user_id ORDER BY count() DESC, user_id LIMIT 1";
        let busiest: Vec<Somebody> = world.database().rows(sql).await.unwrap();
        let user = &busiest[0].user_id;
        let (clicks, before) = (
            rows_of(&world, "clicks", user).await,
            others(&world, "clicks", user).await,
        );
        let visitors = "SELECT toInt64(uniqExact(user_id)) AS number FROM {database}.clicks";
        let (all, visitors_before) = (
            "SELECT toInt64(count()) AS number FROM {database}.clicks",
            world.number(visitors).await,
        );
        let all_before = world.number(all).await;

        let (code, shown, _) = forget(&world, user, &["--dry-run"]);
        assert_eq!(code, Some(0));
        let of_clicks = shown
            .as_array()
            .unwrap()
            .iter()
            .find(|kept| kept["table"] == "clicks");
        assert_eq!(of_clicks.unwrap()["rows"], clicks, "{shown}");
        let (code, _, said) = forget(&world, user, &[]);
        assert!(code == Some(1) && said.contains("--yes"), "{said}");
        assert_eq!(rows_of(&world, "clicks", user).await, clicks);

        // As an interrupted run leaves it: a copy that its row was not deleted for.
        let half = format!(
            "INSERT INTO {{database}}.clicks SELECT * REPLACE ('forgotten-half' AS user_id, NULL AS ip, NULL AS device_id, NULL AS session_id, NULL AS user_agent) FROM (SELECT * FROM {{database}}.clicks WHERE user_id = '{user}' ORDER BY _offset LIMIT 1) SETTINGS deduplicate_insert = 'disable'"
        );
        world.database().execute(&half).await.unwrap();
        assert_eq!(world.number(all).await, all_before + 1);
        let (code, deleted, said) = forget(&world, user, &["--yes"]);
        assert_eq!((code, deleted), (Some(0), shown), "{said}");

        for table in TABLES {
            assert_eq!(rows_of(&world, table, user).await, 0, "{table}");
        }
        let alerts = format!(
            "SELECT toInt64(count()) AS number FROM {{database}}.fraud_alerts WHERE actor = '{user}'"
        );
        assert_eq!(world.number(&alerts).await, 0);
        assert_eq!(others(&world, "clicks", user).await, before);
        assert_eq!(world.number(all).await, all_before);
        let traces = "SELECT toInt64(count()) AS number FROM {database}.clicks WHERE startsWith(user_id, 'forgotten-') AND (ip IS NOT NULL OR device_id IS NOT NULL OR session_id IS NOT NULL OR user_agent IS NOT NULL)";
        assert_eq!(world.number(traces).await, 0);
        // One more, for the row whose copy was there: that had another name.
        assert_eq!(world.number(visitors).await, visitors_before + 1);
        world.verified(GROUPS).await;

        let (code, again, _) = forget(&world, user, &["--yes"]);
        assert_eq!((code, again), (Some(0), Value::Array(Vec::new())));
        // The groups go on.
        world.simulate_events(2_000, 12).await;
        world.caught_up(GROUPS).await;
        world.verified(GROUPS).await;
        drop(consumer);
    });
}
