//! Which ports the services listen on: the well-known ones where they are free, else others, and the same ones again at
//! the next start on a folder, so that what a user has written down stays true.
//!
//! Free ports are taken from below the kernel's ephemeral range. A port inside it can be taken at any moment as the
//! source port of an outgoing connection, even of a client that tries to reach the very service that restarts on it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use serde::{Deserialize, Serialize};

const LOWEST_FREE_PORT: u16 = 10_000;
const USUAL_EPHEMERAL_START: u16 = 32_768;
const TRIES_MAX: usize = 200;

/// The most brokers that a stack has.
pub(crate) const BROKERS_MAX: usize = 3;

/// The ports that a stack prefers on 127.0.0.1; 0 stands for any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Kafka's clients, by broker: a stack of one broker uses the first alone.
    pub kafka: [u16; BROKERS_MAX],
    /// Kafka's own controllers, by broker.
    pub controller: [u16; BROKERS_MAX],
    /// Kafka's clients over TLS, by broker, where the stack has such listeners.
    #[serde(default)]
    pub secure_kafka: [u16; BROKERS_MAX],
    /// The schema registry's HTTP.
    pub registry: u16,
    /// ClickHouse's HTTP.
    pub clickhouse: u16,
    /// Prometheus's HTTP, where the stack has one.
    #[serde(default)]
    pub prometheus: u16,
}

impl Default for Ports {
    /// The well-known ports.
    fn default() -> Self {
        Self {
            kafka: [9092, 9094, 9096],
            controller: [9093, 9095, 9097],
            secure_kafka: [9194, 9196, 9198],
            registry: 8081,
            clickhouse: 8123,
            prometheus: 9090,
        }
    }
}

impl Ports {
    /// Any free ports: for tests, and for stacks that shall not take the well-known ones.
    pub fn free() -> Self {
        Self {
            kafka: [0; BROKERS_MAX],
            controller: [0; BROKERS_MAX],
            secure_kafka: [0; BROKERS_MAX],
            registry: 0,
            clickhouse: 0,
            prometheus: 0,
        }
    }
}

impl Ports {
    /// How many brokers have a port.
    pub(crate) fn brokers(&self) -> u8 {
        let brokers = self.kafka.iter().filter(|port| **port != 0).count();
        u8::try_from(brokers).unwrap_or(u8::MAX)
    }
}

/// Takes the first of `preferred` that can be had, else any free port; never one of `taken`.
pub(crate) fn choose(preferred: &[u16], taken: &[u16]) -> Option<u16> {
    let below = ephemeral_start();
    let any = std::iter::repeat_with(|| random_port(LOWEST_FREE_PORT, below)).take(TRIES_MAX);
    first_fit(preferred.iter().copied().chain(any), taken, is_free)
}

fn first_fit(
    mut candidates: impl Iterator<Item = u16>,
    taken: &[u16],
    is_free: impl Fn(u16) -> bool,
) -> Option<u16> {
    candidates.find(|port| *port != 0 && !taken.contains(port) && is_free(*port))
}

/// True when a listener could be bound on 127.0.0.1.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_start() -> u16 {
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let start = range
        .split_whitespace()
        .next()
        .and_then(|start| start.parse().ok());
    start
        .filter(|start| *start > LOWEST_FREE_PORT + 1000)
        .unwrap_or(USUAL_EPHEMERAL_START)
}

fn random_port(from: u16, below: u16) -> u16 {
    let offset = random_u64() % u64::from(below - from);
    from + u16::try_from(offset).unwrap_or(0)
}

/// A number nobody else draws at the same time. The standard library's hasher is seeded by the operating system, which
/// spares a dependency.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_preferred_port_that_is_free_is_taken() {
        assert_eq!(
            first_fit([9092, 10_001].into_iter(), &[], |_| true),
            Some(9092)
        );
        assert_eq!(
            first_fit([9092, 10_001].into_iter(), &[], |port| port != 9092),
            Some(10_001)
        );
    }

    #[test]
    fn zero_and_ports_already_given_to_a_neighbour_are_passed_over() {
        assert_eq!(
            first_fit([0, 9092, 10_001].into_iter(), &[9092], |_| true),
            Some(10_001)
        );
        assert_eq!(first_fit([0, 0].into_iter(), &[], |_| true), None);
    }

    #[test]
    fn a_port_with_a_listener_is_not_free_and_another_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let chosen = choose(&[port], &[]).unwrap();
        assert_ne!(chosen, port);
        assert!((LOWEST_FREE_PORT..ephemeral_start()).contains(&chosen));
    }
}
