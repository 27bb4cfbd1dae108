//! The group `plain`: one row per click and nothing else, so that what is measured is the way from Kafka into ClickHouse, with the promise on.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use activity_consumers::{
    ConsumerGroup, Group, Input, LowCardinality, Millis, Output, Received, Reject, Row as _,
    Settings, TableSpec,
};
use activity_platform::health::Readiness;
use activity_platform::metrics::Metrics;
use activity_platform::settings::Targets;
use activity_runtime::{Clients, LookUps, RuntimeSettings};
use activity_schemas::{CLICKS, Event, Topic};
use anyhow::Context;
use clap::Args;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::account::ByMillion;

activity_consumers::rows! {
    /// One click.
    pub struct PlainClick<'a> in "plain_clicks" {
        event_id: Uuid,
        occurred_at: Millis,
        received_at: Millis,
        user_id: &'a str,
        session_id: Option<&'a str>,
        device_id: Option<&'a str>,
        ip: Option<&'a str>,
        country: LowCardinality<Option<&'a str>>,
        user_agent: LowCardinality<Option<&'a str>>,
        page: Option<&'a str>,
        element: LowCardinality<Option<&'a str>>,
        item_id: Option<&'a str>,
        referrer: Option<&'a str>,
        campaign: LowCardinality<Option<&'a str>>,
    }
}

/// Set once, before the group runs, where somebody wants to know.
static BY_MILLION: OnceLock<ByMillion> = OnceLock::new();
/// Events of a partition that are counted at once.
const COUNTED_EVERY: u64 = 1_000;

/// The group.
pub struct Plain {
    uncounted: u64,
}

impl Plain {
    fn count(&mut self) {
        self.uncounted += 1;
        if self.uncounted == COUNTED_EVERY {
            self.uncounted = 0;
            if let Some(by_million) = BY_MILLION.get() {
                by_million.count(COUNTED_EVERY);
            }
        }
    }
}

/// The group, as the runtime takes it.
pub const PLAIN: &Group = &Group::of::<Plain>();

impl ConsumerGroup for Plain {
    const NAME: &'static str = "plain";
    const ABOUT: &'static str = "every click as a row";
    const READS: &'static [Topic] = &[CLICKS];
    const TABLES: &'static [&'static TableSpec] = &[PlainClick::TABLE];

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        if let Some(by_million) = BY_MILLION.get() {
            by_million.start();
        }
        Plain { uncounted: 0 }
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        self.count();
        if let Input::Event(Event::Click(click)) = &received.input {
            let event_id = Uuid::try_parse(click.event_id)
                .map_err(|error| Reject::new("invalid_event_id", error.to_string()))?;
            out.insert(&PlainClick {
                event_id,
                occurred_at: Millis(click.occurred_at),
                received_at: Millis(click.received_at),
                user_id: click.user_id,
                session_id: click.session_id,
                device_id: click.device_id,
                ip: click.ip,
                country: LowCardinality(click.country),
                user_agent: LowCardinality(click.user_agent),
                page: click.page,
                element: LowCardinality(click.element),
                item_id: click.item_id,
                referrer: click.referrer,
                campaign: LowCardinality(click.campaign),
            });
        }
        Ok(())
    }
}

/// Where the group reads and writes, and its limits: those of `activity consume`.
#[derive(Args, Debug)]
pub struct PlainArgs {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    runtime: RuntimeSettings,
    /// Writes the CPU-seconds used so far to this file, a line when it has its first partition and one for each million events read
    #[arg(long, value_name = "FILE")]
    cpu_by_million: Option<PathBuf>,
}

/// Runs the group until `stop`.
pub async fn run(args: PlainArgs, stop: CancellationToken) -> anyhow::Result<()> {
    if let Some(path) = &args.cpu_by_million {
        let by_million = ByMillion::create(path)?;
        let _ = BY_MILLION.set(by_million);
    }
    let clients = Clients {
        targets: args.targets,
        metrics: Arc::new(Metrics::new()?),
        readiness: Readiness::default(),
        look_ups: LookUps::default(),
    };
    let runtime = Handle::current();
    let running = tokio::task::spawn_blocking(move || {
        activity_runtime::run(PLAIN, args.runtime, &clients, runtime, &stop)
    });
    running.await.context("the group's thread ended early")??;
    Ok(())
}
