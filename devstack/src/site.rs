//! All that it takes to start a service, for the first time or again: its folder, its program, its ports, and the way to
//! tell that it serves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::clickhouse::EngineTrouble;
use crate::error::Doing;
use crate::folder::Folder;
use crate::parts::{self, Part};
use crate::port_book::{self, PortBook};
use crate::process::{Process, Spawner};
use crate::prometheus::Program;
use crate::service::Start;
use crate::{
    Endpoints, Ports, Progress, PrometheusFiles, Security, Service, StackError, StackOptions,
    clickhouse, clients, java, kafka, launch, logs, machine, ports, prometheus, registry,
};

/// Another program may take a port between our look at it and the service's.
const PORT_TRIES_MAX: usize = 4;

/// All that it takes to start a service, for the first time or again.
pub(crate) struct Site {
    pub(crate) folder: Folder,
    cache: Cache,
    executable: PathBuf,
    pub(crate) security: Option<Security>,
    gives_way: bool,
    /// What ClickHouse lacks.
    pub(crate) trouble: EngineTrouble,
    java: OnceCell<PathBuf>,
    /// None: this stack is not to have one.
    prometheus: Option<PrometheusFiles>,
    spawner: Spawner,
    progress: Arc<dyn Progress>,
}

impl Site {
    pub(crate) async fn open(
        options: &StackOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, StackError> {
        machine::check()?;
        let data_dir = options.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Folder::open(&data_dir)).await;
        let folder = opened
            .map_err(std::io::Error::other)
            .doing(|| "opening the data folder")??;
        for service in Service::all(ports::BROKERS_MAX as u8) {
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
            security: options.security.clone(),
            gives_way: options.gives_way,
            trouble: EngineTrouble::None,
            java: OnceCell::new_with(java),
            prometheus: options.prometheus.clone(),
            spawner,
            progress,
        })
    }

    /// How many brokers to start: a folder keeps the number that it was begun with.
    pub(crate) fn brokers(&self, wanted: Option<u8>) -> Result<u8, StackError> {
        let begun = kafka::brokers_begun(&self.folder.data(Service::Kafka(1)));
        match (begun, wanted) {
            (Some(begun), Some(wanted)) if begun != wanted => {
                let data_dir = self.folder.root().to_owned();
                Err(StackError::OtherBrokers { data_dir, begun })
            }
            _ => Ok(begun.or(wanted).unwrap_or(1)),
        }
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
            Service::Kafka(_) => {
                tokio::try_join!(self.cache.ensure(Part::Kafka), self.java()).map(drop)
            }
            Service::Registry => {
                tokio::try_join!(self.cache.ensure(Part::Registry), self.java()).map(drop)
            }
            Service::ClickHouse => self.cache.ensure(Part::Engine).await.map(drop),
            Service::Prometheus => self.prometheus().await.map(drop),
        }
    }

    /// Starts services that need one another, side by side, on the best ports that can be had, which are chosen only when
    /// they are about to be used.
    pub(crate) async fn start_anywhere(
        &self,
        services: &[Service],
        book: &PortBook,
    ) -> Result<(Vec<(Service, Process)>, Ports), StackError> {
        for service in services {
            self.install(*service).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let ports = book.take(services)?;
            let start = |service: &Service| self.start_timed(*service, ports);
            match try_join_all(services.iter().map(start)).await {
                Ok(started) => return Ok((started, ports)),
                Err(StackError::Died { service, .. })
                    if tries < PORT_TRIES_MAX && !port_book::are_free(service, &ports) =>
                {
                    self.progress.step(&format!(
                        "{service}: another program took its port, choosing another"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_timed(
        &self,
        service: Service,
        ports: Ports,
    ) -> Result<(Service, Process), StackError> {
        let began = Instant::now();
        let everybody = || ports.brokers();
        let process = self.start(service, &ports, &everybody).await?;
        let seconds = began.elapsed().as_secs_f64();
        self.progress
            .step(&format!("{service} serves after {seconds:.1} s"));
        Ok((service, process))
    }

    /// Starts a service and waits until it serves; `running` tells how many brokers do, the one that starts among them.
    pub(crate) async fn start(
        &self,
        service: Service,
        ports: &Ports,
        running: &(dyn Fn() -> u8 + Sync),
    ) -> Result<Process, StackError> {
        match service {
            Service::Kafka(broker) => self.start_kafka(broker, ports, running).await,
            Service::Registry => self.start_registry(ports).await,
            Service::ClickHouse => self.start_engine(ports).await,
            Service::Prometheus => self.start_prometheus(ports).await,
        }
    }

    async fn start_kafka(
        &self,
        broker: u8,
        ports: &Ports,
        running: &(dyn Fn() -> u8 + Sync),
    ) -> Result<Process, StackError> {
        let (java, (libs, _)) = tokio::try_join!(self.java(), self.cache.ensure(Part::Kafka))?;
        let service = Service::Kafka(broker);
        let (data, tmp) = (self.folder.data(service), self.folder.fresh_tmp(service)?);
        let log = self.folder.log(service);
        let start = Start {
            service,
            log: &log,
            spawner: &self.spawner,
        };
        let cluster = kafka::Cluster::on(ports, self.security.as_ref());
        let node = cluster.node(broker);
        let cluster_id = cluster.prepare(&data, node)?;
        let (node_data, class_path) = (node.data(&data), parts::kafka_class_path(&libs));
        if !node.is_formatted(&data) {
            let mut command = self.bound(&java);
            let security = self.security.as_ref();
            kafka::complete_format(
                &mut command,
                &class_path,
                &node_data,
                &tmp,
                &cluster_id,
                security,
            );
            start.run_to_end(command).await?;
        }
        let mut command = self.bound(&java);
        kafka::complete(&mut command, &class_path, &node_data, &tmp);
        start
            .serving(command, |_| cluster.probe(node, running(), &cluster_id))
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
        clickhouse::prepare(&data, self.security.as_ref(), self.trouble)?;
        let log = self.folder.log(Service::ClickHouse);
        let start = Start {
            service: Service::ClickHouse,
            log: &log,
            spawner: &self.spawner,
        };
        let library = parts::engine_library(&home);
        let mut command = launch::bound_engine(
            &self.executable,
            &self.folder.services_lock(),
            self.gives_way,
            &library,
        );
        clickhouse::complete(&mut command, &data, ports.clickhouse);
        let endpoints = Endpoints::on(ports);
        start
            .serving(command, |_| clickhouse::probe(&endpoints, &data))
            .await
    }

    /// Whether this stack is to have a Prometheus.
    pub(crate) fn wants_prometheus(&self) -> bool {
        self.prometheus.is_some()
    }

    /// The pinned one, else the machine's own.
    async fn prometheus(&self) -> Result<Program, StackError> {
        match self.cache.ensure(Part::Prometheus).await {
            Ok((home, _)) => Ok(Program::within(&home)),
            Err(error) => match clients::on_path("prometheus") {
                Some(path) => Ok(Program::found(path)),
                None => Err(error),
            },
        }
    }

    async fn start_prometheus(&self, ports: &Ports) -> Result<Process, StackError> {
        let program = self.prometheus().await?;
        let folder = self.folder.data(Service::Prometheus);
        if let Some(files) = &self.prometheus {
            prometheus::prepare(&folder, files)?;
        }
        let log = self.folder.log(Service::Prometheus);
        let start = Start {
            service: Service::Prometheus,
            log: &log,
            spawner: &self.spawner,
        };
        let mut command = self.bound(&program.path);
        prometheus::complete(&mut command, &program, &folder, ports.prometheus);
        let endpoints = Endpoints::on(ports);
        start
            .serving(command, |_| prometheus::probe(&endpoints, &folder))
            .await
    }

    fn bound(&self, program: &Path) -> Command {
        launch::bound_service(
            &self.executable,
            &self.folder.services_lock(),
            self.gives_way,
            program,
        )
    }
}
