-- What dashboards need to be quick over a month: visitors by minute, and how scores and alerts of fraud stand beside the truth.

-- The ledger is asked for by time; within a partition its ranges are in the order of time, so that few granules have to be read.
ALTER TABLE {database}.ledger ADD INDEX IF NOT EXISTS by_time inserted_at TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.ledger MATERIALIZE INDEX by_time SETTINGS mutations_sync = 0;

-- One actor's clicks, be it a user (who has such an index already), an address or a device.
ALTER TABLE {database}.fraud_scores ADD INDEX IF NOT EXISTS by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE {database}.fraud_scores ADD INDEX IF NOT EXISTS by_device device_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE {database}.fraud_scores MATERIALIZE INDEX by_ip, MATERIALIZE INDEX by_device SETTINGS mutations_sync = 0;

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
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE
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
