//! What shells and manuals know of the command line, derived from its definition.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use crate::Verdict;

/// Where each shell looks.
pub const EXAMPLES: &str = "Examples:
  activity completions bash > ~/.local/share/bash-completion/completions/activity
  activity completions zsh > ~/.zfunc/_activity      # with ~/.zfunc in fpath
  activity completions fish > ~/.config/fish/completions/activity.fish";

/// `activity completions`
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// `activity man`
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write activity.1 and a page for each verb into this folder. Without it: print activity.1 (`activity man | man -l -`).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `activity completions`
pub fn completions(args: &CompletionsArgs, command: &clap::Command) -> anyhow::Result<Verdict> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command.clone(), name, &mut script);
    printed(&script)
}

/// `activity man`
pub fn man(args: &ManArgs, command: &clap::Command) -> anyhow::Result<Verdict> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        return printed(&page);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command.clone(), dir))
        .with_context(|| format!("--dir {}", dir.display()))?;
    eprintln!(
        "manual pages are in {}; `man -l {}` reads one",
        dir.display(),
        dir.join("activity.1").display()
    );
    Ok(Verdict::Done)
}

/// A reader that went away (`| head`) is no error.
fn printed(bytes: &[u8]) -> anyhow::Result<Verdict> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (),
        outcome => outcome?,
    }
    Ok(Verdict::Done)
}
