//! What is printed, and written as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anybit_tests::web::{Case, Outcome};
use serde_json::json;

use crate::server::Hello;

/// Warnings that are printed.
const WARNINGS: usize = 8;

/// Results by row of the table of kernels.
pub(crate) struct Report {
    browser: String,
    adapter: String,
    json: Option<BufWriter<File>>,
    rows: Vec<Row>,
    slowest: (Duration, String),
}

/// Results of one kernel.
#[derive(Debug, Default)]
struct Row {
    kernel: String,
    /// Exact, bounded, accepted, failed, refused.
    counts: [usize; 5],
    time: Duration,
    /// Cases that did not pass, with why.
    reasons: Vec<String>,
}

impl Report {
    pub(crate) fn new(hello: &Hello, json: Option<&Path>) -> Result<Self, String> {
        let create = |path: &Path| {
            File::create(path)
                .map(BufWriter::new)
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Self {
            browser: hello.browser.clone(),
            adapter: hello.adapter.clone(),
            json: json.map(create).transpose()?,
            rows: Vec::new(),
            slowest: (Duration::ZERO, String::new()),
        })
    }

    /// Takes a result up.
    pub(crate) fn note(
        &mut self,
        case: &Case,
        outcome: Outcome,
        time: Duration,
    ) -> Result<(), String> {
        if let Some(json) = &mut self.json {
            let line = json!({
                "case": case.id,
                "kernel": case.kernel,
                "contract": case.contract,
                "status": outcome.name(),
                "reason": outcome.reason(),
                "milliseconds": time.as_millis() as u64,
                "adapter": self.adapter,
                "browser": self.browser,
            });
            let written = writeln!(json, "{line}").and_then(|()| json.flush());
            written.map_err(|error| format!("the JSON file: {error}"))?;
        }
        if time > self.slowest.0 {
            self.slowest = (time, case.id.clone());
        }
        let known = self.rows.iter().position(|row| row.kernel == case.kernel);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Row {
                kernel: case.kernel.clone(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.time += time;
        row.counts[place(&outcome)] += 1;
        if let Some(reason) = outcome.reason() {
            row.reasons
                .push(format!("{}: {}: {reason}", case.id, outcome.name()));
        }
        Ok(())
    }

    /// Prints everything. Whether all passed.
    pub(crate) fn finish(mut self, warnings: &[String], time: Duration) -> bool {
        let width = self.rows.iter().map(|row| row.kernel.len()).max();
        let width = width.unwrap_or(0);
        let mut sums = [0; 5];
        for row in &self.rows {
            println!(
                "{:width$}  {}  ({:.1} s)",
                row.kernel,
                counted(row.counts),
                row.time.as_secs_f64()
            );
            for reason in &row.reasons {
                println!("    {reason}");
            }
            for (sum, count) in sums.iter_mut().zip(row.counts) {
                *sum += count;
            }
        }
        if !warnings.is_empty() {
            println!("{} different warnings of the compiler:", warnings.len());
            for warning in warnings.iter().take(WARNINGS) {
                println!("    {warning}");
            }
        }
        let flushed = self.json.as_mut().map_or(Ok(()), Write::flush);
        if let Err(error) = &flushed {
            println!("the JSON file was not written: {error}");
        }
        println!(
            "{} cases of {} kernels in {:.0} s on {}: {}; the slowest took {:.1} s: {}",
            sums.iter().sum::<usize>(),
            self.rows.len(),
            time.as_secs_f64(),
            self.adapter,
            counted(sums),
            self.slowest.0.as_secs_f64(),
            self.slowest.1
        );
        flushed.is_ok() && sums[3] + sums[4] == 0
    }
}

fn place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Exact => 0,
        Outcome::Bounded => 1,
        Outcome::Accepted => 2,
        Outcome::Failed(_) => 3,
        Outcome::Refused(_) => 4,
    }
}

fn counted([exact, bounded, accepted, failed, refused]: [usize; 5]) -> String {
    let mut parts = vec![format!("{exact} exact"), format!("{bounded} within bounds")];
    for (count, what) in [
        (accepted, "accepted by the compiler"),
        (failed, "FAILED"),
        (refused, "REFUSED by the compiler"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}
