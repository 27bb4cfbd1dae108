//! From where the users of a target came to it, and how far that and other targets form a circle.
//!
//! People come to a target from everywhere. A link that is shown beside one target leads many to another, but not back. Accounts that are sent to the same few
//! targets go between them in all directions: such a circle is a campaign's mark, however many accounts, addresses and devices it has, and however little each
//! of them does.

use serde::{Deserialize, Serialize};

/// The latest users whose origins are remembered.
const LATEST: usize = 16;
/// A single one does not show anything.
const LATEST_MIN: u8 = 2;
/// So many more are taken to have come from elsewhere.
const ELSEWHERE: f32 = 2.0;

/// From where the latest users came to a target, each counted once a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Origins {
    targets: [u32; LATEST],
    /// How close each was to this target when its user came, from 0 to 255.
    closeness: [u8; LATEST],
    next: u8,
    known: u8,
    users: u32,
}

impl Origins {
    /// Which share came from that target.
    pub(super) fn share(&self, target: u64) -> Option<f32> {
        let known = self.known()?;
        let same = self.targets[..usize::from(self.known)]
            .iter()
            .filter(|other| **other == target as u32);
        Some(same.count() as f32 / (known + ELSEWHERE))
    }

    /// Takes a user who came from a target, to which such a share of its own users came from here; tells how close the two are: the smaller of both shares.
    pub(super) fn add(&mut self, target: u64, share_there: Option<f32>) -> Option<f32> {
        let both = self.share(target).zip(share_there);
        let closeness = both.map(|(here, there)| here.min(there));
        let slot = usize::from(self.next) % LATEST;
        self.targets[slot] = target as u32;
        self.closeness[slot] = (closeness.unwrap_or(0.0) * 255.0) as u8;
        self.next = ((slot + 1) % LATEST) as u8;
        self.known = (self.known + 1).min(LATEST as u8);
        self.users = self.users.saturating_add(1);
        closeness
    }

    /// How close the targets are, on average, that the users came from.
    pub(super) fn circle(&self) -> Option<f32> {
        let known = self.known()?;
        let closeness = &self.closeness[..usize::from(self.known)];
        let sum: f32 = closeness.iter().map(|close| f32::from(*close)).sum();
        Some(sum / 255.0 / known)
    }

    /// How many users there were.
    pub(super) fn users(&self) -> u32 {
        self.users
    }

    fn known(&self) -> Option<f32> {
        (self.known >= LATEST_MIN).then(|| f32::from(self.known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user goes from one of the targets to another.
    fn go(targets: &mut [Origins], from: usize, to: usize) {
        let there = targets[from].share(to as u64);
        targets[to].add(from as u64, there);
    }

    #[test]
    fn targets_between_which_users_go_in_all_directions_are_a_circle() {
        let mut targets = [Origins::default(); 3];
        for user in 0..60 {
            go(&mut targets, user % 3, (user + 1 + user / 3 % 2) % 3);
        }
        for target in targets {
            assert!(target.circle().unwrap() > 0.35, "{target:?}");
        }
    }

    #[test]
    fn a_link_that_everybody_follows_one_way_makes_no_circle() {
        let mut targets = [Origins::default(); 40];
        for user in 0..400 {
            // From anywhere to the first, and from there to the second.
            go(&mut targets, 2 + user % 38, 0);
            go(&mut targets, 0, 1);
        }
        assert!(targets[1].share(0).unwrap() > 0.8);
        assert_eq!(
            (targets[0].circle(), targets[1].circle()),
            (Some(0.0), Some(0.0))
        );
    }

    #[test]
    fn a_single_user_shows_nothing() {
        let mut origins = Origins::default();
        assert_eq!(origins.add(7, Some(1.0)), None);
        assert_eq!((origins.circle(), origins.users()), (None, 1));
    }
}
