//! The panels' queries by name, for the command line and for measurements: `fraud/top-actors` is the query `top-actors` (its `refId`) of the dashboard
//! `activity-fraud`. What is asked is what the page would ask: the same variables, macros and limits.

use activity_platform::clickhouse::Database;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::dashboards::{self, Dashboard, DashboardError};
use crate::source::Source;
use crate::time::{Range, now_in};
use crate::viewer::{Request, ViewError, Viewer};

/// What the uids of our dashboards begin with.
const UID_PREFIX: &str = "activity-";
/// The range of a query that belongs to no dashboard.
const OWN_FROM: &str = "now-24h";

/// A panel's query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedQuery {
    /// Dashboard and query: `fraud/top-actors`.
    pub name: String,
    /// The panel's title: the question that it answers.
    pub title: String,
    /// What it shows and what good is.
    pub description: String,
    /// Variables of the dashboard that it can be given.
    pub variables: Vec<String>,
    #[serde(skip)]
    uid: String,
    #[serde(skip)]
    panel: u64,
    #[serde(skip)]
    raw_sql: String,
    #[serde(skip)]
    field_config: Value,
}

impl NamedQuery {
    /// The SQL as the dashboard has it, macros and variables in it.
    pub fn raw_sql(&self) -> &str {
        &self.raw_sql
    }

    /// Whether the panel says in what unit the numbers of this column are.
    pub fn has_unit(&self, column: &str) -> bool {
        let sets_unit = |properties: &Value| {
            let properties = properties.as_array().map_or(&[][..], Vec::as_slice);
            properties.iter().any(|property| property["id"] == "unit")
        };
        let without_digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        let matches = |matcher: &Value| match (matcher["id"].as_str(), matcher["options"].as_str())
        {
            (Some("byName"), Some(name)) => name == column,
            // The only ones in our dashboards: a number, and what is around it.
            (Some("byRegexp"), Some(pattern)) => {
                pattern.replace("\\d+", "") == without_digits(column)
            }
            _ => false,
        };
        let overrides = self.field_config["overrides"].as_array();
        let mut overrides = overrides.into_iter().flatten();
        self.field_config["defaults"]["unit"].is_string()
            || overrides.any(|one| matches(&one["matcher"]) && sets_unit(&one["properties"]))
    }
}

/// What a query is asked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// Where the range begins, milliseconds since 1970; None: as the dashboard opens.
    pub from_ms: Option<i64>,
    /// Where it ends; None: now.
    pub to_ms: Option<i64>,
    /// Variables and values; several of one name are all meant.
    pub values: Vec<(String, String)>,
}

impl Asking {
    fn request(&self) -> Request {
        let mut request = Request {
            from: self.from_ms.map(|from| from.to_string()),
            ..Request::default()
        };
        if self.from_ms.is_some() {
            request.to = Some(self.to_ms.map_or("now".to_owned(), |to| to.to_string()));
        }
        for (name, value) in &self.values {
            let values = request.values.entry(name.clone()).or_default();
            values.push(value.clone());
        }
        request
    }
}

/// All queries of the built-in dashboards, in the order in which people read them.
///
/// # Errors
/// If a dashboard cannot be read.
pub fn named_queries() -> Result<Vec<NamedQuery>, DashboardError> {
    let dashboards = dashboards::load(None)?;
    Ok(dashboards.iter().flat_map(named).collect())
}

fn named(dashboard: &Dashboard) -> impl Iterator<Item = NamedQuery> {
    let uid = &dashboard.uid;
    let folder = uid.strip_prefix(UID_PREFIX).unwrap_or(uid);
    dashboard.panels().flat_map(move |panel| {
        panel.targets.iter().map(move |target| {
            let names = dashboard.templating.list.iter().map(|one| one.name.clone());
            let is_meant = |name: &String| {
                let (braced, bare) = (format!("${{{name}"), format!("${name}"));
                target.raw_sql.contains(&braced) || target.raw_sql.contains(&bare)
            };
            NamedQuery {
                name: format!("{folder}/{}", target.ref_id),
                title: panel.title.clone(),
                description: panel.description.clone(),
                variables: names.filter(is_meant).collect(),
                uid: uid.clone(),
                panel: panel.id,
                raw_sql: target.raw_sql.clone(),
                field_config: panel.field_config.clone(),
            }
        })
    })
}

/// Asks ClickHouse what pages ask it: reading only, within the pages' limits.
pub struct Reader {
    viewer: Viewer,
}

impl Reader {
    /// A reader of this database.
    pub fn new(database: Database) -> Self {
        let viewer = Viewer::new(None, Source::new(database), Bytes::new());
        Self { viewer }
    }

    /// The SQL of a named query as ClickHouse gets it.
    ///
    /// # Errors
    /// If a value cannot stand in it, or ClickHouse does not tell what the variables may be.
    pub async fn sql_of(&self, query: &NamedQuery, asking: &Asking) -> Result<String, ViewError> {
        let request = asking.request();
        self.viewer
            .query_sql(&query.uid, query.panel, &query.raw_sql, &request)
            .await
    }

    /// SQL of one's own, with the data source's macros expanded.
    ///
    /// # Errors
    /// If a macro is used wrongly.
    pub fn sql(&self, raw: &str, asking: &Asking) -> Result<String, ViewError> {
        let Request { from, to, .. } = asking.request();
        let from = from.unwrap_or_else(|| OWN_FROM.to_owned());
        let to = to.unwrap_or_else(|| "now".to_owned());
        let range = Range::read(&from, &to, &now_in(None))?;
        crate::scene::own_sql(raw, range, &asking.values)
    }

    /// The answer in ClickHouse's format JSONCompact.
    ///
    /// # Errors
    /// If ClickHouse refuses it or does not answer.
    pub async fn json(&self, sql: &str) -> Result<Vec<u8>, ViewError> {
        Ok(self.viewer.source().json(sql).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_query_has_a_name_of_its_own_and_knows_its_variables() {
        let all = named_queries().unwrap();
        let names: BTreeSet<&str> = all.iter().map(|query| query.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        let variables = |name: &str| {
            let query = all.iter().find(|query| query.name == name);
            query.unwrap().variables.clone()
        };
        assert_eq!(variables("fraud/actor-clicks"), ["actor"]);
        assert_eq!(variables("activity/visitors"), ["country", "device"]);
        assert!(variables("fraud/top-actors").is_empty());
    }
}
