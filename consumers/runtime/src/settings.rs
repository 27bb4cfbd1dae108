//! Limits of the runtime: one documented struct, from flags, environment and file.

use std::time::Duration;

use clap::Args;

/// Most rows that a batch may be closed at.
pub(crate) const BATCH_ROWS_LIMIT: u32 = 500_000;

/// Limits of one consumer group's process.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Batches and limits")]
pub struct RuntimeSettings {
    /// A batch is closed when it has this many rows; two of them stay below ClickHouse's one-block limit of 1,048,449.
    #[arg(long, env = "ACTIVITY_BATCH_ROWS_MAX", value_name = "ROWS", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_ROWS_LIMIT)))]
    pub batch_rows_max: u32,
    /// A batch is closed when it holds this many bytes.
    #[arg(long, env = "ACTIVITY_BATCH_BYTES_MAX", value_name = "BYTES", default_value_t = 32 * 1024 * 1024)]
    pub batch_bytes_max: usize,
    /// A batch is closed when its first message is this old, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_BATCH_AGE_MS",
        value_name = "MS",
        default_value_t = 500
    )]
    pub batch_age_ms: u64,
    /// Small inserts hurt ClickHouse: the age of batches is stretched so that the process stays under this many.
    #[arg(
        long,
        env = "ACTIVITY_INSERTS_PER_SECOND_MAX",
        value_name = "N",
        default_value_t = 20.0
    )]
    pub inserts_per_second_max: f64,
    /// Bytes of all batches, built or in flight; beyond it partitions pause.
    #[arg(long, env = "ACTIVITY_BUFFERED_BYTES_MAX", value_name = "BYTES", default_value_t = 192 * 1024 * 1024)]
    pub buffered_bytes_max: usize,
    /// Bytes that the Kafka client fetches ahead, kB.
    #[arg(
        long,
        env = "ACTIVITY_PREFETCH_KB_MAX",
        value_name = "KB",
        default_value_t = 16_384
    )]
    pub prefetch_kb_max: u32,
    /// The outcome of an insert that takes longer is unknown, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_INSERT_TIMEOUT_MS",
        value_name = "MS",
        default_value_t = 30_000
    )]
    pub insert_timeout_ms: u64,
    /// An insert starts at most this long after its claim, milliseconds; later it is claimed again.
    #[arg(
        long,
        env = "ACTIVITY_INSERT_START_MS_MAX",
        value_name = "MS",
        default_value_t = 10_000
    )]
    pub insert_start_ms_max: u64,
    /// A claim older than this may have lost its token in ClickHouse: its rows are looked at instead, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_TOKEN_AGE_MS_MAX",
        value_name = "MS",
        default_value_t = 600_000
    )]
    pub token_age_ms_max: u64,
    /// State is stored this often, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_SNAPSHOT_INTERVAL_MS",
        value_name = "MS",
        default_value_t = 30_000
    )]
    pub snapshot_interval_ms: u64,
    /// A member that is silent for this long loses its partitions, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_SESSION_TIMEOUT_MS",
        value_name = "MS",
        default_value_t = 6_000
    )]
    pub session_timeout_ms: u32,
    /// A stop waits this long for what is in flight; the rest is left to the next owner, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_SHUTDOWN_MS_MAX",
        value_name = "MS",
        default_value_t = 10_000
    )]
    pub shutdown_ms_max: u64,
    /// A group that rejects more than this share of a topic's events stops taking them, until it is started again; 1: never.
    #[arg(
        long,
        env = "ACTIVITY_DEAD_LETTER_SHARE_MAX",
        value_name = "SHARE",
        default_value_t = 0.5
    )]
    pub dead_letter_share_max: f64,
    /// The share is judged only where the topic had at least this many events within the window.
    #[arg(
        long,
        env = "ACTIVITY_DEAD_LETTER_EVENTS_MIN",
        value_name = "N",
        default_value_t = 20_000
    )]
    pub dead_letter_events_min: u64,
    /// The window in which events are counted for that share, milliseconds.
    #[arg(
        long,
        env = "ACTIVITY_DEAD_LETTER_WINDOW_MS",
        value_name = "MS",
        default_value_t = 60_000
    )]
    pub dead_letter_window_ms: u64,
    /// Users, devices or addresses whose state one partition's instance keeps.
    #[arg(
        long,
        env = "ACTIVITY_ACTORS_MAX",
        value_name = "N",
        default_value_t = 1_000_000
    )]
    pub actors_max: usize,
    /// Items in a list of recommendations.
    #[arg(
        long,
        env = "ACTIVITY_LIST_ITEMS_MAX",
        value_name = "N",
        default_value_t = 20
    )]
    pub list_items_max: usize,
    /// What was fitted for the group; filled where it runs.
    #[arg(skip)]
    pub models: activity_consumers::Models,
}

impl RuntimeSettings {
    /// What groups see of the settings.
    pub fn for_groups(&self) -> activity_consumers::Settings {
        activity_consumers::Settings {
            actors_max: self.actors_max,
            list_items_max: self.list_items_max,
            models: self.models.clone(),
        }
    }

    /// Age at which a batch is due when a flush takes `inserts` inserts.
    pub fn batch_age(&self, inserts: usize) -> Duration {
        let least = inserts as f64 / self.inserts_per_second_max.max(0.001);
        Duration::from_millis(self.batch_age_ms).max(Duration::from_secs_f64(least))
    }
}
