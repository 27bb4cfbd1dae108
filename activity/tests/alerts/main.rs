//! The alerts: each is fired on the real Prometheus by the fault that it is for, on the real services, and cleared when that is over; and what can be said of the
//! rules without services. One test at a time on a stack, since alerts speak of groups by their names, which are the same in each test's world; a few stacks side
//! by side, since most of the time is waiting.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod fires;
mod rules;
mod short;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};

use activity_devstack::{Ports, PrometheusFiles, Silent, Stack, StackOptions};
use support::{ACTIVITY, Consumer, World, scratch};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, Semaphore};
use watch::Watch;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
});
const STACKS_MAX: usize = 3;
/// Tests that may have a stack now.
static PLACES: Semaphore = Semaphore::const_new(STACKS_MAX);
/// Stacks that no test has now. They live as long as this process; the services die with it.
static FREE: Mutex<Vec<Stack>> = Mutex::const_new(Vec::new());

async fn start(name: &str) -> Stack {
    let data_dir = scratch(&format!("alerts-{name}"));
    std::fs::remove_dir_all(&data_dir).unwrap();
    let files = PrometheusFiles {
        config: include_str!("../../../prometheus/prometheus.yml").replace("5s", "1s"),
        rules: short::shortened(include_str!("../../../prometheus/alerts.yml")),
    };
    let options = StackOptions {
        data_dir,
        cache_dir: None,
        executable: ACTIVITY.into(),
        ports: Ports::free(),
        brokers: Some(1),
        security: None,
        prometheus: Some(files),
        gives_way: true,
    };
    let stack = Stack::start(options, Arc::new(Silent)).await.unwrap();
    let absent = stack.no_prometheus().map(ToString::to_string);
    assert_eq!(absent, None, "without Prometheus there is no alert to test");
    stack
}

/// What a test works with.
pub struct Scene<'a> {
    pub stack: &'a mut Stack,
    pub world: World,
    pub watch: Watch,
}

impl Scene<'_> {
    /// Starts a process of a group whose metrics Prometheus reads at `address`.
    pub fn consume(&self, group: &str, address: SocketAddr, more: &[&str]) -> Consumer {
        let address = address.to_string();
        let arguments: Vec<&str> = ["--metrics", &address]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        self.world.consume(&[group], &arguments)
    }
}

/// Runs a test in a world of its own, whose topics are made if they have partitions, while no other test runs on that stack.
pub fn on_stack(name: &str, partitions: u16, test: impl AsyncFnOnce(Scene<'_>)) {
    RUNTIME.block_on(async {
        let _place = PLACES.acquire().await.unwrap();
        let free = FREE.lock().await.pop();
        let mut stack = match free {
            Some(stack) => stack,
            None => start(name).await,
        };
        stack.scrape(&[]).unwrap();
        let endpoints = stack.endpoints().clone();
        let world = match partitions {
            0 => World::empty(&endpoints, name),
            partitions => World::new(&endpoints, name, partitions).await,
        };
        let watch = Watch::new(&endpoints.prometheus.unwrap());
        test(Scene {
            stack: &mut stack,
            world,
            watch,
        })
        .await;
        // One that a test panicked over is gone with it.
        FREE.lock().await.push(stack);
    });
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}
