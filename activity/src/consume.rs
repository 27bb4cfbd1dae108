//! `activity consume`: runs groups in this process, each on a thread of its own.

use std::sync::Arc;

use activity_consumers::{GROUPS, Group};
use activity_platform::clickhouse::Database;
use activity_platform::health::{self, Readiness};
use activity_platform::kafka;
use activity_platform::metrics::Metrics;
use activity_platform::registry::Registry;
use activity_platform::settings::Targets;
use activity_runtime::{Clients, LookUps};
use anyhow::Context;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::ConsumeArgs;

/// The groups of these names; all where none is named.
pub fn groups(names: &[String]) -> Vec<&'static Group> {
    GROUPS
        .iter()
        .filter(|group| names.is_empty() || names.iter().any(|name| name == group.name))
        .collect()
}

/// Runs until `stop`, or until one group cannot go on.
pub async fn run(
    args: ConsumeArgs,
    targets: Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    // Before anything starts: a missing address or an unreadable file is wrong use, not something to wait for.
    kafka::client_config(&targets.kafka)?;
    Registry::new(&targets.registry)?;
    Database::new(&targets.clickhouse)?;
    let metrics = Arc::new(Metrics::new()?);
    let readiness = Readiness::default();
    let address = args.metrics.metrics;
    let serving = stop.child_token();
    let (groups, look_ups) = (groups(&args.groups), LookUps::default());
    let pages = look_ups.router(&groups);
    let address = health::serve(address, metrics.clone(), readiness.clone(), pages, serving)
        .with_context(|| format!("--metrics {address}"))?;
    look_ups.reached_at(args.metrics.reached_at(address));
    let mut threads = Vec::new();
    for group in groups {
        tracing::info!(group = group.name, metrics = %format!("http://{address}/metrics"), "consuming");
        readiness.not_ready(group.name, "joining the group");
        let clients = Clients {
            targets: targets.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            look_ups: look_ups.clone(),
        };
        let (settings, runtime, stop) = (args.runtime.clone(), Handle::current(), stop.clone());
        threads.push(tokio::task::spawn_blocking(move || {
            // One process, one fate: what supervises it starts all of it again. Also where this thread panics.
            let _one_fate = stop.clone().drop_guard();
            activity_runtime::run(group, settings, &clients, runtime, &stop)
                .with_context(|| format!("group {}", group.name))
        }));
    }
    for thread in threads {
        thread.await.context("a group's thread ended early")??;
    }
    Ok(Verdict::Done)
}
