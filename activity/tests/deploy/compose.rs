//! docker-compose.yml and the Dockerfile, read.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::{ACTIVITY, groups};
use crate::{root, text};

fn compose() -> Value {
    serde_saphyr::from_str(&text("docker-compose.yml")).unwrap()
}

fn services() -> Vec<(String, Value)> {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    services
        .iter()
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect()
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.map(|item| item.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_file_is_what_the_compose_specification_allows() {
    let schema: Value = serde_json::from_str(&text("deploy/schema/compose-spec.json")).unwrap();
    let schema = jsonschema::draft7::new(&schema).unwrap();
    let file = compose();
    let errors: Vec<_> = schema
        .iter_errors(&file)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut broken = file.clone();
    broken["services"]["kafka"]["helthcheck"] = Value::from(1);
    assert!(!schema.is_valid(&broken), "the schema finds what is wrong");
}

#[test]
fn every_group_has_a_service_a_user_a_secret_and_a_place_in_prometheus_targets() {
    let compose = compose();
    let targets: Value =
        serde_json::from_str(&text("deploy/prometheus/targets/groups.json")).unwrap();
    let targets = targets.as_array().unwrap();
    assert_eq!(targets.len(), groups(&[]).len());
    for group in groups(&[]) {
        let service = &compose["services"][group.name];
        assert_eq!(strings(&service["command"]), ["consume", group.name]);
        let environment = &service["environment"];
        assert_eq!(environment["ACTIVITY_CLICKHOUSE_USER"], group.name);
        let secret = format!("clickhouse_{}", group.name);
        assert_eq!(strings(&service["secrets"]), [secret.as_str()]);
        let file = format!("/run/secrets/{secret}");
        assert_eq!(environment["ACTIVITY_CLICKHOUSE_PASSWORD_FILE"], file);
        let variable = format!("CLICKHOUSE_{}_PASSWORD", group.name.to_uppercase());
        assert_eq!(compose["secrets"][&secret]["environment"], variable);
        let port = environment["ACTIVITY_METRICS"].as_str().unwrap();
        let port = port.rsplit(':').next().unwrap();
        let target = targets
            .iter()
            .find(|target| target["labels"]["consumergroup"] == group.name)
            .unwrap_or_else(|| panic!("prometheus does not read {}", group.name));
        assert_eq!(target["targets"][0], format!("{}:{port}", group.name));
    }
}

#[test]
fn images_are_pinned_and_every_dependency_is_a_service_that_can_be_waited_for() {
    let compose = compose();
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image}"));
        assert_ne!(tag, "latest", "{name}");
        let wanted = service["depends_on"].as_object();
        for (on, how) in wanted.into_iter().flatten() {
            let on = &compose["services"][on];
            match how["condition"].as_str().unwrap() {
                "service_healthy" => assert!(on["healthcheck"].is_object(), "{name}"),
                "service_completed_successfully" => assert!(on["command"].is_array(), "{name}"),
                other => panic!("{name} waits for {other}"),
            }
        }
    }
}

#[test]
fn every_path_that_is_mounted_or_copied_exists() {
    let volumes = compose()["volumes"].clone();
    for (name, service) in services() {
        for mount in strings(&service["volumes"]) {
            let source = mount.split(':').next().unwrap();
            let exists = match source.strip_prefix("./") {
                Some(path) => root().join(path).exists(),
                None => volumes.get(source).is_some(),
            };
            assert!(exists, "{name} mounts {source}");
        }
    }
    for line in text("Dockerfile").lines() {
        let Some(copied) = line
            .strip_prefix("COPY ")
            .filter(|line| !line.starts_with("--from"))
        else {
            continue;
        };
        let paths: Vec<&str> = copied.split_whitespace().collect();
        for path in &paths[..paths.len() - 1] {
            assert!(root().join(path).exists(), "{line}");
        }
    }
}

#[test]
fn the_image_is_built_from_all_members_and_from_what_they_include() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let (dockerfile, ignored) = (text("Dockerfile"), text(".dockerignore"));
    let members = members.iter().map(|member| member.as_str().unwrap());
    // consumers/runtime comes with consumers.
    let folders = members.map(|member| member.split('/').next().unwrap());
    for folder in folders.chain(["prometheus", "grafana"]) {
        assert!(
            dockerfile.contains(&format!("COPY {folder} {folder}\n")),
            "{folder}"
        );
        assert!(ignored.contains(&format!("!{folder}\n")), "{folder}");
    }
}

#[test]
fn every_variable_of_ours_is_one_that_the_program_reads() {
    let listed = Command::new(ACTIVITY)
        .args(["config", "-o", "json"])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let settings: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let known: BTreeSet<&str> = settings
        .as_array()
        .unwrap()
        .iter()
        .map(|setting| setting["variable"].as_str().unwrap())
        .collect();
    let words = ["docker-compose.yml", "Dockerfile", ".env.example"]
        .map(text)
        .join("\n");
    let named: BTreeSet<&str> = words
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("ACTIVITY_"))
        .collect();
    assert!(named.len() > 4, "{named:?}");
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn no_password_has_a_default_and_each_is_asked_for_in_env_example() {
    let file = text("docker-compose.yml");
    let example = text(".env.example");
    let mut asked = BTreeSet::new();
    for part in file.split("${").skip(1) {
        let (name, rest) = part.split_once('}').unwrap().0.split_once(':').unwrap();
        assert!(rest.starts_with('?'), "{name} has a default: {rest}");
        asked.insert(name.to_owned());
    }
    let given: BTreeSet<String> = example
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.strip_suffix('=').expect("no value").to_owned())
        .collect();
    assert_eq!(asked, given);
    let users = text("deploy/clickhouse/users.d/activity.xml");
    let read = users.split("from_env=\"").skip(1);
    let read: BTreeSet<String> = read
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect();
    assert!(read.is_subset(&asked), "{read:?}");
    let guarded = users.matches("<password from_env=").count();
    assert_eq!(guarded, users.matches("<ip>::/0</ip>").count());
}

#[test]
fn ports_are_open_on_this_machine_alone() {
    for (name, service) in services() {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}
