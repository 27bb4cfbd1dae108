//! `activity quality`: what the groups' outputs are worth, against what users then did.

use activity_consumers::ConsumerGroup;
use activity_consumers::groups::recommendation::Recommendation;
use activity_platform::clickhouse::Database;
use activity_platform::settings::Targets;
use activity_runtime::store;
use serde::{Deserialize, Serialize};

use crate::Error;

pub mod fraud;
mod ranking;

/// Recommendations, judged by the titles that users then watched to the end (test, then train).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecommendationQuality {
    /// Completed playbacks that were scored: those of titles that the user had not completed before, after the share that was skipped.
    pub events: u64,
    /// Share of them whose title stood among the first 20 of the user's list before the playback began.
    pub recall_at_20: f64,
    /// The same for the 20 titles with the most completions until then.
    pub popularity_recall_at_20: f64,
}

/// Scores the outcomes in the order of the model's log, without the first `skip_share` of them.
///
/// A title that the user had completed before is on no list by design, so its playbacks say nothing about lists.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn recommendation(
    targets: &Targets,
    skip_share: f64,
) -> Result<RecommendationQuality, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let epoch = store::epoch(&database, <Recommendation as ConsumerGroup>::NAME).await?;
    let sql = format!(
        "SELECT count() AS events, \
         if(events = 0, 0., countIf(rank BETWEEN 1 AND 20) / events) AS recall_at_20, \
         if(events = 0, 0., countIf(popularity_rank BETWEEN 1 AND 20) / events) AS popularity_recall_at_20 \
         FROM (SELECT rank, popularity_rank, row_number() OVER (ORDER BY _offset, _n) AS place, count() OVER () AS total \
         FROM {{database}}.recommendation_outcomes WHERE _epoch = {epoch} AND NOT watched_before \
         AND event_id IN (SELECT event_id FROM {{database}}.recommendation_completions WHERE _epoch = {epoch})) \
         WHERE place > {skip_share} * total"
    );
    Ok(database
        .rows(&sql)
        .await?
        .into_iter()
        .next()
        .unwrap_or_default())
}
