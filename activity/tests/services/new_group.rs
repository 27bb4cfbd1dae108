//! `activity new-group` as a user runs it, in a tree with what it looks at. That what it writes compiles and keeps the promise is shown where it is compiled:
//! `consumers/tests/new_group.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{ACTIVITY, scratch};

/// A committed copy of the folders that a group is written into.
fn tree(name: &str) -> PathBuf {
    let tree = scratch(name);
    fs::remove_dir_all(&tree).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in ["consumers/src/groups", "schemas/clickhouse"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
        for entry in fs::read_dir(here.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, tree.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    fs::copy(here.join("Cargo.toml"), tree.join("Cargo.toml")).unwrap();
    git(&tree, &["init", "-q"]);
    git(&tree, &["add", "."]);
    commit(&tree);
    tree
}

fn commit(tree: &Path) {
    git(
        tree,
        &[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "commit",
            "-qam",
            "all",
        ],
    );
}

fn git(tree: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .arg("-C")
        .arg(tree)
        .args(arguments)
        .status();
    assert!(done.unwrap().success(), "git {arguments:?}");
}

fn new_group(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(ACTIVITY)
        .arg("new-group")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str], because: &str) {
    let output = new_group(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(because), "{error}");
}

#[test]
fn a_group_is_written_whole_and_says_what_to_do_next() {
    let tree = tree("new_group");
    let migrations = fs::read_dir(tree.join("schemas/clickhouse"))
        .unwrap()
        .count();
    // From any folder of the tree.
    let output = new_group(&tree.join("consumers/src"), &["page_views"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let number = format!("{:04}_", migrations + 1);
    let said = said
        .replace(&*tree.canonicalize().unwrap().to_string_lossy(), "TREE")
        .replace(&number, "NUMBER_");
    insta::assert_snapshot!(said);
    let list = fs::read_to_string(tree.join("consumers/src/groups/mod.rs")).unwrap();
    assert!(list.contains("pub mod page_views;\n"));
    assert!(list.contains("Group::of::<page_views::PageViews>(),\n];"));
    for path in [
        "consumers/src/groups/page_views.rs",
        "grafana/dashboards/page_views.json",
        "consumers/tests/snapshots/golden__page_views.snap",
    ] {
        assert!(tree.join(path).is_file(), "{path}");
    }
    refused(&tree, &["page_views"], "is taken");
    refused(&tree, &["growth"], "not committed");
    assert!(!tree.join("consumers/src/groups/growth.rs").exists());
    let more = new_group(&tree, &["growth", "--allow-dirty"]);
    assert!(more.status.success(), "{more:?}");
    let next = format!("schemas/clickhouse/{:04}_growth.sql", migrations + 2);
    assert!(tree.join(next).is_file());
}

#[test]
fn a_bad_name_a_taken_one_and_a_foreign_folder_are_refused_and_nothing_is_written() {
    let tree = tree("new_group_refused");
    refused(&tree, &["Page-Views"], "small letters");
    refused(&tree, &["match"], "something else");
    refused(&tree, &["fraud"], "is taken");
    refused(
        &scratch("new_group_foreign"),
        &["growth", "--tree", "/"],
        "not the source tree",
    );
    // What is in the way of the last file leaves nothing of the first.
    fs::write(tree.join("grafana"), "a file").unwrap();
    refused(
        &tree,
        &["growth", "--allow-dirty"],
        "grafana/dashboards/growth.json",
    );
    fs::remove_file(tree.join("grafana")).unwrap();
    let status = Command::new("git")
        .arg("-C")
        .arg(&tree)
        .args(["status", "--porcelain"])
        .output();
    assert_eq!(String::from_utf8(status.unwrap().stdout).unwrap(), "");
}
