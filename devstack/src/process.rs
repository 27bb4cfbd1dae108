//! Child processes that end when this one does.
//!
//! The kernel ties a child to the thread that spawned it, so all children are spawned by one thread that lives as long
//! as any of them is wanted ([`Spawner`]). Each runs in a process group of its own: Ctrl-C at the terminal does not
//! reach it, so that it can be stopped in order. Dropping a [`Process`] kills it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::{oneshot, watch};

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The thread that spawns. It ends when the last clone and the last process of it are dropped.
#[derive(Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system has no thread for it.
    pub fn new() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for mut request in inbox {
                    // Who asked may be gone: then the child must not stay.
                    if let Err(Ok(child)) = request.reply.send(request.command.spawn()) {
                        end_unwanted(child);
                    }
                }
            })?;
        Ok(Self { requests })
    }

    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub async fn spawn(&self, mut command: Command) -> io::Result<Process> {
        command.process_group(0);
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the spawning thread is gone");
        self.requests
            .send(Request { command, reply })
            .map_err(|_| gone())?;
        let child = answer.await.map_err(|_| gone())??;
        Process::watch(child, self.clone())
    }
}

fn end_unwanted(mut child: Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// A child process. Dropping it kills its whole process group.
pub struct Process {
    id: u32,
    child: Arc<Mutex<Child>>,
    stdin: Option<ChildStdin>,
    exit: watch::Receiver<Option<ExitStatus>>,
    _spawner: Spawner,
}

impl Process {
    fn watch(mut child: Child, spawner: Spawner) -> io::Result<Self> {
        let id = child.id();
        let stdin = child.stdin.take();
        let child = Arc::new(Mutex::new(child));
        let (ended, exit) = watch::channel(None);
        let process = Self {
            id,
            child: Arc::clone(&child),
            stdin,
            exit,
            _spawner: spawner,
        };
        // On failure `process` is dropped here and the child with it.
        thread::Builder::new()
            .name(format!("wait-{id}"))
            .stack_size(64 * 1024)
            .spawn(move || {
                await_end(id);
                let status = lock(&child).wait();
                ended.send_replace(status.ok());
            })?;
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How it ended, or None while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until it has ended and was reaped. Cancel-safe. None: the operating system would not tell how.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        match self.exit.wait_for(Option::is_some).await {
            Ok(status) => *status,
            Err(_) => None,
        }
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }

    /// Asks it to end with SIGTERM; kills it when it has not within `patience`.
    pub async fn terminate(&mut self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        self.wait_or_kill(patience).await;
    }

    /// Asks it to end by closing its stdin; kills it when it has not within `patience`.
    pub(crate) async fn close_stdin(&mut self, patience: Duration) {
        self.stdin = None;
        self.wait_or_kill(patience).await;
    }

    async fn wait_or_kill(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Signals the process group, unless the process was reaped already: then its id may be somebody else's.
    fn signal(&self, signal: Signal) {
        let mut child = lock(&self.child);
        if let (Ok(None), Ok(id)) = (child.try_wait(), i32::try_from(self.id)) {
            // Fails only when the group has ended in this moment.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Blocks until the process has ended, without reaping it, so that nobody waits while holding the lock.
fn await_end(id: u32) {
    let Ok(id) = i32::try_from(id) else { return };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(Pid::from_raw(id)), flags) == Err(Errno::EINTR) {}
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped());
        command
    }

    #[tokio::test]
    async fn an_end_is_seen_with_its_status() {
        let spawner = Spawner::new().unwrap();
        let mut process = spawner.spawn(shell("exit 7")).await.unwrap();
        assert_eq!(process.wait().await.unwrap().code(), Some(7));
        assert_eq!(process.ended().unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn a_process_that_heeds_no_request_is_killed_after_the_patience() {
        let spawner = Spawner::new().unwrap();
        let mut deaf = spawner
            .spawn(shell(
                "trap '' TERM; echo; while :; do read x || exec sleep 60; done",
            ))
            .await
            .unwrap();
        deaf.close_stdin(Duration::from_millis(50)).await;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&deaf.ended().unwrap()),
            Some(9)
        );
    }

    #[tokio::test]
    async fn closing_stdin_ends_a_process_that_reads_it() {
        let spawner = Spawner::new().unwrap();
        let mut reader = spawner.spawn(shell("cat; exit 3")).await.unwrap();
        assert!(reader.ended().is_none());
        reader.close_stdin(Duration::from_secs(30)).await;
        assert_eq!(reader.ended().unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn dropping_a_process_kills_it_and_what_it_started() {
        let spawner = Spawner::new().unwrap();
        let process = spawner.spawn(shell("sleep 60 & wait")).await.unwrap();
        let mut exit = process.exit.clone();
        drop(process);
        let status = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}
