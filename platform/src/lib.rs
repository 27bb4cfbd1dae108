//! How a process of ours meets the outside: settings, Kafka, registry and ClickHouse clients, metrics, logs, health.
//!
//! Every address and name comes from [`settings`]; every other member gets clients from here and never reads the environment itself.

pub mod advice;
pub mod clickhouse;
pub mod fault;
pub mod health;
mod http;
pub mod kafka;
pub mod logs;
pub mod metrics;
pub mod metrics_page;
pub mod registry;
pub mod security;
pub mod settings;
mod slice;
pub mod stop;
