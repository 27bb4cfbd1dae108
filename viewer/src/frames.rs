//! ClickHouse's answers as columns that a page can draw: times in milliseconds, numbers as numbers, and rows that name their series turned into a column for
//! each, as Grafana's long-to-wide does.

use std::collections::BTreeMap;

use jiff::civil;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most series of one answer; beyond it a chart tells nothing and a browser stalls.
const SERIES_MAX: usize = 200;

/// An answer that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// ClickHouse answered something else than JSONCompact.
    #[error("clickhouse answered unexpectedly: {0}")]
    Json(#[from] serde_json::Error),
    /// Too many series.
    #[error("the answer has {0} series, more than the {SERIES_MAX} that are drawn")]
    Series(usize),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Milliseconds since 1970.
    Time,
    /// Numbers.
    Number,
    /// Texts.
    String,
    /// Yes or no.
    Boolean,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Its name in the query.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Which series it is, where rows named several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its values, one for each row.
    pub values: Vec<Value>,
}

/// The answer to one query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Frame {
    /// Which query.
    #[serde(rename = "refId")]
    pub ref_id: String,
    /// All of the same length.
    pub columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Answer {
    meta: Vec<Meta>,
    data: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads an answer in the format JSONCompact. Times without a time zone of their own are in UTC.
///
/// # Errors
/// If it is something else.
pub(crate) fn read(json: &[u8]) -> Result<Vec<Column>, FrameError> {
    let answer: Answer = serde_json::from_slice(json)?;
    let mut columns: Vec<(Column, String)> = answer
        .meta
        .into_iter()
        .map(|meta| {
            let plain = plain_type(&meta.kind).to_owned();
            let column = Column {
                name: meta.name,
                kind: kind_of(&plain),
                labels: BTreeMap::new(),
                values: Vec::with_capacity(answer.data.len()),
            };
            (column, plain)
        })
        .collect();
    for row in answer.data {
        for ((column, plain), value) in columns.iter_mut().zip(row) {
            column.values.push(converted(column.kind, plain, value));
        }
    }
    Ok(columns.into_iter().map(|(column, _)| column).collect())
}

/// A type without what wraps it.
fn plain_type(name: &str) -> &str {
    let inner = |wrapper: &str| name.strip_prefix(wrapper)?.strip_suffix(')');
    match inner("Nullable(").or_else(|| inner("LowCardinality(")) {
        Some(inner) => plain_type(inner),
        None => name,
    }
}

fn kind_of(plain: &str) -> Kind {
    let is_number = ["Int", "UInt", "Float", "Decimal", "BFloat"]
        .iter()
        .any(|start| plain.starts_with(start));
    match plain {
        "Bool" => Kind::Boolean,
        _ if plain.starts_with("Date") => Kind::Time,
        _ if is_number => Kind::Number,
        _ => Kind::String,
    }
}

fn converted(kind: Kind, plain: &str, value: Value) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        (Kind::Time, Value::String(text)) => millis(&text, plain).map_or(Value::Null, Value::from),
        // Some servers quote wide integers; not-a-number and infinities come as texts or not at all.
        (Kind::Number, Value::String(text)) => text.parse::<f64>().map_or(Value::Null, Value::from),
        (Kind::String, value @ (Value::Array(_) | Value::Object(_))) => listed(&value).into(),
        (_, value) => value,
    }
}

/// An array as people write a list.
fn listed(value: &Value) -> String {
    match value {
        Value::Array(values) => values.iter().map(listed).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn millis(text: &str, plain: &str) -> Option<i64> {
    let zone = plain
        .split('\'')
        .nth(1)
        .and_then(|name| TimeZone::get(name).ok());
    let civil: civil::DateTime = match text.parse() {
        Ok(civil) => civil,
        Err(_) => text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0),
    };
    let zoned = civil.to_zoned(zone.unwrap_or(TimeZone::UTC)).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

/// Rows of a time, texts and numbers become one column for each text and number, with a row for each time; rows are sorted by time. Other answers stay.
///
/// # Errors
/// If there are too many series.
pub(crate) fn series(columns: &[Column]) -> Result<Vec<Column>, FrameError> {
    let of = |kind| columns.iter().filter(move |c| c.kind == kind).collect();
    let (times, words, numbers): (Vec<&Column>, Vec<_>, Vec<_>) =
        (of(Kind::Time), of(Kind::String), of(Kind::Number));
    let Some(time) = times.first() else {
        return Ok(columns.to_vec());
    };
    let stamp = |row: usize| time.values[row].as_i64();
    let mut rows: Vec<usize> = (0..time.values.len())
        .filter(|row| stamp(*row).is_some())
        .collect();
    rows.sort_by_key(|row| stamp(*row));
    if words.is_empty() || numbers.is_empty() {
        return Ok(columns.iter().map(|column| picked(column, &rows)).collect());
    }
    let mut stamps: Vec<i64> = rows.iter().filter_map(|row| stamp(*row)).collect();
    stamps.dedup();
    // By number column, then by label: the order does not change when the data does.
    let mut found: BTreeMap<(usize, Vec<String>), Vec<Value>> = BTreeMap::new();
    let mut at = 0;
    for row in rows {
        while Some(stamps[at]) != stamp(row) {
            at += 1;
        }
        let labels: Vec<String> = words.iter().map(|word| label(&word.values[row])).collect();
        for (index, number) in numbers.iter().enumerate() {
            let empty = || vec![Value::Null; stamps.len()];
            let values = found.entry((index, labels.clone())).or_insert_with(empty);
            values[at] = number.values[row].clone();
        }
        if found.len() > SERIES_MAX {
            return Err(FrameError::Series(found.len()));
        }
    }
    let time = Column {
        values: stamps.into_iter().map(Value::from).collect(),
        ..(*time).clone()
    };
    let wide = found.into_iter().map(|((index, labels), values)| Column {
        name: numbers[index].name.clone(),
        kind: Kind::Number,
        labels: words
            .iter()
            .map(|word| word.name.clone())
            .zip(labels)
            .collect(),
        values,
    });
    Ok(std::iter::once(time).chain(wide).collect())
}

fn picked(column: &Column, rows: &[usize]) -> Column {
    Column {
        values: rows.iter().map(|row| column.values[*row].clone()).collect(),
        ..column.clone()
    }
}

fn label(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(meta: Value, data: Value) -> Vec<u8> {
        json!({ "meta": meta, "data": data, "rows": 0 })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn types_become_kinds_and_values_what_a_page_draws() {
        let json = answer(
            json!([
                { "name": "t", "type": "DateTime('UTC')" },
                { "name": "ms", "type": "Nullable(DateTime64(3, 'Europe/Berlin'))" },
                { "name": "day", "type": "Date" },
                { "name": "n", "type": "UInt64" },
                { "name": "word", "type": "LowCardinality(Nullable(String))" },
                { "name": "list", "type": "Array(String)" },
                { "name": "yes", "type": "Bool" },
            ]),
            json!([
                [
                    "2026-01-01 00:00:01",
                    "2026-01-01 01:00:00.250",
                    "1970-01-02",
                    "18446744073709551615",
                    "x",
                    ["a", "b"],
                    true
                ],
                [
                    "2026-01-01 00:00:02",
                    null,
                    "1970-01-01",
                    7,
                    null,
                    [],
                    false
                ],
            ]),
        );
        let columns = read(&json).unwrap();
        let told: Vec<_> = columns
            .iter()
            .map(|column| (column.name.as_str(), column.kind, json!(column.values)))
            .collect();
        let expected = [
            (
                "t",
                Kind::Time,
                json!([1_767_225_601_000_i64, 1_767_225_602_000_i64]),
            ),
            ("ms", Kind::Time, json!([1_767_225_600_250_i64, null])),
            ("day", Kind::Time, json!([86_400_000, 0])),
            ("n", Kind::Number, json!([1.844_674_407_370_955_2e19, 7])),
            ("word", Kind::String, json!(["x", null])),
            ("list", Kind::String, json!(["a, b", ""])),
            ("yes", Kind::Boolean, json!([true, false])),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn rows_that_name_their_series_become_a_column_for_each() {
        let json = answer(
            json!([
                { "name": "time", "type": "DateTime('UTC')" },
                { "name": "country", "type": "String" },
                { "name": "clicks", "type": "UInt64" },
            ]),
            json!([
                ["1970-01-01 00:00:02", "DE", 3],
                ["1970-01-01 00:00:01", "FR", 2],
                ["1970-01-01 00:00:01", "DE", 1],
            ]),
        );
        let wide = series(&read(&json).unwrap()).unwrap();
        let told: Vec<_> = wide
            .iter()
            .map(|c| (c.labels.get("country"), c.values.clone()))
            .collect();
        let (de, fr) = ("DE".to_owned(), "FR".to_owned());
        assert_eq!(
            told,
            [
                (None, vec![json!(1000), json!(2000)]),
                (Some(&de), vec![json!(1), json!(3)]),
                (Some(&fr), vec![json!(2), json!(null)]),
            ]
        );
    }

    #[test]
    fn too_many_series_are_refused() {
        let rows: Vec<Value> = (0..=SERIES_MAX)
            .map(|n| json!(["1970-01-01 00:00:01", n.to_string(), 1]))
            .collect();
        let meta = json!([
            { "name": "time", "type": "DateTime" },
            { "name": "user", "type": "String" },
            { "name": "n", "type": "UInt8" },
        ]);
        assert!(series(&read(&answer(meta, json!(rows))).unwrap()).is_err());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(read(b"Code: 62. DB::Exception").is_err());
    }
}
