//! One record into one event. Pure: a line of text in, an event or a reason out.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;
use uuid::Uuid;

use super::{
    fields::{Cell, Values, fields},
    mapping::{Conversion, From, Mapping, Rule, TimeFormat, parse_action},
};
use activity_schemas::truth::LABEL_HEADER;

use crate::source::Outgoing;

/// Maps records, reusing its memory from one to the next.
pub struct Converter {
    mapping: Mapping,
    values: Values,
    label: Option<String>,
    attack: Option<String>,
}

impl Converter {
    /// A converter for one mapping.
    pub fn new(mapping: Mapping) -> Self {
        Self {
            values: Values::new(mapping.kind),
            mapping,
            label: None,
            attack: None,
        }
    }

    /// The event that a record stands for.
    ///
    /// # Errors
    /// What is wrong with the record, in words.
    pub fn convert(&mut self, line: &[u8]) -> Result<Outgoing<'_>, String> {
        self.read(line)?;
        Ok(self.outgoing())
    }

    /// Reads a record; [`Converter::outgoing`] is then its event.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<(), String> {
        let record: Value =
            serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
        if !record.is_object() {
            return Err("not a JSON object".to_owned());
        }
        self.read_record(&record)
    }

    /// The same for a record that is an object already.
    pub(super) fn read_record(&mut self, record: &Value) -> Result<(), String> {
        self.values.clear();
        for (index, rule) in &self.mapping.rules {
            let field = &fields(self.mapping.kind)[*index];
            let cell = self.values.cell_mut(*index);
            fill(cell, rule, record).map_err(|why| format!("{}: {why}", field.name))?;
            if field.required && !cell.present {
                return Err(format!("{}: required, but {}", field.name, absent(rule)));
            }
        }
        self.label = header(self.mapping.label.as_ref(), record)?;
        if let Some(label) = self
            .label
            .as_deref()
            .filter(|label| !matches!(*label, "0" | "1"))
        {
            return Err(format!("{LABEL_HEADER}: {label:?} is neither 0 nor 1"));
        }
        self.attack = header(self.mapping.attack.as_ref(), record)?;
        Ok(())
    }

    /// What was read, before it becomes an event.
    pub(super) fn values_mut(&mut self) -> &mut Values {
        &mut self.values
    }

    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            event: self.values.event(),
            label: self.label.as_deref(),
            attack: self.attack.as_deref(),
        }
    }
}

fn absent(rule: &Rule) -> String {
    match &rule.from {
        From::Fields(names) => format!("the record has no {}", names.join(", no ")),
        From::Constant(_) => "the mapping's constant is empty".to_owned(),
    }
}

fn header(rule: Option<&Rule>, record: &Value) -> Result<Option<String>, String> {
    let Some(rule) = rule else {
        return Ok(None);
    };
    let mut cell = Cell::default();
    fill(&mut cell, rule, record)?;
    Ok(cell.present.then_some(cell.text))
}

/// Puts what the rule finds in the record into the cell; leaves it absent if it finds nothing.
fn fill(cell: &mut Cell, rule: &Rule, record: &Value) -> Result<(), String> {
    let found = match &rule.from {
        From::Constant(constant) => Some(constant).filter(|value| is_there(value)),
        From::Fields(names) => names.iter().find_map(|name| look_up(record, name)),
    };
    let Some(found) = found else {
        return Ok(());
    };
    cell.text.clear();
    let replaced;
    let value = match &rule.values {
        None => found,
        Some(values) => {
            write_text(found, &mut cell.text)?;
            let to = values.get(&cell.text).or_else(|| values.get("*"));
            let to = to.ok_or_else(|| format!("the mapping has no value for {:?}", cell.text))?;
            if to.is_empty() {
                return Ok(());
            }
            replaced = Value::String(to.clone());
            &replaced
        }
    };
    convert_value(cell, rule.conversion, value)?;
    cell.present = true;
    Ok(())
}

fn look_up<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let value = if name.starts_with('/') {
        record.pointer(name)
    } else {
        record.get(name)
    };
    value.filter(|value| is_there(value))
}

/// Null and the empty string are nothing.
fn is_there(value: &Value) -> bool {
    !value.is_null() && value.as_str() != Some("")
}

fn convert_value(cell: &mut Cell, conversion: Conversion, value: &Value) -> Result<(), String> {
    cell.text.clear();
    match conversion {
        Conversion::Text => write_text(value, &mut cell.text)?,
        Conversion::Uuid => {
            write_text(value, &mut cell.text)?;
            let id: Uuid = cell
                .text
                .parse()
                .map_err(|_| format!("{:?} is not a UUID: use uuid5", cell.text))?;
            write_uuid(id, &mut cell.text);
        }
        Conversion::Uuid5(namespace) => {
            write_text(value, &mut cell.text)?;
            let id = Uuid::new_v5(&namespace, cell.text.as_bytes());
            write_uuid(id, &mut cell.text);
        }
        Conversion::Time(format) => cell.number = time_ms(value, format)?,
        Conversion::Millis(factor) => cell.number = scaled(value, factor)?,
        Conversion::Action => {
            write_text(value, &mut cell.text)?;
            cell.action =
                parse_action(&cell.text).ok_or_else(|| format!("{:?} is no action", cell.text))?;
        }
    }
    Ok(())
}

pub(super) fn write_uuid(id: Uuid, into: &mut String) {
    into.clear();
    into.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

fn write_text(value: &Value, into: &mut String) -> Result<(), String> {
    match value {
        Value::String(text) => into.push_str(text),
        Value::Number(number) => into.push_str(&number.to_string()),
        // As ground truth is written.
        Value::Bool(truth) => into.push(if *truth { '1' } else { '0' }),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err("neither text nor a number".to_owned());
        }
    }
    Ok(())
}

fn time_ms(value: &Value, format: TimeFormat) -> Result<i64, String> {
    match format {
        TimeFormat::EpochS => scaled(value, 1000),
        TimeFormat::EpochMs => scaled(value, 1),
        TimeFormat::Rfc3339 => {
            let text = value.as_str().ok_or("a time must be text here")?;
            let moment = match text.parse::<Timestamp>() {
                Ok(moment) => moment,
                // Either it has no zone, or it is no time at all.
                Err(error) => text
                    .parse::<DateTime>()
                    .ok()
                    .and_then(|civil| civil.to_zoned(TimeZone::UTC).ok())
                    .ok_or_else(|| format!("{text:?} is no time: {error}"))?
                    .timestamp(),
            };
            Ok(moment.as_millisecond())
        }
    }
}

/// A number, or text that is one, times a factor, to the nearest whole number.
fn scaled(value: &Value, factor: u32) -> Result<i64, String> {
    let whole = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    if let Some(whole) = whole {
        return whole
            .checked_mul(i64::from(factor))
            .ok_or_else(|| format!("{whole} is too large"));
    }
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number: f64 = number.ok_or_else(|| format!("{value} is not a number"))?;
    let scaled = (number * f64::from(factor)).round();
    // 2^53: beyond it a float is not a whole number of milliseconds any more.
    if scaled.abs() <= 9_007_199_254_740_992.0 {
        Ok(scaled as i64)
    } else {
        Err(format!("{number:e} is too large"))
    }
}
