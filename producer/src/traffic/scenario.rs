//! Scenarios: how much of what there is in the traffic, over model time. Small TOML files, some of them shipped in `producer/scenarios/`.
//!
//! What a file does not say is as in `ordinary.toml`. Shares and rates are written as fractions and become integers when they are read, so that the model
//! computes in nothing else. Everything that can be wrong with a file is found when it is read; an unknown key is an error.

use std::{collections::BTreeMap, path::MAIN_SEPARATOR};

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::cast::CAST;

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scenarios");

/// The scenario of those who name none, and the ground on which all others stand.
pub const ORDINARY: &str = "ordinary";

/// More than that is no traffic of people with attackers in it any more.
const ACTORS_MAX: f64 = 0.9;
const FACTOR_MAX: f64 = 1_000.0;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, or not the TOML of a scenario.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that makes no sense.
    #[error("{name}: {why}")]
    Value {
        /// The key.
        name: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// No scenario of that name is shipped.
    #[error(
        "no scenario is called {name:?}; shipped are {shipped}, --scenario also takes the path of a file"
    )]
    NotShipped {
        /// What was asked for.
        name: String,
        /// What there is.
        shipped: String,
    },
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
}

/// A scenario that has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// For people.
    pub about: String,
    pub(crate) shoppers_per_thousand: u32,
    pub(crate) bounces_per_thousand: u32,
    pub(crate) newcomers_per_thousand: u32,
    /// Shares of all events, per million, in the order of the cast.
    pub(crate) actors_per_million: [u32; CAST.len()],
    pub(crate) offline_per_million: u32,
    pub(crate) delayed_per_million: u32,
    /// Share of events that arrive twice, per million.
    pub duplicates_per_million: u32,
    pub(crate) skewed_clocks_per_thousand: u32,
    phases: Vec<Phase>,
    repeat_ms: Option<i64>,
}

/// What holds from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    from_ms: i64,
    pub(crate) rate_per_thousand: u32,
    pub(crate) attacks_per_thousand: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    people: People,
    actors: BTreeMap<String, f64>,
    imperfections: Imperfections,
    phases: Vec<PhaseText>,
    #[serde(default)]
    repeat: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct People {
    shoppers: f64,
    bounces: f64,
    newcomers: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imperfections {
    offline: f64,
    delayed: f64,
    duplicates: f64,
    skewed_clocks: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseText {
    from: String,
    rate: f64,
    #[serde(default = "usual")]
    attacks: f64,
}

fn usual() -> f64 {
    1.0
}

impl Scenario {
    /// Reads a scenario from its text.
    ///
    /// # Errors
    /// [`ScenarioError`], with what to do about it.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut table: toml::Table = toml::from_str(shipped(ORDINARY).unwrap_or_default())?;
        overlay(&mut table, toml::from_str(text)?);
        let file: File = table.try_into()?;
        let Imperfections {
            offline,
            delayed,
            duplicates,
            skewed_clocks,
        } = file.imperfections;
        Ok(Self {
            about: file.about,
            shoppers_per_thousand: share("shoppers", file.people.shoppers, 1_000)?,
            bounces_per_thousand: share("bounces", file.people.bounces, 1_000)?,
            newcomers_per_thousand: share("newcomers", file.people.newcomers, 1_000)?,
            actors_per_million: actors(&file.actors)?,
            offline_per_million: share("offline", offline, 1_000_000)?,
            delayed_per_million: share("delayed", delayed, 1_000_000)?,
            duplicates_per_million: share("duplicates", duplicates, 1_000_000)?,
            skewed_clocks_per_thousand: share("skewed_clocks", skewed_clocks, 1_000)?,
            phases: phases(&file.phases)?,
            repeat_ms: file.repeat.map(|text| span("repeat", &text)).transpose()?,
        })
    }

    /// The scenario that this names: a shipped one, or the path of a file.
    ///
    /// # Errors
    /// If there is no such scenario or it cannot be used.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        if name.ends_with(".toml") || name.contains(MAIN_SEPARATOR) {
            let text =
                std::fs::read_to_string(name).map_err(|cause| ScenarioError::Unreadable {
                    path: name.to_owned(),
                    cause,
                })?;
            return Self::parse(&text);
        }
        match shipped(name) {
            Some(text) => Self::parse(text),
            None => Err(ScenarioError::NotShipped {
                name: name.to_owned(),
                shipped: shipped_names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// What holds so long after the start.
    pub(crate) fn phase(&self, since_start_ms: i64) -> Phase {
        let at_ms = match self.repeat_ms {
            Some(repeat_ms) => since_start_ms.rem_euclid(repeat_ms),
            None => since_start_ms,
        };
        let next = self.phases.partition_point(|phase| phase.from_ms <= at_ms);
        self.phases[next.saturating_sub(1)]
    }
}

impl Default for Scenario {
    fn default() -> Self {
        match Self::named(ORDINARY) {
            Ok(scenario) => scenario,
            // A test reads them all.
            Err(error) => unreachable!("the shipped scenario can be used: {error}"),
        }
    }
}

fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.get_file(format!("{name}.toml"))?.contents_utf8()
}

/// The names of the shipped scenarios.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED
        .files()
        .filter_map(|file| file.path().to_str()?.strip_suffix(".toml"))
}

/// Tables are merged, everything else is replaced.
fn overlay(ground: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (ground.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                ground.insert(key, value);
            }
        }
    }
}

fn wrong(name: &str, why: impl Into<String>) -> ScenarioError {
    ScenarioError::Value {
        name: name.to_owned(),
        why: why.into(),
    }
}

fn share(name: &str, share: f64, of: u32) -> Result<u32, ScenarioError> {
    if (0.0..=1.0).contains(&share) {
        Ok((share * f64::from(of)).round() as u32)
    } else {
        Err(wrong(name, "a share is a number from 0 to 1"))
    }
}

fn factor(name: &str, factor: f64) -> Result<u32, ScenarioError> {
    if (0.0..=FACTOR_MAX).contains(&factor) {
        Ok((factor * 1_000.0).round() as u32)
    } else {
        Err(wrong(name, format!("must be from 0 to {FACTOR_MAX}")))
    }
}

fn span(name: &str, text: &str) -> Result<i64, ScenarioError> {
    let span = humantime::parse_duration(text).map_err(|error| wrong(name, error.to_string()))?;
    i64::try_from(span.as_millis()).map_err(|_| wrong(name, "too long"))
}

fn actors(shares: &BTreeMap<String, f64>) -> Result<[u32; CAST.len()], ScenarioError> {
    if let Some(name) = shares
        .keys()
        .find(|name| CAST.iter().all(|habits| habits.name != *name))
    {
        let known: Vec<&str> = CAST.iter().map(|habits| habits.name).collect();
        let known = known.join(", ");
        return Err(wrong(
            name,
            format!("no actor is called so; there are: {known}"),
        ));
    }
    if shares.values().sum::<f64>() > ACTORS_MAX {
        return Err(wrong("actors", format!("together above {ACTORS_MAX}")));
    }
    let mut per_million = [0; CAST.len()];
    for (slot, habits) in per_million.iter_mut().zip(&CAST) {
        *slot = share(
            habits.name,
            shares.get(habits.name).copied().unwrap_or(0.0),
            1_000_000,
        )?;
    }
    Ok(per_million)
}

fn phases(texts: &[PhaseText]) -> Result<Vec<Phase>, ScenarioError> {
    let mut phases: Vec<Phase> = Vec::new();
    for text in texts {
        let phase = Phase {
            from_ms: span("from", &text.from)?,
            rate_per_thousand: factor("rate", text.rate)?,
            attacks_per_thousand: factor("attacks", text.attacks)?,
        };
        if phase.rate_per_thousand == 0 {
            return Err(wrong("rate", "must be at least 0.001"));
        }
        if phases
            .last()
            .is_some_and(|before| before.from_ms >= phase.from_ms)
        {
            return Err(wrong("from", "phases follow each other in time"));
        }
        phases.push(phase);
    }
    match phases.first() {
        Some(first) if first.from_ms == 0 => Ok(phases),
        _ => Err(wrong("phases", "the first phase is from = \"0s\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_can_be_used_and_says_what_it_is() {
        let names: Vec<&str> = shipped_names().collect();
        for name in [
            "ordinary",
            "black-friday",
            "bot-attack",
            "quiet-night",
            "rough-network",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for name in names {
            assert!(!Scenario::named(name).unwrap().about.is_empty());
        }
    }

    #[test]
    fn what_a_scenario_does_not_say_is_as_in_the_ordinary_one() {
        let ordinary = Scenario::default();
        let other = Scenario::parse("[actors]\nkiosk = 0.5").unwrap();
        assert_eq!(other.actors_per_million[10], 500_000);
        assert_eq!(
            Scenario {
                actors_per_million: ordinary.actors_per_million,
                ..other
            },
            ordinary
        );
    }

    #[test]
    fn phases_follow_each_other_and_repeat() {
        let waves = Scenario::named("bot-attack").unwrap();
        let attacks = |minute: i64| waves.phase(minute * 60_000).attacks_per_thousand;
        assert_eq!(
            [0, 29, 30, 49, 50, 60, 90].map(attacks),
            [500, 500, 10_000, 10_000, 1_000, 500, 10_000]
        );
    }

    #[test]
    fn a_scenario_that_makes_no_sense_is_refused_with_what_would_be_right() {
        let reasons: Vec<String> = [
            "weather = \"rain\"",
            "[people]\nrobots = 0.1",
            "[people]\nbounces = 3.0",
            "[actors]\nhacker = 0.1",
            "[actors]\nkiosk = 0.95",
            "[imperfections]\nlost = 0.1",
            "phases = []",
            "[[phases]]\nfrom = \"1h\"\nrate = 1.0",
            "[[phases]]\nfrom = \"0s\"\nrate = 0.0",
            "[[phases]]\nfrom = \"soon\"\nrate = 1.0",
            "repeat = 5",
        ]
        .iter()
        .map(|text| Scenario::parse(text).unwrap_err().to_string())
        .chain([Scenario::named("holiday").unwrap_err().to_string()])
        .collect();
        insta::assert_json_snapshot!(reasons);
    }
}
