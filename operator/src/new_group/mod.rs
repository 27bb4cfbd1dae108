//! `activity new-group`: a consumer group's files in a source tree, complete, so that it compiles, passes its tests and runs before a line of it is changed.
//!
//! All is looked at before anything is written; what was written before something failed is taken away again.

pub mod scaffold;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use scaffold::{File, Name};
use serde::Serialize;

const LIST: &str = "consumers/src/groups/mod.rs";
const MIGRATIONS: &str = "schemas/clickhouse";

/// Why no group was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No group can have this name.
    #[error("{name:?} cannot be a group's name: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Something has this name.
    #[error("{name:?} is taken: {by}; choose another name")]
    Taken {
        /// The name.
        name: String,
        /// By what.
        by: String,
    },
    /// Not the source tree of this project.
    #[error(
        "{folder} is not the source tree of activity ({LIST} is missing, or has no list GROUPS): run this inside a clone of it, or say --tree DIR"
    )]
    Foreign {
        /// The folder.
        folder: String,
    },
    /// Work that is not committed could not be told from what is written.
    #[error(
        "the source tree has changes that are not committed ({changes}): commit or stash them, so that `git diff` shows the new group alone, or pass --allow-dirty"
    )]
    Dirty {
        /// The first of them.
        changes: String,
    },
    /// The operating system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The group's name.
    pub group: String,
    /// Its table.
    pub table: String,
    /// The source tree.
    pub tree: PathBuf,
    /// Files that are new, by their paths in it.
    pub created: Vec<String>,
    /// Files that were changed.
    pub changed: Vec<String>,
}

/// Writes a group into the source tree that `folder` is in.
///
/// # Errors
/// [`Error`]; the tree is then as it was.
pub fn run(folder: &Path, name: &str, allow_dirty: bool) -> Result<Written, Error> {
    let name = Name::parse(name)?;
    let tree = tree_of(folder)?;
    let list = read(&tree, LIST)?;
    let foreign = || Error::Foreign {
        folder: tree.display().to_string(),
    };
    let listed = scaffold::listed(&list, &name).ok_or_else(foreign)?;
    let migrations = names_in(&tree.join(MIGRATIONS))?;
    let number = scaffold::next_migration(migrations.iter().map(String::as_str));
    let files = scaffold::files(&name, number);
    is_free(&tree, &name, &list, &migrations, &files)?;
    if !allow_dirty {
        is_committed(&tree)?;
    }
    let created = write_all(&tree, &files)?;
    if let Err(error) = fs::write(tree.join(LIST), listed) {
        // As it was: with the half of it nothing compiles.
        let _ = fs::write(tree.join(LIST), list);
        take_away(&tree, &created);
        return Err(io_error(LIST)(error));
    }
    Ok(Written {
        group: name.snake.clone(),
        table: name.table(),
        tree,
        created,
        changed: vec![LIST.to_owned()],
    })
}

fn tree_of(folder: &Path) -> Result<PathBuf, Error> {
    let foreign = || Error::Foreign {
        folder: folder.display().to_string(),
    };
    let folder = folder.canonicalize().map_err(|_| foreign())?;
    let mut candidates = folder.ancestors();
    let tree =
        candidates.find(|tree| tree.join(LIST).is_file() && tree.join("Cargo.toml").is_file());
    tree.map(Path::to_owned).ok_or_else(foreign)
}

fn is_free(
    tree: &Path,
    name: &Name,
    list: &str,
    migrations: &[String],
    files: &[File],
) -> Result<(), Error> {
    let taken = |by: String| Error::Taken {
        name: name.snake.clone(),
        by,
    };
    if list.contains(&format!("pub mod {};", name.snake)) {
        return Err(taken(format!("{LIST} has a group of that name")));
    }
    if let Some(file) = files.iter().find(|file| tree.join(&file.path).exists()) {
        return Err(taken(format!("{} is there", file.path)));
    }
    let create = format!(".{}\n", name.table());
    for migration in migrations {
        let path = format!("{MIGRATIONS}/{migration}");
        if read(tree, &path)?.contains(&create) {
            return Err(taken(format!("{path} has a table {}", name.table())));
        }
    }
    Ok(())
}

/// A tree without git has nothing to compare with.
fn is_committed(tree: &Path) -> Result<(), Error> {
    let status = Command::new("git")
        .arg("-C")
        .arg(tree)
        .args(["status", "--porcelain"])
        .output();
    let Ok(status) = status.map(|output| output.stdout) else {
        return Ok(());
    };
    let status = String::from_utf8_lossy(&status);
    let mut changes = status.lines().map(|line| line.get(3..).unwrap_or(line));
    let Some(first) = changes.next() else {
        return Ok(());
    };
    let changes = match changes.count() {
        0 => first.to_owned(),
        more => format!("{first} and {more} more"),
    };
    Err(Error::Dirty { changes })
}

/// Writes files that are not there yet; all or none.
fn write_all(tree: &Path, files: &[File]) -> Result<Vec<String>, Error> {
    let mut created = Vec::new();
    for file in files {
        match create(&tree.join(&file.path), &file.text) {
            Ok(()) => created.push(file.path.clone()),
            Err(error) => {
                take_away(tree, &created);
                return Err(io_error(&file.path)(error));
            }
        }
    }
    Ok(created)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create_new(path)?;
    file.write_all(text.as_bytes())
}

fn take_away(tree: &Path, created: &[String]) {
    for path in created {
        let _ = fs::remove_file(tree.join(path));
    }
}

fn read(tree: &Path, path: &str) -> Result<String, Error> {
    fs::read_to_string(tree.join(path)).map_err(io_error(path))
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let path = folder.display().to_string();
    let entries = fs::read_dir(folder).map_err(io_error(&path))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(io_error(&path))
}

fn io_error(path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |error| Error::Io { path, error }
}
