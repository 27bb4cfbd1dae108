-- One row per click: what every contender of a catch-up fills. The same columns as the table `clicks`, without what only analytics asks of it.
CREATE TABLE IF NOT EXISTS {database}.plain_clicks
(
    event_id UUID COMMENT 'Unique for ever',
    occurred_at DateTime64(3, 'UTC') COMMENT 'By the clock of the device' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'By the clock of the collecting service' CODEC(Delta, ZSTD(1)),
    user_id String COMMENT 'Who' CODEC(ZSTD(1)),
    session_id Nullable(String) COMMENT 'The visit' CODEC(ZSTD(1)),
    device_id Nullable(String) COMMENT 'The device' CODEC(ZSTD(1)),
    ip Nullable(String) COMMENT 'The address' CODEC(ZSTD(1)),
    country LowCardinality(Nullable(String)) COMMENT 'ISO 3166-1 alpha-2 code',
    user_agent LowCardinality(Nullable(String)) COMMENT 'User-Agent of the client',
    page Nullable(String) COMMENT 'Path of the page' CODEC(ZSTD(1)),
    element LowCardinality(Nullable(String)) COMMENT 'What was clicked',
    item_id Nullable(String) COMMENT 'The item' CODEC(ZSTD(1)),
    referrer Nullable(String) COMMENT 'Where the visit came from' CODEC(ZSTD(1)),
    campaign LowCardinality(Nullable(String)) COMMENT 'The campaign',
    _topic LowCardinality(String) COMMENT 'Topic of the event',
    _partition Int32 COMMENT 'Partition of the event' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of the event' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of the event' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (toStartOfHour(occurred_at), user_id, occurred_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Every click, once'
