//! Prometheus beside the pipeline: it reads every group's metrics and judges the alerts. Whatever keeps it from running is said, and keeps nothing else from it.

use activity_devstack::{PrometheusFiles, Service, Stack, StackError};

use super::groups::GroupProcesses;

/// The project's own configuration and rules.
pub fn files() -> PrometheusFiles {
    PrometheusFiles {
        config: include_str!("../../../prometheus/prometheus.yml").to_owned(),
        rules: include_str!("../../../prometheus/alerts.yml").to_owned(),
    }
}

/// One line, where it was wanted and is not there.
pub fn say_if_absent(stack: &Stack) {
    if let Some(error) = stack.no_prometheus() {
        let why = one_line(&error.to_string());
        eprintln!(
            "no alerts, because Prometheus is not to be had: {why}; one in the PATH would do, --no-prometheus ends this message"
        );
    }
}

/// The first lines of what a package client says are seldom the point, and there may be many.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [first, .., last] => format!("{first} {last}"),
        lines => lines.concat(),
    }
}

/// For the line that says that all is ready.
pub fn in_ready_line(stack: &Stack) -> String {
    let url = stack.endpoints().prometheus.as_ref();
    // Its page of alerts is not at the same place in every build of it; from this one it is a click away.
    url.map(|url| format!("{url} (alerts), "))
        .unwrap_or_default()
}

/// Tells it where the groups are.
pub fn scrape(stack: &Stack, groups: &GroupProcesses) {
    let addresses: Vec<_> = groups.addresses().collect();
    if let Err(error) = stack.scrape(&addresses) {
        eprintln!("prometheus does not know where the groups are: {error}");
    }
}

/// Starts a service that has ended again; only where that is Prometheus, and it does not come, all goes on without it.
pub async fn restart(stack: &mut Stack, service: Service) -> Result<(), StackError> {
    match stack.restart(service).await {
        Err(error) if service == Service::Prometheus => {
            let why = one_line(&error.to_string());
            eprintln!("no alerts from now on: {why}");
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_the_first_and_the_last_are_said() {
        let fetching = "fetching Prometheus failed (apt-get: exit status: 100); its last words:\nReading package lists...\nE: Version was not found\n";
        assert_eq!(
            one_line(fetching),
            "fetching Prometheus failed (apt-get: exit status: 100); its last words: E: Version was not found"
        );
        assert_eq!(one_line("one"), "one");
    }
}
