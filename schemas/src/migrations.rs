//! The numbered ClickHouse migrations, embedded: `clickhouse/<NNNN>_<name>.sql`, applied in the order of their numbers.
//!
//! Statements end with a semicolon at the end of a line. `{database}` stands for the database's name. Every statement can be run twice
//! (`IF NOT EXISTS`, `OR REPLACE`), so that two set-ups at once do no harm.

use include_dir::{Dir, include_dir};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/clickhouse");

/// One file of `clickhouse/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number: 1 for `0001_ledger.sql`.
    pub number: u32,
    /// Its name: `ledger`.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

/// A file in `clickhouse/` that is not a migration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("schemas/clickhouse/{0} is not named <number>_<name>.sql in UTF-8")]
pub struct BadName(String);

/// Every migration, by number.
///
/// # Errors
/// [`BadName`] for a file that does not follow the naming rule.
pub fn all() -> Result<Vec<Migration>, BadName> {
    let mut migrations = FILES
        .files()
        .map(|file| {
            let path = file.path().to_str().unwrap_or("?");
            let parts = path
                .strip_suffix(".sql")
                .and_then(|stem| stem.split_once('_'));
            match (
                parts.and_then(|(number, name)| Some((number.parse().ok()?, name))),
                file.contents_utf8(),
            ) {
                (Some((number, name)), Some(sql)) => Ok(Migration { number, name, sql }),
                _ => Err(BadName(path.to_owned())),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    migrations.sort_by_key(|migration| migration.number);
    Ok(migrations)
}

impl Migration {
    /// Its statements for one database, comments left in.
    pub fn statements(&self, database: &str) -> Vec<String> {
        self.sql
            .replace("{database}", database)
            .split(";\n")
            .map(|statement| statement.trim().to_owned())
            .filter(|statement| {
                statement
                    .lines()
                    .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        let numbers: Vec<u32> = all()
            .unwrap()
            .iter()
            .map(|migration| migration.number)
            .collect();
        assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
    }
}
