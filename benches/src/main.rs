//! Benchmarks of anybit, and the tasks that need a GPU or the kernel table besides: `cargo xtask` calls this program.
//!
//! A *problem* (shape, formats, data) meets a *strategy* (which kernel); the result is checked against the CPU
//! reference before anything is timed.

mod adapters;
mod bench;
mod chart;
mod cli;
mod correctness;
mod cpu_time;
mod docs;
mod error;
mod explain;
mod isa;
mod model;
mod peers;
mod probe;
mod problem;
mod report;
mod roofline;
mod shaders;
mod strategy;
mod timing;
mod tune;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Task};
pub(crate) use error::Error;

/// The exit code of a task that this machine cannot do, with nothing wrong.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Tune(arguments) => tune::run(&arguments),
        Task::Peers(arguments) => peers::run(&arguments),
        Task::Adapters(choice) => adapters::list(&choice),
        Task::Docs { check } => docs::run(check),
        Task::Shaders { print } => shaders::print(&print),
        Task::Isa(arguments) => isa::run(&arguments),
        Task::IsaCompiler => isa::serve(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Skipped { reason }) => {
            println!("SKIP: {reason}");
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
