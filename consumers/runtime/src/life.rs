//! The lives of a group's process: one for each epoch that the group is in while it runs.
//!
//! Nobody writes in a group's name while a rewind of it is unfinished. A process that comes then waits; one that runs sees the rewind announced, settles what it
//! has, leaves its Kafka group and waits too, and goes on by itself in the epoch that the group then is in.

use std::time::Duration;

use activity_consumers::{Group, Models};
use activity_platform::clickhouse::Database;
use activity_platform::health::Readiness;
use activity_platform::kafka;
use rdkafka::consumer::Consumer as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;
use crate::driver::{Clients, Driver, RunError};
use crate::memory;
use crate::models;
use crate::rewinds::Rewinds;
use crate::settings::RuntimeSettings;
use crate::standing::{Role, Standing};

/// A group's process looks this often whether it is to step aside for a rewind.
const REWIND_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A run of a group that reads again, for a rewind.
#[derive(Clone, Debug)]
pub struct Reread {
    /// Its own consumer group in Kafka, so that the group's offsets stay as they are.
    pub group_id: String,
    /// Stands behind the names of the tables that it writes.
    pub table_suffix: &'static str,
}

/// In whose name a driver works, as long as that stands.
pub(crate) struct Life {
    pub(crate) role: Role,
    pub(crate) group_id: String,
    pub(crate) table_suffix: &'static str,
    pub(crate) rewinds: Rewinds,
    /// Cancelled when the process is to stop, and when somebody else may write from now on.
    pub(crate) over: CancellationToken,
}

/// Runs one group until `stop` is cancelled or an error ends it. Blocking: give it a thread of its own; `runtime` carries its inserts.
///
/// # Errors
/// [`RunError`] where trying again would not help. What comes and goes (brokers, registry, ClickHouse) is waited for.
pub fn run(
    group: &'static Group,
    settings: RuntimeSettings,
    clients: &Clients,
    runtime: Handle,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let group_id = format!("{}{}", clients.targets.kafka.group_prefix, group.name);
    let database = Database::new(&clients.targets.clickhouse)?;
    // One life for each epoch: while the group is rewound, it steps aside and waits.
    while !stop.is_cancelled() {
        clients.readiness.not_ready(group.name, "joining the group");
        let tables = group.tables.iter().map(|table| table.name);
        clients.metrics.begin(group.name, tables);
        let waiting = wait_for_role(Role::Live, &database, group.name, &clients.readiness, stop);
        let Some(rewinds) = runtime.block_on(waiting) else {
            break;
        };
        let life = Life {
            role: Role::Live,
            group_id: group_id.clone(),
            table_suffix: "",
            rewinds,
            over: stop.child_token(),
        };
        let watching = watch_role(database.clone(), group.name, life.over.clone());
        let _watch = AbortOnDrop(runtime.spawn(watching));
        live(group, settings.clone(), clients, &runtime, life)?;
    }
    Ok(())
}

/// Runs one group once more for a rewind that is in its reading phase, into other tables and under another Kafka group, until `stop` is cancelled or the rewind
/// is not in that phase any more. Blocking, as [`run`] is.
///
/// # Errors
/// As [`run`].
pub fn reread(
    group: &'static Group,
    settings: RuntimeSettings,
    clients: &Clients,
    runtime: Handle,
    reread: Reread,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let database = Database::new(&clients.targets.clickhouse)?;
    let waiting = wait_for_role(
        Role::Rewind,
        &database,
        group.name,
        &clients.readiness,
        stop,
    );
    let Some(rewinds) = runtime.block_on(waiting) else {
        return Ok(());
    };
    let life = Life {
        role: Role::Rewind,
        group_id: reread.group_id,
        table_suffix: reread.table_suffix,
        rewinds,
        over: stop.child_token(),
    };
    live(group, settings, clients, &runtime, life)
}

fn live(
    group: &'static Group,
    mut settings: RuntimeSettings,
    clients: &Clients,
    runtime: &Handle,
    life: Life,
) -> Result<(), RunError> {
    memory::keep_buffers();
    let stop = life.over.clone();
    let database = Database::new(&clients.targets.clickhouse)?;
    settings.models = Models::default();
    runtime.block_on(models::begin(
        &database,
        group.name,
        &settings.models,
        &stop,
    ));
    let keeping = models::keep(database, group.name, settings.models.clone());
    let _keep = AbortOnDrop(runtime.spawn(keeping));
    let mut driver = Driver::new(group, settings, clients, runtime.clone(), life)?;
    let names: Vec<&str> = driver
        .topics
        .iter()
        .map(|(_, name)| name.as_ref())
        .collect();
    driver
        .consumer
        .subscribe(&names)
        .map_err(kafka::Error::from)?;
    let mut outcome = Ok(());
    while !stop.is_cancelled() && outcome.is_ok() {
        outcome = driver.turn();
    }
    driver.end_look_up();
    if outcome.is_ok() {
        driver.shut_down();
    }
    // What is still being opened would keep the consumer, and with it the membership, alive.
    driver.drop_lanes();
    outcome
}

/// Waits until the process may write in this role. ClickHouse may come later than we do, and a rewind may be under way.
async fn wait_for_role(
    role: Role,
    database: &Database,
    group: &str,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Option<Rewinds> {
    let mut attempt = 0;
    let mut said = None;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return None,
            asked = Standing::of(database, group) => asked,
        };
        match asked {
            Ok(standing) => match standing.rewinds(role) {
                Some(rewinds) => return Some(rewinds),
                // For one that rereads there is nothing to come back to.
                None if role == Role::Rewind => return None,
                None => {
                    let why = standing.why_not(group);
                    if said.as_ref() != Some(&why) {
                        tracing::warn!(group, "{why}");
                    }
                    readiness.not_ready(group, why.clone());
                    said = Some(why);
                    attempt = 3;
                }
            },
            Err(error) => {
                attempt += 1;
                if attempt == 1 {
                    tracing::warn!(group, %error, "waiting for clickhouse; if the database is missing run `activity setup`");
                }
                readiness.not_ready(group, error.to_string());
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(backoff(attempt)) => (),
        }
    }
}

/// Ends a life of the group soon after a rewind was announced.
async fn watch_role(database: Database, group: &'static str, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(REWIND_LOOK_INTERVAL) => (),
        }
        // Without an answer nothing is known; it is asked again, and at each opening.
        if let Ok(standing) = Standing::of(&database, group).await
            && standing.rewinds(Role::Live).is_none()
        {
            tracing::info!(group, "stepping aside for a rewind");
            return over.cancel();
        }
    }
}

/// A task that ends with the scope that needs it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
