//! Apache Kafka in KRaft mode. Everything takes a list of nodes, each broker and controller in one; today's stack has
//! one node.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::Doing;
use crate::ports::random_u64;
use crate::service::isolate;
use crate::{StackError, java};

const HEAP: [&str; 2] = ["-Xms64m", "-Xmx256m"];
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Never joined and never committed to: it is only asked for.
const PROBE_GROUP: &str = "activity.devstack.probe";
const PROPERTIES: &str = "server.properties";
const CLUSTER_ID: &str = "cluster-id";

/// One broker and controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
}

impl Node {
    /// Its own folder within Kafka's.
    pub(crate) fn data(&self, kafka: &Path) -> PathBuf {
        kafka.join(self.id.to_string())
    }

    /// True once the folder was formatted to its end: this file is what Kafka itself looks for.
    pub(crate) fn is_formatted(&self, kafka: &Path) -> bool {
        let data = self.data(kafka);
        ["data", "metadata"]
            .iter()
            .all(|folder| data.join(folder).join("meta.properties").is_file())
    }
}

/// The node's `server.properties`. Folders are relative to the node's own, so that no path of the user's has to be
/// escaped and a data folder can be moved.
pub(crate) fn server_properties(node: &Node, nodes: &[Node]) -> String {
    let voter = |node: &Node| format!("{}@127.0.0.1:{}", node.id, node.controller_port);
    let voters = nodes.iter().map(voter).collect::<Vec<_>>().join(",");
    let replicas = nodes.len().clamp(1, 3);
    let in_sync = replicas.saturating_sub(1).max(1);
    let Node {
        id,
        port,
        controller_port,
    } = node;
    let mut text = format!(
        "# written at each start\n\
         process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         default.replication.factor={replicas}\n\
         min.insync.replicas={in_sync}\n"
    );
    for topic in [
        "offsets.topic",
        "transaction.state.log",
        "share.coordinator.state.topic",
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{topic}.replication.factor={replicas}");
        let _ = writeln!(text, "{topic}.num.partitions=1");
    }
    for topic in ["transaction.state.log", "share.coordinator.state.topic"] {
        let _ = writeln!(text, "{topic}.min.isr={in_sync}");
    }
    text.push_str(SETTINGS);
    text
}

const SETTINGS: &str = "\
# Without a folder of its own for metadata, a second Java on this folder damages the first one's.
log.dirs=data
metadata.log.dir=metadata
auto.create.topics.enable=false
log.segment.bytes=268435456
log.retention.hours=168
# Longer than the log itself: no offset is forgotten before what it points at.
offsets.retention.minutes=20160
# A broker killed and restarted registers again only when this has passed.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
# Members that die are missed within 6 s, in either protocol.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=2000
# A small machine, shared with those who produce and consume.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
";

/// Writes the node's settings and gives back the cluster's id, drawn at the very first start.
pub(crate) fn prepare(kafka: &Path, node: &Node, nodes: &[Node]) -> Result<String, StackError> {
    let data = node.data(kafka);
    fs::create_dir_all(&data).doing(|| format!("creating {}", data.display()))?;
    let properties = data.join(PROPERTIES);
    fs::write(&properties, server_properties(node, nodes))
        .doing(|| format!("writing {}", properties.display()))?;
    let path = kafka.join(CLUSTER_ID);
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id);
    }
    let id = cluster_id(random_u64);
    fs::write(&path, &id).doing(|| format!("writing {}", path.display()))?;
    Ok(id)
}

/// A cluster id: 16 bytes as 22 base64 digits, of which the last holds two bits only.
fn cluster_id(mut random: impl FnMut() -> u64) -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let digit = |_| usize::try_from(random() % 62).map_or('A', |at| char::from(DIGITS[at]));
    (0..21).map(digit).chain(['A']).collect()
}

/// Completes `command`, which runs a Java, to one that formats the node's folders; harmless when they are formatted.
pub(crate) fn complete_format(
    command: &mut Command,
    class_path: &str,
    node_data: &Path,
    tmp: &Path,
    cluster_id: &str,
) {
    complete_java(command, class_path, node_data, tmp);
    command.args(["kafka.tools.StorageTool", "format", "--ignore-formatted"]);
    command.args(["-t", cluster_id, "-c", PROPERTIES]);
}

/// Completes `command`, which runs a Java, to one that runs the node.
pub(crate) fn complete(command: &mut Command, class_path: &str, node_data: &Path, tmp: &Path) {
    complete_java(command, class_path, node_data, tmp);
    command.args(["kafka.Kafka", PROPERTIES]);
}

fn complete_java(command: &mut Command, class_path: &str, node_data: &Path, tmp: &Path) {
    isolate(command, node_data);
    command
        .args(HEAP)
        .args(java::FLAGS)
        .arg(java::tmp_flag(tmp));
    command.args([
        "-Dlog4j2.StatusLogger.level=OFF",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.args([
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
    ]);
    command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX");
    command.arg("-cp").arg(class_path);
}

/// Content when the node is of this cluster and coordinates groups, for which it has made and loaded the offsets topic.
pub(crate) async fn probe(address: &str, cluster_id: &str) -> Result<(), String> {
    // The client retries refused connections with growing pauses: knocking first is faster.
    tokio::net::TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (address, cluster_id) = (address.to_owned(), cluster_id.to_owned());
    let looked = tokio::task::spawn_blocking(move || look(&address, &cluster_id)).await;
    looked.map_err(|error| error.to_string())?
}

fn look(address: &str, expected: &str) -> Result<(), String> {
    let spell = |error: KafkaError| error.to_string();
    let mut config = ClientConfig::new();
    // Not with `broker.address.family=v4`: without any network glibc then resolves not even 127.0.0.1.
    config
        .set("bootstrap.servers", address)
        .set("group.id", PROBE_GROUP);
    config
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(spell)?;
    // Asking for the cluster's id alone would wait for a timer of the client that ticks once a second.
    consumer
        .fetch_metadata(None, PROBE_PATIENCE)
        .map_err(spell)?;
    match consumer.client().fetch_cluster_id(PROBE_PATIENCE) {
        Some(found) if found == expected => {}
        Some(found) => return Err(format!("{address} is another cluster, {found}")),
        None => return Err("it does not answer yet".to_owned()),
    }
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("__consumer_offsets", 0, Offset::Invalid)
        .map_err(spell)?;
    consumer
        .committed_offsets(offsets, PROBE_PATIENCE)
        .map(|_| ())
        .map_err(spell)
}

/// Connections that fail are what a probe expects: nothing of them is logged.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> Node {
        let port = 9092 + 2 * (u16::try_from(id).unwrap() - 1);
        Node {
            id,
            port,
            controller_port: port + 1,
        }
    }

    #[test]
    fn the_settings_of_a_single_node() {
        insta::assert_snapshot!(server_properties(&node(1), &[node(1)]));
    }

    #[test]
    fn three_nodes_vote_and_replicate() {
        let text = server_properties(&node(2), &[node(1), node(2), node(3)]);
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:9095,3@127.0.0.1:9097",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.min.isr=2",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn a_cluster_id_is_what_kafka_takes_for_a_uuid() {
        let mut n = 0;
        let id = cluster_id(|| {
            n += 7;
            n
        });
        assert_eq!(id, "HOVcjqx4BIPWdkry5CJQXA");
        assert_eq!(id.len(), 22);
    }

    #[test]
    fn the_cluster_id_stays_and_the_ports_follow() {
        let kafka = tempfile::tempdir().unwrap();
        let id = prepare(kafka.path(), &node(1), &[node(1)]).unwrap();
        let moved = Node {
            port: 10_007,
            ..node(1)
        };
        assert_eq!(
            prepare(kafka.path(), &moved, std::slice::from_ref(&moved)).unwrap(),
            id
        );
        let text = fs::read_to_string(kafka.path().join("1").join(PROPERTIES)).unwrap();
        assert!(text.contains("127.0.0.1:10007") && !text.contains("127.0.0.1:9092"));
        assert!(!node(1).is_formatted(kafka.path()));
    }
}
