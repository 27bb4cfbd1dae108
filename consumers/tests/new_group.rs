//! The group that `activity new-group` writes (`consumers/template`), compiled as it stands and judged as those in the list are.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/migrated.rs"]
mod migrated;
mod support;

use activity_consumers::template;
// What `crate` means to a file among the groups.
use activity_consumers::{
    ConsumerGroup, Group, Input, Millis, Output, Received, Reject, Row, Settings, TableSpec, rows,
};

#[path = "../template"]
mod groups {
    pub use activity_consumers::groups::{event_id, time};

    #[path = "group.rs"]
    pub mod template_group;
}

const GROUP: &Group = &Group::of::<groups::template_group::TemplateGroup>();

#[test]
fn it_makes_of_every_golden_event_what_the_snapshot_says_that_goes_with_it() {
    insta::assert_snapshot!("template_group", golden::told(GROUP));
}

#[test]
fn its_migration_keeps_the_delivery_promise() {
    let sql = template::MIGRATION.replace("{database}", "activity");
    for table in GROUP.tables {
        migrated::check(table, std::slice::from_ref(&sql));
    }
}
