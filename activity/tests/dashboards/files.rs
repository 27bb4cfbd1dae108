//! What each file must say, and what all of them use of Grafana and its data source for ClickHouse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../grafana");

/// The words of Grafana's unit list that these dashboards may use.
const UNITS: [&str; 8] = [
    "none",
    "short",
    "percentunit",
    "eps",
    "ops",
    "ms",
    "s",
    "dateTimeFromNow",
];

/// Each dashboard by the name of its file.
pub fn dashboards() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(Path::new(FOLDER).join("dashboards")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (
            name,
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
        )
    };
    paths.map(read).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = list(dashboard, "/panels").iter();
    panels.flat_map(|panel| std::iter::once(panel).chain(list(panel, "/panels")))
}

#[test]
fn each_panel_asks_a_question_says_what_good_is_and_has_a_unit() {
    for (name, dashboard) in dashboards() {
        assert_eq!(text(&dashboard, "uid"), format!("activity-{name}"));
        assert!(
            !text(&dashboard, "title").is_empty() && text(&dashboard, "description").len() > 40
        );
        let mut ids = BTreeSet::new();
        let mut queries = BTreeSet::new();
        for panel in panels(&dashboard) {
            let place = format!("{name}: {}", text(panel, "title"));
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{place} has an id that is there twice"
            );
            assert!(text(panel, "title").ends_with('?'), "{place} asks nothing");
            let description = text(panel, "description");
            assert!(
                description.len() > 60 && description.ends_with('.'),
                "{place} is not described"
            );
            for target in list(panel, "/targets") {
                assert!(
                    queries.insert(text(target, "refId")),
                    "{place}: two queries of one name"
                );
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            if text(panel, "type") != "table" {
                assert!(
                    UNITS.contains(&text(defaults, "unit")),
                    "{place} has no unit"
                );
            }
            for property in list(panel, "/fieldConfig/overrides")
                .iter()
                .flat_map(|one| list(one, "/properties"))
            {
                let unit = property["value"]
                    .as_str()
                    .filter(|_| text(property, "id") == "unit");
                assert!(
                    unit.is_none_or(|unit| UNITS.contains(&unit)),
                    "{place}: {unit:?}"
                );
            }
        }
    }
}

#[test]
fn panels_lie_beside_and_below_each_other_and_never_over() {
    for (name, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(
                w > 0 && h > 0 && x + w <= 24,
                "{name}: {}",
                text(panel, "title")
            );
            for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
                assert!(
                    taken.insert(cell),
                    "{name}: {} lies over another",
                    text(panel, "title")
                );
            }
        }
    }
}

/// All links: of dashboards, panels, fields.
fn links(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("url", Value::String(url)) => found.push(url.clone()),
                    _ => links(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| links(value, found)),
        _ => {}
    }
}

#[test]
fn links_lead_to_dashboards_that_exist_and_set_variables_that_these_have() {
    let dashboards = dashboards();
    for (name, dashboard) in &dashboards {
        let bar = list(dashboard, "/links")
            .iter()
            .find(|link| text(link, "type") == "dashboards")
            .unwrap();
        assert!(
            bar["keepTime"] == true && bar["includeVars"] == true,
            "{name}"
        );
        assert_eq!(bar["tags"], dashboard["tags"], "{name}");
        let mut urls = Vec::new();
        links(dashboard, &mut urls);
        for url in urls.iter().filter(|url| !url.is_empty()) {
            let (path, query) = url
                .strip_prefix("/d/activity-")
                .unwrap()
                .split_once('?')
                .unwrap();
            let target = dashboards
                .get(path)
                .unwrap_or_else(|| panic!("{name}: {url}"));
            for parameter in query
                .split('&')
                .filter_map(|pair| pair.strip_prefix("var-"))
            {
                let variable = parameter.split('=').next().unwrap();
                let known = list(target, "/templating/list")
                    .iter()
                    .any(|one| text(one, "name") == variable);
                assert!(known, "{name}: {url}");
            }
        }
    }
}

/// Words that begin with `$` in a text: macros, variables.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.match_indices('$').map(|(at, _)| {
        let rest = &sql[at..];
        let end = match rest.strip_prefix("${") {
            Some(inner) => 2 + inner.find('}').unwrap() + 1,
            None => {
                1 + rest[1..]
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len() - 1)
            }
        };
        &rest[..end]
    })
}

/// What a viewer must be able to do to show these dashboards.
#[derive(Default, serde::Serialize)]
struct Used {
    schema_versions: BTreeSet<u64>,
    data_sources: BTreeSet<String>,
    panel_types: BTreeMap<String, u64>,
    macros: BTreeSet<String>,
    variables: BTreeMap<String, BTreeSet<String>>,
    references_to_variables: BTreeSet<String>,
    units: BTreeSet<String>,
    field_properties: BTreeSet<String>,
    cells: BTreeSet<String>,
}

impl Used {
    fn add(&mut self, name: &str, dashboard: &Value) {
        self.schema_versions
            .extend(dashboard["schemaVersion"].as_u64());
        let variables = self.variables.entry(name.to_owned()).or_default();
        for variable in list(dashboard, "/templating/list") {
            variables.insert(format!(
                "{} ({})",
                text(variable, "name"),
                text(variable, "type")
            ));
            assert!(
                words(text(variable, "query")).next().is_none(),
                "{name}: a variable's query is without macros"
            );
        }
        for panel in panels(dashboard) {
            *self
                .panel_types
                .entry(text(panel, "type").to_owned())
                .or_default() += 1;
            let defaults = &panel["fieldConfig"]["defaults"];
            self.units
                .extend(defaults["unit"].as_str().map(str::to_owned));
            self.field_properties
                .extend(defaults.as_object().unwrap().keys().cloned());
            let overrides = list(panel, "/fieldConfig/overrides").iter();
            for property in overrides.flat_map(|one| list(one, "/properties")) {
                self.field_properties
                    .insert(text(property, "id").to_owned());
                self.cells
                    .extend(property["value"]["type"].as_str().map(str::to_owned));
                self.units.extend(
                    property["value"]
                        .as_str()
                        .filter(|_| text(property, "id") == "unit")
                        .map(str::to_owned),
                );
            }
            for target in list(panel, "/targets") {
                self.data_sources.insert(format!(
                    "{} {}",
                    text(&target["datasource"], "type"),
                    text(&target["datasource"], "uid")
                ));
                for word in words(text(target, "rawSql")) {
                    let is_macro = word.starts_with("$__");
                    let words = if is_macro {
                        &mut self.macros
                    } else {
                        &mut self.references_to_variables
                    };
                    words.insert(word.to_owned());
                }
            }
        }
    }
}

#[test]
fn what_the_dashboards_use_of_grafana() {
    let mut used = Used::default();
    for (name, dashboard) in dashboards() {
        used.add(&name, &dashboard);
    }
    insta::assert_json_snapshot!(used);
}

#[test]
fn each_variable_that_a_query_names_is_declared_by_its_dashboard() {
    for (name, dashboard) in dashboards() {
        let declared: BTreeSet<&str> = list(&dashboard, "/templating/list")
            .iter()
            .map(|one| text(one, "name"))
            .collect();
        let targets = panels(&dashboard).flat_map(|panel| list(panel, "/targets"));
        for word in targets
            .flat_map(|target| words(text(target, "rawSql")))
            .filter(|word| !word.starts_with("$__"))
        {
            let variable = word
                .trim_matches(['$', '{', '}'])
                .split(':')
                .next()
                .unwrap();
            assert!(declared.contains(variable), "{name}: {word}");
        }
    }
}
