//! The two verbs of `activity produce`, run: from what was asked for to what was published.

use activity_platform::settings::{KafkaSettings, RegistrySettings};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ReplayArgs, SimulateArgs, Simulation},
    publish::{Progress, PublishError, Published, Publisher, publish},
    replay::{self, mapping::mapping_for},
    traffic::oracle::{Oracle, oracle},
};

/// The oracle looks at so many events if nothing else is said.
const ORACLE_EVENTS: u64 = 1_000_000;
/// Share of the completed playbacks that only train, as in `activity quality recommendation`.
const ORACLE_SKIP_SHARE: f64 = 0.2;

/// `activity produce simulate --oracle`: computes, for a minute or so.
pub fn measure_oracle(args: &SimulateArgs) -> Oracle {
    let simulation = args.settle(jiff::Timestamp::now().as_millisecond());
    let events = args.events.unwrap_or(ORACLE_EVENTS);
    oracle(simulation.world(), events, ORACLE_SKIP_SHARE)
}

/// `activity produce simulate`.
///
/// # Errors
/// If it could not begin; how it went is told by [`Published`].
pub async fn simulate(
    args: &SimulateArgs,
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    let simulation = args.settle(jiff::Timestamp::now().as_millisecond());
    run(simulation, kafka, registry, stop, progress).await
}

/// Publishes a simulation that was settled.
///
/// # Errors
/// As [`simulate`].
pub async fn run(
    simulation: Simulation,
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    tracing::info!(
        seed = simulation.seed,
        users = simulation.traffic.users,
        start_at_ms = simulation.traffic.start_at_ms,
        "simulating"
    );
    let publisher = Publisher::connect(kafka, registry).await?;
    let traffic = simulation.world();
    publish(publisher, traffic, simulation.run, stop, progress).await
}

/// `activity produce replay`.
///
/// # Errors
/// If it could not begin; how it went is told by [`Published`].
pub async fn replay(
    args: &ReplayArgs,
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    let mapping = mapping_for(&args.file, args.mapping.as_deref())?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let options = args.options(now_ms);
    let recording =
        replay::open(&args.file, mapping, options).map_err(|cause| PublishError::Recording {
            path: args.file.display().to_string(),
            cause,
        })?;
    let publisher = Publisher::connect(kafka, registry).await?;
    publish(publisher, recording, args.settle(), stop, progress).await
}
