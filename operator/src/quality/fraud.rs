//! `activity quality fraud`: scores and alerts against the truth, where it is known.
//!
//! An event is a click whose truth is known. An actor is a user: a positive one if any of its clicks is part of an attack, ranked by the mean score of its
//! clicks. Alerts are those of users.

use activity_consumers::ConsumerGroup;
use activity_consumers::groups::fraud::{ALERT_SCORE, Fraud};
use activity_consumers::groups::truth::Truth;
use activity_platform::clickhouse::Database;
use activity_platform::settings::Targets;
use activity_runtime::store;
use serde::{Deserialize, Serialize};

use super::ranking::{Tier, rank};
use crate::Error;
use crate::verify::Scope;

/// What fraud scores and alerts are worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FraudQuality {
    /// Per click.
    pub per_event: Ranking,
    /// Per user.
    pub per_actor: Ranking,
    /// Score from which on a click is taken for a script's, and standing from which on a user is under suspicion.
    pub alert_score: f32,
    /// Attacks, the one caught worst first.
    pub attacks: Vec<AttackQuality>,
    /// The attack whose users are alerted least.
    pub worst_attack: Option<String>,
    /// All users whose clicks are known to be genuine.
    pub innocents: InnocentQuality,
    /// Kinds of them that look like scripts, the most alarmed first.
    pub lookalikes: Vec<InnocentQuality>,
}

/// How well scores rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// Area under the ROC curve; none where the truth knows only one kind.
    pub auc: Option<f64>,
    /// Precision, averaged over the positive ones in order of falling score.
    pub average_precision: Option<f64>,
    /// How many there are.
    pub events: u64,
    /// How many of them are part of an attack.
    pub positives: u64,
}

/// How well one attack is caught.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttackQuality {
    /// Its name; empty where the truth names none.
    pub attack: String,
    /// Users that take part.
    pub actors: u64,
    /// Users among them that were alerted.
    pub alerted: u64,
    /// Share of its users that were alerted.
    pub recall: f64,
    /// Of the alerted users that are either of this attack or innocent, the share of this attack.
    pub precision: f64,
    /// Seconds from a user's first click of the attack to the user's alert: the middle one of the alerted.
    pub median_seconds_to_detection: Option<f64>,
    /// Its clicks.
    pub events: u64,
    /// Share of its clicks that score as high as the alert bound.
    pub event_recall: f64,
    /// Of the clicks that score so and are either of this attack or innocent, the share of this attack.
    pub event_precision: f64,
}

/// How often innocents are taken for scripts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InnocentQuality {
    /// What they look like; empty for all.
    pub kind: String,
    /// Users.
    pub actors: u64,
    /// Users that were alerted.
    pub alerted: u64,
    /// Alerted users by 10,000.
    pub false_alarms_per_10_000: f64,
    /// Their clicks.
    pub events: u64,
    /// Clicks that score as high as the alert bound.
    pub convicted: u64,
}

/// Users of one kind, as ClickHouse counts them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Kind {
    positive: u8,
    attack: String,
    actors: u64,
    alerted: u64,
    median_seconds: Option<f64>,
    events: u64,
    convicted: u64,
}

#[derive(Deserialize)]
struct TierRow {
    tier: f64,
    positives: u64,
    negatives: u64,
}

/// Scores what was appended within the scope.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn fraud(targets: &Targets, scope: Scope) -> Result<FraudQuality, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let clicks = Clicks::new(&database, scope).await?;
    let per_event = ranking(&database, &clicks.per_event()).await?;
    let per_actor = ranking(&database, &clicks.per_actor()).await?;
    let kinds: Vec<Kind> = database.rows(&clicks.kinds()).await?;
    Ok(summary(per_event, per_actor, &kinds))
}

async fn ranking(database: &Database, sql: &str) -> Result<Ranking, Error> {
    let rows: Vec<TierRow> = database.rows(sql).await?;
    let positives = rows.iter().map(|row| row.positives).sum();
    let events = positives + rows.iter().map(|row| row.negatives).sum::<u64>();
    let tier = |row: TierRow| Tier {
        score: row.tier,
        positives: row.positives,
        negatives: row.negatives,
    };
    let ranked = rank(rows.into_iter().map(tier).collect());
    Ok(Ranking {
        auc: ranked.map(|(auc, _)| auc),
        average_precision: ranked.map(|(_, precision)| precision),
        events,
        positives,
    })
}

/// The queries over clicks whose truth is known.
pub(crate) struct Clicks {
    clicks: String,
    alerts: String,
}

/// Scores fall into tiers of a hundredth of a logit: fine enough for any ranking, few enough to be sent.
const TIER: &str = "round(log(greatest(score, 1e-9) / greatest(1 - score, 1e-9)), 2) AS tier";

impl Clicks {
    pub(crate) async fn new(database: &Database, scope: Scope) -> Result<Self, Error> {
        let fraud = store::epoch(database, <Fraud as ConsumerGroup>::NAME).await?;
        let truth = store::epoch(database, <Truth as ConsumerGroup>::NAME).await?;
        let within = |column: &str| {
            let bound = |sign: &str, at_ms: Option<i64>| {
                at_ms.map_or(String::new(), |at_ms| {
                    format!(" AND {column} {sign} fromUnixTimestamp64Milli({at_ms}, 'UTC')")
                })
            };
            bound(">=", scope.since_ms) + &bound("<", scope.until_ms)
        };
        let known = format!(
            "SELECT event_id, max(label) AS label, max(attack) AS attack FROM {{database}}.truth WHERE _epoch = {truth} GROUP BY event_id"
        );
        // A duplicate of a click, under the same event id, is scored where it stands and counted once here.
        let scored = format!(
            "SELECT event_id, any(user_id) AS user_id, max(toFloat64(score)) AS score, min(received_at) AS received_at, any(features) AS features \
             FROM {{database}}.fraud_scores WHERE _epoch = {fraud}{} GROUP BY event_id",
            within("clicked_at")
        );
        Ok(Self {
            clicks: format!(
                "(SELECT * FROM ({scored}) AS scored INNER JOIN ({known}) AS known USING (event_id))"
            ),
            alerts: format!(
                "(SELECT actor, min(opened_at) AS opened FROM {{database}}.fraud_alerts WHERE _epoch = {fraud} AND kind = 'user'{} GROUP BY actor)",
                within("_appended_at")
            ),
        })
    }

    /// At most so many labelled clicks, chosen by their ids, with what weights are fitted from.
    pub(crate) fn examples(&self, clicks_max: u64) -> String {
        format!(
            "SELECT features, label, score, count() OVER (PARTITION BY user_id) AS actor_clicks FROM {} ORDER BY cityHash64(event_id) LIMIT {clicks_max}",
            self.clicks
        )
    }

    fn per_event(&self) -> String {
        format!(
            "SELECT {TIER}, countIf(label = 1) AS positives, countIf(label = 0) AS negatives FROM {} GROUP BY tier",
            self.clicks
        )
    }

    fn per_actor(&self) -> String {
        format!(
            "SELECT {TIER}, countIf(label = 1) AS positives, countIf(label = 0) AS negatives \
             FROM (SELECT avg(score) AS score, max(label) AS label FROM {} GROUP BY user_id) GROUP BY tier",
            self.clicks
        )
    }

    fn kinds(&self) -> String {
        // An alert of the user's own time before the attack is none of the attack.
        format!(
            "SELECT positive, kind AS attack, count() AS actors, countIf(is_alerted) AS alerted, \
             if(alerted = 0, NULL, quantileExactIf(0.5)(dateDiff('millisecond', first, opened) / 1000., is_alerted)) AS median_seconds, \
             sum(clicks) AS events, sum(over) AS convicted FROM \
             (SELECT *, actor != '' AND (positive = 0 OR opened >= first) AS is_alerted FROM \
             (SELECT user_id, any(user_label) AS positive, argMax(attack, (label, attack)) AS kind, minIf(received_at, label = 1) AS first, \
             countIf(label = user_label) AS clicks, countIf(label = user_label AND score >= {ALERT_SCORE}) AS over \
             FROM (SELECT *, max(label) OVER (PARTITION BY user_id) AS user_label FROM {}) GROUP BY user_id) AS users \
             LEFT JOIN {} AS alerts ON users.user_id = alerts.actor) GROUP BY positive, kind",
            self.clicks, self.alerts
        )
    }
}

/// The report, from the counts.
fn summary(per_event: Ranking, per_actor: Ranking, kinds: &[Kind]) -> FraudQuality {
    let share = |part: u64, rest: u64| match part + rest {
        0 => 0.0,
        all => part as f64 / all as f64,
    };
    let innocent = |name: &str, kinds: &mut dyn Iterator<Item = &Kind>| {
        let mut quality = InnocentQuality {
            kind: name.to_owned(),
            ..InnocentQuality::default()
        };
        for kind in kinds {
            quality.actors += kind.actors;
            quality.alerted += kind.alerted;
            quality.events += kind.events;
            quality.convicted += kind.convicted;
        }
        quality.false_alarms_per_10_000 =
            1e4 * share(quality.alerted, quality.actors - quality.alerted);
        quality
    };
    let genuine = || kinds.iter().filter(|kind| kind.positive == 0);
    let innocents = innocent("", &mut genuine());
    let mut lookalikes: Vec<InnocentQuality> = genuine()
        .filter(|kind| !kind.attack.is_empty())
        .map(|kind| innocent(&kind.attack, &mut std::iter::once(kind)))
        .collect();
    lookalikes.sort_by(|a, b| {
        b.false_alarms_per_10_000
            .total_cmp(&a.false_alarms_per_10_000)
    });
    let attack = |kind: &Kind| AttackQuality {
        attack: kind.attack.clone(),
        actors: kind.actors,
        alerted: kind.alerted,
        recall: share(kind.alerted, kind.actors - kind.alerted),
        precision: share(kind.alerted, innocents.alerted),
        median_seconds_to_detection: kind.median_seconds,
        events: kind.events,
        event_recall: share(kind.convicted, kind.events - kind.convicted),
        event_precision: share(kind.convicted, innocents.convicted),
    };
    let mut attacks: Vec<AttackQuality> = kinds
        .iter()
        .filter(|kind| kind.positive == 1)
        .map(attack)
        .collect();
    attacks.sort_by(|a, b| {
        let by_recall = a.recall.total_cmp(&b.recall);
        by_recall.then(a.event_recall.total_cmp(&b.event_recall))
    });
    FraudQuality {
        per_event,
        per_actor,
        alert_score: ALERT_SCORE,
        worst_attack: attacks.first().map(|attack| attack.attack.clone()),
        attacks,
        innocents,
        lookalikes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(positive: u8, attack: &str, actors: u64, alerted: u64) -> Kind {
        Kind {
            positive,
            attack: attack.to_owned(),
            actors,
            alerted,
            events: actors * 10,
            convicted: alerted * 10,
            ..Kind::default()
        }
    }

    #[test]
    fn the_attack_that_is_caught_worst_is_named_and_false_alarms_count_against_each() {
        let kinds = [
            kind(0, "", 9_900, 2),
            kind(0, "kiosk", 100, 8),
            kind(1, "click-farm", 20, 20),
            kind(1, "slow-crawler", 10, 1),
        ];
        let quality = summary(Ranking::default(), Ranking::default(), &kinds);
        assert_eq!(quality.worst_attack.as_deref(), Some("slow-crawler"));
        assert_eq!(quality.innocents.false_alarms_per_10_000, 10.0);
        assert_eq!(quality.lookalikes[0].false_alarms_per_10_000, 800.0);
        assert_eq!(quality.attacks[1].recall, 1.0);
        assert_eq!(quality.attacks[1].precision, 20.0 / 30.0);
    }

    #[test]
    fn nothing_known_is_no_division_by_nought() {
        let quality = summary(Ranking::default(), Ranking::default(), &[]);
        assert_eq!(quality.innocents.false_alarms_per_10_000, 0.0);
        assert_eq!(quality.worst_attack, None);
    }
}
