-- What dashboards need to be quick over a month: the ledger and visitors by minute, and how scores and alerts of fraud stand beside the truth.

ALTER TABLE {database}.ledger ADD COLUMN IF NOT EXISTS reasons Map(String, UInt64) DEFAULT map() COMMENT 'The rejected messages by reason; empty where it was not noted' AFTER rejects;

-- Within a partition the ledger's ranges are in the order of time, so that few granules have to be read for one.
ALTER TABLE {database}.ledger ADD INDEX IF NOT EXISTS by_time inserted_at TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.ledger MATERIALIZE INDEX by_time SETTINGS mutations_sync = 0;

-- The ledger gets some thousand rows a minute. Its rollup is appended to, not made anew: each time the last half hour that it has is written again, in one block
-- that is there whole or not at all, and rows of the same minute and partition replace each other. A rewind copies the ledger's rows into its epoch; such a copy
-- counts once.
CREATE OR REPLACE VIEW {database}.ledger_minutes_since
AS
SELECT
    toStartOfMinute(toDateTime(one.inserted_at, 'UTC')) AS minute, one.consumer_group AS consumer_group, one.topic AS topic, one.partition AS partition,
    sum(one.events) AS events, sum(one.rejects) AS rejects, sumMap(one.reasons) AS reasons, sum(one.lost) AS lost, sum(one.bytes) AS bytes, countIf(one.events > 0) AS batches, countIf(one.attempt > 1) AS resent,
    argMax(one.lag, one.inserted_at) AS lag, max(one.lag) AS lag_max,
    maxIf(dateDiff('millisecond', one.appended_last, one.inserted_at), one.events > 0) AS behind_ms_max,
    ifNotFinite(quantileIf(0.95)(one.freshness_ms, one.events > 0), 0) AS freshness_ms_p95, ifNotFinite(quantileIf(0.95)(one.insert_ms, one.events > 0), 0) AS insert_ms_p95,
    max(one.end_offset) AS end_offset, max(one.inserted_at) AS inserted_at
FROM
(
    SELECT *
    FROM {database}.ledger FINAL
    WHERE inserted_at >= toDateTime({since:Int64}, 'UTC')
    ORDER BY epoch
    LIMIT 1 BY consumer_group, topic, partition, start_offset, inserted_at
) AS one
GROUP BY minute, consumer_group, topic, partition
COMMENT 'The ledger by minute and partition, of batches written at since (seconds from 1970) or later: ledger_minutes_since(since = 1767225600)';
CREATE TABLE IF NOT EXISTS {database}.ledger_minute_rollup
(
    minute DateTime('UTC') COMMENT 'Minute in which the batches were in ClickHouse',
    consumer_group LowCardinality(String) COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Full topic name',
    partition Int32 COMMENT 'Partition',
    events UInt64 COMMENT 'Messages read',
    rejects UInt64 COMMENT 'Of these, messages that are in the dead letters',
    reasons Map(String, UInt64) COMMENT 'These by reason',
    lost UInt64 COMMENT 'Messages that the log no longer had',
    bytes UInt64 COMMENT 'Bytes inserted',
    batches UInt64 COMMENT 'Batches that had a message',
    resent UInt64 COMMENT 'Batches whose first insert was uncertain, so that they were sent again and counted',
    lag Int64 COMMENT 'Messages behind the end of the log when the last batch was claimed',
    lag_max Int64 COMMENT 'The most messages behind when a batch was claimed',
    behind_ms_max Int64 COMMENT 'The longest time from the append of the last message of a batch until the batch was queryable, milliseconds',
    freshness_ms_p95 Float64 COMMENT 'From the append of the oldest message of a batch until the batch was queryable: 95 of 100 batches were faster, milliseconds',
    insert_ms_p95 Float64 COMMENT 'Duration of the inserts: 95 of 100 batches were faster, milliseconds',
    end_offset Int64 COMMENT 'Offset after the last batch',
    inserted_at DateTime64(3, 'UTC') COMMENT 'When the last batch was in ClickHouse',
    made_at DateTime64(3, 'UTC') COMMENT 'When the row was made; the latest of a minute and partition holds'
)
ENGINE = ReplacingMergeTree(made_at)
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, consumer_group, topic, partition)
COMMENT 'The ledger by minute and partition, but for the last minutes. Read ledger_per_minute';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.ledger_minute_rollup_refresh
REFRESH EVERY 10 MINUTE RANDOMIZE FOR 1 MINUTE APPEND
TO {database}.ledger_minute_rollup
AS
SELECT *, now64(3, 'UTC') AS made_at
FROM {database}.ledger_minutes_since(since = (SELECT greatest(toInt64(toUnixTimestamp(max(minute))) - 1800, 0) FROM {database}.ledger_minute_rollup))
WHERE minute < toStartOfMinute(now('UTC') - INTERVAL 2 MINUTE)
SETTINGS max_threads = 1, max_bytes_before_external_group_by = 400000000, max_bytes_before_external_sort = 400000000
COMMENT 'Goes on with ledger_minute_rollup, beginning half an hour before its end';
CREATE OR REPLACE VIEW {database}.ledger_per_minute
(
    minute DateTime('UTC') COMMENT 'Minute in which the batches were in ClickHouse',
    consumer_group LowCardinality(String) COMMENT 'Consumer group',
    topic LowCardinality(String) COMMENT 'Full topic name',
    partition Int32 COMMENT 'Partition',
    events UInt64 COMMENT 'Messages read',
    rejects UInt64 COMMENT 'Of these, messages that are in the dead letters',
    reasons Map(String, UInt64) COMMENT 'These by reason',
    lost UInt64 COMMENT 'Messages that the log no longer had',
    bytes UInt64 COMMENT 'Bytes inserted',
    batches UInt64 COMMENT 'Batches that had a message',
    resent UInt64 COMMENT 'Batches whose first insert was uncertain, so that they were sent again and counted',
    lag Int64 COMMENT 'Messages behind the end of the log when the last batch was claimed',
    lag_max Int64 COMMENT 'The most messages behind when a batch was claimed',
    behind_ms_max Int64 COMMENT 'The longest time from the append of the last message of a batch until the batch was queryable, milliseconds',
    freshness_ms_p95 Float64 COMMENT 'From the append of the oldest message of a batch until the batch was queryable: 95 of 100 batches were faster, milliseconds',
    insert_ms_p95 Float64 COMMENT 'Duration of the inserts: 95 of 100 batches were faster, milliseconds',
    end_offset Int64 COMMENT 'Offset after the last batch',
    inserted_at DateTime64(3, 'UTC') COMMENT 'When the last batch was in ClickHouse'
)
AS
SELECT * EXCEPT made_at
FROM {database}.ledger_minute_rollup FINAL
WHERE minute < (SELECT max(minute) FROM {database}.ledger_minute_rollup)
UNION ALL
SELECT *
FROM {database}.ledger_minutes_since(since = (SELECT toInt64(toUnixTimestamp(max(minute))) FROM {database}.ledger_minute_rollup))
COMMENT 'What groups have put into ClickHouse, by minute and partition, up to the moment of reading';

-- One actor's clicks, be it a user (who has such an index already), an address or a device.
ALTER TABLE {database}.fraud_scores ADD INDEX IF NOT EXISTS by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE {database}.fraud_scores ADD INDEX IF NOT EXISTS by_device device_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE {database}.fraud_scores MATERIALIZE INDEX by_ip, MATERIALIZE INDEX by_device SETTINGS mutations_sync = 0;

-- Projections are found by the aggregates as they are written, and rolling visitors are merged from states: so it is the state that by_minute has to hold.
ALTER TABLE {database}.clicks DROP PROJECTION IF EXISTS by_minute;
ALTER TABLE {database}.watches DROP PROJECTION IF EXISTS by_minute;
ALTER TABLE {database}.clicks ADD PROJECTION IF NOT EXISTS by_minute
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS minute, count(), countIf(is_late), uniqCombinedState(13)(user_id)
    GROUP BY is_duplicate, minute
);
ALTER TABLE {database}.watches ADD PROJECTION IF NOT EXISTS by_minute
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS minute, count(), countIf(is_late), uniqCombinedState(13)(user_id)
    GROUP BY is_duplicate, minute
);
ALTER TABLE {database}.clicks MATERIALIZE PROJECTION by_minute SETTINGS mutations_sync = 0;
ALTER TABLE {database}.watches MATERIALIZE PROJECTION by_minute SETTINGS mutations_sync = 0;
CREATE OR REPLACE VIEW {database}.visitors_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Minute, by the clock of the device',
    kind LowCardinality(String) COMMENT 'clicks or watches',
    visitors AggregateFunction(uniqCombined(13), String) COMMENT 'Different users; uniqCombinedMerge(13)(visitors) estimates their number over any minutes, the standard error is 1.2 %'
)
AS
SELECT fromUnixTimestamp64Second(toInt64(at) * 60, 'UTC') AS minute, kind, visitors
FROM
(
    SELECT toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS at, 'clicks' AS kind, uniqCombinedState(13)(user_id) AS visitors
    FROM {database}.clicks
    WHERE is_duplicate = 0
    GROUP BY at
    UNION ALL
    SELECT toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS at, 'watches' AS kind, uniqCombinedState(13)(user_id) AS visitors
    FROM {database}.watches
    WHERE is_duplicate = 0
    GROUP BY at
)
COMMENT 'Unique visitors by minute, to be merged over any range of minutes';

-- Scores beside the truth. The cut is a moment of the broker's clock, which only goes forward: what was appended before it does not change any more, except
-- where the group truth came later than the rollup, which the next one mends.
CREATE OR REPLACE VIEW {database}.fraud_known_since
AS
SELECT
    toStartOfHour(scored.received_at) AS hour, scored.user_id AS user_id, known.label AS label, known.attack AS attack,
    toUInt8(least(floor(scored.score * 20), 19)) AS twentieth, count() AS clicks, min(scored.received_at) AS first_at
FROM
(
    SELECT event_id, user_id, received_at, score
    FROM {database}.fraud_scores
    WHERE _appended_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
) AS scored
ANY INNER JOIN
(
    SELECT event_id, label, attack
    FROM {database}.truth
    WHERE _appended_at >= (SELECT min(clicked_at) FROM {database}.fraud_scores WHERE _appended_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC'))
) AS known USING (event_id)
GROUP BY hour, user_id, label, attack, twentieth
COMMENT 'Scored clicks whose truth is known and that the broker appended for scoring at since (milliseconds from 1970) or later: fraud_known_since(since = 1767225600000)';
CREATE TABLE IF NOT EXISTS {database}.fraud_known_rollup
(
    hour DateTime('UTC') COMMENT 'Hour in which the collecting service took the clicks',
    user_id String COMMENT 'Whose clicks',
    label UInt8 COMMENT '1: part of an attack, or made by a script; 0: known to be genuine',
    attack LowCardinality(String) COMMENT 'Kind of attack, or what innocents look like; empty where it has no name',
    twentieth UInt8 COMMENT 'Score of the clicks in twentieths, rounded down: 0 to 19',
    clicks UInt64 COMMENT 'Clicks; one that came twice is scored twice and counts twice',
    first_at DateTime64(3, 'UTC') COMMENT 'When the first of them was received',
    cut Int64 COMMENT 'Time, milliseconds from 1970, before which the broker had appended them for scoring; the same in all rows'
)
ENGINE = MergeTree
ORDER BY (hour, user_id)
COMMENT 'Scored clicks before the cut whose truth is known, as they were when they were last made anew. Read fraud_known';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.fraud_known_rollup_refresh
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE DEPENDS ON {database}.page_path_rollup_refresh
TO {database}.fraud_known_rollup
AS
WITH toInt64(toUnixTimestamp(now()) - 900) * 1000 AS until
SELECT
    toStartOfHour(scored.received_at) AS hour, scored.user_id AS user_id, known.label AS label, known.attack AS attack,
    toUInt8(least(floor(scored.score * 20), 19)) AS twentieth, count() AS clicks, min(scored.received_at) AS first_at, until AS cut
FROM
(
    SELECT event_id, user_id, received_at, score
    FROM {database}.fraud_scores
    WHERE _appended_at < fromUnixTimestamp64Milli(until, 'UTC')
) AS scored
ANY INNER JOIN {database}.truth AS known USING (event_id)
GROUP BY hour, user_id, label, attack, twentieth
SETTINGS max_threads = 1, join_algorithm = 'grace_hash', grace_hash_join_initial_buckets = 16, max_bytes_before_external_group_by = 400000000
COMMENT 'Makes fraud_known_rollup anew: all that was appended for scoring a quarter of an hour ago or earlier';
CREATE OR REPLACE VIEW {database}.fraud_known
(
    hour DateTime('UTC') COMMENT 'Hour in which the collecting service took the clicks',
    user_id String COMMENT 'Whose clicks',
    label UInt8 COMMENT '1: part of an attack, or made by a script; 0: known to be genuine',
    attack LowCardinality(String) COMMENT 'Kind of attack, or what innocents look like; empty where it has no name',
    twentieth UInt8 COMMENT 'Score of the clicks in twentieths, rounded down: 0 to 19',
    clicks UInt64 COMMENT 'Clicks; one that came twice is scored twice and counts twice',
    first_at DateTime64(3, 'UTC') COMMENT 'When the first of them was received'
)
AS
SELECT * EXCEPT cut FROM {database}.fraud_known_rollup
UNION ALL
SELECT * FROM {database}.fraud_known_since(since = (SELECT if(count() = 0, 0, max(cut)) FROM {database}.fraud_known_rollup))
COMMENT 'Scored clicks whose truth is known, by hour, user and score; sum over rows. What came in the last quarter of an hour is as it is at the moment of reading, the rest as of the last rollup, about an hour old at most';

-- Which playbacks are judged, and how lists and popularity had ranked them, in few rows: those of one quarter of an hour that are judged alike are one.
CREATE OR REPLACE VIEW {database}.recommendation_judged_since
AS
SELECT
    toStartOfFifteenMinutes(toDateTime(received_at, 'UTC')) AS quarter,
    multiIf(isNull(user_completions), 'not noted', user_completions = 0, 'none', user_completions < 5, '1 to 4', user_completions < 20, '5 to 19', '20 or more')
        ::Enum8('none' = 0, '1 to 4' = 1, '5 to 19' = 2, '20 or more' = 3, 'not noted' = 4) AS completed_before,
    multiIf(isNull(title_seen_at), 'not noted', received_at < title_seen_at + INTERVAL 1 DAY, 'first day', received_at < title_seen_at + INTERVAL 7 DAY, 'first week',
        received_at < title_seen_at + INTERVAL 30 DAY, 'first month', 'older')::Enum8('first day' = 0, 'first week' = 1, 'first month' = 2, 'older' = 3, 'not noted' = 4) AS title_age,
    toUInt8(if(rank > 20, 0, rank)) AS place, toUInt8(if(popularity_rank > 20, 0, popularity_rank)) AS popularity_place, count() AS playbacks
FROM {database}.recommendation_outcomes
WHERE _appended_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') AND NOT watched_before
    AND event_id IN (SELECT event_id FROM {database}.recommendation_completions WHERE _appended_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC'))
GROUP BY quarter, completed_before, title_age, place, popularity_place
COMMENT 'Completed playbacks that were appended at since (milliseconds from 1970) or later, and how they had been ranked: recommendation_judged_since(since = 1767225600000)';
CREATE TABLE IF NOT EXISTS {database}.recommendation_judged_rollup
(
    quarter DateTime('UTC') COMMENT 'Quarter of an hour in which the playbacks began, as the collecting service received them',
    completed_before Enum8('none' = 0, '1 to 4' = 1, '5 to 19' = 2, '20 or more' = 3, 'not noted' = 4) COMMENT 'Titles that the user had completed before',
    title_age Enum8('first day' = 0, 'first week' = 1, 'first month' = 2, 'older' = 3, 'not noted' = 4) COMMENT 'Age of the title, from its first playback',
    place UInt8 COMMENT 'Place of the title among the first 20 of the list that stood before; 0: not among them',
    popularity_place UInt8 COMMENT 'Place of the title among the 20 with the most completions until then; 0: not among them',
    playbacks UInt64 COMMENT 'Playbacks that were watched to the end, of titles that the user had not completed before',
    cut Int64 COMMENT 'Time, milliseconds from 1970, before which the broker had appended them; the same in all rows'
)
ENGINE = MergeTree
ORDER BY quarter
COMMENT 'Judged playbacks before the cut, as they were when they were last made anew. Read recommendation_judged';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.recommendation_judged_rollup_refresh
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE DEPENDS ON {database}.fraud_known_rollup_refresh
TO {database}.recommendation_judged_rollup
AS
WITH toInt64(toUnixTimestamp(now()) - 7200) * 1000 AS until
SELECT
    toStartOfFifteenMinutes(toDateTime(received_at, 'UTC')) AS quarter,
    multiIf(isNull(user_completions), 'not noted', user_completions = 0, 'none', user_completions < 5, '1 to 4', user_completions < 20, '5 to 19', '20 or more')
        ::Enum8('none' = 0, '1 to 4' = 1, '5 to 19' = 2, '20 or more' = 3, 'not noted' = 4) AS completed_before,
    multiIf(isNull(title_seen_at), 'not noted', received_at < title_seen_at + INTERVAL 1 DAY, 'first day', received_at < title_seen_at + INTERVAL 7 DAY, 'first week',
        received_at < title_seen_at + INTERVAL 30 DAY, 'first month', 'older')::Enum8('first day' = 0, 'first week' = 1, 'first month' = 2, 'older' = 3, 'not noted' = 4) AS title_age,
    toUInt8(if(rank > 20, 0, rank)) AS place, toUInt8(if(popularity_rank > 20, 0, popularity_rank)) AS popularity_place, count() AS playbacks, until AS cut
FROM {database}.recommendation_outcomes
WHERE _appended_at < fromUnixTimestamp64Milli(until, 'UTC') AND NOT watched_before AND event_id IN (SELECT event_id FROM {database}.recommendation_completions)
GROUP BY quarter, completed_before, title_age, place, popularity_place
SETTINGS max_threads = 1
COMMENT 'Makes recommendation_judged_rollup anew: all playbacks that began two hours ago or earlier';
CREATE OR REPLACE VIEW {database}.recommendation_judged
(
    quarter DateTime('UTC') COMMENT 'Quarter of an hour in which the playbacks began, as the collecting service received them',
    completed_before Enum8('none' = 0, '1 to 4' = 1, '5 to 19' = 2, '20 or more' = 3, 'not noted' = 4) COMMENT 'Titles that the user had completed before',
    title_age Enum8('first day' = 0, 'first week' = 1, 'first month' = 2, 'older' = 3, 'not noted' = 4) COMMENT 'Age of the title, from its first playback',
    place UInt8 COMMENT 'Place of the title among the first 20 of the list that stood before; 0: not among them',
    popularity_place UInt8 COMMENT 'Place of the title among the 20 with the most completions until then; 0: not among them',
    playbacks UInt64 COMMENT 'Playbacks that were watched to the end, of titles that the user had not completed before'
)
AS
SELECT * EXCEPT cut FROM {database}.recommendation_judged_rollup
UNION ALL
SELECT * FROM {database}.recommendation_judged_since(since = (SELECT if(count() = 0, 0, max(cut)) FROM {database}.recommendation_judged_rollup))
COMMENT 'Completed playbacks and how lists and popularity had ranked them; sum playbacks over rows. What began in the last two hours is as it is at the moment of reading, the rest as of the last rollup, about an hour old at most';

-- Whatever is made anew each hour is made one after the other: a server that has just started makes all of it, and would have no core left for what comes in.
ALTER TABLE {database}.playback_rollup_refresh MODIFY REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE DEPENDS ON {database}.session_rollup_refresh;
ALTER TABLE {database}.page_path_rollup_refresh MODIFY REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE DEPENDS ON {database}.playback_rollup_refresh;
