//! Runs a group without a runtime: events go to the instance of their topic partition in batches, derived messages on to the next stage, rows come out as JSON.
//! For tests and examples; the real runtime does the same with Kafka and ClickHouse around it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test and example uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "for tests, though examples use it too"
)]

pub mod native;
pub mod recorded;

use activity_consumers::{
    Group, Headers, Input, Instance, NoHeaders, Origin, Output, Received, Rows, Settings,
};
use activity_schemas::{Content, Event, Topic};

/// One group at work.
pub struct Bench {
    group: &'static Group,
    settings: Settings,
    stages: Vec<Stage>,
    /// Rows so far, each as a table's name and a line of JSON.
    pub rows: Vec<(&'static str, String)>,
    /// Reasons of rejected events.
    pub rejects: Vec<String>,
}

struct Stage {
    topic: Topic,
    partition: i32,
    instance: Box<dyn Instance>,
    out: Output,
    next_offset: i64,
}

/// The group of that name.
pub fn group(name: &str) -> &'static Group {
    activity_consumers::GROUPS
        .iter()
        .find(|group| group.name == name)
        .unwrap_or_else(|| panic!("no group {name}"))
}

impl Bench {
    pub fn new(group: &'static Group, settings: Settings) -> Self {
        Self {
            group,
            settings,
            stages: Vec::new(),
            rows: Vec::new(),
            rejects: Vec::new(),
        }
    }

    /// One event of a topic of events; nothing happens if the group does not read it.
    pub fn feed(
        &mut self,
        topic: Topic,
        partition: i32,
        event: Event<'_>,
        headers: &dyn Headers,
        appended_at_ms: i64,
    ) {
        self.process(
            topic,
            partition,
            Input::Event(event),
            headers,
            appended_at_ms,
        );
    }

    fn process(
        &mut self,
        topic: Topic,
        partition: i32,
        input: Input<'_>,
        headers: &dyn Headers,
        appended_at_ms: i64,
    ) {
        if !self.group.reads.contains(&topic) {
            return;
        }
        let at = self.stage(topic, partition);
        let stage = &mut self.stages[at];
        let offset = stage.next_offset;
        stage.next_offset += 1;
        stage.out.begin_event(offset, appended_at_ms);
        let received = Received {
            topic,
            partition,
            offset,
            appended_at_ms,
            headers,
            input,
        };
        if let Err(reject) = stage.instance.process(&received, &mut stage.out) {
            stage.out.take_back_event();
            self.rejects.push(reject.to_string());
        }
    }

    /// Makes the instances of one partition of every topic that the group reads, as an assignment does.
    pub fn assign(&mut self, partition: i32) {
        for topic in self.group.reads {
            self.stage(*topic, partition);
        }
    }

    fn stage(&mut self, topic: Topic, partition: i32) -> usize {
        let known = self
            .stages
            .iter()
            .position(|stage| stage.topic == topic && stage.partition == partition);
        known.unwrap_or_else(|| {
            self.stages.push(Stage {
                topic,
                partition,
                instance: self.group.instance(&self.settings, topic),
                out: Output::new(self.group.tables),
                next_offset: 0,
            });
            self.stages.len() - 1
        })
    }

    /// Ends the batch of every stage: derived messages are processed, rows rendered.
    pub fn flush(&mut self) {
        let rows = self.end_batch();
        for (topic, partition, rows) in &rows {
            self.rows.extend(render(rows, *topic, *partition));
        }
    }

    /// As [`flush`](Self::flush), with the rows as the runtime gets them.
    pub fn end_batch(&mut self) -> Vec<(Topic, i32, Rows)> {
        let mut all = Vec::new();
        let mut next = 0;
        // Stages behind an internal topic are made, or fed, while the loop goes on: each pass takes what the pass before derived.
        let mut idle = 0;
        while idle < self.stages.len() {
            let at = next % self.stages.len();
            next += 1;
            let stage = &mut self.stages[at];
            let (topic, partition) = (stage.topic, stage.partition);
            let (tables, derived) = stage.out.take();
            let batch: Vec<Rows> = tables.into_iter().filter(|rows| !rows.is_empty()).collect();
            idle = if batch.is_empty() && derived.is_empty() {
                idle + 1
            } else {
                0
            };
            all.extend(batch.into_iter().map(|rows| (topic, partition, rows)));
            for message in derived {
                assert_eq!(message.topic.content, Content::Derived);
                self.process(
                    message.topic,
                    0,
                    Input::Derived(&message.payload),
                    &NoHeaders,
                    0,
                );
            }
        }
        all
    }

    /// Events that the first stages have taken, and messages that those behind them have.
    pub fn taken(&self) -> (i64, i64) {
        let of = |content: Content| {
            let stages = self.stages.iter();
            let stages = stages.filter(|stage| stage.topic.content == content);
            stages.map(|stage| stage.next_offset).sum::<i64>()
        };
        let derived = of(Content::Derived);
        let all: i64 = self.stages.iter().map(|stage| stage.next_offset).sum();
        (all - derived, derived)
    }

    /// The state of every stage.
    pub fn snapshots(&self) -> Vec<Vec<u8>> {
        self.stages
            .iter()
            .map(|stage| {
                let mut bytes = Vec::new();
                stage.instance.snapshot(&mut bytes);
                bytes
            })
            .collect()
    }

    /// Every instance dies and its successor takes over from a snapshot; what was not flushed is lost, so flush before.
    pub fn replace_instances(&mut self) {
        for stage in &mut self.stages {
            let mut bytes = Vec::new();
            stage.instance.snapshot(&mut bytes);
            stage.instance = self.group.instance(&self.settings, stage.topic);
            stage
                .instance
                .restore(&bytes)
                .expect("a snapshot of the same code is taken over");
        }
    }
}

/// The rows as JSON, by way of the bytes that ClickHouse would get.
pub fn render(rows: &Rows, topic: Topic, partition: i32) -> Vec<(&'static str, String)> {
    let topic = topic.full_name("activity.");
    let block = rows.native_block(&Origin {
        topic: &topic,
        partition,
        epoch: 1,
    });
    native::json_lines(&block)
        .into_iter()
        .map(|line| (rows.table().name, line))
        .collect()
}
