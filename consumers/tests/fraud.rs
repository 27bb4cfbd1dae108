//! The chain of the group fraud as a whole, without Kafka: who is convicted and who is not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use activity_consumers::groups::fraud::{SIGNS, Weights};
use activity_consumers::{Model, NoHeaders, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event};
use serde_json::Value;
use uuid::Uuid;

const BEGIN_MS: i64 = 1_763_812_800_123;
const PEOPLE: u64 = 60;

/// A click in few words.
struct Click {
    at_ms: i64,
    user: String,
    device: Option<String>,
    ip: Option<String>,
    page: String,
    item: String,
}

/// Sixty people with thirty clicks each, in gaps as people have them: heavy-tailed, mostly some seconds, now and then minutes.
fn people(ip_of: impl Fn(u64) -> Option<String>) -> Vec<Click> {
    let mut clicks = Vec::new();
    for person in 0..PEOPLE {
        let mut at_ms = BEGIN_MS + person as i64 * 7_919;
        let mut page = "/".to_owned();
        for index in 0..30 {
            let draw = (person * 131 + index * 619 + person * index * 37) % 997;
            at_ms += 400_000 / (1 + draw as i64) + draw as i64 % 13 * 97;
            let item = format!("i{}", draw * draw % 181);
            clicks.push(Click {
                at_ms,
                user: format!("person-{person}"),
                device: Some(format!("device-{person}")),
                ip: ip_of(person),
                page: std::mem::replace(&mut page, format!("/item/{item}")),
                item,
            });
        }
    }
    clicks
}

/// A script that clicks on one advertisement, every one and a half seconds, by several accounts in turn.
fn farm(ip: Option<&str>) -> Vec<Click> {
    (0..300)
        .map(|index| Click {
            at_ms: BEGIN_MS + 60_000 + index * 1_500 + index % 7,
            user: format!("farm-{}", index % 3),
            device: Some("farm".to_owned()),
            ip: ip.map(str::to_owned),
            page: "/".to_owned(),
            item: "promoted".to_owned(),
        })
        .collect()
}

/// Eighty accounts, each on a device and at an address of its own, that click five times each on the three items that they were sent to, as slowly as people.
fn campaign() -> Vec<Click> {
    let mut clicks = Vec::new();
    for account in 0..80 {
        let mut at_ms = BEGIN_MS + 60_000 + account as i64 * 9_000;
        for index in 0..5 {
            // Round in one direction or the other.
            let item = (account + index * (1 + account % 2)) % 3;
            at_ms += 1_500 + ((account * 57 + index * 83) % 97 * 60) as i64;
            clicks.push(Click {
                at_ms,
                user: format!("sent-{account}"),
                device: Some(format!("device-of-sent-{account}")),
                ip: Some(format!("172.16.0.{account}")),
                page: "/".to_owned(),
                item: format!("aim-{item}"),
            });
        }
    }
    clicks
}

/// Every row that the group makes of the clicks, by table, in the order of the clicks.
fn judged(mut clicks: Vec<Click>, settings: &Settings) -> Vec<(&'static str, Value)> {
    clicks.sort_by_key(|click| click.at_ms);
    let mut bench = support::Bench::new(support::group("fraud"), settings.clone());
    for (index, click) in clicks.iter().enumerate() {
        let event = ClickEvent {
            event_id: &Uuid::from_u128(index as u128 + 1).to_string(),
            occurred_at: click.at_ms,
            received_at: click.at_ms,
            user_id: &click.user,
            device_id: click.device.as_deref(),
            ip: click.ip.as_deref(),
            page: Some(&click.page),
            item_id: Some(&click.item),
            ..ClickEvent::default()
        };
        bench.feed(CLICKS, 0, Event::Click(event), &NoHeaders, click.at_ms);
    }
    bench.flush();
    assert!(bench.rejects.is_empty(), "{:?}", bench.rejects);
    let parsed = bench.rows.iter();
    parsed
        .map(|(table, row)| (*table, serde_json::from_str(row).unwrap()))
        .collect()
}

fn scores(rows: &[(&'static str, Value)], of: &str) -> Vec<f64> {
    let of_users = |row: &&(&'static str, Value)| {
        row.0 == "fraud_scores" && row.1["user_id"].as_str().unwrap().starts_with(of)
    };
    let score = |row: &(&'static str, Value)| row.1["score"].as_f64().unwrap();
    rows.iter().filter(of_users).map(score).collect()
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

#[test]
fn a_farm_is_convicted_and_alerted_and_people_are_not() {
    let mut clicks = people(|person| Some(format!("10.0.0.{person}")));
    clicks.extend(farm(Some("193.42.7.1")));
    let rows = judged(clicks, &Settings::default());
    let (farm, people) = (scores(&rows, "farm"), scores(&rows, "person"));
    assert_eq!(
        (farm.len(), people.len()),
        (300, 1_800),
        "one score a click"
    );
    assert!(mean(&farm[150..]) > 0.5, "{}", mean(&farm[150..]));
    assert!(mean(&people) < 0.1, "{}", mean(&people));
    let convicted = people.iter().filter(|score| **score >= 0.5).count();
    assert!(convicted < people.len() / 100, "{convicted}");
    let alerts: Vec<&Value> = rows
        .iter()
        .filter(|row| row.0 == "fraud_alerts")
        .map(|row| &row.1)
        .collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let actor = alert["actor"].as_str().unwrap();
        assert!(
            actor.starts_with("farm") || actor == "193.42.7.1",
            "{alert}"
        );
        assert!(!alert["reasons"].as_array().unwrap().is_empty(), "{alert}");
    }
}

#[test]
fn accounts_that_are_sent_to_the_same_few_items_are_found_though_each_does_little() {
    // A site of several departments, each with people and items of its own.
    let mut clicks = Vec::new();
    for department in 0..5 {
        let of_department = people(|person| Some(format!("10.0.{department}.{person}")));
        clicks.extend(of_department.into_iter().map(|click| Click {
            user: format!("{}-{department}", click.user),
            device: click.device.map(|device| format!("{device}-{department}")),
            item: format!("{department}-{}", click.item),
            ..click
        }));
    }
    clicks.extend(campaign());
    let rows = judged(clicks, &Settings::default());
    let alerted: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.0 == "fraud_alerts" && row.1["kind"] == "user")
        .map(|row| row.1["actor"].as_str().unwrap())
        .collect();
    let sent = alerted.iter().filter(|actor| actor.starts_with("sent-"));
    assert!(sent.count() > 50, "{alerted:?}");
    let innocent = alerted.iter().filter(|actor| actor.starts_with("person-"));
    assert_eq!(innocent.count(), 0, "{alerted:?}");
}

#[test]
fn people_behind_one_address_are_not_convicted_for_being_many() {
    let rows = judged(
        people(|_| Some("100.64.0.1".to_owned())),
        &Settings::default(),
    );
    let people = scores(&rows, "person");
    assert!(mean(&people) < 0.1, "{}", mean(&people));
    assert!(rows.iter().all(|row| row.0 != "fraud_alerts"), "{rows:?}");
}

#[test]
fn a_click_without_address_and_device_is_scored_from_what_there_is() {
    let mut clicks = people(|_| None);
    clicks.extend(farm(None));
    clicks.iter_mut().for_each(|click| click.device = None);
    let rows = judged(clicks, &Settings::default());
    let farm = scores(&rows, "farm");
    assert_eq!(farm.len(), 300);
    assert!(mean(&farm[150..]) > 10.0 * mean(&scores(&rows, "person")));
    let place = SIGNS.iter().position(|sign| sign.name == "address: users");
    for (_, row) in rows.iter().filter(|row| row.0 == "fraud_scores") {
        let features = row["features"].as_array().unwrap();
        assert_eq!(features.len(), SIGNS.len());
        let of_places = &features[place.unwrap()..];
        assert!(
            of_places
                .iter()
                .all(|feature| feature.as_f64() == Some(0.0))
        );
    }
}

#[test]
fn a_click_is_scored_by_the_weights_that_held_when_it_was_appended() {
    let settings = Settings::default();
    let middle_ms = BEGIN_MS + 200_000;
    let weights = Weights {
        bias: 9.0,
        ..Weights::default()
    };
    settings.models.replace(vec![Model {
        version: 7,
        effective_at_ms: middle_ms,
        content: weights.content().into(),
    }]);
    let rows = judged(farm(None), &settings);
    for (_, row) in rows.iter().filter(|row| row.0 == "fraud_scores") {
        let version = row["model_version"].as_u64().unwrap();
        let score = row["score"].as_f64().unwrap();
        assert!(version == 0 || (version == 7 && score > 0.99), "{row}");
    }
    let by_weights = rows
        .iter()
        .filter(|row| row.0 == "fraud_scores" && row.1["model_version"] == 7)
        .count();
    let held = farm(None)
        .iter()
        .filter(|click| click.at_ms >= middle_ms)
        .count();
    assert_eq!(by_weights, held);
}
