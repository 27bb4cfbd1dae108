//! Who gets which port: services that start side by side never get the same one.

use std::sync::Mutex;

use crate::{Ports, Service, StackError, ports};

/// Gives out ports to services that start side by side, no port twice.
pub(crate) struct PortBook {
    /// Those of the last start on the folder, then those that the caller prefers.
    wishes: Vec<Ports>,
    given: Mutex<Vec<u16>>,
}

impl PortBook {
    pub(crate) fn new(last: Option<Ports>, preferred: Ports) -> Self {
        Self {
            wishes: last.into_iter().chain([preferred]).collect(),
            given: Mutex::default(),
        }
    }

    /// Free ports for these services, all others left at 0; other ones at each call.
    pub(crate) fn take(&self, services: &[Service]) -> Result<Ports, StackError> {
        let mut ports = Ports::free();
        for service in services {
            for (at, port) in of(*service, &mut ports).into_iter().enumerate() {
                let wishes = self.wishes.iter();
                let wishes: Vec<u16> = wishes
                    .map(|wish| *of(*service, &mut wish.clone())[at])
                    .collect();
                let mut given = self
                    .given
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                let none = || StackError::NoPort { service: *service };
                *port = ports::choose(&wishes, &given).ok_or_else(none)?;
                given.push(*port);
            }
        }
        Ok(ports)
    }
}

/// Whether nobody listens on a service's ports.
pub(crate) fn are_free(service: Service, ports: &Ports) -> bool {
    of(service, &mut ports.clone())
        .iter()
        .all(|port| ports::is_free(**port))
}

/// A service's own ports.
fn of(service: Service, ports: &mut Ports) -> Vec<&mut u16> {
    match service {
        Service::Kafka(broker) => {
            let at = usize::from(broker - 1);
            vec![
                &mut ports.kafka[at],
                &mut ports.controller[at],
                &mut ports.secure_kafka[at],
            ]
        }
        Service::Registry => vec![&mut ports.registry],
        Service::ClickHouse => vec![&mut ports.clickhouse],
        Service::Prometheus => vec![&mut ports.prometheus],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gets_ports_of_its_own_and_others_when_it_asks_again() {
        let book = PortBook::new(None, Ports::free());
        let services: Vec<_> = Service::all(3).collect();
        let mut given = Vec::new();
        for _ in 0..2 {
            let mut ports = book.take(&services).unwrap();
            for service in &services {
                assert!(are_free(*service, &ports));
                given.extend(of(*service, &mut ports).into_iter().map(|port| *port));
            }
        }
        assert_eq!(given.len(), 24);
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 24);
    }

    #[test]
    fn the_ports_of_the_last_start_come_before_the_preferred_ones() {
        let last = PortBook::new(None, Ports::free())
            .take(&[Service::Registry])
            .unwrap();
        let book = PortBook::new(Some(last), Ports::default());
        assert_eq!(
            book.take(&[Service::Registry]).unwrap().registry,
            last.registry
        );
    }

    #[test]
    fn a_single_broker_is_given_no_ports_of_others() {
        let ports = PortBook::new(None, Ports::free())
            .take(&[Service::Kafka(1)])
            .unwrap();
        assert_eq!((ports.kafka[1..].to_vec(), ports.registry), (vec![0, 0], 0));
    }
}
