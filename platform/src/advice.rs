//! What known errors mean: whether trying again can help, and what a person should do. Pure, one table; the errors' own texts carry the advice wherever
//! they are shown (a verb, a log, readiness).

use std::io;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It comes and goes: try again.
    Retry,
    /// It stays until somebody does something. What runs already still tries again, because that somebody may do it elsewhere.
    Fatal,
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Whether trying again can help.
    pub class: Class,
    /// What to do.
    pub hint: &'static str,
}

const fn retry(hint: &'static str) -> Option<Advice> {
    Some(Advice {
        class: Class::Retry,
        hint,
    })
}

const fn fatal(hint: &'static str) -> Option<Advice> {
    Some(Advice {
        class: Class::Fatal,
        hint,
    })
}

/// An error that somebody else's documentation numbers or names.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// Kafka's or librdkafka's.
    Kafka(Code),
    /// ClickHouse's, by its number.
    ClickHouse(u32),
    /// A status of HTTP, of the registry or of what stands in front of a service.
    Http(u16),
    /// What a TLS library says when a connection is refused.
    Tls(&'a str),
    /// The operating system's.
    Io(io::ErrorKind),
}

/// What an error means; None: nothing more than it says itself.
pub fn advise(known: Known<'_>) -> Option<Advice> {
    match known {
        Known::Kafka(code) => of_kafka(code),
        Known::ClickHouse(code) => of_clickhouse(code),
        Known::Http(401 | 403) => fatal(
            "check the user (--registry-user) and the password file (--registry-password-file)",
        ),
        Known::Http(429 | 502..=504) => retry("it is overloaded or starting"),
        Known::Http(_) => None,
        Known::Tls(text) => of_tls(text),
        Known::Io(kind) => of_io(kind),
    }
}

/// Whether trying again cannot help, as far as is known.
pub fn is_fatal(known: Known<'_>) -> bool {
    advise(known).is_some_and(|advice| advice.class == Class::Fatal)
}

fn of_kafka(code: Code) -> Option<Advice> {
    match code {
        Code::Resolve => {
            retry("a host name has no address: check --kafka, and what the brokers advertise")
        }
        Code::SSL => fatal(
            "check --kafka-ca-file (the authority that the brokers' certificates come from), and that the port of --kafka speaks TLS",
        ),
        Code::Authentication | Code::SaslAuthenticationFailed => {
            fatal("check --kafka-user, --kafka-password-file and --kafka-sasl-mechanism")
        }
        Code::UnsupportedSASLMechanism => {
            fatal("the brokers offer another mechanism: set --kafka-sasl-mechanism")
        }
        Code::TopicAuthorizationFailed => fatal(
            "the Kafka user may not use this topic: allow it to read and write the topics under --topic-prefix",
        ),
        Code::GroupAuthorizationFailed => fatal(
            "the Kafka user may not use this group: allow it to read the groups under --group-prefix",
        ),
        Code::ClusterAuthorizationFailed => fatal(
            "the Kafka user may not do this: let one that may create topics run `activity setup`",
        ),
        Code::UnknownTopic | Code::UnknownTopicOrPartition => fatal("run `activity setup`"),
        Code::InvalidReplicationFactor => {
            fatal("there are fewer brokers than the brokers' default.replication.factor asks for")
        }
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut => retry(
            "no broker answers: check --kafka, that they run, and that they are spoken to as they expect (--kafka-security)",
        ),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            retry("too few replicas are in sync: look after the brokers that are down")
        }
        Code::KafkaStorageError => fatal("a broker cannot write its log: look at its disk"),
        _ => None,
    }
}

fn of_clickhouse(code: u32) -> Option<Advice> {
    match code {
        60 | 81 => fatal("run `activity setup`"),
        74 | 75 | 243 => retry("ClickHouse cannot write: make room on its disk"),
        164 => retry(
            "ClickHouse is read-only for this user or this table: use --clickhouse-user with one that may write, or look at its disks",
        ),
        192 | 193 | 194 | 516 => fatal("check --clickhouse-user and --clickhouse-password-file"),
        202 | 241 => retry("ClickHouse has too much to do: give it more memory or fewer queries"),
        242 => fatal("a table is read-only: look at ClickHouse's log"),
        252 => retry(
            "ClickHouse has more parts than it merges: it catches up by itself, or give it more processors",
        ),
        497 => fatal("the ClickHouse user may not do this: grant it what it says"),
        _ => None,
    }
}

fn of_tls(text: &str) -> Option<Advice> {
    let says = |word: &str| text.contains(word);
    if says("UnknownIssuer") || says("unknown issuer") || says("self-signed") {
        fatal(
            "the certificate comes from an authority that is not trusted: pass its PEM file (--clickhouse-ca-file, --registry-ca-file)",
        )
    } else if says("NotValidForName") || says("not valid for name") {
        fatal("the certificate is for another host: use the name that it is for")
    } else if says("expired") || says("Expired") {
        fatal("the certificate has expired: renew it, or set this machine's clock")
    } else if says("InvalidContentType") || says("corrupt message") {
        fatal("the port does not speak TLS: use http://, or the port that does")
    } else {
        None
    }
}

fn of_io(kind: io::ErrorKind) -> Option<Advice> {
    use io::ErrorKind as Kind;
    match kind {
        Kind::StorageFull | Kind::QuotaExceeded => {
            retry("the disk is full: make room, or use another --data-dir")
        }
        Kind::ReadOnlyFilesystem => fatal("the disk is read-only: use another --data-dir"),
        Kind::PermissionDenied => {
            fatal("this user may not: change the file's owner or mode, or run as another user")
        }
        Kind::AddrInUse => {
            fatal("another program listens there: choose another port, or 0 for any")
        }
        _ => None,
    }
}

/// `; HINT`, or nothing: the end of a message.
fn ending(advice: Option<Advice>) -> String {
    advice.map_or(String::new(), |advice| format!("; {}", advice.hint))
}

/// What to add to a message about this error of Kafka's client.
pub fn after_kafka(error: &KafkaError) -> String {
    ending(error.rdkafka_error_code().and_then(of_kafka))
}

/// What to add to a message about this code of Kafka.
pub fn after_kafka_code(code: Code) -> String {
    ending(of_kafka(code))
}

/// What to add to an answer of ClickHouse that begins with `Code: 516.`
pub fn after_clickhouse(answer: &str) -> String {
    ending(clickhouse_code(answer).and_then(of_clickhouse))
}

/// What to add to an answer with this status.
pub fn after_http(status: u16) -> String {
    ending(advise(Known::Http(status)))
}

/// What to add to the text of a connection that failed.
pub fn after_connection(text: &str) -> String {
    ending(of_tls(text))
}

/// What to add to an error of the operating system.
pub fn after_io(error: &io::Error) -> String {
    ending(of_io(error.kind()))
}

/// The number in an answer of ClickHouse.
pub fn clickhouse_code(answer: &str) -> Option<u32> {
    let (_, after) = answer.split_once("Code: ")?;
    after
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line for each known error, as a person would look it up.
    fn line(name: &str, known: Known<'_>) -> String {
        match advise(known) {
            Some(Advice { class, hint }) => format!("{name}: {class:?}, {hint}"),
            None => format!("{name}: -"),
        }
    }

    #[test]
    fn each_known_error_says_what_to_do() {
        let kafka = [
            Code::Resolve,
            Code::SSL,
            Code::Authentication,
            Code::SaslAuthenticationFailed,
            Code::UnsupportedSASLMechanism,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::InvalidReplicationFactor,
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::OperationTimedOut,
            Code::NotEnoughReplicas,
            Code::KafkaStorageError,
            Code::RequestTimedOut,
        ];
        let mut lines: Vec<String> = kafka
            .iter()
            .map(|code| line(&format!("kafka {code:?}"), Known::Kafka(*code)))
            .collect();
        for code in [60, 62, 74, 75, 81, 164, 202, 241, 242, 243, 252, 497, 516] {
            lines.push(line(&format!("clickhouse {code}"), Known::ClickHouse(code)));
        }
        for status in [401, 403, 404, 503] {
            lines.push(line(&format!("http {status}"), Known::Http(status)));
        }
        let tls = [
            "invalid peer certificate: UnknownIssuer",
            "invalid peer certificate: certificate not valid for name \"h\"",
            "invalid peer certificate: certificate expired: verification time 1",
            "received corrupt message of type InvalidContentType",
            "tcp connect error",
        ];
        lines.extend(tls.map(|text| line(text, Known::Tls(text))));
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::AddrInUse,
            io::ErrorKind::NotFound,
        ] {
            lines.push(line(&format!("io {kind:?}"), Known::Io(kind)));
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_answer_of_clickhouse_is_known_by_its_number() {
        let answer = "Code: 516. DB::Exception: alice: Authentication failed";
        assert_eq!(clickhouse_code(answer), Some(516));
        assert!(after_clickhouse(answer).contains("--clickhouse-password-file"));
        assert_eq!(clickhouse_code("Service Unavailable"), None);
        assert_eq!(clickhouse_code("Code: x"), None);
    }
}
