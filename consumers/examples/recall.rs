//! How good the recommendations are on recorded watch events, and what they cost: replays an NDJSON file (plain or gzip; fields user_id, video_id, action, ts and
//! maybe playback_id) through the group `recommendation` and prints recall@20 as `activity quality recommendation` would.
//!
//! ```text
//! cargo run --release -p activity-consumers --example recall -- FILE [SKIP_SHARE]
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use activity_consumers::{NoHeaders, Settings};
use activity_schemas::{Event, WATCHES, WatchAction, WatchEvent};
use serde_json::Value;
use support::native::{NativeRow, field};

/// Events in a batch, as the runtime would have them.
const BATCH: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().ok_or("usage: recall FILE [SKIP_SHARE]")?);
    let skip_share: f64 = arguments.next().map_or(Ok(0.2), |share| share.parse())?;
    let events: Vec<Watched> = support::recorded::lines(&file)?
        .iter()
        .map(Watched::read)
        .collect();

    let mut bench = support::Bench::new(support::group("recommendation"), Settings::default());
    let mut took = Duration::ZERO;
    let mut rows: Vec<NativeRow> = Vec::new();
    for batch in events.chunks(BATCH) {
        let start = Instant::now();
        for event in batch {
            bench.feed(WATCHES, 0, event.event(), &NoHeaders, event.at_ms);
        }
        let written = bench.end_batch();
        took += start.elapsed();
        for (_, _, table) in &written {
            if table.table().name != "recommendations" {
                let block = table.native_block(&activity_consumers::Origin {
                    topic: "",
                    partition: 0,
                    epoch: 1,
                });
                rows.extend(support::native::rows(&block));
            }
        }
    }

    let (outcomes, completions): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| !field(row, "rank").is_null());
    let completed: HashSet<&Value> = completions
        .iter()
        .map(|row| field(row, "event_id"))
        .collect();
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .filter(|row| completed.contains(field(row, "event_id")))
        .collect();
    let judged = &outcomes[(outcomes.len() as f64 * skip_share) as usize..];
    let recall = |name: &str| {
        let hits = judged
            .iter()
            .filter(|row| (1..=20).contains(&field(row, name).as_u64().unwrap_or(0)))
            .count();
        hits as f64 / judged.len().max(1) as f64
    };
    println!("recall_at_20             {:.4}", recall("rank"));
    println!("popularity_recall_at_20  {:.4}", recall("popularity_rank"));
    println!("events                   {}", judged.len());
    println!(
        "cost                     {:.1} µs an event, {:.1} µs a completed playback",
        took.as_secs_f64() * 1e6 / events.len() as f64,
        took.as_secs_f64() * 1e6 / outcomes.len().max(1) as f64
    );
    println!(
        "snapshots                {:?} bytes",
        bench.snapshots().iter().map(Vec::len).collect::<Vec<_>>()
    );
    Ok(())
}

/// One line of the file.
struct Watched {
    event_id: String,
    user_id: String,
    video_id: String,
    playback_id: Option<String>,
    action: WatchAction,
    at_ms: i64,
}

impl Watched {
    fn read(line: &Value) -> Self {
        let text = |field| support::recorded::text(line, field);
        Self {
            event_id: support::recorded::event_id(line),
            user_id: text("user_id").unwrap_or_default(),
            video_id: text("video_id").unwrap_or_default(),
            playback_id: text("playback_id"),
            action: serde_json::from_value(line["action"].clone()).unwrap_or_default(),
            at_ms: support::recorded::time_ms(line),
        }
    }

    fn event(&self) -> Event<'_> {
        Event::Watch(WatchEvent {
            event_id: &self.event_id,
            occurred_at: self.at_ms,
            received_at: self.at_ms,
            user_id: &self.user_id,
            video_id: &self.video_id,
            playback_id: self.playback_id.as_deref(),
            action: self.action,
            ..WatchEvent::default()
        })
    }
}
