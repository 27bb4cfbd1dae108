//! Prometheus: reads every group's metrics, keeps them, and judges the alert rules. Nothing else here needs it, so that a stack is whole without it.
//!
//! Its folder holds the configuration that the caller gave (`prometheus.yml`, `alerts.yml`), the places to read (`targets/groups.json`, written whenever groups
//! come, go or move; Prometheus watches the folder), and `data`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::error::Doing;
use crate::service::{get, isolate};
use crate::{Endpoints, StackError};

const CONFIG: &str = "prometheus.yml";
const RULES: &str = "alerts.yml";
const TARGETS: &str = "targets";
const GROUPS: &str = "groups.json";
const DATA: &str = "data";
const WEB: &str = "usr/share/prometheus/web";
const RETENTION: &str = "15d";

/// What Prometheus is configured with. Both files lie in one folder: the configuration names the rules as `alerts.yml` and the places to read as
/// `targets/*.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusFiles {
    /// The text of `prometheus.yml`.
    pub config: String,
    /// The text of `alerts.yml`.
    pub rules: String,
}

/// A Prometheus, fetched or found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Where its pages are, of a fetched one: they are looked for in `/usr/share` else.
    pub(crate) web: Option<PathBuf>,
}

impl Program {
    /// The fetched one.
    pub(crate) fn within(home: &Path) -> Self {
        Self {
            path: home.join("usr/bin/prometheus"),
            web: Some(home.join(WEB)),
        }
    }

    /// The machine's own.
    pub(crate) fn found(path: PathBuf) -> Self {
        Self { path, web: None }
    }
}

/// Writes the configuration into the folder, which no Prometheus may be using; it reads nobody until it is told whom.
pub(crate) fn prepare(folder: &Path, files: &PrometheusFiles) -> Result<(), StackError> {
    fs::create_dir_all(folder.join(TARGETS)).doing(|| format!("creating {}", folder.display()))?;
    let written = [(CONFIG, &files.config), (RULES, &files.rules)];
    for (name, text) in written {
        let path = folder.join(name);
        fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Says which groups are read, and where: at once, and without a start of Prometheus.
pub(crate) fn write_targets(
    folder: &Path,
    groups: &[(&str, SocketAddr)],
) -> Result<(), StackError> {
    let target = |(group, address): &(&str, SocketAddr)| json!({"targets": [address.to_string()], "labels": {"consumergroup": group}});
    let targets: Vec<_> = groups.iter().map(target).collect();
    let path = folder.join(TARGETS).join(GROUPS);
    // Prometheus reads what ends in .json at any moment: it must never see half of it.
    let draft = path.with_extension("draft");
    let text = serde_json::Value::from(targets).to_string();
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .doing(|| format!("writing {}", path.display()))
}

/// Completes `command`, which runs Prometheus, to one that serves on loopback with all its files in `folder`.
pub(crate) fn complete(command: &mut Command, program: &Program, folder: &Path, port: u16) {
    isolate(command, folder);
    command.args([
        format!("--config.file={CONFIG}"),
        format!("--storage.tsdb.path={DATA}"),
        format!("--storage.tsdb.retention.time={RETENTION}"),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=warn".to_owned(),
    ]);
    if let Some(web) = &program.web {
        command.arg(format!("--web.local-assets={}", web.display()));
    }
}

/// Content when the one that answers has its data where ours has: another program may have the port.
pub(crate) async fn probe(endpoints: &Endpoints, folder: &Path) -> Result<(), String> {
    let url = endpoints.prometheus.as_deref().unwrap_or_default();
    get(&format!("{url}/-/ready")).await?;
    let flags = get(&format!("{url}/api/v1/status/runtimeinfo")).await?;
    let found: serde_json::Value =
        serde_json::from_str(&flags).map_err(|error| error.to_string())?;
    if found["data"]["CWD"].as_str() == folder.to_str() {
        return Ok(());
    }
    Err(format!("{url} is another one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_prometheus() {
        let mut command = Command::new("prometheus");
        let program = Program::within(Path::new("/cache/prometheus"));
        complete(&mut command, &program, Path::new("/data/prometheus"), 9090);
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        insta::assert_snapshot!(args.join("\n"), @r"
        --config.file=prometheus.yml
        --storage.tsdb.path=data
        --storage.tsdb.retention.time=15d
        --web.listen-address=127.0.0.1:9090
        --log.level=warn
        --web.local-assets=/cache/prometheus/usr/share/prometheus/web
        ");
    }

    #[test]
    fn the_groups_to_read_are_written_whole_and_in_prometheus_own_form() {
        let folder = tempfile::tempdir().unwrap();
        let files = PrometheusFiles {
            config: "scrape_configs: []".to_owned(),
            rules: "groups: []".to_owned(),
        };
        prepare(folder.path(), &files).unwrap();
        let groups = [("fraud", "127.0.0.1:9402".parse().unwrap())];
        write_targets(folder.path(), &groups).unwrap();
        let written = fs::read_to_string(folder.path().join("targets/groups.json")).unwrap();
        assert_eq!(
            written,
            r#"[{"labels":{"consumergroup":"fraud"},"targets":["127.0.0.1:9402"]}]"#
        );
        let files = fs::read_dir(folder.path().join(TARGETS)).unwrap().count();
        assert_eq!(files, 1, "no draft is left");
    }
}
