//! `activity status`: what people type, and what they see.

use std::path::Path;

use activity_devstack::{find_running, memory_of_running};
use activity_operator::status::{self, GroupStatus, Owner, ServiceStatus, Status};
use activity_platform::settings::Targets;
use clap::Args;

use crate::Verdict;
use crate::cli::OutputArgs;
use crate::consume;
use crate::print::{self, count, megabytes};

/// Longest word that the table of services has on one of them.
const DETAIL_CHARS_MAX: usize = 50;

/// `activity status`
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Prometheus, for its alerts. Default: that of the `activity up` that runs on the data folder, if it has one.
    #[arg(long, env = "ACTIVITY_PROMETHEUS", value_name = "URL")]
    prometheus: Option<String>,
    /// How to print the result.
    #[command(flatten)]
    output: OutputArgs,
}

/// `activity status`
pub async fn run(args: &StatusArgs, targets: &Targets, data_dir: &Path) -> anyhow::Result<Verdict> {
    targets.kafka.brokers()?;
    let prometheus = args.prometheus.clone();
    let prometheus = prometheus.or_else(|| find_running(data_dir)?.prometheus);
    let mut status = status::run(targets, &consume::groups(&[]), prometheus.as_deref()).await;
    let memory = memory_of_running(data_dir);
    for service in &mut status.services {
        // All brokers are one service here.
        let is_its =
            |log: &str| log == service.name || log.starts_with(&format!("{}-", service.name));
        let bytes: u64 = memory
            .iter()
            .filter(|(log, _)| is_its(log))
            .map(|(_, bytes)| bytes)
            .sum();
        service.memory_bytes = service.memory_bytes.or((bytes > 0).then_some(bytes));
    }
    print::result(args.output.output, &status, || screen(&status))?;
    Ok(if status.needs.is_empty() {
        Verdict::Done
    } else {
        Verdict::Found
    })
}

fn screen(status: &Status) -> String {
    let mut parts = vec![
        services(&status.services),
        groups(&status.groups),
        owners(&status.groups),
    ];
    if !status.dead_letters.is_empty() {
        let rows = status.dead_letters.iter().map(|letters| {
            let last = letters.last.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
            vec![
                letters.group.clone(),
                letters.topic.clone(),
                letters.reason.clone(),
                last,
                count(letters.waiting),
            ]
        });
        parts.push(print::table(
            &["dead letters", "topic", "reason", "last", "waiting"],
            4,
            rows,
        ));
    }
    match &status.alerts {
        None => (),
        Some(alerts) if alerts.is_empty() => parts.push(" no alert".to_owned()),
        Some(alerts) => {
            let rows = alerts.iter().map(|alert| {
                let group = alert.group.clone().unwrap_or_default();
                vec![
                    alert.name.clone(),
                    alert.state.clone(),
                    group,
                    alert.summary.clone(),
                ]
            });
            parts.push(print::table(
                &["alert", "state", "group", "what it says"],
                4,
                rows,
            ));
        }
    }
    parts.push(match status.needs.is_empty() {
        true => " all is well".to_owned(),
        false => {
            let lines = status
                .needs
                .iter()
                .map(|need| format!(" ! {}\n   {}", need.what, need.next));
            lines.collect::<Vec<_>>().join("\n")
        }
    });
    parts.join("\n\n")
}

fn services(services: &[ServiceStatus]) -> String {
    let row = |service: &ServiceStatus| {
        vec![
            service.name.clone(),
            if service.up { "up" } else { "DOWN" }.to_owned(),
            service.version.clone().unwrap_or_else(|| "-".to_owned()),
            service.address.clone().unwrap_or_else(|| "-".to_owned()),
            beginning(&service.detail),
            service.memory_bytes.map_or("-".to_owned(), megabytes),
        ]
    };
    let header = ["service", "state", "version", "address", "", "memory"];
    print::table(&header, 5, services.iter().map(row))
}

/// What is longer is told in full below, where it says what to do.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn groups(groups: &[GroupStatus]) -> String {
    let number = |number: Option<f64>, unit: &str, decimals: usize| {
        number.map_or("-".to_owned(), |number| {
            format!("{number:.decimals$}{unit}")
        })
    };
    let seconds = |ms: Option<f64>| number(ms.map(|ms| ms / 1000.0), " s", 2);
    let row = |group: &GroupStatus| {
        vec![
            group.group.clone(),
            state(group),
            number(group.events_per_second, "", 0),
            group.lag.map_or("-".to_owned(), count),
            number(group.lag_seconds, " s", 1),
            seconds(group.freshness_ms_p50),
            seconds(group.freshness_ms_p99),
            group.rejected.map_or("-".to_owned(), count),
        ]
    };
    let header = [
        "group",
        "state",
        "events/s",
        "lag",
        "behind",
        "freshness p50",
        "p99",
        "rejected (5 min)",
    ];
    print::table(&header, 2, groups.iter().map(row))
}

fn state(group: &GroupStatus) -> String {
    let ready = |owner: &Owner| owner.ready == Some(false);
    if group.owners.is_empty() {
        "NOBODY"
    } else if group.owners.iter().any(ready) {
        "waits"
    } else {
        "runs"
    }
    .to_owned()
}

/// Who runs what; a topic with all that a process owns of it in one word: clicks/0,1,2,3.
fn owners(groups: &[GroupStatus]) -> String {
    let rows = groups.iter().flat_map(|group| {
        group.owners.iter().map(|owner| {
            vec![
                group.group.clone(),
                owner.process.clone(),
                by_topic(&owner.partitions),
                owner.memory_bytes.map_or("-".to_owned(), megabytes),
            ]
        })
    });
    print::table(&["group", "process", "owns", "memory"], 3, rows)
}

fn by_topic(partitions: &[String]) -> String {
    let mut topics: Vec<(&str, Vec<&str>)> = Vec::new();
    for partition in partitions {
        let (topic, number) = partition.rsplit_once('/').unwrap_or((partition, ""));
        match topics.last_mut() {
            Some((last, numbers)) if *last == topic => numbers.push(number),
            _ => topics.push((topic, vec![number])),
        }
    }
    let words = topics
        .iter()
        .map(|(topic, numbers)| format!("{topic}/{}", numbers.join(",")));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity_operator::status::{Alert, DeadLetters, Need};

    #[test]
    fn one_screen_tells_all() {
        let owner = Owner {
            process: "127.0.0.1:9401".to_owned(),
            host: "127.0.0.1".to_owned(),
            partitions: ["clicks/0", "clicks/1", "watches/0"]
                .map(str::to_owned)
                .to_vec(),
            ready: Some(true),
            memory_bytes: Some(61_000_000),
        };
        let analytics = GroupStatus {
            group: "analytics".to_owned(),
            owners: vec![owner],
            events_per_second: Some(512.4),
            lag: Some(1_318),
            lag_seconds: Some(0.52),
            freshness_ms_p50: Some(510.0),
            freshness_ms_p99: Some(1_240.0),
            rejected: Some(3),
            ..GroupStatus::default()
        };
        let fraud = GroupStatus {
            group: "fraud".to_owned(),
            ..GroupStatus::default()
        };
        let service = |name: &str, up: bool| ServiceStatus {
            name: name.to_owned(),
            address: Some(format!("http://{name}")),
            up,
            version: up.then(|| "1.2".to_owned()),
            detail: if up { "1 broker" } else { "does not answer" }.to_owned(),
            memory_bytes: up.then_some(200_000_000),
        };
        let status = Status {
            services: vec![service("kafka", true), service("registry", false)],
            groups: vec![analytics, fraud],
            dead_letters: vec![DeadLetters {
                group: "analytics".to_owned(),
                topic: "activity.clicks".to_owned(),
                reason: "truncated".to_owned(),
                waiting: 3,
                last: jiff::Timestamp::UNIX_EPOCH,
            }],
            alerts: Some(vec![Alert {
                name: "GroupDown".to_owned(),
                state: "firing".to_owned(),
                group: Some("fraud".to_owned()),
                summary: "nobody runs it".to_owned(),
                runbook: None,
            }]),
            needs: vec![Need {
                what: "nobody runs fraud".to_owned(),
                next: "activity consume fraud".to_owned(),
            }],
        };
        insta::assert_snapshot!(screen(&status));
    }

    #[test]
    fn partitions_are_told_by_topic() {
        let partitions = ["a/0", "a/3", "b.c/1"].map(str::to_owned);
        assert_eq!(by_topic(&partitions), "a/0,3 b.c/1");
    }
}
