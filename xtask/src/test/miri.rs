//! Tests under miri, which interprets them and finds undefined behaviour, where it is installed.

use std::path::Path;
use std::process::Command;

use super::Outcome;
use crate::process::{self, Failure};

/// Miri comes with nightly compilers alone.
const TOOLCHAIN: &str = "nightly";

/// `cargo miri test` of the packages whose arithmetic everything else rests on.
pub(super) fn run(root: &Path) -> Result<Outcome, Failure> {
    if let Err(failure) = process::capture(miri(root).arg("--version")) {
        return Ok(Outcome::Skipped(format!(
            "miri is not installed; run `rustup toolchain install {TOOLCHAIN} --component miri`: {}",
            last_line(&failure)
        )));
    }
    // It builds the standard library, of which the sources may be missing.
    if let Err(failure) = process::capture(miri(root).arg("setup")) {
        return Ok(Outcome::Skipped(format!(
            "miri has no standard library; run `rustup +{TOOLCHAIN} component add rust-src`: {}",
            last_line(&failure)
        )));
    }
    for package in ["anybit-formats", "anybit-reference"] {
        let mut command = miri(root);
        // Most tests look at all codes, which would take hours; this file is made for the interpreter.
        command.args(["test", "--package", package, "--no-default-features"]);
        command.args(["--test", "small"]);
        process::run(&mut command)?;
    }
    Ok(Outcome::Passed)
}

/// `cargo miri` of the other toolchain. Cargo itself takes `+nightly` only through rustup, and this process may have been
/// started by the cargo of another.
fn miri(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", TOOLCHAIN, "cargo", "miri"])
        .current_dir(root);
    command
}

fn last_line(failure: &Failure) -> String {
    let text = failure.to_string();
    text.lines().last().unwrap_or_default().trim().to_owned()
}
