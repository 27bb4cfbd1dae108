-- The group recommendation: the lists, and how good they were. The share of completed playbacks whose title stood on the list is recall:
-- SELECT countIf(rank BETWEEN 1 AND 20) / count() FROM recommendation_outcomes WHERE event_id IN (SELECT event_id FROM recommendation_completions)

CREATE TABLE IF NOT EXISTS {database}.recommendations
(
    user_id String COMMENT 'Whom the list is for; empty: for everybody who has none of their own yet' CODEC(ZSTD(1)),
    made_at DateTime64(3, 'UTC') COMMENT 'received_at of the event that the list was made after; it stands until the next list of that user' CODEC(Delta, ZSTD(1)),
    items Array(String) COMMENT 'Titles, best first' CODEC(ZSTD(1)),
    scores Array(Float32) COMMENT 'Score of each title, comparable within one list; 0: there for its popularity alone' CODEC(ZSTD(1)),
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
ORDER BY (user_id, made_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Lists of titles for users, each from the moment that it was made';

CREATE TABLE IF NOT EXISTS {database}.recommendation_outcomes
(
    event_id UUID COMMENT 'Id of the first event of the playback',
    user_id String COMMENT 'Who began to watch' CODEC(ZSTD(1)),
    item_id String COMMENT 'The title' CODEC(ZSTD(1)),
    rank UInt16 COMMENT 'Place of the title, from 1, on the list that stood before that event (for a user without one, that for everybody); 0: not on the list, or no list' CODEC(ZSTD(1)),
    popularity_rank UInt16 COMMENT 'Place of the title, from 1, among as many titles with the most completions until then, without those that the user had completed; 0: not among them' CODEC(ZSTD(1)),
    watched_before Bool COMMENT 'The user had completed the title before, so that no list held it' CODEC(ZSTD(1)),
    made_at Nullable(DateTime64(3, 'UTC')) COMMENT 'made_at of the list that stood; NULL: there was none' CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'received_at of the first event of the playback' CODEC(Delta, ZSTD(1)),
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
ORDER BY (user_id, received_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'How the list that stood before a playback had ranked its title, for every playback; in the order of _offset';

CREATE TABLE IF NOT EXISTS {database}.recommendation_completions
(
    event_id UUID COMMENT 'Id of the first event of the playback, as in recommendation_outcomes',
    user_id String COMMENT 'Who completed it' CODEC(ZSTD(1)),
    item_id String COMMENT 'The title' CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'received_at of the event that completed it' CODEC(Delta, ZSTD(1)),
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
ORDER BY event_id
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Which playbacks were completed';
