//! The cache of fetched parts, shared by any number of runs at once.
//!
//! A part is there when its folder is there: it is fetched, verified and laid out in a folder of its own beside it, and
//! moved into place in one step. One run fetches, the others wait for it (a file lock that the kernel frees however the
//! run ends). With all parts there nothing asks any network.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clients::{self, Call, Client};
use crate::error::Doing;
use crate::parts::{self, Part, Workshop};
use crate::process::{Process, Spawner};
use crate::{Progress, Silent, StackError, apt, java, launch, logs, machine};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const PARTIAL: &str = ".partial-";

/// What fetching took.
#[derive(Clone, Debug, Default)]
pub struct Downloads {
    /// Each part, in no particular order. A Java found on the machine is none.
    pub parts: Vec<PartDownload>,
}

/// What fetching one part took.
#[derive(Clone, Debug)]
pub struct PartDownload {
    /// Its name and version.
    pub what: &'static str,
    /// What its package client downloaded, its own plugins included; 0 if the part was there.
    pub bytes: u64,
    /// Until it was verified and in place.
    pub seconds: f64,
}

/// Fetches what a stack needs and starts nothing. `cache_dir` defaults to `$ACTIVITY_CACHE_DIR`, else
/// `$XDG_CACHE_HOME/activity`, else `~/.cache/activity`.
pub async fn prefetch(
    cache_dir: Option<PathBuf>,
    progress: Arc<dyn Progress>,
) -> Result<Downloads, StackError> {
    machine::check()?;
    let spawner = Spawner::new().doing(|| "starting a thread")?;
    let cache = Cache::new(cache_dir, spawner, None, progress)?;
    let needs_java = java::find().is_none();
    cache.check_clients(needs_java)?;
    let java = async {
        match needs_java {
            true => cache.ensure(Part::Java).await.map(Some),
            false => Ok(None),
        }
    };
    let (kafka, registry, engine, charts, java) = tokio::try_join!(
        cache.ensure(Part::Kafka),
        cache.ensure(Part::Registry),
        cache.ensure(Part::Engine),
        cache.ensure(Part::Charts),
        java
    )?;
    let parts = [
        Some(kafka),
        Some(registry),
        Some(engine),
        Some(charts),
        java,
    ];
    Ok(Downloads {
        parts: parts
            .into_iter()
            .flatten()
            .map(|(_, download)| download)
            .collect(),
    })
}

/// The file of the chart library that the dashboards' pages draw with, fetched if it is not there yet. `cache_dir` as for [`prefetch`]; `executable` as in
/// [`crate::StackOptions`].
pub async fn chart_library(
    cache_dir: Option<PathBuf>,
    executable: Option<PathBuf>,
    progress: Arc<dyn Progress>,
) -> Result<PathBuf, StackError> {
    let spawner = Spawner::new().doing(|| "starting a thread")?;
    let cache = Cache::new(cache_dir, spawner, executable, progress)?;
    let (home, _) = cache.ensure(Part::Charts).await?;
    Ok(parts::charts_library(&home))
}

/// Prometheus's own checker of configurations and rules, `promtool`, which comes with it: fetched if it is not there yet, else the one in the PATH.
/// `cache_dir` as of [`prefetch`].
pub async fn promtool(cache_dir: Option<PathBuf>) -> Result<PathBuf, StackError> {
    let spawner = Spawner::new().doing(|| "starting a thread")?;
    let cache = Cache::new(cache_dir, spawner, None, Arc::new(Silent))?;
    match cache.ensure(Part::Prometheus).await {
        Ok((home, _)) => Ok(home.join("usr/bin/promtool")),
        Err(error) => clients::on_path("promtool").ok_or(error),
    }
}

/// The command that runs a class of `jar` with all of Kafka's jars at hand (`org.apache.kafka.tools.ProducerPerformance` of Kafka's own tools, say), on the Java
/// found or fetched, as Java runs by default; the class's arguments are to follow. `cache_dir` as of [`prefetch`].
pub async fn kafka_tool(
    cache_dir: Option<PathBuf>,
    jar: &Path,
    class: &str,
) -> Result<Command, StackError> {
    let spawner = Spawner::new().doing(|| "starting a thread")?;
    let cache = Cache::new(cache_dir, spawner, None, Arc::new(Silent))?;
    let (kafka, _) = cache.ensure(Part::Kafka).await?;
    let java = match java::find() {
        Some(java) => java,
        None => java::program(&cache.ensure(Part::Java).await?.0),
    };
    let class_path = format!("{}:{}", jar.display(), parts::kafka_class_path(&kafka));
    let mut command = Command::new(java);
    command.args([
        "-Dlog4j2.StatusLogger.level=OFF",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.args(["-cp", &class_path, class]);
    Ok(command)
}

/// The cache, with all that fetching needs.
pub(crate) struct Cache {
    root: PathBuf,
    spawner: Spawner,
    /// Our own binary, where it is known: its hidden verb ends a package client with this process.
    executable: Option<PathBuf>,
    progress: Arc<dyn Progress>,
}

impl Cache {
    pub(crate) fn new(
        cache_dir: Option<PathBuf>,
        spawner: Spawner,
        executable: Option<PathBuf>,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, StackError> {
        let wanted = match cache_dir {
            Some(folder) => folder,
            None => default_root(|name| env::var_os(name).filter(|value| !value.is_empty()))
                .ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "set ACTIVITY_CACHE_DIR or HOME")
                })
                .doing(|| "choosing the cache folder")?,
        };
        let opening = || format!("opening the cache folder {}", wanted.display());
        fs::create_dir_all(&wanted).doing(opening)?;
        let root = wanted.canonicalize().doing(opening)?;
        Ok(Self {
            root,
            spawner,
            executable,
            progress,
        })
    }

    /// Says in one line which package clients are missing for what is not there yet.
    pub(crate) fn check_clients(&self, needs_java: bool) -> Result<(), StackError> {
        let parts = [Part::Kafka, Part::Registry, Part::Engine]
            .into_iter()
            .chain(needs_java.then_some(Part::Java));
        let absent = parts.filter(|part| !self.home(*part).is_dir());
        let needed: Vec<_> = absent.map(Part::client).collect();
        clients::missing(&needed, |client| client.find().is_some()).map_or(Ok(()), Err)
    }

    fn home(&self, part: Part) -> PathBuf {
        self.root.join(part.folder())
    }

    /// The part's folder, fetched if it is not there yet. Dropped half-way, it leaves nothing that counts as a part.
    pub(crate) async fn ensure(&self, part: Part) -> Result<(PathBuf, PartDownload), StackError> {
        let began = Instant::now();
        let home = self.home(part);
        let mut bytes = 0;
        if !home.is_dir() {
            let _lock = self.lock(part).await?;
            // Another run may have fetched it while this one waited.
            if !home.is_dir() {
                bytes = self.fetch(part, &home).await?;
            }
        }
        Ok((
            home,
            PartDownload {
                what: part.label(),
                bytes,
                seconds: began.elapsed().as_secs_f64(),
            },
        ))
    }

    /// Asks again and again instead of blocking a thread, so that an interrupted start ends at once.
    async fn lock(&self, part: Part) -> Result<File, StackError> {
        let path = self.root.join(format!("{}.lock", part.folder()));
        let locking = || format!("locking {}", path.display());
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .doing(locking)?;
        let mut has_said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error).doing(locking),
                Err(TryLockError::WouldBlock) => {}
            }
            if !std::mem::replace(&mut has_said, true) {
                self.progress.step(&format!(
                    "waiting for another run that fetches {}",
                    part.label()
                ));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn fetch(&self, part: Part, home: &Path) -> Result<u64, StackError> {
        let preparing = || format!("preparing to fetch {}", part.label());
        self.remove_left_overs(part).doing(preparing)?;
        let partial = self
            .root
            .join(format!("{}{PARTIAL}{}", part.folder(), std::process::id()));
        let shop = workshop(&partial).doing(preparing)?;
        self.progress.step(&format!("fetching {}", part.label()));
        let bytes = self.download(part, &partial, &shop).await?;
        let filled = shop.clone();
        let installed = tokio::task::spawn_blocking(move || part.install(&filled)).await;
        installed
            .map_err(io::Error::other)
            .doing(|| format!("unpacking {}", part.label()))??;
        fs::rename(&shop.home, home).doing(|| format!("moving {} into place", part.label()))?;
        // What is left of it is removed at the next fetch at the latest.
        let _ = fs::remove_dir_all(&partial);
        self.progress
            .step(&format!("fetched {} and verified it", part.label()));
        Ok(bytes)
    }

    /// Runs the package client, telling how much has come, and gives back how much that was.
    async fn download(
        &self,
        part: Part,
        partial: &Path,
        shop: &Workshop,
    ) -> Result<u64, StackError> {
        let call = part.client().find().ok_or_else(|| missing(part))?;
        let log = partial.join("client.log");
        let mut client = self.start_client(part, &call, partial, shop, &log).await?;
        let total = part.download_bytes();
        let mut bytes = 0;
        while tokio::time::timeout(POLL_INTERVAL, client.wait())
            .await
            .is_err()
        {
            // A client may delete what it has handed over: the most that was seen counts.
            bytes = bytes.max(size_of(&shop.download));
            self.progress
                .download(part.label(), bytes.min(total - 1), Some(total));
        }
        let outcome = client
            .ended()
            .map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
        if !client.ended().is_some_and(|status| status.success()) {
            let program = call.program.display().to_string();
            let tail = logs::tail(&log, 0);
            let outcome = outcome + apt::advice(&tail);
            return Err(StackError::Fetch {
                what: part.label(),
                program,
                outcome,
                tail,
            });
        }
        bytes = bytes
            .max(size_of(&shop.download))
            .max(size_of(&shop.packed));
        self.progress.download(part.label(), bytes, Some(bytes));
        Ok(bytes)
    }

    async fn start_client(
        &self,
        part: Part,
        call: &Call,
        partial: &Path,
        shop: &Workshop,
        log: &Path,
    ) -> Result<Process, StackError> {
        let starting = || format!("starting {}", call.program.display());
        let mut command = match &self.executable {
            Some(executable) => launch::bound(executable, None, &call.program),
            None => std::process::Command::new(&call.program),
        };
        // In a folder of the cache, so that no project's settings around the user's folder change what is asked.
        command.args(call.first_args).current_dir(partial);
        part.ask(&mut command, shop).doing(starting)?;
        let out = logs::open(log).doing(starting)?;
        command.stdin(Stdio::null());
        command.stderr(out.try_clone().doing(starting)?).stdout(out);
        self.spawner.spawn(command).await.doing(starting)
    }

    /// Removes what interrupted runs have left; the caller holds the part's lock.
    fn remove_left_overs(&self, part: Part) -> io::Result<()> {
        let prefix = format!("{}{PARTIAL}", part.folder());
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn missing(part: Part) -> StackError {
    let client = part.client();
    if client == Client::Apt {
        return StackError::NoApt { what: part.label() };
    }
    clients::missing(&[client], |_| false).unwrap_or_else(|| StackError::MissingPrograms {
        programs: client.name().to_owned(),
        command: client.name().to_owned(),
    })
}

fn workshop(partial: &Path) -> io::Result<Workshop> {
    let [download, packed, home] = ["download", "packed", "home"].map(|name| partial.join(name));
    fs::create_dir_all(&download)?;
    fs::create_dir_all(&packed)?;
    Ok(Workshop {
        download,
        packed,
        home,
    })
}

fn default_root(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let own = variable("ACTIVITY_CACHE_DIR").map(PathBuf::from);
    let xdg = || variable("XDG_CACHE_HOME").map(|folder| Path::new(&folder).join("activity"));
    let home = || variable("HOME").map(|folder| Path::new(&folder).join(".cache/activity"));
    own.or_else(xdg).or_else(home)
}

/// The bytes of all files below: those that vanish meanwhile count nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(root: &Path) -> Cache {
        Cache::new(
            Some(root.to_owned()),
            Spawner::new().unwrap(),
            None,
            Arc::new(Silent),
        )
        .unwrap()
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
                .collect();
            default_root(|name| {
                set.iter()
                    .find(|(set, _)| set == name)
                    .map(|(_, value)| value.clone())
            })
        };
        assert_eq!(
            of(&[
                ("ACTIVITY_CACHE_DIR", "/a"),
                ("XDG_CACHE_HOME", "/x"),
                ("HOME", "/h")
            ]),
            Some("/a".into())
        );
        assert_eq!(
            of(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]),
            Some("/x/activity".into())
        );
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.cache/activity".into()));
        assert_eq!(of(&[]), None);
    }

    #[tokio::test]
    async fn a_part_that_is_there_is_not_fetched() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let parts = [Part::Kafka, Part::Registry, Part::Engine];
        for part in parts {
            fs::create_dir_all(cache.home(part)).unwrap();
        }
        cache.check_clients(false).unwrap();
        for part in parts {
            let (home, download) = cache.ensure(part).await.unwrap();
            assert_eq!((home, download.bytes), (cache.home(part), 0));
        }
    }

    #[tokio::test]
    async fn a_run_waits_for_the_one_that_fetches_and_takes_what_it_fetched() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (cache(root.path()), cache(root.path()));
        let lock = first.lock(Part::Kafka).await.unwrap();
        let waiting =
            tokio::spawn(async move { second.ensure(Part::Kafka).await.map(|(home, _)| home) });
        tokio::time::timeout(POLL_INTERVAL * 2, async {
            while !waiting.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .unwrap_err();
        fs::create_dir_all(first.home(Part::Kafka)).unwrap();
        drop(lock);
        assert_eq!(waiting.await.unwrap().unwrap(), first.home(Part::Kafka));
    }

    #[test]
    fn left_overs_of_one_part_leave_the_others_alone() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let kept = [
            cache.home(Part::Kafka),
            root.path()
                .join(format!("{}.partial-1", Part::Engine.folder())),
        ];
        let stale = root
            .path()
            .join(format!("{}.partial-1/download", Part::Kafka.folder()));
        for folder in kept.iter().chain([&stale]) {
            fs::create_dir_all(folder).unwrap();
        }
        cache.remove_left_overs(Part::Kafka).unwrap();
        assert!(!stale.exists() && kept.iter().all(|folder| folder.exists()));
    }
}
