//! The tables, for eyes and for docs/.

use std::fmt::Write as _;

use activity_operator::quality::fraud::FraudQuality;

use crate::asked::Asked;
use crate::course::{Attacks, Course, Measured, Spread};

/// One run, when it ends.
pub fn line(name: &str, run: &Measured) -> String {
    format!(
        "{name:<22} {:>6.1} s  {} kills  wrong {}  recall@20 {:.4} (popularity {:.4}, {} playbacks)  fraud AUC {:.4}  {:?}",
        run.seconds,
        run.kills,
        run.wrong,
        run.lists.recall_at_20,
        run.lists.popularity_recall_at_20,
        run.lists.events,
        run.fraud_auc(),
        run.tables,
    )
}

/// The file.
pub fn document(text: &str) -> String {
    format!(
        "# What the departments' outputs are worth\n\n\
         Written by `cargo test --release -p activity --test judge -- --full --write docs/quality.md`, on real Kafka, registry and ClickHouse, with simulated traffic;\n\
         look-ups alone by `-- --look-ups`.\n\
         {text}"
    )
}

/// The same events, divided differently.
pub fn spreads(course: &Course, runs: &[(Spread, Measured)]) -> String {
    let mut text = format!(
        "\n## However the stream is divided\n\n\
         {} events at {} a second, one seed, through all groups. Rows of clicks and watches are compared by a hash of all that does not name the message.\n\n\
         | partitions | processes | clicks | watches | the same rows | recall@20 | popularity | fraud AUC per click | per user |\n|--:|--:|--:|--:|---|--:|--:|--:|--:|\n",
        course.events, course.rate
    );
    rows(&mut text, runs, |spread, _| {
        format!("{} | {}", spread.partitions, spread.instances)
    });
    text
}

/// The same events, undisturbed and disturbed.
pub fn disturbed(course: &Course, runs: &[(Spread, Measured)]) -> String {
    let mut text = format!(
        "\n## Whatever is killed\n\n\
         {} events at {} a second on four partitions, through two processes with all groups. In the second run one of the two is killed (SIGKILL) {} times in turn, and another started: all of its partitions move, with their state.\n\n\
         | kills | missing, duplicate, unexpected | clicks | watches | the same rows | recall@20 | popularity | fraud AUC per click | per user |\n|--:|--:|--:|--:|---|--:|--:|--:|--:|\n",
        course.events, course.rate, course.kills
    );
    rows(&mut text, runs, |_, run| {
        format!("{} | {}", run.kills, run.wrong)
    });
    text
}

fn rows(
    text: &mut String,
    runs: &[(Spread, Measured)],
    begin: impl Fn(&Spread, &Measured) -> String,
) {
    for (spread, run) in runs {
        let same = run.tables == runs[0].1.tables;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.4} | {:.4} | {:.4} | {:.4} |",
            begin(spread, run),
            run.tables[0].rows,
            run.tables[1].rows,
            if same { "yes" } else { "no" },
            run.lists.recall_at_20,
            run.lists.popularity_recall_at_20,
            run.fraud_auc(),
            run.fraud.per_actor.auc.unwrap_or(f64::NAN),
        );
    }
}

/// Attacks, without labels and with.
pub fn attacks(attacks: &Attacks) -> String {
    let mut text = "\n## Attacks\n\nThe scenario bot-attack. An actor is a user; one is caught when an alert on it is opened.\n".to_owned();
    let fitted = format!(
        "Fitted from {} clicks of that, on other traffic",
        attacks.fitted_from
    );
    for (title, quality) in [
        ("Without labels", &attacks.label_free),
        (&*fitted, &attacks.fitted),
    ] {
        text += &one(title, quality);
    }
    text
}

fn one(title: &str, quality: &FraudQuality) -> String {
    let figure =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.3}"));
    let mut text = format!(
        "\n### {title}\n\nPer click: AUC {}, average precision {}, {} clicks, {} of attacks. Per user: AUC {}, average precision {}.\n\n\
         | attack | users | recall | precision | median seconds to detection | clicks |\n|---|--:|--:|--:|--:|--:|\n",
        figure(quality.per_event.auc),
        figure(quality.per_event.average_precision),
        quality.per_event.events,
        quality.per_event.positives,
        figure(quality.per_actor.auc),
        figure(quality.per_actor.average_precision),
    );
    for attack in &quality.attacks {
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {:.3} | {} | {} |",
            attack.attack,
            attack.actors,
            attack.recall,
            attack.precision,
            attack
                .median_seconds_to_detection
                .map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
            attack.events,
        );
    }
    text += "\n| innocents | users | alerted | per 10,000 |\n|---|--:|--:|--:|\n";
    let all = std::iter::once(&quality.innocents).chain(&quality.lookalikes);
    for innocent in all {
        let kind = if innocent.kind.is_empty() {
            "all"
        } else {
            &innocent.kind
        };
        let _ = writeln!(
            text,
            "| {kind} | {} | {} | {:.1} |",
            innocent.actors, innocent.alerted, innocent.false_alarms_per_10_000
        );
    }
    text
}

/// How long look-ups take.
pub fn asked(asked: &[Asked]) -> String {
    let count = asked.first().map_or(0, Asked::count);
    let mut text = format!(
        "\n## Look-ups\n\n\
         `GET /recommendations/{{user}}`, {count} times one after the other over one connection, client and JSON included, while all groups take events. Traffic, client,\n\
         Kafka, ClickHouse and groups share one machine: what the higher rate adds is waiting for a core.\n\n\
         | events per second | p50 ms | p99 ms | p99.9 ms | answered with the user's own list |\n|--:|--:|--:|--:|--:|\n"
    );
    for asked in asked {
        let ms = |share| asked.quantile(share).as_secs_f64() * 1e3;
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {} |",
            asked.rate,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            asked.own
        );
    }
    text
}
