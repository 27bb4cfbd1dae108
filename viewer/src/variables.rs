//! A dashboard's variables: which choices each has, and what it stands at. Pure; whoever calls runs the queries.

use serde::Serialize;
use serde_json::Value;

use crate::dashboards::Variable;
use crate::frames::Column;
use crate::interpolate::{Bound, Choice};
use crate::time::{Range, duration_ms, interval_ms, interval_text};

/// Grafana's word for "everything" in addresses and JSON.
pub(crate) const ALL: &str = "$__all";
/// How its interval variables say "auto".
const AUTO: &str = "$__auto";
const AUTO_COUNT: i64 = 30;
/// The most choices that are offered.
const CHOICES_MAX: usize = 1000;

/// A variable as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub label: String,
    /// What it is for.
    pub description: String,
    /// textbox, or anything else: choices.
    pub kind: String,
    /// It is not shown.
    pub hidden: bool,
    /// Several at once.
    pub multi: bool,
    /// Pairs of value and text.
    pub choices: Vec<(String, String)>,
    /// What is selected; [`ALL`] for everything.
    pub selected: Vec<String>,
    /// Why there are no choices.
    pub error: Option<String>,
}

/// The choices that the dashboard itself declares; None: a query must tell.
pub(crate) fn declared(variable: &Variable, range: Range) -> Option<Vec<Choice>> {
    let text = variable.query_text();
    let one = |value: &str| vec![declared_choice(value, value)];
    match variable.kind.as_str() {
        "query" => None,
        "custom" => Some(listed(text).iter().map(|entry| pair(entry)).collect()),
        "interval" => Some(intervals(variable, text, range)),
        "textbox" | "constant" => Some(one(text)),
        // The one data source that there is.
        "datasource" => Some(one("clickhouse")),
        _ => Some(Vec::new()),
    }
}

/// Why a variable of this kind cannot be served.
pub(crate) fn unsupported(variable: &Variable) -> Option<String> {
    const KNOWN: [&str; 6] = [
        "query",
        "custom",
        "interval",
        "textbox",
        "constant",
        "datasource",
    ];
    if !KNOWN.contains(&variable.kind.as_str()) {
        return Some(format!("this viewer has no {} variables", variable.kind));
    }
    (!variable.regex.is_empty()).then(|| "this viewer does not apply a variable's regex".to_owned())
}

fn declared_choice(value: &str, text: &str) -> Choice {
    Choice {
        value: value.to_owned(),
        text: text.to_owned(),
        is_declared: true,
    }
}

/// The entries of a list that is separated by commas; `\,` is a comma within one.
fn listed(text: &str) -> Vec<String> {
    let (mut entries, mut entry) = (Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&',') => entry.extend(characters.next()),
            ',' => entries.push(std::mem::take(&mut entry)),
            _ => entry.push(character),
        }
    }
    entries.push(entry);
    let trimmed = entries.iter().map(|entry| entry.trim().to_owned());
    trimmed.filter(|entry| !entry.is_empty()).collect()
}

/// `text : value`, or a value that is its own text.
fn pair(entry: &str) -> Choice {
    match entry.split_once(" : ") {
        Some((text, value)) => declared_choice(value.trim(), text.trim()),
        None => declared_choice(entry, entry),
    }
}

fn intervals(variable: &Variable, text: &str, range: Range) -> Vec<Choice> {
    let mut choices: Vec<Choice> = listed(text).iter().map(|entry| pair(entry)).collect();
    if variable.auto {
        let least = variable.auto_min.as_deref().and_then(duration_ms);
        let steps = variable.auto_count.unwrap_or(AUTO_COUNT);
        let auto = interval_text(interval_ms(range, steps, least.unwrap_or(1)));
        choices.insert(0, declared_choice(&auto, "auto"));
    }
    choices
}

/// The choices that a query's answer has: one column is value and text, of two the first is the value.
pub(crate) fn answered(columns: &[Column], sort: u8) -> Vec<Choice> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let Some(values) = columns.first() else {
        return Vec::new();
    };
    let texts = columns.get(1).unwrap_or(values);
    let pairs = values.values.iter().zip(&texts.values);
    let mut choices: Vec<Choice> = Vec::new();
    for (value, shown) in pairs {
        let choice = Choice {
            value: text(value),
            text: text(shown),
            is_declared: false,
        };
        if choices.len() < CHOICES_MAX && !choices.iter().any(|known| known.value == choice.value) {
            choices.push(choice);
        }
    }
    let number = |choice: &Choice| choice.text.parse::<f64>().unwrap_or(f64::INFINITY);
    match sort {
        1 | 2 => choices.sort_by(|a, b| a.text.cmp(&b.text)),
        3 | 4 => choices.sort_by(|a, b| number(a).total_cmp(&number(b))),
        5 | 6 => choices.sort_by_key(|choice| choice.text.to_lowercase()),
        _ => {}
    }
    if matches!(sort, 2 | 4 | 6) {
        choices.reverse();
    }
    choices
}

/// Whether the choices must be known to tell what the variable stands at.
pub(crate) fn needs_choices(variable: &Variable, requested: &[String]) -> bool {
    let wanted = if requested.is_empty() {
        variable.current.values()
    } else {
        requested.to_vec()
    };
    let is_open = requested.is_empty() && wanted.iter().all(String::is_empty);
    let stands_alone = variable
        .all_value
        .as_deref()
        .is_some_and(|value| !value.is_empty());
    is_open || (wanted.iter().any(|value| value == ALL) && !stands_alone)
}

/// What a variable stands at: what was asked for, else what the dashboard has selected, else the first choice.
pub(crate) fn bind(variable: &Variable, choices: &[Choice], requested: &[String]) -> Bound {
    let is_offered = |value: &String| {
        value == ALL
            || variable.kind != "query"
            || choices.is_empty()
            || choices.iter().any(|c| c.value == *value)
    };
    let mut wanted = match (requested, variable.kind.as_str()) {
        (_, "constant" | "datasource") => Vec::new(),
        ([], _) => variable
            .current
            .values()
            .into_iter()
            .filter(is_offered)
            .collect(),
        (requested, _) => requested.to_vec(),
    };
    if wanted.is_empty() {
        let first = match variable.include_all {
            true => Some(ALL.to_owned()),
            false => choices.first().map(|choice| choice.value.clone()),
        };
        wanted.extend(first);
    }
    if !variable.multi {
        wanted.truncate(1);
    }
    let is_all = variable.include_all && wanted.iter().any(|value| value == ALL);
    let values = match is_all {
        true => choices.to_vec(),
        false => wanted.iter().map(|value| chosen(choices, value)).collect(),
    };
    Bound {
        name: variable.name.clone(),
        values,
        is_list: variable.multi || is_all,
        is_all,
        all_value: variable.all_value.clone().filter(|value| !value.is_empty()),
    }
}

/// The choice of this value; what is none of them comes from a reader.
fn chosen(choices: &[Choice], value: &str) -> Choice {
    // A page that was opened with "auto" says so, whatever the range makes of it now.
    let is_auto = value.starts_with(AUTO);
    let found = choices
        .iter()
        .find(|c| c.value == value || (is_auto && c.text == "auto"));
    found.cloned().unwrap_or_else(|| Choice {
        value: value.to_owned(),
        text: value.to_owned(),
        is_declared: false,
    })
}

/// A variable as a page shows it.
pub(crate) fn shown(
    variable: &Variable,
    choices: &[Choice],
    bound: &Bound,
    error: Option<String>,
) -> Shown {
    let selected = match bound.is_all {
        true => vec![ALL.to_owned()],
        false => bound
            .values
            .iter()
            .map(|choice| choice.value.clone())
            .collect(),
    };
    let all = variable
        .include_all
        .then(|| (ALL.to_owned(), "All".to_owned()));
    let label = variable.label.clone().filter(|label| !label.is_empty());
    Shown {
        name: variable.name.clone(),
        label: label.unwrap_or_else(|| variable.name.clone()),
        description: variable.description.clone().unwrap_or_default(),
        kind: variable.kind.clone(),
        hidden: variable.is_hidden(),
        multi: variable.multi,
        choices: all
            .into_iter()
            .chain(
                choices
                    .iter()
                    .map(|choice| (choice.value.clone(), choice.text.clone())),
            )
            .collect(),
        selected,
        error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::frames::Kind;

    const RANGE: Range = Range {
        from: 0,
        to: 3_600_000,
    };

    fn variable(json: Value) -> Variable {
        serde_json::from_value(json).unwrap()
    }

    fn values(bound: &Bound) -> Vec<&str> {
        bound
            .values
            .iter()
            .map(|choice| choice.value.as_str())
            .collect()
    }

    #[test]
    fn a_list_of_values_is_split_and_may_name_them() {
        let custom =
            variable(json!({ "name": "v", "type": "custom", "query": "a, Bee : b, c\\,d" }));
        let choices = declared(&custom, RANGE).unwrap();
        let pairs: Vec<_> = choices
            .iter()
            .map(|c| (c.value.as_str(), c.text.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "a"), ("b", "Bee"), ("c,d", "c,d")]);
        assert_eq!(values(&bind(&custom, &choices, &[])), ["a"]);
    }

    #[test]
    fn everything_is_selected_by_its_word_and_is_the_default_where_it_is_offered() {
        let many = variable(json!({
            "name": "v", "type": "custom", "query": "a,b", "multi": true, "includeAll": true
        }));
        let choices = declared(&many, RANGE).unwrap();
        let bound = bind(&many, &choices, &[]);
        assert!(bound.is_all && bound.is_list);
        assert_eq!(values(&bound), ["a", "b"]);
        let one = bind(&many, &choices, &["b".to_owned()]);
        assert!(!one.is_all && one.is_list);
        assert_eq!(values(&one), ["b"]);
    }

    #[test]
    fn a_word_of_a_reader_is_not_the_dashboards_own() {
        let text = variable(json!({ "name": "v", "type": "textbox", "query": "u1" }));
        let choices = declared(&text, RANGE).unwrap();
        assert!(bind(&text, &choices, &[]).values[0].is_declared);
        assert!(!bind(&text, &choices, &["u2".to_owned()]).values[0].is_declared);
        let constant = variable(json!({ "name": "v", "type": "constant", "query": "c" }));
        let choices = declared(&constant, RANGE).unwrap();
        assert_eq!(
            values(&bind(&constant, &choices, &["other".to_owned()])),
            ["c"]
        );
    }

    #[test]
    fn a_selection_that_a_query_no_longer_offers_gives_way_to_the_first() {
        let query = variable(json!({
            "name": "v", "type": "query", "query": "SELECT 1", "current": { "value": "gone" }
        }));
        let column = |values: Value| Column {
            name: "v".to_owned(),
            kind: Kind::String,
            labels: Default::default(),
            values: values.as_array().unwrap().clone(),
        };
        let choices = answered(
            &[
                column(json!(["b", "a", "b"])),
                column(json!(["Bee", "Ay", "Bee"])),
            ],
            1,
        );
        let texts: Vec<_> = choices.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, ["Ay", "Bee"]);
        assert_eq!(values(&bind(&query, &choices, &[])), ["a"]);
        assert_eq!(
            values(&bind(&query, &choices, &["typed".to_owned()])),
            ["typed"]
        );
    }

    #[test]
    fn an_interval_may_follow_the_range() {
        let interval = variable(json!({
            "name": "v", "type": "interval", "query": "1m,10m", "auto": true, "auto_count": 10, "auto_min": "10s"
        }));
        let choices = declared(&interval, RANGE).unwrap();
        assert_eq!(
            (choices[0].value.as_str(), choices[0].text.as_str()),
            ("5m", "auto")
        );
        let bound = bind(&interval, &choices, &["$__auto_interval_v".to_owned()]);
        assert_eq!(values(&bound), ["5m"]);
    }
}
