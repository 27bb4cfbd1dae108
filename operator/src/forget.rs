//! Deletes what ClickHouse has of one user, so that `verify` still finds a row for every event.
//!
//! The user's id is a key column of most tables, which an UPDATE cannot change. So each row is copied, without what tells who it was, under a name that nothing else
//! knows; then every row of the user that has such a copy is deleted. Places (`_topic`, `_partition`, `_offset`, `_n`, `_epoch`) are kept: the counts that the ledger
//! promises stand, and an interrupted run is finished by the next one, which copies only what has no copy yet. Until it is over `verify` finds the copies doubled.
//!
//! The road not taken is to delete the rows and note their places for `verify`: visits, visitors and fraud rates of the past would change with every deletion.

use activity_consumers::{GROUPS, TableSpec};
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::settings::Targets;
use activity_runtime::standing::Standing;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Columns that say where somebody was, with what, or lead to other traces of the same person; emptied in a copy.
const PERSONAL: &[&str] = &["session_id", "device_id", "ip", "user_agent"];
/// What identifies a row, whoever it is about.
const PLACE: &str = "_topic, _partition, _offset, _n, _epoch";
/// The first part of the name that rows get which were somebody's.
pub const NOBODY: &str = "forgotten-";

/// What a table has of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The table.
    pub table: &'static str,
    /// Rows.
    pub rows: u64,
}

/// A table whose rows are about users, and how to know whose they are.
struct About {
    table: &'static TableSpec,
    /// The column that holds the user's id.
    column: &'static str,
}

impl About {
    fn of(table: &'static TableSpec) -> Option<Self> {
        let has = |name: &str| table.columns.iter().any(|column| column.name == name);
        let column = match () {
            () if has("user_id") => "user_id",
            () if has("kind") && has("actor") => "actor",
            () => return None,
        };
        Some(Self { table, column })
    }

    /// The rows of one user.
    fn condition(&self, user: &str) -> String {
        let is_user = format!("{} = {}", self.column, literal(user));
        match self.column {
            "actor" => format!("kind = 'user' AND {is_user}"),
            _ => is_user,
        }
    }

    /// Places of rows that were somebody's.
    fn copies(&self) -> String {
        format!(
            "SELECT {PLACE} FROM {{database}}.{} WHERE startsWith({}, '{NOBODY}')",
            self.table.name, self.column
        )
    }

    fn count(&self, user: &str) -> String {
        let condition = self.condition(user);
        format!(
            "SELECT count() AS rows FROM {{database}}.{} WHERE {condition}",
            self.table.name
        )
    }

    fn copy(&self, user: &str, nobody: &str) -> String {
        let columns = self.table.columns.iter().map(|column| column.name);
        let emptied = columns
            .filter(|column| PERSONAL.contains(column))
            .map(|column| format!(", defaultValueOfTypeName(toTypeName({column})) AS {column}"));
        format!(
            "INSERT INTO {{database}}.{table} SELECT * REPLACE ({nobody} AS {column}{emptied}) \
             FROM (SELECT * FROM {{database}}.{table} WHERE {condition} AND ({PLACE}) NOT IN ({copies})) \
             SETTINGS deduplicate_insert = 'disable', max_partitions_per_insert_block = 0",
            table = self.table.name,
            column = self.column,
            nobody = quoted(nobody),
            emptied = emptied.collect::<String>(),
            condition = self.condition(user),
            copies = self.copies(),
        )
    }

    fn delete(&self, user: &str) -> String {
        format!(
            "ALTER TABLE {{database}}.{} DELETE WHERE {} AND ({PLACE}) IN ({}) SETTINGS mutations_sync = 2",
            self.table.name,
            self.condition(user),
            self.copies()
        )
    }
}

/// The id as a SQL literal, in which nothing is taken for the place of the database's name.
fn literal(user: &str) -> String {
    quoted(user).replace('{', "\\x7B")
}

/// All tables of all groups that have something of users.
fn tables() -> impl Iterator<Item = About> {
    let tables = GROUPS.iter().flat_map(|group| group.tables);
    tables.filter_map(|table| About::of(table))
}

/// How many rows each table has of a user; tables that have none are left out.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn find(targets: &Targets, user: &str) -> Result<Vec<Kept>, Error> {
    #[derive(Deserialize)]
    struct Counted {
        rows: u64,
    }
    let database = Database::new(&targets.clickhouse)?.unhurried();
    let mut kept = Vec::new();
    for about in tables() {
        let counted: Vec<Counted> = database.rows(&about.count(user)).await?;
        let rows = counted.first().map_or(0, |counted| counted.rows);
        kept.push(Kept {
            table: about.table.name,
            rows,
        });
    }
    kept.retain(|kept| kept.rows > 0);
    Ok(kept)
}

/// Deletes what there is of a user, and waits until no table shows it; gives what was deleted. Safe to repeat, and to be repeated after it was interrupted.
///
/// # Errors
/// If ClickHouse does not answer, or a group is being rewound, whose tables are in two places.
pub async fn run(targets: &Targets, user: &str) -> Result<Vec<Kept>, Error> {
    let database = Database::new(&targets.clickhouse)?.unhurried();
    for group in GROUPS {
        let standing = Standing::of(&database, group.name).await?;
        if standing.unfinished().is_some() {
            let group = group.name.to_owned();
            return Err(Error::Exchanging { group });
        }
    }
    let kept = find(targets, user).await?;
    let nobody = new_name(&database).await?;
    for about in tables() {
        if kept.iter().any(|kept| kept.table == about.table.name) {
            database.execute(&about.copy(user, &nobody)).await?;
            database.execute(&about.delete(user)).await?;
        }
    }
    make_rollups_anew(&database).await?;
    Ok(kept)
}

/// A name that leads to nobody; one for all tables, so that a visit stays one.
async fn new_name(database: &Database) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct New {
        id: String,
    }
    let sql = "SELECT toString(generateUUIDv4()) AS id";
    let new = database.rows::<New>(sql).await?.pop();
    Ok(format!(
        "{NOBODY}{}",
        new.map_or_else(String::new, |new| new.id)
    ))
}

/// Rollups have the user until they are made anew.
async fn make_rollups_anew(database: &Database) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct View {
        view: String,
    }
    let sql = format!(
        "SELECT view FROM system.view_refreshes WHERE database = {}",
        quoted(database.name())
    );
    for View { view } in database.rows::<View>(&sql).await? {
        for step in ["REFRESH", "WAIT"] {
            let sql = format!("SYSTEM {step} VIEW {{database}}.{view}");
            database.execute(&sql).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_with_users_is_known_with_the_column_that_names_them() {
        let known: Vec<_> = tables()
            .map(|about| format!("{} {}", about.table.name, about.column))
            .collect();
        assert!(known.contains(&"clicks user_id".to_owned()), "{known:?}");
        assert!(
            known.contains(&"fraud_alerts actor".to_owned()),
            "{known:?}"
        );
        assert!(
            !known.iter().any(|known| known.starts_with("truth")),
            "{known:?}"
        );
    }

    #[test]
    fn a_user_whose_name_is_a_trap_is_quoted_everywhere() {
        let user = r"o'{database}\";
        for about in tables() {
            for sql in [
                about.count(user),
                about.copy(user, "forgotten-1"),
                about.delete(user),
            ] {
                assert!(sql.contains(r"'o\'\x7Bdatabase}\\'"), "{sql}");
            }
        }
    }

    #[test]
    fn a_copy_says_nothing_of_who_and_where() {
        let mut tables = tables();
        let clicks = tables.find(|about| about.table.name == "clicks").unwrap();
        let copy = clicks.copy("u1", "forgotten-1");
        for column in PERSONAL {
            assert!(copy.contains(&format!(" AS {column}")), "{copy}");
        }
        assert!(copy.contains("'forgotten-1' AS user_id"), "{copy}");
    }
}
