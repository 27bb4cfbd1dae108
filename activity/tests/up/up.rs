//! One `activity up` as a process: what it says, what it starts, how it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use activity_devstack::bound;
use serde_json::Value;

use crate::running::Running;
use crate::support::{ACTIVITY, signal};

/// `up` itself gives its services 180 s and its groups 60 s on a machine that is busy; whatever takes longer, hangs.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long Ctrl-C may take before it counts as not heeded.
const CTRL_C_PATIENCE: Duration = Duration::from_secs(20);
const LOG_LINES: usize = 25;

/// An `activity up`; killed when dropped.
pub struct Up {
    pub child: Child,
    data_dir: PathBuf,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Up {
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_beside(data_dir, "up", arguments)
    }

    /// `name` is for the files of its output, beside the data folder.
    pub fn start_beside(data_dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let output = |stream| data_dir.with_extension(format!("{name}.{stream}"));
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        // Bound to this thread: a test run that is killed leaves no stack behind.
        let child = bound(ACTIVITY.as_ref(), None, ACTIVITY.as_ref())
            .arg("up")
            .args(arguments)
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            data_dir: data_dir.to_owned(),
            stdout,
            stderr,
        }
    }

    /// Waits for the READY line on stdout; the URLs in it.
    pub fn ready(&mut self) -> Vec<String> {
        let line = |up: &Self| {
            let printed = fs::read_to_string(&up.stdout).unwrap();
            let mut lines = printed
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines
                .find(|line| line.starts_with("READY"))
                .map(str::to_owned)
        };
        self.until("it says READY", |up| line(up).is_some());
        let line = line(self).unwrap();
        let words = line.split([' ', ',', '\n']);
        words
            .filter(|word| word.starts_with("http"))
            .map(str::to_owned)
            .collect()
    }

    /// Waits while it runs; fails with the logs at hand.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let mut ended = None;
        let held = within(PATIENCE, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || holds(self)
        });
        assert!(
            held && ended.is_none(),
            "{what}: waited in vain ({ended:?})\n{}",
            self.tails()
        );
    }

    /// Waits for its end. None: by a signal.
    pub fn exit_code_within(&mut self, patience: Duration) -> Option<i32> {
        let ended = within(patience, || self.child.try_wait().unwrap().is_some());
        assert!(ended, "it does not end\n{}", self.tails());
        self.child.wait().unwrap().code()
    }

    pub fn end_with_ctrl_c(&mut self) {
        let started = self.descendants();
        signal(self.child.id(), "INT");
        let code = self.exit_code_within(CTRL_C_PATIENCE);
        assert_eq!(code, Some(0), "{}", self.tails());
        let left: Vec<_> = started
            .iter()
            .filter(|process| process.is_alive())
            .collect();
        assert!(left.is_empty(), "{left:?} live on\n{}", self.tails());
    }

    /// What a verb without addresses says of the stack on this folder.
    pub fn json(&self, verb: &[&str]) -> Value {
        let output = self.run(&[verb, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn produce(&self, events: u64) {
        self.run(&["produce", "simulate", "--events", &events.to_string()]);
    }

    /// Runs a statement in ClickHouse.
    pub fn execute(&self, statement: &str) {
        let endpoints = activity_devstack::find_running(&self.data_dir).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sent = client.post(endpoints.clickhouse).body(statement.to_owned());
        let answer = runtime.block_on(sent.send()).unwrap();
        assert!(answer.status().is_success(), "{statement}: {answer:?}");
    }

    /// One number from ClickHouse.
    pub fn number(&self, query: &str) -> i64 {
        let endpoints = activity_devstack::find_running(&self.data_dir).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = runtime.block_on(async {
            let sent = client.post(endpoints.clickhouse).body(query.to_owned());
            sent.send().await.unwrap().text().await.unwrap()
        });
        answer
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{query}: {answer}"))
    }

    fn run(&self, verb: &[&str]) -> Output {
        let output = Command::new(ACTIVITY)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(verb)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{verb:?}: {output:?}\n{}",
            self.tails()
        );
        output
    }

    pub fn descendants(&self) -> Vec<Running> {
        let all = Running::all();
        let mut found: Vec<Running> = Vec::new();
        let mut parents = vec![self.child.id()];
        while let Some(parent) = parents.pop() {
            let children = all.iter().filter(|process| process.parent == parent);
            parents.extend(children.clone().map(|process| process.id));
            found.extend(children.cloned());
        }
        found
    }

    pub fn group(&self, name: &str) -> Option<Running> {
        let command = format!("consume {name}");
        let mut processes = self.descendants().into_iter();
        processes.find(|process| process.command.contains(&command))
    }

    pub fn broker(&self, number: u8) -> Option<Running> {
        let tmp = format!("/tmp/kafka-{number} ");
        let mut processes = self.descendants().into_iter();
        processes.find(|process| {
            process.command.contains(&tmp) && process.command.contains(" kafka.Kafka ")
        })
    }

    /// The last lines of what it and all that it started have said.
    pub fn tails(&self) -> String {
        let logs = fs::read_dir(self.data_dir.join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        let files = [self.stdout.clone(), self.stderr.clone()];
        let logs = logs.map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|end| end == "log"));
        let files = files.into_iter().chain(logs);
        files
            .map(|file| format!("== {}\n{}\n", file.display(), tail(&file)))
            .collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it holds; false: it did not in time.
pub fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
