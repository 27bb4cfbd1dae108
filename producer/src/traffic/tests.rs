//! What the model promises, on its first hundred thousand events: bytes, order, rate. Who acts how is tested in `actors`, people's lives in `lives`.

mod actors;
mod lives;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use activity_schemas::{Encoder, EventKind, WatchAction};
use sha2::{Digest, Sha256};

use super::scenario::Scenario;
use super::*;
use crate::encode::{encode, kind};
use crate::source::{received_at, user_id};
use activity_schemas::{Event, codec::FRAMING_BYTES};

const EVENTS: usize = 100_000;

/// Key, headers, and value after the framing, of the first events.
fn fingerprint(traffic: &mut Traffic, events: usize) -> String {
    let encoders = EventKind::ALL.map(|kind| Encoder::new(kind, 1));
    let (mut hash, mut value) = (Sha256::new(), Vec::new());
    for _ in 0..events {
        let outgoing = traffic.next_event();
        let [clicks, watches] = &encoders;
        let encoder = match kind(&outgoing.event) {
            EventKind::Click => clicks,
            EventKind::Watch => watches,
        };
        value.clear();
        encode(encoder, &outgoing.event, &mut value).unwrap();
        hash.update(user_id(&outgoing.event));
        hash.update(outgoing.label.unwrap());
        hash.update(outgoing.attack.unwrap());
        hash.update(&value[FRAMING_BYTES..]);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn world(seed: u64) -> Traffic {
    Traffic::new(seed, TrafficSettings::default())
}

/// What the tests look at, of either kind of event.
struct Seen {
    occurred_at: i64,
    received_at: i64,
    user: String,
    session: String,
}

fn seen(event: &Event<'_>) -> Seen {
    let (occurred_at, session) = match event {
        Event::Click(click) => (click.occurred_at, click.session_id),
        Event::Watch(watch) => (watch.occurred_at, watch.session_id),
    };
    Seen {
        occurred_at,
        received_at: received_at(event),
        user: user_id(event).to_owned(),
        session: session.unwrap().to_owned(),
    }
}

#[test]
fn the_first_hundred_thousand_events_of_a_seed_are_these_bytes() {
    insta::assert_snapshot!(fingerprint(&mut world(42), EVENTS));
}

#[test]
fn a_seed_gives_the_same_bytes_every_time_and_another_seed_others() {
    let first = fingerprint(&mut world(7), 20_000);
    assert_eq!(first, fingerprint(&mut world(7), 20_000));
    assert_ne!(first, fingerprint(&mut world(8), 20_000));
}

/// The ordinary scenario with these changes.
fn settings(scenario: &str) -> TrafficSettings {
    TrafficSettings {
        scenario: Scenario::parse(scenario).unwrap(),
        ..TrafficSettings::default()
    }
}

/// People alone, and nothing goes wrong on the way.
const PLAIN: &str = "
    [actors]
    ad-clicks = 0.0
    item-sweep = 0.0
    click-farm = 0.0
    scripted-clicker = 0.0
    credential-sharing = 0.0
    distributed-bot = 0.0
    replayed-session = 0.0
    slow-crawler = 0.0
    power-user = 0.0
    shared-address = 0.0
    kiosk = 0.0
    test-traffic = 0.0
    [imperfections]
    offline = 0.0
    delayed = 0.0
    duplicates = 0.0
    skewed_clocks = 0.0";

#[test]
fn events_are_received_in_order() {
    let mut traffic = world(1);
    let mut received = 0;
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        assert!(seen.received_at >= received);
        received = seen.received_at;
    }
}

#[test]
fn where_nothing_goes_wrong_a_users_events_are_in_order_and_occur_before_they_are_received() {
    let mut traffic = Traffic::new(1, settings(PLAIN));
    let mut occurred: HashMap<String, i64> = HashMap::new();
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        assert!(seen.occurred_at <= seen.received_at);
        assert!(seen.received_at - seen.occurred_at < 10_000);
        let before = occurred.insert(seen.user, seen.occurred_at).unwrap_or(0);
        assert!(before <= seen.occurred_at);
    }
}

#[test]
fn where_nothing_goes_wrong_a_user_has_one_session_at_a_time() {
    let mut traffic = Traffic::new(2, settings(PLAIN));
    let mut current: HashMap<String, String> = HashMap::new();
    let mut past = BTreeSet::new();
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        assert!(!past.contains(&seen.session));
        let before = current.insert(seen.user, seen.session.clone());
        if let Some(before) = before.filter(|before| *before != seen.session) {
            past.insert(before);
        }
    }
}

#[test]
fn model_time_keeps_the_rate_from_the_first_second_on() {
    for events_per_second in [5.0, 20.0, 400.0] {
        for scenario in ["", "[[phases]]\nfrom = \"0s\"\nrate = 0.3"] {
            let settings = TrafficSettings {
                events_per_second,
                ..settings(scenario)
            };
            let mut traffic = Traffic::new(3, settings.clone());
            for events in 1..=20_000 {
                let received_at = received_at(&traffic.next_event().event);
                if events % 5_000 == 0 {
                    let expected = settings.events_until(received_at);
                    assert!((f64::from(events) / expected - 1.0).abs() < 0.05);
                }
            }
        }
    }
}

#[test]
fn a_single_user_acts_fast_rather_than_twice() {
    let settings = TrafficSettings {
        users: 1,
        ..settings(PLAIN)
    };
    let mut traffic = Traffic::new(3, settings);
    for _ in 0..10_000 {
        assert_eq!(user_id(&traffic.next_event().event), "u000000000");
    }
}

#[test]
fn a_moment_can_be_had_again_without_what_came_before_it() {
    let mut whole = world(9);
    let from_ms = TrafficSettings::default().start_at_ms + 600_000;
    let mut piece = world(9);
    piece.skip_until(from_ms);
    let first = piece.next_event();
    let first = (seen(&first.event).received_at, format!("{first:?}"));
    assert!((from_ms..from_ms + 1_000).contains(&first.0));
    let same = (0..EVENTS).any(|_| {
        let outgoing = whole.next_event();
        received_at(&outgoing.event) >= from_ms && format!("{outgoing:?}") == first.1
    });
    assert!(same);
    assert_eq!(
        fingerprint(&mut whole, 1_000),
        fingerprint(&mut piece, 1_000)
    );
}

#[test]
fn the_traffic_looks_like_this() {
    let mut traffic = world(4);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut users, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..EVENTS {
        let outgoing = traffic.next_event();
        let what = match &outgoing.event {
            Event::Click(click) => format!("click {}", click.element.unwrap()),
            Event::Watch(watch) => format!("watch {}", watch.action.name()),
        };
        let (label, attack) = (outgoing.label.unwrap(), outgoing.attack.unwrap());
        let key = match (label, attack) {
            ("0", "") => what,
            ("0", innocent) => format!("innocent {innocent}"),
            (_, attack) => format!("attack {attack}"),
        };
        *counts.entry(key).or_default() += 1;
        let seen = seen(&outgoing.event);
        users.insert(seen.user);
        sessions.insert(seen.session);
    }
    counts.insert("users".to_owned(), users.len());
    counts.insert("sessions".to_owned(), sessions.len());
    counts.insert("sessions open at the end".to_owned(), traffic.due.len());
    insta::assert_debug_snapshot!(counts);
}

/// Hits among the 20 best of completed titles: (popularity, co-occurrence), titles that the user knows left out.
fn recalls(completed: &[(String, String)]) -> (f64, f64) {
    let mut popularity: BTreeMap<&str, u32> = BTreeMap::new();
    let mut together: HashMap<&str, BTreeMap<&str, u32>> = HashMap::new();
    let mut history: HashMap<&str, Vec<&str>> = HashMap::new();
    let (mut asked, mut popular_hits, mut together_hits) = (0, 0, 0);
    for (index, (user, title)) in completed.iter().enumerate() {
        let known = history.entry(user).or_default();
        if known.contains(&title.as_str()) {
            continue;
        }
        if index > completed.len() / 5 {
            let mut scores: BTreeMap<&str, u32> = BTreeMap::new();
            for other in known.iter().flat_map(|title| &together[title]) {
                *scores.entry(other.0).or_default() += other.1;
            }
            asked += 1;
            popular_hits += usize::from(top(&popularity, known).contains(&title.as_str()));
            together_hits += usize::from(top(&scores, known).contains(&title.as_str()));
        }
        for other in known.iter() {
            *together.entry(other).or_default().entry(title).or_default() += 1;
            *together.entry(title).or_default().entry(other).or_default() += 1;
        }
        together.entry(title).or_default();
        *popularity.entry(title).or_default() += 1;
        known.push(title);
    }
    let share = |hits: usize| hits as f64 / f64::from(asked);
    (share(popular_hits), share(together_hits))
}

fn top<'a>(scores: &BTreeMap<&'a str, u32>, known: &[&str]) -> Vec<&'a str> {
    let mut ranked: Vec<(&str, u32)> = scores
        .iter()
        .map(|(title, score)| (*title, *score))
        .filter(|(title, _)| !known.contains(title))
        .collect();
    ranked.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
    ranked
        .into_iter()
        .take(20)
        .map(|(title, _)| title)
        .collect()
}

#[test]
fn what_was_watched_together_predicts_better_than_popularity() {
    let settings = TrafficSettings {
        users: 400,
        events_per_second: 2.0,
        ..settings(PLAIN)
    };
    let mut traffic = Traffic::new(5, settings);
    let mut completed = Vec::new();
    while completed.len() < 6_000 {
        if let Event::Watch(watch) = traffic.next_event().event
            && watch.action == WatchAction::Complete
        {
            completed.push((watch.user_id.to_owned(), watch.video_id.to_owned()));
        }
    }
    let (popularity, together) = recalls(&completed);
    assert!(
        together > 1.5 * popularity,
        "co-occurrence {together:.3}, popularity {popularity:.3}"
    );
}
