//! A dashboard's queries at one moment, as ClickHouse gets them: macros expanded, and variables and what Grafana binds put in. No I/O.

use std::collections::BTreeMap;

use crate::dashboards::{Dashboard, Panel};
use crate::interpolate::{self, Bound, Choice};
use crate::macros::{self, MacroContext};
use crate::time::{Range, duration_ms, interval_ms, interval_text};
use crate::viewer::{POINTS_DEFAULT, ViewError};

/// What Prometheus' data source would add to an interval; ClickHouse's has no word for it.
const SCRAPE_MS: i64 = 15_000;

/// A dashboard at one moment, with what its variables stand at.
pub(crate) struct Scene<'a> {
    pub(crate) dashboard: &'a Dashboard,
    pub(crate) range: Range,
    pub(crate) bound: Vec<Bound>,
}

/// A panel may look further or less far back than its dashboard.
fn panel_range(range: Range, panel: &Panel) -> Range {
    let back = panel
        .time_from
        .as_deref()
        .map(|text| text.trim_start_matches("now-"));
    match back.and_then(duration_ms) {
        Some(millis) => Range {
            from: range.to.saturating_sub(millis),
            to: range.to,
        },
        None => range,
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn new(dashboard: &'a Dashboard, range: Range) -> Self {
        let bound = Vec::new();
        Self {
            dashboard,
            range,
            bound,
        }
    }

    /// A panel's range, and the interval that it is cut into for so many points.
    pub(crate) fn steps(&self, panel: &Panel, points: i64) -> (Range, i64) {
        let range = panel_range(self.range, panel);
        let points = panel.max_data_points.unwrap_or(points).max(1);
        let least = panel
            .interval
            .as_deref()
            .map(|text| interpolate::prose(text, &self.bound));
        let least = least.as_deref().and_then(duration_ms).unwrap_or(1);
        (range, interval_ms(range, points, least))
    }

    /// The query as ClickHouse gets it.
    pub(crate) fn sql(&self, raw: &str, range: Range, interval: i64) -> Result<String, ViewError> {
        let is_nothing = |bound: &Bound| bound.values.iter().all(|v| v.value.is_empty());
        let is_all: BTreeMap<&str, bool> = self
            .bound
            .iter()
            .map(|bound| (bound.name.as_str(), bound.is_all || is_nothing(bound)))
            .collect();
        let context = MacroContext {
            range,
            interval_ms: interval,
            is_all: &is_all,
        };
        let expanded = macros::expand(raw, &context)?;
        let mut bound = globals(self.dashboard, range, interval);
        bound.extend_from_slice(&self.bound);
        Ok(interpolate::sql(&expanded, &bound)?)
    }
}

/// What Grafana itself binds, as the ClickHouse data source gets it.
fn globals(dashboard: &Dashboard, range: Range, interval: i64) -> Vec<Bound> {
    let width = range.to - range.from;
    let pairs = [
        ("__from", range.from.to_string()),
        ("__to", range.to.to_string()),
        ("__interval", interval_text(interval)),
        ("__interval_ms", interval.to_string()),
        (
            "__rate_interval",
            interval_text((interval + SCRAPE_MS).max(4 * SCRAPE_MS)),
        ),
        (
            "__rate_interval_ms",
            (interval + SCRAPE_MS).max(4 * SCRAPE_MS).to_string(),
        ),
        ("__range", format!("{}s", width / 1000)),
        ("__range_s", (width / 1000).to_string()),
        ("__range_ms", width.to_string()),
        ("__dashboard", dashboard.uid.clone()),
    ];
    let bind = |(name, value): (&str, String)| Bound {
        name: name.to_owned(),
        values: vec![Choice {
            text: value.clone(),
            value,
            is_declared: true,
        }],
        ..Bound::default()
    };
    pairs.map(bind).into()
}

/// SQL of no dashboard, with the macros expanded and these values put in.
pub(crate) fn own_sql(
    raw: &str,
    range: Range,
    values: &[(String, String)],
) -> Result<String, ViewError> {
    let dashboard = Dashboard::default();
    let mut scene = Scene::new(&dashboard, range);
    for (name, value) in values {
        let choice = Choice {
            value: value.clone(),
            text: value.clone(),
            is_declared: false,
        };
        let known = scene.bound.iter_mut().find(|bound| bound.name == *name);
        match known {
            Some(bound) => bound.values.push(choice),
            None => scene.bound.push(Bound {
                name: name.clone(),
                values: vec![choice],
                ..Bound::default()
            }),
        }
    }
    scene.sql(raw, range, interval_ms(range, POINTS_DEFAULT, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variables;

    #[test]
    fn macros_and_variables_and_globals_meet_in_one_query() {
        let json = serde_json::json!({ "uid": "u", "templating": { "list": [
            { "name": "country", "type": "custom", "query": "DE,FR", "multi": true, "includeAll": true },
        ] } });
        let dashboard: Dashboard = serde_json::from_value(json).unwrap();
        let of = |values: &[&str]| {
            let mut scene = Scene::new(
                &dashboard,
                Range {
                    from: 0,
                    to: 60_000,
                },
            );
            let variable = &dashboard.templating.list[0];
            let choices = variables::declared(variable, scene.range).unwrap();
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            scene
                .bound
                .push(variables::bind(variable, &choices, &values));
            let raw = "SELECT $__interval_ms, '$__interval', ${__from} FROM t WHERE $__timeFilter(at) AND $__conditionalAll(c IN ($country), $country)";
            scene.sql(raw, scene.range, 1000).unwrap()
        };
        let begin =
            "SELECT 1000, '1s', 0 FROM t WHERE at >= toDateTime(0) AND at <= toDateTime(60) AND";
        assert_eq!(of(&["$__all"]), format!("{begin} 1=1"));
        assert_eq!(of(&["FR", "x'"]), format!("{begin} c IN ('FR','x\\'')"));
    }

    #[test]
    fn a_panel_may_look_back_from_the_dashboards_end() {
        let range = Range {
            from: 0,
            to: 10_000_000,
        };
        let panel = Panel {
            time_from: Some("1h".to_owned()),
            ..Panel::default()
        };
        assert_eq!(panel_range(range, &panel).from, 6_400_000);
        assert_eq!(panel_range(range, &Panel::default()), range);
    }
}
