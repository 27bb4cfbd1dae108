-- The group fraud as a chain of three stages: features of each click, the weights they are scored by, and episodes of suspicion.

ALTER TABLE {database}.fraud_scores
    ADD COLUMN IF NOT EXISTS features Array(Float32) COMMENT 'How surprising each sign is on this site, from 0 (not, or not known) to 1 (one actor in a thousand), in the order of SIGNS in the code of the group' CODEC(ZSTD(1)) AFTER reasons,
    ADD COLUMN IF NOT EXISTS model_version UInt32 COMMENT 'Version of the fitted weights that the score is from, as in models; 0: none, scored without labels' CODEC(ZSTD(1)) AFTER features,
    ADD COLUMN IF NOT EXISTS clicked_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the click itself; _appended_at is when its message for the last stage was' CODEC(Delta, ZSTD(1)) AFTER model_version,
    ADD COLUMN IF NOT EXISTS received_at DateTime64(3, 'UTC') COMMENT 'When the collecting service took the click' CODEC(Delta, ZSTD(1)) AFTER clicked_at;

CREATE TABLE IF NOT EXISTS {database}.fraud_alerts
(
    kind LowCardinality(String) COMMENT 'What is under suspicion: user, address or device',
    actor String COMMENT 'Its id' CODEC(ZSTD(1)),
    state LowCardinality(String) COMMENT 'opened: suspicion begins; updated: it goes on',
    event_id UUID COMMENT 'Id of the click after which the row was made',
    opened_at DateTime64(3, 'UTC') COMMENT 'received_at of the click that opened the episode' CODEC(Delta, ZSTD(1)),
    seen_at DateTime64(3, 'UTC') COMMENT 'received_at of the latest click so far' CODEC(Delta, ZSTD(1)),
    clicks UInt32 COMMENT 'Clicks of the actor since the episode was opened, in this partition of the last stage' CODEC(ZSTD(1)),
    score Float32 COMMENT 'Standing of the actor: mean score of the latest clicks of a user, or of the latest users of an address or device' CODEC(ZSTD(1)),
    peak_score Float32 COMMENT 'Highest standing so far' CODEC(ZSTD(1)),
    reasons Array(String) COMMENT 'Reasons of that click' CODEC(ZSTD(1)),
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
ORDER BY (kind, actor, opened_at, seen_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Episodes of suspicion as they came about; fraud_episodes has one line for each';

-- The parts of one episode (a user has clicks in several partitions of the last stage) follow each other within the gap of half an hour.
CREATE OR REPLACE VIEW {database}.fraud_episodes
(
    kind LowCardinality(String) COMMENT 'What is under suspicion: user, address or device',
    actor String COMMENT 'Its id',
    opened_at DateTime64(3, 'UTC') COMMENT 'When the click was received that suspicion begins with',
    seen_at DateTime64(3, 'UTC') COMMENT 'When the latest click of the episode was received',
    closed Bool COMMENT 'Nothing more came for half an hour',
    clicks UInt64 COMMENT 'Clicks of the actor in the episode',
    peak_score Float32 COMMENT 'Highest standing of the actor in the episode',
    reasons Array(String) COMMENT 'Reasons of the latest of its rows in fraud_alerts'
)
AS SELECT
    kind,
    actor,
    min(opened) AS opened_at,
    max(seen) AS seen_at,
    seen_at < now64(3) - INTERVAL 30 MINUTE AS closed,
    sum(part_clicks) AS clicks,
    max(peak) AS peak_score,
    argMax(why, seen) AS reasons
FROM
(
    SELECT *, sum(begins) OVER (PARTITION BY kind, actor ORDER BY opened, seen ROWS UNBOUNDED PRECEDING) AS episode
    FROM
    (
        SELECT
            *,
            opened > max(seen) OVER (PARTITION BY kind, actor ORDER BY opened, seen ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + INTERVAL 30 MINUTE AS begins
        FROM
        (
            SELECT kind, actor, opened_at AS opened, _partition AS part, max(seen_at) AS seen, max(clicks) AS part_clicks, max(peak_score) AS peak, argMax(reasons, seen_at) AS why
            FROM {database}.fraud_alerts
            GROUP BY kind, actor, opened, part
        )
    )
)
GROUP BY kind, actor, episode
COMMENT 'One line for each episode of suspicion: an actor, from when until when, and why';

CREATE TABLE IF NOT EXISTS {database}.models
(
    consumer_group LowCardinality(String) COMMENT 'Consumer group that works by it',
    version UInt32 COMMENT 'From 1; the highest one that is effective holds',
    effective_at DateTime64(3, 'UTC') COMMENT 'It holds for events that the broker appended then or later' CODEC(ZSTD(1)),
    content String COMMENT 'The group''s own text' CODEC(ZSTD(1)),
    fitted_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was stored' CODEC(ZSTD(1)),
    fitted_from String COMMENT 'What it was fitted from, for people' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(fitted_at)
ORDER BY (consumer_group, version)
COMMENT 'What commands have fitted for groups, in versions';
