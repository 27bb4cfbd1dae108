//! Apache Kafka in KRaft mode: one node, or three that replicate, each broker and controller in one.

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
use crate::ports::{BROKERS_MAX, random_u64};
use crate::security::{Security, User};
use crate::service::isolate;
use crate::{Ports, StackError, java};

const HEAP: [&str; 2] = ["-Xms64m", "-Xmx256m"];
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Never joined and never committed to: it is only asked for.
const PROBE_GROUP: &str = "activity.devstack.probe";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const PROPERTIES: &str = "server.properties";
const CLUSTER_ID: &str = "cluster-id";

/// One broker and controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    id: u8,
    port: u16,
    controller_port: u16,
    /// Where it speaks TLS, and asks for a user; 0: nowhere.
    secure_port: u16,
}

/// All nodes, by number from 1, and how their secure listeners are secured, where they have one.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    security: Option<Security>,
}

/// How many brokers the folder was begun with; None: it has no data yet. The last one's folder is the first that is made.
pub(crate) fn brokers_begun(kafka: &Path) -> Option<u8> {
    (1..=BROKERS_MAX as u8)
        .rev()
        .find(|id| kafka.join(id.to_string()).is_dir())
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
fn server_properties(node: &Node, nodes: &[Node], is_secure: bool) -> String {
    let voter = |node: &Node| format!("{}@127.0.0.1:{}", node.id, node.controller_port);
    let voters = nodes.iter().map(voter).collect::<Vec<_>>().join(",");
    let replicas = nodes.len().clamp(1, 3);
    let in_sync = replicas.saturating_sub(1).max(1);
    let Node {
        id,
        port,
        controller_port,
        secure_port,
    } = node;
    let (listener, protocol) = if is_secure {
        let listener = format!(",SECURE://127.0.0.1:{secure_port}");
        (listener, ",SECURE:SASL_SSL")
    } else {
        (String::new(), "")
    };
    let mut text = format!(
        "# written at each start\n\
         process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listener}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listener}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocol}\n\
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
    if nodes.len() > 1 {
        text.push_str(QUORUM_SETTINGS);
    }
    if is_secure {
        text.push_str(SECURE_SETTINGS);
    }
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

/// A node that ends is missed and replaced within seconds: the defaults are for networks, this is loopback.
const QUORUM_SETTINGS: &str = "\
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=5000
";

/// The files are copies within the node's folder.
const SECURE_SETTINGS: &str = "\
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=identity.pem
listener.name.secure.ssl.truststore.type=PEM
listener.name.secure.ssl.truststore.location=authorities.pem
listener.name.secure.ssl.client.auth=required
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
";

impl Cluster {
    /// A node for each broker that has ports.
    pub(crate) fn on(ports: &Ports, security: Option<&Security>) -> Self {
        let node = |broker: u8| Node {
            id: broker,
            port: ports.kafka[usize::from(broker - 1)],
            controller_port: ports.controller[usize::from(broker - 1)],
            secure_port: ports.secure_kafka[usize::from(broker - 1)],
        };
        Self {
            nodes: (1..=ports.brokers()).map(node).collect(),
            security: security.cloned(),
        }
    }

    /// The node of this number, from 1.
    pub(crate) fn node(&self, broker: u8) -> &Node {
        &self.nodes[usize::from(broker - 1)]
    }

    /// Writes the node's settings and gives back the cluster's id, drawn at the very first start.
    pub(crate) fn prepare(&self, kafka: &Path, node: &Node) -> Result<String, StackError> {
        for node in self.nodes.iter().rev() {
            let data = node.data(kafka);
            fs::create_dir_all(&data).doing(|| format!("creating {}", data.display()))?;
        }
        let properties = node.data(kafka).join(PROPERTIES);
        let text = server_properties(node, &self.nodes, self.security.is_some());
        fs::write(&properties, text).doing(|| format!("writing {}", properties.display()))?;
        if let Some(security) = &self.security {
            security.copy_to(&node.data(kafka))?;
        }
        let path = kafka.join(CLUSTER_ID);
        if let Ok(id) = fs::read_to_string(&path) {
            return Ok(id);
        }
        let id = cluster_id(random_u64);
        fs::write(&path, &id).doing(|| format!("writing {}", path.display()))?;
        Ok(id)
    }
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
    security: Option<&Security>,
) {
    complete_java(command, class_path, node_data, tmp);
    command.args(["kafka.tools.StorageTool", "format", "--ignore-formatted"]);
    command.args(["-t", cluster_id, "-c", PROPERTIES]);
    for User { name, password } in security.iter().flat_map(|security| &security.users) {
        let user = format!("SCRAM-SHA-512=[name={name},password={password}]");
        command.args(["--add-scram", &user]);
    }
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

/// What can be asked of a broker, by how many of its cluster run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It waits for others: without a majority no broker serves.
    Waiting,
    /// It is a member and serves its partitions.
    Member,
    /// All are members and in sync, and groups are coordinated.
    Whole,
}

fn expected(running: usize, nodes: usize) -> Expected {
    match running {
        _ if running >= nodes => Expected::Whole,
        _ if running > nodes / 2 => Expected::Member,
        _ => Expected::Waiting,
    }
}

impl Cluster {
    /// Content when the node does what it can while so many of the cluster run.
    pub(crate) async fn probe(
        &self,
        node: &Node,
        running: u8,
        cluster_id: &str,
    ) -> Result<(), String> {
        let expected = expected(usize::from(running), self.nodes.len());
        let port = match expected {
            Expected::Waiting => node.controller_port,
            Expected::Member | Expected::Whole => node.port,
        };
        let address = format!("127.0.0.1:{port}");
        // The client retries refused connections with growing pauses: knocking first is faster.
        tokio::net::TcpStream::connect(&address)
            .await
            .map_err(|error| error.to_string())?;
        if expected == Expected::Waiting {
            return Ok(());
        }
        let look = Look {
            address,
            broker: i32::from(node.id),
            whole: (expected == Expected::Whole).then_some(self.nodes.len()),
            cluster_id: cluster_id.to_owned(),
        };
        let looked = tokio::task::spawn_blocking(move || look.run()).await;
        looked.map_err(|error| error.to_string())?
    }
}

/// One look at a broker through its own door. Blocking.
struct Look {
    address: String,
    broker: i32,
    /// How many brokers must be in; None: this one is enough.
    whole: Option<usize>,
    cluster_id: String,
}

impl Look {
    fn run(&self) -> Result<(), String> {
        let mut config = ClientConfig::new();
        // Not with `broker.address.family=v4`: without any network glibc then resolves not even 127.0.0.1.
        config
            .set("bootstrap.servers", &self.address)
            .set("group.id", PROBE_GROUP);
        config
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(spell)?;
        // Asking for the cluster's id alone would wait for a timer of the client that ticks once a second.
        let metadata = consumer
            .fetch_metadata(None, PROBE_PATIENCE)
            .map_err(spell)?;
        match consumer.client().fetch_cluster_id(PROBE_PATIENCE) {
            Some(found) if found == self.cluster_id => {}
            Some(found) => return Err(format!("{} is another cluster, {found}", self.address)),
            None => return Err("it does not answer yet".to_owned()),
        }
        let members: Vec<i32> = metadata
            .brokers()
            .iter()
            .map(|broker| broker.id())
            .collect();
        if !members.contains(&self.broker) {
            return Err("it is not a member of its cluster yet".to_owned());
        }
        match self.whole {
            Some(brokers) if members.len() < brokers => {
                let members = members.len();
                Err(format!("{members} of {brokers} brokers are members"))
            }
            Some(brokers) => is_whole(&consumer, brokers),
            None => Ok(()),
        }
    }
}

/// Groups are coordinated, for which the offsets topic was made and loaded, and every broker has it in sync.
fn is_whole(consumer: &BaseConsumer<Quiet>, brokers: usize) -> Result<(), String> {
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(OFFSETS_TOPIC, 0, Offset::Invalid)
        .map_err(spell)?;
    consumer
        .committed_offsets(offsets, PROBE_PATIENCE)
        .map_err(spell)?;
    let metadata = consumer
        .fetch_metadata(Some(OFFSETS_TOPIC), PROBE_PATIENCE)
        .map_err(spell)?;
    let mut partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    if partitions.all(|partition| partition.isr().len() == brokers) {
        return Ok(());
    }
    Err("its replicas are not in sync yet".to_owned())
}

fn spell(error: KafkaError) -> String {
    error.to_string()
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

    fn cluster(brokers: usize) -> Cluster {
        let mut ports = Ports::default();
        ports.kafka[brokers..].fill(0);
        Cluster::on(&ports, None)
    }

    fn text(broker: u8, of: &Cluster) -> String {
        server_properties(of.node(broker), &of.nodes, false)
    }

    #[test]
    fn the_settings_of_a_single_node() {
        insta::assert_snapshot!(text(1, &cluster(1)));
    }

    #[test]
    fn a_secure_listener_stands_beside_the_open_one() {
        let node = cluster(1).node(1).clone();
        let text = server_properties(&node, std::slice::from_ref(&node), true);
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093,SECURE://127.0.0.1:9194",
            "advertised.listeners=PLAINTEXT://127.0.0.1:9092,SECURE://127.0.0.1:9194",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
            "listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn three_nodes_vote_and_replicate() {
        let text = text(2, &cluster(3));
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
        let first = cluster(1);
        let id = first.prepare(kafka.path(), first.node(1)).unwrap();
        let mut moved = first.clone();
        moved.nodes[0].port = 10_007;
        assert_eq!(moved.prepare(kafka.path(), moved.node(1)).unwrap(), id);
        let text = fs::read_to_string(kafka.path().join("1").join(PROPERTIES)).unwrap();
        assert!(text.contains("127.0.0.1:10007") && !text.contains("127.0.0.1:9092"));
        assert!(!first.node(1).is_formatted(kafka.path()));
    }

    #[test]
    fn a_folder_tells_how_many_brokers_it_was_begun_with() {
        for brokers in [1, 3] {
            let kafka = tempfile::tempdir().unwrap();
            assert_eq!(brokers_begun(kafka.path()), None);
            let cluster = cluster(brokers);
            cluster.prepare(kafka.path(), cluster.node(1)).unwrap();
            assert_eq!(brokers_begun(kafka.path()).map(usize::from), Some(brokers));
        }
    }

    #[test]
    fn a_broker_is_asked_for_what_it_can_do_without_those_that_are_down() {
        let of_three = [1, 2, 3].map(|running| expected(running, 3));
        assert_eq!(
            of_three,
            [Expected::Waiting, Expected::Member, Expected::Whole]
        );
        assert_eq!(expected(1, 1), Expected::Whole);
    }
}
