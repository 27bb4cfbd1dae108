//! What the groups cost without I/O: memory for a million users and for 100,000 items, the size of snapshots, and what a stage takes in a second on one core;
//! of the one ordered stage of a group that has one, apart.
//!
//! Users click and watch items by Zipf's law, each the same number of times. Memory is what the process has resident more than before; each figure is from a
//! process of its own.
//!
//! ```text
//! cargo run --release -p activity-consumers --example state -- [USERS] [EVENTS_PER_USER] [ITEMS]
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use activity_consumers::{NoHeaders, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event, Topic, WATCHES, WatchAction, WatchEvent};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Events in a batch, as the runtime would have them.
const BATCH: u64 = 10_000;
const START_MS: i64 = 1_767_225_600_000;
/// Between two events: 10,000 a second.
const STEP_MICROS: i64 = 100;
/// Items more, for what an item costs.
const MORE_ITEMS: u64 = 100_000;
/// As the first argument: this process measures one group.
const ONE: &str = "one";

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [one, group, users, each, items] = &arguments[..]
        && one == ONE
    {
        let traffic = Traffic {
            users: users.parse()?,
            each: each.parse()?,
            items: items.parse()?,
        };
        let measured = measure(group, traffic)?;
        println!("{}", measured.map(|figure| figure.to_string()).join(" "));
        return Ok(());
    }
    let number =
        |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let traffic = Traffic {
        users: number(0, 100_000)?,
        each: number(1, 20)?,
        items: number(2, 20_000)?,
    };
    let Traffic { users, each, items } = traffic;
    println!("{users} users, {each} events of each, {items} items");
    println!(
        "group            MB a million users  MB 100,000 items  snapshot MB  events a second beside the source  messages a second in the ordered stage"
    );
    for group in ["analytics", "recommendation", "fraud"] {
        let [state, snapshots, first, ordered] = apart(group, traffic)?;
        let more = Traffic {
            items: items + MORE_ITEMS,
            ..traffic
        };
        let [with_more, ..] = apart(group, more)?;
        let ordered = if ordered > 0.0 {
            format!("{ordered:.0}")
        } else {
            "none".to_owned()
        };
        println!(
            "{group:<16} {:>18.0} {:>17.1} {:>12.1} {first:>34.0} {ordered:>39}",
            state / users as f64,
            (with_more - state) / 1e6,
            snapshots / 1e6,
        );
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Traffic {
    users: u64,
    each: u64,
    items: u64,
}

/// Bytes of state, bytes of snapshots, events a second of the first stages, messages a second of those behind them.
type Measured = [f64; 4];

/// Measures in a process of its own, whose memory nothing else has used.
fn apart(group: &str, traffic: Traffic) -> Result<Measured, Failed> {
    let numbers = [traffic.users, traffic.each, traffic.items].map(|number| number.to_string());
    let child = Command::new(std::env::current_exe()?)
        .args([ONE, group])
        .args(numbers)
        .output()?;
    let text = String::from_utf8(child.stdout)?;
    let figures: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    figures?
        .try_into()
        .map_err(|_| format!("{group}: {}", String::from_utf8_lossy(&child.stderr)).into())
}

/// Runs a group over the traffic.
fn measure(group: &str, traffic: Traffic) -> Result<Measured, Failed> {
    let mut bench = support::Bench::new(support::group(group), Settings::default());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let before = resident_bytes()?;
    let (mut first, mut ordered) = (Duration::ZERO, Duration::ZERO);
    let total = traffic.users * traffic.each;
    for batch in 0..total / BATCH {
        let events: Vec<Happened> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| Happened::draw(n, traffic.users, traffic.items, &mut random))
            .collect();
        let start = Instant::now();
        for event in &events {
            let (topic, event) = event.event();
            bench.feed(topic, 0, event, &NoHeaders, START_MS);
        }
        first += start.elapsed();
        let start = Instant::now();
        drop(bench.end_batch());
        ordered += start.elapsed();
    }
    let state = resident_bytes()?.saturating_sub(before);
    let snapshots: usize = bench.snapshots().iter().map(Vec::len).sum();
    let (events, messages) = bench.taken();
    Ok([
        state as f64,
        snapshots as f64,
        events as f64 / first.as_secs_f64(),
        messages as f64 / ordered.as_secs_f64(),
    ])
}

/// One event, owned.
struct Happened {
    event_id: String,
    user_id: String,
    item: String,
    ip: String,
    at_ms: i64,
    watched: bool,
}

impl Happened {
    fn draw(n: u64, users: u64, items: u64, random: &mut ChaCha8Rng) -> Self {
        let user = n % users;
        // Zipf with exponent 1, by the inverse of its continuous form.
        let item = (items as f64).powf(random.next_u32() as f64 / 2f64.powi(32)) as u64;
        Self {
            event_id: format!("{n:08x}-0000-4000-8000-{user:012x}"),
            user_id: format!("u{user:09}"),
            item: format!("{item:06}"),
            ip: format!("10.{}.{}.{}", user >> 16 & 255, user >> 8 & 255, user & 255),
            at_ms: START_MS + n as i64 * STEP_MICROS / 1000,
            watched: random.next_u32() & 1 == 1,
        }
    }

    fn event(&self) -> (Topic, Event<'_>) {
        if self.watched {
            let watch = WatchEvent {
                event_id: &self.event_id,
                occurred_at: self.at_ms,
                received_at: self.at_ms,
                user_id: &self.user_id,
                video_id: &self.item,
                playback_id: Some(&self.event_id),
                action: WatchAction::Complete,
                ..WatchEvent::default()
            };
            return (WATCHES, Event::Watch(watch));
        }
        let click = ClickEvent {
            event_id: &self.event_id,
            occurred_at: self.at_ms,
            received_at: self.at_ms,
            user_id: &self.user_id,
            device_id: Some(&self.user_id),
            ip: Some(&self.ip),
            page: Some("/items"),
            element: Some("item"),
            item_id: Some(&self.item),
            ..ClickEvent::default()
        };
        (CLICKS, Event::Click(click))
    }
}

/// Memory that this process has resident.
fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.ok_or("no VmRSS")?.trim().parse::<u64>()? * 1024)
}
