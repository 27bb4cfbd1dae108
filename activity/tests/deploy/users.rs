//! The users of docker-compose.yml in the real engine: the whole pipeline runs with each group as its own user, and none may do what its task does not need.
//! The engine here starts without the passwords' variables, so that each password is the name of its variable; the rest of the file is as it is.

use std::fs;
use std::path::PathBuf;

use activity_devstack::Service;
use activity_operator::setup;

use crate::support::{World, fresh_stack, groups, scratch};
use crate::text;

const EVENTS: u64 = 5_000;

fn password_of(user: &str) -> String {
    format!("CLICKHOUSE_{}_PASSWORD", user.to_uppercase())
}

fn password_file(user: &str) -> PathBuf {
    let path = scratch("deploy-passwords").join(user);
    fs::write(&path, password_of(user)).unwrap();
    path
}

/// A statement's answer, or ClickHouse's refusal.
async fn ask(world: &World, user: &str, password: &str, statement: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client
        .post(world.targets.clickhouse.clickhouse.as_ref().unwrap())
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password)
        .body(statement.to_owned());
    let answer = sent.send().await.unwrap();
    let is_good = answer.status().is_success();
    let text = answer.text().await.unwrap();
    if is_good { Ok(text) } else { Err(text) }
}

/// Expects a statement to be refused for want of a right.
async fn refused(world: &World, user: &str, statement: &str) {
    let answer = ask(world, user, &password_of(user), statement).await;
    let refusal = answer.expect_err(&format!("{user} may {statement}"));
    let is_right = [
        "ACCESS_DENIED",
        "READONLY",
        "Not enough privileges",
        "readonly",
    ];
    assert!(
        is_right.iter().any(|word| refusal.contains(word)),
        "{user}, {statement}: {refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_works_as_its_own_user_and_nobody_may_do_more_than_his_task() {
    let mut stack = fresh_stack("deploy").await;
    let users = scratch("deploy/clickhouse/users.d");
    let file = text("deploy/clickhouse/users.d/activity.xml");
    let file = file
        .replace("<password from_env=\"", "<password>")
        .replace("_PASSWORD\"/>", "_PASSWORD</password>");
    fs::write(users.join("activity.xml"), file).unwrap();
    stack.restart(Service::ClickHouse).await.unwrap();

    let mut world = World::empty(stack.endpoints(), "activity");
    world.targets.clickhouse.clickhouse_user = "operator".to_owned();
    world.targets.clickhouse.clickhouse_password_file = Some(password_file("operator"));
    setup::run(&world.targets, 2).await.unwrap();
    world.simulate_events(EVENTS, 5).await;
    let consumers: Vec<_> = groups(&[])
        .iter()
        .map(|group| {
            let file = password_file(group.name);
            let user = ["--clickhouse-user", group.name];
            let password = ["--clickhouse-password-file", file.to_str().unwrap()];
            world.consume(&[group.name], &[user, password].concat())
        })
        .collect();
    world.caught_up(&[]).await;
    let reports = world.verified(&[]).await;
    let analytics = reports.iter().find(|report| report.group == "analytics");
    assert_eq!(analytics.unwrap().events, EVENTS);
    drop(consumers);
    writers_keep_to_their_own(&world).await;
    dashboards_only_look(&world).await;
    the_operator_stays_in_the_database(&world).await;
    for user in ["operator", "dashboards", "fraud"] {
        let wrong = ask(&world, user, "guess", "SELECT 1").await.unwrap_err();
        assert!(wrong.contains("AUTHENTICATION_FAILED"), "{wrong}");
    }
    stack.stop().await.unwrap();
}

async fn writers_keep_to_their_own(world: &World) {
    for group in groups(&[]) {
        for other in groups(&[]).iter().filter(|other| other.name != group.name) {
            for table in other.tables {
                let table = table.name;
                refused(
                    world,
                    group.name,
                    &format!("INSERT INTO activity.{table} SELECT * FROM activity.{table} LIMIT 0"),
                )
                .await;
                refused(
                    world,
                    group.name,
                    &format!("SELECT count() FROM activity.{table}"),
                )
                .await;
            }
        }
        let table = group.tables[0].name;
        for statement in [
            format!("ALTER TABLE activity.{table} DELETE WHERE 1"),
            format!("TRUNCATE TABLE activity.{table}"),
            format!("DROP TABLE activity.{table}"),
            "INSERT INTO activity.epochs SELECT * FROM activity.epochs LIMIT 0".to_owned(),
            "CREATE TABLE activity.mine (a UInt8) ENGINE = Memory".to_owned(),
            "SELECT * FROM file('/etc/passwd', 'LineAsString', 'l String')".to_owned(),
        ] {
            refused(world, group.name, &statement).await;
        }
    }
}

async fn dashboards_only_look(world: &World) {
    let password = password_of("dashboards");
    let tables = "SELECT name FROM system.tables WHERE database = 'activity' AND engine NOT LIKE 'Materialized%' FORMAT TSVRaw";
    let tables = ask(world, "dashboards", &password, tables).await.unwrap();
    assert!(tables.lines().count() > 20, "{tables}");
    for table in tables.lines() {
        let looked = ask(
            world,
            "dashboards",
            &password,
            &format!("SELECT * FROM activity.{table} LIMIT 1 FORMAT Null"),
        )
        .await;
        // A view with parameters is none without them.
        let is_fine = looked.as_ref().map_or_else(
            |error| error.contains("EMPTY_LIST_OF_COLUMNS_QUERIED"),
            |_| true,
        );
        assert!(is_fine, "{table}: {looked:?}");
    }
    for statement in [
        "INSERT INTO activity.clicks SELECT * FROM activity.clicks LIMIT 0",
        "ALTER TABLE activity.clicks DELETE WHERE 1",
        "TRUNCATE TABLE activity.clicks",
        "DROP TABLE activity.clicks",
        "CREATE TABLE activity.mine (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE mine (a UInt8)",
        "SELECT * FROM file('/etc/passwd', 'LineAsString', 'l String')",
        "SELECT * FROM url('http://127.0.0.1:1', 'LineAsString', 'l String')",
    ] {
        refused(world, "dashboards", statement).await;
    }
}

async fn the_operator_stays_in_the_database(world: &World) {
    for statement in [
        "CREATE DATABASE elsewhere",
        "CREATE USER eve",
        "SYSTEM SHUTDOWN",
        "SELECT * FROM file('/etc/passwd', 'LineAsString', 'l String')",
    ] {
        refused(world, "operator", statement).await;
    }
}
