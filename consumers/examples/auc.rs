//! How well the fraud scores tell labelled clicks apart: feeds an NDJSON file (plain or gzip) through the group `fraud`, as many instances of its first stage as
//! partitions, and prints the area under the ROC curve and the average precision against a label field, which the group never sees; per click and per actor.
//!
//! A line holds a click's own fields (`received_at` in milliseconds, or `ts` in RFC 3339; without `user_id` the `ip` stands for the user) and the label, -1 or
//! null where the truth is not known.
//!
//! ```text
//! cargo run --release -p activity-consumers --example auc -- FILE LABEL_FIELD [PARTITIONS [OTHER_FILE…]]
//! ```
//!
//! Then it fits weights on the first half of the clicks, and tells how well they do on the second; or on all of them, and tells how well they do on other traffic.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use activity_consumers::groups::fraud::fit::{Example, fit};
use activity_consumers::{Model, NoHeaders, Origin, Settings};
use activity_schemas::{CLICKS, ClickEvent, Event};
use serde_json::Value;

/// One judged click.
struct Judged {
    score: f64,
    is_positive: bool,
    user_id: String,
    attack: String,
    features: Vec<f32>,
    is_alerted: bool,
}

/// What the group says of clicks, by their event ids, and of which users it raises an alert.
#[derive(Default)]
struct Told {
    clicks: HashMap<String, Said>,
    alerted: HashSet<String>,
}

/// What the group says of a click.
struct Said {
    score: f64,
    features: Vec<f32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(label)) = (arguments.next(), arguments.next()) else {
        return Err("usage: auc FILE LABEL_FIELD [PARTITIONS [OTHER_FILE…]]".into());
    };
    let partitions = arguments.next().map_or(Ok(1), |text| text.parse::<i32>())?;
    let lines = support::recorded::lines(&PathBuf::from(file))?;
    let settings = Settings::default();
    let began = Instant::now();
    let said = scores(&lines, partitions, &settings);
    let micros = began.elapsed().as_secs_f64() * 1e6 / lines.len() as f64;
    println!("{} lines, {micros:.1} µs a click, all stages", lines.len());
    let judged = judge(&lines, &label, said);
    report("whole", &judged);
    report("second half", &judged[judged.len() / 2..]);
    per_attack(&judged);

    let others: Vec<String> = arguments.collect();
    let half = judged.len() / 2;
    let labelled = if others.is_empty() {
        &judged[..half]
    } else {
        &judged
    };
    let weights = fit(&examples(labelled), 1.0)?;
    println!("fitted {weights:?}");
    settings.models.replace(vec![Model {
        version: 1,
        effective_at_ms: i64::MIN,
        content: weights.content().into(),
    }]);
    if others.is_empty() {
        let judged = judge(&lines, &label, scores(&lines, partitions, &settings));
        report("fitted half", &judged[half..]);
        per_attack(&judged[half..]);
    }
    for other in others {
        let lines = support::recorded::lines(&PathBuf::from(&other))?;
        let judged = judge(&lines, &label, scores(&lines, partitions, &settings));
        report(&other, &judged);
        per_attack(&judged);
    }
    Ok(())
}

/// The clicks whose truth is known.
fn judge(lines: &[Value], label: &str, mut told: Told) -> Vec<Judged> {
    let mut judged = Vec::new();
    for line in lines {
        let said = told.clicks.remove(&support::recorded::event_id(line));
        let known = line[label].as_i64().filter(|label| *label >= 0);
        if let (Some(said), Some(label)) = (said, known) {
            judged.push(Judged {
                score: said.score,
                is_positive: label == 1,
                is_alerted: told.alerted.contains(&user_id(line)),
                user_id: user_id(line),
                attack: support::recorded::text(line, "attack").unwrap_or_default(),
                features: said.features,
            });
        }
    }
    judged
}

fn examples(judged: &[Judged]) -> Vec<Example> {
    let mut clicks: HashMap<&str, u64> = HashMap::new();
    for click in judged {
        *clicks.entry(&click.user_id).or_default() += 1;
    }
    judged
        .iter()
        .map(|click| Example {
            features: click.features.clone(),
            is_attack: click.is_positive,
            actor_clicks: clicks[click.user_id.as_str()],
        })
        .collect()
}

fn user_id(line: &Value) -> String {
    let text = |field| support::recorded::text(line, field);
    text("user_id").or(text("ip")).unwrap_or_default()
}

/// What the group says of every click.
fn scores(lines: &[Value], partitions: i32, settings: &Settings) -> Told {
    let mut bench = support::Bench::new(support::group("fraud"), settings.clone());
    let mut told = Told::default();
    for (index, line) in lines.iter().enumerate() {
        let text = |field| support::recorded::text(line, field);
        let user_id = user_id(line);
        let fields = ["session_id", "device_id", "ip", "country", "user_agent"].map(text);
        let [session_id, device_id, ip, country, user_agent] = &fields;
        let fields = ["page", "element", "item_id", "referrer", "campaign"].map(text);
        let [page, element, item_id, referrer, campaign] = &fields;
        let at_ms = line["received_at"]
            .as_i64()
            .unwrap_or_else(|| support::recorded::time_ms(line));
        let click = ClickEvent {
            event_id: &support::recorded::event_id(line),
            occurred_at: at_ms,
            received_at: at_ms,
            user_id: &user_id,
            session_id: session_id.as_deref(),
            device_id: device_id.as_deref(),
            ip: ip.as_deref(),
            country: country.as_deref(),
            user_agent: user_agent.as_deref(),
            page: page.as_deref(),
            element: element.as_deref(),
            item_id: item_id.as_deref(),
            referrer: referrer.as_deref(),
            campaign: campaign.as_deref(),
        };
        let spread = user_id.bytes().fold(7_i32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(i32::from(byte))
        });
        let partition = spread.rem_euclid(partitions);
        bench.feed(CLICKS, partition, Event::Click(click), &NoHeaders, at_ms);
        if index % 1000 == 999 || index + 1 == lines.len() {
            take(&mut bench, &mut told);
        }
    }
    told
}

fn take(bench: &mut support::Bench, told: &mut Told) {
    let origin = Origin {
        topic: "",
        partition: 0,
        epoch: 1,
    };
    let text = |row: &Vec<(String, Value)>, name: &str| {
        let field = support::native::field(row, name);
        field.as_str().unwrap_or_default().to_owned()
    };
    for (_, _, rows) in bench.end_batch() {
        let table = rows.table().name;
        for row in support::native::rows(&rows.native_block(&origin)) {
            if table == "fraud_alerts" && text(&row, "kind") == "user" {
                told.alerted.insert(text(&row, "actor"));
            }
            if table != "fraud_scores" {
                continue;
            }
            let features = support::native::field(&row, "features").as_array();
            let features = features.into_iter().flatten().filter_map(Value::as_f64);
            let said = Said {
                score: support::native::field(&row, "score")
                    .as_f64()
                    .unwrap_or(0.0),
                features: features.map(|feature| feature as f32).collect(),
            };
            told.clicks.insert(text(&row, "event_id"), said);
        }
    }
}

fn report(name: &str, judged: &[Judged]) {
    let clicks: Vec<(f64, bool)> = judged
        .iter()
        .map(|click| (click.score, click.is_positive))
        .collect();
    let mut actors: BTreeMap<&str, (f64, f64, bool)> = BTreeMap::new();
    for click in judged {
        let actor = actors.entry(&click.user_id).or_default();
        actor.0 += click.score;
        actor.1 += 1.0;
        actor.2 |= click.is_positive;
    }
    let actors: Vec<(f64, bool)> = actors
        .into_values()
        .map(|(sum, clicks, positive)| (sum / clicks, positive))
        .collect();
    for (of, mut scored) in [("click", clicks), ("actor", actors)] {
        let positives = scored.iter().filter(|(_, positive)| *positive).count();
        println!(
            "{name:>12} per {of}: {:>7} of which {positives:>6} positive, auc {:.4}, average precision {:.4}",
            scored.len(),
            auc(&mut scored),
            average_precision(&scored)
        );
    }
}

/// For each attack, and for what is innocent: the share of clicks with a score of one half and more, the mean score, and of how many users an alert was raised.
fn per_attack(judged: &[Judged]) {
    let mut attacks: BTreeMap<(bool, &str), Vec<&Judged>> = BTreeMap::new();
    for click in judged {
        let attack = attacks.entry((click.is_positive, &click.attack));
        attack.or_default().push(click);
    }
    for ((positive, attack), clicks) in attacks {
        let count = clicks.len() as f64;
        let convicted = clicks.iter().filter(|click| click.score >= 0.5).count() as f64;
        let users = |alerted: bool| {
            let users = clicks.iter().filter(|click| click.is_alerted || !alerted);
            let users: HashSet<&str> = users.map(|click| click.user_id.as_str()).collect();
            users.len()
        };
        println!(
            "{} {attack:>20} {count:>8} clicks, {:>5.1} % score one half and more, mean {:.3}; {} of {} users alerted",
            if positive { '+' } else { '-' },
            100.0 * convicted / count,
            clicks.iter().map(|click| click.score).sum::<f64>() / count,
            users(true),
            users(false),
        );
    }
}

/// The probability that a labelled click scores higher than one that is not; equal scores count half. Leaves them sorted, lowest first.
fn auc(judged: &mut [(f64, bool)]) -> f64 {
    judged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
    for equal in judged.chunk_by(|a, b| a.0 == b.0) {
        let labelled = equal.iter().filter(|(_, label)| *label).count() as f64;
        let others = equal.len() as f64 - labelled;
        won += labelled * (negatives + others / 2.0);
        positives += labelled;
        negatives += others;
    }
    won / (positives * negatives)
}

/// Precision, averaged over the labelled in order of falling score; equal scores are taken together. Expects them sorted, lowest first.
fn average_precision(judged: &[(f64, bool)]) -> f64 {
    let (mut taken, mut labelled, mut sum) = (0.0, 0.0, 0.0);
    let groups: Vec<_> = judged.chunk_by(|a, b| a.0 == b.0).collect();
    for equal in groups.into_iter().rev() {
        let here = equal.iter().filter(|(_, label)| *label).count() as f64;
        taken += equal.len() as f64;
        labelled += here;
        sum += here * labelled / taken;
    }
    sum / labelled
}
