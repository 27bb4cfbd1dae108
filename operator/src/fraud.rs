//! `activity fraud fit`: weights for the signs of a script, from clicks whose truth is known, as a new version of the group's model.

use activity_consumers::ConsumerGroup;
use activity_consumers::groups::fraud::fit::{self, Example};
use activity_consumers::groups::fraud::{Fraud, SIGNS};
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::settings::Targets;
use activity_runtime::models::{self, LEAD};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::quality::fraud::Clicks;
use crate::verify::Scope;

/// Doubt against every weight, in clicks.
const RIDGE: f64 = 1.0;

/// What to fit from, and from when on the weights hold.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Only clicks appended then.
    pub scope: Scope,
    /// At most so many clicks, chosen by their ids.
    pub clicks_max: u64,
    /// The weights hold for all events, for a rewind; else for those appended some time from now on.
    pub from_beginning: bool,
    /// Store nothing.
    pub dry_run: bool,
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fitted {
    /// Its version; none if it was not stored.
    pub version: Option<u32>,
    /// The weights hold for events that the broker appended then or later, RFC 3339; none if it was not stored.
    pub effective_at: Option<String>,
    /// Clicks that it was fitted from.
    pub clicks: u64,
    /// Of these, clicks of attacks.
    pub attacks: u64,
    /// The logit of a click without any sign.
    pub bias: f32,
    /// The heaviest first.
    pub weights: Vec<Weight>,
}

/// What one sign counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weight {
    /// The sign.
    pub sign: String,
    /// The logit that it adds at its highest surprise.
    pub weight: f32,
    /// What it measures.
    pub about: String,
}

#[derive(Deserialize)]
struct ClickRow {
    features: Vec<f32>,
    label: u8,
    actor_clicks: u64,
}

/// Fits weights, and stores them unless it is a dry run.
///
/// # Errors
/// If ClickHouse does not answer, or there are too few labelled clicks.
pub async fn run(targets: &Targets, fit: &Fit) -> Result<Fitted, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let clicks = Clicks::new(&database, fit.scope).await?;
    let rows: Vec<ClickRow> = database.rows(&clicks.examples(fit.clicks_max)).await?;
    let examples: Vec<Example> = rows
        .into_iter()
        .filter(|row| row.features.len() == SIGNS.len())
        .map(|row| Example {
            features: row.features,
            is_attack: row.label == 1,
            actor_clicks: row.actor_clicks,
        })
        .collect();
    let weights = fit::fit(&examples, RIDGE)?;
    let mut fitted = Fitted {
        version: None,
        effective_at: None,
        clicks: examples.len() as u64,
        attacks: examples.iter().filter(|click| click.is_attack).count() as u64,
        bias: weights.bias,
        weights: SIGNS
            .iter()
            .map(|sign| Weight {
                sign: sign.name.to_owned(),
                weight: weights.weights.get(sign.name).copied().unwrap_or(0.0),
                about: sign.about.to_owned(),
            })
            .collect(),
    };
    fitted
        .weights
        .sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    if !fit.dry_run {
        let content = weights.content();
        let (version, effective_at) =
            store(&database, fit.from_beginning, &content, &fitted).await?;
        fitted.version = Some(version);
        fitted.effective_at = Some(effective_at);
    }
    Ok(fitted)
}

/// Stores a new version; tells it, and from when on it holds.
async fn store(
    database: &Database,
    from_beginning: bool,
    content: &str,
    fitted: &Fitted,
) -> Result<(u32, String), Error> {
    #[derive(Deserialize)]
    struct Now {
        now_ms: i64,
    }
    let group = <Fraud as ConsumerGroup>::NAME;
    let known = models::load(database, group).await?;
    let version = known.last().map_or(1, |model| model.version + 1);
    let now: Vec<Now> = database
        .rows("SELECT toUnixTimestamp64Milli(now64(3)) AS now_ms")
        .await?;
    let at_ms = match now.first() {
        Some(now) if !from_beginning => now.now_ms + LEAD.as_millis() as i64,
        _ => 0,
    };
    let sql = format!(
        "INSERT INTO {{database}}.models (consumer_group, version, effective_at, content, fitted_from) \
         VALUES ({}, {version}, fromUnixTimestamp64Milli({at_ms}, 'UTC'), {}, {})",
        quoted(group),
        quoted(content),
        quoted(&format!(
            "{} clicks, {} of them of attacks",
            fitted.clicks, fitted.attacks
        )),
    );
    database.execute(&sql).await?;
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    Ok((version, at.to_string()))
}
