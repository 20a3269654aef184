//! The examples of anybit, run as programs.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use super::{Outcome, PROFILE, adapter_required, benches};
use crate::cli::TestArguments;
use crate::process::{self, Failure, cargo};
use crate::setup;

/// The examples of anybit, each with an exit code that tells whether it went well.
pub(super) const EXAMPLES: [&str; 2] = ["own_device", "nested"];

/// How `anybit-benches adapters` says that there is none.
const NO_ADAPTER: &str = "no adapter";

/// Runs the examples on one adapter, or skips them where the GPU tests would be skipped.
pub(super) fn run(root: &Path, arguments: &TestArguments) -> Result<Outcome, Failure> {
    let choice = Choice::of(arguments, &|name| env::var_os(name));
    if !adapter_required() && choice.is_free() {
        if let Err(failure) = process::capture(benches(root).arg("adapters")) {
            if failure.to_string().contains(NO_ADAPTER) {
                return Ok(Outcome::Skipped("there is no adapter".to_owned()));
            }
            return Err(failure);
        }
    }
    for name in EXAMPLES {
        let mut command = example(name);
        choice.hand_to(command.current_dir(root));
        setup::name_driver(&arguments.choice, &mut command);
        process::run(&mut command)?;
    }
    Ok(Outcome::Passed)
}

/// An example of anybit, as a step before has built it.
fn example(name: &str) -> Command {
    process::built_program(&format!("examples/{name}"), PROFILE).map_or_else(
        || {
            let mut command = cargo();
            command.args(["run", "--profile", PROFILE, "--package", "anybit"]);
            command.args(["--example", name]);
            command
        },
        Command::new,
    )
}

/// What the command line, or else the environment of the GPU tests, says of the adapter. Examples are told in the
/// variables of wgpu.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    backend: Option<OsString>,
    name: Option<OsString>,
}

impl Choice {
    fn of(arguments: &TestArguments, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let backend = arguments.choice.backend.map(|chosen| chosen.name().into());
        let name = arguments.choice.adapter.as_ref().map(OsString::from);
        Self {
            backend: backend.or_else(|| variable("ANYBIT_BACKEND")),
            name: name.or_else(|| variable("ANYBIT_ADAPTER").filter(|_| !arguments.all_adapters)),
        }
    }

    /// Any adapter will do.
    fn is_free(&self) -> bool {
        self.backend.is_none() && self.name.is_none()
    }

    fn hand_to(&self, command: &mut Command) {
        for (variable, value) in [
            ("WGPU_BACKEND", &self.backend),
            ("WGPU_ADAPTER_NAME", &self.name),
        ] {
            if let Some(value) = value {
                command.env(variable, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Task};
    use clap::Parser;

    #[test]
    fn examples_run_on_the_adapter_of_the_tests() {
        let chosen = |line: &[&str], variables: &[(&str, &str)]| {
            let Ok(Cli {
                task: Task::Test(arguments),
            }) = Cli::try_parse_from(line)
            else {
                panic!("{line:?} is a test command");
            };
            let adapter = Choice::of(&arguments, &|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name)?;
                Some(found.1.into())
            });
            let mut command = Command::new("example");
            adapter.hand_to(&mut command);
            (adapter.is_free(), process::line(&command))
        };
        let free = (true, "example".to_owned());
        assert_eq!(chosen(&["xtask", "test"], &[]), free);
        let environment = [("ANYBIT_BACKEND", ""), ("ANYBIT_ADAPTER", "llvmpipe")];
        let of_environment = (false, "WGPU_ADAPTER_NAME=llvmpipe example".to_owned());
        assert_eq!(chosen(&["xtask", "test"], &environment), of_environment);
        assert_eq!(
            chosen(&["xtask", "test", "--all-adapters"], &environment),
            free
        );
        let line = ["xtask", "test", "--backend", "gl", "--adapter", "nvidia"];
        assert_eq!(
            chosen(&line, &environment).1,
            "WGPU_ADAPTER_NAME=nvidia WGPU_BACKEND=gl example"
        );
    }
}
