//! The pages' HTML. Every text of a dashboard is escaped; what a panel shows is filled in by the page's script.

use std::fmt::Write as _;

use activity_platform::clickhouse::Error as ClickHouseError;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use crate::dashboards::{Dashboard, Link, Panel};
use crate::viewer::ViewError;

/// Types of panels that are drawn.
const DRAWN: [&str; 9] = [
    "timeseries",
    "stat",
    "table",
    "barchart",
    "bargauge",
    "piechart",
    "heatmap",
    "gauge",
    "text",
];

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

/// JSON that may stand in a script element: nothing in it ends the element.
fn embedded(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn page(title: &str, head: &str, body: &str) -> String {
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · activity</title>
<link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/viewer.css">
<script src="/assets/viewer.js"></script>
{head}</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
{body}
</body>
</html>
"##,
        title = escaped(title)
    )
}

const THEME_BUTTON: &str = r#"<button type="button" id="theme" class="quiet" aria-label="Theme: as the system">◐</button>"#;

/// The list of dashboards.
pub(crate) fn index(all: &[Dashboard]) -> String {
    let mut list = String::new();
    for dashboard in all {
        // Writing to a String cannot fail.
        let _ = write!(
            list,
            r#"<li><a href="/d/{uid}"><h2>{title}</h2><p>{description}</p></a></li>"#,
            uid = escaped(&dashboard.uid),
            title = escaped(&dashboard.title),
            description = escaped(&dashboard.description)
        );
    }
    if all.is_empty() {
        list.push_str("<li>There are no dashboards here.</li>");
    }
    let body = format!(
        r#"<header class="bar"><h1>Dashboards</h1><div class="controls">{THEME_BUTTON}</div></header>
<main id="main" tabindex="-1"><ul class="index">{list}</ul></main>"#
    );
    page("Dashboards", "", &body)
}

/// A dashboard without its data.
pub(crate) fn dashboard(dashboard: &Dashboard, all: &[Dashboard]) -> String {
    let head = "<script src=\"/assets/charts.js\" defer></script>\n";
    let others = all.iter().map(|other| {
        let current = match other.uid == dashboard.uid {
            true => " aria-current=\"page\"",
            false => "",
        };
        let (uid, title) = (escaped(&other.uid), escaped(&other.title));
        format!(r#"<a href="/d/{uid}" data-keep="time"{current}>{title}</a>"#)
    });
    let body = format!(
        r#"<header class="bar">
<nav aria-label="Dashboards"><a href="/" class="home">activity</a>{others}</nav>
<h1>{title}</h1>
<div class="controls">
<details class="popover" id="range"><summary><span id="range-text">…</span></summary><div class="sheet"></div></details>
<label class="inline">Refresh <select id="refresh"></select></label>
<button type="button" id="reload" class="quiet" aria-label="Draw anew now">⟳</button>
{THEME_BUTTON}
</div>
<form id="variables" aria-label="Variables"></form>
<nav id="links" aria-label="Links">{links}</nav>
<p id="notice" role="status" hidden></p>
</header>
<main id="main" tabindex="-1">{panels}</main>
<script type="application/json" id="dashboard">{json}</script>"#,
        others = others.collect::<String>(),
        title = escaped(&dashboard.title),
        links = links(dashboard, all),
        panels = rows(dashboard),
        json = embedded(&told(dashboard)),
    );
    page(&dashboard.title, head, &body)
}

fn links(dashboard: &Dashboard, all: &[Dashboard]) -> String {
    let one = |link: &Link, url: &str, title: &str| {
        let keep = match (link.keep_time, link.include_vars) {
            (true, true) => "time vars",
            (true, false) => "time",
            (false, true) => "vars",
            (false, false) => "",
        };
        let (url, title) = (escaped(url), escaped(title));
        format!(r#"<a href="{url}" data-keep="{keep}">{title}</a>"#)
    };
    let mut written = String::new();
    for link in &dashboard.links {
        if link.kind != "dashboards" {
            if crate::markdown::is_followed(&link.url) {
                written.push_str(&one(link, &link.url, &link.title));
            }
            continue;
        }
        let is_meant = |other: &&Dashboard| {
            other.uid != dashboard.uid && link.tags.iter().all(|tag| other.tags.contains(tag))
        };
        for other in all.iter().filter(is_meant) {
            written.push_str(&one(link, &format!("/d/{}", other.uid), &other.title));
        }
    }
    written
}

/// Each row with its panels: those that follow it, or those that it holds while it is closed.
fn rows(dashboard: &Dashboard) -> String {
    let mut written = String::new();
    let mut current: (Option<&Panel>, Vec<&Panel>) = (None, Vec::new());
    let mut sorted: Vec<&Panel> = dashboard.panels.iter().collect();
    sorted.sort_by_key(|panel| (panel.grid_pos.y, panel.grid_pos.x));
    for panel in sorted {
        if panel.kind == "row" {
            written.push_str(&row(current.0, &current.1));
            current = (Some(panel), panel.panels.iter().collect());
        } else {
            current.1.push(panel);
        }
    }
    written.push_str(&row(current.0, &current.1));
    written
}

fn row(row: Option<&Panel>, panels: &[&Panel]) -> String {
    let top = panels
        .iter()
        .map(|panel| panel.grid_pos.y)
        .min()
        .unwrap_or(0);
    let sections: String = panels.iter().map(|panel| section(panel, top)).collect();
    match row {
        None if panels.is_empty() => String::new(),
        None => format!(r#"<div class="grid">{sections}</div>"#),
        Some(row) => {
            let open = if row.collapsed { "" } else { " open" };
            let title = escaped(&row.title);
            format!(
                r#"<details class="row"{open}><summary><h2>{title}</h2></summary><div class="grid">{sections}</div></details>"#
            )
        }
    }
}

fn section(panel: &Panel, top: u32) -> String {
    let (id, at) = (panel.id, panel.grid_pos);
    let title = escaped(&panel.title);
    let about = match panel.description.is_empty() {
        true => String::new(),
        false => format!(
            r#"<details class="popover about"><summary aria-label="About {title}">i</summary><p class="sheet">{}</p></details>"#,
            escaped(&panel.description)
        ),
    };
    let menu = match panel.kind == "text" {
        true => String::new(),
        false => format!(
            r#"<details class="popover menu"><summary aria-label="More of {title}">⋮</summary><div class="sheet"><button type="button" data-view="table" aria-pressed="false">Data as a table</button><button type="button" data-view="query" aria-pressed="false">Query</button></div></details>"#
        ),
    };
    format!(
        r#"<section class="panel" id="panel-{id}" data-id="{id}" data-type="{kind}" data-state="waiting" aria-labelledby="title-{id}" style="--x:{x};--y:{y};--w:{w};--h:{h}"><header><h3 id="title-{id}">{title}</h3>{about}{menu}</header><div class="body"></div></section>"#,
        kind = escaped(&panel.kind),
        x = at.x + 1,
        y = at.y.saturating_sub(top) + 1,
        w = at.w.clamp(1, 24),
        h = at.h.max(1),
    )
}

/// What the page's script needs of a dashboard.
fn told(dashboard: &Dashboard) -> Value {
    let panels: Vec<Value> = dashboard
        .panels()
        .map(|panel| {
            json!({
                "id": panel.id,
                "type": panel.kind,
                "title": panel.title,
                "options": panel.options,
                "fieldConfig": panel.field_config,
                "refused": refusal(panel),
            })
        })
        .collect();
    json!({ "uid": dashboard.uid, "refresh": dashboard.refresh, "panels": panels })
}

/// What of a panel cannot be drawn.
fn refusal(panel: &Panel) -> Option<String> {
    if !DRAWN.contains(&panel.kind.as_str()) {
        return Some(format!("This viewer does not draw {} panels.", panel.kind));
    }
    if !panel.transformations.is_empty() {
        return Some("This viewer does not apply transformations.".to_owned());
    }
    let repeats = panel.repeat.as_deref().is_some_and(|name| !name.is_empty());
    repeats.then(|| "This viewer does not repeat panels.".to_owned())
}

fn said(status: StatusCode, title: &str, text: &str, more: &str) -> Response {
    let body = format!(
        r#"<header class="bar"><nav aria-label="Dashboards"><a href="/" class="home">activity</a></nav><h1>{}</h1><div class="controls">{THEME_BUTTON}</div></header>
<main id="main" tabindex="-1" class="said"><p>{}</p>{more}</main>"#,
        escaped(title),
        escaped(text)
    );
    (status, Html(page(title, "", &body))).into_response()
}

pub(crate) fn not_found(what: &str) -> Response {
    let text = format!("There is no such {what}.");
    said(
        StatusCode::NOT_FOUND,
        "Not found",
        &text,
        r#"<p><a href="/">All dashboards</a></p>"#,
    )
}

pub(crate) fn failure(error: &ViewError) -> Response {
    said(
        StatusCode::INTERNAL_SERVER_ERROR,
        "This does not work",
        &error.to_string(),
        "",
    )
}

/// ClickHouse is not there, or does not let the viewer in.
pub(crate) fn no_clickhouse(error: &ClickHouseError) -> Response {
    let more = match error {
        ClickHouseError::Server(_) => {
            "<p>The panels' queries run as the ClickHouse user of --viewer-user, which must exist and may read the database. In ClickHouse: <code>CREATE USER viewer SETTINGS readonly = 1, max_execution_time = 30; GRANT SELECT ON activity.* TO viewer</code></p>"
        }
        _ => {
            "<p>Start it with <code>activity up</code>, or name another with --clickhouse. This page looks again when it is loaded anew.</p>"
        }
    };
    let title = "ClickHouse cannot be asked";
    said(
        StatusCode::SERVICE_UNAVAILABLE,
        title,
        &error.to_string(),
        more,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: Value) -> Dashboard {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_dashboards_words_are_never_markup() {
        let hostile = "</script><script>alert('x')</script>\"";
        let html = dashboard(
            &of(json!({ "uid": "u", "title": hostile, "panels": [
                { "id": 1, "type": "stat", "title": hostile, "description": hostile },
            ] })),
            &[],
        );
        assert!(!html.contains("<script>alert"));
    }

    #[test]
    fn panels_stand_within_their_row_whether_it_is_open_or_closed() {
        let html = rows(&of(json!({ "panels": [
            { "id": 1, "type": "row", "title": "Open", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 1 } },
            { "id": 2, "type": "stat", "title": "Two", "gridPos": { "x": 0, "y": 1, "w": 6, "h": 4 } },
            { "id": 3, "type": "row", "title": "Closed", "collapsed": true, "gridPos": { "x": 0, "y": 5, "w": 24, "h": 1 },
              "panels": [{ "id": 4, "type": "text", "title": "Four", "gridPos": { "x": 12, "y": 6, "w": 12, "h": 4 } }] },
        ] })));
        let at = |text: &str| {
            html.find(text)
                .unwrap_or_else(|| panic!("{text} in {html}"))
        };
        let order = [
            "<details class=\"row\" open><summary><h2>Open</h2>",
            "id=\"panel-2\"",
            "--x:1;--y:1;--w:6;--h:4",
            "<details class=\"row\"><summary><h2>Closed</h2>",
            "id=\"panel-4\"",
            "--x:13;--y:1;--w:12;--h:4",
        ];
        assert!(order.map(at).is_sorted(), "{html}");
    }

    #[test]
    fn what_is_not_drawn_is_said() {
        let of = |panel: Value| refusal(&serde_json::from_value(panel).unwrap());
        assert_eq!(of(json!({ "type": "timeseries" })), None);
        let geomap = of(json!({ "type": "geomap" }));
        assert_eq!(
            geomap.as_deref(),
            Some("This viewer does not draw geomap panels.")
        );
        assert!(of(json!({ "type": "stat", "transformations": [{ "id": "merge" }] })).is_some());
    }
}
