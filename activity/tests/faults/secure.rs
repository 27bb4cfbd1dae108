//! Everything over TLS and with users: Kafka by SASL_SSL with SCRAM and certificates on both sides; ClickHouse with a user, and the registry, both behind a
//! proxy of this test that speaks TLS for them, because the engine and the registry of the stack serve none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use activity_devstack::{Ports, Security, Silent, Stack, StackOptions, User};
use activity_platform::security::Protocol;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{ACTIVITY, World, place, scratch};

/// Events that go through.
const EVENTS: u64 = 2_000;

/// A folder with certificates of an authority of its own.
struct Files {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = scratch(name);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Signs a certificate for 127.0.0.1: `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = named(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

/// A name of its own: OpenSSL takes a certificate whose issuer has the same one for self-signed.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Speaks TLS for a service that does not, until the test ends; the URL that it serves instead of `url`.
async fn behind_tls(url: &str, files: &Files) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let service: SocketAddr = host.parse().unwrap();
    let certificate = CertificateDer::from_pem_file(files.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.path("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut service = TcpStream::connect(service).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut service).await;
            });
        }
    });
    format!("https://{address}{path}")
}

/// A verb that fails, with these variables other than the world's; what it says.
async fn refusal(world: &World, verb: &[&str], variables: &[(&str, &Path)]) -> String {
    let mut command = world.command(verb);
    for (variable, value) in variables {
        command.env(variable, value);
    }
    let output = run(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Off the runtime's threads, which carry the proxies.
async fn run(mut command: std::process::Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

async fn succeed(world: &World, verb: &[&str]) {
    let output = run(world.command(verb)).await;
    assert!(output.status.success(), "{verb:?}: {output:?}");
}

async fn secure_stack(files: &Files) -> Stack {
    let identity = files.read("server.key") + &files.read("server.pem");
    let user = User {
        name: "alice".to_owned(),
        password: "wonderland".to_owned(),
    };
    let data_dir = scratch("fault_secure");
    std::fs::remove_dir_all(&data_dir).unwrap();
    let options = StackOptions {
        data_dir,
        cache_dir: None,
        executable: ACTIVITY.into(),
        ports: Ports::free(),
        brokers: Some(1),
        prometheus: None,
        security: Some(Security {
            identity: files.write("identity.pem", &identity),
            authorities: files.path("ca.pem"),
            users: vec![user],
        }),
        gives_way: true,
    };
    Stack::start(options, Arc::new(Silent)).await.unwrap()
}

async fn secure_world(stack: &Stack, files: &Files) -> World {
    let endpoints = stack.endpoints();
    let mut world = World::empty(endpoints, "secure");
    let (user, password) = (
        Some("alice".to_owned()),
        files.write("password", "wonderland\n"),
    );
    let kafka = &mut world.targets.kafka;
    kafka.kafka = endpoints.secure_kafka.clone();
    kafka.security.kafka_security = Protocol::SaslSsl;
    kafka.security.kafka_ca_file = Some(files.path("ca.pem"));
    kafka.security.kafka_certificate_file = Some(files.path("client.pem"));
    kafka.security.kafka_key_file = Some(files.path("client.key"));
    kafka.security.kafka_user = user.clone();
    kafka.security.kafka_password_file = Some(password.clone());
    let clickhouse = &mut world.targets.clickhouse;
    clickhouse.clickhouse = Some(behind_tls(&endpoints.clickhouse, files).await);
    clickhouse.clickhouse_ca_file = Some(files.path("ca.pem"));
    clickhouse.clickhouse_user = "alice".to_owned();
    clickhouse.clickhouse_password_file = Some(password);
    let registry = &mut world.targets.registry;
    registry.registry = Some(behind_tls(&endpoints.registry, files).await);
    registry.registry_ca_file = Some(files.path("ca.pem"));
    world
}

#[test]
fn events_go_through_over_tls_with_users_and_whoever_is_refused_is_told_what_to_do() {
    let _place = place();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (files, strangers) = (Files::new("secure_files"), Files::new("strangers_files"));
        files.sign("server");
        files.sign("client");
        let stack = secure_stack(&files).await;
        let world = secure_world(&stack, &files).await;

        succeed(&world, &["setup"]).await;
        let mut consumer = world.consume(&["analytics", "fraud"], &[]);
        let events = EVENTS.to_string();
        succeed(&world, &["produce", "simulate", "--events", &events]).await;
        world.caught_up(&["analytics", "fraud"]).await;
        succeed(&world, &["verify", "analytics", "fraud"]).await;
        let reports = world.verified(&["analytics"]).await;
        assert_eq!(reports[0].events, EVENTS);
        assert!(consumer.is_running());

        refused_by_kafka(&world, &stack, &files, &strangers).await;
        refused_by_clickhouse_and_registry(&world, &files, &strangers).await;
        drop(consumer);
        stack.stop().await.unwrap();
    });
}

async fn refused_by_kafka(world: &World, stack: &Stack, files: &Files, strangers: &Files) {
    let wrong = files.write("wrong", "looking-glass");
    let theirs = strangers.path("ca.pem");
    let said = refusal(world, &["lag"], &[("ACTIVITY_KAFKA_PASSWORD_FILE", &wrong)]).await;
    assert!(
        said.contains("check --kafka-user, --kafka-password-file"),
        "{said}"
    );
    let said = refusal(world, &["lag"], &[("ACTIVITY_KAFKA_CA_FILE", &theirs)]).await;
    assert!(said.contains("check --kafka-ca-file"), "{said}");

    let mut open = World::empty(stack.endpoints(), "secure");
    open.targets.kafka.kafka = world.targets.kafka.kafka.clone();
    let said = refusal(&open, &["lag"], &[]).await;
    assert!(said.contains("--kafka-security"), "{said}");
    let open = World::empty(stack.endpoints(), "secure");
    let said = refusal(
        &open,
        &["lag"],
        &[("ACTIVITY_KAFKA_SECURITY", Path::new("ssl"))],
    )
    .await;
    assert!(said.contains("--kafka-security"), "{said}");

    // A running group waits for somebody to mend it, and says for what.
    let flags = ["--kafka-password-file", wrong.to_str().unwrap()];
    let mut waiting = world.consume(&["truth"], &flags);
    world
        .until(|| async { waiting.log().contains("check --kafka-user") })
        .await;
    assert!(waiting.is_running());
}

async fn refused_by_clickhouse_and_registry(world: &World, files: &Files, strangers: &Files) {
    let wrong = files.write("wrong", "looking-glass");
    let theirs = strangers.path("ca.pem");
    let variables = [("ACTIVITY_CLICKHOUSE_PASSWORD_FILE", wrong.as_path())];
    let said = refusal(world, &["setup"], &variables).await;
    assert!(said.contains("check --clickhouse-user"), "{said}");
    let variables = [("ACTIVITY_CLICKHOUSE_CA_FILE", theirs.as_path())];
    let said = refusal(world, &["setup"], &variables).await;
    assert!(said.contains("--clickhouse-ca-file"), "{said}");
    let variables = [("ACTIVITY_REGISTRY_CA_FILE", theirs.as_path())];
    let said = refusal(world, &["setup"], &variables).await;
    assert!(said.contains("--registry-ca-file"), "{said}");
    let absent = files.path("absent");
    let variables = [("ACTIVITY_KAFKA_CA_FILE", absent.as_path())];
    let said = refusal(world, &["setup"], &variables).await;
    assert!(
        said.contains("--kafka-ca-file") && said.contains("absent"),
        "{said}"
    );
}
