//! `activity rewind`: shows what it will do, asks, does it, and says how far it is.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activity_consumers::Group;
use activity_operator::rewind::{Options, Plan, Progress, RewindError, Rewinder, Rewound, To};
use activity_platform::metrics::Metrics;
use activity_platform::settings::Targets;
use activity_platform::stop::on_signal;
use activity_runtime::standing::Phase;
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::{Output, RewindArgs};
use crate::consume::groups;
use crate::print::{self, count};

/// Where nobody watches a bar, a line is written this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// `activity rewind`
pub async fn run(args: RewindArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let group = *groups(std::slice::from_ref(&args.group))
        .first()
        .context("no such group")?;
    let seen = Seen::new();
    let tell = |progress| seen.tell(progress);
    let metrics = Arc::new(Metrics::new()?);
    let stop = CancellationToken::new();
    let runtime = args.runtime.clone();
    let rewinder = Rewinder::new(targets, group, runtime, metrics, &tell, stop.clone())?;
    let plan = match &args.to {
        Some(to) => match planned_and_agreed(&args, to, &rewinder).await? {
            Some(plan) => Some(plan),
            None => return Ok(Verdict::Done),
        },
        None => None,
    };
    // Only now: a question that is not answered ends with the process.
    on_signal(&stop).context("signals cannot be handled")?;
    let rewound = match &args.to {
        Some(to) => begin(&args, to, &rewinder, &seen).await,
        None if args.abort => rewinder.abort().await,
        None => rewinder.resume(args.stop_group).await,
    };
    seen.clear();
    let rewound = match rewound {
        Ok(rewound) => rewound,
        Err(error) => return Err(explained(&rewinder, group, error).await),
    };
    print::result(
        args.output.output,
        &Done {
            plan,
            rewound: &rewound,
        },
        || said(&rewound),
    )?;
    Ok(Verdict::Done)
}

#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    rewound: &'a Rewound,
}

/// Plans and asks; None: it was only to be planned, or somebody said no.
async fn planned_and_agreed(
    args: &RewindArgs,
    to: &To,
    rewinder: &Rewinder<'_>,
) -> anyhow::Result<Option<Plan>> {
    let plan = rewinder.plan(to).await?;
    if args.dry_run {
        print::result(args.output.output, &plan, || planned(&plan))?;
        return Ok(None);
    }
    if args.output.output == Output::Table {
        eprintln!("{}", planned(&plan));
    }
    Ok((args.yes || asked()?).then_some(plan))
}

async fn begin(
    args: &RewindArgs,
    to: &To,
    rewinder: &Rewinder<'_>,
    seen: &Seen,
) -> Result<Rewound, RewindError> {
    seen.step("beginning");
    let options = Options {
        to: to.clone(),
        stop_group: args.stop_group,
        keep_old: args.keep_old,
    };
    rewinder.begin(&options).await
}

fn asked() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: pass --yes to do it, or --dry-run to see it only");
    }
    eprint!("Do it? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What is left behind, and what to do with it.
async fn explained(rewinder: &Rewinder<'_>, group: &Group, error: RewindError) -> anyhow::Error {
    let name = group.name;
    let says_it = matches!(
        error,
        RewindError::Unfinished { .. }
            | RewindError::TooLate { .. }
            | RewindError::OtherTables { .. }
            | RewindError::Busy { .. }
    );
    let error = anyhow::Error::from(error);
    if says_it {
        return error;
    }
    match rewinder.ways_on().await {
        Some(ways_on) => error.context(format!(
            "the rewind of {name} is not finished, and the group waits: {ways_on}"
        )),
        None => error,
    }
}

fn said(rewound: &Rewound) -> String {
    let Rewound {
        group, to, epoch, ..
    } = rewound;
    if rewound.phase == Phase::Done {
        format!(
            "{group} was rewound to {to} and is in epoch {epoch} now; `activity verify {group}` proves it"
        )
    } else {
        format!("the rewind was given up: {group} is in epoch {epoch}, as before")
    }
}

fn planned(plan: &Plan) -> String {
    let partitions = plan.partitions.iter().map(|partition| {
        vec![
            partition.topic.clone(),
            partition.partition.to_string(),
            count(partition.log_first),
            count(partition.point),
            count(partition.log_end),
            count(partition.reread),
            count(partition.gone),
        ]
    });
    let partitions = print::table(
        &[
            "topic",
            "partition",
            "log begins",
            "read from",
            "log ends",
            "read again",
            "not in the log any more",
        ],
        1,
        partitions,
    );
    let tables = plan.tables.iter().map(|table| {
        vec![
            table.table.clone(),
            count(table.kept),
            count(table.replaced),
        ]
    });
    let tables = print::table(&["table", "rows kept", "rows replaced"], 1, tables);
    let mut text = format!(
        "{} back to {}: epoch {} becomes {}\n\n{partitions}\n\n{tables}\n",
        plan.group, plan.to, plan.from_epoch, plan.epoch
    );
    if plan.replayed > 0 {
        text += &format!(
            "\n{} messages before that are read too, to rebuild state; their rows stay.",
            count(plan.replayed)
        );
    }
    if plan.gone() > 0 {
        text += &format!(
            "\n{} messages are not in the log any more: their rows stay.",
            count(plan.gone())
        );
    }
    if !plan.running.is_empty() {
        text += &format!(
            "\nThe group runs in {} process(es): stop them, or pass --stop-group.",
            plan.running.len()
        );
    }
    text
}

/// What a person sees: a bar on a terminal, a line now and then elsewhere.
struct Seen {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
}

struct Lines {
    step: String,
    next: Instant,
}

impl Seen {
    fn new() -> Self {
        let is_terminal = print::is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let lines = Lines {
            step: String::new(),
            next: Instant::now(),
        };
        Self {
            bar,
            lines: (!is_terminal).then(|| Mutex::new(lines)),
        }
    }

    fn tell(&self, progress: Progress) {
        match progress {
            Progress::Step(what) => self.step(&what),
            Progress::Reading {
                read,
                of,
                waits_for,
            } => self.reading(read, of, waits_for.unwrap_or_default()),
        }
    }

    fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.step != what {
                eprintln!("{what}");
                lines.step = what.to_owned();
            }
        }
    }

    fn reading(&self, read: u64, of: u64, waits_for: String) {
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.next <= Instant::now() {
                lines.next = Instant::now() + LINE_INTERVAL;
                eprintln!("{} of {} messages {waits_for}", count(read), count(of));
            }
            return;
        }
        if self.bar.length().is_none() {
            let template = "{wide_bar} {human_pos} of {human_len} messages, {per_sec} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
        }
        self.bar.set_length(of);
        self.bar.set_position(read);
        self.bar.set_message(waits_for);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
