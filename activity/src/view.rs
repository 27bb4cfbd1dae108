//! `activity view`: the dashboards as web pages, with the chart library that they draw with.

use std::net::SocketAddr;
use std::sync::Arc;

use activity_devstack::{Progress, chart_library};
use activity_platform::settings::Targets;
use activity_viewer::ViewerSettings;
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::{Output, ViewArgs};
use crate::print;
use crate::up::StackProgress;

/// Serves until Ctrl-C.
pub async fn run(
    args: &ViewArgs,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    // A missing address is wrong use, not something for a page to say.
    targets.clickhouse.url()?;
    let progress = Arc::new(StackProgress::new());
    let address = start(&args.viewer, targets, progress.clone(), stop.clone()).await?;
    progress.clear();
    print::result(Output::Table, &(), || {
        format!("READY: http://{address} (dashboards)")
    })?;
    stop.cancelled().await;
    Ok(Verdict::Done)
}

/// Fetches the chart library where it is not there yet, and serves the pages until `stop`.
pub async fn start(
    settings: &ViewerSettings,
    targets: &Targets,
    progress: Arc<dyn Progress>,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let executable = std::env::current_exe().context("this program's own path is not known")?;
    let library = chart_library(None, Some(executable), progress).await?;
    let charts = tokio::fs::read(&library)
        .await
        .with_context(|| library.display().to_string())?;
    Ok(activity_viewer::serve(settings, &targets.clickhouse, charts.into(), stop).await?)
}
