//! The whole stack: starts the services side by side, watches them, kills and restarts single ones for fault tests, and
//! stops all in order.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::clickhouse::EngineTrouble;
use crate::error::Doing;
use crate::folder::Folder;
use crate::kafka::Node;
use crate::parts::{self, Part};
use crate::process::{Process, Spawner};
use crate::service::Start;
use crate::{
    Endpoints, Ports, Progress, Service, StackError, clickhouse, java, kafka, launch, logs,
    machine, ports, registry,
};

/// Kafka and the registry need a second at most, rarely more.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Another program may take a port between our look at it and the service's.
const PORT_TRIES_MAX: usize = 4;

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
}

/// Kafka, the registry and ClickHouse, running. Dropping it kills them; [`Stack::stop`] is the orderly way.
pub struct Stack {
    /// By `Service as usize`; None where a service was killed or has died. First, so that a drop kills them before the
    /// folder is given up.
    slots: [Option<Process>; 3],
    site: Site,
    ports: Ports,
    endpoints: Endpoints,
}

impl Stack {
    /// Fetches what is missing and starts the services, side by side; returns when all three serve: Kafka coordinates
    /// groups, the registry and ClickHouse answer queries. If this fails or is dropped, none of them stays.
    pub async fn start(
        options: StackOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, StackError> {
        let site = Site::open(&options, progress).await?;
        let book = PortBook::new(site.folder.last_ports(), options.ports);
        let ((kafka, on_kafka), (registry, on_registry), (engine, on_engine)) = tokio::try_join!(
            site.start_anywhere(Service::Kafka, &book),
            site.start_anywhere(Service::Registry, &book),
            site.start_anywhere(Service::ClickHouse, &book)
        )?;
        let ports = Ports {
            registry: on_registry.registry,
            clickhouse: on_engine.clickhouse,
            ..on_kafka
        };
        let endpoints = Endpoints::on(&ports);
        site.folder.publish(&ports, &endpoints)?;
        Ok(Self {
            site,
            ports,
            endpoints,
            slots: [Some(kafka), Some(registry), Some(engine)],
        })
    }

    /// Where clients find the services; the same for the stack's whole life.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The process of a service; None while it is down.
    pub fn process_id(&self, service: Service) -> Option<u32> {
        self.slots[service as usize].as_ref().map(Process::id)
    }

    /// The log file of a service.
    pub fn log(&self, service: Service) -> PathBuf {
        self.site.folder.log(service)
    }

    /// Kills a service with SIGKILL and returns when it is gone. It stays down until [`Stack::restart`].
    pub async fn kill(&mut self, service: Service) -> Result<(), StackError> {
        if let Some(mut process) = self.slots[service as usize].take() {
            process.kill().await;
        }
        Ok(())
    }

    /// Starts a service again on its ports and its data, after stopping it if it runs; returns when it serves.
    pub async fn restart(&mut self, service: Service) -> Result<(), StackError> {
        if let Some(process) = self.slots[service as usize].take() {
            end(service, process).await;
        }
        self.slots[service as usize] = Some(self.site.start(service, &self.ports).await?);
        Ok(())
    }

    /// Starts ClickHouse again so that it lacks something; the next restart with [`EngineTrouble::None`] mends it.
    pub async fn restart_engine(&mut self, trouble: EngineTrouble) -> Result<(), StackError> {
        self.site.trouble = trouble;
        self.restart(Service::ClickHouse).await
    }

    /// Waits until a service dies by itself and says which, and how if that is known; each death is told once. Waits for
    /// ever while all are well or down on purpose. Cancel-safe.
    pub async fn supervise(&mut self) -> (Service, Option<ExitStatus>) {
        let [kafka, registry, engine] = &mut self.slots;
        let (died, status) = tokio::select! {
            status = ended(kafka) => (Service::Kafka, status),
            status = ended(registry) => (Service::Registry, status),
            status = ended(engine) => (Service::ClickHouse, status),
        };
        self.slots[died as usize] = None;
        (died, status)
    }

    /// Stops all services in order, side by side: within a second, or 5 s while a client keeps an idle connection to
    /// ClickHouse open; with SIGKILL those that do not heed.
    pub async fn stop(self) -> Result<(), StackError> {
        let [kafka, registry, engine] = self.slots;
        tokio::join!(
            end_if_running(Service::Kafka, kafka),
            end_if_running(Service::Registry, registry),
            end_if_running(Service::ClickHouse, engine)
        );
        Ok(())
    }
}

async fn ended(slot: &mut Option<Process>) -> Option<ExitStatus> {
    match slot {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

async fn end_if_running(service: Service, process: Option<Process>) {
    if let Some(process) = process {
        end(service, process).await;
    }
}

async fn end(service: Service, mut process: Process) {
    match service {
        Service::Kafka | Service::Registry => process.terminate(STOP_PATIENCE).await,
        // Any signal could fall between a deduplication token and its part; the end of its stdin never does.
        Service::ClickHouse => process.close_stdin(STOP_PATIENCE).await,
    }
}

/// All that it takes to start a service, for the first time or again.
struct Site {
    folder: Folder,
    cache: Cache,
    executable: PathBuf,
    java: OnceCell<PathBuf>,
    trouble: EngineTrouble,
    spawner: Spawner,
    progress: Arc<dyn Progress>,
}

impl Site {
    async fn open(options: &StackOptions, progress: Arc<dyn Progress>) -> Result<Self, StackError> {
        machine::check()?;
        let data_dir = options.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Folder::open(&data_dir)).await;
        let folder = opened
            .map_err(std::io::Error::other)
            .doing(|| "opening the data folder")??;
        for service in Service::ALL {
            let log = folder.log(service);
            logs::rotate(&log).doing(|| format!("rotating {}", log.display()))?;
        }
        let spawner = Spawner::new().doing(|| "starting a thread")?;
        let executable = options.executable.clone();
        let cache_dir = options.cache_dir.clone();
        let cache = Cache::new(
            cache_dir,
            spawner.clone(),
            Some(executable.clone()),
            Arc::clone(&progress),
        )?;
        let java = java::find();
        cache.check_clients(java.is_none())?;
        Ok(Self {
            folder,
            cache,
            executable,
            java: OnceCell::new_with(java),
            trouble: EngineTrouble::None,
            spawner,
            progress,
        })
    }

    /// The Java found on this machine, else the fetched one.
    async fn java(&self) -> Result<PathBuf, StackError> {
        let fetch = || async {
            self.cache
                .ensure(Part::Java)
                .await
                .map(|(home, _)| java::program(&home))
        };
        self.java.get_or_try_init(fetch).await.cloned()
    }

    /// Fetches what a service runs on.
    async fn install(&self, service: Service) -> Result<(), StackError> {
        match service {
            Service::Kafka => {
                tokio::try_join!(self.cache.ensure(Part::Kafka), self.java()).map(drop)
            }
            Service::Registry => {
                tokio::try_join!(self.cache.ensure(Part::Registry), self.java()).map(drop)
            }
            Service::ClickHouse => self.cache.ensure(Part::Engine).await.map(drop),
        }
    }

    /// Starts a service on the best ports that can be had, which are chosen only when they are about to be used.
    async fn start_anywhere(
        &self,
        service: Service,
        book: &PortBook,
    ) -> Result<(Process, Ports), StackError> {
        self.install(service).await?;
        let began = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let ports = book.take(service)?;
            match self.start(service, &ports).await {
                Ok(process) => {
                    let seconds = began.elapsed().as_secs_f64();
                    self.progress
                        .step(&format!("{service} serves after {seconds:.1} s"));
                    return Ok((process, ports));
                }
                Err(StackError::Died { .. })
                    if tries < PORT_TRIES_MAX && !book.are_free(service, &ports) =>
                {
                    self.progress.step(&format!(
                        "{service}: another program took its port, choosing another"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start(&self, service: Service, ports: &Ports) -> Result<Process, StackError> {
        match service {
            Service::Kafka => self.start_kafka(ports).await,
            Service::Registry => self.start_registry(ports).await,
            Service::ClickHouse => self.start_engine(ports).await,
        }
    }

    async fn start_kafka(&self, ports: &Ports) -> Result<Process, StackError> {
        let (java, (libs, _)) = tokio::try_join!(self.java(), self.cache.ensure(Part::Kafka))?;
        let (data, tmp) = (
            self.folder.data(Service::Kafka),
            self.folder.fresh_tmp(Service::Kafka)?,
        );
        let log = self.folder.log(Service::Kafka);
        let start = Start {
            service: Service::Kafka,
            log: &log,
            spawner: &self.spawner,
        };
        let node = Node {
            id: 1,
            port: ports.kafka,
            controller_port: ports.controller,
        };
        let cluster_id = kafka::prepare(&data, &node, std::slice::from_ref(&node))?;
        let (node_data, class_path) = (node.data(&data), parts::kafka_class_path(&libs));
        if !node.is_formatted(&data) {
            let mut command = self.bound(&java);
            kafka::complete_format(&mut command, &class_path, &node_data, &tmp, &cluster_id);
            start.run_to_end(command).await?;
        }
        let mut command = self.bound(&java);
        kafka::complete(&mut command, &class_path, &node_data, &tmp);
        let address = Endpoints::on(ports).kafka;
        start
            .serving(command, |_| kafka::probe(&address, &cluster_id))
            .await
    }

    async fn start_registry(&self, ports: &Ports) -> Result<Process, StackError> {
        let (java, (home, _)) = tokio::try_join!(self.java(), self.cache.ensure(Part::Registry))?;
        let (data, tmp) = (
            self.folder.data(Service::Registry),
            self.folder.fresh_tmp(Service::Registry)?,
        );
        std::fs::create_dir_all(&data).doing(|| format!("creating {}", data.display()))?;
        let log = self.folder.log(Service::Registry);
        let start = Start {
            service: Service::Registry,
            log: &log,
            spawner: &self.spawner,
        };
        let mut command = self.bound(&java);
        registry::complete(&mut command, &home, &data, &tmp, ports.registry);
        let endpoints = Endpoints::on(ports);
        start
            .serving(command, |from| {
                registry::probe(&endpoints, ports.registry, &log, from)
            })
            .await
    }

    async fn start_engine(&self, ports: &Ports) -> Result<Process, StackError> {
        let (home, _) = self.cache.ensure(Part::Engine).await?;
        let data = self.folder.data(Service::ClickHouse);
        clickhouse::prepare(&data, self.trouble)?;
        let log = self.folder.log(Service::ClickHouse);
        let start = Start {
            service: Service::ClickHouse,
            log: &log,
            spawner: &self.spawner,
        };
        let library = parts::engine_library(&home);
        let mut command =
            launch::bound_engine(&self.executable, &self.folder.services_lock(), &library);
        clickhouse::complete(&mut command, &data, ports.clickhouse);
        let endpoints = Endpoints::on(ports);
        start
            .serving(command, |_| clickhouse::probe(&endpoints, &data))
            .await
    }

    fn bound(&self, program: &std::path::Path) -> Command {
        launch::bound(
            &self.executable,
            Some(&self.folder.services_lock()),
            program,
        )
    }
}

/// Gives out ports to services that start side by side, no port twice.
struct PortBook {
    /// Those of the last start on the folder, then those that the caller prefers.
    wishes: Vec<Ports>,
    given: Mutex<Vec<u16>>,
}

impl PortBook {
    fn new(last: Option<Ports>, preferred: Ports) -> Self {
        Self {
            wishes: last.into_iter().chain([preferred]).collect(),
            given: Mutex::default(),
        }
    }

    /// Free ports for one service, the others left at 0; other ones at each call.
    fn take(&self, service: Service) -> Result<Ports, StackError> {
        let mut ports = Ports::free();
        for field in Self::fields(service) {
            let wishes: Vec<u16> = self
                .wishes
                .iter()
                .map(|wish| *field(&mut wish.clone()))
                .collect();
            let mut given = self
                .given
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let port = ports::choose(&wishes, &given).ok_or(StackError::NoPort { service })?;
            given.push(port);
            *field(&mut ports) = port;
        }
        Ok(ports)
    }

    fn are_free(&self, service: Service, ports: &Ports) -> bool {
        Self::fields(service)
            .iter()
            .all(|field| ports::is_free(*field(&mut ports.clone())))
    }

    fn fields(service: Service) -> &'static [fn(&mut Ports) -> &mut u16] {
        match service {
            Service::Kafka => &[|ports| &mut ports.kafka, |ports| &mut ports.controller],
            Service::Registry => &[|ports| &mut ports.registry],
            Service::ClickHouse => &[|ports| &mut ports.clickhouse],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gets_ports_of_its_own_and_others_when_it_asks_again() {
        let book = PortBook::new(None, Ports::free());
        let mut given = Vec::new();
        for service in Service::ALL.into_iter().cycle().take(6) {
            let mut ports = book.take(service).unwrap();
            assert!(book.are_free(service, &ports));
            given.extend(
                PortBook::fields(service)
                    .iter()
                    .map(|field| *field(&mut ports)),
            );
        }
        assert_eq!(given.len(), 8);
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 8);
    }

    #[test]
    fn the_ports_of_the_last_start_come_before_the_preferred_ones() {
        let last = PortBook::new(None, Ports::free())
            .take(Service::Registry)
            .unwrap();
        let book = PortBook::new(Some(last), Ports::default());
        assert_eq!(
            book.take(Service::Registry).unwrap().registry,
            last.registry
        );
    }

    #[test]
    fn a_start_may_be_moved_to_another_thread() {
        fn is_send<T: Send>(_: &T) {}
        let options = StackOptions {
            data_dir: PathBuf::new(),
            cache_dir: None,
            executable: PathBuf::new(),
            ports: Ports::free(),
        };
        is_send(&Stack::start(options, Arc::new(crate::Silent)));
    }
}
