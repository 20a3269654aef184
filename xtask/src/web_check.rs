//! `cargo xtask web-check`: the kernels in Chromium's WebGPU, by the program `anybit-web-check` of the tests.

use std::path::Path;
use std::process::Command;

use crate::bench;
use crate::cli::WebCheckArguments;
use crate::process::{self, Failure, repository_root};
use crate::setup;
use crate::test::{self, PROFILE};

const PROGRAM: &str = "anybit-web-check";

/// The program's exit code where the browser does not start or has no WebGPU. It has said why.
pub(crate) const SKIPPED: u8 = 77;

/// `cargo xtask web-check`.
pub(crate) fn run(arguments: &WebCheckArguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.json {
        bench::check_writable_place(file)?;
    }
    let browser = setup::browser(false)?;
    let root = repository_root();
    test::build(&root)?;
    run_built(Path::new("."), &browser, arguments)
}

/// The same with the program that there is, in a folder, for `cargo xtask test`.
pub(crate) fn run_built(
    folder: &Path,
    browser: &Path,
    arguments: &WebCheckArguments,
) -> Result<(), Failure> {
    let program = process::built_program(PROGRAM, PROFILE)
        .ok_or_else(|| Failure::new(format!("{PROGRAM} is not built")))?;
    let mut command = Command::new(program);
    command.arg("--chromium").arg(browser).current_dir(folder);
    if let Some(filter) = &arguments.filter {
        command.arg("--filter").arg(filter);
    }
    if arguments.full {
        // Every pipeline takes a software adapter seconds.
        command.args(["--full", "--seconds", "14400"]);
    }
    if let Some(file) = &arguments.json {
        command.arg("--json").arg(file);
    }
    process::run(&mut command)
}
