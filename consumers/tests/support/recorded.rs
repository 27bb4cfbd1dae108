//! Recorded traffic for the examples: NDJSON, plain or gzip, one event a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;
use uuid::Uuid;

/// Every line of a file.
pub fn lines(path: &Path) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let file = File::open(path)?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    BufReader::new(reader)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

/// A field that is text, or a number to be read as text.
pub fn text(line: &Value, field: &str) -> Option<String> {
    match &line[field] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The time in `ts`, milliseconds since 1970.
pub fn time_ms(line: &Value) -> i64 {
    text(line, "ts")
        .and_then(|ts| ts.parse::<jiff::Timestamp>().ok())
        .map_or(0, |ts| ts.as_millisecond())
}

/// A UUID made from the source's own id.
pub fn event_id(line: &Value) -> String {
    let id = text(line, "event_id").unwrap_or_default();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string()
}
