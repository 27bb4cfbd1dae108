//! The ClickHouse engine with its HTTP server, in a child of our own binary. It serves until its stdin closes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Doing;
use crate::security::{Security, User};
use crate::service::{get, isolate};
use crate::{Endpoints, StackError};

const CONFIG: &str = "config.xml";
const USERS: &str = "users.xml";
const DATABASE: &str = "database";
const MEMORY_BYTES_MAX: u64 = 4 << 30;
const MEMORY_BYTES_MIN: u64 = 1 << 30;
/// Starts the server, then reads stdin until its end.
const SERVE: &str = "SYSTEM START LISTEN HTTP; \
                     SELECT count() FROM file('/dev/stdin', 'LineAsString', 'l String') FORMAT Null";
/// Which folder the answering server keeps its data in.
const WHERE_IS_IT: &str =
    "/?query=SELECT%20path%20FROM%20system.disks%20WHERE%20name%3D%27default%27%20FORMAT%20TSVRaw";

/// The user whom an [`EngineTrouble`] befalls; no password, as `default`. The engine's own start-up query and devstack's probe run as `default` and must go on.
pub const TROUBLED_USER: &str = "troubled";

/// The user whom the dashboards' queries run as; no password, as `default`: it reads, and within limits.
pub const VIEWER_USER: &str = "viewer";

/// What holds for it. With `readonly` 1 a query cannot change its own settings, so these bounds hold whatever it says.
const VIEWER_PROFILE: &str = "
            <readonly>1</readonly>
            <max_execution_time>30</max_execution_time>
            <max_memory_usage>1073741824</max_memory_usage>
            <max_bytes_before_external_group_by>536870912</max_bytes_before_external_group_by>
            <max_result_rows>50000</max_result_rows>
            <max_result_bytes>33554432</max_result_bytes>
            <max_rows_to_read>2000000000</max_rows_to_read>
            <max_concurrent_queries_for_user>16</max_concurrent_queries_for_user>
            <output_format_json_quote_64bit_integers>0</output_format_json_quote_64bit_integers>
            <priority>2</priority>";
/// Tables alone: no function that reads a file or a URL.
const VIEWER_GRANTS: &str = "
            <grants>
                <query>GRANT SELECT ON *.*</query>
            </grants>";

/// What an engine can be made to lack for queries of [`TROUBLED_USER`], for fault tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineTrouble {
    /// Nothing.
    #[default]
    None,
    /// It takes no writes.
    ReadOnly,
    /// A query gets this much memory, bytes.
    QueryMemory(u64),
}

impl EngineTrouble {
    /// Elements of the user's profile.
    fn profile(self) -> String {
        match self {
            EngineTrouble::None => String::new(),
            // 2: as 1, but clients may still send settings with a query.
            EngineTrouble::ReadOnly => "<readonly>2</readonly>".to_owned(),
            EngineTrouble::QueryMemory(bytes) => {
                format!(
                    "<max_memory_usage>{bytes}</max_memory_usage><max_untracked_memory>1</max_untracked_memory>"
                )
            }
        }
    }
}

/// The engine's settings. Without a file it would have no limits.
fn config(memory_bytes_max: u64) -> String {
    format!(
        r#"<!-- written at each start -->
<clickhouse>
    <max_server_memory_usage>{memory_bytes_max}</max_server_memory_usage>
    <mark_cache_size>268435456</mark_cache_size>
    <primary_index_cache_size>268435456</primary_index_cache_size>
    <max_concurrent_queries>100</max_concurrent_queries>
    <max_connections>512</max_connections>
    <keep_alive_timeout>30</keep_alive_timeout>
    <max_thread_pool_size>1000</max_thread_pool_size>

    <!-- A small pool: 8 merges and mutations at once. The bounds below are shares of it; their defaults are larger than
         the whole pool and would keep large parts from ever being merged. -->
    <background_pool_size>4</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <merge_tree>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>3</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_mutation>4</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>5</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>

    <!-- No log tables: each exists only where it is configured. The engine forgets those of `system` when it ends but leaves their data, and then fails at
         every flush to make them again. -->

    <!-- The engine ignores users and profiles in this file. -->
    <users_config>{USERS}</users_config>
</clickhouse>
"#
    )
}

/// Who may come in, and what holds for their queries.
fn users(users: &[User], trouble: EngineTrouble) -> String {
    // Any user of the engine but the viewer can read files, so it serves loopback alone, and there a password guards nothing.
    let open = [
        ("default", "default", ""),
        (TROUBLED_USER, TROUBLED_USER, ""),
        (VIEWER_USER, VIEWER_USER, VIEWER_GRANTS),
    ];
    let open = open.map(|(name, profile, grants)| user(name, "", profile, grants));
    let guarded = users
        .iter()
        .map(|User { name, password }| user(name, password, "default", ""));
    let users: String = open.into_iter().chain(guarded).collect();
    let profile = trouble.profile();
    format!(
        r#"<!-- written at each start -->
<clickhouse>
    <profiles>
        <default>
            <log_queries>0</log_queries>
        </default>
        <{TROUBLED_USER}>
            <profile>default</profile>{profile}
        </{TROUBLED_USER}>
        <{VIEWER_USER}>{VIEWER_PROFILE}
        </{VIEWER_USER}>
    </profiles>
    <quotas>
        <default/>
    </quotas>
    <users>{users}
    </users>
</clickhouse>
"#
    )
}

fn user(name: &str, password: &str, profile: &str, grants: &str) -> String {
    format!(
        "
        <{name}>
            <password>{password}</password>
            <networks>
                <ip>127.0.0.1</ip>
            </networks>
            <profile>{profile}</profile>
            <quota>default</quota>{grants}
        </{name}>"
    )
}

/// Half of the machine's memory, within bounds: the rest is for Kafka, the registry and the consumers.
fn memory_bytes_max(machine_bytes: u64) -> u64 {
    (machine_bytes / 2).clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX)
}

fn machine_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes =
        total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map_or(2 * MEMORY_BYTES_MAX, |kilobytes| kilobytes * 1024)
}

/// Writes the settings into the engine's folder, which no engine may be using.
pub(crate) fn prepare(
    folder: &Path,
    security: Option<&Security>,
    trouble: EngineTrouble,
) -> Result<(), StackError> {
    let added = security.map_or(&[][..], |security| &security.users);
    let files = [
        (CONFIG, config(memory_bytes_max(machine_bytes()))),
        (USERS, users(added, trouble)),
    ];
    fs::create_dir_all(folder).doing(|| format!("creating {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// Completes `command`, which runs the engine, to one that serves with its data in `folder` while its stdin is open.
pub(crate) fn complete(command: &mut Command, folder: &Path, port: u16) {
    isolate(command, folder);
    let mut path = OsString::from("--path=");
    path.push(database(folder));
    command.arg(path).args([
        &format!("--config-file={CONFIG}"),
        &format!("--http_port={port}"),
    ]);
    command
        .args([
            "--listen_host=127.0.0.1",
            // Without the console an engine that ends by itself ends without a word.
            "--logger.console=1",
            "--log-level=error",
            "--query",
            SERVE,
        ])
        .stdin(Stdio::piped());
}

/// Content when the server that answers keeps its data in our folder: the engine itself would not say that it could not
/// bind its port, nor that the folder is locked.
pub(crate) async fn probe(endpoints: &Endpoints, folder: &Path) -> Result<(), String> {
    let found = get(&format!("{}{WHERE_IS_IT}", endpoints.clickhouse)).await?;
    if Path::new(found.trim_end_matches('\n')) == database(folder) {
        return Ok(());
    }
    Err(format!(
        "{} is another server, of {}",
        endpoints.clickhouse,
        found.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_gets_half_of_the_memory_within_bounds() {
        let gib = 1 << 30;
        assert_eq!(memory_bytes_max(gib), gib);
        assert_eq!(memory_bytes_max(6 * gib), 3 * gib);
        assert_eq!(memory_bytes_max(256 * gib), 4 * gib);
    }

    #[test]
    fn a_user_of_the_stack_is_one_of_the_engine() {
        let alice = User {
            name: "alice".to_owned(),
            password: "wonderland".to_owned(),
        };
        let text = users(&[alice], EngineTrouble::None);
        assert!(text.contains("<alice>") && text.contains("<password>wonderland</password>"));
        assert!(!users(&[], EngineTrouble::None).contains("wonderland"));
    }

    #[test]
    fn the_engine_listens_on_loopback_and_ends_with_its_stdin() {
        let mut command = Command::new("activity");
        complete(&mut command, Path::new("/data/clickhouse"), 8123);
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        insta::assert_snapshot!(args.join("\n"), @r"
        --path=/data/clickhouse/database
        --config-file=config.xml
        --http_port=8123
        --listen_host=127.0.0.1
        --logger.console=1
        --log-level=error
        --query
        SYSTEM START LISTEN HTTP; SELECT count() FROM file('/dev/stdin', 'LineAsString', 'l String') FORMAT Null
        ");
    }
}
