//! How the outside is trusted and how it trusts us: TLS, users and passwords. Checked when a client is made, before anything is sent; what does not fit
//! together is said with the flags that mend it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rdkafka::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::settings::SettingsError;

/// How Kafka's brokers are spoken to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaSecurity {
    /// How brokers are spoken to: openly, over TLS (ssl), with a user (sasl_plaintext), or both (sasl_ssl).
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_SECURITY",
        value_enum,
        value_name = "PROTOCOL",
        default_value_t,
        global = true
    )]
    pub kafka_security: Protocol,
    /// PEM file of the authorities that the brokers' certificates must come from. Default: the system's.
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_CA_FILE",
        value_name = "FILE",
        global = true
    )]
    pub kafka_ca_file: Option<PathBuf>,
    /// PEM file of our own certificate, where the brokers ask for one.
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_CERTIFICATE_FILE",
        value_name = "FILE",
        global = true
    )]
    pub kafka_certificate_file: Option<PathBuf>,
    /// PEM file of that certificate's private key, without a passphrase.
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_KEY_FILE",
        value_name = "FILE",
        global = true
    )]
    pub kafka_key_file: Option<PathBuf>,
    /// How the password is proven to the brokers.
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_SASL_MECHANISM",
        value_enum,
        value_name = "MECHANISM",
        default_value_t,
        global = true
    )]
    pub kafka_sasl_mechanism: Mechanism,
    /// Kafka user.
    #[arg(long, env = "ACTIVITY_KAFKA_USER", value_name = "NAME", global = true)]
    pub kafka_user: Option<String>,
    /// File that holds the user's password.
    #[arg(
        long,
        env = "ACTIVITY_KAFKA_PASSWORD_FILE",
        value_name = "FILE",
        global = true
    )]
    pub kafka_password_file: Option<PathBuf>,
}

/// Kafka's security protocols, under Kafka's own names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A user, not encrypted.
    SaslPlaintext,
    /// A user, over TLS.
    SaslSsl,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    /// SCRAM over SHA-512: the password itself is never sent.
    #[default]
    #[value(name = "scram-sha-512")]
    ScramSha512,
    /// SCRAM over SHA-256.
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// The password as it is: over TLS only.
    #[value(name = "plain")]
    Plain,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }
}

impl KafkaSecurity {
    /// Adds what librdkafka needs to know.
    ///
    /// # Errors
    /// If settings do not fit together or a file cannot be read.
    pub fn apply(&self, config: &mut ClientConfig) -> Result<(), SettingsError> {
        if let Some(problem) = self.problem() {
            return Err(SettingsError::Wrong(problem));
        }
        config.set("security.protocol", self.kafka_security.name());
        if self.kafka_security.has_tls() {
            let files = [
                ("--kafka-ca-file", "ssl.ca.location", &self.kafka_ca_file),
                (
                    "--kafka-certificate-file",
                    "ssl.certificate.location",
                    &self.kafka_certificate_file,
                ),
                ("--kafka-key-file", "ssl.key.location", &self.kafka_key_file),
            ];
            // Where distributions keep their authorities; this program's OpenSSL may have been built elsewhere.
            config.set("ssl.ca.location", "probe");
            for (flag, property, file) in files {
                if let Some(path) = file {
                    // librdkafka's own message about a file does not say which.
                    read(flag, path)?;
                    config.set(property, path.to_string_lossy());
                }
            }
        }
        if let (Some(user), Some(path)) = (&self.kafka_user, &self.kafka_password_file) {
            config
                .set("sasl.mechanism", self.kafka_sasl_mechanism.name())
                .set("sasl.username", user)
                .set("sasl.password", password("--kafka-password-file", path)?);
        }
        Ok(())
    }

    /// What of the settings does not fit together, and how to mend it.
    fn problem(&self) -> Option<String> {
        let protocol = self.kafka_security;
        let tls_flag = [
            ("--kafka-ca-file", &self.kafka_ca_file),
            ("--kafka-certificate-file", &self.kafka_certificate_file),
            ("--kafka-key-file", &self.kafka_key_file),
        ]
        .into_iter()
        .find_map(|(flag, file)| file.as_ref().map(|_| flag));
        let has = |file: &Option<PathBuf>| file.is_some();
        match tls_flag {
            Some(flag) if !protocol.has_tls() => {
                return Some(format!(
                    "{flag} is for TLS: pass --kafka-security ssl, or sasl_ssl, or leave it out"
                ));
            }
            _ if has(&self.kafka_certificate_file) != has(&self.kafka_key_file) => {
                return Some(
                    "--kafka-certificate-file and --kafka-key-file belong together: pass both or neither"
                        .to_owned(),
                );
            }
            _ => (),
        }
        match (&self.kafka_user, has(&self.kafka_password_file)) {
            (None, true) => Some("--kafka-password-file needs --kafka-user".to_owned()),
            (Some(_), false) => Some("--kafka-user needs --kafka-password-file".to_owned()),
            (Some(_), true) if !protocol.has_user() => Some(
                "--kafka-user is for SASL: pass --kafka-security sasl_ssl, or sasl_plaintext"
                    .to_owned(),
            ),
            (None, false) if protocol.has_user() => Some(format!(
                "--kafka-security {} needs --kafka-user and --kafka-password-file",
                protocol.name()
            )),
            _ => None,
        }
    }
}

/// What is wrong with the security of something that is spoken to over HTTP, and how to mend it. `part` is the flag that gives the URL, without dashes.
pub(crate) fn http_problem(part: &str, url: &str, ca_file: Option<&Path>) -> Option<String> {
    match (url.split_once("://"), ca_file) {
        (Some(("https", _)), _) | (Some(("http", _)), None) => None,
        (Some(("http", rest)), Some(_)) => Some(format!(
            "--{part}-ca-file is for TLS: pass --{part} https://{rest}, or leave it out"
        )),
        _ => Some(format!(
            "--{part} {url} is no URL of HTTP: pass http://HOST:PORT or https://HOST:PORT"
        )),
    }
}

/// The password in a file, without the end of its line.
///
/// # Errors
/// If the file cannot be read, or holds none.
pub(crate) fn password(flag: &'static str, path: &Path) -> Result<String, SettingsError> {
    let bytes = read(flag, path)?;
    let text = String::from_utf8_lossy(&bytes);
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(SettingsError::Wrong(format!(
            "{flag} {}: the file is empty",
            path.display()
        )));
    }
    Ok(password.to_owned())
}

/// The certificates in a PEM file.
///
/// # Errors
/// If it cannot be read, or holds none.
pub(crate) fn certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let why = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => "it holds no certificate".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(SettingsError::Wrong(format!(
        "{flag} {}: {why}; pass a PEM file",
        path.display()
    )))
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|error| SettingsError::File {
        flag,
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Option<PathBuf> {
        Some(PathBuf::from(name))
    }

    #[test]
    fn what_does_not_fit_together_is_said_with_the_flags_that_mend_it() {
        let security = |protocol| KafkaSecurity {
            kafka_security: protocol,
            ..KafkaSecurity::default()
        };
        let user = Some("alice".to_owned());
        let wrong = [
            KafkaSecurity {
                kafka_user: user.clone(),
                kafka_password_file: file("p"),
                ..security(Protocol::Ssl)
            },
            KafkaSecurity {
                kafka_user: user.clone(),
                ..security(Protocol::SaslSsl)
            },
            KafkaSecurity {
                kafka_password_file: file("p"),
                ..security(Protocol::SaslSsl)
            },
            security(Protocol::SaslPlaintext),
            KafkaSecurity {
                kafka_ca_file: file("ca"),
                ..security(Protocol::Plaintext)
            },
            KafkaSecurity {
                kafka_key_file: file("key"),
                ..security(Protocol::Ssl)
            },
        ];
        let problems: Vec<_> = wrong.iter().map(|wrong| wrong.problem().unwrap()).collect();
        insta::assert_snapshot!(problems.join("\n"), @r"
        --kafka-user is for SASL: pass --kafka-security sasl_ssl, or sasl_plaintext
        --kafka-user needs --kafka-password-file
        --kafka-password-file needs --kafka-user
        --kafka-security sasl_plaintext needs --kafka-user and --kafka-password-file
        --kafka-ca-file is for TLS: pass --kafka-security ssl, or sasl_ssl, or leave it out
        --kafka-certificate-file and --kafka-key-file belong together: pass both or neither
        ");
        let right = [
            security(Protocol::Plaintext),
            security(Protocol::Ssl),
            KafkaSecurity {
                kafka_user: user,
                kafka_password_file: file("p"),
                kafka_ca_file: file("ca"),
                ..security(Protocol::SaslSsl)
            },
        ];
        assert!(right.iter().all(|right| right.problem().is_none()));
    }

    #[test]
    fn a_url_says_whether_there_is_tls() {
        let ca = Some(Path::new("ca.pem"));
        assert_eq!(http_problem("clickhouse", "http://h:1", None), None);
        assert_eq!(http_problem("clickhouse", "https://h:1", ca), None);
        let problems = [
            http_problem("clickhouse", "http://h:1", ca).unwrap(),
            http_problem("registry", "h:1", None).unwrap(),
        ];
        insta::assert_snapshot!(problems.join("\n"), @r"
        --clickhouse-ca-file is for TLS: pass --clickhouse https://h:1, or leave it out
        --registry h:1 is no URL of HTTP: pass http://HOST:PORT or https://HOST:PORT
        ");
    }

    #[test]
    fn a_file_that_is_missing_or_empty_is_named_with_its_flag() {
        let folder = std::env::temp_dir();
        let absent = password("--kafka-password-file", &folder.join("activity-absent"));
        let text = absent.unwrap_err().to_string();
        assert!(text.starts_with("--kafka-password-file "), "{text}");
        assert!(certificates("--clickhouse-ca-file", Path::new("/dev/null")).is_err());
        assert!(password("--kafka-password-file", Path::new("/dev/null")).is_err());
    }
}
