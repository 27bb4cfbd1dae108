//! How many events per second the traffic model makes, and makes and encodes, on one core:
//! `cargo run --release -p activity-producer --example model_rate`. What Kafka takes is another matter: `activity produce simulate` tells it.

use std::{hint::black_box, time::Instant};

use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_schemas::{Encoder, Event, EventKind};

const EVENTS: u32 = 2_000_000;

fn main() {
    for events_per_second in [20.0, 800.0] {
        let settings = TrafficSettings {
            events_per_second,
            users: (events_per_second * 250.0) as u32,
            ..TrafficSettings::default()
        };
        let users = settings.users;
        let model = seconds(settings.clone(), |event| {
            black_box(event);
        });
        let encoders = EventKind::ALL.map(|kind| Encoder::new(kind, 1));
        let mut value = Vec::new();
        let both = seconds(settings, |event| {
            value.clear();
            let outcome = match event {
                Event::Click(click) => encoders[0].encode(click, &mut value),
                Event::Watch(watch) => encoders[1].encode(watch, &mut value),
            };
            if let Err(error) = outcome {
                panic!("a simulated event must fit its schema: {error}");
            }
            black_box(&value);
        });
        println!(
            "{users} users: model {:.0} ns an event, model and encoding {:.0} ns",
            1e9 * model / f64::from(EVENTS),
            1e9 * both / f64::from(EVENTS)
        );
    }
}

fn seconds(settings: TrafficSettings, mut each: impl FnMut(&Event<'_>)) -> f64 {
    let mut traffic = Traffic::new(1, settings);
    let started = Instant::now();
    for _ in 0..EVENTS {
        each(&traffic.next_event().event);
    }
    started.elapsed().as_secs_f64()
}
