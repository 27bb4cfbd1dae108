//! Tests on one real stack: Kafka, registry and ClickHouse, started once. Each test has topics, groups and a database of its own.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod analytics;
mod commands;
mod dashboards;
mod dead_letters;
mod delivery;
mod dictionary;
mod evolution;
mod flow;
mod foreign;
mod forget;
mod fraud;
mod look_up;
mod malformed;
mod new_group;
mod publish;
mod rewind;
mod schemas;
mod shell;
mod status;
mod tables;
mod tail;
mod verify;

use std::sync::{LazyLock, OnceLock};

use activity_devstack::{Endpoints, Stack};
use support::{World, fresh_stack};
use tokio::runtime::Runtime;

/// All tests share it, because the stack's own tasks live on it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
});
/// Lives as long as this process; the services die with it.
static STACK: OnceLock<Stack> = OnceLock::new();

fn endpoints() -> Endpoints {
    STACK
        .get_or_init(|| RUNTIME.block_on(fresh_stack("services")))
        .endpoints()
        .clone()
}

/// Runs a test in a world of its own.
fn in_world<F: Future<Output = ()>>(name: &str, partitions: u16, test: impl FnOnce(World) -> F) {
    let endpoints = endpoints();
    RUNTIME.block_on(async { test(World::new(&endpoints, name, partitions).await).await });
}
