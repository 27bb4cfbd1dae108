//! `activity up`: the whole pipeline on this machine. Services, set-up, each group in a process of its own, simulated traffic, a live view; and, where an
//! end is asked for, the reconciliation.

mod groups;
mod live;
mod past;
mod progress;
mod prometheus;
mod traffic;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use activity_consumers::GROUPS;
use activity_devstack::{Endpoints, Ports, Service, Stack, StackOptions};
use activity_operator::verify::GroupReport;
use activity_operator::{Error, setup, verify};
use activity_platform::clickhouse::Database;
use activity_platform::security::Protocol;
use activity_platform::settings::Targets;
use activity_producer::Published;
use activity_runtime::standing::Standing;
use anyhow::{Context, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::{Output, OutputArgs, UpArgs};
use crate::consume;
use crate::print::{self, count, megabytes};
use crate::view;
use groups::GroupProcesses;
use live::Live;
pub use progress::StackProgress;
use traffic::Traffic;

/// How long groups may take to join and to find their place.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How often the end is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How often it is looked whether a rewind still stands in the way of the set-up.
const REWIND_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What an `up` that ends by itself prints.
#[derive(Serialize)]
struct Reconciliation {
    published: Published,
    seconds: f64,
    events_per_second: f64,
    peak_memory_bytes: Vec<(String, u64)>,
    groups: Vec<GroupReport>,
}

/// Runs until Ctrl-C, or until the asked-for events are through every group.
pub async fn run(
    args: &UpArgs,
    mut targets: Targets,
    data_dir: &Path,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    if targets.kafka.kafka.is_some()
        || targets.registry.registry.is_some()
        || targets.clickhouse.clickhouse.is_some()
        || targets.kafka.security.kafka_security != Protocol::Plaintext
    {
        bail!(
            "`up` starts its own services, which need no --kafka-security: for others use `activity setup`, `activity consume` and `activity produce` with --kafka, --registry and --clickhouse"
        );
    }
    let began = Instant::now();
    let data_dir = std::path::absolute(data_dir)?;
    if args.fresh {
        activity_devstack::erase(&data_dir)?;
    }
    let executable = std::env::current_exe().context("this program's own path is not known")?;
    let options = StackOptions {
        data_dir: data_dir.clone(),
        cache_dir: None,
        executable: executable.clone(),
        ports: Ports::default(),
        brokers: args.brokers,
        security: None,
        prometheus: (!args.no_prometheus).then(prometheus::files),
        gives_way: true,
    };
    let progress = Arc::new(StackProgress::new());
    let mut stack = tokio::select! {
        started = Stack::start(options, progress.clone()) => started?,
        () = stop.cancelled() => return Ok(Verdict::Done),
    };
    progress.clear();
    prometheus::say_if_absent(&stack);
    address(&mut targets, stack.endpoints());
    let outcome = on_stack(
        args, &targets, &data_dir, executable, &mut stack, began, stop,
    )
    .await;
    let stopped = stack.stop().await;
    let verdict = outcome?;
    stopped?;
    Ok(verdict)
}

fn address(targets: &mut Targets, endpoints: &Endpoints) {
    targets.kafka.kafka = Some(endpoints.kafka.clone());
    targets.registry.registry = Some(endpoints.registry.clone());
    targets.clickhouse.clickhouse = Some(endpoints.clickhouse.clone());
}

async fn on_stack(
    args: &UpArgs,
    targets: &Targets,
    data_dir: &Path,
    executable: PathBuf,
    stack: &mut Stack,
    began: Instant,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    if !set_up(args.partitions, targets, stack, &stop).await? {
        return Ok(Verdict::Done);
    }
    let dashboards_stop = stop.child_token();
    let _dashboards_end = dashboards_stop.clone().drop_guard();
    let dashboards = dashboards(args, targets, dashboards_stop).await;
    let traffic_stop = stop.child_token();
    // Also where this ends with an error: the traffic has a thread of its own, which the process would wait for.
    let _traffic_ends = traffic_stop.clone().drop_guard();
    let mut traffic = Traffic::with_past(args, targets, &traffic_stop).await?;
    let mut groups = GroupProcesses::start(executable, targets, data_dir.join("logs")).await?;
    prometheus::scrape(stack, &groups);
    let rewound = unfinished_rewinds(targets).await?;
    tokio::select! {
        ready = tokio::time::timeout(READY_WAIT, groups.ready(&rewound, |said| eprintln!("{said}"))) => ready.context("the groups did not become ready; see their logs in the data folder")??,
        () = stop.cancelled() => (),
    }
    let outcome = async {
        let filled = traffic.fill(stack, &mut groups, &stop).await?;
        if !stop.is_cancelled() {
            say_ready(
                args.output,
                targets,
                stack,
                &groups,
                dashboards,
                began,
                filled,
            )?;
            if !args.no_traffic {
                traffic.begin(args, targets, &traffic_stop);
            }
        }
        while_up(args, targets, stack, &mut groups, traffic, &stop).await
    };
    let outcome = outcome.await;
    groups.stop().await;
    outcome
}

/// Runs the set-up; false: told to stop. Where a migration waits for a rewind that was interrupted, the services stay up for it until it is given up or finished.
async fn set_up(
    partitions: u16,
    targets: &Targets,
    stack: &mut Stack,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let mut said = String::new();
    loop {
        let waits = match setup::run(targets, partitions).await {
            Err(Error::RewindFirst {
                migration,
                group,
                ways_on,
            }) => format!(
                "migration {migration} waits for an unfinished rewind of {group}: in another terminal, {ways_on}. The services stay up for it, and this goes on when it is over"
            ),
            done => return Ok(done.map(|_| !stop.is_cancelled())?),
        };
        if said != waits {
            eprintln!("{waits}");
            said = waits;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            (service, status) = stack.supervise() => {
                eprintln!("{}", ended(stack, service, status));
                prometheus::restart(stack, service).await?;
            }
            () = tokio::time::sleep(REWIND_LOOK_INTERVAL) => (),
        }
    }
}

/// What is said of a service that is about to be started again.
fn ended(stack: &Stack, service: Service, status: Option<ExitStatus>) -> String {
    let how = status
        .map(|status| format!("{status}; "))
        .unwrap_or_default();
    let log = stack.log(service);
    format!(
        "{service} ended by itself ({how}see {}); starting it again",
        log.display()
    )
}

/// Groups whose processes wait because a rewind was interrupted. It needs these services to be finished, so that nothing here waits for it.
async fn unfinished_rewinds(targets: &Targets) -> anyhow::Result<Vec<&'static str>> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let mut waiting = Vec::new();
    for group in GROUPS {
        let standing = Standing::of(&database, group.name).await?;
        if standing.unfinished().is_some() {
            eprintln!(
                "group {} waits: {}",
                group.name,
                standing.why_not(group.name)
            );
            waiting.push(group.name);
        }
    }
    Ok(waiting)
}

/// Serves the dashboards. All else works without them, so that this is no reason to end.
async fn dashboards(
    args: &UpArgs,
    targets: &Targets,
    stop: CancellationToken,
) -> Option<SocketAddr> {
    let progress = Arc::new(StackProgress::new());
    let started = view::start(&args.viewer, targets, progress.clone(), stop).await;
    progress.clear();
    let said = |error: &anyhow::Error| eprintln!("no dashboards: {error:#}");
    started.inspect_err(said).ok()
}

/// To stdout; to stderr where stdout is for the JSON alone.
fn say_ready(
    output: OutputArgs,
    targets: &Targets,
    stack: &Stack,
    groups: &GroupProcesses,
    dashboards: Option<SocketAddr>,
    began: Instant,
    filled: Option<String>,
) -> anyhow::Result<()> {
    let dashboards = dashboards.map(|address| format!("http://{address} (dashboards), "));
    let clickhouse = targets.clickhouse.clickhouse.as_deref().unwrap_or_default();
    let metrics: Vec<String> = groups
        .addresses()
        .map(|(group, address)| format!("{group} http://{address}/metrics"))
        .collect();
    let line = format!(
        "READY in {:.1} s{}: {}{clickhouse}/play (query), {}{}",
        began.elapsed().as_secs_f64(),
        filled.map_or(String::new(), |filled| format!(", {filled}")),
        dashboards.unwrap_or_default(),
        prometheus::in_ready_line(stack),
        metrics.join(", ")
    );
    match output.output {
        Output::Table => print::result(Output::Table, &(), || line),
        Output::Json => {
            eprintln!("{line}");
            Ok(())
        }
    }
}

/// Traffic, the live view, supervision, and the end.
async fn while_up(
    args: &UpArgs,
    targets: &Targets,
    stack: &mut Stack,
    groups: &mut GroupProcesses,
    mut traffic: Traffic,
    stop: &CancellationToken,
) -> anyhow::Result<Verdict> {
    let mut live = Live::start(targets).await?;
    let ends = args.events.is_some() || args.duration.is_some();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            (service, status) = stack.supervise() => {
                live.say(&ended(stack, service, status));
                prometheus::restart(stack, service).await?;
            }
            group = groups.supervise() => {
                live.say(&group);
                // One that was started again may serve elsewhere.
                prometheus::scrape(stack, groups);
            }
            done = traffic.finished() => done?,
            _ = look.tick() => {
                let caught_up = live.look().await;
                if ends && caught_up && traffic.published.is_some() {
                    break;
                }
            }
        }
    }
    let seconds = traffic.began.elapsed().as_secs_f64();
    live.end();
    if stop.is_cancelled() {
        eprintln!("stopping; the data stays in the data folder");
    }
    match traffic.end().await? {
        Some(published) if ends && !stop.is_cancelled() => {
            reconcile(args, targets, groups, published, seconds).await
        }
        _ => Ok(Verdict::Done),
    }
}

async fn reconcile(
    args: &UpArgs,
    targets: &Targets,
    groups: &GroupProcesses,
    published: Published,
    seconds: f64,
) -> anyhow::Result<Verdict> {
    let peak_memory_bytes = groups.peak_memory();
    let reports = verify::run(targets, &consume::groups(&[])).await?;
    let complete = published.complete && reports.iter().all(GroupReport::is_clean);
    let events_per_second = published.counts.acknowledged as f64 / seconds.max(0.001);
    let reconciliation = Reconciliation {
        published,
        seconds,
        events_per_second,
        peak_memory_bytes,
        groups: reports,
    };
    print::result(args.output.output, &reconciliation, || {
        reconciliation_table(&reconciliation)
    })?;
    Ok(if complete {
        Verdict::Done
    } else {
        Verdict::Found
    })
}

fn reconciliation_table(reconciliation: &Reconciliation) -> String {
    let counts = &reconciliation.published.counts;
    let memory: Vec<String> = reconciliation
        .peak_memory_bytes
        .iter()
        .map(|(process, bytes)| format!("{process} {}", megabytes(*bytes)))
        .collect();
    let sum = reconciliation
        .peak_memory_bytes
        .iter()
        .map(|(_, bytes)| bytes)
        .sum();
    format!(
        "{}\n{} events sent, {} acknowledged, {} failed; through every group after {:.1} s: {} events/s\npeak memory: {}, sum {}",
        crate::verify::table(&reconciliation.groups),
        count(counts.sent),
        count(counts.acknowledged),
        count(counts.failed),
        reconciliation.seconds,
        count(reconciliation.events_per_second as u64),
        memory.join(", "),
        megabytes(sum)
    )
}
