//! The rules with their minutes made seconds, so that a fault is judged within seconds by the same expressions. Pure.

/// The text of a rules file with every duration (`for: 5m`, `[5m]`, `offset 1h`) a sixtieth of what it was.
pub fn shortened(rules: &str) -> String {
    let lines: Vec<String> = rules
        .lines()
        .map(|line| {
            let code = line.trim_start();
            let has_durations = code.starts_with("expr:") || code.starts_with("for:");
            if has_durations {
                sixtieths(line)
            } else {
                line.to_owned()
            }
        })
        .collect();
    lines.join("\n") + "\n"
}

/// A number that ends in m or h, and is no part of a longer word, is that many seconds or minutes.
fn sixtieths(line: &str) -> String {
    let mut shortened = String::with_capacity(line.len());
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let mut words = line.split_inclusive(|c: char| !is_word(c));
    for word in &mut words {
        let bare = word.trim_end_matches(|c: char| !is_word(c));
        shortened.push_str(&sixtieth(bare).unwrap_or_else(|| bare.to_owned()));
        shortened.push_str(&word[bare.len()..]);
    }
    shortened
}

fn sixtieth(word: &str) -> Option<String> {
    let unit = word.chars().last()?;
    let smaller = match unit {
        'm' => 's',
        'h' => 'm',
        _ => return None,
    };
    let number = word.strip_suffix(unit)?;
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    is_number.then(|| format!("{number}{smaller}"))
}

#[test]
fn minutes_become_seconds_and_hours_minutes_and_nothing_else_changes() {
    let rules = r#"
      - alert: A
        expr: sum(rate(a_5m_total{b="2h"}[10m] offset 1h)) / 1000 > 60
        for: 5m
        annotations:
          summary: "within 5m"
"#;
    let expected = rules
        .replace("[10m]", "[10s]")
        .replace("offset 1h", "offset 1m")
        .replace("for: 5m", "for: 5s")
        .replace(r#""2h""#, r#""2m""#);
    assert_eq!(shortened(rules), expected);
}
