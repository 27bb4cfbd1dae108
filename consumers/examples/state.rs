//! What the state of each group costs: memory for a million users and for 100,000 items, time for an event of each stage, and the size of snapshots.
//!
//! Users click and watch items by Zipf's law, each the same number of times; memory is what the process has resident more than before.
//!
//! ```text
//! cargo run --release -p activity-consumers --example state -- [USERS] [EVENTS_PER_USER] [ITEMS]
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use activity_consumers::{Group, NoHeaders, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event, Topic, WATCHES, WatchAction, WatchEvent};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Events in a batch, as the runtime would have them.
const BATCH: u64 = 10_000;
const START_MS: i64 = 1_767_225_600_000;
/// Between two events: 10,000 a second.
const STEP_MICROS: i64 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (users, each, items) = (number(100_000)?, number(20)?, number(20_000)?);
    println!("{users} users, {each} events of each, {items} items");
    println!("group            state MB  MB a million users  snapshot MB  µs an event");
    for name in ["analytics", "recommendation", "fraud"] {
        measure(support::group(name), users, each, items)?;
    }
    Ok(())
}

/// Runs a group over the traffic and says what it has come to.
fn measure(
    group: &'static Group,
    users: u64,
    each: u64,
    items: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::default();
    let mut bench = support::Bench::new(group, settings);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let before = resident_bytes()?;
    let mut took = Duration::ZERO;
    let total = users * each;
    for batch in 0..total / BATCH {
        let events: Vec<Happened> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| Happened::draw(n, users, items, &mut random))
            .collect();
        let start = Instant::now();
        for event in &events {
            let (topic, event) = event.event();
            bench.feed(topic, 0, event, &NoHeaders, START_MS);
        }
        drop(bench.end_batch());
        took += start.elapsed();
    }
    let state = resident_bytes()?.saturating_sub(before);
    let snapshots: usize = bench.snapshots().iter().map(Vec::len).sum();
    println!(
        "{:<16} {:>8.1} {:>19.0} {:>12.1} {:>12.2}",
        group.name,
        state as f64 / 1e6,
        state as f64 / users as f64,
        snapshots as f64 / 1e6,
        took.as_secs_f64() * 1e6 / total as f64,
    );
    Ok(())
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
