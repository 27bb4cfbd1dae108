//! Look-ups of lists: answered by the process that owns the model, which any other process of the group names, before and after the owner is gone.

use std::net::TcpListener;

use serde::Deserialize;
use serde_json::Value;

use crate::in_world;
use crate::support::{Consumer, World};

/// A process of the group, and where it is asked.
struct Asked {
    consumer: Consumer,
    address: String,
}

impl Asked {
    fn start(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let consumer = world.consume(&["recommendation"], &["--metrics", &address]);
        Self { consumer, address }
    }

    /// Status, body, and where else it sends us.
    async fn get(&self, user: &str) -> Option<(u16, Value, String)> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let url = format!("http://{}/recommendations/{user}", self.address);
        let response = client.get(url).send().await.ok()?;
        let location = response.headers().get("location");
        let location = location.map_or("", |location| location.to_str().unwrap());
        let (status, location) = (response.status().as_u16(), location.to_owned());
        Some((status, response.json().await.unwrap(), location))
    }

    async fn status(&self, user: &str) -> u16 {
        self.get(user).await.map_or(0, |(status, ..)| status)
    }
}

#[derive(Deserialize)]
struct Listed {
    user_id: String,
    items: Vec<String>,
}

/// The list that was made last.
async fn last_list(world: &World) -> Listed {
    let sql = "SELECT user_id, items FROM {database}.recommendations WHERE user_id != '' ORDER BY _offset DESC LIMIT 1";
    world.database().rows(sql).await.unwrap().remove(0)
}

fn items(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn the_owner_of_the_model_answers_look_ups_and_every_other_process_says_who_that_is() {
    in_world("look_up", 2, |world| async move {
        let (first, second) = (Asked::start(&world), Asked::start(&world));
        world.simulate_events(6_000, 31).await;
        world.caught_up(&["recommendation"]).await;
        let list = last_list(&world).await;
        let user = list.user_id.as_str();
        world
            .until(|| async {
                let statuses = [first.status(user).await, second.status(user).await];
                statuses == [200, 307] || statuses == [307, 200]
            })
            .await;
        let (mut owner, other) = match first.status(user).await {
            200 => (first, second),
            _ => (second, first),
        };

        let (_, answer, _) = owner.get(user).await.unwrap();
        assert_eq!(
            (&answer["user"], &answer["list"]),
            (&user.into(), &"own".into())
        );
        assert_eq!(items(&answer), list.items);
        assert!(
            (0.0..300.0).contains(&answer["age_seconds"].as_f64().unwrap()),
            "{answer}"
        );
        let (_, _, location) = other.get(user).await.unwrap();
        assert_eq!(
            location,
            format!("http://{}/recommendations/{user}", owner.address)
        );
        let (_, _, location) = other.get("a%2Fb%20c").await.unwrap();
        assert!(
            location.ends_with("/recommendations/a%2Fb%20c"),
            "{location}"
        );
        let (status, answer, _) = owner.get("nobody%20has%20seen%20them").await.unwrap();
        assert_eq!((status, &answer["list"]), (200, &"strangers".into()));
        assert!(!items(&answer).is_empty());

        owner.consumer.kill();
        world
            .until(|| async { other.status(user).await == 200 })
            .await;
        let (_, answer, _) = other.get(user).await.unwrap();
        assert_eq!(
            items(&answer),
            list.items,
            "the list that the dead owner had made"
        );
        let third = Asked::start(&world);
        world
            .until(|| async {
                let statuses = [other.status(user).await, third.status(user).await];
                statuses == [200, 307] || statuses == [307, 200]
            })
            .await;
    });
}
