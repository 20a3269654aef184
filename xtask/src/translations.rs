//! `cargo xtask shaders`: every kernel in the languages that drivers are fed, by the program `anybit-translate` of the tests.

use std::path::Path;
use std::process::Command;

use crate::process::{self, Failure, repository_root};
use crate::test::{self, PROFILE};

const PROGRAM: &str = "anybit-translate";
/// Hashes of the translations.
const GOLDEN: &str = "tests/golden/translations.json";

/// Builds the program and runs it.
pub(crate) fn run(update: bool) -> Result<(), Failure> {
    let root = repository_root();
    test::build(&root)?;
    run_built(&root, update)
}

/// The same with the program that there is, for `cargo xtask test`.
pub(crate) fn run_built(root: &Path, update: bool) -> Result<(), Failure> {
    let program = process::built_program(PROGRAM, PROFILE)
        .ok_or_else(|| Failure::new(format!("{PROGRAM} is not built")))?;
    let mut command = Command::new(program);
    command.args(["--golden", GOLDEN]).current_dir(root);
    if update {
        command.arg("--update");
    }
    process::run(&mut command)
}
