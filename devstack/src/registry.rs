//! The schema registry: Apicurio with its Confluent-compatible API, its schemas in an H2 database file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::service::{get, isolate};
use crate::{Endpoints, java};

const HEAP: &str = "-Xmx96m";

/// The Java options and arguments, for a process whose working directory is the registry's data folder.
fn arguments(install: &Path, port: u16) -> Vec<String> {
    let properties = [
        "quarkus.http.host=127.0.0.1".to_owned(),
        format!("quarkus.http.port={port}"),
        "quarkus.management.host=127.0.0.1".to_owned(),
        "quarkus.management.port=0".to_owned(),
        "quarkus.http.access-log.enabled=false".to_owned(),
        // Without WRITE_DELAY=0 a kill loses acknowledged schemas and their ids are given out again. Relative, because a
        // path of the user's may contain what an H2 URL cannot.
        "apicurio.datasource.url=jdbc:h2:file:./registry;WRITE_DELAY=0".to_owned(),
        "apicurio.datasource.jdbc.initial-size=1".to_owned(),
        "apicurio.datasource.jdbc.min-size=1".to_owned(),
        "apicurio.datasource.jdbc.max-size=8".to_owned(),
    ];
    let mut arguments: Vec<String> = properties
        .iter()
        .map(|property| format!("-D{property}"))
        .collect();
    arguments.push("-jar".to_owned());
    arguments.push(install.join("quarkus-run.jar").display().to_string());
    arguments
}

/// Completes `command`, which runs a Java, to one that runs the registry with its data in `data`.
pub(crate) fn complete(command: &mut Command, install: &Path, data: &Path, tmp: &Path, port: u16) {
    isolate(command, data);
    command
        .arg(HEAP)
        .args(java::FLAGS)
        .arg(java::tmp_flag(tmp))
        .args(arguments(install, port));
}

/// Content when the API answers and it is ours: a registry that cannot bind its port ends, and never logs this line.
pub(crate) async fn probe(
    endpoints: &Endpoints,
    port: u16,
    log: &Path,
    log_from: u64,
) -> Result<(), String> {
    let logged = fs::read(log).map_err(|error| error.to_string())?;
    let ours = logged
        .get(usize::try_from(log_from).unwrap_or(0)..)
        .unwrap_or_default();
    let listening = format!("Listening on: http://127.0.0.1:{port}");
    if !String::from_utf8_lossy(ours).contains(&listening) {
        return Err("it does not listen yet".to_owned());
    }
    get(&format!("{}/subjects", endpoints.registry))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_registry() {
        insta::assert_snapshot!(arguments(Path::new("/cache/registry"), 8081).join("\n"), @r"
        -Dquarkus.http.host=127.0.0.1
        -Dquarkus.http.port=8081
        -Dquarkus.management.host=127.0.0.1
        -Dquarkus.management.port=0
        -Dquarkus.http.access-log.enabled=false
        -Dapicurio.datasource.url=jdbc:h2:file:./registry;WRITE_DELAY=0
        -Dapicurio.datasource.jdbc.initial-size=1
        -Dapicurio.datasource.jdbc.min-size=1
        -Dapicurio.datasource.jdbc.max-size=8
        -jar
        /cache/registry/quarkus-run.jar
        ");
    }
}
