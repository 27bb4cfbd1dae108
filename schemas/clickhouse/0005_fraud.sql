-- The group fraud: a score for every click.

CREATE TABLE IF NOT EXISTS {database}.fraud_scores
(
    event_id UUID COMMENT 'Id of the click',
    user_id String COMMENT 'Whose behaviour is scored' CODEC(ZSTD(1)),
    ip Nullable(String) COMMENT 'The address that the click came from' CODEC(ZSTD(1)),
    device_id Nullable(String) COMMENT 'The device or browser profile' CODEC(ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When the click happened, by the clock of the device' CODEC(Delta, ZSTD(1)),
    score Float32 COMMENT '0: nothing speaks for a script; 1: certainly one' CODEC(ZSTD(1)),
    reasons Array(String) COMMENT 'What speaks for a script, in words for people: a word that names the sign, a colon, the figures' CODEC(ZSTD(1)),
    _topic LowCardinality(String) COMMENT 'Topic of the event that the row was made from',
    _partition Int32 COMMENT 'Partition of that event' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of that event' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of that event in this table, from 0' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group that wrote the row; a rewind raises it' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended that event' CODEC(Delta, ZSTD(1)),
    INDEX by_user user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    PROJECTION by_offset (SELECT _topic, _partition, _offset, _n, _epoch ORDER BY _topic, _partition, _offset)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (toStartOfHour(occurred_at), user_id, occurred_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'How much each click looks like that of a script, and why';
