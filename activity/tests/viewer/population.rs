//! Data for the dashboards: simulated traffic of the last days with attacks in it, through every group.

use std::time::Duration;

use activity_operator::lag::PartitionLag;
use activity_platform::settings::Targets;
use activity_producer::SimulateArgs;
use activity_producer::traffic::scenario::Scenario;
use serde::Deserialize;

use crate::support::{self, Consumer, World};

/// Few users over days, so that there are cohorts that come back.
const USERS: u32 = 400;
const EVENTS: u64 = 120_000;
/// So that there are dead letters.
const MALFORMED_SHARE: f64 = 0.002;
/// Longer than this it hangs, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(900);

/// Sends it and waits until every group has it, and every rollup.
pub async fn fill(world: &World) -> Consumer {
    let groups = world.consume(&[], &[]);
    world
        .simulate(SimulateArgs {
            events: Some(EVENTS),
            users: Some(USERS),
            scenario: Some(Scenario::named("bot-attack").unwrap()),
            malformed_share: MALFORMED_SHARE,
            ..SimulateArgs::default()
        })
        .await;
    let through = tokio::time::timeout(PATIENCE, caught_up(world)).await;
    assert!(
        through.is_ok(),
        "the groups do not catch up\n{}",
        groups.log()
    );
    refresh(world, &world.targets).await;
    groups
}

async fn caught_up(world: &World) {
    let all = support::groups(&[]);
    let is_through = |lag: &PartitionLag| lag.lag == 0 && lag.committed.is_some();
    while !world.lag(&all).await.iter().all(is_through) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Rollups are made anew once an hour; here, now.
async fn refresh(world: &World, targets: &Targets) {
    #[derive(Deserialize)]
    struct View {
        name: String,
    }
    let database = world.database();
    let views: Vec<View> = database
        .rows(&format!(
            "SELECT view AS name FROM system.view_refreshes WHERE database = '{}'",
            targets.clickhouse.database
        ))
        .await
        .unwrap();
    for View { name } in views {
        database
            .execute(&format!("SYSTEM REFRESH VIEW {{database}}.{name}"))
            .await
            .unwrap();
        database
            .execute(&format!("SYSTEM WAIT VIEW {{database}}.{name}"))
            .await
            .unwrap();
    }
}
