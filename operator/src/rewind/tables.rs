//! The new tables beside the live ones: made, filled with what is kept, and put in their place. Each step may be repeated after a kill at any point.

use std::collections::BTreeMap;

use activity_consumers::Group;
use activity_platform::clickhouse::{Database, Error, quoted};
use activity_platform::fault::{self, Point};
use activity_runtime::rewinds::Points;
use activity_runtime::standing::Record;
use serde::Deserialize;

use super::RewindError;

/// Stands behind the name of a table for the one beside it.
pub const SUFFIX: &str = "__rewind";
/// One copy at a time, in blocks that bound its memory. Blocks are never dropped for looking like earlier ones.
const COPY_SETTINGS: &str = "SETTINGS deduplicate_insert_select = 'disable', async_insert = 0, max_threads = 2, max_insert_threads = 1, \
     min_insert_block_size_rows = 262144, min_insert_block_size_bytes = 67108864";

/// A SQL condition: what lies at or above the points.
pub fn above(points: &Points, topic: &str, partition: &str, offset: &str) -> String {
    let parts: Vec<String> = points
        .iter()
        .map(|(name, number, point)| {
            format!(
                "({topic} = {} AND {partition} = {number} AND {offset} >= {point})",
                quoted(name)
            )
        })
        .collect();
    if parts.is_empty() {
        "0".to_owned()
    } else {
        format!("({})", parts.join(" OR "))
    }
}

/// How many rows of a table are kept, and how many lie at or above the points.
pub async fn count(
    database: &Database,
    table: &str,
    epoch: u32,
    points: &Points,
) -> Result<(u64, u64), Error> {
    #[derive(Deserialize)]
    struct Found {
        kept: u64,
        replaced: u64,
    }
    let above = above(points, "_topic", "_partition", "_offset");
    let sql = format!(
        "SELECT countIf(NOT {above}) AS kept, countIf({above}) AS replaced FROM {{database}}.{table} WHERE _epoch = {epoch}"
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .first()
        .map_or((0, 0), |found| (found.kept, found.replaced)))
}

/// The database's engine; only in an Atomic one do tables keep their identity when they are exchanged.
pub async fn engine(database: &Database) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Found {
        engine: String,
    }
    let sql = format!(
        "SELECT engine FROM system.databases WHERE name = {}",
        quoted(database.name())
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .into_iter()
        .next()
        .map_or(String::new(), |found| found.engine))
}

/// The UUIDs of a group's tables, live ones and those beside them, by name.
async fn uuids(database: &Database, group: &Group) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Found {
        name: String,
        id: String,
    }
    let names: Vec<String> = group
        .tables
        .iter()
        .flat_map(|table| [quoted(table.name), quoted(&beside(table.name))])
        .collect();
    let sql = format!(
        "SELECT name, toString(uuid) AS id FROM system.tables WHERE database = {} AND name IN ({})",
        quoted(database.name()),
        names.join(", ")
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found
        .into_iter()
        .map(|found| (found.name, found.id))
        .collect())
}

fn beside(table: &str) -> String {
    format!("{table}{SUFFIX}")
}

/// Drops the tables beside the live ones.
pub async fn drop_beside(database: &Database, group: &Group) -> Result<(), Error> {
    for table in group.tables {
        // A server limits what can be dropped by mistake; this is no mistake.
        let sql = format!(
            "DROP TABLE IF EXISTS {{database}}.{} SYNC SETTINGS max_table_size_to_drop = 0",
            beside(table.name)
        );
        database.execute(&sql).await?;
    }
    Ok(())
}

/// Makes them anew, empty, and deaf to earlier epochs: an insert of a process that slept through the rewind fails instead of doubling rows.
///
/// Made anew instead of emptied: a copy that an earlier life began may still be running on the server, and ends with the table it fills.
pub async fn make_beside(database: &Database, group: &Group, epoch: u32) -> Result<(), Error> {
    drop_beside(database, group).await?;
    for table in group.tables {
        let beside = beside(table.name);
        for statement in [
            format!(
                "CREATE TABLE {{database}}.{beside} AS {{database}}.{}",
                table.name
            ),
            format!("ALTER TABLE {{database}}.{beside} DROP CONSTRAINT IF EXISTS epoch"),
            format!(
                "ALTER TABLE {{database}}.{beside} ADD CONSTRAINT epoch CHECK _epoch >= {epoch}"
            ),
        ] {
            database.execute(&statement).await?;
        }
    }
    Ok(())
}

/// Copies the rows of one table that lie before the points, a partition of the table at a time: an insert reaches only so many of them at once.
pub async fn copy_rows(database: &Database, table: &str, record: &Record) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Found {
        id: String,
    }
    let sql = format!("SELECT DISTINCT _partition_id AS id FROM {{database}}.{table} ORDER BY id");
    let above = above(&record.points, "_topic", "_partition", "_offset");
    // Somebody else may have taken the rewind over while this process slept, and have made the table anew.
    let is_ours = format!(
        "(SELECT max(version) FROM {{database}}.rewinds WHERE consumer_group = {} AND epoch = {}) = {}",
        quoted(&record.consumer_group),
        record.epoch,
        record.version
    );
    for Found { id } in database.rows::<Found>(&sql).await? {
        // The inner query first: `_epoch` is what the row had, not what it gets.
        let copy = format!(
            "INSERT INTO {{database}}.{} SELECT * REPLACE(toUInt32({}) AS _epoch) FROM \
             (SELECT * FROM {{database}}.{table} WHERE _partition_id = {} AND _epoch = {} AND NOT {above} AND {is_ours}) {COPY_SETTINGS}",
            beside(table),
            record.epoch,
            quoted(&id),
            record.from_epoch
        );
        database.execute(&copy).await?;
    }
    Ok(())
}

/// Copies the ranges of the ledger that lie before the points. Again and again does no harm: the ledger has each range once.
pub async fn copy_ledger(database: &Database, group: &Group, record: &Record) -> Result<(), Error> {
    let above = above(&record.points, "topic", "partition", "end_offset - 1");
    let of_epoch = format!(
        "SELECT * FROM {{database}}.ledger FINAL WHERE consumer_group = {} AND epoch = {}",
        quoted(group.name),
        record.from_epoch
    );
    let copy = format!(
        "INSERT INTO {{database}}.ledger SELECT * REPLACE(toUInt32({}) AS epoch) FROM ({of_epoch} AND NOT {above}) {COPY_SETTINGS}",
        record.epoch
    );
    database.execute(&copy).await?;
    for (topic, partition, point) in record.points.iter() {
        cut_range(database, group, record, &of_epoch, topic, partition, point).await?;
    }
    Ok(())
}

/// Where a point lies inside of a range, because the log begins there, the range's part before it is written with what the new table has of it.
///
/// All that the range had lost lies in that part. How many of its rejects do is not known, so it counts none: their dead letters are there, and more dead letters
/// than rejects are no fault.
async fn cut_range(
    database: &Database,
    group: &Group,
    record: &Record,
    of_epoch: &str,
    topic: &str,
    partition: i32,
    point: i64,
) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Found {
        start: i64,
    }
    let cut = format!(
        "{of_epoch} AND topic = {} AND partition = {partition} AND start_offset < {point} AND end_offset > {point}",
        quoted(topic)
    );
    let sql = format!("SELECT start_offset AS start FROM ({cut})");
    let Some(Found { start }) = database.rows::<Found>(&sql).await?.into_iter().next() else {
        return Ok(());
    };
    let range = activity_runtime::claim::Range { start, end: point };
    let mut rows = Vec::new();
    for table in group.tables {
        let there = activity_runtime::store::count_rows(
            database,
            &beside(table.name),
            topic,
            partition,
            range,
            record.epoch,
        )
        .await?;
        rows.push(format!("{}, toUInt64({there})", quoted(table.name)));
    }
    let write = format!(
        "INSERT INTO {{database}}.ledger SELECT * EXCEPT (whole_end, whole_events) REPLACE(toUInt32({}) AS epoch, toInt64({point}) AS end_offset, \
         toUInt64(greatest(toInt64(whole_events) - (whole_end - {point}), 0)) AS events, toUInt64(0) AS rejects, CAST(map(), 'Map(String, UInt64)') AS reasons, \
         map({}) AS rows, CAST(map(), 'Map(String, UInt64)') AS derived) \
         FROM (SELECT *, end_offset AS whole_end, events AS whole_events FROM ({cut}))",
        record.epoch,
        rows.join(", ")
    );
    database.execute(&write).await
}

/// The UUIDs of the tables beside the live ones, by the name of the live table.
pub async fn identities(
    database: &Database,
    group: &Group,
) -> Result<BTreeMap<String, String>, Error> {
    let found = uuids(database, group).await?;
    let identity = |table: &&'static activity_consumers::TableSpec| {
        let id = found.get(&beside(table.name))?;
        Some((table.name.to_owned(), id.clone()))
    };
    Ok(group.tables.iter().filter_map(identity).collect())
}

/// Tables whose place is still to be taken, by UUIDs as they are `found`; None: one of the new tables is neither in its place nor beside it.
fn waiting<'a>(found: &BTreeMap<String, String>, record: &'a Record) -> Option<Vec<&'a str>> {
    let is = |name: &str, id: &String| found.get(name) == Some(id);
    let waits = record.tables.iter().filter(|(name, id)| !is(name, id));
    waits
        .map(|(name, id)| is(&beside(name), id).then_some(name.as_str()))
        .collect()
}

async fn ask_waiting<'a>(
    database: &Database,
    group: &Group,
    record: &'a Record,
) -> Result<Vec<&'a str>, RewindError> {
    let found = uuids(database, group).await?;
    waiting(&found, record).ok_or_else(|| RewindError::OtherTables {
        group: group.name.to_owned(),
    })
}

/// Looks whether the new tables are still the ones that this rewind has filled: whoever slept while another went on with it may have made them anew.
///
/// # Errors
/// [`RewindError::OtherTables`] if they are not.
pub async fn check(database: &Database, group: &Group, record: &Record) -> Result<(), RewindError> {
    ask_waiting(database, group, record).await.map(drop)
}

/// Whether one of the new tables has its place already, so that the way back is closed. Nobody knows it of a group without tables.
pub async fn is_begun(database: &Database, group: &Group, record: &Record) -> Result<bool, Error> {
    let found = uuids(database, group).await?;
    let is_in_place = |(name, id): (&String, &String)| found.get(name) == Some(id);
    Ok(record.tables.is_empty() || record.tables.iter().any(is_in_place))
}

/// Puts the new tables in the place of the live ones; those that are there already stay. All are looked at before each exchange: until the first, the rewind can
/// still be given up.
///
/// # Errors
/// If ClickHouse does not answer, where the UUIDs tell whether the last exchange took place; or as [`check`].
pub async fn exchange(
    database: &Database,
    group: &Group,
    record: &Record,
) -> Result<(), RewindError> {
    while let Some(table) = ask_waiting(database, group, record).await?.first() {
        let sql = format!(
            "EXCHANGE TABLES {{database}}.{table} AND {{database}}.{}",
            beside(table)
        );
        database.execute(&sql).await?;
        fault::reach(Point::BetweenExchanges);
    }
    Ok(())
}

/// Keeps the old tables under names that tell their epoch; those that have them already stay.
pub async fn keep_old(database: &Database, group: &Group, record: &Record) -> Result<(), Error> {
    let found = uuids(database, group).await?;
    for table in group.tables {
        if found.contains_key(&beside(table.name)) {
            let sql = format!(
                "RENAME TABLE {{database}}.{} TO {{database}}.{}__epoch_{}",
                beside(table.name),
                table.name,
                record.from_epoch
            );
            database.execute(&sql).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use activity_runtime::standing::Phase;

    use super::*;

    #[test]
    fn without_points_nothing_lies_above_them() {
        assert_eq!(above(&Points::default(), "t", "p", "o"), "0");
    }

    #[test]
    fn a_table_waits_until_it_has_its_place_and_a_stranger_ends_the_waiting() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(name, id): &(&str, &str)| ((*name).to_owned(), (*id).to_owned());
            pairs.iter().map(owned).collect()
        };
        let record = Record {
            consumer_group: "g".into(),
            epoch: 2,
            version: 1,
            from_epoch: 1,
            phase: Phase::Exchanging,
            asked: "beginning".into(),
            points: Points::default(),
            tables: map(&[("a", "new a"), ("b", "new b")]),
            keep_old: false,
        };
        let waits =
            |found: &[(&str, &str)]| waiting(&map(found), &record).map(|names| names.join(" "));
        let old = [("a", "old a"), ("b", "old b")];
        let beside = [("a__rewind", "new a"), ("b__rewind", "new b")];
        assert_eq!(waits(&[old, beside].concat()).as_deref(), Some("a b"));
        let half = [("a", "new a"), ("b", "old b"), beside[1]];
        assert_eq!(waits(&half).as_deref(), Some("b"));
        assert_eq!(
            waits(&[("a", "new a"), ("b", "new b")]).as_deref(),
            Some("")
        );
        let stranger = [old[0], old[1], beside[0], ("b__rewind", "other")];
        assert_eq!(waits(&stranger), None);
        assert_eq!(waits(&old), None);
    }

    #[test]
    fn each_partition_has_its_own_condition() {
        let points = [("it's".to_owned(), 0, 5), ("u".to_owned(), 1, 7)];
        let points: Points = points.into_iter().collect();
        assert_eq!(
            above(&points, "_topic", "_partition", "_offset"),
            r"((_topic = 'it\'s' AND _partition = 0 AND _offset >= 5) OR (_topic = 'u' AND _partition = 1 AND _offset >= 7))"
        );
    }
}
