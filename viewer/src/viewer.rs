//! What a page asks for: a dashboard opened on a range, with its variables; and each panel's answer. The queries are the dashboard's own: a page names a
//! dashboard, a panel, values and a range, never SQL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use activity_platform::clickhouse::Error as ClickHouseError;
use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Zoned;
use serde::Serialize;

use crate::dashboards::{self, Dashboard, DashboardError, Panel, Target, TimeSpan};
use crate::frames::{self, Frame};
use crate::interpolate::{self, Choice, InterpolateError, query_parameters};
use crate::macros::MacroError;
use crate::markdown;
use crate::own_range;
use crate::scene::Scene;
use crate::source::{Source, SourceError};
use crate::time::{Range, TimeError, interval_ms, now_in};
use crate::variables::{self, Shown};

/// Bounds of what a page may say of its width, pixels.
const POINTS: std::ops::RangeInclusive<i64> = 50..=4000;
pub(crate) const POINTS_DEFAULT: i64 = 800;
/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// No such dashboard or panel.
    #[error("there is no {0}")]
    Missing(String),
    /// A dashboard cannot be read.
    #[error(transparent)]
    Dashboard(#[from] DashboardError),
    /// The range cannot be read.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// A macro is used wrongly.
    #[error(transparent)]
    Macro(#[from] MacroError),
    /// A variable cannot be put in.
    #[error(transparent)]
    Variable(#[from] InterpolateError),
    /// The query failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What a page asks with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// The reader's time zone: days begin there.
    pub(crate) zone: Option<String>,
    /// Pixels that a panel is wide.
    pub(crate) points: Option<i64>,
    /// Values by variable.
    pub(crate) values: BTreeMap<String, Vec<String>>,
}

impl Request {
    /// From the parameters of an address, as Grafana writes them.
    pub(crate) fn read(parameters: Vec<(String, String)>) -> Self {
        let mut request = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "from" => request.from = Some(value),
                "to" => request.to = Some(value),
                "tz" => request.zone = Some(value),
                "points" => request.points = value.parse().ok(),
                _ => {
                    if let Some(name) = name.strip_prefix("var-") {
                        request
                            .values
                            .entry(name.to_owned())
                            .or_default()
                            .push(value);
                    }
                }
            }
        }
        request
    }

    fn values(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A dashboard, opened.
#[derive(Debug, Serialize)]
pub struct Opened {
    from: String,
    to: String,
    range: Range,
    /// The dashboard's own range holds nothing: this is where the data is.
    moved: bool,
    variables: Vec<Shown>,
    /// `var-name=value&…`, for links.
    parameters: String,
}

/// A panel's answer.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    title: String,
    /// What a text panel says.
    html: Option<String>,
    frames: Vec<Frame>,
    queries: Vec<Asked>,
    range: Option<Range>,
    interval_ms: i64,
    error: Option<String>,
}

/// A query as it was sent.
#[derive(Debug, Serialize)]
pub struct Asked {
    #[serde(rename = "refId")]
    ref_id: String,
    sql: String,
    ms: u128,
}

/// Dashboards and the way to their data.
pub struct Viewer {
    folder: Option<PathBuf>,
    source: Source,
    pub(crate) charts: Bytes,
}

impl Viewer {
    pub(crate) fn new(folder: Option<PathBuf>, source: Source, charts: Bytes) -> Self {
        Self {
            folder,
            source,
            charts,
        }
    }

    /// All dashboards.
    pub(crate) async fn dashboards(&self) -> Result<Vec<Dashboard>, ViewError> {
        let folder = self.folder.clone();
        let load = tokio::task::spawn_blocking(move || dashboards::load(folder.as_deref()));
        // It cannot be cancelled, and a panic in it is one here.
        Ok(load
            .await
            .unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))?)
    }

    pub(crate) async fn dashboard(&self, uid: &str) -> Result<Dashboard, ViewError> {
        let mut all = self.dashboards().await?.into_iter();
        let missing = || ViewError::Missing(format!("dashboard {uid}"));
        all.find(|dashboard| dashboard.uid == uid)
            .ok_or_else(missing)
    }

    /// Whether ClickHouse answers.
    pub(crate) async fn look(&self) -> Result<(), ClickHouseError> {
        self.source.look().await
    }

    /// Opens a dashboard: on the range asked for, else on its own, else, where that holds nothing, on the data's.
    pub(crate) async fn open(&self, uid: &str, request: &Request) -> Result<Opened, ViewError> {
        let dashboard = self.dashboard(uid).await?;
        let now = now_in(request.zone.as_deref());
        let (span, moved) = self.span(&dashboard, request, &now).await?;
        let range = Range::read(&span.from, &span.to, &now)?;
        let mut scene = Scene::new(&dashboard, range);
        let mut shown = Vec::new();
        for variable in &dashboard.templating.list {
            let (choices, error) = self.choices(&scene, variable).await;
            let bound = variables::bind(variable, &choices, request.values(&variable.name));
            shown.push(variables::shown(variable, &choices, &bound, error));
            scene.bound.push(bound);
        }
        let parameters: Vec<String> = scene.bound.iter().map(query_parameters).collect();
        Ok(Opened {
            from: span.from,
            to: span.to,
            range,
            moved,
            variables: shown,
            parameters: parameters.join("&"),
        })
    }

    async fn span(
        &self,
        dashboard: &Dashboard,
        request: &Request,
        now: &Zoned,
    ) -> Result<(TimeSpan, bool), ViewError> {
        if let (Some(from), Some(to)) = (&request.from, &request.to) {
            let (from, to) = (from.clone(), to.clone());
            return Ok((TimeSpan { from, to }, false));
        }
        let usual = Range::read(&dashboard.time.from, &dashboard.time.to, now)?;
        let scene = Scene::new(dashboard, usual);
        let [from, to] = own_range::NAMES.map(|name| self.number(&scene, name));
        let own = match tokio::join!(from, to) {
            (Some(from), Some(to)) => own_range::instead_of(usual, Range { from, to }),
            _ => None,
        };
        Ok(match own {
            Some(own) => {
                let (from, to) = (own.from.to_string(), own.to.to_string());
                (TimeSpan { from, to }, true)
            }
            None => (dashboard.time.clone(), false),
        })
    }

    /// What a variable's query answers first, as a number. What cannot be found out is None: a panel says why.
    async fn number(&self, scene: &Scene<'_>, name: &str) -> Option<i64> {
        let mut variables = scene.dashboard.templating.list.iter();
        let variable = variables.find(|variable| variable.name == name)?;
        let (choices, _) = self.choices(scene, variable).await;
        choices.first()?.value.parse().ok()
    }

    /// A variable's choices, and why there are none.
    async fn choices(
        &self,
        scene: &Scene<'_>,
        variable: &dashboards::Variable,
    ) -> (Vec<Choice>, Option<String>) {
        if let Some(why) = variables::unsupported(variable) {
            return (Vec::new(), Some(why));
        }
        if let Some(choices) = variables::declared(variable, scene.range) {
            return (choices, None);
        }
        let interval = interval_ms(scene.range, POINTS_DEFAULT, 1);
        let asked = async {
            let sql = scene.sql(variable.query_text(), scene.range, interval)?;
            Ok::<_, ViewError>(self.source.columns(&sql).await?)
        };
        match asked.await {
            Ok(columns) => (variables::answered(&columns, variable.sort), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        }
    }

    /// Runs a panel's queries.
    pub(crate) async fn panel(
        &self,
        uid: &str,
        id: u64,
        request: &Request,
    ) -> Result<Answer, ViewError> {
        let dashboard = self.dashboard(uid).await?;
        let missing = || ViewError::Missing(format!("panel {id} in dashboard {uid}"));
        let panel = dashboard.panel(id).ok_or_else(missing)?;
        let now = now_in(request.zone.as_deref());
        let from = request.from.as_deref().unwrap_or(&dashboard.time.from);
        let to = request.to.as_deref().unwrap_or(&dashboard.time.to);
        let range = Range::read(from, to, &now)?;
        let scene = self.scene(&dashboard, range, request).await;
        Ok(self.answer(&scene, panel, request.points).await)
    }

    /// A dashboard with its variables as they were asked for.
    async fn scene<'a>(
        &self,
        dashboard: &'a Dashboard,
        range: Range,
        request: &Request,
    ) -> Scene<'a> {
        let mut scene = Scene::new(dashboard, range);
        for variable in &dashboard.templating.list {
            let requested = request.values(&variable.name);
            let choices = match variables::needs_choices(variable, requested) {
                true => self.choices(&scene, variable).await.0,
                false => variables::declared(variable, range).unwrap_or_default(),
            };
            scene
                .bound
                .push(variables::bind(variable, &choices, requested));
        }
        scene
    }

    /// The SQL that a panel's query becomes.
    pub(crate) async fn query_sql(
        &self,
        uid: &str,
        id: u64,
        raw: &str,
        request: &Request,
    ) -> Result<String, ViewError> {
        let dashboard = self.dashboard(uid).await?;
        let missing = || ViewError::Missing(format!("panel {id} in dashboard {uid}"));
        let panel = dashboard.panel(id).ok_or_else(missing)?;
        let now = now_in(request.zone.as_deref());
        let (span, _) = self.span(&dashboard, request, &now).await?;
        let range = Range::read(&span.from, &span.to, &now)?;
        let scene = self.scene(&dashboard, range, request).await;
        let (range, interval) = scene.steps(panel, POINTS_DEFAULT);
        scene.sql(raw, range, interval)
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    async fn answer(&self, scene: &Scene<'_>, panel: &Panel, points: Option<i64>) -> Answer {
        let points = points
            .unwrap_or(POINTS_DEFAULT)
            .clamp(*POINTS.start(), *POINTS.end());
        let (range, interval) = scene.steps(panel, points);
        let mut answer = Answer {
            title: interpolate::prose(&panel.title, &scene.bound),
            range: Some(range),
            interval_ms: interval,
            ..Answer::default()
        };
        if panel.kind == "text" {
            answer.html = Some(markdown::html(panel, &scene.bound));
            return answer;
        }
        let targets = panel.targets.iter().filter(|target| !target.hide);
        let asked = join_all(targets.map(|target| self.ask(scene, target, range, interval))).await;
        for (query, outcome) in asked {
            answer.queries.extend(query);
            match outcome {
                Ok(frame) => answer.frames.push(frame),
                Err(error) => answer.error = Some(error.to_string()),
            }
        }
        answer
    }

    async fn ask(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        range: Range,
        interval: i64,
    ) -> (Option<Asked>, Result<Frame, ViewError>) {
        let sql = match scene.sql(&target.raw_sql, range, interval) {
            Ok(sql) => sql,
            Err(error) => return (None, Err(error)),
        };
        let began = Instant::now();
        let columns = self.source.columns(&sql).await;
        let ref_id = target.ref_id.clone();
        let asked = Asked {
            ref_id: ref_id.clone(),
            sql,
            ms: began.elapsed().as_millis(),
        };
        let frame = columns.and_then(|columns| {
            let columns = match target.is_time_series() {
                true => frames::series(&columns)?,
                false => columns,
            };
            Ok(Frame { ref_id, columns })
        });
        (Some(asked), frame.map_err(ViewError::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_grafana_writes_them() {
        let pairs = [
            ("from", "now-1h"),
            ("to", "now"),
            ("var-a", "1"),
            ("var-a", "2"),
            ("x", "y"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Request::read(pairs.into());
        assert_eq!(request.from.as_deref(), Some("now-1h"));
        assert_eq!(request.values("a"), ["1", "2"]);
        assert!(request.values("x").is_empty());
    }
}
