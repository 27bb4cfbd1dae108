//! The package clients that fetch the parts, as they are configured on this machine. Which registries they ask, through
//! which proxies and with which credentials is the user's business.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::StackError;

/// A package client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Maven,
    Npm,
    Pip,
    Apt,
}

/// A client as it is called on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) first_args: &'static [&'static str],
}

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Maven => "mvn",
            Self::Npm => "npm",
            Self::Pip => "pip",
            Self::Apt => "apt-get",
        }
    }

    /// What is missing without it, in words for the user.
    fn purpose(self) -> &'static str {
        match self {
            Self::Maven => "mvn (fetches Kafka and the registry)",
            Self::Npm => "npm (fetches the ClickHouse engine and the dashboards' chart library)",
            Self::Pip => "Java 21 or newer, or pip to fetch one",
            Self::Apt => "apt-get with dpkg-deb (fetches Prometheus, and a browser for tests)",
        }
    }

    /// Its package in Debian and its relatives.
    fn package(self) -> &'static str {
        match self {
            Self::Maven => "maven",
            Self::Npm => "npm",
            Self::Pip => "python3-pip",
            Self::Apt => "apt",
        }
    }

    /// How to call it here; None if it is not there. May run a program for a moment.
    pub(crate) fn find(self) -> Option<Call> {
        let plain = |name| {
            on_path(name).map(|program| Call {
                program,
                first_args: &[],
            })
        };
        match self {
            Self::Maven | Self::Npm | Self::Apt => plain(self.name()),
            Self::Pip => python_with_pip()
                .or_else(|| plain("pip"))
                .or_else(|| plain("pip3")),
        }
    }
}

fn python_with_pip() -> Option<Call> {
    let program = on_path("python3")?;
    let mut import = Command::new(&program);
    import
        .args(["-c", "import pip"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    import.status().ok()?.success().then_some(Call {
        program,
        first_args: &["-m", "pip"],
    })
}

/// The program of this name that a shell would run.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// One line with all that is missing of `needed`, and what to type; None if nothing is.
pub(crate) fn missing(needed: &[Client], is_here: impl Fn(Client) -> bool) -> Option<StackError> {
    let mut absent: Vec<Client> = Vec::new();
    for client in needed {
        if !absent.contains(client) && !is_here(*client) {
            absent.push(*client);
        }
    }
    if absent.is_empty() {
        return None;
    }
    let join = |words: fn(Client) -> &'static str, by: &str| {
        absent
            .iter()
            .map(|client| words(*client))
            .collect::<Vec<_>>()
            .join(by)
    };
    let programs = join(Client::purpose, ", ");
    let command = format!("apt-get install {}", join(Client::package, " "));
    Some(StackError::MissingPrograms { programs, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_said_in_one_line() {
        let needed = [Client::Maven, Client::Maven, Client::Npm, Client::Pip];
        let all = missing(&needed, |_| false).unwrap().to_string();
        insta::assert_snapshot!(all, @"missing: mvn (fetches Kafka and the registry), npm (fetches the ClickHouse engine and the dashboards' chart library), Java 21 or newer, or pip to fetch one; type: apt-get install maven npm python3-pip");
        let one = missing(&needed, |client| client != Client::Npm)
            .unwrap()
            .to_string();
        insta::assert_snapshot!(one, @"missing: npm (fetches the ClickHouse engine and the dashboards' chart library); type: apt-get install npm");
    }

    #[test]
    fn nothing_is_said_when_nothing_is_missing() {
        assert!(missing(&[Client::Maven, Client::Npm], |_| true).is_none());
        assert!(missing(&[], |_| false).is_none());
    }

    #[test]
    fn programs_are_found_where_a_shell_finds_them() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
    }
}
