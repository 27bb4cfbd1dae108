//! `activity status`: how everything is, on one screen, and what to do where something is not well.
//!
//! What does not answer is told as such, and the rest is told all the same: this is the verb for when something is down.

mod alerts;
mod groups;
mod needs;
mod services;

use activity_consumers::Group;
use activity_platform::settings::Targets;
use serde::Serialize;

pub use alerts::Alert;
pub use groups::{GroupStatus, Owner};
pub use needs::Need;
pub use services::ServiceStatus;

use crate::dead_letters::list::{self, Summary};

/// How everything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Kafka, the registry, ClickHouse, and Prometheus where one is known.
    pub services: Vec<ServiceStatus>,
    /// Every group.
    pub groups: Vec<GroupStatus>,
    /// Dead letters that nobody has dealt with, by group, topic and reason.
    pub dead_letters: Vec<DeadLetters>,
    /// Alerts of Prometheus, where one is known and answers.
    pub alerts: Option<Vec<Alert>>,
    /// What needs somebody's attention, the most urgent first.
    pub needs: Vec<Need>,
}

/// Dead letters that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// The group's name.
    pub group: String,
    /// Full name of the topic that the messages were read from.
    pub topic: String,
    /// Why they were rejected.
    pub reason: String,
    /// How many wait.
    pub waiting: u64,
    /// When the last of them was rejected.
    pub last: jiff::Timestamp,
}

/// Looks at everything, side by side. `prometheus` is its address, if one is known.
pub async fn run(targets: &Targets, groups: &[&'static Group], prometheus: Option<&str>) -> Status {
    let services = services::look(targets, prometheus).await;
    let is_up = |name: &str| {
        services
            .iter()
            .any(|service| service.name == name && service.up)
    };
    let (kafka, clickhouse) = (is_up(services::KAFKA), is_up(services::CLICKHOUSE));
    let (groups, letters, alerts) = tokio::join!(
        groups::look(targets, groups, kafka, clickhouse),
        waiting(targets, groups, kafka && clickhouse),
        alerts::look(prometheus),
    );
    let mut status = Status {
        services,
        groups,
        dead_letters: letters,
        alerts,
        needs: Vec::new(),
    };
    status.needs = needs::of(&status);
    status
}

/// What neither was sent through again nor read again by a rewind. Where it cannot be asked for, the services' lines say why.
async fn waiting(targets: &Targets, groups: &[&'static Group], can_ask: bool) -> Vec<DeadLetters> {
    if !can_ask {
        return Vec::new();
    }
    let listing = match list::run(targets, groups, |_, _| ()).await {
        Ok(listing) => listing,
        Err(error) => {
            tracing::warn!(%error, "dead letters cannot be counted");
            return Vec::new();
        }
    };
    let open = |summary: Summary| {
        let waiting = (summary.letters - summary.read_again.min(summary.letters))
            .saturating_sub(summary.resubmitted);
        (waiting > 0).then_some(DeadLetters {
            group: summary.group,
            topic: summary.topic,
            reason: summary.reason,
            waiting,
            last: summary.last,
        })
    };
    listing.summaries.into_iter().filter_map(open).collect()
}
