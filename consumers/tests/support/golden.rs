//! The golden events, and what a group makes of them, as text.

#![allow(clippy::expect_used, reason = "helpers of tests")]

use std::fmt::Write;
use std::path::Path;

use activity_consumers::{Group, Headers, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event, EventKind, Topic, WATCHES, WatchEvent};

use crate::support::Bench;

/// Headers as the simulated traffic has them.
struct Labelled;

impl Headers for Labelled {
    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            activity_schemas::truth::LABEL_HEADER => Some(b"1"),
            activity_schemas::truth::ATTACK_HEADER => Some(b"click-farm"),
            _ => None,
        }
    }
}

struct Example {
    kind: EventKind,
    name: String,
    json: String,
}

impl Example {
    /// Every example there is, in the order in which the collecting service took them.
    fn all() -> Vec<Self> {
        let mut examples = Vec::new();
        for kind in EventKind::ALL {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../schemas/golden")
                .join(kind.name());
            for entry in folder.read_dir().expect("the folder of golden events") {
                let path = entry.expect("a golden event").path();
                examples.push(Self {
                    kind,
                    name: path
                        .file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                    json: std::fs::read_to_string(&path).expect("a golden event is text"),
                });
            }
        }
        examples.sort_by_cached_key(|example| {
            let received_at = example.parsed().1;
            (received_at, example.kind.name(), example.name.clone())
        });
        examples
    }

    /// The event with its topic, and when it was received.
    fn parsed(&self) -> ((Topic, Event<'_>), i64) {
        match self.kind {
            EventKind::Click => {
                let click: ClickEvent<'_> =
                    serde_json::from_str(&self.json).expect("a golden click is a click");
                let received_at = click.received_at;
                ((CLICKS, Event::Click(click)), received_at)
            }
            EventKind::Watch => {
                let watch: WatchEvent<'_> = serde_json::from_str(&self.json)
                    .expect("a golden watch event is a watch event");
                let received_at = watch.received_at;
                ((WATCHES, Event::Watch(watch)), received_at)
            }
        }
    }
}

/// Every golden event that the group reads, each with its rows and rejects.
pub fn told(group: &'static Group) -> String {
    let mut bench = Bench::new(group, Settings::default());
    let mut told = String::new();
    for example in Example::all() {
        let ((topic, event), received_at) = example.parsed();
        if !group.reads.contains(&topic) {
            continue;
        }
        bench.feed(topic, 0, event, &Labelled, received_at + 40);
        bench.flush();
        let _ = writeln!(told, "{}/{}", example.kind.name(), example.name);
        for (table, row) in bench.rows.drain(..) {
            let _ = writeln!(told, "    {table} {row}");
        }
        for reject in bench.rejects.drain(..) {
            let _ = writeln!(told, "    rejected: {reject}");
        }
    }
    told
}
