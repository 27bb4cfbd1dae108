//! Alerts of the group fraud, followed in its table: each row once, in the order of its partition.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use activity_platform::clickhouse::{Database, quoted};
use activity_platform::settings::Targets;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::filter::OF_ALERTS;
use super::{From, Line};
use crate::Error;

/// How often the table is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Rows that are fetched at once.
const ROWS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "_topic")]
    topic: String,
    #[serde(rename = "_partition")]
    partition: i32,
    #[serde(rename = "_offset")]
    offset: i64,
    #[serde(rename = "_n")]
    n: u32,
    appended_at_ms: i64,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// The last row that was seen of each topic and partition: its offset and number.
type Seen = BTreeMap<(String, i32), (i64, u32)>;

/// Hands every alert to `each`, until it breaks or `stop`.
pub(super) async fn follow(
    targets: &Targets,
    from: From,
    stop: &CancellationToken,
    mut each: impl FnMut(&Line) -> ControlFlow<()>,
) -> Result<(), Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let mut seen = match from {
        From::End => ends(&database).await?,
        From::Beginning | From::Time(_) => Seen::new(),
    };
    let since_ms = match from {
        From::Time(at) => Some(at.as_millisecond()),
        From::Beginning | From::End => None,
    };
    loop {
        let asked = query(since_ms, &seen);
        let rows: Vec<Row> = tokio::select! {
            rows = database.rows(&asked) => rows?,
            () = stop.cancelled() => return Ok(()),
        };
        let more = rows.len() == ROWS_MAX;
        for row in rows {
            seen.insert((row.topic.clone(), row.partition), (row.offset, row.n));
            if each(&line(row)).is_break() {
                return Ok(());
            }
        }
        let wait = if more { Duration::ZERO } else { LOOK_INTERVAL };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => (),
        }
    }
}

async fn ends(database: &Database) -> Result<Seen, Error> {
    #[derive(Deserialize)]
    struct End {
        topic: String,
        partition: i32,
        end: (i64, u32),
    }
    let sql = "SELECT _topic AS topic, _partition AS partition, max((_offset, _n)) AS end FROM {database}.fraud_alerts GROUP BY topic, partition";
    let ends: Vec<End> = database.rows(sql).await?;
    Ok(ends
        .into_iter()
        .map(|end| ((end.topic, end.partition), end.end))
        .collect())
}

/// The next rows that were not seen. A partition's rows are appended in the order of their offsets, so that none is passed by.
fn query(since_ms: Option<i64>, seen: &Seen) -> String {
    let mut conditions: Vec<String> = seen
        .iter()
        .map(|((topic, partition), (offset, n))| {
            format!(
                "NOT (_topic = {} AND _partition = {partition} AND (_offset, _n) <= ({offset}, {n}))",
                quoted(topic)
            )
        })
        .collect();
    conditions
        .extend(since_ms.map(|at_ms| format!("_appended_at >= fromUnixTimestamp64Milli({at_ms})")));
    if conditions.is_empty() {
        conditions.push("1".to_owned());
    }
    format!(
        "SELECT {}, _topic, _partition, _offset, _n, toUnixTimestamp64Milli(_appended_at) AS appended_at_ms FROM {{database}}.fraud_alerts \
         WHERE {} ORDER BY _appended_at, _topic, _partition, _offset, _n LIMIT {ROWS_MAX}",
        OF_ALERTS.join(", "),
        conditions.join(" AND ")
    )
}

fn line(row: Row) -> Line {
    Line {
        appended_at: jiff::Timestamp::from_millisecond(row.appended_at_ms).unwrap_or_default(),
        topic: row.topic,
        partition: row.partition,
        offset: row.offset,
        fields: row.fields,
        undecodable: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_not_asked_for_again() {
        let seen = Seen::from([(("it's".to_owned(), 2), (7, 1))]);
        insta::assert_json_snapshot!([query(None, &Seen::new()), query(Some(5), &seen)]);
    }
}
