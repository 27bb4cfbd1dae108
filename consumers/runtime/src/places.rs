//! Gives partitions their place: makes and drops lanes as the group's coordinator says, finds out where each goes on, and sends it there.

use std::time::{Duration, Instant};

use activity_platform::metrics::{self, RestorePhase};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::anew;
use crate::driver::Driver;
use crate::lane::{Assignment, Lane, Phase, Rebuilding};
use crate::membership::{Change, Partition};
use crate::open::{OpenState, Opened, Opening, open};
use crate::report::tell_counts;
use crate::start::Start;

/// A partition that needs an operator is looked at again this often.
const STOPPED_FOR: Duration = Duration::from_secs(30);
/// How long one seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// Right after an assignment the client may not be ready to seek: it is tried again after this long.
const SEEK_PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    /// Makes and drops lanes as the group's coordinator says.
    pub(crate) fn apply_changes(&mut self) {
        let changes = self.consumer.context().take_changes();
        let is_changed = !changes.is_empty();
        for change in changes {
            match change {
                Change::Joined => self.joined = true,
                Change::Revoked(partition) => {
                    if let Some(assignment) = self.by_partition.remove(&partition) {
                        self.drop_lane(assignment);
                    }
                    self.forget(&partition);
                }
                Change::Assigned {
                    partition,
                    assignment,
                    cancel,
                } => self.add_lane(partition, assignment, cancel),
            }
        }
        if is_changed {
            let rebalances = &self.sink.metrics.rebalances;
            rebalances.with_label_values(&[self.group.name]).inc();
            // At once: the next owner may answer already.
            self.report_look_up();
        }
    }

    fn add_lane(&mut self, partition: Partition, assignment: u64, cancel: CancellationToken) {
        let Some((feed, name)) = self
            .topics
            .iter()
            .find(|(_, name)| **name == *partition.0)
            .cloned()
        else {
            return;
        };
        let at = Assignment {
            feed,
            name,
            partition: partition.1,
            number: assignment,
            cancel,
        };
        // It is paused since it was assigned.
        self.fetched.route(&partition.0, partition.1);
        if let Some(previous) = self.by_partition.insert(partition, assignment) {
            self.drop_lane(previous);
        }
        self.lanes.insert(
            assignment,
            Lane::new(self.group, &self.settings, self.rewinds.clone(), at),
        );
        self.open_lane(assignment);
    }

    /// Gives up all lanes: what they hold belongs to others now.
    pub(crate) fn drop_lanes(&mut self) {
        for (partition, assignment) in std::mem::take(&mut self.by_partition) {
            self.drop_lane(assignment);
            self.forget(&partition);
        }
    }

    /// A lane that is still being opened would keep the consumer, and with it the membership, alive; and what it has counted is told nowhere else.
    fn drop_lane(&mut self, assignment: u64) {
        if let Some(mut lane) = self.lanes.remove(&assignment) {
            lane.cancel.cancel();
            tell_counts(&self.sink.metrics, self.group.name, &mut lane);
        }
    }

    /// Asks, beside the loop, where a lane stands.
    pub(crate) fn open_lane(&mut self, assignment: u64) {
        if let Some(lane) = self.lanes.get_mut(&assignment) {
            lane.phase = Phase::Opening;
        }
        let Some(lane) = self.lanes.get(&assignment) else {
            return;
        };
        self.runtime.spawn(open(
            self.opening(lane),
            self.consumer.clone(),
            self.sink.database.clone(),
            lane.cancel.clone(),
            self.opened.0.clone(),
        ));
    }

    fn opening(&self, lane: &Lane) -> Opening {
        Opening {
            assignment: lane.assignment,
            group: self.group.name,
            topic: lane.name.clone(),
            partition: lane.partition,
            tables: self.sink.table_names(),
            rewinds: self.rewinds.clone(),
            role: self.role,
            over: self.over.clone(),
            fingerprint: self.fingerprint.clone().filter(|_| lane.keeps_state()),
        }
    }

    /// Looks, beside the loop, whether what is being read still is what was opened.
    pub(crate) fn look_at_topics(&mut self) {
        while self.looks.try_join_next().is_some() {}
        if !self.looks.is_empty() {
            return;
        }
        let running = self
            .lanes
            .values()
            .filter(|lane| lane.phase == Phase::Running);
        let look = anew::watch(
            running.map(|lane| self.opening(lane)).collect(),
            self.consumer.clone(),
            self.sink.database.clone(),
            self.opened.0.clone(),
        );
        self.looks.spawn_on(look, &self.runtime);
    }

    /// Takes over what was found out about lanes.
    pub(crate) fn apply_opened(&mut self) {
        while let Ok((assignment, end)) = self.opened.1.try_recv() {
            match end {
                OpenState::Opened(opened) => self.place_lane(assignment, *opened),
                OpenState::Stop(why) => {
                    let lane = self.lanes.get(&assignment);
                    if lane.is_some_and(|lane| lane.phase == Phase::Running) {
                        self.stop_lane(assignment, why);
                    }
                }
                OpenState::Waiting(why) => {
                    if let Some(lane) = self.lanes.get_mut(&assignment) {
                        lane.waiting_for = Some(why);
                    }
                }
            }
        }
        let now = Instant::now();
        let is_over = |lane: &Lane| matches!(lane.phase, Phase::Stopped { until } if until <= now);
        let again: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(_, lane)| is_over(lane))
            .map(|(assignment, _)| *assignment)
            .collect();
        again
            .into_iter()
            .for_each(|assignment| self.open_lane(assignment));
    }

    /// Stops a lane that needs an operator. What it has not claimed, it does not claim any more.
    fn stop_lane(&mut self, assignment: u64, why: String) {
        let Some(lane) = self.lanes.get_mut(&assignment) else {
            return;
        };
        tracing::error!(group = self.group.name, topic = %lane.name, partition = lane.partition, "{why}");
        lane.waiting_for = Some(why);
        lane.phase = Phase::Stopped {
            until: Instant::now() + STOPPED_FOR,
        };
    }

    fn place_lane(&mut self, assignment: u64, mut opened: Opened) {
        let Some(lane) = self
            .lanes
            .get_mut(&assignment)
            .filter(|lane| lane.phase == Phase::Opening)
        else {
            return;
        };
        let (group, name, partition, now) = (
            self.group.name,
            lane.name.clone(),
            lane.partition,
            Instant::now(),
        );
        if let Start::Stop { why } = opened.start {
            return self.stop_lane(assignment, why);
        }
        let at = Assignment {
            feed: lane.feed,
            name: name.clone(),
            partition,
            number: assignment,
            cancel: lane.cancel.clone(),
        };
        let (poisonous, told) = (
            std::mem::take(&mut lane.poisonous),
            std::mem::take(&mut lane.told),
        );
        // A fresh lane each time: what an earlier placement had built belongs to nobody.
        let fresh = || Lane::new(self.group, &self.settings, self.rewinds.clone(), at.clone());
        let mut lane = fresh();
        let stateful = lane.rebuilds();
        if opened.unfit_snapshot {
            tracing::warn!(group, topic = %name, partition, "the stored state is of other code or settings: rebuilding it from the start of the log");
        }
        let (slot, snapshot) = opened
            .snapshot
            .take()
            .map_or((0, None), |(slot, snapshot)| {
                (1 - slot.min(1), Some(snapshot))
            });
        let restoring = Instant::now();
        let placed = lane.place(&opened.start, opened.log_first, snapshot.as_ref(), stateful, now).or_else(|error| {
            tracing::warn!(group, topic = %name, partition, %error, "rebuilding the state from the start of the log");
            lane = fresh();
            lane.place(&opened.start, opened.log_first, None, stateful, now)
        });
        let Ok(to) = placed else {
            return;
        };
        if let Some(gap) = lane.state_gap {
            let (from, to) = (gap.start, gap.end);
            tracing::warn!(group, topic = %name, partition, from, to, "the log no longer has all that came after the stored state: it goes on without these messages, whose rows are there");
        }
        lane.snapshots.slot = slot;
        lane.avoid(poisonous, now);
        lane.told.found_committed = opened.committed;
        lane.told.go_on_from(told);
        lane.phase = Phase::Seeking {
            to,
            not_before: now,
        };
        self.say_where(&opened, &name, partition, to);
        if lane.keeps_state() {
            let restored = Instant::now();
            lane.rebuilding = Some(Rebuilding {
                began: opened.began,
                restored,
            });
            let observe = |phase, took| self.observe_restore(&name, phase, took);
            observe(RestorePhase::SnapshotRead, opened.snapshot_read);
            observe(RestorePhase::Restore, restored.duration_since(restoring));
        }
        self.lanes.insert(assignment, lane);
    }

    fn say_where(&self, opened: &Opened, topic: &str, partition: i32, to: i64) {
        let group = self.group.name;
        if let Start::At {
            notice: Some(notice),
            ..
        }
        | Start::Redo {
            notice: Some(notice),
            ..
        } = &opened.start
        {
            tracing::warn!(group, topic, partition, "{notice}");
        }
        tracing::debug!(group, topic, partition, start = ?opened.start, read_from = to, "partition opened");
    }

    /// Sends lanes that know their place there; their messages come once they are resumed.
    pub(crate) fn seek_lanes(&mut self) {
        let now = Instant::now();
        for lane in self.lanes.values_mut() {
            let Phase::Seeking { to, not_before } = lane.phase else {
                continue;
            };
            if now < not_before {
                continue;
            }
            let mut list = TopicPartitionList::new();
            let sought = list
                .add_partition_offset(&lane.name, lane.partition, Offset::Offset(to))
                .and_then(|()| self.consumer.seek_partitions(list, SEEK_TIMEOUT))
                .and_then(|list| {
                    list.elements()
                        .iter()
                        .try_for_each(|element| element.error())
                });
            match sought {
                Ok(()) => lane.phase = Phase::Running,
                Err(error) => {
                    tracing::debug!(topic = %lane.name, partition = lane.partition, %error, "seek failed; trying again");
                    lane.phase = Phase::Seeking {
                        to,
                        not_before: now + SEEK_PAUSE,
                    };
                }
            }
        }
    }

    /// Closes ranges that are built again as soon as they are whole, and takes their place anew where the log has lost the rest of them.
    pub(crate) fn tend_redos(&mut self) {
        let mut lost = Vec::new();
        for (partition, assignment) in &self.by_partition {
            let redoing = |lane: &&mut Lane| lane.phase == Phase::Running && lane.is_redoing();
            if let Some(lane) = self.lanes.get_mut(assignment).filter(redoing) {
                lane.close_redo(Instant::now());
                let log_first = self
                    .consumer
                    .context()
                    .log_ends(partition)
                    .map_or(0, |ends| ends.first);
                lost.extend(lane.redo_is_lost(log_first).then_some(*assignment));
            }
        }
        lost.into_iter()
            .for_each(|assignment| self.open_lane(assignment));
    }

    pub(crate) fn forget(&self, partition: &Partition) {
        self.readiness.ready(&self.part(partition));
        let (topic, id, group, m) = (
            &partition.0,
            partition.1.to_string(),
            self.group.name,
            &self.sink.metrics,
        );
        metrics::forget_partition(&m.lag, group, topic, &id);
        metrics::forget_partition(&m.lag_ms, group, topic, &id);
        metrics::forget_partition(&m.current_offset, group, topic, &id);
        metrics::forget_partition(&m.paused, group, topic, &id);
        metrics::forget_partition(&m.batch_unsettled, group, topic, &id);
    }

    /// A partition's name in readiness reports.
    pub(crate) fn part(&self, (topic, partition): &Partition) -> String {
        format!("{}/{topic}/{partition}", self.group.name)
    }
}
