//! The dashboards against Grafana's own types: @grafana/schema, whose exact version and checksum stand in `grafana/types/package-lock.json`, and the TypeScript
//! compiler, which refuses what they do not know.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::files::dashboards;

const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../grafana/types");

/// A folder with the types and the compiler, fetched by npm as it is configured; from its cache after the first time.
fn workshop(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for file in [
        "package.json",
        "package-lock.json",
        "tsconfig.json",
        "dashboard.ts",
    ] {
        std::fs::copy(Path::new(TYPES).join(file), folder.join(file)).unwrap();
    }
    let arguments = [
        "ci",
        "--prefer-offline",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ];
    let npm = Command::new("npm")
        .args(arguments)
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(npm.status.success(), "{}", said(&npm));
    folder
}

fn said(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

/// What the compiler says of dashboards, compiled together.
fn compiled(folder: &Path, dashboards: &[(String, String)]) -> String {
    for (name, json) in dashboards {
        let source = format!(
            "import type {{ Whole }} from './dashboard';\nexport const dashboard: Whole = {json};\n"
        );
        std::fs::write(folder.join(format!("{name}.ts")), source).unwrap();
    }
    let tsc = Command::new("node")
        .args(["node_modules/typescript/bin/tsc", "--project", "."])
        .current_dir(folder)
        .output()
        .unwrap();
    assert_eq!(tsc.status.success(), said(&tsc).is_empty());
    said(&tsc)
}

#[test]
fn each_dashboard_is_one_by_grafanas_own_types_and_what_grafana_does_not_know_is_noticed() {
    let folder = workshop("grafana-types");
    let good = dashboards().into_iter();
    let good: Vec<_> = good.map(|(name, json)| (name, json.to_string())).collect();
    assert_eq!(compiled(&folder, &good), "");
    let (_, watching) = good.iter().find(|(name, _)| name == "watching").unwrap();
    let wrongs = [
        ("\"xField\"", "\"xFields\""),
        ("\"graphTooltip\":1", "\"graphTooltip\":7"),
        ("\"textMode\":\"value\"", "\"textMode\":\"values\""),
        ("\"type\":\"stat\"", "\"type\":\"statistic\""),
        ("\"format\":0", "\"format\":5"),
    ];
    let bad = wrongs.iter().enumerate().map(|(number, (right, wrong))| {
        assert!(watching.contains(right), "{right}");
        (format!("bad-{number}"), watching.replacen(right, wrong, 1))
    });
    let said = compiled(&folder, &bad.collect::<Vec<_>>());
    for (number, (_, wrong)) in wrongs.iter().enumerate() {
        let place = format!("bad-{number}.ts(");
        assert!(
            said.lines().any(|line| line.starts_with(&place)),
            "{wrong}: {said}"
        );
    }
}
