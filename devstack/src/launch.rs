//! The hidden verbs: how our own program, started again, becomes a service that cannot outlive us.
//!
//! `__launch PARENT [--hold FILE] [--nice N] -- PROGRAM ARGS…` asks the kernel to be killed when the thread that started
//! it ends, makes sure that this has not happened already, takes a share of FILE's lock that PROGRAM inherits, gives way
//! to others by N, and becomes PROGRAM. `__engine LIBRARY ARGS…` loads the ClickHouse engine and serves until its stdin closes.
//!
//! The road not taken is `pre_exec` in the parent: it is unsafe, and these few lines are not.

use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

const LAUNCH: &str = "__launch";
const ENGINE: &str = "__engine";
const HOLD: &str = "--hold";
const PROGRAM: &str = "--";
const NICE: &str = "--nice";
/// How far services give way to whoever answers people: they do the most work of all on a machine that they share, in
/// many small pieces that a millisecond more or less does not matter to. The engine merges, so it comes last.
const SERVICE_NICENESS: i32 = 10;
const ENGINE_NICENESS: i32 = 19;

/// Runs the verb if `args` (with or without the program's own name in front) begin with a hidden one; None otherwise.
/// Must come first in `main`, before threads and a runtime exist.
pub fn run_hidden_verb(args: &[OsString]) -> Option<ExitCode> {
    let at = args
        .iter()
        .take(2)
        .position(|arg| arg == LAUNCH || arg == ENGINE)?;
    let rest = &args[at + 1..];
    let outcome = if args[at] == LAUNCH {
        launch(rest)
    } else {
        engine(rest)
    };
    Some(outcome.unwrap_or_else(|error| {
        eprintln!("{}: {error}", args[at].display());
        ExitCode::FAILURE
    }))
}

/// The command that runs `program` bound to this process's life. Must be spawned by a thread that lives as long as the
/// program shall. `hold` is locked (shared) for as long as the program lives.
pub fn bound(executable: &Path, hold: Option<&Path>, program: &Path) -> Command {
    bound_nicely(executable, hold, 0, program)
}

/// As [`bound`], for a service, which may give way to others.
pub(crate) fn bound_service(
    executable: &Path,
    hold: &Path,
    gives_way: bool,
    program: &Path,
) -> Command {
    let nice = if gives_way { SERVICE_NICENESS } else { 0 };
    bound_nicely(executable, Some(hold), nice, program)
}

fn bound_nicely(executable: &Path, hold: Option<&Path>, nice: i32, program: &Path) -> Command {
    let mut command = Command::new(executable);
    command.arg(LAUNCH).arg(std::process::id().to_string());
    if let Some(file) = hold {
        command.arg(HOLD).arg(file);
    }
    if nice > 0 {
        command.arg(NICE).arg(nice.to_string());
    }
    command.arg(PROGRAM).arg(program);
    command
}

/// The command that serves the engine in `library`; its arguments are the engine's own.
pub(crate) fn bound_engine(
    executable: &Path,
    hold: &Path,
    gives_way: bool,
    library: &Path,
) -> Command {
    let nice = if gives_way { ENGINE_NICENESS } else { 0 };
    let mut command = bound_nicely(executable, Some(hold), nice, executable);
    command.arg(ENGINE).arg(library);
    command
}

fn wrong_use(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what}; this verb is not for typing"),
    )
}

fn launch(args: &[OsString]) -> io::Result<ExitCode> {
    let parent = args
        .first()
        .and_then(|arg| arg.to_str())
        .and_then(|arg| arg.parse::<u32>().ok());
    let parent = parent.ok_or_else(|| wrong_use("no parent given"))?;
    let (options, program) = args
        .iter()
        .position(|arg| arg == PROGRAM)
        .map(|dashes| (&args[1..dashes], &args[dashes + 1..]))
        .ok_or_else(|| wrong_use("no program given"))?;
    let (program, program_args) = program
        .split_first()
        .ok_or_else(|| wrong_use("no program given"))?;
    die_with(parent)?;
    for option in options.chunks(2) {
        match option {
            [flag, file] if flag == HOLD => hold_for_life(Path::new(file))?,
            [flag, by] if flag == NICE => give_way(by)?,
            _ => return Err(wrong_use("an unknown option")),
        }
    }
    Err(Command::new(program).args(program_args).exec())
}

#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // A parent that died before the line above sends no signal any more.
    if std::os::unix::process::parent_id() == parent {
        return Ok(());
    }
    Err(io::Error::other("the parent is gone"))
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Lowers the priority; it is inherited by every thread and through `exec`.
fn give_way(by: &OsStr) -> io::Result<()> {
    let by = by.to_str().and_then(|by| by.parse().ok());
    rustix::process::nice(by.ok_or_else(|| wrong_use("not a niceness"))?)?;
    Ok(())
}

/// Shares the file's lock and lets the descriptor live through `exec`: the lock is free again exactly when the program
/// has ended, which no list of process ids can tell.
fn hold_for_life(path: &Path) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.lock_shared()?;
    nix::fcntl::fcntl(
        &file,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )?;
    std::mem::forget(file);
    Ok(())
}

fn engine(args: &[OsString]) -> io::Result<ExitCode> {
    let (library, args) = args
        .split_first()
        .ok_or_else(|| wrong_use("no library given"))?;
    let args =
        std::iter::once(OsStr::new("clickhouse")).chain(args.iter().map(OsString::as_os_str));
    let args = args
        .map(|arg| CString::new(arg.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    query_cmdline(Path::new(library), args)
}

/// Calls the library's `int chdb_query_cmdline(int argc, char **argv)`, which returns when its stdin has ended.
#[allow(
    unsafe_code,
    reason = "the engine is a C library: loading and calling it has no safe form"
)]
fn query_cmdline(library: &Path, args: Vec<CString>) -> io::Result<ExitCode> {
    let argc = c_int::try_from(args.len()).map_err(io::Error::other)?;
    // The engine may rewrite its arguments, so it gets memory of its own that is never given back.
    let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    argv.push(std::ptr::null_mut());
    // SAFETY: the library is pinned by hash and was verified when it was installed, its symbol has this signature, and
    // argv is a null-terminated array of argc C strings that live as long as the process.
    unsafe {
        let library = libloading::Library::new(library).map_err(io::Error::other)?;
        let run: libloading::Symbol<'_, unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int> =
            library
                .get(b"chdb_query_cmdline\0")
                .map_err(io::Error::other)?;
        run(argc, argv.as_mut_ptr());
        // Threads of the engine may still run: its code must stay mapped.
        std::mem::forget(library);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn other_verbs_are_none_of_its_business() {
        assert!(run_hidden_verb(&args(&["activity", "up"])).is_none());
        assert!(run_hidden_verb(&args(&[])).is_none());
        assert!(run_hidden_verb(&args(&["activity", "tail", "__launch"])).is_none());
    }

    #[test]
    fn a_malformed_launch_starts_nothing() {
        for words in [
            &["__launch"][..],
            &["__launch", "x", "--", "true"],
            &["__launch", "1"],
            &["__launch", "1", "--"],
        ] {
            assert!(run_hidden_verb(&args(words)).is_some(), "{words:?}");
        }
    }
}
