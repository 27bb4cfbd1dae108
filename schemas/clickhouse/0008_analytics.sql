-- The group analytics: what people ask of clicks and watch events, whatever comes late or twice.
--
-- An event that was sent twice has two rows, the second marked by the group (is_duplicate); everything below leaves it out. An event that comes late corrects
-- what is below, because nothing is added up when it arrives: aggregate projections keep fragments with the rows that they are made of, part by part, and views
-- merge fragments when they are read. Fragments can be neither short nor double while the rows are not.
--
-- A session ends where its user was silent for more than 30 minutes, in clicks and watch events together. All that a user does within one quarter of an hour
-- belongs to one session, whatever else comes; so that is what a fragment holds, and few of them make a session. Quarters, minutes and days are counted from
-- 1970 as numbers, because DateTime holds no earlier time and none after 2106, and a device's clock may say anything.
--
-- For months there are three rollups, made anew every so often by refreshable views: the sessions, the playbacks and the page paths that began before a cut.
-- The views session_history, playback_history and page_paths put what began after the cut to it, as it is now.

ALTER TABLE {database}.clicks ADD COLUMN IF NOT EXISTS is_duplicate Bool DEFAULT false COMMENT 'An event with this id had come before, among the last of the same user; not counted in any view' AFTER campaign;
ALTER TABLE {database}.watches ADD COLUMN IF NOT EXISTS is_duplicate Bool DEFAULT false COMMENT 'An event with this id had come before, among the last of the same user; not counted in any view' AFTER rebuffer_ms;
ALTER TABLE {database}.clicks ADD COLUMN IF NOT EXISTS is_late Bool DEFAULT toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(occurred_at) > 300000 COMMENT 'Received more than 5 minutes after it happened: the device was offline, or its clock is behind. Counted all the same' AFTER is_duplicate;
ALTER TABLE {database}.watches ADD COLUMN IF NOT EXISTS is_late Bool DEFAULT toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(occurred_at) > 300000 COMMENT 'Received more than 5 minutes after it happened: the device was offline, or its clock is behind. Counted all the same' AFTER is_duplicate;
ALTER TABLE {database}.clicks ADD COLUMN IF NOT EXISTS device_class LowCardinality(String) DEFAULT multiIf(
        ifNull(user_agent, '') = '', 'unknown',
        match(user_agent, '(?i)bot\\b|crawl|spider|headless|curl/|wget/|python|java/|go-http'), 'script',
        match(user_agent, '(?i)smart-?tv|tizen|web0s|appletv|roku|bravia|crkey|aft[a-z]'), 'tv',
        match(user_agent, '(?i)ipad|tablet|kindle'), 'tablet',
        match(user_agent, '(?i)mobi|iphone|android'), 'phone',
        'computer') COMMENT 'Class of the device, by the words of its user agent: phone, tablet, tv, computer, script, or unknown where there is none' AFTER user_agent;
ALTER TABLE {database}.clicks DROP PROJECTION IF EXISTS per_minute;
ALTER TABLE {database}.watches DROP PROJECTION IF EXISTS per_minute;
ALTER TABLE {database}.clicks ADD PROJECTION IF NOT EXISTS by_minute
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS minute, count(), countIf(is_late), uniqCombined(13)(user_id)
    GROUP BY is_duplicate, minute
);
ALTER TABLE {database}.watches ADD PROJECTION IF NOT EXISTS by_minute
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS minute, count(), countIf(is_late), uniqCombined(13)(user_id)
    GROUP BY is_duplicate, minute
);
ALTER TABLE {database}.clicks ADD PROJECTION IF NOT EXISTS by_visit
(
    SELECT
        is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 900000)) AS quarter, user_id,
        min(occurred_at), max(occurred_at), count(), max(_appended_at),
        argMin((session_id, device_id, ip, country, device_class, page, referrer, campaign), bitShiftLeft(toInt128(toUnixTimestamp64Milli(occurred_at)), 64) + cityHash64(event_id)),
        groupUniqArrayIf(cityHash64(page), page IS NOT NULL), groupUniqArrayIf(cityHash64(item_id), item_id IS NOT NULL),
        minOrNullIf(occurred_at, startsWith(page, '/title/')), minOrNullIf(occurred_at, startsWith(page, '/item/')), maxOrNullIf(occurred_at, element = 'add-to-cart')
    GROUP BY is_duplicate, quarter, user_id
);
ALTER TABLE {database}.watches ADD PROJECTION IF NOT EXISTS by_visit
(
    SELECT
        is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 900000)) AS quarter, user_id,
        min(occurred_at), max(occurred_at), count(), max(_appended_at),
        argMin((session_id, device_id, ip, country), bitShiftLeft(toInt128(toUnixTimestamp64Milli(occurred_at)), 64) + cityHash64(event_id)),
        groupUniqArray(cityHash64(video_id)), groupUniqArrayIf(cityHash64(video_id), action = 'complete'),
        groupArrayIf(occurred_at, action = 'start'), maxOrNullIf(occurred_at, action = 'complete')
    GROUP BY is_duplicate, quarter, user_id
);
ALTER TABLE {database}.watches ADD PROJECTION IF NOT EXISTS by_playback
(
    SELECT
        is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 86400000)) AS day, user_id, video_id, ifNull(playback_id, '') AS playback,
        min(occurred_at), max(occurred_at), count(), max(_appended_at), max(country),
        max(duration_ms), max(position_ms), countIf(action = 'start'), countIf(action = 'complete'),
        maxIf(least(greatest(rebuffer_ms, 0), 3600000), action = 'start'),
        sumIf(least(greatest(rebuffer_ms, 0), 3600000), action != 'start'),
        countIf(action != 'start' AND rebuffer_ms > 0),
        countIf(action = 'pause'), countIf(action = 'resume'),
        sumIf(toUnixTimestamp64Milli(occurred_at), action = 'pause'), sumIf(toUnixTimestamp64Milli(occurred_at), action = 'resume')
    GROUP BY is_duplicate, day, user_id, video_id, playback
);
ALTER TABLE {database}.clicks ADD PROJECTION IF NOT EXISTS by_item
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 86400000)) AS day, item_id, count(), countIf(element = 'add-to-cart')
    GROUP BY is_duplicate, day, item_id
);

-- For rows that were there before; those that come have them from the start.
ALTER TABLE {database}.clicks MATERIALIZE PROJECTION by_minute, MATERIALIZE PROJECTION by_visit, MATERIALIZE PROJECTION by_item SETTINGS mutations_sync = 0;
ALTER TABLE {database}.watches MATERIALIZE PROJECTION by_minute, MATERIALIZE PROJECTION by_visit, MATERIALIZE PROJECTION by_playback SETTINGS mutations_sync = 0;

-- Sessions.

CREATE OR REPLACE VIEW {database}.sessions_since
AS
WITH
    fragments AS
    (
        SELECT
            user_id, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 900000)) AS quarter, toUnixTimestamp64Milli(min(occurred_at)) * 2 AS place,
            min(occurred_at) AS began, max(occurred_at) AS ended, max(_appended_at) AS appended, count() AS click_count, 0 AS watch_count,
            argMin((session_id, device_id, ip, country, device_class, page, referrer, campaign), bitShiftLeft(toInt128(toUnixTimestamp64Milli(occurred_at)), 64) + cityHash64(event_id)) AS first,
            groupUniqArrayIf(cityHash64(page), page IS NOT NULL) AS pages_seen, groupUniqArrayIf(cityHash64(item_id), item_id IS NOT NULL) AS items_seen,
            []::Array(UInt64) AS videos_seen, []::Array(UInt64) AS videos_completed,
            minOrNullIf(occurred_at, startsWith(page, '/title/')) AS title_first, minOrNullIf(occurred_at, startsWith(page, '/item/')) AS item_first,
            maxOrNullIf(occurred_at, element = 'add-to-cart') AS cart_last,
            []::Array(DateTime64(3, 'UTC')) AS plays, NULL::Nullable(DateTime64(3, 'UTC')) AS complete_last
        FROM {database}.clicks
        WHERE is_duplicate = 0 AND quarter >= {since:Int32} - 3
        GROUP BY user_id, quarter
        UNION ALL
        SELECT
            user_id, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 900000)) AS quarter, toUnixTimestamp64Milli(min(occurred_at)) * 2 + 1,
            min(occurred_at), max(occurred_at), max(_appended_at), 0, count(),
            tupleConcat(argMin((session_id, device_id, ip, country), bitShiftLeft(toInt128(toUnixTimestamp64Milli(occurred_at)), 64) + cityHash64(event_id)),
                (''::LowCardinality(String), NULL::Nullable(String), NULL::Nullable(String), NULL::LowCardinality(Nullable(String)))),
            [], [],
            groupUniqArray(cityHash64(video_id)), groupUniqArrayIf(cityHash64(video_id), action = 'complete'),
            NULL, NULL, NULL,
            groupArrayIf(occurred_at, action = 'start'), maxOrNullIf(occurred_at, action = 'complete')
        FROM {database}.watches
        WHERE is_duplicate = 0 AND quarter >= {since:Int32} - 3
        GROUP BY user_id, quarter
    ),
    gaps AS
    (
        SELECT *, began > max(ended) OVER (PARTITION BY cityHash64(user_id), user_id ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + INTERVAL 30 MINUTE AS begins
        FROM fragments
    ),
    visits AS
    (
        SELECT *, sum(begins) OVER (PARTITION BY cityHash64(user_id), user_id ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS visit
        FROM gaps
    ),
    merged AS
    (
        SELECT
            user_id, min(began) AS started_at, max(ended) AS ended_at, sum(click_count) AS clicks, sum(watch_count) AS watch_events,
            argMin(first, place) AS of_event, argMinIf(first, place, click_count > 0) AS of_click,
            length(groupUniqArrayArray(pages_seen)) AS pages, length(groupUniqArrayArray(items_seen)) AS items,
            length(groupUniqArrayArray(videos_seen)) AS videos, length(groupUniqArrayArray(videos_completed)) AS completed,
            min(title_first) AS title_at, min(item_first) AS item_at, max(cart_last) AS cart_at, groupArrayArray(plays) AS played_at, max(complete_last) AS completed_at,
            max(appended) AS last_appended_at, groupUniqArray(toInt32(floor(quarter / 4))) AS active_hours
        FROM visits
        GROUP BY user_id, visit
    )
SELECT
    user_id, started_at, ended_at, clicks, watch_events, pages, items, videos, completed,
    of_event.1 AS session_id, of_event.2 AS device_id, of_event.3 AS ip, of_event.4 AS country,
    if(clicks > 0, of_click.5, 'unknown') AS device_class, of_click.6 AS entry_page, of_click.7 AS referrer, of_click.8 AS campaign,
    multiIf(
        title_at IS NULL, 1,
        arrayMax(played_at) < title_at OR empty(played_at), 2,
        arrayExists(played -> played >= title_at AND played <= completed_at, played_at), 4,
        3)::UInt8 AS watch_step,
    multiIf(item_at IS NULL, 1, cart_at >= item_at, 3, 2)::UInt8 AS cart_step,
    active_hours, last_appended_at, (last_appended_at < now64(3, 'UTC') - INTERVAL 30 MINUTE)::Bool AS closed
FROM merged
WHERE started_at >= fromUnixTimestamp64Milli({since:Int32} * 900000, 'UTC')
COMMENT 'Sessions that began in the quarter of an hour (counted from 1970) since or later: sessions_since(since = 1988640). Reads no more than it needs';
CREATE OR REPLACE VIEW {database}.sessions
(
    user_id String COMMENT 'Who',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    clicks UInt64 COMMENT 'Clicks',
    watch_events UInt64 COMMENT 'Watch events',
    pages UInt64 COMMENT 'Different pages clicked on',
    items UInt64 COMMENT 'Different items clicked on',
    videos UInt64 COMMENT 'Different titles watched',
    completed UInt64 COMMENT 'Titles watched to the end',
    session_id Nullable(String) COMMENT 'What the client called the visit, by the first event; sessions are not cut by it',
    device_id Nullable(String) COMMENT 'Device of the first event',
    ip Nullable(String) COMMENT 'Address of the first event',
    country LowCardinality(Nullable(String)) COMMENT 'Country of the first event',
    device_class LowCardinality(String) COMMENT 'Class of the device of the first click; unknown where there is no click',
    entry_page Nullable(String) COMMENT 'Page of the first click',
    referrer Nullable(String) COMMENT 'Where the first click says that the visit came from',
    campaign LowCardinality(Nullable(String)) COMMENT 'Campaign of the first click',
    watch_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of a title (/title/...), 3 a playback that began after it, 4 a completion after that',
    cart_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of an item (/item/...), 3 add-to-cart after it',
    active_hours Array(Int32) COMMENT 'Hours, counted from 1970, in which it has events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event',
    closed Bool COMMENT 'No event has arrived for 30 minutes'
)
AS
SELECT * FROM {database}.sessions_since(since = -2454432)
COMMENT 'Visits, exact at the moment of reading: a user''s clicks and watch events between silences of more than 30 minutes. Reads all there is; for long ranges session_history is faster';
CREATE TABLE IF NOT EXISTS {database}.session_rollup
(
    user_id String COMMENT 'Who',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    clicks UInt64 COMMENT 'Clicks',
    watch_events UInt64 COMMENT 'Watch events',
    pages UInt64 COMMENT 'Different pages clicked on',
    items UInt64 COMMENT 'Different items clicked on',
    videos UInt64 COMMENT 'Different titles watched',
    completed UInt64 COMMENT 'Titles watched to the end',
    session_id Nullable(String) COMMENT 'What the client called the visit, by the first event; sessions are not cut by it',
    device_id Nullable(String) COMMENT 'Device of the first event',
    ip Nullable(String) COMMENT 'Address of the first event',
    country LowCardinality(Nullable(String)) COMMENT 'Country of the first event',
    device_class LowCardinality(String) COMMENT 'Class of the device of the first click; unknown where there is no click',
    entry_page Nullable(String) COMMENT 'Page of the first click',
    referrer Nullable(String) COMMENT 'Where the first click says that the visit came from',
    campaign LowCardinality(Nullable(String)) COMMENT 'Campaign of the first click',
    watch_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of a title (/title/...), 3 a playback that began after it, 4 a completion after that',
    cart_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of an item (/item/...), 3 add-to-cart after it',
    active_hours Array(Int32) COMMENT 'Hours, counted from 1970, in which it has events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event',
    closed Bool COMMENT 'No event has arrived for 30 minutes, when the rollup was made',
    cut Int32 COMMENT 'Quarter of an hour, counted from 1970, before which the sessions began; the same in all rows'
)
ENGINE = MergeTree
ORDER BY (user_id, started_at)
COMMENT 'Sessions that began before the cut, as they were when they were last made anew. Read session_history';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.session_rollup_refresh
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE
TO {database}.session_rollup
AS
WITH toInt32(floor(toUnixTimestamp(now()) / 900)) - 8 AS until
SELECT *, until AS cut
FROM {database}.sessions_since(since = -2454432)
WHERE started_at < fromUnixTimestamp64Milli(until * 900000, 'UTC')
SETTINGS max_threads = 1, max_bytes_before_external_group_by = 400000000, max_bytes_before_external_sort = 400000000
COMMENT 'Makes session_rollup anew: all sessions that began two hours ago or earlier';
CREATE OR REPLACE VIEW {database}.session_history
(
    user_id String COMMENT 'Who',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    clicks UInt64 COMMENT 'Clicks',
    watch_events UInt64 COMMENT 'Watch events',
    pages UInt64 COMMENT 'Different pages clicked on',
    items UInt64 COMMENT 'Different items clicked on',
    videos UInt64 COMMENT 'Different titles watched',
    completed UInt64 COMMENT 'Titles watched to the end',
    session_id Nullable(String) COMMENT 'What the client called the visit, by the first event; sessions are not cut by it',
    device_id Nullable(String) COMMENT 'Device of the first event',
    ip Nullable(String) COMMENT 'Address of the first event',
    country LowCardinality(Nullable(String)) COMMENT 'Country of the first event',
    device_class LowCardinality(String) COMMENT 'Class of the device of the first click; unknown where there is no click',
    entry_page Nullable(String) COMMENT 'Page of the first click',
    referrer Nullable(String) COMMENT 'Where the first click says that the visit came from',
    campaign LowCardinality(Nullable(String)) COMMENT 'Campaign of the first click',
    watch_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of a title (/title/...), 3 a playback that began after it, 4 a completion after that',
    cart_step UInt8 COMMENT 'How far it came: 1 visit, 2 page of an item (/item/...), 3 add-to-cart after it',
    active_hours Array(Int32) COMMENT 'Hours, counted from 1970, in which it has events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event',
    closed Bool COMMENT 'No event has arrived for 30 minutes'
)
AS
SELECT * EXCEPT (cut, closed), (last_appended_at < now64(3, 'UTC') - INTERVAL 30 MINUTE)::Bool AS closed FROM {database}.session_rollup
UNION ALL
SELECT * FROM {database}.sessions_since(since = (SELECT if(count() = 0, -2454432, max(cut)) FROM {database}.session_rollup))
COMMENT 'Sessions, fast over months. What began two hours ago or later is exact at the moment of reading; the rest is as of the last rollup, about an hour old at most';
CREATE OR REPLACE VIEW {database}.visitors_per_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour, by the clock of the device',
    visitors UInt64 COMMENT 'Different users with a click or watch event in it, exactly'
)
AS
SELECT fromUnixTimestamp64Second(toInt64(arrayJoin(active_hours)) * 3600, 'UTC') AS hour, uniqExact(user_id) AS visitors
FROM {database}.session_history
GROUP BY hour
COMMENT 'Exact unique visitors per hour';
CREATE OR REPLACE VIEW {database}.visitors_per_day
(
    day Date32 COMMENT 'Day in UTC, by the clock of the device',
    visitors UInt64 COMMENT 'Different users with a click or watch event on it, exactly'
)
AS
SELECT arrayJoin(arrayDistinct(arrayMap(hour -> toDate32(toInt32(floor(hour / 24))), active_hours))) AS day, uniqExact(user_id) AS visitors
FROM {database}.session_history
GROUP BY day
COMMENT 'Exact unique visitors per day; the new ones among them are cohort_users of retention';
CREATE OR REPLACE VIEW {database}.rolling_visitors
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour, by the clock of the device',
    visitors UInt64 COMMENT 'Different users in it',
    visitors_24_hours UInt64 COMMENT 'Different users in the 24 hours that end with it'
)
AS
SELECT
    fromUnixTimestamp64Second(toInt64(slot) * 3600, 'UTC') AS hour, finalizeAggregation(state) AS visitors,
    uniqCombinedMerge(13)(state) OVER (ORDER BY slot RANGE BETWEEN 23 PRECEDING AND CURRENT ROW) AS visitors_24_hours
FROM
(
    SELECT arrayJoin(active_hours) AS slot, uniqCombinedState(13)(user_id) AS state
    FROM {database}.session_history
    GROUP BY slot
)
COMMENT 'Unique visitors over a rolling day, by hour, estimated: the standard error is 1.2 %, far less below some hundred users';
CREATE OR REPLACE VIEW {database}.rolling_visitors_per_day
(
    day Date32 COMMENT 'Day in UTC, by the clock of the device',
    visitors_7_days UInt64 COMMENT 'Different users in the 7 days that end with it',
    visitors_28_days UInt64 COMMENT 'Different users in the 28 days that end with it'
)
AS
SELECT
    toDate32(slot) AS day,
    uniqCombinedMerge(13)(state) OVER (ORDER BY slot RANGE BETWEEN 6 PRECEDING AND CURRENT ROW) AS visitors_7_days,
    uniqCombinedMerge(13)(state) OVER (ORDER BY slot RANGE BETWEEN 27 PRECEDING AND CURRENT ROW) AS visitors_28_days
FROM
(
    SELECT arrayJoin(arrayDistinct(arrayMap(hour -> toInt32(floor(hour / 24)), active_hours))) AS slot, uniqCombinedState(13)(user_id) AS state
    FROM {database}.session_history
    GROUP BY slot
)
COMMENT 'Unique visitors over a rolling week and four weeks, by day, estimated: the standard error is 1.2 %, far less below some hundred users';
CREATE OR REPLACE VIEW {database}.retention
(
    first_day Date32 COMMENT 'Day on which the users of the cohort were first seen',
    days_later UInt32 COMMENT 'Days after it; 0: the day itself',
    users UInt64 COMMENT 'Users of the cohort seen on that day',
    cohort_users UInt64 COMMENT 'Users of the cohort',
    share Float64 COMMENT 'users / cohort_users'
)
AS
SELECT first_day, days_later, users, max(users) OVER (PARTITION BY first_day) AS cohort_users, users / cohort_users AS share
FROM
(
    SELECT first_day, toUInt32(toInt32(arrayJoin(days)) - toInt32(first_day)) AS days_later, count() AS users
    FROM
    (
        SELECT user_id, groupUniqArrayArray(arrayDistinct(arrayMap(hour -> toDate32(toInt32(floor(hour / 24))), active_hours))) AS days, arrayMin(days) AS first_day
        FROM {database}.session_history
        GROUP BY user_id
    )
    GROUP BY first_day, days_later
)
COMMENT 'Retention: of the users first seen on a day, how many were seen on each later day';
CREATE OR REPLACE VIEW {database}.funnel_per_day
(
    day Date32 COMMENT 'Day in UTC on which the sessions began',
    funnel LowCardinality(String) COMMENT 'watch: to a completed title; cart: to an item in the cart',
    step UInt8 COMMENT 'Which step, from 1',
    name LowCardinality(String) COMMENT 'What the step is',
    sessions UInt64 COMMENT 'Sessions that came as far as this step, or further'
)
AS
SELECT day, one.1 AS funnel, one.2 AS step, one.3 AS name, one.4 AS sessions
FROM
(
    SELECT
        toDate32(started_at) AS day,
        arrayJoin([('watch', 1, 'visit', count()), ('watch', 2, 'title page', countIf(watch_step >= 2)), ('watch', 3, 'play', countIf(watch_step >= 3)), ('watch', 4, 'complete', countIf(watch_step >= 4)),
            ('cart', 1, 'visit', count()), ('cart', 2, 'item page', countIf(cart_step >= 2)), ('cart', 3, 'add to cart', countIf(cart_step >= 3))]) AS one
    FROM {database}.session_history
    GROUP BY day
)
COMMENT 'How many sessions of a day came how far, each step after the one before it';
CREATE OR REPLACE VIEW {database}.audience_per_day
(
    day Date32 COMMENT 'Day in UTC on which the sessions began',
    country LowCardinality(Nullable(String)) COMMENT 'Country of the first event',
    device_class LowCardinality(String) COMMENT 'Class of the device of the first click',
    visitors UInt64 COMMENT 'Different users, exactly',
    sessions UInt64 COMMENT 'Sessions',
    clicks UInt64 COMMENT 'Clicks',
    watch_events UInt64 COMMENT 'Watch events',
    seconds Int64 COMMENT 'Length of the sessions together, seconds'
)
AS
SELECT
    toDate32(started_at) AS day, country, device_class, uniqExact(user_id) AS visitors, count() AS sessions, sum(clicks) AS clicks, sum(watch_events) AS watch_events,
    sum(dateDiff('second', started_at, ended_at)) AS seconds
FROM {database}.session_history
GROUP BY day, country, device_class
COMMENT 'Who visits, by country and class of device';

-- Events by minute, and rolling unique visitors.

CREATE OR REPLACE VIEW {database}.events_per_minute
(
    minute DateTime64(0, 'UTC') COMMENT 'Minute, by the clock of the device',
    kind LowCardinality(String) COMMENT 'clicks or watches',
    events UInt64 COMMENT 'Events, each once',
    duplicates UInt64 COMMENT 'Rows of events that were sent twice, not counted in events nor anywhere else',
    late UInt64 COMMENT 'Of the events, those that were received more than 5 minutes after they happened'
)
AS
SELECT fromUnixTimestamp64Second(toInt64(at) * 60, 'UTC') AS minute, kind, sumIf(rows, is_duplicate = 0) AS events, sumIf(rows, is_duplicate = 1) AS duplicates, sumIf(late_rows, is_duplicate = 0) AS late
FROM
(
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS at, 'clicks' AS kind, count() AS rows, countIf(is_late) AS late_rows
    FROM {database}.clicks
    GROUP BY is_duplicate, at
    UNION ALL
    SELECT is_duplicate, toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS at, 'watches' AS kind, count() AS rows, countIf(is_late) AS late_rows
    FROM {database}.watches
    GROUP BY is_duplicate, at
)
GROUP BY at, kind
COMMENT 'Events by minute: counted, sent twice, late';
CREATE OR REPLACE VIEW {database}.active_visitors_since
AS
SELECT
    fromUnixTimestamp64Second(toInt64(slot) * 60, 'UTC') AS minute,
    uniqCombinedMerge(13)(state) OVER (ORDER BY slot RANGE BETWEEN 4 PRECEDING AND CURRENT ROW) AS visitors_5_minutes,
    uniqCombinedMerge(13)(state) OVER (ORDER BY slot RANGE BETWEEN 59 PRECEDING AND CURRENT ROW) AS visitors_1_hour
FROM
(
    SELECT slot, uniqCombinedMergeState(13)(visitors) AS state
    FROM
    (
        SELECT toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS slot, uniqCombinedState(13)(user_id) AS visitors FROM {database}.clicks
        WHERE is_duplicate = 0 AND slot >= {since:Int32} GROUP BY slot
        UNION ALL
        SELECT toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 60000)) AS slot, uniqCombinedState(13)(user_id) AS visitors FROM {database}.watches
        WHERE is_duplicate = 0 AND slot >= {since:Int32} GROUP BY slot
    )
    GROUP BY slot
)
COMMENT 'Unique visitors over rolling minutes, by minute (counted from 1970) from since on, estimated: the standard error is 1.2 %. The first hour sees no further back: active_visitors_since(since = 29829600)';

-- Playbacks.

CREATE OR REPLACE VIEW {database}.playbacks_since
AS
WITH
    per_day AS
    (
        SELECT
            toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 86400000)) AS day, user_id, video_id, ifNull(playback_id, '') AS playback,
            min(occurred_at) AS began, max(occurred_at) AS ended, count() AS event_count, max(_appended_at) AS appended, max(country) AS from_country,
            max(duration_ms) AS length_ms, max(position_ms) AS reached_ms, countIf(action = 'start') AS starts, countIf(action = 'complete') AS completes,
            maxIf(least(greatest(rebuffer_ms, 0), 3600000), action = 'start') AS waited_ms,
            sumIf(least(greatest(rebuffer_ms, 0), 3600000), action != 'start') AS rebuffered_ms,
            countIf(action != 'start' AND rebuffer_ms > 0) AS rebuffered,
            countIf(action = 'pause') AS pauses, countIf(action = 'resume') AS resumes,
            sumIf(toUnixTimestamp64Milli(occurred_at), action = 'pause') AS paused_at, sumIf(toUnixTimestamp64Milli(occurred_at), action = 'resume') AS resumed_at
        FROM {database}.watches
        WHERE is_duplicate = 0 AND day >= {since:Int32} - 3
        GROUP BY day, user_id, video_id, playback
    ),
    merged AS
    (
        SELECT
            user_id, video_id, playback, min(began) AS started_at, max(ended) AS ended_at, sum(event_count) AS events, max(appended) AS last_appended_at,
            max(from_country) AS country, max(length_ms) AS duration_ms, max(reached_ms) AS position_ms, (sum(starts) > 0)::Bool AS is_started, (sum(completes) > 0)::Bool AS completed,
            max(waited_ms) AS startup_ms, sum(rebuffered_ms) AS rebuffer_ms, sum(rebuffered) AS rebuffers,
            toUnixTimestamp64Milli(ended_at) - toUnixTimestamp64Milli(started_at) AS span_ms,
            -- Each pause ends with its resume, or with the playback: sums of the times are enough, in whatever order they came.
            sum(resumed_at) - sum(paused_at) + greatest(toInt64(sum(pauses)) - toInt64(sum(resumes)), 0) * toUnixTimestamp64Milli(ended_at) AS paused_ms
        FROM per_day
        GROUP BY user_id, video_id, playback, if(playback = '', day, 0)
    )
SELECT
    user_id, video_id, nullIf(playback, '') AS playback_id, started_at, ended_at, country, is_started, completed, duration_ms,
    if(duration_ms > 0, greatest(0, least(position_ms, duration_ms)), NULL) AS furthest_ms,
    greatest(0, least(span_ms, span_ms - paused_ms - ifNull(rebuffer_ms, 0))) AS watched_ms,
    startup_ms, ifNull(rebuffer_ms, 0) AS rebuffer_ms, rebuffers, events, last_appended_at
FROM merged
WHERE started_at >= fromUnixTimestamp64Milli({since:Int32} * 86400000, 'UTC')
COMMENT 'Playbacks that began on the day (counted from 1970) since or later: playbacks_since(since = 20715). One that was silent for three days is two';
CREATE OR REPLACE VIEW {database}.playbacks
(
    user_id String COMMENT 'Who',
    video_id String COMMENT 'The title',
    playback_id Nullable(String) COMMENT 'One viewing, as the client counts it; NULL: it names none, and all of a day is one',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    country LowCardinality(Nullable(String)) COMMENT 'Country',
    is_started Bool COMMENT 'Its start was reported',
    completed Bool COMMENT 'Watched to the end',
    duration_ms Nullable(Int64) COMMENT 'Length of the title, milliseconds',
    furthest_ms Nullable(Int64) COMMENT 'Furthest position, from 0 to the length, milliseconds',
    watched_ms Int64 COMMENT 'From the first event to the last, less pauses and waiting, milliseconds',
    startup_ms Nullable(Int64) COMMENT 'Waiting before the first picture, milliseconds',
    rebuffer_ms Int64 COMMENT 'Waiting for data after that, milliseconds; at most an hour between two events is believed',
    rebuffers UInt64 COMMENT 'Reports of such waiting',
    events UInt64 COMMENT 'Watch events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event'
)
AS
SELECT * FROM {database}.playbacks_since(since = -25567)
COMMENT 'Viewings of one title by one user, exact at the moment of reading. Reads all there is; for long ranges playback_history is faster';
CREATE TABLE IF NOT EXISTS {database}.playback_rollup
(
    user_id String COMMENT 'Who',
    video_id String COMMENT 'The title',
    playback_id Nullable(String) COMMENT 'One viewing, as the client counts it; NULL: it names none, and all of a day is one',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    country LowCardinality(Nullable(String)) COMMENT 'Country',
    is_started Bool COMMENT 'Its start was reported',
    completed Bool COMMENT 'Watched to the end',
    duration_ms Nullable(Int64) COMMENT 'Length of the title, milliseconds',
    furthest_ms Nullable(Int64) COMMENT 'Furthest position, from 0 to the length, milliseconds',
    watched_ms Int64 COMMENT 'From the first event to the last, less pauses and waiting, milliseconds',
    startup_ms Nullable(Int64) COMMENT 'Waiting before the first picture, milliseconds',
    rebuffer_ms Int64 COMMENT 'Waiting for data after that, milliseconds; at most an hour between two events is believed',
    rebuffers UInt64 COMMENT 'Reports of such waiting',
    events UInt64 COMMENT 'Watch events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event',
    cut Int32 COMMENT 'Day, counted from 1970, before which the playbacks began; the same in all rows'
)
ENGINE = MergeTree
ORDER BY (user_id, started_at)
COMMENT 'Playbacks that began before the cut, as they were when they were last made anew. Read playback_history';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.playback_rollup_refresh
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE
TO {database}.playback_rollup
AS
WITH toInt32(floor((toUnixTimestamp(now()) - 7200) / 86400)) AS until
SELECT *, until AS cut
FROM {database}.playbacks_since(since = -25567)
WHERE started_at < fromUnixTimestamp64Milli(until * 86400000, 'UTC')
SETTINGS max_threads = 1, max_bytes_before_external_group_by = 400000000, max_bytes_before_external_sort = 400000000
COMMENT 'Makes playback_rollup anew: all playbacks that began before today';
CREATE OR REPLACE VIEW {database}.playback_history
(
    user_id String COMMENT 'Who',
    video_id String COMMENT 'The title',
    playback_id Nullable(String) COMMENT 'One viewing, as the client counts it; NULL: it names none, and all of a day is one',
    started_at DateTime64(3, 'UTC') COMMENT 'First event, by the clock of the device',
    ended_at DateTime64(3, 'UTC') COMMENT 'Last event so far',
    country LowCardinality(Nullable(String)) COMMENT 'Country',
    is_started Bool COMMENT 'Its start was reported',
    completed Bool COMMENT 'Watched to the end',
    duration_ms Nullable(Int64) COMMENT 'Length of the title, milliseconds',
    furthest_ms Nullable(Int64) COMMENT 'Furthest position, from 0 to the length, milliseconds',
    watched_ms Int64 COMMENT 'From the first event to the last, less pauses and waiting, milliseconds',
    startup_ms Nullable(Int64) COMMENT 'Waiting before the first picture, milliseconds',
    rebuffer_ms Int64 COMMENT 'Waiting for data after that, milliseconds; at most an hour between two events is believed',
    rebuffers UInt64 COMMENT 'Reports of such waiting',
    events UInt64 COMMENT 'Watch events',
    last_appended_at DateTime64(3, 'UTC') COMMENT 'When the broker took the last event'
)
AS
SELECT * EXCEPT cut FROM {database}.playback_rollup
UNION ALL
SELECT * FROM {database}.playbacks_since(since = (SELECT if(count() = 0, -25567, max(cut)) FROM {database}.playback_rollup))
COMMENT 'Playbacks, fast over months. What began today is exact at the moment of reading; the rest is as of the last rollup, about an hour old at most';
CREATE OR REPLACE VIEW {database}.experience_per_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the playbacks began, by the clock of the device',
    playbacks UInt64 COMMENT 'Playbacks whose start was reported',
    startup_ms_p50 Float64 COMMENT 'Half of them showed the first picture within that, milliseconds',
    startup_ms_p95 Float64 COMMENT '95 of 100 showed the first picture within that, milliseconds',
    interrupted_share Float64 COMMENT 'Share of them that had to wait for data after the start',
    rebuffering_share Float64 COMMENT 'Share of the time after the start that went into waiting for data'
)
AS
SELECT
    fromUnixTimestamp64Second(toInt64(floor(toUnixTimestamp64Milli(started_at) / 3600000)) * 3600, 'UTC') AS hour, count() AS playbacks,
    ifNull(quantileExact(0.5)(startup_ms), 0) AS startup_ms_p50, ifNull(quantileExact(0.95)(startup_ms), 0) AS startup_ms_p95,
    countIf(rebuffers > 0) / count() AS interrupted_share,
    if(sum(watched_ms + rebuffer_ms) = 0, 0, sum(rebuffer_ms) / sum(watched_ms + rebuffer_ms)) AS rebuffering_share
FROM {database}.playback_history
WHERE is_started
GROUP BY hour
COMMENT 'Quality of experience: waiting before and during playbacks';
CREATE OR REPLACE VIEW {database}.titles_per_day
(
    day Date32 COMMENT 'Day in UTC on which the playbacks began',
    video_id String COMMENT 'The title',
    playbacks UInt64 COMMENT 'Playbacks',
    viewers UInt64 COMMENT 'Different users, exactly',
    completed UInt64 COMMENT 'Playbacks to the end',
    watched_ms Int64 COMMENT 'Time watched, milliseconds'
)
AS
SELECT toDate32(started_at) AS day, video_id, count() AS playbacks, uniqExact(user_id) AS viewers, countIf(completed) AS completed, sum(watched_ms) AS watched_ms
FROM {database}.playback_history
GROUP BY day, video_id
COMMENT 'Titles: how often and how long they were watched';
CREATE OR REPLACE VIEW {database}.completion_curves
(
    day Date32 COMMENT 'Day in UTC on which the playbacks began',
    video_id String COMMENT 'The title',
    percent UInt8 COMMENT 'Place in the title: 0, 10, ... 100',
    reached UInt64 COMMENT 'Playbacks that came as far as this place, or further',
    playbacks UInt64 COMMENT 'Playbacks whose position and length are known'
)
AS
SELECT day, video_id, place.1 AS percent, place.2 AS reached, playbacks
FROM
(
    SELECT
        toDate32(started_at) AS day, video_id, count() AS playbacks,
        arrayJoin(arrayZip(range(0, 101, 10), sumForEach(arrayMap(percent -> toUInt64(furthest_ms * 100 >= duration_ms * percent), range(0, 101, 10))))) AS place
    FROM {database}.playback_history
    WHERE duration_ms > 0 AND furthest_ms IS NOT NULL
    GROUP BY day, video_id
)
COMMENT 'How many playbacks of a title came how far; sum reached and playbacks over days before dividing';
CREATE OR REPLACE VIEW {database}.concurrent_viewers
(
    minute DateTime64(0, 'UTC') COMMENT 'Minute, by the clock of the device; minutes in which nothing changes have no row',
    viewers Int64 COMMENT 'Playbacks that had begun and not ended in it; it holds until the next row'
)
AS
SELECT fromUnixTimestamp64Second(at * 60, 'UTC') AS minute, sum(sum(change)) OVER (ORDER BY at) AS viewers
FROM
(
    SELECT turn.1 AS at, turn.2 AS change
    FROM
    (
        SELECT arrayJoin([(toInt64(floor(toUnixTimestamp64Milli(started_at) / 60000)), 1), (toInt64(floor(toUnixTimestamp64Milli(ended_at) / 60000)) + 1, -1)]) AS turn
        FROM {database}.playback_history
    )
)
GROUP BY at
COMMENT 'Viewers at the same time, by minute';

-- Items and paths.

CREATE OR REPLACE VIEW {database}.items_per_day
(
    day Date32 COMMENT 'Day in UTC, by the clock of the device',
    item_id String COMMENT 'The item',
    clicks UInt64 COMMENT 'Clicks on it',
    carts UInt64 COMMENT 'Of these, how often it was put into the cart'
)
AS
SELECT toDate32(number) AS day, assumeNotNull(item) AS item_id, clicks, carts
FROM
(
    SELECT toInt32(floor(toUnixTimestamp64Milli(occurred_at) / 86400000)) AS number, item_id AS item, count() AS clicks, countIf(element = 'add-to-cart') AS carts
    FROM {database}.clicks
    WHERE is_duplicate = 0 AND item_id IS NOT NULL
    GROUP BY number, item_id
)
COMMENT 'Items: how often they were clicked on';
CREATE OR REPLACE VIEW {database}.page_moves_since
AS
SELECT occurred_at, from_page, to_page
FROM
(
    SELECT
        occurred_at, page AS to_page,
        lagInFrame(page) OVER (PARTITION BY user_id ORDER BY occurred_at, cityHash64(event_id) ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS from_page,
        lagInFrame(occurred_at) OVER (PARTITION BY user_id ORDER BY occurred_at, cityHash64(event_id) ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
    FROM {database}.clicks
    WHERE is_duplicate = 0 AND page != '' AND occurred_at >= fromUnixTimestamp64Milli({since:Int32} * 900000 - 1800000, 'UTC')
)
WHERE from_page != '' AND from_page != to_page AND before >= occurred_at - INTERVAL 30 MINUTE AND occurred_at >= fromUnixTimestamp64Milli({since:Int32} * 900000, 'UTC')
COMMENT 'Moves from page to page in the quarter of an hour (counted from 1970) since or later: page_moves_since(since = 1988640)';
CREATE TABLE IF NOT EXISTS {database}.page_path_rollup
(
    day Date32 COMMENT 'Day in UTC of the second click, by the clock of the device',
    from_page String COMMENT 'Page of the first click',
    to_page String COMMENT 'Page of the next click of the same user',
    moves UInt64 COMMENT 'How often',
    cut Int32 COMMENT 'Quarter of an hour, counted from 1970, before which the second clicks happened; the same in all rows'
)
ENGINE = MergeTree
ORDER BY (day, from_page, to_page)
COMMENT 'The 1,000 most frequent moves from page to page of each day before the cut, as they were when they were last made anew. Read page_paths';
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.page_path_rollup_refresh
REFRESH EVERY 1 HOUR RANDOMIZE FOR 10 MINUTE
TO {database}.page_path_rollup
AS
WITH toInt32(floor(toUnixTimestamp(now()) / 900)) - 8 AS until
SELECT toDate32(occurred_at) AS day, from_page, to_page, count() AS moves, until AS cut
FROM {database}.page_moves_since(since = -2454430)
WHERE occurred_at < fromUnixTimestamp64Milli(until * 900000, 'UTC')
GROUP BY day, from_page, to_page
ORDER BY day, moves DESC, from_page, to_page
LIMIT 1000 BY day
SETTINGS max_threads = 1, max_bytes_before_external_group_by = 400000000, max_bytes_before_external_sort = 400000000
COMMENT 'Makes page_path_rollup anew: all moves of two hours ago or earlier';
CREATE OR REPLACE VIEW {database}.page_paths
(
    day Date32 COMMENT 'Day in UTC of the second click, by the clock of the device',
    from_page String COMMENT 'Page of the first click',
    to_page String COMMENT 'Page of the next click of the same user, another page, at most 30 minutes later',
    moves UInt64 COMMENT 'How often'
)
AS
SELECT day, from_page, to_page, sum(count) AS moves
FROM
(
    SELECT day, from_page, to_page, moves AS count FROM {database}.page_path_rollup
    UNION ALL
    SELECT toDate32(occurred_at) AS day, from_page, to_page, count()
    FROM {database}.page_moves_since(since = (SELECT if(count() = 0, -2454430, max(cut)) FROM {database}.page_path_rollup))
    GROUP BY day, from_page, to_page
)
GROUP BY day, from_page, to_page
COMMENT 'Moves from page to page. Those of two hours ago or later are exact at the moment of reading; the rest is as of the last rollup, about an hour old at most, and of each day only the 1,000 most frequent';
