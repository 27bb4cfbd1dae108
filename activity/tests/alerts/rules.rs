//! What can be said of the rules without services: Debian's promtool accepts them, and every metric that a rule, a page or a dashboard names is one of ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use activity_platform::metrics::Metrics;

use crate::RUNTIME;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn promtool(arguments: &[&str]) {
    let found = RUNTIME.block_on(activity_devstack::promtool(None)).unwrap();
    let output = Command::new(found)
        .args(arguments)
        .current_dir(root().join("prometheus"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration_and_the_rules_pass_their_unit_tests() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
}

/// What may stand for a metric of ours in a text.
fn is_ours(word: &str) -> bool {
    ["activity_", "kafka_consumergroup_"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
        && !word.ends_with('_')
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .map(str::to_owned)
        .collect()
}

/// What stands behind a metric's name in the names of its series.
fn endings(kind: &str) -> &'static [&'static str] {
    match kind {
        "histogram" => &["", "_bucket", "_sum", "_count"],
        _ => &[""],
    }
}

/// Names of all series.
fn series() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for metric in Metrics::new().unwrap().described() {
        let series = endings(metric.kind).iter();
        names.extend(series.map(|end| format!("{}{end}", metric.name)));
    }
    names
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder))
        .into_iter()
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

#[test]
fn every_metric_that_a_rule_a_page_or_a_dashboard_names_is_one_that_processes_have() {
    let members = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let crates = words(&members.replace("activity-", "activity_"));
    let known = series();
    let texts = [
        files("prometheus", ".yml"),
        files("docs", ".md"),
        files("grafana/dashboards", ".json"),
        vec![root().join("README.md")],
    ];
    for path in texts.into_iter().flatten() {
        let named = words(&fs::read_to_string(&path).unwrap());
        let unknown: Vec<_> = named
            .iter()
            .filter(|word| is_ours(word) && !known.contains(*word) && !crates.contains(*word))
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
}

/// The alerts' names, in order.
fn alerts() -> Vec<String> {
    let rules = fs::read_to_string(root().join("prometheus/alerts.yml")).unwrap();
    let lines = rules.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_alert_has_its_words_its_chapter_in_operations_and_a_test_that_fires_it() {
    let rules = fs::read_to_string(root().join("prometheus/alerts.yml")).unwrap();
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let fired = include_str!("fires.rs");
    let blocks: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert_eq!(blocks.len(), alerts().len());
    for (alert, block) in alerts().iter().zip(blocks) {
        let url = format!("docs/operations.md#{}\"", alert.to_lowercase());
        for part in [
            "severity: ",
            "summary: ",
            "description: ",
            "runbook: ",
            &url,
        ] {
            assert!(block.contains(part), "{alert} has no {part}");
        }
        assert!(operations.contains(&format!("### {alert}\n")), "{alert}");
        assert!(
            fired.contains(&format!("\"{alert}\"")),
            "{alert} is not fired"
        );
    }
}
