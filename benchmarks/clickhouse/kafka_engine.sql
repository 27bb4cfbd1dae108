-- ClickHouse reads the topic itself. What is not in the event comes from the engine's virtual columns.
CREATE TABLE {database}.kafka_clicks
(
    event_id UUID COMMENT 'Unique for ever',
    occurred_at DateTime64(3, 'UTC') COMMENT 'By the clock of the device',
    received_at DateTime64(3, 'UTC') COMMENT 'By the clock of the collecting service',
    user_id String COMMENT 'Who',
    session_id Nullable(String) COMMENT 'The visit',
    device_id Nullable(String) COMMENT 'The device',
    ip Nullable(String) COMMENT 'The address',
    country Nullable(String) COMMENT 'ISO 3166-1 alpha-2 code',
    user_agent Nullable(String) COMMENT 'User-Agent of the client',
    page Nullable(String) COMMENT 'Path of the page',
    element Nullable(String) COMMENT 'What was clicked',
    item_id Nullable(String) COMMENT 'The item',
    referrer Nullable(String) COMMENT 'Where the visit came from',
    campaign Nullable(String) COMMENT 'The campaign'
)
ENGINE = Kafka
SETTINGS kafka_broker_list = '{brokers}', kafka_topic_list = '{topic}', kafka_group_name = '{group}', kafka_format = 'AvroConfluent',
    format_avro_schema_registry_url = '{registry}', kafka_num_consumers = {consumers}, kafka_thread_per_consumer = {thread_per_consumer}{block};

CREATE MATERIALIZED VIEW {database}.kafka_clicks_to_plain TO {database}.plain_clicks
AS SELECT
    *, _topic, toInt32(_partition) AS _partition, toInt64(_offset) AS _offset, 0 AS _n, 1 AS _epoch, toDateTime64(_timestamp_ms, 3, 'UTC') AS _appended_at
FROM {database}.kafka_clicks;
