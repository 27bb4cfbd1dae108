//! People's lives: when they come, from where, who comes back; what arrives late, twice, or in the wrong order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// (received_at, country, user, address) of each event of so many days of a small world.
fn days(scenario: &str, days: i64) -> Vec<(i64, String, String, String)> {
    let settings = TrafficSettings {
        users: 1_000,
        events_per_second: 0.5,
        ..settings(scenario)
    };
    let until_ms = settings.start_at_ms + days * 86_400_000;
    let mut traffic = Traffic::new(21, settings);
    let mut rows = Vec::new();
    loop {
        let outgoing = traffic.next_event();
        let (country, ip) = match &outgoing.event {
            Event::Click(click) => (click.country.unwrap(), click.ip.unwrap()),
            Event::Watch(watch) => (watch.country.unwrap(), watch.ip.unwrap()),
        };
        let (received_at, user) = (received_at(&outgoing.event), user_id(&outgoing.event));
        if received_at >= until_ms {
            return rows;
        }
        rows.push((
            received_at,
            country.to_owned(),
            user.to_owned(),
            ip.to_owned(),
        ));
    }
}

#[test]
fn each_country_is_awake_by_its_own_clock() {
    let rows = days(PLAIN, 7);
    let at_hour = |country: &str, hour_utc: i64| {
        rows.iter()
            .filter(|row| row.1 == country && row.0 / 3_600_000 % 24 == hour_utc)
            .count()
    };
    // Nine in the evening and four at night, in Germany and in Japan.
    assert!(at_hour("DE", 20) > 3 * at_hour("DE", 3));
    assert!(at_hour("JP", 12) > 3 * at_hour("JP", 19));
    assert!(at_hour("JP", 3) > at_hour("JP", 19));
}

#[test]
fn saturdays_are_busier_than_tuesdays() {
    let rows = days(PLAIN, 7);
    // The world begins on a Thursday.
    let on_day = |day: i64| {
        let from_ms = TrafficSettings::default().start_at_ms + day * 86_400_000;
        rows.iter()
            .filter(|row| (from_ms..from_ms + 86_400_000).contains(&row.0))
            .count()
    };
    assert!(on_day(2) * 10 > on_day(5) * 11);
}

#[test]
fn most_users_come_back_and_some_are_new_every_day() {
    let rows = days(PLAIN, 4);
    let mut first_day: BTreeMap<&str, i64> = BTreeMap::new();
    let mut on_last_day = BTreeSet::new();
    let day = |received_at: i64| (received_at - rows[0].0) / 86_400_000;
    for (received_at, _, user, _) in &rows {
        first_day.entry(user).or_insert(day(*received_at));
        if day(*received_at) == 3 {
            on_last_day.insert(user.as_str());
        }
    }
    let new = on_last_day
        .iter()
        .filter(|user| first_day[*user] == 3)
        .count();
    let share = new as f64 / on_last_day.len() as f64;
    assert!((0.02..0.4).contains(&share), "{share}");
}

#[test]
fn many_users_share_a_carriers_gateway_and_a_home_is_one_users() {
    let rows = days(PLAIN, 4);
    let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut addresses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, _, user, ip) in &rows {
        users.entry(ip).or_default().insert(user);
        addresses.entry(user).or_default().insert(ip);
    }
    let behind = |least: usize, most: usize| {
        let fits = |set: &&BTreeSet<&str>| (least..=most).contains(&set.len());
        users.values().filter(fits).count()
    };
    assert!(behind(15, usize::MAX) >= 10);
    assert!(behind(1, 1) > 500);
    let several = addresses.values().filter(|set| set.len() >= 2).count();
    assert!(several * 2 > addresses.len());
}

#[test]
fn some_visits_bounce_and_some_are_long() {
    let mut traffic = Traffic::new(22, settings(PLAIN));
    let mut events: HashMap<String, usize> = HashMap::new();
    for _ in 0..200_000 {
        *events
            .entry(seen(&traffic.next_event().event).session)
            .or_default() += 1;
    }
    let share = |fits: fn(usize) -> bool| {
        events.values().filter(|count| fits(**count)).count() as f64 / events.len() as f64
    };
    assert!((0.15..0.3).contains(&share(|count| count == 1)));
    assert!((0.1..0.5).contains(&share(|count| count > 20)));
}

#[test]
fn taste_decides_what_is_seen_to_its_end() {
    let mut traffic = Traffic::new(23, settings(PLAIN));
    let (mut liked, mut other) = ([0u32; 2], [0u32; 2]);
    for _ in 0..300_000 {
        traffic.next_event();
        let (identity, Fact::Watch(report)) = traffic.latest() else {
            continue;
        };
        let taste = Person::new(23, identity.person).taste;
        let counts = if Catalogue::genre(report.title) == taste.favourite {
            &mut liked
        } else {
            &mut other
        };
        match report.action {
            WatchAction::Complete => counts[0] += 1,
            WatchAction::Stop => counts[1] += 1,
            _ => (),
        }
    }
    let share = |[complete, stop]: [u32; 2]| f64::from(complete) / f64::from(complete + stop);
    assert!(
        share(liked) > 0.65 && share(other) < 0.55,
        "{} {}",
        share(liked),
        share(other)
    );
}

/// The imperfections of the rough network, one at a time.
fn rough(line: &str) -> TrafficSettings {
    settings(&format!(
        "{}\n{line}\n",
        PLAIN.replace(line.split('=').next().unwrap(), "# ")
    ))
}

#[test]
fn duplicates_have_the_same_id_and_say_the_same_in_their_exact_share() {
    let mut traffic = Traffic::new(24, rough("duplicates = 0.02"));
    let mut first: HashMap<String, (i64, i64, String)> = HashMap::new();
    let mut doubled = 0;
    for _ in 0..EVENTS {
        let outgoing = traffic.next_event();
        let (seen, id) = (seen(&outgoing.event), event_id(&outgoing.event).to_owned());
        if let Some((occurred_at, received_at, session)) = first.get(&id) {
            doubled += 1;
            assert_eq!((occurred_at, session), (&seen.occurred_at, &seen.session));
            assert!(seen.received_at > *received_at);
        }
        first.insert(id, (seen.occurred_at, seen.received_at, seen.session));
    }
    assert!((1_800..2_200).contains(&doubled), "{doubled}");
}

fn event_id<'a>(event: &Event<'a>) -> &'a str {
    match event {
        Event::Click(click) => click.event_id,
        Event::Watch(watch) => watch.event_id,
    }
}

#[test]
fn a_phone_that_was_offline_tells_old_events_in_a_burst() {
    let mut traffic = Traffic::new(25, rough("offline = 0.02"));
    let mut bursts: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        if seen.received_at - seen.occurred_at > 60_000 {
            bursts
                .entry(seen.session)
                .or_default()
                .push((seen.occurred_at, seen.received_at));
        }
    }
    let late: usize = bursts.values().map(Vec::len).sum();
    assert!((EVENTS / 200..EVENTS / 10).contains(&late), "{late}");
    let long = bursts.values().filter(|burst| {
        let (first, last) = (burst[0], burst[burst.len() - 1]);
        burst.len() >= 4 && last.0 - first.0 > 30_000 && last.1 - first.1 < 10_000
    });
    assert!(long.count() > 20);
}

#[test]
fn a_share_of_events_is_overtaken_by_later_ones_of_their_session() {
    let mut traffic = Traffic::new(26, rough("delayed = 0.02"));
    let mut latest: HashMap<String, i64> = HashMap::new();
    let mut overtaken = 0;
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        let before = latest.entry(seen.session).or_insert(i64::MIN);
        overtaken += usize::from(seen.occurred_at < *before);
        *before = seen.occurred_at.max(*before);
    }
    assert!((300..2_000).contains(&overtaken), "{overtaken}");
}

#[test]
fn a_wrong_clock_is_off_by_the_same_for_the_whole_session() {
    let mut traffic = Traffic::new(27, rough("skewed_clocks = 0.5"));
    let mut ahead = 0;
    let mut off: HashMap<String, (i64, i64)> = HashMap::new();
    for _ in 0..EVENTS {
        let seen = seen(&traffic.next_event().event);
        let by_ms = seen.received_at - seen.occurred_at;
        ahead += usize::from(by_ms < 0);
        let range = off.entry(seen.session).or_insert((by_ms, by_ms));
        *range = (range.0.min(by_ms), range.1.max(by_ms));
    }
    assert!((EVENTS / 10..EVENTS / 3).contains(&ahead), "{ahead}");
    assert!(off.values().all(|range| range.1 - range.0 < 10_000));
}
