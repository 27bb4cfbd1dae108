//! The page of docs that lists every metric, made from what the metrics say of themselves. Pure.

use std::fmt::Write as _;

use crate::metrics::Described;

const HEAD: &str = "# Metrics

Each process that runs consumer groups serves these at `/metrics` (`activity up` prints the addresses; `--metrics` chooses one). `consumergroup` is the group,
`topic` and `partition` what it reads; a partition's gauges are served by the process that owns it and by no other.
The alerts on them are in `prometheus/alerts.yml`, and what to do about each in [operations](operations.md).

This page is generated: `INSTA_UPDATE=always cargo test -p activity-platform metrics_page`.
";

const FOOT: &str = "
A histogram's series are its name with `_bucket`, `_sum` and `_count`; those that end in `_seconds` have buckets from 1 ms to about two minutes.
Beside these each process serves its own: `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and their like.
";

/// The page, in Markdown: one row for each metric, in the order of their declaration.
pub fn metrics_page(metrics: &[Described]) -> String {
    let mut page =
        format!("{HEAD}\n| metric | type | labels | what it tells |\n|---|---|---|---|\n");
    for Described {
        name,
        kind,
        labels,
        help,
    } in metrics
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        );
    }
    page + FOOT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_page_in_docs_is_what_the_metrics_say_of_themselves() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = metrics_page(Metrics::new().unwrap().described());
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/metrics.md is stale: INSTA_UPDATE=always cargo test -p activity-platform metrics_page"
        );
    }

    #[test]
    fn every_metric_says_what_it_is_in_a_sentence() {
        for metric in Metrics::new().unwrap().described() {
            assert!(metric.help.ends_with('.'), "{metric:?}");
            assert!(!metric.labels.is_empty(), "{metric:?}");
        }
    }
}
