//! What the traffic of each shipped scenario consists of, and how good a recommender could be on it at best:
//! `cargo run --release -p activity-producer --example traffic_facts`.

use std::collections::BTreeMap;

use activity_producer::{
    source::Outgoing,
    traffic::{
        Traffic, TrafficSettings,
        oracle::oracle,
        scenario::{Scenario, shipped_names},
    },
};

const SEED: u64 = 42;
const EVENTS: u64 = 1_000_000;

fn main() {
    for name in shipped_names() {
        let scenario = Scenario::named(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let settings = TrafficSettings {
            scenario,
            ..TrafficSettings::default()
        };
        println!("{name}: {}", settings.scenario.about);
        for (who, events) in counts(Traffic::new(SEED, settings.clone())) {
            println!("  {who}: {:.2} %", 100.0 * events as f64 / EVENTS as f64);
        }
        let best = oracle(Traffic::new(SEED, settings), EVENTS, 0.2);
        println!(
            "  recall@20 at best {:.3} (expected {:.3}), of popularity {:.3}, on {} completed playbacks",
            best.recall_at_20,
            best.expected_recall_at_20,
            best.popularity_recall_at_20,
            best.completed_playbacks
        );
    }
}

/// Events by kind of actor.
fn counts(mut traffic: Traffic) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for _ in 0..EVENTS {
        let Outgoing { label, attack, .. } = traffic.next_event();
        let who = match (label, attack) {
            (Some("1"), Some(attack)) => format!("attack {attack}"),
            (_, Some(innocent)) if !innocent.is_empty() => format!("innocent {innocent}"),
            _ => "people".to_owned(),
        };
        *counts.entry(who).or_default() += 1;
    }
    counts
}
