//! The command line, as clap derives it: flags, environment variables and help in one place.

use std::path::PathBuf;

use activity_operator::rewind::To;
use activity_platform::settings::{MetricsSettings, Targets};
use activity_producer::args::scenario_help;
use activity_producer::traffic::scenario::Scenario;
use activity_producer::{ReplayArgs, SimulateArgs};
use activity_runtime::RuntimeSettings;
use activity_viewer::ViewerSettings;
use clap::builder::TypedValueParser as _;
use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::dead_letters::DeadLettersVerb;
use crate::examples;
use crate::forget::ForgetArgs;
use crate::fraud::{FraudQualityArgs, FraudVerb};
use crate::new_group::{self, NewGroupArgs};
use crate::query::QueryArgs;
use crate::shell::{self, CompletionsArgs, ManArgs};
use crate::status::StatusArgs;
use crate::tail::{self, TailArgs};
use crate::verify::VerifyArgs;

/// User activity, streamed: services publish each click and watch event to Kafka once; each department reads it in a consumer group of its own,
/// into ClickHouse, exactly once in effect.
///
/// Every flag can also be set by the environment variable that its help names, or in a TOML file (--config), whose keys are the flags' names.
/// A flag wins over the environment, the environment over the file.
#[derive(Debug, Parser)]
#[command(
    name = "activity",
    version,
    max_term_width = 120,
    after_help = examples::ACTIVITY,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Everything outside.
    #[command(flatten)]
    pub targets: Targets,
    /// Folder of the services' data; verbs without addresses find the `activity up` that runs on it.
    #[arg(
        long,
        env = "ACTIVITY_DATA_DIR",
        value_name = "DIR",
        default_value = ".activity",
        global = true
    )]
    pub data_dir: PathBuf,
    /// Settings file, TOML: `database = "activity"`. Default: activity.toml, if there is one.
    #[arg(long, env = "ACTIVITY_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start everything: real Kafka, registry and ClickHouse, every consumer group, simulated traffic, and a live view of it.
    #[command(after_help = examples::UP)]
    Up(UpArgs),
    /// Publish events.
    #[command(subcommand)]
    Produce(ProduceVerb),
    /// Run consumer groups in this process.
    #[command(after_help = examples::CONSUME)]
    Consume(ConsumeArgs),
    /// Create topics, register schemas, apply migrations. Safe to repeat.
    #[command(after_help = examples::SETUP)]
    Setup(SetupArgs),
    /// Show how everything is, on one screen: services, groups, dead letters, alerts. Exits with 3 where something needs attention, and says what to do.
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Show how far each group is behind.
    #[command(after_help = examples::LAG)]
    Lag(LagArgs),
    /// Show events, alerts or dead letters as they come in, decoded. Nobody notices: it joins no group.
    #[command(after_help = tail::EXAMPLES)]
    Tail(TailArgs),
    /// Compare Kafka with ClickHouse: nothing missing, nothing twice. Exits with 3 where something is.
    ///
    /// Safe at any time, while traffic flows: for each group, topic and partition, what lies below the committed offset is compared.
    ///
    /// The log with the ledger: its ranges follow each other without gap or overlap, and each has as many messages as offsets.
    ///
    /// The ledger with the tables: of each range every row is there, and once; no row is outside of all ranges or of another epoch.
    ///
    /// The ledger with the group's own topics: every rejected message has a dead letter, every derived message is in its internal topic.
    ///
    /// What is missing, duplicate or unexpected is named with its offsets.
    #[command(after_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Look at what groups rejected, and send it through again after a fix.
    #[command(subcommand, name = "deadletters", after_help = examples::DEAD_LETTERS)]
    DeadLetters(DeadLettersVerb),
    /// Let a group read again from an earlier place, after a bug: its tables are built anew beside the live ones, then exchanged with them.
    #[command(after_help = examples::REWIND)]
    Rewind(RewindArgs),
    /// Delete what ClickHouse has of one user: the rows stay, as nobody's, so that every event still has its rows.
    Forget(ForgetArgs),
    /// Measure what a group's outputs are worth.
    #[command(subcommand, after_help = examples::QUALITY)]
    Quality(QualityVerb),
    /// Teach the group fraud what attacks look like.
    #[command(subcommand)]
    Fraud(FraudVerb),
    /// Ask ClickHouse: the query behind a panel, by its name, or SQL of your own. Reads only.
    Query(QueryArgs),
    /// Serve the dashboards as web pages: those that open in Grafana too, drawn without it.
    View(ViewArgs),
    /// Write a consumer group into the source tree, complete: it compiles, passes its tests and runs, before a line of it is changed.
    #[command(after_help = new_group::EXAMPLES)]
    NewGroup(NewGroupArgs),
    /// Show the settings in force.
    Config(OutputArgs),
    /// Print what lets a shell complete these verbs and flags.
    #[command(after_help = shell::EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each verb.
    Man(ManArgs),
}

/// `activity produce …`
#[derive(Debug, Subcommand)]
pub enum ProduceVerb {
    /// Publish simulated clicks and watches.
    #[command(after_help = examples::SIMULATE)]
    Simulate(SimulateVerb),
    /// Publish recorded events.
    #[command(after_help = examples::REPLAY)]
    Replay(ReplayVerb),
}

/// `activity produce simulate`
#[derive(Args, Debug)]
pub struct SimulateVerb {
    /// What to simulate.
    #[command(flatten)]
    pub simulate: SimulateArgs,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `activity produce replay`
#[derive(Args, Debug)]
pub struct ReplayVerb {
    /// What to replay.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `activity quality …`
#[derive(Debug, Subcommand)]
pub enum QualityVerb {
    /// Recommendations: how often the title that a user then watched to the end stood in the user's list, beside plain popularity; for new users and new titles
    /// apart; and how much of the catalogue lists show.
    Recommendation(QualityArgs),
    /// Fraud: how well scores and alerts tell attacks from innocents, where the truth is known.
    Fraud(FraudQualityArgs),
}

/// `activity quality recommendation`
#[derive(Args, Debug)]
pub struct QualityArgs {
    /// Judge what was appended since then, by the brokers' clock: a time (2026-11-22T08:00:00Z), or how long ago (2h).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<jiff::Timestamp>,
    /// Judge what was appended before that.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<jiff::Timestamp>,
    /// Share of the completed playbacks, in the order of the log, that only train and are not scored. Default: .2, or 0 with --since.
    #[arg(long, value_name = "SHARE")]
    pub skip_share: Option<f64>,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The command line, whole. The addresses and users of what is outside, which every verb takes, are left to the long help.
pub fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let is_outside = arg.is_global_set() && arg.get_help_heading().is_some();
        arg.hide_short_help(is_outside)
    })
}

/// How results are printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `activity up`
#[derive(Args, Debug)]
pub struct UpArgs {
    /// End when so many events are through every group, and print the reconciliation; exits with 3 if something is missing or doubled.
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub events: Option<u64>,
    /// End after so long, when all events are through every group, and print the reconciliation: 90s, 15m.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<std::time::Duration>,
    /// Simulated events per second. Default: 500, or as fast as Kafka takes them with --events.
    #[arg(long, value_name = "EVENTS_PER_SECOND")]
    pub rate: Option<f64>,
    /// Seed of the simulated traffic. Default: a new one each time.
    #[arg(long)]
    pub seed: Option<u64>,
    /// What kind of traffic; none: the ordinary one.
    #[arg(long, value_name = "NAME|FILE", value_parser = Scenario::named, help = scenario_help())]
    pub scenario: Option<Scenario>,
    /// Partitions of the topics, when they are created.
    #[arg(long, env = "ACTIVITY_PARTITIONS", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub partitions: u16,
    /// Brokers of Kafka: with three, each message is on all of them, and one may be lost. Default: as many as the data folder was begun with, else 1.
    #[arg(long, env = "ACTIVITY_BROKERS", value_name = "N", value_parser = brokers())]
    pub brokers: Option<u8>,
    /// Begin with an empty data folder.
    #[arg(long)]
    pub fresh: bool,
    /// On a data folder that has no traffic yet, first fill in so much of the past at full speed, with the same users, so that there is something to look at:
    /// 90m, 6h, 7d; 0: none. Default: 6h; 0 with --events, --for, --seed or --no-traffic.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub backfill: Option<std::time::Duration>,
    /// Events of that past, about.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub backfill_events: u64,
    /// Services and groups only.
    #[arg(long, conflicts_with_all = ["events", "duration", "rate", "seed", "scenario"])]
    pub no_traffic: bool,
    /// The dashboards' pages.
    #[command(flatten)]
    pub viewer: ViewerSettings,
    /// Without Prometheus and its alerts.
    #[arg(long)]
    pub no_prometheus: bool,
    /// Form of the reconciliation.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `activity consume`
#[derive(Args, Debug)]
pub struct ConsumeArgs {
    /// Groups to run. Default: all.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    pub groups: Vec<String>,
    /// Limits.
    #[command(flatten)]
    pub runtime: RuntimeSettings,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsSettings,
}

/// `activity setup`
#[derive(Args, Debug)]
pub struct SetupArgs {
    /// Partitions of the topics, when they are created.
    #[arg(long, env = "ACTIVITY_PARTITIONS", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub partitions: u16,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `activity view`
#[derive(Args, Debug)]
pub struct ViewArgs {
    /// Where, and what.
    #[command(flatten)]
    pub viewer: ViewerSettings,
}

/// `activity lag`
#[derive(Args, Debug)]
pub struct LagArgs {
    /// Groups to look at. Default: all.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    pub groups: Vec<String>,
    /// Look again every second until Ctrl-C: a table that stays in place, or with `-o json` a line for each look.
    #[arg(long)]
    pub watch: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A time, or how long ago.
fn time(text: &str) -> Result<jiff::Timestamp, String> {
    match text.parse() {
        Ok(To::Time(at)) => Ok(at),
        _ => Err("not a time (2026-11-22T08:00:00Z, or how long ago: 2h)".to_owned()),
    }
}

/// A duration, or none.
fn span(text: &str) -> Result<std::time::Duration, String> {
    match text {
        "0" => Ok(std::time::Duration::ZERO),
        _ => {
            humantime::parse_duration(text).map_err(|error| format!("{error} (6h, 90m, 7d, or 0)"))
        }
    }
}

/// A cluster has an odd number of voters.
fn brokers() -> impl clap::builder::TypedValueParser<Value = u8> {
    clap::builder::PossibleValuesParser::new(["1", "3"]).try_map(|brokers| brokers.parse::<u8>())
}

/// `activity rewind`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["to", "resume", "abort"]))]
pub struct RewindArgs {
    /// The group.
    #[arg(value_name = "GROUP", value_parser = group_names())]
    pub group: String,
    /// From where it reads again: `beginning` (all that Kafka still has), a time (2026-11-22T08:00:00Z, or how long ago: 2h), by the brokers' clock, or
    /// offsets (clicks/0=1234,clicks/1=777; other partitions keep their place).
    #[arg(long, value_name = "PLACE")]
    pub to: Option<To>,
    /// Go on with a rewind that was interrupted.
    #[arg(long)]
    pub resume: bool,
    /// Give up a rewind that was interrupted: everything is as it was before.
    #[arg(long)]
    pub abort: bool,
    /// Only show what would be done.
    #[arg(long, requires = "to")]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long, requires = "to")]
    pub yes: bool,
    /// Let the group's processes step aside, wherever they run: they wait, not ready, and go on when it is done. Without it they must be stopped first.
    #[arg(long, conflicts_with = "abort")]
    pub stop_group: bool,
    /// Keep the old tables, as <table>__epoch_<n>.
    #[arg(long, requires = "to")]
    pub keep_old: bool,
    /// Limits.
    #[command(flatten)]
    pub runtime: RuntimeSettings,
    /// How to print the plan and the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The groups' names, with what they are for in the help text.
pub fn group_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(
        activity_consumers::GROUPS
            .iter()
            .map(|group| clap::builder::PossibleValue::new(group.name).help(group.about)),
    )
}
