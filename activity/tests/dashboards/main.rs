//! The dashboards as files, without services: they are what Grafana's own types allow, say what they show and what good is, and lead to each other.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod files;
mod grafana;
