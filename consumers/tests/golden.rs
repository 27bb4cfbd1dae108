//! What every group makes of every golden event. A change of a row is seen in review as a change of a snapshot; a new group or example is covered by being there.

#[path = "support/golden.rs"]
mod golden;
mod support;

use activity_consumers::GROUPS;

#[test]
fn every_group_makes_of_every_golden_event_what_its_snapshot_says() {
    for group in GROUPS {
        let told = golden::told(group);
        insta::assert_snapshot!(group.name, told);
    }
}
