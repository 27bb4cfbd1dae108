//! Which messages are shown. A condition on a field that there is not is refused: it would hide everything without a word.

use std::str::FromStr;

use activity_schemas::{ClickEvent, WatchEvent};
use serde::Serialize;
use serde_json::Value;

use super::{Line, Stream};
use crate::Error;

/// Fields that every line has.
const OF_EVERY_LINE: &[&str] = &["topic", "partition", "offset"];
/// Fields of a dead letter.
pub(super) const OF_LETTERS: &[&str] = &[
    "group",
    "reason",
    "error",
    "source_topic",
    "source_partition",
    "source_offset",
    "user_id",
    "payload",
];
/// Columns of an alert.
pub(super) const OF_ALERTS: &[&str] = &[
    "kind",
    "actor",
    "state",
    "event_id",
    "opened_at",
    "seen_at",
    "clicks",
    "score",
    "peak_score",
    "reasons",
];

/// A field and its value, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Name of the field.
    pub field: String,
    /// What it must be; nothing: null.
    pub value: String,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((field, value)) if !field.is_empty() => Ok(Self {
                field: field.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(
                "not field=value, as in country=NO (nothing after = is for fields without a value)"
                    .to_owned(),
            ),
        }
    }
}

/// Which messages are shown: those that meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this user; of alerts, about this actor.
    pub user: Option<String>,
    /// With these values.
    pub conditions: Vec<Condition>,
}

impl Filter {
    /// Whether every field that is named is one that the stream has.
    ///
    /// # Errors
    /// [`Error::NoSuchField`]
    pub fn check(&self, stream: Stream) -> Result<(), Error> {
        let fields = fields(stream);
        for condition in &self.conditions {
            if !fields.contains(&condition.field) {
                return Err(Error::NoSuchField {
                    field: condition.field.clone(),
                    fields: fields.join(", "),
                });
            }
        }
        Ok(())
    }

    /// Whether a line is one of those that are meant.
    pub fn matches(&self, line: &Line) -> bool {
        let user = |user: &String| {
            let of = ["user_id", "actor"].map(|field| text(line, field));
            of.into_iter().flatten().any(|found| found == *user)
                || line
                    .undecodable
                    .as_ref()
                    .is_some_and(|why| why.key.as_ref() == Some(user))
        };
        self.user.as_ref().is_none_or(user)
            && self.conditions.iter().all(|condition| {
                text(line, &condition.field).unwrap_or_default() == condition.value
            })
    }
}

/// Names of all fields of a stream's lines.
fn fields(stream: Stream) -> Vec<String> {
    let own = match stream {
        Stream::Clicks => names(&ClickEvent::default()),
        Stream::Watches => names(&WatchEvent::default()),
        Stream::Alerts => OF_ALERTS.iter().map(|&name| name.to_owned()).collect(),
        Stream::DeadLetters => OF_LETTERS.iter().map(|&name| name.to_owned()).collect(),
    };
    let of_every = OF_EVERY_LINE.iter().map(|&name| name.to_owned());
    own.into_iter().chain(of_every).collect()
}

fn names(event: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(event) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// A field as text; None: it has no value.
fn text(line: &Line, field: &str) -> Option<String> {
    match field {
        "topic" => return Some(line.topic.clone()),
        "partition" => return Some(line.partition.to_string()),
        "offset" => return Some(line.offset.to_string()),
        _ => (),
    }
    match line.fields.get(field)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(fields: Value) -> Line {
        let Value::Object(fields) = fields else {
            panic!("no object");
        };
        Line {
            appended_at: jiff::Timestamp::UNIX_EPOCH,
            topic: "activity.clicks".to_owned(),
            partition: 2,
            offset: 7,
            fields,
            undecodable: None,
        }
    }

    fn filter(user: Option<&str>, conditions: &[&str]) -> Filter {
        Filter {
            user: user.map(str::to_owned),
            conditions: conditions
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let line = line(json!({"user_id": "u=1", "country": "NO", "page": null, "position_ms": 5}));
        for (meant, user, conditions) in [
            (true, None, &[][..]),
            (
                true,
                Some("u=1"),
                &["country=NO", "position_ms=5", "partition=2"],
            ),
            (true, None, &["page=", "user_id=u=1"]),
            (false, Some("u2"), &[]),
            (false, None, &["country=NO", "country=SE"]),
            (false, None, &["page=home"]),
        ] {
            assert_eq!(
                filter(user, conditions).matches(&line),
                meant,
                "{conditions:?}"
            );
        }
    }

    #[test]
    fn a_field_that_there_is_not_is_refused_with_those_that_there_are() {
        for (stream, field) in [
            (Stream::Clicks, "campaign"),
            (Stream::Watches, "video_id"),
            (Stream::Alerts, "score"),
            (Stream::DeadLetters, "reason"),
        ] {
            assert!(filter(None, &[&format!("{field}=x")]).check(stream).is_ok());
            let refused = filter(None, &["colour=x"])
                .check(stream)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains("colour") && refused.contains(field),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_condition_has_a_field_and_a_value() {
        for wrong in ["", "country", "=NO"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }
}
