//! What a stack needs to be spoken to over TLS and with users: for tests of clients, and for people who want to try.

use std::fs;
use std::path::{Path, PathBuf};

use crate::StackError;
use crate::error::Doing;

/// Users of Kafka and ClickHouse, and a second door to Kafka, over TLS (SASL_SSL with SCRAM-SHA-512), beside the open one. It asks clients for a certificate
/// too. ClickHouse's engine serves no TLS: put a proxy in front.
#[derive(Clone, Debug)]
pub struct Security {
    /// PEM file of the brokers' identity: private key, then certificate for 127.0.0.1.
    pub identity: PathBuf,
    /// PEM file of the authorities that clients' certificates must come from.
    pub authorities: PathBuf,
    /// Who may come in. Kafka's are those with which the folder was begun.
    pub users: Vec<User>,
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Letters and digits.
    pub name: String,
    /// Letters and digits: it goes through a command line.
    pub password: String,
}

impl Security {
    /// Copies the files into a broker's folder, where its settings find them under fixed names.
    pub(crate) fn copy_to(&self, node_data: &Path) -> Result<(), StackError> {
        for (file, name) in [
            (&self.identity, "identity.pem"),
            (&self.authorities, "authorities.pem"),
        ] {
            fs::copy(file, node_data.join(name)).doing(|| format!("copying {}", file.display()))?;
        }
        Ok(())
    }
}
