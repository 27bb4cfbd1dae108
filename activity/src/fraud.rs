//! `activity fraud` and `activity quality fraud`: the verbs, and their reports for people.

use activity_operator::fraud::{Fit, Fitted};
use activity_operator::quality::fraud::{FraudQuality, InnocentQuality, Ranking};
use activity_operator::verify::Scope;
use activity_platform::settings::Targets;
use clap::{Args, Subcommand};

use crate::Verdict;
use crate::cli::OutputArgs;
use crate::print::{self, count};
use crate::verify::Moment;

/// `activity fraud …`
#[derive(Debug, Subcommand)]
pub enum FraudVerb {
    /// Fit the weights of the signs of a script from clicks whose truth is known, and score by them from half a minute later on.
    ///
    /// What is known stands in the table truth. The weights are a logistic regression over the features of fraud_scores; each fit is a new version in the table
    /// models, and each score names the version that it is from. Until the first fit, clicks are scored without labels.
    Fit(FitArgs),
}

/// `activity fraud fit`
#[derive(Args, Debug)]
pub struct FitArgs {
    /// What to fit from.
    #[command(flatten)]
    pub within: WithinArgs,
    /// At most so many clicks, chosen by their ids.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub clicks_max: u64,
    /// The weights hold for everything in the log, for a rewind of the group; else for clicks that are appended in half a minute and later.
    #[arg(long, value_name = "PLACE", value_parser = ["beginning"])]
    pub from: Option<String>,
    /// Only show the weights.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the weights.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `activity quality fraud`
#[derive(Args, Debug)]
pub struct FraudQualityArgs {
    /// What to measure.
    #[command(flatten)]
    pub within: WithinArgs,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which clicks.
#[derive(Args, Debug)]
pub struct WithinArgs {
    /// Only clicks that were appended to Kafka from then on: 2026-01-31T12:00:00Z, or 15m for a quarter of an hour ago.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only clicks that were appended to Kafka before then, in the same forms.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
}

impl WithinArgs {
    fn scope(&self) -> anyhow::Result<Scope> {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let scope = Scope {
            since_ms: self.since.map(|since| since.at_ms(now_ms)),
            until_ms: self.until.map(|until| until.at_ms(now_ms)),
        };
        if let (Some(since_ms), Some(until_ms)) = (scope.since_ms, scope.until_ms) {
            anyhow::ensure!(
                since_ms < until_ms,
                "--since is not before --until: nothing lies between them"
            );
        }
        Ok(scope)
    }
}

/// `activity fraud …`
pub async fn run(verb: &FraudVerb, targets: &Targets) -> anyhow::Result<Verdict> {
    let FraudVerb::Fit(args) = verb;
    let fit = Fit {
        scope: args.within.scope()?,
        clicks_max: args.clicks_max,
        from_beginning: args.from.is_some(),
        dry_run: args.dry_run,
    };
    let fitted = activity_operator::fraud::run(targets, &fit).await?;
    print::result(args.output.output, &fitted, || weights(&fitted))?;
    Ok(Verdict::Done)
}

fn weights(fitted: &Fitted) -> String {
    let rows = fitted.weights.iter().map(|weight| {
        vec![
            weight.sign.clone(),
            format!("{:+.2}", weight.weight),
            weight.about.clone(),
        ]
    });
    let stored = match (fitted.version, &fitted.effective_at) {
        (Some(version), Some(at)) => {
            format!("version {version} holds for clicks appended at {at} and later")
        }
        _ => "nothing was stored".to_owned(),
    };
    format!(
        "{}\nbias {:+.2}, from {} clicks, {} of them of attacks; {stored}",
        print::table(&["sign", "weight", "what it measures"], 2, rows),
        fitted.bias,
        count(fitted.clicks),
        count(fitted.attacks),
    )
}

/// `activity quality fraud`
pub async fn quality(args: &FraudQualityArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let quality = activity_operator::quality::fraud::fraud(targets, args.within.scope()?).await?;
    print::result(args.output.output, &quality, || report(&quality))?;
    Ok(Verdict::Done)
}

fn report(quality: &FraudQuality) -> String {
    let figure =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.4}"));
    let ranking = |of: &str, ranking: &Ranking| {
        vec![
            of.to_owned(),
            count(ranking.events),
            count(ranking.positives),
            figure(ranking.auc),
            figure(ranking.average_precision),
        ]
    };
    let rankings = print::table(
        &["per", "known", "positive", "auc", "average precision"],
        1,
        [
            ranking("click", &quality.per_event),
            ranking("user", &quality.per_actor),
        ],
    );
    let attacks = quality.attacks.iter().map(|attack| {
        let seconds = attack.median_seconds_to_detection;
        vec![
            attack.attack.clone(),
            count(attack.actors),
            format!("{:.3}", attack.recall),
            format!("{:.3}", attack.precision),
            seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
            count(attack.events),
            format!("{:.3}", attack.event_recall),
            format!("{:.3}", attack.event_precision),
        ]
    });
    let header = [
        "attack, worst first",
        "users",
        "alerted",
        "precision",
        "median seconds",
        "clicks",
        "convicted",
        "precision",
    ];
    let attacks = print::table(&header, 1, attacks);
    let innocent = |innocent: &InnocentQuality, kind: &str| {
        vec![
            kind.to_owned(),
            count(innocent.actors),
            count(innocent.alerted),
            format!("{:.1}", innocent.false_alarms_per_10_000),
        ]
    };
    let kinds = std::iter::once(innocent(&quality.innocents, "all")).chain(
        quality
            .lookalikes
            .iter()
            .map(|kind| innocent(kind, &kind.kind)),
    );
    let header = ["innocents", "users", "alerted", "per 10,000"];
    let innocents = print::table(&header, 1, kinds);
    format!("{rankings}\n\n{attacks}\n\n{innocents}")
}
