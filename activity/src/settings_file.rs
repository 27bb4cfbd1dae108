//! The settings file: its values become the defaults of the flags of the same name, so that flags and environment win and help shows them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, Command};

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "activity.toml";
/// Flags that a file cannot set.
const NOT_IN_FILES: &[&str] = &["config", "help", "version", "output"];

/// The file that the command line or the environment names, or the default one if it is there. Looked up before clap runs, because its values go into clap.
pub fn find(arguments: &[String]) -> Option<PathBuf> {
    let mut named = None;
    for (index, argument) in arguments.iter().enumerate() {
        if let Some(value) = argument.strip_prefix("--config=") {
            named = Some(value.to_owned());
        } else if argument == "--config" {
            named = arguments.get(index + 1).cloned();
        }
    }
    named
        .or_else(|| std::env::var("ACTIVITY_CONFIG").ok())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
}

/// Makes the file's values the defaults of the flags they name.
pub fn apply(command: Command, path: &Path) -> anyhow::Result<Command> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("settings file {}", path.display()))?;
    apply_text(command, &text).with_context(|| format!("settings file {}", path.display()))
}

fn apply_text(mut command: Command, text: &str) -> anyhow::Result<Command> {
    let table: toml::Table = text.parse()?;
    for (key, value) in table {
        let flag = key.replace('_', "-");
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            other => bail!("{key}: a {} is no setting's value", other.type_str()),
        };
        if NOT_IN_FILES.contains(&flag.as_str()) || !knows(&command, &flag) {
            bail!("{key}: there is no such setting; `activity config` lists them");
        }
        command = set_default(command, &flag, &value);
    }
    Ok(command)
}

fn has_flag(arg: &Arg, flag: &str) -> bool {
    arg.get_long() == Some(flag) && arg.get_action().takes_values()
}

fn knows(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|arg| has_flag(arg, flag))
        || command.get_subcommands().any(|sub| knows(sub, flag))
}

fn set_default(command: Command, flag: &str, value: &str) -> Command {
    let ids: Vec<clap::Id> = command
        .get_arguments()
        .filter(|arg| has_flag(arg, flag))
        .map(|arg| arg.get_id().clone())
        .collect();
    let command = ids.into_iter().fold(command, |command, id| {
        let value = value.to_owned();
        command.mut_arg(id, |arg| arg.default_value(value))
    });
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| set_default(sub, flag, value))
    })
}

/// Every setting that a file can hold, with its value in force where the verb has it: flag, environment variable, default.
pub fn all(command: &Command) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    collect(command, &mut found);
    found.sort();
    found.dedup();
    found
}

fn collect(command: &Command, into: &mut Vec<(String, String, String)>) {
    for arg in command.get_arguments() {
        let (Some(flag), Some(variable)) = (arg.get_long(), arg.get_env()) else {
            continue;
        };
        if NOT_IN_FILES.contains(&flag) {
            continue;
        }
        let default = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect::<Vec<_>>()
            .join(",");
        let value = std::env::var(variable).unwrap_or(default);
        into.push((
            flag.to_owned(),
            variable.to_string_lossy().into_owned(),
            value,
        ));
    }
    command.get_subcommands().for_each(|sub| collect(sub, into));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, FromArgMatches};

    fn parse(text: &str, arguments: &[&str]) -> anyhow::Result<Cli> {
        let matches = apply_text(Cli::command(), text)?
            .try_get_matches_from([&["activity"], arguments].concat())?;
        Ok(Cli::from_arg_matches(&matches)?)
    }

    #[test]
    fn a_file_sets_what_no_flag_sets() {
        let text = "database = 'other'\nkafka = '127.0.0.1:1'\n";
        assert_eq!(
            parse(text, &["lag"]).unwrap().targets.clickhouse.database,
            "other"
        );
        let cli = parse(text, &["--database", "mine", "lag"]).unwrap();
        assert_eq!(
            (
                cli.targets.clickhouse.database.as_str(),
                cli.targets.kafka.kafka.as_deref()
            ),
            ("mine", Some("127.0.0.1:1"))
        );
    }

    #[test]
    fn a_file_reaches_the_flags_of_a_verb() {
        let cli = parse("batch-rows-max = 7", &["consume"]).unwrap();
        let crate::cli::Verb::Consume(consume) = cli.verb else {
            panic!()
        };
        assert_eq!(consume.runtime.batch_rows_max, 7);
    }

    #[test]
    fn a_key_that_is_no_setting_fails() {
        let error = parse("databse = 'x'", &["lag"]).unwrap_err().to_string();
        assert!(
            error.contains("databse") && error.contains("activity config"),
            "{error}"
        );
        assert!(parse("kafka = ['a']", &["lag"]).is_err());
    }

    #[test]
    fn a_value_that_does_not_fit_fails() {
        assert!(parse("batch-rows-max = 0", &["consume"]).is_err());
    }
}
