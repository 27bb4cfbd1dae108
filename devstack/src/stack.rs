//! The whole stack: starts the services side by side, watches them, kills and restarts single ones for fault tests, and
//! stops all in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use crate::clickhouse::EngineTrouble;
use crate::port_book::PortBook;
use crate::process::Process;
use crate::site::Site;
use crate::{
    Endpoints, Ports, Progress, PrometheusFiles, Security, Service, StackError, prometheus,
};

/// Kafka and the registry need a second at most, rarely more.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Where a stack lives and what it is made with.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// The folder of all data; created if absent.
    pub data_dir: PathBuf,
    /// Where fetched parts are kept: by default `$ACTIVITY_CACHE_DIR`, else `$XDG_CACHE_HOME/activity`, else
    /// `~/.cache/activity`.
    pub cache_dir: Option<PathBuf>,
    /// The program whose `main` begins with [`crate::run_hidden_verb`]: our own.
    pub executable: PathBuf,
    /// The ports wanted where they are free; those of the last start on the folder come first.
    pub ports: Ports,
    /// Brokers of Kafka, 1 to 3. None: as many as the folder was begun with, one on a new folder.
    pub brokers: Option<u8>,
    /// TLS and users; None: whoever reaches a port is let in.
    pub security: Option<Security>,
    /// What Prometheus is to read and judge; None: the stack has none.
    pub prometheus: Option<PrometheusFiles>,
    /// Whether the services have a lower priority than what answers people on the same machine.
    pub gives_way: bool,
}

/// Kafka, the registry and ClickHouse, running; and Prometheus, if it was asked for and can be had. Dropping it kills them; [`Stack::stop`] is the orderly way.
pub struct Stack {
    /// Those that run; one that was killed or has died is not among them. First, so that a drop kills them before the folder
    /// is given up.
    processes: BTreeMap<Service, Process>,
    site: Site,
    ports: Ports,
    endpoints: Endpoints,
    no_prometheus: Option<StackError>,
}

impl Stack {
    /// Fetches what is missing and starts the services, side by side; returns when all serve: Kafka coordinates groups and
    /// all its brokers are in sync, the registry and ClickHouse answer queries. If this fails or is dropped, none of them
    /// stays.
    pub async fn start(
        options: StackOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, StackError> {
        let site = Site::open(&options, progress).await?;
        let brokers = site.brokers(options.brokers)?;
        let book = PortBook::new(site.folder.last_ports(), options.ports);
        let brokers: Vec<_> = (1..=brokers).map(Service::Kafka).collect();
        let (
            (kafka, on_kafka),
            (registry, on_registry),
            (engine, on_engine),
            (prometheus, on_prometheus, no_prometheus),
        ) = tokio::try_join!(
            site.start_anywhere(&brokers, &book),
            site.start_anywhere(&[Service::Registry], &book),
            site.start_anywhere(&[Service::ClickHouse], &book),
            start_prometheus(&site, &book)
        )?;
        let mut ports = Ports {
            registry: on_registry.registry,
            clickhouse: on_engine.clickhouse,
            prometheus: on_prometheus.prometheus,
            ..on_kafka
        };
        if site.security.is_none() {
            ports.secure_kafka.fill(0);
        }
        let endpoints = Endpoints::on(&ports);
        site.folder.publish(&ports, &endpoints)?;
        Ok(Self {
            site,
            ports,
            endpoints,
            no_prometheus,
            processes: [kafka, registry, engine, prometheus]
                .into_iter()
                .flatten()
                .collect(),
        })
    }

    /// Where clients find the services; the same for the stack's whole life.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Why there is no Prometheus although it was asked for.
    pub fn no_prometheus(&self) -> Option<&StackError> {
        self.no_prometheus.as_ref()
    }

    /// Tells Prometheus, where there is one, whose metrics to read from now on.
    pub fn scrape(&self, groups: &[(&str, SocketAddr)]) -> Result<(), StackError> {
        if self.endpoints.prometheus.is_none() {
            return Ok(());
        }
        prometheus::write_targets(&self.site.folder.data(Service::Prometheus), groups)
    }

    /// All services of this stack, those among them that are down.
    pub fn services(&self) -> impl Iterator<Item = Service> + use<> {
        let has_prometheus = self.endpoints.prometheus.is_some();
        Service::all(self.ports.brokers())
            .filter(move |service| has_prometheus || *service != Service::Prometheus)
    }

    /// The process of a service; None while it is down.
    pub fn process_id(&self, service: Service) -> Option<u32> {
        self.processes.get(&service).map(Process::id)
    }

    /// The log file of a service.
    pub fn log(&self, service: Service) -> PathBuf {
        self.site.folder.log(service)
    }

    /// Kills a service with SIGKILL and returns when it is gone. It stays down until [`Stack::restart`].
    pub async fn kill(&mut self, service: Service) -> Result<(), StackError> {
        if let Some(mut process) = self.processes.remove(&service) {
            process.kill().await;
        }
        Ok(())
    }

    /// Starts a service again on its ports and its data, after stopping it if it runs; returns when it serves. A broker
    /// serves when it is a member of its cluster and, if all others run, all are in sync; it cannot while fewer than half
    /// of the others run, and is not waited for then.
    pub async fn restart(&mut self, service: Service) -> Result<(), StackError> {
        assert!(
            self.services().any(|ours| ours == service),
            "this stack has no {service}"
        );
        if let Some(process) = self.processes.remove(&service) {
            end(service, process).await;
        }
        let others = &self.processes;
        let running = || 1 + running_brokers(others);
        let process = self.site.start(service, &self.ports, &running).await?;
        self.processes.insert(service, process);
        Ok(())
    }

    /// Starts ClickHouse again so that it lacks something; the next call with [`EngineTrouble::None`] mends it.
    pub async fn restart_engine(&mut self, trouble: EngineTrouble) -> Result<(), StackError> {
        self.site.trouble = trouble;
        self.restart(Service::ClickHouse).await
    }

    /// Waits until a service dies by itself and says which, and how if that is known; each death is told once. Waits for
    /// ever while all are well or down on purpose. Cancel-safe.
    pub async fn supervise(&mut self) -> (Service, Option<ExitStatus>) {
        let watch = |(service, process)| watch(service, process);
        let ended = self.processes.iter_mut().map(watch);
        let ended = ended.collect::<FuturesUnordered<_>>().next().await;
        let Some((died, status)) = ended else {
            return std::future::pending().await;
        };
        self.processes.remove(&died);
        (died, status)
    }

    /// Stops all services in order, side by side: within a second, or 5 s while a client keeps an idle connection to
    /// ClickHouse open; with SIGKILL those that do not heed.
    pub async fn stop(self) -> Result<(), StackError> {
        let ends = self.processes.into_iter();
        join_all(ends.map(|(service, process)| end(service, process))).await;
        Ok(())
    }
}

type Started = (Vec<(Service, Process)>, Ports, Option<StackError>);

/// Nothing else needs Prometheus: what keeps it from running is told, and keeps nothing else from it.
async fn start_prometheus(site: &Site, book: &PortBook) -> Result<Started, StackError> {
    if !site.wants_prometheus() {
        return Ok((Vec::new(), Ports::free(), None));
    }
    let started = site.start_anywhere(&[Service::Prometheus], book).await;
    Ok(match started {
        Ok((processes, ports)) => (processes, ports, None),
        Err(error) => (Vec::new(), Ports::free(), Some(error)),
    })
}

async fn watch(service: &Service, process: &mut Process) -> (Service, Option<ExitStatus>) {
    (*service, process.wait().await)
}

/// Brokers that have not ended, be it that nobody was told yet.
fn running_brokers(processes: &BTreeMap<Service, Process>) -> u8 {
    let is_broker = |service: &Service| matches!(service, Service::Kafka(_));
    let running = processes
        .iter()
        .filter(|(service, process)| is_broker(service) && process.ended().is_none());
    u8::try_from(running.count()).unwrap_or(u8::MAX)
}

async fn end(service: Service, mut process: Process) {
    match service {
        Service::Kafka(_) | Service::Registry | Service::Prometheus => {
            process.terminate(STOP_PATIENCE).await;
        }
        // Any signal could fall between a deduplication token and its part; the end of its stdin never does.
        Service::ClickHouse => process.close_stdin(STOP_PATIENCE).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_may_be_moved_to_another_thread() {
        fn is_send<T: Send>(_: &T) {}
        let options = StackOptions {
            data_dir: PathBuf::new(),
            cache_dir: None,
            executable: PathBuf::new(),
            ports: Ports::free(),
            brokers: None,
            security: None,
            prometheus: None,
            gives_way: true,
        };
        is_send(&Stack::start(options, Arc::new(crate::Silent)));
    }
}
