//! `activity tail`: what people type, and what they see: a line for each event on a terminal, NDJSON in a pipe.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use activity_operator::tail::{self, Condition, Filter, From, Line, Request, Stream};
use activity_platform::settings::Targets;
use clap::{Args, ValueEnum};
use owo_colors::{OwoColorize, Style};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::Verdict;
use crate::cli::Output;

/// What it looks like.
pub const EXAMPLES: &str = "Examples:
  activity tail clicks                                  # as they come in, until Ctrl-C
  activity tail watches --where action=complete -n 10   # the next ten that were seen to the end
  activity tail clicks --user user-17 --from 10m        # what one user did in the last ten minutes, and from now on
  activity tail clicks --from beginning | jq .country   # JSON, one object a line, where nobody looks
  activity tail dead-letters --from beginning --where reason=truncated";

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// Every click.
    Clicks,
    /// Every watch event.
    Watches,
    /// Suspicions of the group fraud, as they are opened and go on.
    Alerts,
    /// What groups did not take, and why.
    DeadLetters,
}

/// `activity tail`
#[derive(Args, Debug)]
pub struct TailArgs {
    /// What to look at.
    #[arg(value_enum)]
    source: Source,
    /// Only of this user; of alerts: about this actor.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only where a field has this value (country=NO); with nothing after the =, where it has none. Several must all hold.
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<Condition>,
    /// Where to begin: `beginning`, `end` (what comes in from now on), or a time by the brokers' clock (2026-11-22T08:00:00Z, or how long ago: 10m).
    #[arg(long, value_name = "PLACE", default_value = "end")]
    from: From,
    /// End after so many.
    #[arg(short = 'n', long = "lines", value_name = "N")]
    lines: Option<u64>,
    /// `table`: a line for people; `json`: an object a line. Default: table on a terminal, json elsewhere.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// `activity tail`
pub async fn run(
    args: &TailArgs,
    targets: &Targets,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    let stream = match args.source {
        Source::Clicks => Stream::Clicks,
        Source::Watches => Stream::Watches,
        Source::Alerts => Stream::Alerts,
        Source::DeadLetters => Stream::DeadLetters,
    };
    let request = Request {
        stream,
        from: args.from,
        filter: Filter {
            user: args.user.clone(),
            conditions: args.conditions.clone(),
        },
        lines_max: args.lines,
    };
    let terminal = io::stdout().is_terminal();
    let output = args.output.unwrap_or(if terminal {
        Output::Table
    } else {
        Output::Json
    });
    let prefix = targets.kafka.topic_prefix.clone();
    let show = move |line: &Line| {
        let text = match output {
            Output::Json => serde_json::to_string(line).unwrap_or_default(),
            Output::Table => for_people(line, stream, &prefix),
        };
        // Strips the colours where nobody sees them. Whoever went away (`| head`) wants no more.
        match writeln!(anstream::stdout(), "{text}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    tail::run(targets, request, stop, show).await?;
    Ok(Verdict::Done)
}

/// Fields that stand in front, in this order; the others follow with their names.
fn front(stream: Stream) -> &'static [&'static str] {
    match stream {
        Stream::Clicks => &["user_id", "country", "page", "element", "item_id"],
        Stream::Watches => &["user_id", "country", "action", "video_id", "position_ms"],
        Stream::Alerts => &["state", "kind", "actor", "score", "reasons"],
        Stream::DeadLetters => &["group", "reason", "error"],
    }
}

/// Fields that are too long for a line, or said already.
const LEFT_OUT: &[&str] = &[
    "payload",
    "user_agent",
    "event_id",
    "received_at",
    "occurred_at",
];

/// One line, coloured.
fn for_people(line: &Line, stream: Stream, prefix: &str) -> String {
    let topic = line.topic.strip_prefix(prefix).unwrap_or(&line.topic);
    let dim = Style::new().dimmed();
    let at = line.appended_at.strftime("%H:%M:%S%.3f").to_string();
    let mut text = format!(
        "{} {}",
        at.style(dim),
        format!("{}/{}@{}", shown(topic), line.partition, line.offset).style(dim)
    );
    if let Some(why) = &line.undecodable {
        let key = why.key.as_deref().unwrap_or("-");
        let what = format!("undecodable: {}: {}", why.reason, shown(&why.error));
        text.push_str(&format!(
            " {} {}",
            shown(key),
            what.style(Style::new().red())
        ));
        return text;
    }
    let front = front(stream);
    for (index, name) in front.iter().enumerate() {
        let style = if index == 0 {
            Style::new().cyan()
        } else {
            Style::new().bold()
        };
        let value = line.fields.get(*name).map_or("-".to_owned(), value);
        text.push_str(&format!(" {}", value.style(style)));
    }
    let others = line.fields.iter().filter(|(name, value)| {
        !front.contains(&name.as_str()) && !LEFT_OUT.contains(&name.as_str()) && !value.is_null()
    });
    for (name, found) in others {
        text.push_str(&format!(
            " {}{}",
            format!("{name}=").style(dim),
            value(found)
        ));
    }
    text
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => shown(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(self::value).collect();
            format!("[{}]", values.join("; "))
        }
        other => other.to_string(),
    }
}

/// What clients send must not command the terminal.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: Value) -> Line {
        serde_json::from_value::<serde_json::Map<String, Value>>(fields)
            .map(|fields| Line {
                appended_at: "2026-11-22T08:00:00.25Z".parse().unwrap(),
                topic: "activity.clicks".to_owned(),
                partition: 2,
                offset: 7,
                fields,
                undecodable: None,
            })
            .unwrap()
    }

    fn plain(line: &Line) -> String {
        let mut bytes = Vec::new();
        let mut stripped = anstream::StripStream::new(&mut bytes);
        write!(
            stripped,
            "{}",
            for_people(line, Stream::Clicks, "activity.")
        )
        .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_for_people_has_what_matters_in_front() {
        let fields = serde_json::json!({"user_id": "u1", "page": "/", "item_id": null, "country": "NO", "campaign": "x", "event_id": "e"});
        assert_eq!(
            plain(&line(fields)),
            "08:00:00.250 clicks/2@7 u1 NO / - - campaign=x"
        );
    }

    #[test]
    fn what_a_client_sends_does_not_command_the_terminal() {
        let told = for_people(
            &line(serde_json::json!({"user_id": "\u{1b}[2Jü\n"})),
            Stream::Clicks,
            "",
        );
        assert!(told.contains("\\u{1b}[2Jü\\n"), "{told:?}");
    }

    #[test]
    fn a_message_that_cannot_be_decoded_says_why() {
        let undecodable = tail::Undecodable {
            reason: "wrong_magic".to_owned(),
            error: "the first byte is 0x07".to_owned(),
            key: Some("u1".to_owned()),
            payload: None,
        };
        let line = Line {
            undecodable: Some(undecodable),
            ..line(serde_json::json!({}))
        };
        assert_eq!(
            plain(&line),
            "08:00:00.250 clicks/2@7 u1 undecodable: wrong_magic: the first byte is 0x07"
        );
    }
}
