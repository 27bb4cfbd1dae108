//! Grafana's dashboard JSON: what the server itself reads of it. All else goes to the page as it is.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde_json::Value;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../grafana/dashboards");

/// A dashboard that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// The folder or a file in it cannot be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not a dashboard's JSON.
    #[error("{path} is no dashboard: {error}", path = path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

/// A dashboard.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Dashboard {
    /// Its name in addresses.
    pub uid: String,
    /// Its title.
    pub title: String,
    /// What it answers.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The range that it opens on.
    pub time: TimeSpan,
    /// How often it is drawn anew (`10s`); empty or false: never.
    pub refresh: Value,
    /// Links to others.
    pub links: Vec<Link>,
    /// Variables.
    pub templating: Templating,
    /// Panels, rows among them.
    pub panels: Vec<Panel>,
}

/// A range as Grafana writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TimeSpan {
    /// From.
    pub from: String,
    /// To.
    pub to: String,
}

impl Default for TimeSpan {
    fn default() -> Self {
        Self {
            from: "now-6h".to_owned(),
            to: "now".to_owned(),
        }
    }
}

/// A link of a dashboard.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Link {
    /// `link` or `dashboards`: all that have one of the tags.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is written.
    pub title: String,
    /// Where to.
    pub url: String,
    /// Tags of the dashboards meant.
    pub tags: Vec<String>,
    /// The time range goes along.
    pub keep_time: bool,
    /// The variables go along.
    pub include_vars: bool,
}

/// The variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Templating {
    /// In the order in which they are resolved.
    pub list: Vec<Variable>,
}

/// A variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Variable {
    /// Its name in queries.
    pub name: String,
    /// query, custom, interval, textbox, constant …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name for people.
    pub label: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// SQL, or the values, by kind; an object with `rawSql` where the data source's editor wrote it.
    pub query: Value,
    /// What is selected.
    pub current: Current,
    /// Several values at once.
    pub multi: bool,
    /// There is an "All".
    #[serde(rename = "includeAll")]
    pub include_all: bool,
    /// What stands for "All" in queries; otherwise all values do.
    pub all_value: Option<String>,
    /// 1: its name is not shown; 2: it is not shown at all.
    pub hide: Value,
    /// How the values of a query are sorted, by Grafana's numbers.
    pub sort: u8,
    /// Takes a part out of each value of a query.
    pub regex: String,
    /// An interval variable has a choice "auto".
    pub auto: bool,
    /// Into how many steps "auto" cuts the range.
    #[serde(rename = "auto_count")]
    pub auto_count: Option<i64>,
    /// The least that "auto" becomes.
    #[serde(rename = "auto_min")]
    pub auto_min: Option<String>,
}

impl Variable {
    /// The text of its query, whichever form it was written in.
    pub(crate) fn query_text(&self) -> &str {
        let inner = ["rawSql", "query"]
            .iter()
            .find_map(|key| self.query.get(key));
        inner.unwrap_or(&self.query).as_str().unwrap_or_default()
    }

    pub(crate) fn is_hidden(&self) -> bool {
        self.kind == "constant"
            || self.hide.as_u64() == Some(2)
            || self.hide.as_str() == Some("hideVariable")
    }
}

/// What a variable stands at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Current {
    /// One value or several.
    pub value: Value,
}

impl Current {
    pub(crate) fn values(&self) -> Vec<String> {
        match &self.value {
            Value::Array(values) => values.iter().filter_map(text_of).collect(),
            value => text_of(value).into_iter().collect(),
        }
    }
}

/// A scalar as a text; None for what is not there.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// A panel or a row.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Panel {
    /// Its number within the dashboard.
    pub id: u64,
    /// timeseries, stat, row …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// What it shows and how to read it.
    pub description: String,
    /// Where it is drawn.
    pub grid_pos: GridPos,
    /// Its queries.
    pub targets: Vec<Target>,
    /// The shortest `$__interval`.
    pub interval: Option<String>,
    /// The most points of a series; otherwise as many as it is pixels wide.
    pub max_data_points: Option<i64>,
    /// Its own range, backwards from the dashboard's end.
    pub time_from: Option<String>,
    /// A row starts closed.
    pub collapsed: bool,
    /// The panels of a closed row.
    pub panels: Vec<Panel>,
    /// What this type of panel is told.
    pub options: Value,
    /// Units, thresholds, overrides.
    pub field_config: Value,
    /// What Grafana would do to the answers.
    pub transformations: Vec<Value>,
    /// One panel for each value of this variable.
    pub repeat: Option<String>,
}

/// A place on the grid: 24 columns, rows of 30 pixels and a gap of 8.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct GridPos {
    /// Column.
    pub x: u32,
    /// Row.
    pub y: u32,
    /// Columns.
    pub w: u32,
    /// Rows.
    pub h: u32,
}

impl Default for GridPos {
    fn default() -> Self {
        Self {
            x: 0,
            y: 0,
            w: 12,
            h: 8,
        }
    }
}

/// A query of a panel.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Target {
    /// A, B …
    pub ref_id: String,
    /// The SQL.
    pub raw_sql: String,
    /// 0: time series, 1: table.
    pub format: Option<u8>,
    /// How its editor thinks of it: `timeseries`, `table`.
    pub query_type: String,
    /// Not asked at all.
    pub hide: bool,
}

impl Target {
    /// Rows that name their series in words become one series for each.
    pub(crate) fn is_time_series(&self) -> bool {
        match self.format {
            Some(format) => format == 0,
            None => self.query_type == "timeseries",
        }
    }
}

impl Dashboard {
    /// All panels that are no rows, those of closed rows among them.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        let all = self.panels.iter();
        let all = all.flat_map(|panel| std::iter::once(panel).chain(&panel.panels));
        all.filter(|panel| panel.kind != "row")
    }

    /// The panel of this number.
    pub fn panel(&self, id: u64) -> Option<&Panel> {
        self.panels().find(|panel| panel.id == id)
    }

    fn read(path: &Path, json: &[u8]) -> Result<Self, DashboardError> {
        let read = serde_json::from_slice::<Self>(json);
        let mut dashboard = read.map_err(|error| DashboardError::Json {
            path: path.to_owned(),
            error,
        })?;
        if dashboard.uid.is_empty() {
            let stem = path.file_stem().unwrap_or_default();
            dashboard.uid = stem.to_string_lossy().into_owned();
        }
        Ok(dashboard)
    }
}

/// All dashboards, by file name: those of the folder, or the built-in ones.
///
/// # Errors
/// If a file cannot be read or is none.
pub fn load(folder: Option<&Path>) -> Result<Vec<Dashboard>, DashboardError> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = match folder {
        None => BUILT_IN
            .files()
            .map(|file| (file.path().to_owned(), file.contents().to_vec()))
            .collect(),
        Some(folder) => read_folder(folder)?,
    };
    files.retain(|(path, _)| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    let read = |(path, json): &(PathBuf, Vec<u8>)| Dashboard::read(path, json);
    files.iter().map(read).collect()
}

fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, DashboardError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| DashboardError::File { path, error }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.is_file() {
            let json = std::fs::read(&path).map_err(failed(&path))?;
            files.push((path, json));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_dashboard_is_read_and_its_panels_have_numbers_of_their_own() {
        for dashboard in load(None).unwrap() {
            let mut ids: Vec<u64> = dashboard.panels().map(|panel| panel.id).collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "{}", dashboard.uid);
        }
    }

    #[test]
    fn a_variables_query_is_found_in_each_of_its_forms() {
        let of = |query: Value| Variable {
            query,
            ..Variable::default()
        };
        assert_eq!(of("SELECT 1".into()).query_text(), "SELECT 1");
        let object = serde_json::json!({ "rawSql": "SELECT 2", "refId": "A" });
        assert_eq!(of(object).query_text(), "SELECT 2");
        assert_eq!(of(Value::Null).query_text(), "");
    }
}
