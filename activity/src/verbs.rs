//! The verbs that ask, call and print.

use std::io::IsTerminal;
use std::time::Duration;

use activity_operator::lag::{self, PartitionLag};
use activity_operator::quality::recommendation::{Cohort, Quality, Scores};
use activity_operator::{quality, setup};
use activity_platform::settings::Targets;
use activity_producer::{Progress, Published, measure_oracle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::{LagArgs, Output, OutputArgs, QualityArgs, ReplayVerb, SetupArgs, SimulateVerb};
use crate::consume::groups;
use crate::print::{self, count};

/// `activity produce simulate`
pub async fn simulate(
    args: &SimulateVerb,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    if args.simulate.oracle {
        return oracle(args).await;
    }
    let bar = ProduceBar::new(args.simulate.events);
    let published = activity_producer::simulate(
        &args.simulate,
        &targets.kafka,
        &targets.registry,
        stop,
        bar.update(),
    )
    .await;
    bar.finish();
    published_result(args.output, &published?)
}

/// `activity produce simulate --oracle`
async fn oracle(args: &SimulateVerb) -> anyhow::Result<Verdict> {
    let simulate = args.simulate.clone();
    let best = tokio::task::spawn_blocking(move || measure_oracle(&simulate)).await?;
    print::result(args.output.output, &best, || {
        let share = |share: f64| format!("{share:.4}");
        let header = [
            "seed",
            "events",
            "completed playbacks",
            "reachable recall@20",
            "popularity recall@20",
        ];
        let row = [
            best.seed.to_string(),
            count(best.events),
            count(best.completed_playbacks),
            share(best.recall_at_20),
            share(best.popularity_recall_at_20),
        ];
        print::table(&header, 0, [row.to_vec()])
    })?;
    Ok(Verdict::Done)
}

/// `activity produce replay`
pub async fn replay(
    args: &ReplayVerb,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    let bar = ProduceBar::new(args.replay.events);
    let published = activity_producer::replay(
        &args.replay,
        &targets.kafka,
        &targets.registry,
        stop,
        bar.update(),
    )
    .await;
    bar.finish();
    published_result(args.output, &published?)
}

fn published_result(output: OutputArgs, published: &Published) -> anyhow::Result<Verdict> {
    print::result(output.output, published, || {
        let counts = &published.counts;
        let rate = counts.acknowledged as f64 / counts.seconds.max(0.001);
        let header = [
            "sent",
            "acknowledged",
            "failed",
            "malformed",
            "unmappable",
            "seconds",
            "events/s",
        ];
        let mut row: Vec<String> = [
            counts.sent,
            counts.acknowledged,
            counts.failed,
            counts.malformed,
            counts.unmappable,
        ]
        .map(count)
        .into();
        row.extend([format!("{:.1}", counts.seconds), count(rate as u64)]);
        print::table(&header, 0, [row])
    })?;
    Ok(if published.complete {
        Verdict::Done
    } else {
        Verdict::Failed
    })
}

/// What a person sees while events go out; nothing where nobody looks.
struct ProduceBar(indicatif::ProgressBar);

impl ProduceBar {
    fn new(events: Option<u64>) -> Self {
        let style = if events.is_some() {
            "{wide_bar} {human_pos} of {human_len} events, {per_sec} {msg}"
        } else {
            "{spinner} {human_pos} events, {per_sec} {msg}"
        };
        Self(print::bar(style, events))
    }

    fn update(&self) -> impl FnMut(&Progress) + Send + 'static {
        let bar = self.0.clone();
        move |progress| {
            bar.set_position(progress.acknowledged);
            let wait = progress.next_event_in_s.filter(|seconds| *seconds > 1.0);
            bar.set_message(wait.map_or(String::new(), |seconds| {
                format!(
                    "next event in {}",
                    humantime::format_duration(Duration::from_secs(seconds as u64))
                )
            }));
        }
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// `activity setup`
pub async fn setup(args: &SetupArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let report = if args.dry_run {
        setup::plan(targets, args.partitions)?
    } else {
        setup::run(targets, args.partitions).await?
    };
    print::result(args.output.output, &report, || {
        if args.dry_run {
            return format!(
                "topics\n  {}\nmigrations\n  {}",
                report.topics.join("\n  "),
                report.migrations.join("\n  ")
            );
        }
        let schemas: Vec<String> = report
            .schemas
            .iter()
            .map(|(topic, id)| format!("{topic} has schema id {id}"))
            .collect();
        format!(
            "{} of {} topics created\n{}\n{} of {} migrations applied",
            report.topics_created.len(),
            report.topics.len(),
            schemas.join("\n"),
            report.migrations_applied.len(),
            report.migrations.len()
        )
    })?;
    Ok(Verdict::Done)
}

/// `activity lag`
pub async fn lag(
    args: &LagArgs,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    if args.watch {
        return watch_lag(args, targets, stop).await;
    }
    let lags = lag::gather(&targets.kafka, &groups(&args.groups)).await?;
    print::result(args.output.output, &lags, || lag_table(&lags))?;
    Ok(Verdict::Done)
}

/// `activity lag --watch`: until Ctrl-C, or until nobody reads it any more.
async fn watch_lag(
    args: &LagArgs,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    let (kafka, groups) = (targets.kafka.clone(), groups(&args.groups));
    let mut watcher =
        tokio::task::spawn_blocking(move || lag::Watcher::new(&kafka, &groups)).await??;
    if args.output.output == Output::Table && std::io::stdout().is_terminal() {
        // What was on the screen is not to show between the lines.
        print::line("\x1b[2J")?;
    }
    loop {
        let look = move || {
            let lags = watcher.gather();
            (watcher, lags)
        };
        let (back, lags) = tokio::task::spawn_blocking(look).await?;
        watcher = back;
        let is_read = match (args.output.output, lags) {
            (Output::Table, Ok(lags)) => print::repainted(&lag_table(&lags))?,
            (Output::Json, Ok(lags)) => print::line(&serde_json::to_string(&lags)?)?,
            // Kafka may be back at the next look.
            (Output::Table, Err(error)) => print::repainted(&error.to_string())?,
            (Output::Json, Err(error)) => {
                eprintln!("{error}");
                true
            }
        };
        if !is_read {
            return Ok(Verdict::Done);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Verdict::Done),
            () = tokio::time::sleep(Duration::from_secs(1)) => (),
        }
    }
}

fn lag_table(lags: &[PartitionLag]) -> String {
    let offset = |offset: Option<i64>| offset.map_or("-".to_owned(), count);
    let rows = lags.iter().map(|lag| {
        vec![
            lag.group.clone(),
            lag.topic.clone(),
            lag.partition.to_string(),
            offset(lag.committed),
            count(lag.end),
            count(lag.lag),
        ]
    });
    print::table(
        &["group", "topic", "partition", "committed", "end", "lag"],
        2,
        rows,
    )
}

/// `activity quality recommendation`
pub async fn quality_recommendation(
    args: &QualityArgs,
    targets: &Targets,
) -> anyhow::Result<Verdict> {
    let scope = quality::recommendation::Scope {
        since: args.since,
        until: args.until,
        skip_share: args.skip_share,
    };
    let quality = quality::recommendation::measure(targets, &scope).await?;
    print::result(args.output.output, &quality, || {
        recommendation_tables(&quality)
    })?;
    Ok(Verdict::Done)
}

fn recommendation_tables(quality: &Quality) -> String {
    let row = |name: String, scores: &Scores| {
        let shares = [
            scores.recall_at_20,
            scores.popularity_recall_at_20,
            scores.mrr,
            scores.popularity_mrr,
        ];
        let shares = shares.map(|share| format!("{share:.4}"));
        [name, count(scores.events)]
            .into_iter()
            .chain(shares)
            .collect()
    };
    let of = |what: &str, cohorts: &[Cohort]| -> Vec<Vec<String>> {
        let named = |cohort: &Cohort| row(format!("{what} {}", cohort.cohort), &cohort.scores);
        cohorts.iter().map(named).collect()
    };
    let mut rows: Vec<Vec<String>> = vec![row("all".to_owned(), &quality.all)];
    rows.extend(of("users with completions:", &quality.users));
    rows.extend(of("titles:", &quality.titles));
    let header = [
        "completed playbacks",
        "events",
        "recall@20",
        "by popularity",
        "mrr",
        "by popularity",
    ];
    let variety = &quality.variety;
    format!(
        "{}\nof {} titles, lists showed {:.1} % and hits were of {:.1} % (by popularity {:.1} %)\nnovelty of what lists showed {:.1} bits, of hits {:.1} (by popularity {:.1})",
        print::table(&header, 1, rows),
        count(variety.catalogue),
        100.0 * variety.coverage,
        100.0 * variety.hit_coverage,
        100.0 * variety.popularity_hit_coverage,
        variety.novelty,
        variety.hit_novelty,
        variety.popularity_hit_novelty,
    )
}

/// `activity config`
pub fn config(args: OutputArgs, command: &clap::Command) -> anyhow::Result<Verdict> {
    #[derive(Serialize)]
    struct Setting {
        name: String,
        variable: String,
        value: String,
    }
    let settings: Vec<Setting> = crate::settings_file::all(command)
        .into_iter()
        .map(|(name, variable, value)| Setting {
            name,
            variable,
            value,
        })
        .collect();
    print::result(args.output, &settings, || {
        let rows = settings.iter().map(|setting| {
            vec![
                setting.name.clone(),
                setting.variable.clone(),
                setting.value.clone(),
            ]
        });
        print::table(&["setting", "environment", "value"], 3, rows)
    })?;
    Ok(Verdict::Done)
}
