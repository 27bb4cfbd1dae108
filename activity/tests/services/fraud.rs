//! The chain of the group fraud on the real services: one score for each click however many partitions, measured against the truth, and fitted to it.

use serde_json::Value;

use crate::in_world;
use crate::support::World;

/// A verb's result.
fn result(world: &World, verb: &[&str]) -> Value {
    let output = world.command(verb).args(["-o", "json"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{verb:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn scored_through_the_chain(world: &World) {
    world.simulate_events(40_000, 71).await;
    let mut consumer = world.consume(&["fraud", "truth", "analytics"], &[]);
    world.caught_up(&["fraud", "truth", "analytics"]).await;
    let reports = world.verified(&["fraud"]).await;
    assert_eq!(reports[0].dead_letters, 0, "{reports:#?}");
    let clicks = "SELECT toInt64(count()) AS number FROM {database}.clicks";
    let scores = "SELECT toInt64(count()) AS number FROM {database}.fraud_scores";
    assert_eq!(world.number(clicks).await, world.number(scores).await);
    // A click that came twice has two scores, and is one event.
    let events = "SELECT toInt64(uniqExact(event_id)) AS number FROM {database}.clicks";
    let scored = "SELECT toInt64(uniqExact(event_id)) AS number FROM {database}.fraud_scores WHERE event_id IN (SELECT event_id FROM {database}.clicks)";
    let events = world.number(events).await;
    assert_eq!(world.number(scored).await, events);
    let quality = result(world, &["quality", "fraud"]);
    assert_eq!(quality["per_event"]["events"], events, "{quality}");
    // Bots that come once, with an address each, click like people: what is asked for here is what does not.
    let auc = quality["per_event"]["auc"].as_f64().unwrap();
    assert!(auc > 0.7, "{quality}");
    let attacks = quality["attacks"].as_array().unwrap();
    for name in ["ad-clicks", "item-sweep"] {
        let attack = attacks.iter().find(|attack| attack["attack"] == name);
        assert_eq!(attack.unwrap()["recall"], 1.0, "{quality}");
    }
    let false_alarms = quality["innocents"]["false_alarms_per_10_000"].as_f64();
    assert!(false_alarms.unwrap() < 20.0, "{quality}");
    let episodes = "SELECT toInt64(count()) AS number FROM {database}.fraud_episodes WHERE kind = 'user' AND clicks > 0";
    let alerted = "SELECT toInt64(uniqExact(actor)) AS number FROM {database}.fraud_alerts WHERE kind = 'user'";
    assert!(world.number(episodes).await >= world.number(alerted).await);
    assert!(consumer.is_running(), "{}", consumer.log());
}

#[test]
fn every_click_has_one_score_with_one_partition() {
    in_world("fraud_one", 1, |world| async move {
        scored_through_the_chain(&world).await;
    });
}

#[test]
fn every_click_has_one_score_with_four_partitions() {
    in_world("fraud_four", 4, |world| async move {
        scored_through_the_chain(&world).await;
    });
}

#[test]
fn weights_that_are_fitted_are_shown_stored_and_then_scored_by() {
    in_world("fraud_fit", 2, |world| async move {
        world.simulate_events(40_000, 72).await;
        let _consumer = world.consume(&["fraud", "truth"], &[]);
        world.caught_up(&["fraud", "truth"]).await;
        let shown = result(&world, &["fraud", "fit", "--dry-run"]);
        assert_eq!(shown["version"], Value::Null, "{shown}");
        let stored = result(&world, &["fraud", "fit", "--from", "beginning"]);
        assert_eq!(stored["version"], 1, "{stored}");
        assert_eq!(shown["weights"], stored["weights"]);
        let by_weights =
            "SELECT toInt64(countIf(model_version = 1)) AS number FROM {database}.fraud_scores";
        world
            .until(|| async {
                world.simulate_events(200, 73).await;
                world.number(by_weights).await > 0
            })
            .await;
        let later = result(&world, &["fraud", "fit"]);
        assert_eq!(later["version"], 2, "{later}");
        world.caught_up(&["fraud"]).await;
        world.verified(&["fraud"]).await;
    });
}
