//! `activity quality recommendation`: lists, judged by what their users then watched to the end, beside plain popularity on the same playbacks.

use activity_consumers::ConsumerGroup;
use activity_consumers::groups::recommendation::Recommendation;
use activity_platform::clickhouse::Database;
use activity_platform::settings::Targets;
use activity_runtime::store;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Share of the playbacks that only train where no time is named.
const SKIP_SHARE: f64 = 0.2;

/// Which playbacks are judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Those appended at this time or later, by the brokers' clock.
    pub since: Option<Timestamp>,
    /// Those appended before.
    pub until: Option<Timestamp>,
    /// Share of them, in the order of the model's log, that only trains. Default: .2, or none where `since` is given.
    pub skip_share: Option<f64>,
}

/// Recommendations, judged by the titles that users then watched to the end (test, then train).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Of all playbacks together.
    #[serde(flatten)]
    pub all: Scores,
    /// What the lists were made of.
    #[serde(flatten)]
    pub variety: Variety,
    /// By what the user had completed before.
    pub users: Vec<Cohort>,
    /// By the title's age, from its first playback.
    pub titles: Vec<Cohort>,
}

/// How well playbacks were foreseen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Completed playbacks that were scored: those of titles that the user had not completed before, after the share that was skipped.
    pub events: u64,
    /// Share of them whose title stood among the first 20 of the user's list before the playback began.
    pub recall_at_20: f64,
    /// The same for the 20 titles with the most completions until then.
    pub popularity_recall_at_20: f64,
    /// Mean of 1/rank within the first 20, 0 for titles that were not there.
    pub mrr: f64,
    /// The same for popularity.
    pub popularity_mrr: f64,
}

/// Playbacks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    /// Which.
    pub cohort: String,
    /// How well they were foreseen.
    #[serde(flatten)]
    pub scores: Scores,
}

/// How much of the catalogue lists show, and how little known it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variety {
    /// Titles that were ever begun.
    pub catalogue: u64,
    /// Share of them that lists showed.
    pub coverage: f64,
    /// Share of them that were hits.
    pub hit_coverage: f64,
    /// The same for the hits of popularity.
    pub popularity_hit_coverage: f64,
    /// Mean of -log2(share of all completions) over what lists showed: bits, more is less known.
    pub novelty: f64,
    /// The same over the hits.
    pub hit_novelty: f64,
    /// The same over the hits of popularity.
    pub popularity_hit_novelty: f64,
}

/// Scores the outcomes in the order of the model's log.
///
/// A title that the user had completed before is on no list by design, so its playbacks say nothing about lists.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn measure(targets: &Targets, scope: &Scope) -> Result<Quality, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let epoch = store::epoch(&database, <Recommendation as ConsumerGroup>::NAME).await?;
    let cohorts: Vec<Cohort> = database.rows(&cohorts_sql(epoch, scope)).await?;
    let variety: Vec<Variety> = database.rows(&variety_sql(epoch, scope)).await?;
    Ok(assemble(cohorts, variety.into_iter().next()))
}

/// Cohorts come under names like `users:5-19`, in order; `all` is all of them.
fn assemble(cohorts: Vec<Cohort>, variety: Option<Variety>) -> Quality {
    let mut quality = Quality {
        variety: variety.unwrap_or_default(),
        ..Quality::default()
    };
    for Cohort { cohort, scores } in cohorts {
        let named = |name: &str| Cohort {
            cohort: name.to_owned(),
            scores: scores.clone(),
        };
        match cohort.split_once(':') {
            Some(("users", name)) => quality.users.push(named(name)),
            Some((_, name)) => quality.titles.push(named(name)),
            None => quality.all = scores,
        }
    }
    quality
}

/// The playbacks that are judged: completed, of titles that the user had not completed before.
fn judged_sql(epoch: u32, scope: &Scope) -> String {
    let default_share = if scope.since.is_some() {
        0.0
    } else {
        SKIP_SHARE
    };
    let skip_share = scope.skip_share.unwrap_or(default_share);
    let range = range_sql(scope);
    format!(
        "SELECT * FROM (SELECT item_id, user_completions, title_seen_at, received_at, rank BETWEEN 1 AND 20 AS hit, \
         popularity_rank BETWEEN 1 AND 20 AS popularity_hit, if(hit, 1 / rank, 0) AS reciprocal, if(popularity_hit, 1 / popularity_rank, 0) AS popularity_reciprocal, \
         row_number() OVER (ORDER BY _offset, _n) AS place, count() OVER () AS total \
         FROM {{database}}.recommendation_outcomes WHERE _epoch = {epoch} AND {range} AND NOT watched_before \
         AND event_id IN (SELECT event_id FROM {{database}}.recommendation_completions WHERE _epoch = {epoch})) \
         WHERE place > {skip_share} * total"
    )
}

/// The time range, by the brokers' clock.
fn range_sql(scope: &Scope) -> String {
    let at = |at: Timestamp| format!("fromUnixTimestamp64Milli({})", at.as_millisecond());
    let since = scope
        .since
        .map(|since| format!("_appended_at >= {}", at(since)));
    let until = scope
        .until
        .map(|until| format!("_appended_at < {}", at(until)));
    let both: Vec<String> = since.into_iter().chain(until).collect();
    if both.is_empty() {
        "true".to_owned()
    } else {
        both.join(" AND ")
    }
}

/// Scores of all playbacks and of each cohort. The first column orders them.
fn cohorts_sql(epoch: u32, scope: &Scope) -> String {
    let judged = judged_sql(epoch, scope);
    format!(
        "SELECT numbered.2 AS cohort, count() AS events, avg(hit) AS recall_at_20, avg(popularity_hit) AS popularity_recall_at_20, \
         avg(reciprocal) AS mrr, avg(popularity_reciprocal) AS popularity_mrr \
         FROM ({judged}) ARRAY JOIN [(0, 'all'), \
         multiIf(isNull(user_completions), (19, 'users:not noted'), user_completions = 0, (10, 'users:0'), user_completions < 5, (11, 'users:1-4'), \
         user_completions < 20, (12, 'users:5-19'), (13, 'users:20+')), \
         multiIf(isNull(title_seen_at), (29, 'titles:not noted'), received_at < title_seen_at + INTERVAL 1 DAY, (20, 'titles:first day'), \
         received_at < title_seen_at + INTERVAL 7 DAY, (21, 'titles:first week'), received_at < title_seen_at + INTERVAL 30 DAY, (22, 'titles:first month'), \
         (23, 'titles:older'))] AS numbered GROUP BY numbered ORDER BY numbered"
    )
}

/// What lists showed, and what hits were of, against the popularity that titles have at the range's end.
fn variety_sql(epoch: u32, scope: &Scope) -> String {
    let (judged, range) = (judged_sql(epoch, scope), range_sql(scope));
    let until = range_sql(&Scope {
        since: None,
        ..scope.clone()
    });
    let mean = |bits: &str, times: &str| {
        format!("if(sum({times}) = 0, 0., sum(({bits}) * ({times})) / sum({times}))")
    };
    let share = |part: &str| format!("if(begun = 0, 0., {part} / begun)");
    format!(
        "WITH (SELECT uniqExact(item_id) FROM {{database}}.recommendation_outcomes WHERE _epoch = {epoch} AND {until}) AS begun, \
         (SELECT count() FROM {{database}}.recommendation_completions WHERE _epoch = {epoch} AND {until}) AS completions_of_all \
         SELECT toUInt64(begun) AS catalogue, {} AS coverage, {} AS hit_coverage, {} AS popularity_hit_coverage, \
         {} AS novelty, {} AS hit_novelty, {} AS popularity_hit_novelty FROM \
         (SELECT item_id, sum(a) AS shown, sum(b) AS hits, sum(c) AS popularity_hits, \
         -log2(greatest(sum(d), 1) / greatest(completions_of_all, 1)) AS bits FROM (\
         SELECT arrayJoin(items) AS item_id, 1 AS a, 0 AS b, 0 AS c, 0 AS d FROM {{database}}.recommendations WHERE _epoch = {epoch} AND {range} \
         UNION ALL SELECT item_id, 0, hit, popularity_hit, 0 FROM ({judged}) \
         UNION ALL SELECT item_id, 0, 0, 0, 1 FROM {{database}}.recommendation_completions WHERE _epoch = {epoch} AND {until}) GROUP BY item_id)",
        share("countIf(shown > 0)"),
        share("countIf(hits > 0)"),
        share("countIf(popularity_hits > 0)"),
        mean("bits", "shown"),
        mean("bits", "hits"),
        mean("bits", "popularity_hits"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_range_is_judged_whole_and_all_time_after_what_only_trains() {
        let all_time = judged_sql(3, &Scope::default());
        assert!(all_time.contains("_epoch = 3 AND true") && all_time.ends_with("> 0.2 * total"));
        let since = Scope {
            since: Some(Timestamp::from_millisecond(5).unwrap()),
            until: Some(Timestamp::from_millisecond(9).unwrap()),
            skip_share: None,
        };
        let sql = judged_sql(3, &since);
        assert!(sql.contains("_appended_at >= fromUnixTimestamp64Milli(5) AND _appended_at < fromUnixTimestamp64Milli(9)"));
        assert!(sql.ends_with("> 0 * total"));
    }

    #[test]
    fn cohorts_go_to_their_kind() {
        let cohort = |name: &str, events| Cohort {
            cohort: name.to_owned(),
            scores: Scores {
                events,
                ..Scores::default()
            },
        };
        let cohorts = ["all", "users:0", "users:1-4", "titles:older"];
        let quality = assemble(
            (1..)
                .zip(cohorts)
                .map(|(n, name)| cohort(name, n))
                .collect(),
            None,
        );
        assert_eq!(quality.all.events, 1);
        assert_eq!(quality.users, [cohort("0", 2), cohort("1-4", 3)]);
        assert_eq!(quality.titles, [cohort("older", 4)]);
    }
}
