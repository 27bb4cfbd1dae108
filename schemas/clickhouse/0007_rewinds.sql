-- Rewinds: a group reads again, into new tables beside the live ones, which then take their place.

CREATE TABLE IF NOT EXISTS {database}.rewinds
(
    consumer_group String COMMENT 'Consumer group',
    epoch UInt32 COMMENT 'The epoch that the rewind raises the group to; never used twice, also where a rewind was given up',
    version UInt32 COMMENT 'Raised each time that the row is written',
    from_epoch UInt32 COMMENT 'The epoch that the group was in',
    phase LowCardinality(String) COMMENT 'planned, copying, reading, exchanging, then done or aborted; until then the processes of the group wait',
    asked String COMMENT 'What was asked for: beginning, a time, or offsets',
    points Map(String, Int64) COMMENT 'From which offset on each partition is read again, by topic/partition',
    tables Map(String, String) COMMENT 'UUIDs of the new tables, by the name of the table whose place they take',
    keep_old Bool COMMENT 'The old tables are kept beside the new ones',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was written'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (consumer_group, epoch)
COMMENT 'Every rewind of a group, and how far it has come. Read it with FINAL';
