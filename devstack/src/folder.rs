//! The data folder of a stack: who holds it, where each service's data and log are, and what is remembered between runs.
//!
//! ```text
//! lock             held (flock) by the process that runs a stack here, whose id it contains
//! services.lock    held (shared) by every service: free exactly when none is left of an earlier run
//! ports.json       the ports of the last start
//! endpoints.json   there while a stack serves
//! kafka/ registry/ clickhouse/ prometheus/ logs/ tmp/
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Doing;
use crate::{Endpoints, Ports, Service, StackError};

/// Longer than another process's look at the lock takes ([`find_running`]), far shorter than a stack lives.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// A killed engine gives back gigabytes before it is gone.
const LEFT_OVERS_PATIENCE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

const LOCK: &str = "lock";
const SERVICES_LOCK: &str = "services.lock";
const PORTS: &str = "ports.json";
const ENDPOINTS: &str = "endpoints.json";
const SERVICE_FOLDERS: [&str; 4] = ["kafka", "registry", "clickhouse", "prometheus"];

/// A data folder held by this process.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates and locks the folder, and waits until the services of a killed run are gone. Blocks for seconds at most.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StackError> {
        let opening = || format!("opening the data folder {}", data_dir.display());
        fs::create_dir_all(data_dir).doing(opening)?;
        let root = data_dir.canonicalize().doing(opening)?;
        let mut lock = open_lock(&root.join(LOCK)).doing(opening)?;
        if !lock_within(&lock, LOCK_PATIENCE).doing(opening)? {
            let holder = fs::read_to_string(root.join(LOCK)).unwrap_or_default();
            let holder = if holder.trim().is_empty() {
                "unknown"
            } else {
                holder.trim()
            }
            .to_owned();
            return Err(StackError::FolderInUse {
                data_dir: root,
                holder,
            });
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .doing(opening)?;
        let folder = Self { root, _lock: lock };
        folder.unpublish();
        folder.await_left_overs()?;
        Ok(folder)
    }

    fn await_left_overs(&self) -> Result<(), StackError> {
        let path = self.services_lock();
        let free = open_lock(&path).and_then(|file| lock_within(&file, LEFT_OVERS_PATIENCE));
        if free.doing(|| format!("locking {}", path.display()))? {
            return Ok(());
        }
        let processes = holders_of(&path)
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        Err(StackError::LeftOvers {
            data_dir: self.root.clone(),
            processes,
        })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file whose lock every service shares while it lives.
    pub(crate) fn services_lock(&self) -> PathBuf {
        self.root.join(SERVICES_LOCK)
    }

    /// Where a service keeps its data.
    pub(crate) fn data(&self, service: Service) -> PathBuf {
        self.root.join(match service {
            // Of all brokers: within it each has a folder of its own.
            Service::Kafka(_) => "kafka",
            Service::Registry => "registry",
            Service::ClickHouse => "clickhouse",
            Service::Prometheus => "prometheus",
        })
    }

    /// Where a service logs to.
    pub(crate) fn log(&self, service: Service) -> PathBuf {
        self.root
            .join("logs")
            .join(format!("{}.log", service.name()))
    }

    /// An empty folder for a service's temporary files: a killed Java leaves native libraries there.
    pub(crate) fn fresh_tmp(&self, service: Service) -> Result<PathBuf, StackError> {
        let path = self.root.join("tmp").join(&*service.name());
        remove_all(&path)
            .and_then(|()| fs::create_dir_all(&path))
            .doing(|| format!("emptying {}", path.display()))?;
        Ok(path)
    }

    /// The ports of the last start, if any.
    pub(crate) fn last_ports(&self) -> Option<Ports> {
        read_json(&self.root.join(PORTS))
    }

    /// Remembers the ports for the next start, and says to others where the services are.
    pub(crate) fn publish(&self, ports: &Ports, endpoints: &Endpoints) -> Result<(), StackError> {
        write_json(&self.root.join(PORTS), ports)?;
        write_json(&self.root.join(ENDPOINTS), endpoints)
    }

    fn unpublish(&self) {
        // Absent is as good as removed, and a left-over misleads nobody while the lock is free.
        let _ = fs::remove_file(self.root.join(ENDPOINTS));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.unpublish();
    }
}

/// The endpoints of the stack that serves from this folder now; None if there is none, or it is not ready yet.
pub fn find_running(data_dir: &Path) -> Option<Endpoints> {
    let lock = File::open(data_dir.join(LOCK)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_json(&data_dir.join(ENDPOINTS)),
        _ => None,
    }
}

/// Deletes all data of the services in this folder, so that the next start begins anew; other files stay. Refused while
/// a stack runs on it.
pub fn erase(data_dir: &Path) -> Result<(), StackError> {
    if !data_dir.exists() {
        return Ok(());
    }
    let folder = Folder::open(data_dir)?;
    for name in SERVICE_FOLDERS {
        let path = folder.root.join(name);
        remove_all(&path).doing(|| format!("deleting {}", path.display()))?;
    }
    Ok(())
}

/// Deletes a folder with all in it; absent is as good.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn lock_within(file: &File, patience: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() > patience => return Ok(false),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// The processes that have the file open, as far as this user may see them.
fn holders_of(path: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_open = |id: &u32| {
        let open = fs::read_dir(format!("/proc/{id}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        *id != std::process::id()
            && open
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|file| file == path)
    };
    ids.filter(has_open).collect()
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Written whole or not at all: others read it at any moment.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StackError> {
    let draft = path.with_extension("draft");
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other);
    text.and_then(|text| fs::write(&draft, text))
        .and_then(|()| fs::rename(&draft, path))
        .doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::on(&Ports::default())
    }

    #[test]
    fn a_second_holder_is_refused_with_the_id_of_the_first() {
        let data = tempfile::tempdir().unwrap();
        let _first = Folder::open(data.path()).unwrap();
        let refused = Folder::open(data.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("in use by process {}", std::process::id())),
            "{refused}"
        );
    }

    #[test]
    fn endpoints_are_found_while_the_folder_is_held_and_ready() {
        let data = tempfile::tempdir().unwrap();
        assert!(find_running(data.path()).is_none());
        let folder = Folder::open(data.path()).unwrap();
        assert!(find_running(data.path()).is_none(), "not ready yet");
        folder.publish(&Ports::default(), &endpoints()).unwrap();
        assert_eq!(
            find_running(data.path()).unwrap().kafka,
            "127.0.0.1:9092,127.0.0.1:9094,127.0.0.1:9096"
        );
        drop(folder);
        assert!(find_running(data.path()).is_none());
    }

    #[test]
    fn endpoints_left_by_a_killed_run_are_not_believed() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(LOCK), "1").unwrap();
        write_json(&data.path().join(ENDPOINTS), &endpoints()).unwrap();
        assert!(find_running(data.path()).is_none());
    }

    #[test]
    fn ports_are_remembered_for_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let ports = Ports {
            kafka: [10_001, 0, 0],
            ..Ports::default()
        };
        Folder::open(data.path())
            .unwrap()
            .publish(&ports, &endpoints())
            .unwrap();
        assert_eq!(Folder::open(data.path()).unwrap().last_ports(), Some(ports));
    }

    #[test]
    fn erasing_deletes_the_services_data_alone_and_only_when_nobody_runs() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join("kafka/1")).unwrap();
        fs::write(data.path().join("notes"), "mine").unwrap();
        let folder = Folder::open(data.path()).unwrap();
        assert!(matches!(
            erase(data.path()),
            Err(StackError::FolderInUse { .. })
        ));
        drop(folder);
        erase(data.path()).unwrap();
        assert!(!data.path().join("kafka").exists() && data.path().join("notes").exists());
    }

    #[test]
    fn a_service_of_an_earlier_run_is_seen_by_its_open_lock() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().canonicalize().unwrap().join(SERVICES_LOCK);
        let held = open_lock(&path).unwrap();
        let mut service = std::process::Command::new("sleep")
            .arg("60")
            .stdin(held)
            .spawn()
            .unwrap();
        assert!(holders_of(&path).contains(&service.id()));
        service.kill().unwrap();
        service.wait().unwrap();
    }
}
