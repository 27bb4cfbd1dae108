//! `activity quality`: what the groups' outputs are worth, against what users then did and what is known of the traffic. A file for each group that is judged.

pub mod fraud;
mod ranking;
pub mod recommendation;
