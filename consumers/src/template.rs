//! What `activity new-group` begins with: a whole group, compiled and judged by the tests of this crate, in which `template_group` and `TemplateGroup` stand for
//! the new group's name.

/// `consumers/src/groups/<name>.rs`
pub const GROUP: &str = include_str!("../template/group.rs");
/// `schemas/clickhouse/<number>_<name>.sql`
pub const MIGRATION: &str = include_str!("../template/migration.sql");
/// `grafana/dashboards/<name>.json`
pub const DASHBOARD: &str = include_str!("../template/dashboard.json");
/// `consumers/tests/snapshots/golden__<name>.snap`
pub const SNAPSHOT: &str = include_str!("../tests/snapshots/new_group__template_group.snap");
