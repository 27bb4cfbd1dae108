//! Attackers and look-alikes: each does what it is called for, in its share, and none is told by a field alone.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// One click or watch, as any group sees it, and the truth.
#[derive(Clone, Debug, Default)]
struct Act {
    attack: String,
    label: String,
    at_ms: i64,
    user: String,
    session: String,
    device: String,
    ip: String,
    country: String,
    user_agent: Option<String>,
    page: String,
    element: String,
    item: Option<String>,
    is_watch: bool,
}

fn act(outgoing: &Outgoing<'_>) -> Act {
    let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
    let truth = Act {
        attack: text(outgoing.attack),
        label: text(outgoing.label),
        ..Act::default()
    };
    match &outgoing.event {
        Event::Click(click) => Act {
            at_ms: click.occurred_at,
            user: click.user_id.to_owned(),
            session: text(click.session_id),
            device: text(click.device_id),
            ip: text(click.ip),
            country: text(click.country),
            user_agent: click.user_agent.map(str::to_owned),
            page: text(click.page),
            element: text(click.element),
            item: click.item_id.map(str::to_owned),
            ..truth
        },
        Event::Watch(watch) => Act {
            at_ms: watch.occurred_at,
            user: watch.user_id.to_owned(),
            session: text(watch.session_id),
            device: text(watch.device_id),
            ip: text(watch.ip),
            country: text(watch.country),
            item: Some(watch.video_id.to_owned()),
            is_watch: true,
            ..truth
        },
    }
}

/// Some hours of a world of 40 events per second, with no network trouble.
fn acts(scenario: &str, events: usize) -> Vec<Act> {
    let quiet =
        "[imperfections]\noffline = 0.0\ndelayed = 0.0\nduplicates = 0.0\nskewed_clocks = 0.0\n";
    let settings = TrafficSettings {
        users: 10_000,
        events_per_second: 40.0,
        ..settings(&format!("{quiet}{scenario}"))
    };
    let mut traffic = Traffic::new(11, settings);
    (0..events).map(|_| act(&traffic.next_event())).collect()
}

fn of<'a>(acts: &'a [Act], attack: &str) -> Vec<&'a Act> {
    acts.iter().filter(|act| act.attack == attack).collect()
}

fn distinct(acts: &[&Act], field: fn(&Act) -> &str) -> usize {
    acts.iter()
        .map(|act| field(act))
        .collect::<BTreeSet<_>>()
        .len()
}

fn by_session<'a>(acts: &[&'a Act]) -> Vec<Vec<&'a Act>> {
    let mut sessions: BTreeMap<&str, Vec<&Act>> = BTreeMap::new();
    for act in acts {
        sessions.entry(&act.session).or_default().push(act);
    }
    sessions.into_values().collect()
}

/// Times between the clicks of a session, milliseconds, in order of size.
fn gaps(acts: &[&Act]) -> Vec<i64> {
    let mut gaps: Vec<i64> = by_session(acts)
        .iter()
        .flat_map(|session| session.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms))
        .collect();
    gaps.sort_unstable();
    gaps
}

#[test]
fn each_role_has_the_share_of_the_events_that_the_scenario_says() {
    let acts = acts("", 600_000);
    let scenario = Scenario::default();
    for (habits, per_million) in cast::CAST.iter().zip(scenario.actors_per_million) {
        let events = of(&acts, habits.name).len() as f64;
        let share = events / 0.6 / f64::from(per_million);
        assert!((0.8..1.2).contains(&share), "{}: {share:.3}", habits.name);
    }
}

#[test]
fn attacks_have_label_one_and_everybody_else_has_label_zero() {
    let attacks = [
        "ad-clicks",
        "item-sweep",
        "click-farm",
        "scripted-clicker",
        "credential-sharing",
        "distributed-bot",
        "replayed-session",
        "slow-crawler",
    ];
    for act in acts("", 200_000) {
        assert_eq!(act.label == "1", attacks.contains(&act.attack.as_str()));
    }
}

#[test]
fn an_attack_of_ten_times_the_usual_has_ten_times_the_share() {
    let scenario = "[[phases]]\nfrom = \"0s\"\nrate = 1.0\nattacks = 10.0";
    let acts = acts(scenario, 300_000);
    let attacks = acts.iter().filter(|act| act.label == "1").count() as f64 / 300_000.0;
    assert!((0.5..0.7).contains(&attacks), "{attacks}");
}

#[test]
fn no_field_alone_tells_an_attacker() {
    let acts = acts("", 250_000);
    let (bad, good): (Vec<&Act>, Vec<&Act>) = acts.iter().partition(|act| act.label == "1");
    let kinds: [fn(&Act) -> String; 4] = [
        |act| act.user_agent.clone().unwrap_or_default(),
        |act| act.country.clone(),
        |act| act.ip.split('.').next().unwrap().to_owned(),
        |act| act.element.clone(),
    ];
    for kind in kinds {
        let of_good: BTreeSet<String> = good.iter().map(|act| kind(act)).collect();
        for act in &bad {
            assert!(of_good.contains(&kind(act)), "{act:?}");
        }
    }
    // Ids look alike: length, letters, and no digit at any place that is theirs alone.
    for place in 1..10 {
        let digits = |acts: &[&Act]| -> BTreeSet<char> {
            acts.iter()
                .map(|act| act.user.chars().nth(place).unwrap())
                .collect()
        };
        assert_eq!(digits(&good).len(), 10);
        assert_eq!(digits(&bad).len(), 10);
    }
    assert!(
        bad.iter()
            .all(|act| act.user.len() == 10 && act.device.len() == 17)
    );
    assert!(distinct(&bad, |act| act.user_agent.as_deref().unwrap_or_default()) >= 8);
}

#[test]
fn a_click_farm_clicks_on_what_is_promoted_with_many_accounts_on_few_devices() {
    let acts = acts("", 250_000);
    let farm = of(&acts, "click-farm");
    assert!(distinct(&farm, |act| &act.user) > 5 * distinct(&farm, |act| &act.device));
    let paid = farm.iter().filter(|act| act.element == "banner").count();
    assert!(paid * 3 > farm.len());
    // Over a day, each shift has accounts of its own.
    let shifts: BTreeSet<(i64, &str)> = farm
        .iter()
        .map(|act| (act.at_ms / (8 * 3_600_000), act.user.as_str()))
        .collect();
    assert_eq!(shifts.len(), distinct(&farm, |act| &act.user));
}

#[test]
fn a_scripted_clicker_pauses_like_a_person_and_a_timer_does_not() {
    let acts = acts("", 250_000);
    let spread = |attack| {
        let gaps = gaps(&of(&acts, attack));
        gaps[gaps.len() * 9 / 10] as f64 / gaps[gaps.len() / 10].max(1) as f64
    };
    assert!(spread("scripted-clicker") > 3.0);
    let one_timer = by_session(&of(&acts, "ad-clicks")).swap_remove(0);
    let gaps = gaps(&one_timer);
    assert!(gaps[gaps.len() * 9 / 10] < gaps[gaps.len() / 10] * 11 / 10);
}

#[test]
fn a_shared_account_is_watched_in_several_countries_within_minutes() {
    let acts = acts("", 250_000);
    let shared = of(&acts, "credential-sharing");
    let mut countries: BTreeMap<(&str, i64), BTreeSet<&str>> = BTreeMap::new();
    for act in &shared {
        let window = (act.user.as_str(), act.at_ms / 600_000);
        countries.entry(window).or_default().insert(&act.country);
    }
    let several = countries.values().filter(|set| set.len() >= 3).count();
    assert!(
        several * 3 > countries.len(),
        "{several} of {}",
        countries.len()
    );
    let watches = shared.iter().filter(|act| act.is_watch).count();
    assert!(watches * 2 > shared.len());
}

#[test]
fn a_distributed_bot_has_hundreds_of_addresses_with_little_traffic_and_few_targets() {
    let acts = acts("", 250_000);
    let bot = of(&acts, "distributed-bot");
    let addresses = distinct(&bot, |act| &act.ip);
    assert!(addresses > 200, "{addresses}");
    assert!(bot.len() / addresses < 20);
    assert!(distinct(&bot, |act| act.item.as_deref().unwrap_or_default()) < 20);
}

#[test]
fn a_replayed_session_is_the_same_again_and_again() {
    let acts = acts("", 300_000);
    let mut recordings: BTreeMap<String, usize> = BTreeMap::new();
    let sessions = by_session(&of(&acts, "replayed-session"));
    for session in &sessions {
        let first_ms = session[0].at_ms;
        let steps: Vec<String> = session
            .iter()
            .take(6)
            .map(|act| {
                format!(
                    "{} {} {:?} {}",
                    act.page,
                    act.element,
                    act.item,
                    act.at_ms - first_ms
                )
            })
            .collect();
        *recordings.entry(steps.join("; ")).or_default() += 1;
    }
    let most = recordings.values().max().unwrap();
    assert!(most * 4 > sessions.len(), "{most} of {}", sessions.len());
}

#[test]
fn a_slow_crawler_opens_one_item_after_the_other_with_long_gaps_for_hours() {
    let acts = acts("", 600_000);
    let crawler = of(&acts, "slow-crawler");
    let gaps = gaps(&crawler);
    assert!(gaps[gaps.len() / 2] > 30_000);
    for session in by_session(&crawler) {
        assert_eq!(
            distinct(&session, |act| act.item.as_deref().unwrap()),
            session.len()
        );
    }
    let longest = by_session(&crawler)
        .iter()
        .map(|session| session[session.len() - 1].at_ms - session[0].at_ms)
        .max();
    assert!(longest > Some(3_600_000));
}

#[test]
fn the_innocent_look_alikes_look_alike() {
    let acts = acts("", 250_000);
    let power = of(&acts, "power-user");
    let (fast, usual) = (gaps(&power), gaps(&of(&acts, "")));
    assert!(fast[fast.len() / 2] * 2 < usual[usual.len() / 2]);
    let office = of(&acts, "shared-address");
    assert!(distinct(&office, |act| &act.user) > 30 * distinct(&office, |act| &act.ip));
    let kiosk = of(&acts, "kiosk");
    assert!(distinct(&kiosk, |act| &act.user) > 20 * distinct(&kiosk, |act| &act.device));
    let monitor = gaps(&of(&acts, "test-traffic"));
    let (low, high) = (monitor[monitor.len() / 10], monitor[monitor.len() * 9 / 10]);
    assert!(high - low < 3_000, "{low} {high}");
}
