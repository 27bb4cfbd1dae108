//! A month of data: three days of simulated traffic through the real groups, copied back in time within ClickHouse.

use std::time::Duration;

use activity_consumers::GROUPS;
use activity_producer::SimulateArgs;
use activity_viewer::Asking;

use crate::support::{World, groups};

const DAY_S: u64 = 86_400;
/// Days that are simulated.
const BASE_DAYS: u64 = 3;
/// How often they are there in the end.
const TIMES: u64 = 10;
/// One user makes about as many events a day in the traffic model.
const EVENTS_PER_USER_AND_DAY: u64 = 345;
/// Each partition of each group writes a batch about so often.
const LEDGER_STEP_S: u64 = 10;
/// Rollups that are made anew every so often by themselves.
const ROLLUPS: [&str; 6] = [
    "session_rollup",
    "playback_rollup",
    "page_path_rollup",
    "fraud_known_rollup",
    "recommendation_judged_rollup",
    "ledger_minute_rollup",
];

/// What there is.
pub struct Month {
    pub events: i64,
    /// Rows by table, for people.
    pub rows: String,
    /// All of it.
    pub asking: Asking,
}

/// Which columns of a table are made anew in a copy, beside those that all have.
struct Copied {
    table: &'static str,
    times: &'static [&'static str],
    others: &'static [(&'static str, &'static str)],
}

const USER: (&str, &str) = (
    "user_id",
    "if(cityHash64(user_id) % 4 = 0, user_id, concat(user_id, '-', {copy}))",
);
const EVENT: (&str, &str) = (
    "event_id",
    "reinterpretAsUUID(sipHash128(event_id, {copy}))",
);
const ACTOR: (&str, &str) = (
    "actor",
    "if(kind = 'user' AND cityHash64(actor) % 4 = 0, actor, concat(actor, '-', {copy}))",
);

const TABLES: [Copied; 8] = [
    Copied {
        table: "clicks",
        times: &["occurred_at", "received_at"],
        others: &[USER, EVENT],
    },
    Copied {
        table: "watches",
        times: &["occurred_at", "received_at"],
        others: &[USER, EVENT],
    },
    Copied {
        table: "truth",
        times: &[],
        others: &[EVENT],
    },
    Copied {
        table: "fraud_scores",
        times: &["occurred_at", "received_at", "clicked_at"],
        others: &[USER, EVENT],
    },
    Copied {
        table: "fraud_alerts",
        times: &["opened_at", "seen_at"],
        others: &[ACTOR],
    },
    Copied {
        table: "recommendations",
        times: &["made_at"],
        others: &[USER],
    },
    Copied {
        table: "recommendation_outcomes",
        times: &["received_at", "made_at", "title_seen_at"],
        others: &[USER, EVENT],
    },
    Copied {
        table: "recommendation_completions",
        times: &["received_at"],
        others: &[USER, EVENT],
    },
];

/// Makes it, from so many events of three days; the newest are of now.
pub async fn make(world: &World, events: u64) -> Month {
    let until_s = jiff::Timestamp::now().as_second();
    simulate(world, events, until_s).await;
    let database = world.database();
    for copy in 1..TIMES {
        for table in &TABLES {
            database.execute(&table.copy_sql(copy)).await.unwrap();
        }
    }
    database.execute(&ledger_sql(until_s)).await.unwrap();
    for rollup in ROLLUPS {
        for statement in ["REFRESH", "WAIT"] {
            let sql = format!("SYSTEM {statement} VIEW {{database}}.{rollup}_refresh");
            database.execute(&sql).await.unwrap();
        }
    }
    let days_ms = (BASE_DAYS * TIMES * DAY_S * 1000) as i64;
    let rows = rows(world).await;
    let count = |names: &[&str]| {
        rows.iter()
            .filter(|row| names.contains(&row.table.as_str()))
            .map(|row| row.rows)
            .sum::<i64>()
    };
    let told: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", row.table, row.rows))
        .collect();
    Month {
        events: count(&["clicks", "watches"]),
        rows: told.join(", "),
        asking: Asking {
            from_ms: Some(until_s * 1000 - days_ms),
            to_ms: Some(until_s * 1000),
            values: Vec::new(),
        },
    }
}

/// Three days of traffic through all groups, as fast as they take it.
async fn simulate(world: &World, events: u64, until_s: i64) {
    let begin = jiff::Timestamp::from_second(until_s - (BASE_DAYS * DAY_S) as i64).unwrap();
    let users = (events / (BASE_DAYS * EVENTS_PER_USER_AND_DAY)).max(50) as u32;
    world
        .simulate(SimulateArgs {
            events: Some(events),
            seed: Some(6),
            users: Some(users),
            start_at: Some(begin.to_string().parse().unwrap()),
            ..SimulateArgs::default()
        })
        .await;
    let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    let _consumers: Vec<_> = names
        .iter()
        .map(|name| world.consume(&[name], &[]))
        .collect();
    caught_up(world).await;
}

/// Waits until nothing is left, however long that takes; twice, because a chain's stages are not looked at in one moment.
async fn caught_up(world: &World) {
    let groups = groups(&[]);
    let mut looks = 0;
    while looks < 2 {
        let lags = world.lag(&groups).await;
        let is_done = lags
            .iter()
            .all(|lag| lag.lag == 0 && lag.committed.is_some());
        looks = if is_done { looks + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

impl Copied {
    fn copy_sql(&self, copy: u64) -> String {
        let Self {
            table,
            times,
            others,
        } = self;
        let back = copy * BASE_DAYS * DAY_S;
        let shifted = times
            .iter()
            .chain(&["_appended_at"])
            .map(|time| format!("{time} - INTERVAL {back} SECOND AS {time}"));
        let others = others.iter().map(|(name, made)| {
            format!("{} AS {name}", made.replace("{copy}", &format!("'{copy}'")))
        });
        let replaced: Vec<String> = shifted
            .chain(others)
            .chain([format!("_offset + {copy}000000000 AS _offset")])
            .collect();
        let replaced = replaced.join(", ");
        let original = format!("SELECT * FROM {{database}}.{table} WHERE _offset < 1000000000");
        format!(
            "INSERT INTO {{database}}.{table} SELECT * REPLACE({replaced}) FROM ({original}) SETTINGS max_threads = 1"
        )
    }
}

/// A batch of every partition, every few seconds, up to the beginning of the real ones.
fn ledger_sql(until_s: i64) -> String {
    let days = BASE_DAYS * TIMES;
    let steps = days * DAY_S / LEDGER_STEP_S;
    format!(
        "INSERT INTO {{database}}.ledger (consumer_group, topic, partition, epoch, start_offset, end_offset, events, rejects, lost, bytes, attempt, insert_ms, freshness_ms, lag, \
         appended_first, appended_last, claimed_at, inserted_at) \
         SELECT consumer_group, topic, partition, 1, -1000000000 + step * 1000, -1000000000 + step * 1000 + size, size, cityHash64(step) % 5000 = 0, 0, size * 300, 1, \
         20 + cityHash64(step, partition) % 300, 700 + cityHash64(step) % 900, cityHash64(step, 1) % 50, \
         at - INTERVAL 900 MILLISECOND, at - INTERVAL 200 MILLISECOND, at, at \
         FROM (SELECT DISTINCT consumer_group, topic, partition FROM {{database}}.ledger WHERE events > 0) AS lanes \
         CROSS JOIN (SELECT number AS step, 50 + cityHash64(number) % 200 AS size, \
         toDateTime64({until_s}, 3, 'UTC') - INTERVAL {days} DAY + INTERVAL number * {LEDGER_STEP_S} SECOND AS at FROM numbers({steps})) AS steps SETTINGS max_threads = 1"
    )
}

#[derive(serde::Deserialize)]
struct Rows {
    table: String,
    rows: i64,
}

async fn rows(world: &World) -> Vec<Rows> {
    let sql = format!(
        "SELECT table, toInt64(sum(rows)) AS rows FROM system.parts WHERE database = '{}' AND active GROUP BY table ORDER BY rows DESC",
        world.name
    );
    world.database().rows(&sql).await.unwrap()
}
