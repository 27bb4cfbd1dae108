//! What can go wrong with a stack, each said in words that tell the user what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::Service;

/// Why a stack could not be fetched, started, restarted or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The machine cannot run the services.
    #[error(
        "this machine does not fit: {reason}; point activity at your own Kafka, registry and ClickHouse instead"
    )]
    UnfitMachine {
        /// What the machine lacks.
        reason: String,
    },

    /// Programs are missing that fetch the services.
    #[error("missing: {programs}; type: {command}")]
    MissingPrograms {
        /// What is missing and what it is for.
        programs: String,
        /// What to type on Debian and its relatives.
        command: String,
    },

    /// The part is a package of Debian, and this machine has no way to fetch one.
    #[error("{what} comes as a package of Debian, and there is no apt-get with dpkg-deb here")]
    NoApt {
        /// The part.
        what: &'static str,
    },

    /// Another stack runs on the data folder.
    #[error(
        "{data_dir} is in use by process {holder}; stop that one first, or choose another folder"
    )]
    FolderInUse {
        /// The folder.
        data_dir: PathBuf,
        /// Its process id, or "unknown".
        holder: String,
    },

    /// The folder holds a Kafka of another number of brokers.
    #[error(
        "{data_dir} was begun with {begun} of Kafka's brokers, which stays so; ask for {begun}, or begin anew with --fresh, which deletes its data"
    )]
    OtherBrokers {
        /// The folder.
        data_dir: PathBuf,
        /// How many it was begun with.
        begun: u8,
    },

    /// Services of an earlier run do not end.
    #[error(
        "services of an earlier run still hold {data_dir} (processes {processes}); end them, then start again"
    )]
    LeftOvers {
        /// The folder.
        data_dir: PathBuf,
        /// Their process ids.
        processes: String,
    },

    /// A package client failed.
    #[error("fetching {what} failed ({program}: {outcome}); its last words:\n{tail}")]
    Fetch {
        /// The part.
        what: &'static str,
        /// The package client.
        program: String,
        /// Its exit status.
        outcome: String,
        /// The last lines that it printed.
        tail: String,
    },

    /// There is no browser for tests.
    #[error(
        "no browser: {source}\nif the archive no longer has these versions, `apt-get update` helps where its lists are old; else install chromium, which is found in PATH, or move the pins in devstack/src/pins/chromium.debs to the versions of `apt-cache policy`"
    )]
    NoBrowser {
        /// Why the pinned one could not be fetched.
        source: Box<StackError>,
    },

    /// What was fetched is not what is pinned.
    #[error(
        "{file} is not what is pinned (sha {found}, expected {expected}); it was not installed"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// What it hashes to.
        found: String,
        /// The pin.
        expected: String,
    },

    /// A service ended while it was awaited.
    #[error("{service} did not start ({outcome}); the last lines of {log}:\n{tail}", log = log.display())]
    Died {
        /// The service.
        service: Service,
        /// How it ended.
        outcome: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },

    /// A service runs but does not serve.
    #[error(
        "{service} did not answer within {seconds} s ({reason}); the last lines of {log}:\n{tail}",
        seconds = waited.as_secs(), log = log.display()
    )]
    NotReady {
        /// The service.
        service: Service,
        /// How long it was awaited.
        waited: Duration,
        /// What the last look at it gave.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },

    /// No port could be had.
    #[error("no free port on 127.0.0.1 for {service}")]
    NoPort {
        /// Who needs it.
        service: Service,
    },

    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What it said.
        source: io::Error,
    },
}

/// Says what was tried when the operating system refuses.
pub(crate) trait Doing<T> {
    /// Wraps the error; `doing` is only called when there is one.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, StackError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, StackError> {
        self.map_err(|source| StackError::Io {
            doing: doing().into(),
            source,
        })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, StackError> {
        self.map_err(io::Error::from).doing(doing)
    }
}
