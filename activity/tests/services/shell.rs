//! What shells and manuals know of the command line: every verb, whatever is added.

use std::fs;
use std::process::Command;

use crate::support::{ACTIVITY, scratch};

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(ACTIVITY).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// By the help: the words that begin the lines of its list of commands.
fn verbs() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let lines = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let words = lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
    words.filter(|word| word != "help").collect()
}

#[test]
fn every_shell_can_complete_every_verb() {
    let verbs = verbs();
    assert!(verbs.len() > 12, "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
}

#[test]
fn bash_reads_its_script_and_completes_a_verb() {
    let file = scratch("shell").join("activity.bash");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    let ask = format!(
        "source {} && COMP_WORDS=(activity ta) COMP_CWORD=1 && _activity activity ta activity && echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert_eq!(answer.trim(), "tail", "{output:?}");
}

#[test]
fn every_verb_has_a_manual_page() {
    let folder = scratch("manual");
    printed(&["man", "--dir", folder.to_str().unwrap()]);
    for verb in verbs() {
        let page = fs::read_to_string(folder.join(format!("activity-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{verb}");
    }
    assert!(printed(&["man"]).contains(".TH activity 1"));
}
