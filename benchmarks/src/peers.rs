//! Peers that are fetched, or built from sources that are here already. They are kept beside this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use activity_devstack::kafka_tool;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The only one that the services run on.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Kafka's own tools: the newest that there are as a package, which speak to a newer broker as well.
const TOOLS: &str = "org.apache.kafka:kafka-tools:4.3.1";
const TOOLS_JAR: &str = "kafka-tools-4.3.1.jar";
const TOOLS_SHA256: &str = "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c";

/// The command that runs Kafka's own benchmark of a producer.
pub async fn producer_performance() -> anyhow::Result<Command> {
    let jar = tokio::task::spawn_blocking(kafka_tools).await??;
    let class = "org.apache.kafka.tools.ProducerPerformance";
    Ok(kafka_tool(None, &jar, class).await?)
}

/// The jar of Kafka's tools, by Maven, verified.
fn kafka_tools() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("kafka-tools");
    let jar = beside.join(TOOLS_JAR);
    if !jar.is_file() {
        let mut maven = Command::new("mvn");
        maven.args(["-B", "-q", "-ntp", "-C"]);
        maven.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy");
        maven.arg(format!("-Dartifact={TOOLS}"));
        maven.arg(format!("-DoutputDirectory={}", beside.display()));
        run(&mut maven)?;
    }
    let found = Sha256::digest(std::fs::read(&jar)?);
    let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    if found != TOOLS_SHA256 {
        std::fs::remove_file(&jar)?;
        bail!("{TOOLS} is not what it was: SHA-256 {found}, not {TOOLS_SHA256}");
    }
    Ok(jar)
}

/// librdkafka's own benchmark, built from the source of the very librdkafka that we link.
pub async fn rdkafka_performance() -> anyhow::Result<PathBuf> {
    tokio::task::spawn_blocking(|| {
        let source = librdkafka_source()?;
        let beside = std::env::current_exe()?.with_file_name("librdkafka-examples");
        let program = beside.join("examples/rdkafka_performance");
        if !program.is_file() {
            eprintln!("building rdkafka_performance, about a minute");
            build(&source, &beside)?;
        }
        Ok(program)
    })
    .await?
}

/// The folder that cargo has the source in.
fn librdkafka_source() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    // Not offline: cargo wants the packages of other platforms, too, before it tells of any.
    cargo
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", PLATFORM, "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let sys = packages
        .iter()
        .find(|package| package["name"] == "rdkafka-sys");
    let manifest = sys
        .and_then(|package| package["manifest_path"].as_str())
        .context("rdkafka-sys is not there")?;
    Ok(Path::new(manifest).with_file_name("librdkafka"))
}

fn build(source: &Path, beside: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(beside);
    run(Command::new("cp").arg("-R").arg(source).arg(beside))?;
    let within = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(beside);
        command
    };
    // Cargo's copy has lost the executable bits.
    run(within("sh").args(["-c", "chmod +x configure lds-gen.py mklove/*"]))?;
    run(within("./configure").args([
        "--disable-gssapi",
        "--disable-curl",
        "--disable-lz4-ext",
        "--enable-static",
    ]))?;
    run(within("make").args(["-C", "src", "librdkafka.a"]))?;
    run(within("make").args(["-C", "examples", "rdkafka_performance"]))
}

/// Runs a step of the build; what it says is shown where it fails.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
