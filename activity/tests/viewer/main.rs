//! Every dashboard opened in a real headless Chromium, on data that the real producer sent through the real groups: light and dark, wide and on a phone.
//! An empty or failed panel, a word in the console, or a request that leaves the machine fails the test. Then the same on a dashboard of this test's own,
//! which has every type of panel, every macro and every kind of variable; and one that is wrong in each way, where the check must find just that.
//!
//! `-- --screenshots DIR` also keeps a picture of each page.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod population;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;

use activity_devstack::{Silent, browser as pinned_browser};
use activity_viewer::{Dashboard, MACROS, load};
use browser::{Chromium, Look, Page};
use serde_json::Value;
use support::{World, fresh_stack};

const LOOKS: [Look; 4] = [
    Look {
        theme: "light",
        size: "wide",
        width: 1440,
        height: 900,
        mobile: false,
    },
    Look {
        theme: "dark",
        size: "wide",
        width: 1440,
        height: 900,
        mobile: false,
    },
    Look {
        theme: "light",
        size: "phone",
        width: 390,
        height: 844,
        mobile: true,
    },
    Look {
        theme: "dark",
        size: "phone",
        width: 390,
        height: 844,
        mobile: true,
    },
];

/// What a page shows: each panel's state, how much is drawn in it, and what it says.
const PANELS: &str = r#"[...document.querySelectorAll(".panel")].map((panel) => {
  const body = panel.querySelector(".body");
  const marks = body.querySelectorAll(".chart svg path, .chart svg circle, tbody td, .bar-fill").length;
  return { id: panel.dataset.id, type: panel.dataset.type, title: panel.querySelector("h3").textContent, state: panel.dataset.state, marks, text: body.textContent.slice(0, 300), width: panel.clientWidth };
})"#;
const READY: &str = "document.documentElement.dataset.ready === 'true'";
const OVERFLOW: &str =
    "document.documentElement.scrollWidth - document.documentElement.clientWidth";

fn main() {
    let screenshots = screenshots();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(screenshots.as_deref()));
}

/// The folder for pictures; whatever else a test runner passes means nothing here.
fn screenshots() -> Option<PathBuf> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--screenshots");
    let folder = arguments.nth(1).map(PathBuf::from)?;
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

async fn run(screenshots: Option<&Path>) {
    let began = Instant::now();
    let program = pinned_browser(None, Arc::new(Silent)).await.unwrap();
    let stack = fresh_stack("viewer").await;
    let world = World::new(stack.endpoints(), "viewer", 2).await;
    let _groups = population::fill(&world).await;
    println!("populated after {:.0} s", began.elapsed().as_secs_f64());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("viewer-browser");
    let chromium = Chromium::start(&program, &folder).await;

    let served = Served::start(&world, None);
    let mut panels = 0;
    let mut found = Vec::new();
    for dashboard in load(None).unwrap() {
        for look in LOOKS {
            let seen = look_at(&chromium, &served, &dashboard, look, screenshots).await;
            panels += seen.panels;
            found.extend(seen.findings);
        }
    }
    assert!(panels > 0, "there are no dashboards");

    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../viewer/fixtures");
    let own = Served::start(&world, Some(&fixtures));
    let dashboards = load(Some(&fixtures)).unwrap();
    let [elsewhere, every, wrong] = &dashboards[..] else {
        panic!("other fixtures than the three");
    };
    uses_everything(every);
    for look in LOOKS {
        let seen = look_at(&chromium, &own, every, look, screenshots).await;
        found.extend(seen.findings);
    }
    is_on_the_datas_own_range(&chromium, &own, elsewhere).await;
    finds_what_is_wrong(&chromium, &own, wrong).await;
    is_used_by_keyboard(&chromium, &served).await;
    refuses_to_write(&world).await;

    println!(
        "{panels} panels drawn on {} pages after {:.0} s, {} findings",
        4 * load(None).unwrap().len(),
        began.elapsed().as_secs_f64(),
        found.len()
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
    drop((served, own, chromium));
    stack.stop().await.unwrap();
}

/// `activity view`; killed when dropped.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(world: &World, dashboards: Option<&Path>) -> Self {
        let mut command = world.command(&["view", "--listen", "127.0.0.1:0"]);
        command.env_remove("ACTIVITY_CLICKHOUSE_USER");
        if let Some(folder) = dashboards {
            command.arg("--dashboards").arg(folder);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http"));
        let url = url
            .unwrap_or_else(|| panic!("it does not serve: {line:?}"))
            .to_owned();
        Self { child, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a look at a page gave.
struct Seen {
    panels: usize,
    findings: Vec<String>,
}

async fn look_at(
    chromium: &Chromium,
    served: &Served,
    dashboard: &Dashboard,
    look: Look,
    screenshots: Option<&Path>,
) -> Seen {
    let began = Instant::now();
    let page = chromium
        .open(&format!("{}/d/{}", served.url, dashboard.uid), look)
        .await;
    page.until(READY).await;
    // Panels of closed rows are asked for when their row is opened.
    page.evaluate(
        "document.querySelectorAll('details.row').forEach((row) => { row.open = true; })",
    )
    .await;
    page.until("![...document.querySelectorAll('.panel')].some((panel) => panel.dataset.state === 'waiting')").await;
    let name = format!("{}-{}-{}", dashboard.uid, look.theme, look.size);
    if let Some(folder) = screenshots {
        page.photograph(&folder.join(format!("{name}.png"))).await;
    }
    let seen = panels(&page).await;
    let mut findings = page.console_errors();
    findings.extend(page.requests_elsewhere(&served.url));
    findings.extend(seen.iter().filter_map(finding));
    if seen.len() != dashboard.panels().count() {
        findings.push(format!(
            "{} of {} panels are there",
            seen.len(),
            dashboard.panels().count()
        ));
    }
    if page.evaluate(OVERFLOW).await.as_i64() > Some(0) {
        findings.push("it is wider than the screen".to_owned());
    }
    println!(
        "{name}: {} panels, {} requests, {:.1} s, {} findings",
        seen.len(),
        page.requests(),
        began.elapsed().as_secs_f64(),
        findings.len()
    );
    page.close().await;
    let findings = findings
        .into_iter()
        .map(|finding| format!("{name}: {finding}"));
    Seen {
        panels: seen.len(),
        findings: findings.collect(),
    }
}

async fn panels(page: &Page<'_>) -> Vec<Value> {
    page.evaluate(PANELS).await.as_array().unwrap().clone()
}

/// What is wrong with a panel: it is not drawn, or it says that it is and there is nothing.
fn finding(panel: &Value) -> Option<String> {
    let least = match panel["type"].as_str().unwrap() {
        "stat" | "text" => 0,
        "bargauge" | "gauge" | "table" => 1,
        _ => 3,
    };
    let is_drawn = panel["state"] == "drawn" && panel["marks"].as_u64() >= Some(least);
    let has_words = least > 0
        || panel["text"]
            .as_str()
            .is_some_and(|text| !text.trim().is_empty());
    (!is_drawn || !has_words).then(|| panel.to_string())
}

/// The fixture leaves nothing out that this viewer claims to know.
fn uses_everything(dashboard: &Dashboard) {
    let all: String = dashboard
        .panels()
        .flat_map(|panel| &panel.targets)
        .map(|target| target.raw_sql.as_str())
        .collect();
    for name in MACROS {
        let name = name.split('(').next().unwrap();
        assert!(all.contains(name), "the fixture does not use {name}");
    }
    for kind in [
        "timeseries",
        "stat",
        "table",
        "barchart",
        "bargauge",
        "piechart",
        "heatmap",
        "gauge",
        "text",
    ] {
        assert!(
            dashboard.panels().any(|panel| panel.kind == kind),
            "the fixture has no {kind}"
        );
    }
    for kind in ["query", "custom", "interval", "textbox", "constant"] {
        assert!(
            dashboard
                .templating
                .list
                .iter()
                .any(|variable| variable.kind == kind),
            "the fixture has no {kind} variable"
        );
    }
}

async fn is_on_the_datas_own_range(chromium: &Chromium, served: &Served, dashboard: &Dashboard) {
    let page = chromium
        .open(&format!("{}/d/{}", served.url, dashboard.uid), LOOKS[0])
        .await;
    page.until(READY).await;
    let notice = page
        .evaluate("document.querySelector('#notice').textContent")
        .await;
    assert!(
        notice
            .as_str()
            .unwrap()
            .contains("range of the data itself"),
        "{notice}"
    );
    let range = page
        .evaluate("document.querySelector('#range-text').textContent")
        .await;
    assert!(range.as_str().unwrap().contains("2021-"), "{range}");
    let seen = panels(&page).await;
    assert!(
        seen.iter().all(|panel| finding(panel).is_none()),
        "{seen:?}"
    );
    page.close().await;
}

/// The check itself can fail: each panel of this dashboard is wrong in a way of its own, and each is said on the panel.
async fn finds_what_is_wrong(chromium: &Chromium, served: &Served, dashboard: &Dashboard) {
    let page = chromium
        .open(&format!("{}/d/{}", served.url, dashboard.uid), LOOKS[0])
        .await;
    page.until(READY).await;
    let seen = panels(&page).await;
    assert!(
        seen.iter().all(|panel| finding(panel).is_some()),
        "{seen:?}"
    );
    let said: Vec<(&str, bool)> = seen
        .iter()
        .map(|panel| {
            let expected = panel["title"].as_str().unwrap();
            (expected, panel["text"].as_str().unwrap().contains(expected))
        })
        .collect();
    assert!(
        said.len() >= 6 && said.iter().all(|(_, is_said)| *is_said),
        "{said:?} {seen:?}"
    );
    page.close().await;
}

async fn is_used_by_keyboard(chromium: &Chromium, served: &Served) {
    let dashboard = &load(None).unwrap()[0];
    let page = chromium
        .open(&format!("{}/d/{}", served.url, dashboard.uid), LOOKS[0])
        .await;
    page.until(READY).await;
    page.press("Tab", 9).await;
    assert_eq!(
        page.evaluate("document.activeElement.className").await,
        "skip"
    );
    // Whatever can be used has a name, and is reached.
    let nameless = page
        .evaluate("[...document.querySelectorAll('button, summary, select, input, a')].filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)")
        .await;
    assert_eq!(nameless.as_array().unwrap().len(), 0, "{nameless}");
    page.evaluate("document.querySelector('.about summary').focus()")
        .await;
    page.press("Enter", 13).await;
    page.evaluate("document.querySelector('.about summary').click()")
        .await;
    page.until("document.querySelector('.about').open").await;
    page.press("Escape", 27).await;
    page.until("!document.querySelector('.about').open").await;
    page.close().await;
}

/// The viewer's own user reads tables, and nothing else.
async fn refuses_to_write(world: &World) {
    let mut settings = world.targets.clickhouse.clone();
    settings.clickhouse_user = activity_devstack::VIEWER_USER.to_owned();
    let database = activity_platform::clickhouse::Database::new(&settings).unwrap();
    let patience = support::PATIENCE;
    let reads = |sql: &'static str| database.read(sql, "JSONCompact", &[], patience);
    assert!(reads("SELECT count() FROM clicks").await.is_ok());
    for sql in [
        "INSERT INTO truth (event_id) VALUES (generateUUIDv4())",
        "DROP TABLE clicks",
        "CREATE TABLE t (n UInt8) ENGINE = Memory",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT number FROM numbers(100000)",
    ] {
        let refused = reads(sql).await;
        assert!(refused.is_err(), "{sql}");
    }
}
