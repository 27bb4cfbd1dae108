-- What the pipeline keeps about itself. Everything is idempotent: two set-ups may run at once.

CREATE DATABASE IF NOT EXISTS {database};

CREATE TABLE IF NOT EXISTS {database}.migrations
(
    number UInt32 COMMENT 'Number of the migration file',
    name String COMMENT 'Name of the migration file',
    checksum String COMMENT 'SHA-256 of the file, so that a changed file is noticed',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied last'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
COMMENT 'Migrations that were applied';

CREATE TABLE IF NOT EXISTS {database}.epochs
(
    consumer_group String COMMENT 'Consumer group',
    epoch UInt32 COMMENT 'Raised by every rewind; a group without a row is in epoch 1',
    raised_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When'
)
ENGINE = ReplacingMergeTree(epoch)
ORDER BY consumer_group
COMMENT 'The epoch of each consumer group';

CREATE TABLE IF NOT EXISTS {database}.ledger
(
    consumer_group LowCardinality(String) COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Full topic name',
    partition Int32 COMMENT 'Partition',
    epoch UInt32 COMMENT 'Epoch of the group',
    start_offset Int64 COMMENT 'First offset of the range',
    end_offset Int64 COMMENT 'Offset after the range',
    events UInt64 COMMENT 'Messages read in the range',
    rejects UInt64 COMMENT 'Of these, messages that are in the dead letters',
    lost UInt64 COMMENT 'Offsets of the range that the log no longer had',
    rows Map(String, UInt64) COMMENT 'Rows of the range, by table',
    bytes UInt64 COMMENT 'Bytes inserted',
    attempt UInt32 COMMENT '1: the first insert was answered with success; more: it was uncertain, sent again and counted',
    insert_ms UInt32 COMMENT 'Duration of the inserts, milliseconds',
    freshness_ms Int64 COMMENT 'Age of the oldest message when the range was queryable, milliseconds',
    lag Int64 COMMENT 'Messages behind the end of the log when the range was claimed',
    appended_first DateTime64(3, 'UTC') COMMENT 'Append time of the first message',
    appended_last DateTime64(3, 'UTC') COMMENT 'Append time of the last message',
    claimed_at DateTime64(3, 'UTC') COMMENT 'When the range was claimed in Kafka',
    inserted_at DateTime64(3, 'UTC') COMMENT 'When all of its rows were in ClickHouse'
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (consumer_group, topic, partition, epoch, start_offset)
COMMENT 'Every range of offsets that a group has put into ClickHouse. Read it with FINAL: a range that was written again is there once';

CREATE TABLE IF NOT EXISTS {database}.snapshots
(
    consumer_group LowCardinality(String) COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Full topic name',
    partition Int32 COMMENT 'Partition',
    slot UInt8 COMMENT 'Snapshots are written to two slots in turn, so that an older one is there while a new one is written',
    chunk UInt32 COMMENT 'Position of this chunk in the snapshot',
    chunks UInt32 COMMENT 'Chunks of the snapshot',
    epoch UInt32 COMMENT 'Epoch of the group',
    state_offset Int64 COMMENT 'The state after all messages below this offset',
    fingerprint String COMMENT 'Version of the code and settings that the state fits to',
    made_at DateTime64(3, 'UTC') COMMENT 'When it was made',
    bytes String COMMENT 'The chunk' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(made_at)
ORDER BY (consumer_group, topic, partition, epoch, slot, chunk)
COMMENT 'State of stateful groups, where any instance finds it';
