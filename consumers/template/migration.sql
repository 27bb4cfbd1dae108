-- The group template_group: clicks per country.

CREATE TABLE IF NOT EXISTS {database}.template_group_clicks
(
    country LowCardinality(String) COMMENT 'Country of the click, two letters; empty where it is not known',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When, by the user''s clock' CODEC(Delta, ZSTD(1)),
    _topic LowCardinality(String) COMMENT 'Topic of the message that the row was made from',
    _partition Int32 COMMENT 'Partition of that message' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of that message' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of that message in this table, from 0' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group that wrote the row; a rewind raises it' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended that message' CODEC(Delta, ZSTD(1)),
    PROJECTION by_offset (SELECT _topic, _partition, _offset, _n, _epoch ORDER BY _topic, _partition, _offset)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (country, occurred_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Clicks per country: a row for each click';
