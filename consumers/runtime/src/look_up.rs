//! Look-ups: `GET /<path>/{key}` on a process's HTTP server, answered from the memory of the instance that owns the group's look-up topic.
//!
//! A process that does not own it says who does: 307 with that process's address. The group's coordinator is asked each time, so that the answer is right after
//! every rebalance; processes tell it where they are reached in their `client.id`. While nobody owns it, or state is being restored, 503 says what is waited for.
//! Answers may be ahead of ClickHouse by what is on its way there; after a crash the same messages give the same answers again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use activity_consumers::{Answers, Group};
use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::Semaphore;

use crate::cycle::now_ms;
use crate::driver::Driver;
use crate::lane::{Lane, Phase};
use crate::membership::Membership;
use crate::report::why_not_ready;

/// How long the coordinator may take to say who owns a partition.
const OWNER_TIMEOUT: Duration = Duration::from_secs(2);
/// Look-ups that ask the coordinator at once; each holds a thread meanwhile.
const ASKING_MAX: usize = 16;
/// In front of the address in a `client.id`.
pub const CLIENT_ID_PREFIX: &str = "activity-";

/// What the groups of one process answer. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct LookUps {
    standings: Arc<RwLock<HashMap<&'static str, Standing>>>,
    asking: Arc<Semaphore>,
    reached_at: Arc<OnceLock<String>>,
}

/// How a process stands to the look-ups of one group.
#[derive(Clone)]
enum Standing {
    /// It answers.
    Here(Arc<dyn Answers>),
    /// It will answer, or know who does.
    Waiting(String),
    /// Another process may answer.
    Elsewhere(Members),
}

/// Whom to ask for the owner.
#[derive(Clone)]
struct Members {
    /// Weak: a look-up must not keep a member in its group.
    consumer: Weak<BaseConsumer<Membership>>,
    group_id: Arc<str>,
    topic: Arc<str>,
    client_id: Arc<str>,
}

impl Default for LookUps {
    fn default() -> Self {
        Self {
            standings: Arc::default(),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
            reached_at: Arc::default(),
        }
    }
}

impl LookUps {
    /// Where other processes send those who ask for what this one owns, `host:port`; to be said before a group is run.
    pub fn reached_at(&self, address: String) {
        // Said once: a process has one HTTP server.
        let _ = self.reached_at.set(address);
    }

    /// `client.id` of this process's members, if it can be asked.
    pub(crate) fn client_id(&self) -> Option<String> {
        let address = self.reached_at.get()?;
        Some(format!("{CLIENT_ID_PREFIX}{address}"))
    }

    /// The pages of these groups' look-ups.
    pub fn router(&self, groups: &[&'static Group]) -> Router {
        let mut router = Router::new();
        for group in groups {
            let Some(look_up) = group.look_up else {
                continue;
            };
            let (look_ups, name) = (self.clone(), group.name);
            let answer = async move |Path(key): Path<String>, uri: Uri| {
                look_ups.answer(name, &key, &uri).await
            };
            router = router.route(&format!("/{}/{{key}}", look_up.path), get(answer));
        }
        router
    }

    fn standing(&self, group: &str) -> Standing {
        let standings = self.standings.read();
        let standings = standings.unwrap_or_else(PoisonError::into_inner);
        let joining = || Standing::Waiting("joining the group".to_owned());
        standings.get(group).cloned().unwrap_or_else(joining)
    }

    fn stand(&self, group: &'static str, standing: Standing) {
        let standings = self.standings.write();
        let mut standings = standings.unwrap_or_else(PoisonError::into_inner);
        standings.insert(group, standing);
    }

    async fn answer(&self, group: &str, key: &str, uri: &Uri) -> Response {
        match self.standing(group) {
            Standing::Here(answers) => match answers.answer(key, now_ms()) {
                Some(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
                None => refusal(StatusCode::NOT_FOUND, "nothing is known of it"),
            },
            Standing::Waiting(why) => unavailable(&why),
            Standing::Elsewhere(members) => self.direct(members, uri).await,
        }
    }

    /// Says who owns what this process does not.
    async fn direct(&self, members: Members, uri: &Uri) -> Response {
        let Ok(_permit) = self.asking.try_acquire() else {
            return unavailable("too many look-ups ask for the owner at once");
        };
        let own = members.client_id.clone();
        let asked = tokio::task::spawn_blocking(move || members.owner()).await;
        match asked {
            Ok(Ok(Some(owner))) if *owner == *own => unavailable("taking over"),
            Ok(Ok(Some(owner))) => match owner.strip_prefix(CLIENT_ID_PREFIX) {
                Some(address) => redirect(address, uri),
                None => unavailable(&format!(
                    "the owner, {owner:?}, does not say where it is reached"
                )),
            },
            Ok(Ok(None)) => unavailable("nobody owns it: the group is rebalancing"),
            Ok(Err(error)) => unavailable(&format!("kafka does not say who owns it: {error}")),
            Err(error) => unavailable(&error.to_string()),
        }
    }
}

impl Members {
    /// `client.id` of the member that owns the topic's only partition, by the group's coordinator. Blocking.
    fn owner(&self) -> Result<Option<String>, KafkaError> {
        let Some(consumer) = self.consumer.upgrade() else {
            return Ok(None);
        };
        let groups = consumer.fetch_group_list(Some(&self.group_id), OWNER_TIMEOUT)?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        Ok(members
            .filter(|member| {
                member
                    .assignment()
                    .is_some_and(|bytes| assigns(bytes, &self.topic))
            })
            .map(|member| member.client_id().to_owned())
            .next())
    }
}

/// Whether an assignment holds partition 0 of a topic.
fn assigns(assignment: &[u8], wanted: &str) -> bool {
    let partitions = crate::assignment::partitions(assignment).unwrap_or_default();
    partitions
        .iter()
        .any(|(topic, partition)| topic == wanted && *partition == 0)
}

fn redirect(address: &str, uri: &Uri) -> Response {
    let location = format!("http://{address}{uri}");
    let body = serde_json::json!({ "error": "another process owns it", "owner": location });
    let headers = [(header::LOCATION, location.as_str())];
    (StatusCode::TEMPORARY_REDIRECT, headers, axum::Json(body)).into_response()
}

fn unavailable(why: &str) -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, why);
    let soon = header::HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

fn refusal(status: StatusCode, why: &str) -> Response {
    let body = serde_json::json!({ "error": why });
    (status, axum::Json(body)).into_response()
}

/// What the driver of a group that answers look-ups keeps for them.
pub(crate) struct Desk {
    look_ups: LookUps,
    topic: Arc<str>,
    group_id: Arc<str>,
    client_id: Arc<str>,
}

impl Desk {
    /// None: the group answers none, or nobody can ask this process.
    pub(crate) fn of(
        group: &Group,
        look_ups: &LookUps,
        topic_prefix: &str,
        group_id: &str,
    ) -> Option<Self> {
        Some(Self {
            topic: group.look_up?.topic.full_name(topic_prefix).into(),
            client_id: look_ups.client_id()?.into(),
            look_ups: look_ups.clone(),
            group_id: group_id.into(),
        })
    }
}

impl Driver {
    /// Tells the HTTP server how this process stands to the group's look-ups.
    pub(crate) fn report_look_up(&self) {
        let Some(desk) = &self.desk else {
            return;
        };
        let assignment = self.by_partition.get(&(desk.topic.to_string(), 0));
        let standing = match assignment.and_then(|assignment| self.lanes.get(assignment)) {
            Some(lane) => standing_of(lane),
            None if !self.joined => Standing::Waiting("joining the group".to_owned()),
            None => Standing::Elsewhere(Members {
                consumer: Arc::downgrade(&self.consumer),
                group_id: desk.group_id.clone(),
                topic: desk.topic.clone(),
                client_id: desk.client_id.clone(),
            }),
        };
        desk.look_ups.stand(self.group.name, standing);
    }

    /// The process steps aside, or ends.
    pub(crate) fn end_look_up(&self) {
        if let Some(desk) = &self.desk {
            let why = "the group's process ends, or steps aside for a rewind".to_owned();
            desk.look_ups.stand(self.group.name, Standing::Waiting(why));
        }
    }
}

fn standing_of(lane: &Lane) -> Standing {
    let why = || why_not_ready(lane).unwrap_or_else(|| "finding its place".to_owned());
    if lane.phase != Phase::Running || lane.is_replaying() {
        return Standing::Waiting(why());
    }
    match lane.answers() {
        Some(answers) => Standing::Here(answers),
        None => Standing::Waiting("the group answers nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 3];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions
                .iter()
                .for_each(|id| bytes.extend(id.to_be_bytes()));
        }
        // User data: none.
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_tells_whether_it_holds_the_first_partition_of_a_topic() {
        let bytes = assignment(&[
            ("a.watches", &[0, 2]),
            ("a.by-model", &[0]),
            ("a.other", &[1]),
        ]);
        assert!(assigns(&bytes, "a.by-model") && assigns(&bytes, "a.watches"));
        assert!(!assigns(&bytes, "a.other") && !assigns(&bytes, "by-model"));
        // While the group rebalances there is none; whatever else comes is no reason to panic.
        for end in 0..bytes.len() {
            let _ = assigns(&bytes[..end], "a.by-model");
        }
        assert!(!assigns(&[], "a.by-model") && !assigns(&[0xff; 64], "a.by-model"));
    }
}
