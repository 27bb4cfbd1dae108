//! The same rows into the same table in other formats: what building the bytes costs the client, and what reading them costs ClickHouse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use activity_consumers::{
    ConsumerGroup as _, Input, NoHeaders, Origin, Output, Received, Settings,
};
use activity_platform::clickhouse::Insert;
use activity_schemas::{CLICKS, ClickEvent, Event};
use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use clickhouse::Row;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::Serialize;
use uuid::Uuid;

use crate::fill::Filling;
use crate::plain::Plain;
use crate::produce::kept_events;
use crate::report::{Spread, thousands, write_json};
use crate::scene::{Scene, rows};

const TIMEOUT: Duration = Duration::from_secs(60);

/// How many rows, and how often.
#[derive(Args, Debug)]
pub struct FormatsArgs {
    /// Batches of 100,000 rows in each round.
    #[arg(long, value_name = "N", default_value_t = 10)]
    batches: u64,
    /// Rounds of every format.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A row for formats that go row by row.
#[derive(Row, Serialize)]
struct ClickRow<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    occurred_at: i64,
    received_at: i64,
    user_id: &'a str,
    session_id: Option<&'a str>,
    device_id: Option<&'a str>,
    ip: Option<&'a str>,
    country: Option<&'a str>,
    user_agent: Option<&'a str>,
    page: Option<&'a str>,
    element: Option<&'a str>,
    item_id: Option<&'a str>,
    referrer: Option<&'a str>,
    campaign: Option<&'a str>,
    _topic: &'a str,
    _partition: i32,
    _offset: i64,
    _n: u32,
    _epoch: u32,
    _appended_at: i64,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Format {
    Native,
    RowBinary,
    JsonEachRow,
}

const FORMATS: &[(Format, &str)] = &[
    (
        Format::Native,
        "Native, columns of ours, LowCardinality with dictionaries",
    ),
    (
        Format::RowBinary,
        "RowBinary, typed rows of the crate clickhouse",
    ),
    (Format::JsonEachRow, "JSONEachRow, serde_json"),
];

/// CPU-seconds of one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    client: f64,
    clickhouse: f64,
}

#[derive(Debug, Serialize)]
struct Contender {
    name: &'static str,
    samples: Vec<Sample>,
}

/// Runs all rounds and prints the table.
pub async fn run(args: FormatsArgs) -> anyhow::Result<()> {
    let nothing = Filling {
        events: 0,
        partitions: 1,
        padding_bytes: 0,
        rate: None,
    };
    let mut scene = Scene::start(nothing).await?;
    let clicks: Vec<ClickEvent<'static>> = kept_events()?
        .into_iter()
        .filter_map(|event| match event {
            Event::Click(click) => Some(click),
            Event::Watch(_) => None,
        })
        .collect();
    scene.events = args.batches * clicks.len() as u64;
    let mut contenders: Vec<Contender> = Vec::new();
    for round in 1..=args.rounds {
        for (index, (format, name)) in FORMATS.iter().enumerate() {
            scene.reset().await?;
            let sample = measure(&scene, *format, &clicks, args.batches).await?;
            eprintln!("round {round} of {}: {name}: {sample:.2?}", args.rounds);
            if contenders.len() == index {
                let samples = Vec::new();
                contenders.push(Contender { name, samples });
            }
            contenders[index].samples.push(sample);
        }
    }
    println!("{}", markdown(&contenders, scene.events as f64));
    println!("\n{}", scene.versions().await?.join(" · "));
    scene.end().await?;
    if let Some(path) = &args.json {
        write_json(path, &contenders)?;
    }
    Ok(())
}

fn markdown(contenders: &[Contender], events: f64) -> String {
    let mut text = format!(
        "{} clicks in batches of 100,000 rows; CPU-seconds for a million rows, median; merges among ClickHouse's.\n\n\
         | format | client s/M | ClickHouse s/M | rows per CPU-second of both |\n|---|---|---|---|\n",
        thousands(events)
    );
    for contender in contenders {
        let of = |part: fn(&Sample) -> f64| {
            Spread::of(
                contender
                    .samples
                    .iter()
                    .map(|sample| part(sample) / events * 1e6),
            )
            .median
        };
        let both = of(|sample| sample.client + sample.clickhouse);
        text.push_str(&format!(
            "| {} | {:.2} | {:.2} | {} |\n",
            contender.name,
            of(|sample| sample.client),
            of(|sample| sample.clickhouse),
            thousands(1e6 / both)
        ));
    }
    text
}

async fn measure(
    scene: &Scene,
    format: Format,
    clicks: &[ClickEvent<'_>],
    batches: u64,
) -> anyhow::Result<Sample> {
    let before = own_cpu_seconds()?;
    let mut client = 0.0;
    let used = scene
        .measure(Default::default(), async {
            for batch in 0..batches {
                match format {
                    Format::Native => native(scene, clicks, batch).await?,
                    Format::RowBinary => row_binary(scene, clicks, batch).await?,
                    Format::JsonEachRow => json_each_row(scene, clicks, batch).await?,
                }
            }
            client = own_cpu_seconds()? - before;
            let found = rows(&scene.database).await?;
            ensure!(found == scene.events, "{found} of {} rows", scene.events);
            Ok(())
        })
        .await?;
    Ok(Sample {
        client,
        clickhouse: used.of("clickhouse"),
    })
}

/// CPU-seconds of this process so far.
fn own_cpu_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

async fn native(scene: &Scene, clicks: &[ClickEvent<'_>], batch: u64) -> anyhow::Result<()> {
    let (mut group, mut out) = (
        Plain::new(&Settings::default(), CLICKS),
        Output::new(Plain::TABLES),
    );
    for (offset, click) in offsets(clicks, batch) {
        out.begin_event(offset, click.received_at);
        let received = Received {
            topic: CLICKS,
            partition: 0,
            offset,
            appended_at_ms: click.received_at,
            headers: &NoHeaders,
            input: Input::Event(Event::Click(click.clone())),
        };
        group.process(&received, &mut out)?;
    }
    let topic = scene.topic();
    let origin = Origin {
        topic: &topic,
        partition: 0,
        epoch: 1,
    };
    for table in out.take().0 {
        let block: Arc<[Bytes]> = table
            .into_native_block(&origin)
            .into_iter()
            .map(Bytes::from)
            .collect();
        let token = format!("formats/{}", scene.fresh_group());
        let insert = Insert {
            table: "plain_clicks",
            block,
            token: &token,
            timeout: TIMEOUT,
        };
        scene.database.insert(&insert).await?;
    }
    Ok(())
}

async fn row_binary(scene: &Scene, clicks: &[ClickEvent<'_>], batch: u64) -> anyhow::Result<()> {
    let (client, topic) = (scene.database.client(), scene.topic());
    let client = client.with_validation(false);
    let mut insert = client.insert::<ClickRow<'_>>("plain_clicks").await?;
    for (offset, click) in offsets(clicks, batch) {
        insert.write(&row(click, offset, &topic)?).await?;
    }
    insert.end().await?;
    Ok(())
}

async fn json_each_row(scene: &Scene, clicks: &[ClickEvent<'_>], batch: u64) -> anyhow::Result<()> {
    let topic = scene.topic();
    let mut lines = Vec::new();
    for (offset, click) in offsets(clicks, batch) {
        serde_json::to_writer(&mut lines, &row(click, offset, &topic)?)?;
        lines.push(b'\n');
    }
    let sql = "INSERT INTO plain_clicks FORMAT JSONEachRow";
    let mut insert = scene.database.client().insert_formatted_with(sql);
    insert.send(lines.into()).await?;
    insert.end().await?;
    Ok(())
}

/// Offsets that no other batch of the round has.
fn offsets<'c, 'a>(
    clicks: &'c [ClickEvent<'a>],
    batch: u64,
) -> impl Iterator<Item = (i64, &'c ClickEvent<'a>)> {
    let first = (batch * clicks.len() as u64) as i64;
    (first..).zip(clicks)
}

fn row<'a>(click: &ClickEvent<'a>, offset: i64, topic: &'a str) -> anyhow::Result<ClickRow<'a>> {
    Ok(ClickRow {
        event_id: Uuid::try_parse(click.event_id)?,
        occurred_at: click.occurred_at,
        received_at: click.received_at,
        user_id: click.user_id,
        session_id: click.session_id,
        device_id: click.device_id,
        ip: click.ip,
        country: click.country,
        user_agent: click.user_agent,
        page: click.page,
        element: click.element,
        item_id: click.item_id,
        referrer: click.referrer,
        campaign: click.campaign,
        _topic: topic,
        _partition: 0,
        _offset: offset,
        _n: 0,
        _epoch: 1,
        _appended_at: click.received_at,
    })
}
