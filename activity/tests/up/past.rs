//! The past that a new data folder is given: there when READY is said, once, and with no seam to what comes then.

use std::fs;

use crate::support::place;
use crate::up::{PATIENCE, Up};
use crate::{assert_clean, events, fresh_folder, lag};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_new_folder_has_a_past_when_it_is_ready_which_goes_on_into_the_present() {
    let _place = place();
    let folder = fresh_folder("up_past");
    let past = ["--backfill", "2h", "--backfill-events", "4000"];
    let mut up = Up::start(&folder, &[&past[..], &["--rate", "100"]].concat());
    up.ready();
    let ready = fs::read_to_string(&up.stdout).unwrap();
    assert!(ready.contains("the last 2h are filled in ("), "{ready}");
    let reported = events(&up.json(&["verify", "analytics"]), "analytics");
    assert!(reported > 3_500, "{reported}");

    let ago = |part: &str| {
        format!(
            "SELECT toInt64(dateDiff('millisecond', {part}(received_at), now64(3))) FROM activity.clicks"
        )
    };
    let began_ms = up.number(&ago("min"));
    assert!((HOUR_MS..3 * HOUR_MS).contains(&began_ms), "{began_ms}");
    up.until("live traffic is in the table", |up| {
        up.number(&ago("max")) < 5_000
    });
    // The same people: some who were there in the past, which was appended long after it was received, come again.
    let is_past = "dateDiff('second', received_at, _appended_at) > 60";
    let again = format!(
        "SELECT toInt64(uniqExactIf(user_id, {is_past})) + toInt64(uniqExactIf(user_id, NOT ({is_past}))) - toInt64(uniqExact(user_id)) FROM activity.clicks"
    );
    up.until("users of the past come again", |up| up.number(&again) > 0);
    up.end_with_ctrl_c();

    let mut up = Up::start(&folder, &[&past[..], &["--no-traffic"]].concat());
    up.ready();
    let said = fs::read_to_string(&up.stderr).unwrap();
    assert!(said.contains("has traffic already"), "{said}");
    up.until("all groups have caught up", |up| lag(up) == 0);
    let verified = up.json(&["verify"]);
    assert_clean(&verified, events(&verified, "analytics"));
    up.end_with_ctrl_c();
}

#[test]
fn a_past_without_a_present_ends_with_it() {
    let _place = place();
    let folder = fresh_folder("up_past_alone");
    let past = [
        "--no-traffic",
        "--backfill",
        "30m",
        "--backfill-events",
        "1000",
    ];
    let mut up = Up::start(&folder, &past);
    up.ready();
    assert_eq!(lag(&up), 0);
    let verified = up.json(&["verify"]);
    let filled = events(&verified, "analytics");
    assert!((800..1_200).contains(&filled), "{filled}");
    assert_clean(&verified, filled);
    up.end_with_ctrl_c();

    let ends = ["--events", "700", "--seed", "1", "-o", "json"];
    let mut up = Up::start(&folder, &[&ends[..], &["--fresh"]].concat());
    assert_eq!(up.exit_code_within(PATIENCE), Some(0), "{}", up.tails());
    let said = fs::read_to_string(&up.stderr).unwrap();
    assert!(!said.contains("filled in"), "{said}");
}
