//! The real services without Docker, as child processes: Apache Kafka, Apicurio Registry, the ClickHouse engine, and Prometheus where it is asked for.
//!
//! [`Stack::start`] fetches what is not there yet (pinned, through the machine's own package clients), starts them on
//! loopback with all data under one folder, and returns when they serve. They die with this process however it ends,
//! and [`Stack::stop`] ends them in order. The same folder started again has all its data.
//!
//! The services are started through hidden verbs of the program that uses this library, so its `main` begins with
//! [`run_hidden_verb`]; `examples/stack.rs` is a whole program.

mod apt;
mod browser;
mod cache;
mod clickhouse;
mod clients;
mod error;
mod folder;
mod java;
mod kafka;
mod launch;
mod logs;
mod machine;
mod memory;
mod parts;
mod port_book;
mod ports;
mod process;
mod progress;
mod prometheus;
mod registry;
mod security;
mod service;
mod site;
mod stack;

pub use browser::{Browser, browser};
pub use cache::{Downloads, PartDownload, chart_library, kafka_tool, prefetch, promtool};
pub use clickhouse::{EngineTrouble, TROUBLED_USER, VIEWER_USER};
pub use error::StackError;
pub use folder::{erase, find_running};
pub use launch::{bound, run_hidden_verb};
pub use logs::rotate as rotate_log;
pub use memory::memory_of_running;
pub use ports::Ports;
pub use process::{Process, Spawner};
pub use progress::{Progress, Silent, Stderr};
pub use prometheus::PrometheusFiles;
pub use security::{Security, User};
pub use service::{Endpoints, Service};
pub use stack::{Stack, StackOptions};
