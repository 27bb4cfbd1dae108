//! What each cell does. Every function leaves a process of the group that goes on, and no trouble behind.

mod offsets;
mod processes;
mod rewind;
mod services;

use std::time::Duration;

use activity_devstack::{EngineTrouble, Service, Stack};

use crate::bench::Scene;
use crate::cells::Disturbance;

const HUNG: Duration = Duration::from_secs(8);
/// How long a service lacks something.
const TROUBLE: Duration = Duration::from_secs(5);
/// What a group says when ClickHouse takes nothing.
const UNSETTLED: &str = "batch is not settled";
/// ClickHouse's own number for "no writes are allowed here".
const READONLY: u32 = 164;
/// ClickHouse's own number for "the memory limit is exceeded".
const MEMORY_LIMIT_EXCEEDED: u32 = 241;
/// Memory of a query that has too little for an insert, bytes.
const TOO_LITTLE: u64 = 1_000_000;

pub async fn run(stack: &mut Stack, scene: &mut Scene) {
    if scene.cell.disturbance != Disturbance::SetupKilled {
        scene.start_traffic(1);
    }
    match scene.cell.disturbance {
        Disturbance::Killed => processes::killed(scene).await,
        Disturbance::KilledTakingUp => processes::killed_taking_up(scene).await,
        Disturbance::SetupKilled => processes::setup_killed(scene).await,
        Disturbance::Join => processes::join(scene).await,
        Disturbance::Leave => processes::leave(scene).await,
        Disturbance::Zombie => processes::zombie(scene).await,
        Disturbance::EngineKilled => services::engine_killed(stack, scene).await,
        Disturbance::EngineKilledAtItsLog => services::engine_killed_at_its_log(stack, scene).await,
        Disturbance::EngineRestarted => services::engine_restarted(stack, scene).await,
        Disturbance::EngineHung => services::hung(stack, scene, Service::ClickHouse, HUNG).await,
        Disturbance::EngineReadOnly => {
            services::troubled(stack, scene, EngineTrouble::ReadOnly, READONLY).await;
        }
        Disturbance::EngineOutOfMemory => {
            let trouble = EngineTrouble::QueryMemory(TOO_LITTLE);
            services::troubled(stack, scene, trouble, MEMORY_LIMIT_EXCEEDED).await;
        }
        Disturbance::EngineDiskFull => services::disk_full(scene).await,
        Disturbance::EngineFileSize => services::file_size(stack, scene).await,
        Disturbance::EngineDown => services::engine_down(stack, scene).await,
        Disturbance::BrokerKilled => services::broker_killed(stack, scene).await,
        Disturbance::OneOfThreeBrokersKilled => {
            services::one_of_three_brokers_killed(stack, scene).await
        }
        Disturbance::AllBrokersKilled => services::all_brokers_killed(stack, scene).await,
        Disturbance::BrokersRolled => services::brokers_rolled(stack, scene).await,
        Disturbance::RegistryDown => services::registry_down(stack, scene).await,
        Disturbance::RegistrySlow => services::registry_slow(stack, scene).await,
        Disturbance::UnknownIds => processes::unknown_ids(scene).await,
        Disturbance::OffsetsDeleted => offsets::offsets_deleted(scene).await,
        Disturbance::OffsetsSetBack => offsets::offsets_set_back(scene).await,
        Disturbance::RetentionPassed => offsets::retention_passed(scene).await,
        Disturbance::TopicRecreated => offsets::topic_recreated(scene).await,
        Disturbance::RewindKilled => rewind::killed(scene).await,
        Disturbance::RewindGivenUp => rewind::given_up(scene).await,
        Disturbance::Fight => processes::fight(scene).await,
    }
}
