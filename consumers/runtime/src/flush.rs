//! The half of the loop that sends, claims, hands over to cycles, settles and commits.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use rdkafka::consumer::Consumer as _;

use crate::backoff::backoff;
use crate::claim::Claim;
use crate::cycle::{self, Job, Outcome, now_ms};
use crate::delivery::BatchSource;
use crate::driver::Driver;
use crate::lane::{Lane, Phase};
use crate::membership::{Commit, CommitError, Partition};
use crate::store::{self, PartitionOf};

/// A commit that failed is tried again after this long.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);
/// Age at which a batch is closed that has more than a batch behind it: what is old already gains nothing from small inserts, which cost ClickHouse most.
const AGE_FAR_BEHIND: Duration = Duration::from_secs(5);
/// A stop looks at its cycle this often.
const SHUTDOWN_STEP: Duration = Duration::from_millis(20);

impl Driver {
    /// Gives Kafka what lanes have for the next stage, at once and not with their batches: it is to see what comes from many partitions in the order in which it
    /// happened. Nothing is claimed yet, and need not be: whoever reads the same messages sends the same, of which the next stage takes each once.
    pub(crate) fn send_derived(&mut self) {
        let (delivery, epoch) = (&self.sink.delivery, self.epoch);
        for lane in self.lanes.values_mut() {
            let (name, partition) = (lane.name.clone(), lane.partition);
            let source = BatchSource {
                topic: &name,
                partition,
                epoch,
            };
            lane.drain_derived(|derived, outstanding| {
                delivery.try_send(derived, source, outstanding)
            });
        }
    }

    /// Seals what is due, claims it and what must be tried again in one commit, and starts a cycle. `all`: everything is due.
    pub(crate) fn start_cycle(&mut self, now: Instant, all: bool) {
        let waits = now < self.next_cycle_at
            && !all
            && (self.commit_trouble.is_on()
                || !self.lanes.values().any(|lane| lane.is_full(&self.settings)));
        if self.cycle_began.is_some() || waits {
            return;
        }
        self.seal_due(now, all);
        let mut claims: Vec<Commit> = self
            .lanes
            .values()
            .filter(|lane| is_claimable(lane, now))
            .filter_map(|lane| claim(lane, self.epoch))
            .collect();
        let idle_age = self.settings.batch_age(1);
        let idle: Vec<Commit> = self
            .lanes
            .values()
            .filter(|lane| {
                is_idle_unsaid(lane)
                    && (all
                        || !claims.is_empty()
                        || lane.building.age(now) >= idle_age
                        || lane.building.is_empty())
            })
            .map(|lane| empty_claim(lane, self.epoch))
            .collect();
        if claims.is_empty() && idle.is_empty() {
            return self.commit_trouble.over();
        }
        let commits: Vec<Commit> = claims.iter().chain(&idle).cloned().collect();
        match self.consumer.context().commit(&self.consumer, &commits) {
            Ok((committed, took)) => {
                self.sink
                    .metrics
                    .commit_seconds
                    .with_label_values(&[self.group.name])
                    .observe(took.as_secs_f64());
                self.commit_trouble.over();
                let committed = committed.into_iter().collect();
                self.committed(&commits, &committed);
                claims.retain(|commit| committed.contains(&commit.partition));
                self.hand_over(&claims, now);
            }
            Err(CommitError::Retry(error)) => {
                if self.commit_trouble.note(&error, now) {
                    tracing::info!(group = self.group.name, %error, "commit failed; trying again");
                }
                self.next_cycle_at = now + COMMIT_PAUSE;
            }
            Err(CommitError::Fenced(error)) => {
                tracing::warn!(group = self.group.name, %error, "this member was replaced; dropping what it holds");
                self.commit_trouble.over();
                self.drop_lanes();
            }
        }
    }

    /// Closes the batches that are due; all that are half due go with them, so that inserts come in few bursts.
    fn seal_due(&mut self, now: Instant, all: bool) {
        let tables: usize = self
            .lanes
            .values()
            .filter(|lane| !lane.building.is_empty())
            .map(|lane| lane.building.output.tables_in_use())
            .sum();
        let age = if all {
            Duration::ZERO
        } else {
            self.settings.batch_age(tables + 1)
        };
        let pressure = self.bytes() >= self.settings.buffered_bytes_max / 2;
        let due = |lane: &Lane| lane.is_due(&self.settings, age, pressure, now);
        if !self.lanes.values().any(due) {
            return;
        }
        let far_behind: HashSet<u64> = self
            .lanes
            .values()
            .filter(|lane| !all && self.is_far_behind(lane))
            .map(|lane| lane.assignment)
            .collect();
        let age_of = |lane: &Lane, age: Duration| match far_behind.contains(&lane.assignment) {
            true => age.max(AGE_FAR_BEHIND),
            false => age,
        };
        let due = |lane: &Lane| lane.is_due(&self.settings, age_of(lane, age), pressure, now);
        if !self.lanes.values().any(due) {
            return;
        }
        let (fingerprint, interval) = (
            self.fingerprint.clone(),
            Duration::from_millis(self.settings.snapshot_interval_ms),
        );
        for lane in self.lanes.values_mut().filter(|lane| {
            let age = age_of(lane, age / 2);
            lane.is_due(&self.settings, age, pressure, now) || lane.is_half_full(&self.settings)
        }) {
            lane.seal(now);
            let due = lane.snapshots.pending.is_none()
                && now.saturating_duration_since(lane.snapshots.taken_at) >= interval;
            let wanted = (due || all) && lane.keeps_state();
            if let Some(fingerprint) = fingerprint.as_ref().filter(|_| wanted) {
                lane.snapshots.pending = Some(lane.snapshot(fingerprint));
                lane.snapshots.taken_at = now;
            }
        }
    }

    /// Remembers what Kafka knows now, and writes the snapshots whose offset it knows.
    fn committed(&mut self, commits: &[Commit], committed: &HashSet<Partition>) {
        let mut snapshots = Vec::new();
        for commit in commits
            .iter()
            .filter(|commit| committed.contains(&commit.partition))
        {
            let Some(lane) = self.lanes.get_mut(&commit.assignment) else {
                continue;
            };
            lane.committed = Some(commit.offset);
            lane.claim_open = commit.claim.end > commit.offset;
            let said = lane
                .snapshots
                .pending
                .as_ref()
                .is_some_and(|snapshot| snapshot.state_offset <= commit.offset);
            if let Some(snapshot) = lane.snapshots.pending.take_if(|_| said) {
                lane.snapshots.offset = snapshot.state_offset;
                snapshots.push((
                    lane.name.clone(),
                    lane.partition,
                    lane.snapshots.slot,
                    snapshot,
                ));
                lane.snapshots.slot = 1 - lane.snapshots.slot;
            }
        }
        for (topic, partition, slot, snapshot) in snapshots {
            let (sink, epoch) = (self.sink.clone(), self.epoch);
            let bytes = snapshot.bytes.len() as i64;
            sink.metrics
                .snapshot_bytes
                .with_label_values(&[sink.group, &topic, &partition.to_string()])
                .set(bytes);
            self.writes.spawn_on(
                async move {
                    let of = PartitionOf { group: sink.group, topic: &topic, partition };
                    if let Err(error) = store::write_snapshot(&sink.database, of, epoch, slot, now_ms(), &snapshot).await {
                        tracing::warn!(group = sink.group, %topic, partition, %error, "state was not stored; the next one will be");
                    }
                },
                &self.runtime,
            );
        }
        while self.writes.try_join_next().is_some() {}
    }

    /// Gives the claimed batches that are still ours to a cycle.
    fn hand_over(&mut self, claims: &[Commit], now: Instant) {
        let mut jobs = Vec::new();
        for commit in claims {
            let lag = self.lag(&commit.partition, commit.claim.end);
            let epoch = self.epoch;
            let Some(lane) = self
                .lanes
                .get_mut(&commit.assignment)
                .filter(|lane| lane.committed == Some(commit.offset))
            else {
                continue;
            };
            let Some(batch) = lane.sealed.clone() else {
                continue;
            };
            lane.attempt += 1;
            lane.in_flight = true;
            self.sink
                .metrics
                .batch_rows
                .with_label_values(&[self.group.name])
                .observe(batch.tables.iter().map(|table| table.rows).sum::<u64>() as f64);
            jobs.push(Job {
                assignment: lane.assignment,
                batch,
                topic: lane.name.clone(),
                partition: lane.partition,
                epoch,
                attempt: lane.attempt,
                claimed: now,
                first_claimed_at_ms: commit.claim.claimed_at_ms,
                lag,
                cancel: lane.cancel.clone(),
            });
        }
        if jobs.is_empty() {
            return;
        }
        self.cycle_began = Some(now);
        let inserts: usize = 1 + jobs.iter().map(|job| job.batch.tables.len()).sum::<usize>();
        // Batches that fill by themselves come as fast as ClickHouse takes them; the limit is for small ones.
        let full = jobs.iter().any(|job| {
            job.batch
                .tables
                .iter()
                .any(|table| table.rows * 2 >= u64::from(self.settings.batch_rows_max))
        });
        self.next_cycle_at = if full {
            now
        } else {
            now + Duration::from_secs_f64(
                inserts as f64 / self.settings.inserts_per_second_max.max(0.001),
            )
        };
        let (sink, done) = (self.sink.clone(), self.cycles.0.clone());
        let assignments: Vec<u64> = jobs.iter().map(|job| job.assignment).collect();
        let cycle = self.runtime.spawn(cycle::run(jobs, sink));
        self.runtime.spawn(async move {
            let outcomes = cycle.await.unwrap_or_else(|error| {
                let unsettled = |assignment| {
                    (
                        assignment,
                        Outcome::Unsettled {
                            why: error.to_string(),
                        },
                    )
                };
                assignments.into_iter().map(unsettled).collect()
            });
            // The loop is gone if nobody receives.
            let _ = done.send(outcomes);
        });
    }

    /// Whether more waits than fills the batch that is built.
    fn is_far_behind(&self, lane: &Lane) -> bool {
        let partition = (lane.name.to_string(), lane.partition);
        self.lag(&partition, lane.next()) > i64::from(self.settings.batch_rows_max)
    }

    fn lag(&self, partition: &Partition, settled: i64) -> i64 {
        self.consumer
            .context()
            .log_ends(partition)
            .map_or(0, |ends| (ends.next - settled).max(0))
    }

    /// Takes over what a cycle did, waiting for its end at most `wait`.
    pub(crate) fn finish_cycle(&mut self, wait: Duration) {
        let ended = if wait.is_zero() {
            self.cycles.1.try_recv().ok()
        } else {
            self.cycles.1.recv_timeout(wait).ok()
        };
        let Some(outcomes) = ended else {
            return;
        };
        self.cycle_began = None;
        for (assignment, outcome) in outcomes {
            match outcome {
                Outcome::Settled { lost, .. } => self.settled(assignment, lost),
                Outcome::Unsettled { why } => self.unsettled(assignment, &why),
                Outcome::DeliveryFailed { why } => self.delivery_failed(assignment, why),
                Outcome::Cancelled => (),
            }
        }
    }

    fn settled(&mut self, assignment: u64, lost: u64) {
        let Some(lane) = in_flight(&mut self.lanes, assignment) else {
            return;
        };
        let range = lane.sealed_range();
        lane.sealed = None;
        lane.in_flight = false;
        lane.claim_open = true;
        let (group, partition) = (self.group.name, partition_of(lane));
        if lane.attempt > 1 {
            tracing::info!(group, topic = %lane.name, partition = lane.partition, attempts = lane.attempt, "settled");
        }
        lane.attempt = 0;
        lane.unsettled_why = None;
        self.delivery_failures.remove(&partition);
        if lost > 0 {
            let (from, to) = range.map_or((-1, -1), |range| (range.start, range.end));
            tracing::error!(group, topic = %lane.name, partition = lane.partition, messages = lost, from, to, "the log no longer has messages that this group has not read");
            let labels = [group, partition.0.as_str(), &partition.1.to_string()];
            self.sink
                .metrics
                .events_lost
                .with_label_values(&labels)
                .inc_by(lost);
        }
        // The batch that is built begins where the settled one ended.
        self.consumer
            .context()
            .settled(&empty_claim(lane, self.epoch));
    }

    fn unsettled(&mut self, assignment: u64, why: &str) {
        let Some(lane) = in_flight(&mut self.lanes, assignment) else {
            return;
        };
        lane.in_flight = false;
        lane.retry_at = Some(Instant::now() + backoff(lane.attempt));
        // The first failure and then every tenth: an outage of an hour is not worth an hour of lines.
        if lane.attempt % 10 == 1 {
            tracing::warn!(group = self.group.name, topic = %lane.name, partition = lane.partition, attempt = lane.attempt, why, "batch is not settled; it will be claimed and sent again");
        }
        lane.unsettled_why = Some(why.to_owned());
    }

    /// What was not delivered may have left a hole behind it: the partition is read again from its claim.
    fn delivery_failed(&mut self, assignment: u64, why: String) {
        let Some(lane) = in_flight(&mut self.lanes, assignment) else {
            return;
        };
        let failures = self
            .delivery_failures
            .entry(partition_of(lane))
            .or_default();
        *failures += 1;
        let wait = backoff(*failures);
        tracing::error!(group = self.group.name, topic = %lane.name, partition = lane.partition, why, "a message was not delivered; the partition begins anew");
        lane.in_flight = false;
        lane.waiting_for = Some(why);
        lane.phase = Phase::Stopped {
            until: Instant::now() + wait,
        };
    }

    /// Settles what can be settled in time, says it in Kafka, stores the state, leaves the group.
    pub(crate) fn shut_down(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(self.settings.shutdown_ms_max);
        for lane in self
            .lanes
            .values_mut()
            .filter(|lane| lane.phase == Phase::Running)
        {
            // Nothing new comes in; what is rebuilt for an earlier claim is left to the next owner.
            lane.paused = self.consumer.pause(&lane.partition_list()).is_ok();
        }
        while Instant::now() < deadline {
            self.apply_changes();
            self.finish_cycle(SHUTDOWN_STEP);
            self.start_cycle(Instant::now(), true);
            let busy = self.cycle_began.is_some()
                || self.lanes.values().any(|lane| {
                    lane.sealed.is_some()
                        || lane.is_due(&self.settings, Duration::ZERO, true, Instant::now())
                });
            if !busy && !self.lanes.values().any(is_idle_unsaid) {
                break;
            }
            // Serves rebalances; messages do not come while all is paused.
            drop(self.consumer.poll(Duration::ZERO));
        }
        self.store_final_state();
        let remaining = deadline.saturating_duration_since(Instant::now());
        let writes = std::mem::take(&mut self.writes);
        let _ = self
            .runtime
            .block_on(tokio::time::timeout(remaining, writes.join_all()));
    }

    /// Stores the state of lanes that stand at a committed boundary and have moved since their last snapshot.
    fn store_final_state(&mut self) {
        let Some(fingerprint) = self.fingerprint.clone() else {
            return;
        };
        let mut said = Vec::new();
        for lane in self.lanes.values_mut() {
            let at_boundary = lane.phase == Phase::Running
                && lane.keeps_state()
                && !lane.is_replaying()
                && lane.sealed.is_none()
                && lane.building.is_empty()
                && lane.committed == Some(lane.building.start);
            if at_boundary
                && lane.snapshots.offset < lane.building.start
                && lane.building.counts.events == 0
            {
                lane.snapshots.pending = Some(lane.snapshot(&fingerprint));
                said.push(empty_claim(lane, self.epoch));
            }
        }
        let partitions = said.iter().map(|commit| commit.partition.clone()).collect();
        self.committed(&said, &partitions);
    }
}

/// The lane whose batch a cycle had. A lane that was placed anew meanwhile has none in flight: what an earlier life had sent is found by its claim.
fn in_flight(lanes: &mut HashMap<u64, Lane>, assignment: u64) -> Option<&mut Lane> {
    lanes.get_mut(&assignment).filter(|lane| lane.in_flight)
}

/// Whether a lane has a batch that may be claimed now.
pub(crate) fn is_claimable(lane: &Lane, now: Instant) -> bool {
    !matches!(lane.phase, Phase::Opening | Phase::Stopped { .. })
        && lane.sealed.is_some()
        && !lane.in_flight
        && lane.retry_at.is_none_or(|at| at <= now)
}

/// Whether all that a lane has taken is settled but Kafka does not know it yet.
pub(crate) fn is_idle_unsaid(lane: &Lane) -> bool {
    lane.phase == Phase::Running
        && lane.sealed.is_none()
        && !lane.is_replaying()
        && (lane.claim_open || lane.committed.is_none())
        && !lane.is_redoing()
}

fn partition_of(lane: &Lane) -> Partition {
    (lane.name.to_string(), lane.partition)
}

/// The claim of a lane's batch under way. A range that is claimed again keeps the time of its first claim: its token's age counts from there.
pub(crate) fn claim(lane: &Lane, epoch: u32) -> Option<Commit> {
    let range = lane.sealed_range()?;
    let claimed_at_ms = *lane
        .sealed
        .as_ref()?
        .first_claimed_at_ms
        .get_or_init(now_ms);
    Some(Commit {
        partition: partition_of(lane),
        assignment: lane.assignment,
        offset: range.start,
        claim: Claim {
            end: range.end,
            epoch,
            claimed_at_ms,
        },
    })
}

/// "All before is in ClickHouse, nothing is in flight."
pub(crate) fn empty_claim(lane: &Lane, epoch: u32) -> Commit {
    let offset = lane.building.start;
    Commit {
        partition: partition_of(lane),
        assignment: lane.assignment,
        offset,
        claim: Claim {
            end: offset,
            epoch,
            claimed_at_ms: now_ms(),
        },
    }
}
