//! Mapping files: which field of a record becomes which field of an event.
//!
//! ```toml
//! event = "watch"                                            # or "click"
//!
//! [fields]                                                   # fields of the event's schema
//! event_id    = { field = "id", uuid5 = "my-source" }        # UUIDv5 of the source's id, in a namespace of that name (or a UUID)
//! occurred_at = { field = "ts", time = "rfc3339" }           # or epoch_s, epoch_ms; a time without zone is UTC
//! user_id     = { first_of = ["user_id", "ip"] }             # the first that is there and not null or empty
//! video_id    = { field = "/video/id" }                      # a leading slash: a JSON pointer into nested objects
//! action      = { field = "what", values = { end = "complete", "*" = "heartbeat" } }   # "*": all others; to "": as if it were not there
//! position_ms = { field = "position", unit = "s" }           # or ms
//! country     = { constant = "DE" }
//!
//! [headers]                                                  # the truth, if the source knows it
//! truth-label = { field = "is_bot" }
//! ```
//!
//! What a mapping does not name stays null; `received_at` is then `occurred_at`. Everything that can be wrong with a mapping is found when it is read,
//! so that what fails later is the record's fault alone.

use std::{collections::BTreeMap, path::Path};

use activity_schemas::{EventKind, WatchAction};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use uuid::Uuid;

use super::fields::{OCCURRED_AT, RECEIVED_AT, Shape, fields};
use activity_schemas::truth::{ATTACK_HEADER, LABEL_HEADER};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/mappings");

/// Why a mapping cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Not TOML, or not the TOML of a mapping.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A field or header that there is not.
    #[error("there is no {what} {name:?}; there are: {known}")]
    Unknown {
        /// `field of a click`, `header`.
        what: String,
        /// What the mapping says.
        name: String,
        /// What it can say.
        known: String,
    },
    /// A field that every event needs.
    #[error("field {0:?} is required and not mapped")]
    Missing(&'static str),
    /// A rule that makes no sense for its field.
    #[error("{name}: {why}")]
    Rule {
        /// Field or header.
        name: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// No mapping of that name is shipped.
    #[error(
        "no mapping is called {name:?}; shipped are {shipped}, --mapping also takes the path of a file"
    )]
    NotShipped {
        /// What was asked for.
        name: String,
        /// What there is.
        shipped: String,
    },
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
}

/// A mapping that has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    pub(super) kind: EventKind,
    /// (position in [`fields`], rule).
    pub(super) rules: Vec<(usize, Rule)>,
    pub(super) label: Option<Rule>,
    pub(super) attack: Option<Rule>,
}

/// How one value comes about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) from: From,
    pub(super) values: Option<BTreeMap<String, String>>,
    pub(super) conversion: Conversion,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    /// The first of these fields that is there.
    Fields(Vec<String>),
    /// The same for every record.
    Constant(serde_json::Value),
}

/// What is made of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Conversion {
    Text,
    Uuid,
    Uuid5(Uuid),
    Time(TimeFormat),
    /// Times so many milliseconds.
    Millis(u32),
    Action,
}

/// How a source writes moments.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimeFormat {
    /// `2015-05-17T10:00:00Z`; without zone it is UTC.
    Rfc3339,
    /// Seconds since 1970, whole or with a fraction.
    EpochS,
    /// Milliseconds since 1970.
    EpochMs,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    event: Kind,
    fields: BTreeMap<String, RuleText>,
    #[serde(default)]
    headers: BTreeMap<String, RuleText>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Click,
    Watch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    field: Option<String>,
    first_of: Option<Vec<String>>,
    constant: Option<serde_json::Value>,
    values: Option<BTreeMap<String, String>>,
    uuid5: Option<String>,
    time: Option<TimeFormat>,
    unit: Option<Unit>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    S,
    Ms,
}

impl Mapping {
    /// Reads a mapping from its text.
    ///
    /// # Errors
    /// [`MappingError`], with what to do about it.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let file: File = toml::from_str(text)?;
        let kind = match file.event {
            Kind::Click => EventKind::Click,
            Kind::Watch => EventKind::Watch,
        };
        let mut rules = Vec::new();
        for (name, rule) in file.fields {
            let index = fields(kind).iter().position(|field| field.name == name);
            let Some(index) = index else {
                return Err(MappingError::Unknown {
                    what: format!("field of a {}", kind.name()),
                    name,
                    known: join(fields(kind).iter().map(|field| field.name)),
                });
            };
            rules.push((index, rule.check(&name, fields(kind)[index].shape)?));
        }
        rules.sort_by_key(|(index, _)| *index);
        if let Ok(at) = rules.binary_search_by_key(&OCCURRED_AT, |(index, _)| *index)
            && !rules.iter().any(|(index, _)| *index == RECEIVED_AT)
        {
            let as_occurred = rules[at].1.clone();
            rules.insert(at + 1, (RECEIVED_AT, as_occurred));
        }
        for (index, field) in fields(kind).iter().enumerate() {
            if field.required && !rules.iter().any(|(mapped, _)| *mapped == index) {
                return Err(MappingError::Missing(field.name));
            }
        }
        let (mut label, mut attack) = (None, None);
        for (name, rule) in file.headers {
            let slot = match name.as_str() {
                LABEL_HEADER => &mut label,
                ATTACK_HEADER => &mut attack,
                _ => {
                    return Err(MappingError::Unknown {
                        what: "header".to_owned(),
                        name,
                        known: join([LABEL_HEADER, ATTACK_HEADER]),
                    });
                }
            };
            *slot = Some(rule.check(&name, Shape::Text)?);
        }
        Ok(Self {
            kind,
            rules,
            label,
            attack,
        })
    }

    /// The kind of event that it makes.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The shipped mapping of this name.
    ///
    /// # Errors
    /// If there is none; a shipped one parses (tests read them all).
    pub fn shipped(name: &str) -> Result<Self, MappingError> {
        let file = SHIPPED.get_file(format!("{name}.toml"));
        match file.and_then(|file| file.contents_utf8()) {
            Some(text) => Self::parse(text),
            None => Err(MappingError::NotShipped {
                name: name.to_owned(),
                shipped: join(Self::shipped_names()),
            }),
        }
    }

    /// The names of the shipped mappings.
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        SHIPPED
            .files()
            .filter_map(|file| file.path().to_str()?.strip_suffix(".toml"))
    }
}

/// Reads the mapping that `asked` names, a shipped one or a file; without it the shipped one that is named after the recording
/// (`otto_clicks.ndjson.gz`: `otto_clicks`).
///
/// # Errors
/// If there is no such mapping or it cannot be used.
pub fn mapping_for(recording: &Path, asked: Option<&str>) -> Result<Mapping, MappingError> {
    let is_path =
        |asked: &str| asked.ends_with(".toml") || asked.contains(std::path::MAIN_SEPARATOR);
    match asked {
        Some(path) if is_path(path) => {
            let text = std::fs::read_to_string(path).map_err(|cause| MappingError::Unreadable {
                path: path.to_owned(),
                cause,
            })?;
            Mapping::parse(&text)
        }
        Some(name) => Mapping::shipped(name),
        None => Mapping::shipped(stem(recording)),
    }
}

/// The file's name up to its first dot.
fn stem(recording: &Path) -> &str {
    let name = recording.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split('.').next())
        .unwrap_or_default()
}

fn join<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl RuleText {
    fn check(self, name: &str, shape: Shape) -> Result<Rule, MappingError> {
        let wrong = |why: &str| MappingError::Rule {
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let conversion = match (shape, self.uuid5, self.time, self.unit) {
            (Shape::Text, None, None, None) => Conversion::Text,
            (Shape::Uuid, None, None, None) => Conversion::Uuid,
            (Shape::Uuid, Some(namespace), None, None) => {
                Conversion::Uuid5(uuid5_namespace(&namespace))
            }
            (Shape::Time, None, Some(format), None) => Conversion::Time(format),
            (Shape::Millis, None, None, Some(Unit::S)) => Conversion::Millis(1000),
            (Shape::Millis, None, None, Some(Unit::Ms)) => Conversion::Millis(1),
            (Shape::Action, None, None, None) => Conversion::Action,
            (Shape::Time, ..) => {
                return Err(wrong(
                    "a moment needs time = \"rfc3339\", \"epoch_s\" or \"epoch_ms\" and nothing else",
                ));
            }
            (Shape::Millis, ..) => {
                return Err(wrong(
                    "a span needs unit = \"s\" or \"ms\" and nothing else",
                ));
            }
            _ => {
                return Err(wrong(
                    "uuid5 is for event_id, time for moments, unit for spans",
                ));
            }
        };
        let from = match (self.field, self.first_of, self.constant) {
            (Some(field), None, None) => From::Fields(vec![field]),
            (None, Some(fields), None) if !fields.is_empty() => From::Fields(fields),
            (None, None, Some(constant)) if !constant.is_object() && !constant.is_array() => {
                From::Constant(constant)
            }
            _ => {
                return Err(wrong(
                    "say where it comes from: one of field = \"…\", first_of = [\"…\", …] or constant = …",
                ));
            }
        };
        if shape == Shape::Action {
            let constant = match (&from, &self.values) {
                (From::Constant(constant), None) => constant.as_str(),
                _ => None,
            };
            for action in self
                .values
                .iter()
                .flat_map(BTreeMap::values)
                .map(String::as_str)
                .chain(constant)
            {
                if parse_action(action).is_none() {
                    return Err(wrong(&format!(
                        "{action:?} is no action; there are: {}",
                        join(actions().map(WatchAction::name))
                    )));
                }
            }
        }
        Ok(Rule {
            from,
            values: self.values,
            conversion,
        })
    }
}

/// Every action that may be produced: all but `unknown`.
fn actions() -> impl Iterator<Item = WatchAction> {
    let is_known = |action: &WatchAction| *action != WatchAction::Unknown;
    WatchAction::ALL.into_iter().filter(is_known)
}

/// The action of this name.
pub(super) fn parse_action(name: &str) -> Option<WatchAction> {
    actions().find(|action| action.name() == name)
}

/// A UUID is itself; any other name has a namespace of its own.
fn uuid5_namespace(name: &str) -> Uuid {
    name.parse()
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
}
