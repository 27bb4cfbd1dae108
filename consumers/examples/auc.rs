//! How well the fraud scores tell labelled clicks apart: replays an NDJSON file (plain or gzip; fields user_id or ip, page, element, item_id, ts) through the group
//! `fraud` and prints the area under the ROC curve against a label field, which the group never sees.
//!
//! ```text
//! cargo run --release -p activity-consumers --example auc -- FILE LABEL_FIELD
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;

use activity_consumers::{NoHeaders, Origin, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(label)) = (arguments.next(), arguments.next()) else {
        return Err("usage: auc FILE LABEL_FIELD".into());
    };
    let lines = support::recorded::lines(&PathBuf::from(file))?;
    let mut bench = support::Bench::new(support::group("fraud"), Settings::default());
    let mut judged: Vec<(f64, bool)> = Vec::new();
    for line in &lines {
        let text = |field| support::recorded::text(line, field);
        let user_id = text("user_id").or(text("ip")).unwrap_or_default();
        let (page, element, item_id) = (text("page"), text("element"), text("item_id"));
        let at_ms = support::recorded::time_ms(line);
        let click = ClickEvent {
            event_id: &support::recorded::event_id(line),
            occurred_at: at_ms,
            received_at: at_ms,
            user_id: &user_id,
            page: page.as_deref(),
            element: element.as_deref(),
            item_id: item_id.as_deref(),
            ..ClickEvent::default()
        };
        bench.feed(CLICKS, 0, Event::Click(click), &NoHeaders, at_ms);
        for (_, _, rows) in bench.end_batch() {
            let origin = Origin {
                topic: "",
                partition: 0,
                epoch: 1,
            };
            for row in support::native::rows(&rows.native_block(&origin)) {
                let score = support::native::field(&row, "score")
                    .as_f64()
                    .unwrap_or(0.0);
                if let Some(label) = line[&label].as_i64().filter(|label| *label >= 0) {
                    judged.push((score, label == 1));
                }
            }
        }
    }
    let positive = judged.iter().filter(|(_, label)| *label).count();
    println!("clicks    {} ({positive} labelled)", judged.len());
    println!("auc       {:.4}", auc(&mut judged));
    Ok(())
}

/// The probability that a labelled click scores higher than one that is not; equal scores count half.
fn auc(judged: &mut [(f64, bool)]) -> f64 {
    judged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
    for equal in judged.chunk_by(|a, b| a.0 == b.0) {
        let labelled = equal.iter().filter(|(_, label)| *label).count() as f64;
        let others = equal.len() as f64 - labelled;
        won += labelled * (negatives + others / 2.0);
        positives += labelled;
        negatives += others;
    }
    won / (positives * negatives)
}
