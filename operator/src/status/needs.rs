//! What needs somebody's attention, and what to do first. Pure.

use serde::Serialize;

use super::Status;
use super::services::{CLICKHOUSE, KAFKA};

/// A group that is further behind than that is not keeping up, or has just been started.
const LAG_SECONDS_MAX: f64 = 60.0;

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// What is not well.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// The most urgent first: what is down hides what depends on it.
pub(super) fn of(status: &Status) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut need = |what: String, next: String| needs.push(Need { what, next });
    for service in status.services.iter().filter(|service| !service.up) {
        let next = match &service.address {
            Some(address) => format!(
                "see why nothing answers at {address}; `activity up` starts it again by itself, its log is in the data folder's logs/{}.log",
                service.name
            ),
            None => format!("start `activity up`, or pass --{}", service.name),
        };
        need(
            format!("{} is down: {}", service.name, service.detail),
            next,
        );
    }
    let is_down = |name: &str| {
        status
            .services
            .iter()
            .any(|service| service.name == name && !service.up)
    };
    let kafka_is_down = is_down(KAFKA);
    for group in &status.groups {
        let name = &group.group;
        if group.owners.is_empty() {
            if !kafka_is_down {
                need(
                    format!("nobody runs {name}"),
                    format!("activity consume {name}"),
                );
            }
            continue;
        }
        if let Some(why) = &group.waits_for {
            need(
                format!("{name} is not ready: {why}"),
                format!(
                    "see the log of {name}; /readyz of its process says it again when it has changed"
                ),
            );
        }
        if group.unowned > 0 {
            need(
                format!("{} partitions of {name} belong to nobody", group.unowned),
                "a rebalance takes some seconds; where it stays so, look for a process of the group that hangs".to_owned(),
            );
        }
        if let Some(seconds) = group
            .lag_seconds
            .filter(|seconds| *seconds > LAG_SECONDS_MAX)
        {
            need(
                format!("{name} is {seconds:.0} s behind"),
                format!(
                    "activity lag {name} --watch; if it does not shrink, run another `activity consume {name}`"
                ),
            );
        }
    }
    for alert in status
        .alerts
        .iter()
        .flatten()
        .filter(|alert| alert.state == "firing")
    {
        let of = alert
            .group
            .as_ref()
            .map_or(String::new(), |group| format!(" ({group})"));
        let next = match &alert.runbook {
            Some(runbook) => runbook.clone(),
            None => "see the runbook of that alert in docs/operations.md".to_owned(),
        };
        need(format!("alert {}{of}: {}", alert.name, alert.summary), next);
    }
    for letters in &status.dead_letters {
        need(
            format!(
                "{} dead letters of {} wait ({})",
                letters.waiting, letters.group, letters.reason
            ),
            format!(
                "activity deadletters show {} --reason {}",
                letters.group, letters.reason
            ),
        );
    }
    if !is_down(CLICKHOUSE) && !kafka_is_down && status.groups.is_empty() {
        need(
            "there is no group".to_owned(),
            "activity new-group NAME".to_owned(),
        );
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::super::{Alert, DeadLetters, GroupStatus, Owner, ServiceStatus};
    use super::*;

    fn service(name: &str, up: bool) -> ServiceStatus {
        ServiceStatus {
            name: name.to_owned(),
            address: Some(format!("at-{name}")),
            up,
            ..ServiceStatus::default()
        }
    }

    fn group(name: &str) -> GroupStatus {
        GroupStatus {
            group: name.to_owned(),
            owners: vec![Owner::default()],
            lag: Some(3),
            lag_seconds: Some(0.4),
            ..GroupStatus::default()
        }
    }

    #[test]
    fn where_all_is_well_nothing_is_to_be_done() {
        let status = Status {
            services: vec![service("kafka", true), service("clickhouse", true)],
            groups: vec![group("analytics")],
            alerts: Some(Vec::new()),
            ..Status::default()
        };
        assert_eq!(of(&status), []);
    }

    #[test]
    fn whatever_is_not_well_is_told_with_what_to_do() {
        let nobody = GroupStatus {
            owners: Vec::new(),
            ..group("truth")
        };
        let behind = GroupStatus {
            lag_seconds: Some(61.0),
            waits_for: Some("clicks/0 is paused".to_owned()),
            unowned: 2,
            ..group("fraud")
        };
        let alert = |state: &str, runbook: Option<&str>| Alert {
            name: "Down".to_owned(),
            state: state.to_owned(),
            group: Some("fraud".to_owned()),
            summary: "it is down".to_owned(),
            runbook: runbook.map(str::to_owned),
        };
        let status = Status {
            services: vec![service("registry", false), service("kafka", true)],
            groups: vec![nobody, behind],
            dead_letters: vec![DeadLetters {
                group: "analytics".to_owned(),
                topic: "activity.clicks".to_owned(),
                reason: "truncated".to_owned(),
                waiting: 7,
                last: jiff::Timestamp::UNIX_EPOCH,
            }],
            alerts: Some(vec![
                alert("firing", None),
                alert("pending", None),
                alert("firing", Some("there")),
            ]),
            needs: Vec::new(),
        };
        insta::assert_json_snapshot!(of(&status));
    }

    #[test]
    fn a_kafka_that_is_down_is_not_every_groups_fault() {
        let status = Status {
            services: vec![service("kafka", false)],
            groups: vec![GroupStatus {
                owners: Vec::new(),
                ..group("truth")
            }],
            ..Status::default()
        };
        assert_eq!(of(&status).len(), 1);
    }
}
