//! How long look-ups take while traffic flows.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use activity_producer::SimulateArgs;
use tokio_util::sync::CancellationToken;

use crate::support::World;

/// Look-ups that are timed.
const LOOK_UPS: usize = 20_000;
/// Between two look-ups: how often a page asks.
const PAUSE: Duration = Duration::from_millis(2);
/// Events per second meanwhile: such that two cores have time left, and such that they hardly have.
pub const RATES: [f64; 2] = [2_000.0, 6_000.0];

/// Times of look-ups, the shortest first.
#[derive(Debug)]
pub struct Asked {
    /// Events per second meanwhile.
    pub rate: f64,
    took: Vec<Duration>,
    /// Of the look-ups, those that were answered with the user's own list.
    pub own: usize,
}

impl Asked {
    /// The time that this share of look-ups stayed within.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (self.took.len() as f64 * share) as usize;
        self.took[at.min(self.took.len() - 1)]
    }

    pub fn count(&self) -> usize {
        self.took.len()
    }
}

/// Asks for one user after the other, over one connection, while all groups are busy.
pub async fn under_load(world: &World, rate: f64) -> Asked {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let _recommendation = world.consume(&["recommendation"], &["--metrics", &address]);
    let _others = world.consume(&["analytics", "fraud", "truth"], &[]);
    let stop = CancellationToken::new();
    let traffic = traffic(world, rate, stop.clone());
    let asking = async {
        world
            .until(|| async {
                world
                    .number("SELECT toInt64(count()) AS number FROM {database}.recommendations")
                    .await
                    > 1_000
            })
            .await;
        let asked = ask(world, rate, &address).await;
        stop.cancel();
        asked
    };
    let (asked, ()) = tokio::join!(asking, traffic);
    asked
}

async fn traffic(world: &World, rate: f64, stop: CancellationToken) {
    let args = SimulateArgs {
        rate: Some(rate),
        seed: Some(79),
        users: Some(5_000),
        ..SimulateArgs::default()
    };
    let targets = &world.targets;
    let published =
        activity_producer::simulate(&args, &targets.kafka, &targets.registry, stop, |_| ())
            .await
            .unwrap();
    assert_eq!(published.counts.failed, 0);
}

#[derive(serde::Deserialize)]
struct User {
    user_id: String,
}

async fn ask(world: &World, rate: f64, address: &str) -> Asked {
    let users: Vec<User> = world.database().rows("SELECT DISTINCT user_id FROM {database}.recommendations WHERE user_id != '' ORDER BY user_id LIMIT 1000").await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut took, mut own) = (Vec::new(), 0);
    for user in users.iter().cycle().take(LOOK_UPS) {
        let url = format!("http://{address}/recommendations/{}", user.user_id);
        let began = Instant::now();
        let response = client.get(url).send().await.unwrap();
        let answer: serde_json::Value = response.json().await.unwrap();
        took.push(began.elapsed());
        own += usize::from(answer["list"] == "own");
        tokio::time::sleep(PAUSE).await;
    }
    took.sort();
    Asked { rate, took, own }
}
