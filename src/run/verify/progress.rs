//! How far a verification is, on a terminal.
#![expect(
    clippy::disallowed_methods,
    reason = "it measures how long the last line is ago"
)]

use std::time::{Duration, Instant};
use windrow_core::verify::report::Report;

/// How far a verification is, as one line on a terminal that is written again and again.
pub struct ProgressLine {
    is_terminal: bool,
    shown_at: Option<Instant>,
}

impl ProgressLine {
    /// Shows nothing where standard error is not a terminal.
    #[must_use]
    pub fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            shown_at: None,
        }
    }

    /// Writes the line, at most ten times a second.
    pub fn show(&mut self, report: &Report) {
        let is_recent = |at: Instant| at.elapsed() < Duration::from_millis(100);
        if !self.is_terminal || self.shown_at.is_some_and(is_recent) {
            return;
        }
        self.shown_at = Some(Instant::now());
        let full = usize::from(report.percent) / 5;
        eprint!(
            "\r\x1b[K[{}{}] {:3} %  {}",
            "#".repeat(full),
            " ".repeat(20 - full),
            report.percent,
            report.doing
        );
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
