//! What the views of analytics say is what a plain recomputation over the raw rows says, to the row, although events came late, out of order and twice.

use activity_operator::setup;
use activity_platform::kafka;
use activity_producer::SimulateArgs;
use activity_producer::publish::{Publisher, Run};
use activity_producer::source::{EventSource, Outgoing, SourceError};
use activity_runtime::cycle::now_ms;
use activity_schemas::{ClickEvent, Event, WatchAction, WatchEvent};
use tokio_util::sync::CancellationToken;

use crate::in_world;
use crate::support::World;

const GROUP: &str = "analytics";
const MINUTE_MS: i64 = 60_000;
/// The silence that ends a session.
const GAP_MS: i64 = 30 * MINUTE_MS;
const EVENTS: u64 = 6_000;
const USERS: u64 = 60;
const PAGES: [Option<&str>; 6] = [
    Some("/"),
    Some("/list/drama"),
    Some("/title/t1"),
    Some("/title/t2"),
    Some("/item/i1"),
    None,
];
const COUNTRIES: [Option<&str>; 4] = [Some("NO"), Some("DE"), Some("US"), None];

/// Every event once: what came first of it.
const RAW: &str = "SELECT * FROM (
    SELECT event_id, user_id, occurred_at, 0 AS kind, country, device_id, session_id, page, element, item_id, '' AS video_id, '' AS action, campaign, _appended_at, _offset FROM {database}.clicks
    UNION ALL
    SELECT event_id, user_id, occurred_at, 1 AS kind, country, device_id, session_id, NULL, NULL, NULL, video_id, action, NULL, _appended_at, _offset FROM {database}.watches
) ORDER BY _offset LIMIT 1 BY event_id";

/// Sessions from the raw rows, event by event.
fn plain_sessions() -> String {
    format!(
        "SELECT user_id, min(occurred_at) AS started_at, max(occurred_at) AS ended_at, countIf(kind = 0) AS clicks, countIf(kind = 1) AS watch_events, \
         uniqExact(page) AS pages, uniqExact(item_id) AS items, uniqExactIf(video_id, kind = 1) AS videos, uniqExactIf(video_id, action = 'complete') AS completed, \
         argMin(tuple(country), place).1 AS country, argMin(tuple(device_id), place).1 AS device_id, argMin(tuple(session_id), place).1 AS session_id, \
         argMinIf(tuple(page), place, kind = 0).1 AS entry_page, argMinIf(tuple(campaign), place, kind = 0).1 AS campaign, max(_appended_at) AS last_appended_at, \
         groupArrayIf(occurred_at, ifNull(page LIKE '/title/%', false)) AS titles, groupArrayIf(occurred_at, action = 'start') AS plays, groupArrayIf(occurred_at, action = 'complete') AS ends, \
         groupArrayIf(occurred_at, ifNull(page LIKE '/item/%', false)) AS shelves, groupArrayIf(occurred_at, ifNull(element = 'add-to-cart', false)) AS carts, \
         1 + notEmpty(titles) + arrayExists(t -> arrayExists(p -> p >= t, plays), titles) \
           + arrayExists(t -> arrayExists(p -> p >= t AND arrayExists(e -> e >= p, ends), plays), titles) AS watch_step, \
         1 + notEmpty(shelves) + arrayExists(s -> arrayExists(c -> c >= s, carts), shelves) AS cart_step \
         FROM (SELECT *, sum(begins) OVER (PARTITION BY user_id ORDER BY place) AS visit FROM ( \
           SELECT *, (occurred_at, kind, cityHash64(event_id)) AS place, \
           toUnixTimestamp64Milli(occurred_at) - lagInFrame(toUnixTimestamp64Milli(occurred_at), 1, toUnixTimestamp64Milli(occurred_at)) \
             OVER (PARTITION BY user_id ORDER BY occurred_at, kind, cityHash64(event_id) ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) > {GAP_MS} AS begins \
           FROM ({RAW}))) GROUP BY user_id, visit"
    )
}

const SESSION: &str = "user_id, started_at, ended_at, clicks, watch_events, pages, items, videos, completed, country, device_id, session_id, entry_page, campaign, \
                       last_appended_at, watch_step, cart_step";

/// One event of the test's own traffic, owned.
#[derive(Clone)]
struct Made {
    event_id: String,
    user_id: String,
    occurred_at: i64,
    received_at: i64,
    draw: u64,
    watch: bool,
}

/// A fixed sequence of numbers that look random (SplitMix64).
struct Draws(u64);

impl Draws {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    }
}

/// Traffic that is hard on sessions: silences of exactly the gap and a millisecond more, events that come hours late and join what had been two sessions, some
/// that are sent twice. With how many are.
fn made(seed: u64) -> (Vec<Made>, u64) {
    let mut draws = Draws(seed);
    let mut clocks = vec![now_ms() - 20 * 60 * MINUTE_MS; USERS as usize];
    let mut sent = Vec::new();
    let mut twice = 0;
    for index in 0..EVENTS {
        let user = draws.next(USERS);
        let gap_ms = match draws.next(100) {
            0..5 => GAP_MS,
            5..10 => GAP_MS + 1,
            10..18 => (10 + draws.next(50) as i64) * MINUTE_MS,
            18..20 => 0,
            20..22 => 5 * 60 * MINUTE_MS,
            _ => draws.next(4 * MINUTE_MS as u64) as i64,
        };
        let clock = &mut clocks[user as usize];
        *clock += gap_ms;
        let late = draws.next(20) == 0;
        let event = Made {
            event_id: format!("00000000-0000-4000-8000-{:012x}", (seed << 32) + index),
            user_id: format!("made-{user}"),
            occurred_at: *clock,
            received_at: *clock + if late { 3 * 60 * MINUTE_MS } else { 150 },
            draw: draws.next(u64::MAX),
            watch: draws.next(2) == 0,
        };
        // Held back by as many events of all users.
        let at = index + if late { 200 + draws.next(400) } else { 0 };
        if draws.next(30) == 0 {
            twice += 1;
            sent.push((at + draws.next(300), event.clone()));
        }
        sent.push((at, event));
    }
    sent.sort_by_key(|(at, _)| *at);
    (sent.into_iter().map(|(_, event)| event).collect(), twice)
}

impl Made {
    fn event(&self) -> Event<'_> {
        let pick = |choices: u64, from: u32| (self.draw >> from) % choices;
        let country = COUNTRIES[pick(4, 0) as usize];
        let (device_id, session_id) = (Some("device"), Some(&self.event_id[30..]));
        if self.watch {
            let actions = [
                WatchAction::Start,
                WatchAction::Heartbeat,
                WatchAction::Pause,
                WatchAction::Resume,
                WatchAction::Complete,
            ];
            return Event::Watch(WatchEvent {
                event_id: &self.event_id,
                occurred_at: self.occurred_at,
                received_at: self.received_at,
                user_id: &self.user_id,
                country,
                device_id,
                session_id,
                video_id: ["t1", "t2", "t3"][pick(3, 8) as usize],
                playback_id: (pick(9, 24) > 0).then_some("playback"),
                action: actions[pick(5, 16) as usize],
                position_ms: Some(pick(6_000_000, 32) as i64),
                duration_ms: Some(5_400_000),
                rebuffer_ms: Some(pick(900, 40) as i64),
                ..WatchEvent::default()
            });
        }
        Event::Click(ClickEvent {
            event_id: &self.event_id,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            user_id: &self.user_id,
            country,
            device_id,
            session_id,
            page: PAGES[pick(6, 8) as usize],
            element: (pick(4, 16) == 0).then_some("add-to-cart"),
            item_id: (pick(3, 24) == 0).then_some("i1"),
            campaign: (pick(5, 32) == 0).then_some("autumn"),
            ..ClickEvent::default()
        })
    }
}

struct Source {
    events: std::vec::IntoIter<Made>,
    lent: Option<Made>,
}

impl EventSource for Source {
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>> {
        self.lent = self.events.next();
        self.lent.as_ref().map(|made| {
            Ok(Outgoing {
                event: made.event(),
                label: None,
                attack: None,
            })
        })
    }
}

async fn publish(world: &World, events: Vec<Made>) {
    let schemas = setup::run(&world.targets, 1).await.unwrap().schemas;
    let id = |kind: &str| {
        let schema = schemas.iter().find(|(topic, _)| topic.ends_with(kind));
        schema.unwrap().1
    };
    let config = kafka::producer_config(&world.targets.kafka).unwrap();
    let prefix = &world.targets.kafka.topic_prefix;
    let publisher = Publisher::new(config, prefix, id("clicks"), id("watches")).unwrap();
    let count = events.len() as u64;
    let mut source = Source {
        events: events.into_iter(),
        lent: None,
    };
    let stop = CancellationToken::new();
    let published =
        tokio::task::block_in_place(|| publisher.run(&mut source, &Run::EVERYTHING, &stop, |_| ()));
    assert_eq!(published.unwrap().counts.acknowledged, count);
}

/// A world through which the test's own traffic, and some of the model's, has gone; and how many events were sent twice.
async fn filled(world: &World) -> u64 {
    let (events, twice) = made(7);
    world
        .simulate(SimulateArgs {
            events: Some(4_000),
            seed: Some(7),
            duplicate_share: Some(0.0),
            ..SimulateArgs::default()
        })
        .await;
    publish(world, events).await;
    let _consumer = world.consume(&[GROUP], &["--batch-rows-max", "700"]);
    world.caught_up(&[GROUP]).await;
    world.verified(&[GROUP]).await;
    twice
}

/// Rows that only one of two queries has, or that it has more often.
async fn differences(world: &World, columns: &str, one: &str, other: &str) -> i64 {
    world
        .number(&format!(
            "SELECT toInt64(count()) AS number FROM (SELECT {columns}, sum(sign) AS balance FROM (SELECT {columns}, 1 AS sign FROM ({one}) UNION ALL \
             SELECT {columns}, -1 AS sign FROM ({other})) GROUP BY {columns} HAVING balance != 0)"
        ))
        .await
}

async fn count(world: &World, from: &str) -> i64 {
    let sql = format!("SELECT toInt64(count()) AS number FROM ({from})");
    world.number(&sql).await
}

/// Makes the rollups anew and waits until they are there.
async fn roll_up(world: &World) {
    for view in [
        "session_rollup_refresh",
        "playback_rollup_refresh",
        "page_path_rollup_refresh",
    ] {
        for statement in ["REFRESH", "WAIT"] {
            let sql = format!("SYSTEM {statement} VIEW {{database}}.{view}");
            world.database().execute(&sql).await.unwrap();
        }
    }
}

#[test]
fn sessions_and_funnels_are_to_the_row_what_the_raw_events_say_although_some_came_late_and_twice() {
    in_world("analytics_sessions", 3, |world| async move {
        let twice = filled(&world).await;
        let marked = "SELECT 1 FROM {database}.clicks WHERE is_duplicate UNION ALL SELECT 1 FROM {database}.watches WHERE is_duplicate";
        assert_eq!(count(&world, marked).await, twice as i64);
        assert!(twice > 100);

        let plain = plain_sessions();
        let sessions = count(&world, &plain).await;
        assert!(sessions > 500, "{sessions}");
        let exact = "SELECT * FROM {database}.sessions";
        assert_eq!(differences(&world, SESSION, exact, &plain).await, 0);
        assert_eq!(count(&world, exact).await, sessions);

        // Before the rollup is made, and after it, and with what the rollup left out.
        let history = "SELECT * FROM {database}.session_history";
        assert_eq!(differences(&world, SESSION, history, &plain).await, 0);
        roll_up(&world).await;
        let rolled = count(&world, "SELECT 1 FROM {database}.session_rollup").await;
        assert!(0 < rolled && rolled < sessions, "{rolled} of {sessions}");
        assert_eq!(differences(&world, SESSION, history, &plain).await, 0);
        assert_eq!(count(&world, history).await, sessions);

        let funnel = format!(
            "SELECT toDate32(started_at) AS day, 'watch' AS funnel, arrayJoin(range(1, toUInt32(watch_step) + 1)) AS step, count() AS sessions FROM ({plain}) GROUP BY day, step \
             UNION ALL SELECT toDate32(started_at), 'cart', arrayJoin(range(1, toUInt32(cart_step) + 1)) AS reached, count() FROM ({plain}) GROUP BY 1, reached"
        );
        let view = "SELECT * FROM {database}.funnel_per_day WHERE sessions > 0";
        let columns = "day, funnel, step, sessions";
        assert_eq!(differences(&world, columns, view, &funnel).await, 0);
        assert!(count(&world, view).await > 7);
    });
}

#[test]
fn unique_visitors_are_exact_by_hour_and_day_and_rolling_ones_within_their_error() {
    in_world("analytics_visitors", 2, |world| async move {
        filled(&world).await;
        roll_up(&world).await;
        for (view, span, unit) in [
            ("visitors_per_hour", "hour", "toStartOfHour"),
            ("visitors_per_day", "day", "toDate32"),
        ] {
            let view = format!("SELECT {span}, visitors FROM {{database}}.{view}");
            let plain = format!(
                "SELECT {unit}(occurred_at) AS {span}, uniqExact(user_id) AS visitors FROM ({RAW}) GROUP BY {span}"
            );
            let columns = format!("{span}, visitors");
            assert_eq!(
                differences(&world, &columns, &view, &plain).await,
                0,
                "{span}"
            );
            assert!(count(&world, &view).await > 1);
        }
        let off = format!(
            "SELECT 1 FROM {{database}}.rolling_visitors AS rolling JOIN \
             (SELECT hours.hour AS hour, uniqExact(user_id) AS visitors FROM (SELECT DISTINCT toStartOfHour(occurred_at) AS hour FROM ({RAW})) AS hours \
              CROSS JOIN ({RAW}) AS raw WHERE raw.occurred_at >= hours.hour - INTERVAL 23 HOUR AND raw.occurred_at < hours.hour + INTERVAL 1 HOUR GROUP BY hour) AS plain \
             ON toUnixTimestamp(rolling.hour) = toUnixTimestamp(plain.hour)"
        );
        assert!(count(&world, &off).await > 20);
        let off = format!(
            "{off} WHERE abs(toInt64(visitors_24_hours) - toInt64(plain.visitors)) > 0.036 * plain.visitors"
        );
        assert_eq!(count(&world, &off).await, 0, "three standard errors");

        let cohorts = "SELECT users FROM {database}.retention WHERE days_later = 0";
        let users = format!("SELECT DISTINCT user_id FROM ({RAW})");
        let seen = world
            .number(&format!(
                "SELECT toInt64(sum(users)) AS number FROM ({cohorts})"
            ))
            .await;
        assert_eq!(seen, count(&world, &users).await);
    });
}

#[test]
fn playbacks_and_what_is_counted_by_minute_or_item_are_what_the_raw_events_say() {
    in_world("analytics_playbacks", 2, |world| async move {
        let twice = filled(&world).await;
        let plain = "SELECT user_id, video_id, any(raw.playback_id) AS playback_id, min(occurred_at) AS started_at, max(occurred_at) AS ended_at, max(action = 'complete') AS completed, \
             max(least(position_ms, 5400000)) AS furthest_ms, count() AS events, ifNull(sumIf(rebuffer_ms, action != 'start'), 0) AS rebuffer_ms \
             FROM (SELECT * FROM {database}.watches ORDER BY _offset LIMIT 1 BY event_id) AS raw WHERE user_id LIKE 'made-%' \
             GROUP BY user_id, video_id, ifNull(raw.playback_id, toString(toDate(occurred_at)))";
        let columns = "user_id, video_id, playback_id, started_at, ended_at, completed, furthest_ms, events, rebuffer_ms";
        roll_up(&world).await;
        for view in ["playbacks", "playback_history"] {
            let view = format!("SELECT * FROM {{database}}.{view} WHERE user_id LIKE 'made-%'");
            assert_eq!(
                differences(&world, columns, &view, plain).await,
                0,
                "{view}"
            );
            assert!(count(&world, &view).await > 100);
        }
        let wrong = "SELECT 1 FROM {database}.playbacks WHERE watched_ms < 0 OR watched_ms > dateDiff('millisecond', started_at, ended_at)";
        assert_eq!(count(&world, wrong).await, 0);

        let balance = "SELECT toInt64(sum(events) + sum(duplicates)) AS number FROM {database}.events_per_minute";
        assert_eq!(world.number(balance).await, (4_000 + EVENTS + twice) as i64);
        let late = "SELECT toInt64(sum(late)) AS number FROM {database}.events_per_minute";
        let plain = format!(
            "SELECT 1 FROM ({RAW}) WHERE event_id IN (SELECT event_id FROM {{database}}.clicks WHERE dateDiff('millisecond', occurred_at, received_at) > 300000 \
             UNION ALL SELECT event_id FROM {{database}}.watches WHERE dateDiff('millisecond', occurred_at, received_at) > 300000)"
        );
        assert_eq!(world.number(late).await, count(&world, &plain).await);
        assert!(count(&world, &plain).await > 200);

        let items = format!(
            "SELECT toDate32(occurred_at) AS day, assumeNotNull(item_id) AS item_id, count() AS clicks, countIf(element = 'add-to-cart') AS carts \
             FROM ({RAW}) AS raw WHERE raw.item_id IS NOT NULL GROUP BY day, item_id"
        );
        let view = "SELECT * FROM {database}.items_per_day";
        let columns = "day, item_id, clicks, carts";
        assert_eq!(differences(&world, columns, view, &items).await, 0);

        let moves = format!(
            "SELECT toDate32(occurred_at) AS day, from_page, page AS to_page, count() AS moves FROM ( \
             SELECT *, lagInFrame(page) OVER w AS from_page, lagInFrame(occurred_at) OVER w AS before FROM ({RAW}) WHERE page IS NOT NULL AND kind = 0 \
             WINDOW w AS (PARTITION BY user_id ORDER BY occurred_at, cityHash64(event_id) ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) \
             WHERE from_page IS NOT NULL AND from_page != page AND dateDiff('millisecond', before, occurred_at) <= {GAP_MS} GROUP BY day, from_page, to_page"
        );
        let view = "SELECT toDate32(occurred_at) AS day, from_page, to_page, count() AS moves FROM {database}.page_moves_since(since = -2454430) GROUP BY day, from_page, to_page";
        let columns = "day, from_page, to_page, moves";
        assert_eq!(differences(&world, columns, view, &moves).await, 0);
        // The rollup leaves rare moves out; those between these pages are not rare.
        let frequent = "from_page IN ('/list/drama', '/title/t1', '/item/i1') AND to_page IN ('/list/drama', '/title/t1', '/item/i1')";
        let view = format!("SELECT * FROM {{database}}.page_paths WHERE {frequent}");
        let moves = format!("SELECT * FROM ({moves}) WHERE {frequent}");
        assert_eq!(differences(&world, columns, &view, &moves).await, 0);
        assert!(count(&world, &view).await > 5);
    });
}

#[test]
fn views_read_projections_and_not_the_rows() {
    in_world("analytics_projections", 1, |world| async move {
        world.simulate_events(2_000, 8).await;
        let _consumer = world.consume(&[GROUP], &[]);
        world.caught_up(&[GROUP]).await;
        let forced = |from: &str| {
            format!(
                "SELECT 1 AS one FROM {{database}}.{from} SETTINGS force_optimize_projection = 1"
            )
        };
        for view in [
            "sessions",
            "playbacks",
            "events_per_minute",
            "active_visitors_since(since = 0)",
            "items_per_day",
        ] {
            let answer = world.database().execute(&forced(view)).await;
            assert!(answer.is_ok(), "{view}: {answer:?}");
        }
        let rows = forced("clicks WHERE element = 'play'");
        assert!(world.database().execute(&rows).await.is_err());
    });
}
