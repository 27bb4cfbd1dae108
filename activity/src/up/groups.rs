//! Each group in a process of its own: started, started again with back-off when it dies, stopped in order.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use activity_consumers::GROUPS;
use activity_devstack::{Process, Spawner, bound, rotate_log};
use activity_platform::settings::Targets;
use anyhow::Context;

use crate::settings_file;

/// The first group's metrics are served here, the next group's one above, and so on; a free port where one is taken.
const METRICS_PORT: u16 = 9401;
/// How long a group may take to end in order.
const PATIENCE: Duration = Duration::from_secs(12);
/// Wait before the first restart; doubles with each failure in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A group that ran this long has no failures in a row.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// All groups' processes.
pub struct GroupProcesses {
    launcher: Launcher,
    processes: Vec<GroupProcess>,
}

struct Launcher {
    spawner: Spawner,
    executable: PathBuf,
    targets: Targets,
    settings_file: Option<PathBuf>,
    logs: PathBuf,
}

struct GroupProcess {
    group: &'static str,
    address: SocketAddr,
    process: Option<Process>,
    started: Instant,
    failures: u32,
    restart_at: Option<Instant>,
}

impl GroupProcesses {
    /// Starts every group.
    pub async fn start(
        executable: PathBuf,
        targets: &Targets,
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        let arguments: Vec<String> = std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let launcher = Launcher {
            spawner: Spawner::new()?,
            executable,
            targets: targets.clone(),
            settings_file: settings_file::find(&arguments),
            logs,
        };
        let mut processes = Vec::new();
        for (index, group) in GROUPS.iter().enumerate() {
            rotate_log(&log_file(&launcher.logs, group.name))?;
            let address = free_address(METRICS_PORT + index as u16)?;
            let process = launcher.launch(group.name, address).await?;
            processes.push(GroupProcess {
                group: group.name,
                address,
                process: Some(process),
                started: Instant::now(),
                failures: 0,
                restart_at: None,
            });
        }
        Ok(Self {
            launcher,
            processes,
        })
    }

    /// Where each group serves its metrics.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        self.processes
            .iter()
            .map(|process| (process.group, process.address))
    }

    /// Waits until every group says that it is ready, but those that are known to wait for longer. One that ends before is started again, and `say` is told.
    pub async fn ready(&mut self, but: &[&str], say: impl Fn(&str)) -> anyhow::Result<()> {
        // No proxy: this is loopback.
        let client = reqwest::Client::builder().no_proxy().build()?;
        loop {
            // Looked up anew each time: a group that is started again may be served elsewhere.
            let expected = self.addresses().filter(|(group, _)| !but.contains(group));
            let addresses: Vec<_> = expected.map(|(_, address)| address).collect();
            tokio::select! {
                said = self.supervise() => say(&said),
                () = all_ready(&client, &addresses) => return Ok(()),
            }
        }
    }

    /// Resolves when a group has ended by itself or was started again, with what happened. Cancel-safe.
    pub async fn supervise(&mut self) -> String {
        loop {
            if let Some(said) = self.note_ends() {
                return said;
            }
            let now = Instant::now();
            for index in 0..self.processes.len() {
                if self.processes[index].restart_at.is_some_and(|at| at <= now) {
                    return self.restart(index).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn note_ends(&mut self) -> Option<String> {
        for process in &mut self.processes {
            let Some(status) = process.process.as_ref().and_then(Process::ended) else {
                continue;
            };
            process.process = None;
            process.failures = if process.started.elapsed() > HEALTHY_AFTER {
                1
            } else {
                process.failures + 1
            };
            let wait = BACKOFF_FIRST
                .saturating_mul(1 << (process.failures - 1).min(10))
                .min(BACKOFF_MAX);
            process.restart_at = Some(Instant::now() + wait);
            return Some(format!(
                "group {} ended by itself ({status}); starting it again in {:.1} s",
                process.group,
                wait.as_secs_f64()
            ));
        }
        None
    }

    async fn restart(&mut self, index: usize) -> String {
        let group = self.processes[index].group;
        match self.launch_again(index).await {
            Ok((started, address)) => {
                let process = &mut self.processes[index];
                process.process = Some(started);
                process.address = address;
                process.started = Instant::now();
                process.restart_at = None;
                format!("group {group} started again: http://{address}/metrics")
            }
            Err(error) => {
                self.processes[index].restart_at = Some(Instant::now() + BACKOFF_MAX);
                format!("group {group} cannot be started: {error:#}")
            }
        }
    }

    /// On its port unless another program has taken that one meanwhile: with it the group would end at each start.
    async fn launch_again(&self, index: usize) -> anyhow::Result<(Process, SocketAddr)> {
        let before = &self.processes[index];
        let address = free_address(before.address.port())?;
        let process = self.launcher.launch(before.group, address).await?;
        Ok((process, address))
    }

    /// Peak memory of every process of ours, this one first.
    pub fn peak_memory(&self) -> Vec<(String, u64)> {
        let groups = self.processes.iter().filter_map(|process| {
            Some((
                process.group.to_owned(),
                peak_memory(process.process.as_ref()?.id())?,
            ))
        });
        peak_memory(std::process::id())
            .map(|bytes| ("up".to_owned(), bytes))
            .into_iter()
            .chain(groups)
            .collect()
    }

    /// Ends all groups, side by side.
    pub async fn stop(mut self) {
        let mut ending = tokio::task::JoinSet::new();
        for process in self.processes.drain(..) {
            if let Some(mut process) = process.process {
                ending.spawn(async move { process.terminate(PATIENCE).await });
            }
        }
        ending.join_all().await;
    }
}

/// Asks one after the other until each has said once that it is ready.
async fn all_ready(client: &reqwest::Client, addresses: &[SocketAddr]) {
    for address in addresses {
        let url = format!("http://{address}/readyz");
        while !client
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Launcher {
    async fn launch(&self, group: &'static str, address: SocketAddr) -> anyhow::Result<Process> {
        let log = open_log(&log_file(&self.logs, group))?;
        let mut command: Command = bound(&self.executable, None, &self.executable);
        command.args(["consume", group, "--metrics", &address.to_string()]);
        for (flag, value) in flags(&self.targets) {
            command.args([flag, &value]);
        }
        if let Some(file) = &self.settings_file {
            command.env("ACTIVITY_CONFIG", file);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.spawner
            .spawn(command)
            .await
            .with_context(|| format!("group {group}"))
    }
}

/// The settings that a group's process must share with this one; all others reach it by the environment and the settings file.
fn flags(targets: &Targets) -> Vec<(&'static str, String)> {
    let Targets {
        kafka,
        registry,
        clickhouse,
    } = targets;
    let given = [
        ("--kafka", &kafka.kafka),
        ("--registry", &registry.registry),
        ("--clickhouse", &clickhouse.clickhouse),
    ];
    let mut flags: Vec<_> = given
        .into_iter()
        .filter_map(|(flag, value)| Some((flag, value.clone()?)))
        .collect();
    flags.push(("--topic-prefix", kafka.topic_prefix.clone()));
    flags.push(("--group-prefix", kafka.group_prefix.clone()));
    flags.push(("--database", clickhouse.database.clone()));
    flags.push(("--clickhouse-user", clickhouse.clickhouse_user.clone()));
    flags
}

/// A group's log. The previous run's is kept beside it at the first start of this run.
fn log_file(logs: &Path, group: &str) -> PathBuf {
    logs.join(format!("{group}.log"))
}

/// To append to: a group that is started again goes on in the same file.
fn open_log(path: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// The wished-for port if nobody has it, else a free one.
fn free_address(port: u16) -> std::io::Result<SocketAddr> {
    let listener =
        TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    listener.local_addr()
}

/// `VmHWM` of a process, bytes (proc(5)).
fn peak_memory(process_id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
