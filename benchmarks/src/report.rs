//! A comparison as a Markdown table and as JSON: minimum, median and maximum of every contender's rounds, and its ratio to the first one.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::scene::Sample;

/// One contender's rounds.
#[derive(Debug, Serialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub promise: &'static str,
    /// One for each round.
    pub samples: Vec<Sample>,
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct CatchUp {
    /// Rows that each contender writes in each round.
    pub events: u64,
    /// Partitions of the topic.
    pub partitions: u16,
    /// Names and versions of what took part.
    pub versions: Vec<String>,
    /// Ours first: ratios are to it.
    pub contenders: Vec<Contender>,
}

/// Least, middle and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Least.
    pub min: f64,
    /// The middle one; of an even number the mean of the two.
    pub median: f64,
    /// Most.
    pub max: f64,
}

impl Spread {
    /// Of any number of values; of none all zero.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self {
                min: 0.0,
                median: 0.0,
                max: 0.0,
            };
        };
        let middle = sorted.len() / 2;
        Self {
            min: *min,
            median: f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[middle]),
            max: *max,
        }
    }
}

impl Sample {
    /// CPU-seconds of what carries rows: the consumer, where there is one, and ClickHouse.
    fn carrying(&self) -> f64 {
        self.of("consumer") + self.of("clickhouse")
    }
}

impl CatchUp {
    /// Rows per CPU-second of consumer and ClickHouse together.
    fn rows_per_cpu_second(&self, contender: &Contender) -> Spread {
        let rows = self.events as f64;
        Spread::of(
            contender
                .samples
                .iter()
                .map(|sample| rows / sample.carrying()),
        )
    }

    /// The table.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{} clicks in {} partitions, {} rounds in turns; rows per CPU-second of consumer and ClickHouse together, median (min–max); merges are waited for.\n\n\
             | contender | promise | rows/CPU-s | ours ÷ this | rows/CPU-s of the consumer | consumer s/M | ClickHouse s/M | Kafka s/M | rows/s | parts | peak memory MB |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
            thousands(self.events as f64),
            self.partitions,
            self.contenders
                .first()
                .map_or(0, |first| first.samples.len()),
        );
        let ours = self
            .contenders
            .first()
            .map(|first| self.rows_per_cpu_second(first).median);
        for contender in &self.contenders {
            text.push_str(&self.line(contender, ours.unwrap_or(0.0)));
        }
        text.push_str(&format!("\n{}\n", self.versions.join(" · ")));
        text
    }

    fn line(&self, contender: &Contender, ours: f64) -> String {
        let millions = self.events as f64 / 1e6;
        let samples = || contender.samples.iter();
        let per_million = |process: &'static str| {
            let spread = Spread::of(samples().map(|sample| sample.of(process) / millions));
            if spread.max > 0.0 {
                format!("{:.2}", spread.median)
            } else {
                "–".to_owned()
            }
        };
        let consumer = Spread::of(samples().map(|sample| sample.of("consumer")));
        let alone = if consumer.median > 0.0 {
            thousands(self.events as f64 / consumer.median)
        } else {
            "–".to_owned()
        };
        let rows = self.rows_per_cpu_second(contender);
        let speed = Spread::of(samples().map(|sample| self.events as f64 / sample.seconds));
        let parts = Spread::of(samples().map(|sample| sample.parts as f64));
        let memory = Spread::of(samples().map(|sample| sample.peak_memory_bytes as f64 / 1e6));
        format!(
            "| {} | {} | {} ({}–{}) | {:.2} | {alone} | {} | {} | {} | {} | {:.0} | {:.0} |\n",
            contender.name,
            contender.promise,
            thousands(rows.median),
            thousands(rows.min),
            thousands(rows.max),
            ours / rows.median,
            per_million("consumer"),
            per_million("clickhouse"),
            per_million("kafka"),
            thousands(speed.median),
            parts.median,
            memory.max,
        )
    }
}

/// Writes all samples.
pub fn write_json(path: &Path, run: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(run)?;
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

/// 1234567.8 as 1,234,568.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            spread,
            Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            }
        );
        assert_eq!(Spread::of([5.0]).median, 5.0);
        assert_eq!(Spread::of([]).max, 0.0);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            [999.6, 1_000.0, 1_234_567.0].map(thousands),
            ["1,000", "1,000", "1,234,567"]
        );
    }
}
