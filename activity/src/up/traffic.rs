//! The simulated traffic of `activity up`: its past, if the data folder has none, and what comes then.

use std::time::{Duration, Instant};

use activity_devstack::Stack;
use activity_platform::settings::Targets;
use activity_producer::{Progress, PublishError, Published, SimulateArgs};
use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::groups::GroupProcesses;
use super::past::{self, Past};
use crate::cli::UpArgs;

/// Events per second where nobody says how many.
const DEFAULT_RATE: f64 = 500.0;
/// How often it is looked how far the past is.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

type Publication = JoinHandle<Result<Published, PublishError>>;

/// A publication that may run, may be still to come, or have ended.
pub struct Traffic {
    publication: Option<Publication>,
    past: Option<Past>,
    stop: CancellationToken,
    /// How it went, once it has ended.
    pub published: Option<Published>,
    /// When it was begun.
    pub began: Instant,
}

impl Traffic {
    /// Begins with the past, where one is wanted and the data folder has no traffic; else with nothing.
    pub async fn with_past(
        args: &UpArgs,
        targets: &Targets,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut traffic = Self {
            publication: None,
            past: None,
            stop: stop.clone(),
            published: None,
            began: Instant::now(),
        };
        let Some(back_fill) = past::wanted(args) else {
            return Ok(traffic);
        };
        if !past::is_new(&targets.kafka).await? {
            if args.backfill.is_some() {
                eprintln!(
                    "the data folder has traffic already, so that --backfill fills nothing in; --fresh begins with an empty one"
                );
            }
            return Ok(traffic);
        }
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let rate = args.rate.unwrap_or(DEFAULT_RATE);
        let simulation = simulate_args(args).settle_with_past(back_fill, rate, now_ms);
        let (tell, told) = watch::channel(Progress::default());
        let (kafka, registry) = (targets.kafka.clone(), targets.registry.clone());
        let stop = stop.clone();
        traffic.publication = Some(tokio::spawn(async move {
            let tell = move |progress: &Progress| {
                tell.send_replace(progress.clone());
            };
            activity_producer::verbs::run(simulation, &kafka, &registry, stop, tell).await
        }));
        traffic.past = Some(Past::follow(back_fill, now_ms, told, targets).await?);
        Ok(traffic)
    }

    /// Waits until every group has read the past, keeping all else going; what there is to say of it.
    pub async fn fill(
        &mut self,
        stack: &mut Stack,
        groups: &mut GroupProcesses,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<String>> {
        let Some(mut past) = self.past.take() else {
            return Ok(None);
        };
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                (service, status) = stack.supervise() => {
                    eprintln!("{}", super::ended(stack, service, status));
                    stack.restart(service).await?;
                }
                group = groups.supervise() => eprintln!("{group}"),
                done = self.finished() => {
                    done?;
                    past.no_more(self.published.as_ref().map_or(0, |all| all.counts.acknowledged));
                }
                _ = look.tick() => {
                    if past.look().await {
                        break;
                    }
                }
            }
        }
        Ok(Some(past.end()))
    }

    /// Begins with the present, unless the past goes on into it.
    pub fn begin(&mut self, args: &UpArgs, targets: &Targets, stop: &CancellationToken) {
        if self.publication.is_some() || self.published.is_some() {
            return;
        }
        let simulate = SimulateArgs {
            rate: args
                .rate
                .or_else(|| args.events.is_none().then_some(DEFAULT_RATE)),
            ..simulate_args(args)
        };
        let (kafka, registry) = (targets.kafka.clone(), targets.registry.clone());
        let stop = stop.clone();
        self.began = Instant::now();
        self.publication = Some(tokio::spawn(async move {
            activity_producer::simulate(&simulate, &kafka, &registry, stop, |_| ()).await
        }));
    }

    /// Resolves when it has ended; never where there is none. Cancel-safe.
    pub async fn finished(&mut self) -> anyhow::Result<()> {
        let Some(publication) = &mut self.publication else {
            return std::future::pending().await;
        };
        let published = publication.await;
        self.publication = None;
        self.published = Some(published.context("the traffic ended early")??);
        Ok(())
    }

    /// Ends it; how it went. What was sent is flushed, within bounds.
    pub async fn end(mut self) -> anyhow::Result<Option<Published>> {
        self.stop.cancel();
        if self.publication.is_some() {
            self.finished().await?;
        }
        Ok(self.published)
    }
}

fn simulate_args(args: &UpArgs) -> SimulateArgs {
    SimulateArgs {
        events: args.events,
        duration: args.duration,
        seed: args.seed,
        scenario: args.scenario.clone(),
        ..SimulateArgs::default()
    }
}
