//! What stands below a verb's help: lines to copy.

/// `activity`
pub const ACTIVITY: &str = "Begin with:
  activity up                    # everything on this machine, with a past to look at
  activity status                # in a second terminal: how it is, and what to do
  activity tail clicks           # what comes in
  activity new-group countries   # a consumer group of your own, in a clone

`-h` after a verb is short; `--help` tells all, with the addresses and users of Kafka, the registry and ClickHouse.";

/// `activity up`
pub const UP: &str = "Examples:
  activity up                                        # runs until Ctrl-C; the data stays in .activity
  activity up --fresh --scenario bot-attack          # begin anew, under attack
  activity up --backfill 7d --backfill-events 2000000   # a week to look at
  activity up --events 1000000 -o json               # a million events through every group, then the reconciliation";

/// `activity produce simulate`
pub const SIMULATE: &str = "Examples:
  activity produce simulate --rate 2000 --for 10m
  activity produce simulate --scenario black-friday --warp 1000 --for 10m   # a week in ten minutes
  activity produce simulate --seed 7 --events 10000 --malformed-share 0.01  # the same each time; something for the dead letters";

/// `activity produce replay`
pub const REPLAY: &str = "Examples:
  activity produce replay otto_clicks.ndjson.gz                    # a shipped mapping, by the file's name
  activity produce replay my.csv --mapping my.toml --shift-to now --speed original --loop";

/// `activity consume`
pub const CONSUME: &str = "Examples:
  activity consume analytics fraud          # these two groups in this process
  activity consume                          # all of them; start it as often as you like: processes share the partitions";

/// `activity setup`
pub const SETUP: &str = "Examples:
  activity setup --dry-run
  activity setup --kafka broker:9092 --registry http://registry:8081 --clickhouse http://clickhouse:8123 --partitions 12";

/// `activity lag`
pub const LAG: &str = "Examples:
  activity lag --watch
  activity lag analytics -o json";

/// `activity status`
pub const STATUS: &str = "Examples:
  activity status
  activity status -o json | jq '.needs'
  activity status > /dev/null || echo 'somebody should look'";

/// `activity verify`
pub const VERIFY: &str = "Examples:
  activity verify                           # everything that Kafka still has
  activity verify analytics --since 15m     # only what came in lately";

/// `activity deadletters`
pub const DEAD_LETTERS: &str = "Examples, in the order in which they are needed:
  activity deadletters list
  activity deadletters show analytics --reason truncated
  activity deadletters resubmit analytics --reason truncated --dry-run";

/// `activity rewind`
pub const REWIND: &str = "Examples:
  activity rewind analytics --to 2h --dry-run              # what it would do
  activity rewind analytics --to 2h --stop-group           # asks, then does it
  activity rewind analytics --to clicks/0=1234,clicks/1=777
  activity rewind analytics --resume                       # after it was interrupted";

/// `activity quality`
pub const QUALITY: &str = "Examples:
  activity quality recommendation --since 1h
  activity quality fraud";
