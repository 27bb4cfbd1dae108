-- The group truth: what is known about labelled traffic. Read by quality measures and the fraud dashboard, by no other group.

CREATE TABLE IF NOT EXISTS {database}.truth
(
    event_id UUID COMMENT 'Id of the event',
    label UInt8 COMMENT '1: part of an attack, or made by a script; 0: known to be genuine' CODEC(ZSTD(1)),
    attack LowCardinality(String) COMMENT 'Kind of attack; empty where there is none or where it has no name',
    _topic LowCardinality(String) COMMENT 'Topic of the event that the row was made from',
    _partition Int32 COMMENT 'Partition of that event' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of that event' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of that event in this table, from 0' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group that wrote the row; a rewind raises it' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended that event' CODEC(Delta, ZSTD(1)),
    PROJECTION by_offset (SELECT _topic, _partition, _offset, _n, _epoch ORDER BY _topic, _partition, _offset)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY event_id
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Ground truth of synthetic or labelled events, from their Kafka headers; an event without label has no row';
