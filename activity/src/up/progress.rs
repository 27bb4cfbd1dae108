//! What a person sees while services are fetched and started: a line for each step, a bar for each download.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use activity_devstack::{Progress, Stderr};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::print;

/// Bars on a terminal, lines elsewhere.
pub struct StackProgress {
    bars: MultiProgress,
    downloads: Mutex<HashMap<String, ProgressBar>>,
    lines: Option<Stderr>,
}

impl StackProgress {
    /// For this process's stderr.
    pub fn new() -> Self {
        let lines = (!print::is_terminal()).then(Stderr::default);
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            downloads: Mutex::default(),
            lines,
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        // A terminal that went away has nothing to clear.
        let _ = self.bars.clear();
    }
}

impl Progress for StackProgress {
    fn step(&self, message: &str) {
        match &self.lines {
            Some(lines) => lines.step(message),
            None => {
                let _ = self.bars.println(message);
            }
        }
    }

    fn download(&self, what: &str, bytes: u64, total_bytes: Option<u64>) {
        if let Some(lines) = &self.lines {
            return lines.download(what, bytes, total_bytes);
        }
        let mut downloads = self
            .downloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let bar = downloads.entry(what.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template(
                "fetching {msg:12} {wide_bar} {bytes} of {total_bytes}",
            ) {
                bar.set_style(style);
            }
            bar.with_message(what.to_owned())
        });
        bar.set_length(total_bytes.unwrap_or(bytes));
        bar.set_position(bytes);
        if total_bytes == Some(bytes) {
            bar.finish_and_clear();
        }
    }
}
