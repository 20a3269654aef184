//! `cargo xtask`: the developer tasks of anybit.
//!
//! This package stays small so that it builds in seconds. Whatever touches a GPU lives in the
//! package `anybit-benches`, of which xtask spawns an optimised build.

mod bench;
mod cli;
mod fuzz;
mod isa;
mod matrix;
mod process;
mod setup;
mod test;
mod translations;
mod web_check;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Task};
use process::Failure;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.task {
        Task::Bench(arguments) => bench::run(arguments),
        Task::Tune(arguments) => bench::tune(arguments),
        Task::Test(arguments) => test::run(arguments),
        Task::Matrix(arguments) => matrix::run(arguments),
        Task::Isa(arguments) => isa::run(arguments),
        Task::Fuzz(arguments) => fuzz::run(arguments),
        Task::WebCheck(arguments) => web_check::run(arguments),
        Task::Setup {
            no_install,
            browser: true,
        } => setup::browser(!no_install).map(drop),
        Task::Setup { no_install, .. } => setup::run(!no_install),
        Task::Adapters(choice) => {
            setup::note_missing_driver(choice.backend);
            bench::forward_on(choice, "adapters", choice.forwarded())
        }
        Task::Docs { check } => bench::forward("docs", check.then(|| "--check".into())),
        Task::Shaders {
            print: Some(id), ..
        } => bench::forward("shaders", ["--print".into(), id.into()]),
        Task::Shaders {
            print: None,
            update,
        } => translations::run(*update),
    }
}
