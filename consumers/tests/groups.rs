//! What the delivery promise asks of every group, on random traffic: the same events give the same rows; an instance that took over from a snapshot goes on as
//! its predecessor would have; where a batch ends changes nothing; a rejected event leaves no trace; no table has a column of a name that is taken.

#![allow(clippy::expect_used, reason = "helpers of tests")]

#[path = "support/migrated.rs"]
mod migrated;
mod support;

use std::collections::HashSet;

use activity_consumers::{GROUPS, Group, NoHeaders, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event, WATCHES, WatchAction, WatchEvent};
use proptest::prelude::*;
use uuid::Uuid;

/// One event in few numbers.
#[derive(Clone, Debug)]
struct Sketch {
    id: u128,
    watch: bool,
    user: u8,
    item: u8,
    action: WatchAction,
    playback: Option<u8>,
    gap_ms: u32,
    valid: bool,
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let action = prop_oneof![
        1 => Just(WatchAction::Start),
        1 => Just(WatchAction::Heartbeat),
        1 => Just(WatchAction::Stop),
        3 => Just(WatchAction::Complete),
    ];
    let sketch = (
        any::<u128>(),
        any::<bool>(),
        0_u8..6,
        0_u8..30,
        action,
        prop::option::of(0_u8..4),
        prop_oneof![Just(1000_u32), 0_u32..100_000, 0_u32..10_000_000],
        prop::bool::weighted(0.95),
    );
    let sketch =
        sketch.prop_map(
            |(id, watch, user, item, action, playback, gap_ms, valid)| Sketch {
                id,
                watch,
                user,
                item,
                action,
                playback,
                gap_ms,
                valid,
            },
        );
    prop::collection::vec(sketch, 1..150)
}

/// So small that users are forgotten and lists are full.
fn settings() -> Settings {
    Settings {
        actors_max: 4,
        list_items_max: 5,
        ..Settings::default()
    }
}

struct Run {
    rows: Vec<(&'static str, String)>,
    rejects: Vec<String>,
    snapshots: Vec<Vec<u8>>,
}

/// Feeds the events; batches end, and instances die, after the events that are named.
fn run(
    group: &'static Group,
    sketches: &[Sketch],
    ends: &HashSet<usize>,
    deaths: &HashSet<usize>,
) -> Run {
    let mut bench = support::Bench::new(group, settings());
    bench.assign(0);
    let mut at_ms = 1_763_812_800_000;
    for (index, sketch) in sketches.iter().enumerate() {
        at_ms += i64::from(sketch.gap_ms);
        let event_id = match sketch.valid {
            true => Uuid::from_u128(sketch.id).to_string(),
            false => "no uuid".to_owned(),
        };
        let user_id = format!("user-{}", sketch.user);
        let item = format!("item-{}", sketch.item);
        let playback = sketch
            .playback
            .map(|playback| format!("playback-{playback}-{item}"));
        let (topic, event) = if sketch.watch {
            let watch = WatchEvent {
                event_id: &event_id,
                occurred_at: at_ms,
                received_at: at_ms,
                user_id: &user_id,
                video_id: &item,
                playback_id: playback.as_deref(),
                action: sketch.action,
                ..WatchEvent::default()
            };
            (WATCHES, Event::Watch(watch))
        } else {
            let click = ClickEvent {
                event_id: &event_id,
                occurred_at: at_ms,
                received_at: at_ms,
                user_id: &user_id,
                item_id: Some(&item),
                page: playback.as_deref(),
                ..ClickEvent::default()
            };
            (CLICKS, Event::Click(click))
        };
        bench.feed(topic, 0, event, &NoHeaders, at_ms);
        if ends.contains(&index) || deaths.contains(&index) {
            bench.flush();
        }
        if deaths.contains(&index) {
            bench.replace_instances();
        }
    }
    bench.flush();
    bench.rows.sort();
    Run {
        snapshots: bench.snapshots(),
        rows: bench.rows,
        rejects: bench.rejects,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_instance_that_took_over_from_a_snapshot_goes_on_as_its_predecessor_would_have(
        sketches in sketches(),
        deaths in prop::collection::hash_set(0_usize..150, 1..5),
        ends in prop::collection::hash_set(0_usize..150, 0..20),
    ) {
        for group in GROUPS {
            let whole = run(group, &sketches, &HashSet::new(), &HashSet::new());
            let again = run(group, &sketches, &ends, &deaths);
            prop_assert_eq!(&whole.rows, &again.rows, "{} writes other rows", group.name);
            prop_assert_eq!(&whole.rejects, &again.rejects);
            prop_assert!(whole.snapshots == again.snapshots, "{} has another state", group.name);
        }
    }

    #[test]
    fn a_rejected_event_leaves_no_trace(mut sketches in sketches()) {
        // An event that is not taken passes no time and counts for nobody: take the gaps out, so that the others' times stay as they are.
        for sketch in &mut sketches {
            sketch.gap_ms = 0;
        }
        let valid: Vec<Sketch> = sketches.iter().filter(|sketch| sketch.valid).cloned().collect();
        for group in GROUPS {
            let with = run(group, &sketches, &HashSet::new(), &HashSet::new());
            let without = run(group, &valid, &HashSet::new(), &HashSet::new());
            prop_assert_eq!(with.rows.len(), without.rows.len());
            prop_assert!(with.snapshots == without.snapshots, "{} keeps a trace", group.name);
        }
    }
}

#[test]
fn bytes_that_are_no_snapshot_are_refused() {
    for group in GROUPS.iter().filter(|group| group.state_version > 0) {
        for topic in group.reads {
            let mut bytes = Vec::new();
            group.instance(&settings(), *topic).snapshot(&mut bytes);
            bytes.push(0);
            let mut instance = group.instance(&settings(), *topic);
            assert!(
                instance.restore(&bytes).is_err(),
                "{group:?}: trailing bytes"
            );
            assert!(instance.restore(&[0xff; 40]).is_err(), "{group:?}: garbage");
        }
    }
}

#[test]
fn no_table_has_two_columns_of_one_name_or_two_groups() {
    let mut tables = HashSet::new();
    for table in GROUPS.iter().flat_map(|group| group.tables) {
        assert!(tables.insert(table.name), "{} is written twice", table.name);
        let mut names = HashSet::new();
        for column in table.columns {
            assert!(names.insert(column.name) && !column.name.starts_with('_'));
        }
    }
}

#[test]
fn every_table_has_a_migration_that_knows_and_explains_its_columns_and_keeps_the_delivery_promise()
{
    let migrations = activity_schemas::migrations::all().expect("migrations are well named");
    let statements: Vec<String> = migrations
        .iter()
        .flat_map(|migration| migration.statements("activity"))
        .collect();
    for table in GROUPS.iter().flat_map(|group| group.tables) {
        migrated::check(table, &statements);
    }
}
