//! Peers that are built here, from sources that are here already.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// librdkafka's own benchmark, built from the source of the very librdkafka that we link. It is kept beside this program.
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
    cargo
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--manifest-path",
        ])
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
