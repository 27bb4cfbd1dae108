//! What can be known of docker-compose.yml, the Dockerfile and ClickHouse's users without Docker: the file against the specification's schema, every path and
//! variable that it names, and the users in the real engine.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod compose;
#[path = "../support/mod.rs"]
mod support;
mod users;

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
