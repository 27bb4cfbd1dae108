//! Tables fit the code: every column that a group sends is there under its name and type, everything is commented, set-up can be repeated.

use activity_consumers::{GROUPS, ORIGIN};
use activity_operator::setup;
use serde::Deserialize;

use crate::support::World;
use crate::{endpoints, in_world};

#[derive(Deserialize)]
struct Column {
    table: String,
    name: String,
    r#type: String,
    comment: String,
}

async fn columns(world: &World) -> Vec<Column> {
    let sql = format!(
        "SELECT table, name, type, comment FROM system.columns WHERE database = '{}'",
        world.name
    );
    world.database().rows(&sql).await.unwrap()
}

/// What a LowCardinality type is one of; else the type itself.
fn inner(r#type: &str) -> &str {
    r#type
        .strip_prefix("LowCardinality(")
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(r#type)
}

#[test]
fn every_column_that_a_group_sends_is_in_its_table() {
    in_world("columns", 1, |world| async move {
        let columns = columns(&world).await;
        for table in GROUPS.iter().flat_map(|group| group.tables) {
            for column in table.columns {
                let found = columns
                    .iter()
                    .find(|found| found.table == table.name && found.name == column.name);
                let found = found
                    .unwrap_or_else(|| panic!("{}.{} is in no migration", table.name, column.name));
                // With its dictionary, or as what it is one of.
                let fits = [&found.r#type[..], inner(&found.r#type)];
                assert!(
                    fits.contains(&column.sent_as),
                    "{}.{}: {} is sent as {}",
                    table.name,
                    column.name,
                    found.r#type,
                    column.sent_as
                );
            }
            for (origin, _) in ORIGIN {
                assert!(
                    columns
                        .iter()
                        .any(|found| found.table == table.name && found.name == origin),
                    "{}.{origin}",
                    table.name
                );
            }
        }
    });
}

#[test]
fn every_column_of_every_table_is_commented() {
    in_world("comments", 1, |world| async move {
        for column in columns(&world).await {
            // A refreshable view's columns are those of the table that it fills; a table that begins with a dot is about to take that one's place.
            let is_passing = column.table.ends_with("_refresh") || column.table.starts_with('.');
            assert!(
                is_passing || !column.comment.is_empty(),
                "{}.{}",
                column.table,
                column.name
            );
        }
    });
}

#[test]
fn two_set_ups_at_once_and_a_third_one_do_no_harm() {
    let endpoints = endpoints();
    crate::RUNTIME.block_on(async {
        let world = World::empty(&endpoints, "set_up_twice");
        let (first, second) =
            tokio::join!(setup::run(&world.targets, 3), setup::run(&world.targets, 3));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(
            first.topics_created.len() + second.topics_created.len(),
            first.topics.len()
        );
        assert_eq!(first.schemas, second.schemas);
        let third = setup::run(&world.targets, 3).await.unwrap();
        assert!(
            third.topics_created.is_empty() && third.migrations_applied.is_empty(),
            "{third:?}"
        );
        assert_eq!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.migrations FINAL")
                .await,
            third.migrations.len() as i64
        );
    });
}
