//! Which event is the first of its playback, and which completes it: a small memory of each user's latest playbacks.
//!
//! A playback is named by `playback_id`. Where a source has none, it is what a user does with one title, until a `start` after its end begins another.
//! Bounds: [`PLAYBACKS_MAX`] playbacks of a user, `actors_max` users. An event of a forgotten playback begins a new one.

use activity_schemas::{WatchAction, WatchEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fingerprint::{fingerprint, fingerprint_of_kind};
use crate::lru::Lru;
use crate::{StaleSnapshot, snapshot};

/// Playbacks that are remembered of a user: more than a household's devices play at once.
const PLAYBACKS_MAX: usize = 8;

/// The latest playbacks of each user.
pub(super) struct Playbacks {
    users: Lru<Vec<Playback>>,
    actors_max: usize,
}

/// One playback; of a user's, the one begun last stands last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Playback {
    /// Fingerprint of its id, or of its title where it has none.
    key: u64,
    /// Event id of its first event.
    first_event: Uuid,
    completed: bool,
    /// Without a playback id: it ended, so that a `start` begins another.
    ended: bool,
}

/// An event that the model must know of.
pub(super) struct Step {
    /// Event id of the playback's first event.
    pub(super) playback: Uuid,
    /// Whether this is the first event.
    pub(super) first: bool,
}

impl Playbacks {
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            users: Lru::new(actors_max),
            actors_max,
        }
    }

    /// Takes note of an event; tells if it is its playback's first, or its completion.
    pub(super) fn step(&mut self, watch: &WatchEvent<'_>, event_id: Uuid) -> Option<Step> {
        let playbacks = self.users.touch(fingerprint(watch.user_id));
        let key = match watch.playback_id {
            Some(id) => fingerprint(id),
            None => fingerprint_of_kind(1, watch.video_id),
        };
        let restarts = watch.playback_id.is_none() && watch.action == WatchAction::Start;
        let known = playbacks
            .iter_mut()
            .find(|playback| playback.key == key && !(restarts && playback.ended));
        let completes = watch.action == WatchAction::Complete;
        let ends = completes || watch.action == WatchAction::Stop;
        let Some(playback) = known else {
            playbacks.retain(|playback| playback.key != key);
            if playbacks.len() == PLAYBACKS_MAX {
                playbacks.remove(0);
            }
            playbacks.push(Playback {
                key,
                first_event: event_id,
                completed: completes,
                ended: ends,
            });
            return Some(Step {
                playback: event_id,
                first: true,
            });
        };
        playback.ended |= ends;
        let newly_completed = completes && !playback.completed;
        playback.completed |= completes;
        newly_completed.then_some(Step {
            playback: playback.first_event,
            first: false,
        })
    }

    pub(super) fn snapshot(&self, into: &mut Vec<u8>) {
        snapshot::write(&self.users, into);
    }

    pub(super) fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        self.users = snapshot::read::<Lru<Vec<Playback>>>(from)?.bounded(self.actors_max);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(events: &[(&str, Option<&str>, WatchAction)]) -> String {
        let mut playbacks = Playbacks::new(10);
        let ids = (1..).map(Uuid::from_u128);
        events
            .iter()
            .zip(ids)
            .map(|((video_id, playback_id, action), id)| {
                let watch = WatchEvent {
                    user_id: "u",
                    video_id,
                    playback_id: *playback_id,
                    action: *action,
                    ..WatchEvent::default()
                };
                match playbacks.step(&watch, id) {
                    None => "-".to_owned(),
                    Some(Step {
                        playback,
                        first: true,
                    }) => format!("first{}", playback.as_u128()),
                    Some(Step {
                        playback,
                        first: false,
                    }) => format!("completes{}", playback.as_u128()),
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_first_event_and_the_completion_of_a_playback_are_forwarded_once_each() {
        use WatchAction::{Complete, Heartbeat, Start, Stop};
        let told = steps(&[
            ("v", Some("p"), Start),
            ("v", Some("p"), Heartbeat),
            ("v", Some("p"), Complete),
            ("v", Some("p"), Complete),
            ("v", Some("p"), Stop),
            ("v", Some("q"), Heartbeat),
        ]);
        assert_eq!(told, "first1 - completes1 - - first6");
    }

    #[test]
    fn without_a_playback_id_a_start_after_the_end_begins_another_playback() {
        use WatchAction::{Complete, Pause, Start, Stop};
        let told = steps(&[
            ("v", None, Pause),
            ("w", None, Complete),
            ("v", None, Start),
            ("v", None, Stop),
            ("v", None, Pause),
            ("v", None, Start),
            ("v", None, Complete),
        ]);
        assert_eq!(told, "first1 first2 - - - first6 completes6");
    }

    #[test]
    fn a_forgotten_playback_begins_anew() {
        let names: Vec<String> = (0..=PLAYBACKS_MAX).map(|name| name.to_string()).collect();
        let mut events: Vec<_> = names
            .iter()
            .map(|name| ("v", Some(name.as_str()), WatchAction::Start))
            .collect();
        events.push(("v", Some("0"), WatchAction::Complete));
        assert!(steps(&events).ends_with("first10"));
    }
}
