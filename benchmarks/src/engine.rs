//! ClickHouse's own Kafka engine: it reads the topic, parses Avro by the registry's schemas, and a view moves the rows on.

use std::collections::BTreeMap;

use crate::scene::{Sample, Scene, execute_all};

/// How the engine is set.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// Rows of a block; None: its default, up to 1,048,449 rows or 7.5 s.
    pub block_rows: Option<u32>,
    /// Consumers, each in a thread of its own.
    pub consumers: u16,
}

const SQL: &str = include_str!("../clickhouse/kafka_engine.sql");

/// Reads the whole topic once.
pub async fn run(scene: &Scene, settings: EngineSettings, group: &str) -> anyhow::Result<Sample> {
    let block = settings.block_rows.map_or(String::new(), |rows| {
        format!(", kafka_max_block_size = {rows}, kafka_poll_max_batch_size = {rows}, kafka_flush_interval_ms = 500")
    });
    let sql = SQL
        .replace("{brokers}", scene.targets.kafka.brokers()?)
        .replace("{topic}", &scene.topic())
        .replace("{group}", group)
        .replace("{registry}", scene.targets.registry.url()?)
        .replace("{consumers}", &settings.consumers.to_string())
        .replace("{thread_per_consumer}", "1")
        .replace("{block}", &block);
    let measured = scene
        .measure(BTreeMap::new(), async {
            execute_all(&scene.database, &sql).await?;
            scene.wait_for_rows(&scene.database).await
        })
        .await;
    for table in ["kafka_clicks_to_plain", "kafka_clicks"] {
        let dropped = format!("DROP TABLE IF EXISTS {{database}}.{table} SYNC");
        scene.database.execute(&dropped).await?;
    }
    measured
}
