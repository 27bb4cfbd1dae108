-- The group analytics: every click and every watch event as a row. Rollups by minute are projections of the tables themselves: consistent with them part by
-- part and deduplicated with them, which a table filled by an incremental materialized view is not after a crash.

CREATE TABLE IF NOT EXISTS {database}.clicks
(
    event_id UUID COMMENT 'Unique for ever',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it happened, by the clock of the device of the user' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'When the collecting service took it' CODEC(Delta, ZSTD(1)),
    user_id String COMMENT 'Who: an account, or a pseudonym where nobody is signed in' CODEC(ZSTD(1)),
    session_id Nullable(String) COMMENT 'The visit, as the client counts it' CODEC(ZSTD(1)),
    device_id Nullable(String) COMMENT 'The device or browser profile' CODEC(ZSTD(1)),
    ip Nullable(String) COMMENT 'The address that the request came from' CODEC(ZSTD(1)),
    country LowCardinality(Nullable(String)) COMMENT 'ISO 3166-1 alpha-2 code',
    user_agent LowCardinality(Nullable(String)) COMMENT 'User-Agent of the client',
    page Nullable(String) COMMENT 'Path of the page that was clicked on' CODEC(ZSTD(1)),
    element LowCardinality(Nullable(String)) COMMENT 'What was clicked, in the own words of the site',
    item_id Nullable(String) COMMENT 'The item that the element stands for' CODEC(ZSTD(1)),
    referrer Nullable(String) COMMENT 'Where the visit came from' CODEC(ZSTD(1)),
    campaign LowCardinality(Nullable(String)) COMMENT 'The campaign that the visit is counted for',
    _topic LowCardinality(String) COMMENT 'Topic of the event that the row was made from',
    _partition Int32 COMMENT 'Partition of that event' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of that event' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of that event in this table, from 0' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group that wrote the row; a rewind raises it' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended that event' CODEC(Delta, ZSTD(1)),
    INDEX by_user user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    PROJECTION per_minute (SELECT toStartOfMinute(occurred_at) AS minute, country, count(), uniq(user_id) GROUP BY minute, country),
    PROJECTION by_offset (SELECT _topic, _partition, _offset, _n, _epoch ORDER BY _topic, _partition, _offset)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (toStartOfHour(occurred_at), user_id, occurred_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Every click, once';

CREATE TABLE IF NOT EXISTS {database}.watches
(
    event_id UUID COMMENT 'Unique for ever',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it happened, by the clock of the device of the user' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'When the collecting service took it' CODEC(Delta, ZSTD(1)),
    user_id String COMMENT 'Who: an account, or a pseudonym where nobody is signed in' CODEC(ZSTD(1)),
    session_id Nullable(String) COMMENT 'The visit, as the client counts it' CODEC(ZSTD(1)),
    device_id Nullable(String) COMMENT 'The device or browser profile' CODEC(ZSTD(1)),
    ip Nullable(String) COMMENT 'The address that the request came from' CODEC(ZSTD(1)),
    country LowCardinality(Nullable(String)) COMMENT 'ISO 3166-1 alpha-2 code',
    video_id String COMMENT 'The title' CODEC(ZSTD(1)),
    playback_id Nullable(String) COMMENT 'One viewing of one title, from start to stop' CODEC(ZSTD(1)),
    action LowCardinality(String) COMMENT 'What happened: start, heartbeat, pause, resume, seek, complete, stop, or unknown where a newer writer knows more',
    position_ms Nullable(Int64) COMMENT 'Position in the title, milliseconds' CODEC(ZSTD(1)),
    duration_ms Nullable(Int64) COMMENT 'Length of the title, milliseconds' CODEC(ZSTD(1)),
    rebuffer_ms Nullable(Int64) COMMENT 'Time spent waiting for data since the previous event of the playback, milliseconds' CODEC(ZSTD(1)),
    _topic LowCardinality(String) COMMENT 'Topic of the event that the row was made from',
    _partition Int32 COMMENT 'Partition of that event' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of that event' CODEC(Delta, ZSTD(1)),
    _n UInt32 COMMENT 'Which row of that event in this table, from 0' CODEC(ZSTD(1)),
    _epoch UInt32 COMMENT 'Epoch of the group that wrote the row; a rewind raises it' CODEC(ZSTD(1)),
    _appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended that event' CODEC(Delta, ZSTD(1)),
    INDEX by_user user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    PROJECTION per_minute (SELECT toStartOfMinute(occurred_at) AS minute, country, action, count(), uniq(user_id), sum(rebuffer_ms) GROUP BY minute, country, action),
    PROJECTION by_offset (SELECT _topic, _partition, _offset, _n, _epoch ORDER BY _topic, _partition, _offset)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (toStartOfHour(occurred_at), user_id, occurred_at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Every watch event, once';

-- Sessions need no timer and no state: what belongs together is judged when it is read. A session is what a client counts as one (session_id); events without
-- one are cut where a user was silent for more than 30 minutes.
CREATE OR REPLACE VIEW {database}.sessions
(
    user_id String COMMENT 'Who',
    session_id Nullable(String) COMMENT 'The visit, as the client counts it; NULL: cut by 30 minutes of silence',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    clicks UInt64 COMMENT 'Clicks',
    watch_events UInt64 COMMENT 'Watch events',
    pages UInt64 COMMENT 'Different pages clicked on',
    items UInt64 COMMENT 'Different items clicked on',
    videos UInt64 COMMENT 'Different titles watched',
    completed UInt64 COMMENT 'Titles watched to the end',
    country Nullable(String) COMMENT 'Country of the first event that names one',
    device_id Nullable(String) COMMENT 'Device of the first event that names one',
    ip Nullable(String) COMMENT 'Address of the first event that names one',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event',
    closed Bool COMMENT 'No event has arrived for 30 minutes'
)
AS
WITH
    events AS
    (
        SELECT
            user_id, session_id, occurred_at, device_id, ip, country, _appended_at,
            true AS is_click, page, item_id, CAST(NULL, 'Nullable(String)') AS video_id, false AS is_complete
        FROM {database}.clicks
        UNION ALL
        SELECT
            user_id, session_id, occurred_at, device_id, ip, country, _appended_at,
            false AS is_click, CAST(NULL, 'Nullable(String)') AS page, CAST(NULL, 'Nullable(String)') AS item_id, video_id, action = 'complete' AS is_complete
        FROM {database}.watches
    ),
    gaps AS
    (
        SELECT
            *,
            occurred_at > lagInFrame(occurred_at, 1, occurred_at) OVER (PARTITION BY user_id ORDER BY occurred_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) + INTERVAL 30 MINUTE AS begins
        FROM events
        WHERE session_id IS NULL
    ),
    visits AS
    (
        SELECT *, 0 AS begins, 0 AS visit
        FROM events
        WHERE session_id IS NOT NULL
        UNION ALL
        SELECT *, sum(begins) OVER (PARTITION BY user_id ORDER BY occurred_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS visit
        FROM gaps
    )
SELECT
    user_id,
    session_id,
    min(occurred_at) AS started_at,
    max(occurred_at) AS ended_at,
    countIf(is_click) AS clicks,
    countIf(NOT is_click) AS watch_events,
    uniqExact(page) AS pages,
    uniqExact(item_id) AS items,
    uniqExact(video_id) AS videos,
    uniqExactIf(video_id, is_complete) AS completed,
    argMin(country, occurred_at) AS country,
    argMin(device_id, occurred_at) AS device_id,
    argMin(ip, occurred_at) AS ip,
    max(_appended_at) AS last_appended_at,
    last_appended_at < now64(3, 'UTC') - INTERVAL 30 MINUTE AS closed
FROM visits
GROUP BY user_id, session_id, visit
COMMENT 'Visits: clicks and watch events of a user that belong together, judged when it is read';
