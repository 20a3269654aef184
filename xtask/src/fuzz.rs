//! `cargo xtask fuzz`, which a program of `anybit-tests` carries out.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::cli::FuzzArguments;
use crate::process::{self, Failure, cargo, repository_root};
use crate::test::PROFILE;

/// The package with the program.
pub(crate) const PACKAGE: &str = "anybit-tests";

/// The program.
pub(crate) const PROGRAM: &str = "anybit-fuzz";

/// The file in which a run keeps the input at hand. One that is left was being read when the process ended.
const RUNNING: &str = "running";

/// `cargo xtask fuzz`.
pub(crate) fn run(arguments: &FuzzArguments) -> Result<(), Failure> {
    let mut command = cargo();
    command
        .args(["run", "--profile", PROFILE, "--package", PACKAGE])
        .args(["--bin", PROGRAM, "--"])
        .args(arguments.forwarded());
    run_program(&mut command)
}

/// Runs the program. An input that ends the process (a stack that overflows, memory that is not to be had) is named as
/// those are that the program sees fail.
pub(crate) fn run_program(command: &mut Command) -> Result<(), Failure> {
    let result = process::run(command);
    if result.is_err() {
        let folder = Path::new("tests/fuzz/artifacts");
        for target in aborted(&repository_root().join(folder)) {
            println!("{target}: the process ended in the middle of an input; to see it again:");
            let file = folder.join(&target).join(RUNNING);
            println!(
                "  cargo xtask fuzz --target {target} --input {}",
                file.display()
            );
        }
    }
    result
}

/// The targets with an input that was being read when the process ended.
fn aborted(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut targets: Vec<String> = entries
        .filter(|entry| entry.path().join(RUNNING).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    targets
}

impl FuzzArguments {
    /// The flags as the program takes them.
    fn forwarded(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(target) = &self.target {
            flags.extend(["--target".into(), target.into()]);
        }
        if let Some(input) = &self.input {
            flags.extend(["--input".into(), input.into()]);
            return flags;
        }
        if let Some(folder) = &self.write_seeds {
            flags.extend(["--write-seeds".into(), folder.into()]);
            return flags;
        }
        match self.runs {
            Some(runs) => flags.extend(["--runs".into(), runs.to_string().into()]),
            None => flags.extend(["--seconds".into(), self.seconds.to_string().into()]),
        }
        flags.extend(["--seed".into(), self.seed.to_string().into()]);
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Task};

    fn forwarded(line: &str) -> String {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Fuzz(arguments)) => {
                let flags = arguments.forwarded();
                flags.join(" ".as_ref()).to_string_lossy().into_owned()
            }
            other => panic!("expected a fuzzing run, got {other:?}"),
        }
    }

    #[test]
    fn every_flag_is_handed_on() {
        for flags in [
            "--target gguf --seconds 5 --seed 7",
            "--runs 100 --seed 1",
            "--target npy --input tests/fuzz/corpus/npy/a",
            "--write-seeds seeds",
        ] {
            assert_eq!(forwarded(&format!("xtask fuzz {flags}")), flags);
        }
        assert_eq!(forwarded("xtask fuzz"), "--seconds 60 --seed 1");
    }

    #[test]
    fn inputs_that_end_the_process_are_found() {
        let folder = std::env::temp_dir().join(format!("anybit-xtask-{}", std::process::id()));
        for (target, file) in [("gguf", "panic-1"), ("npy", RUNNING), ("linker", RUNNING)] {
            let folder = folder.join(target);
            std::fs::create_dir_all(&folder).expect("a folder to write");
            std::fs::write(folder.join(file), "input").expect("a file to write");
        }
        assert_eq!(aborted(&folder), ["linker", "npy"]);
        std::fs::remove_dir_all(&folder).expect("it is there");
        assert_eq!(aborted(&folder), [""; 0]);
    }
}
