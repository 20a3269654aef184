//! The `anybit` command: number formats, quantising, products and language models, for those who do not write Rust.
//!
//! It is thin: it reads flags and files, calls the libraries and prints.
#![forbid(unsafe_code)]

mod cli;
mod codebook;
mod error;
mod format;
mod generate;
mod gpu;
mod info;
mod interrupt;
mod language;
mod matmul;
mod options;
mod output;
mod pack;
mod perplexity;
mod quantize;
mod report;
mod sweep;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Task};
use crate::error::Error;

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Format(arguments) => format::run(&arguments),
        Task::Matmul(arguments) => matmul::run(&arguments),
        Task::Quantize(arguments) => quantize::run(&arguments),
        Task::Pack(arguments) => pack::run(&arguments),
        Task::Generate(arguments) => generate::run(&arguments),
        Task::Perplexity(arguments) => perplexity::run(&arguments),
        Task::Sweep(arguments) => sweep::run(&arguments),
        Task::Info(arguments) => info::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output, such as `head`, has had enough of it.
        Err(Error::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::note(&format!("error: {}", error::chain(&error)));
            match error {
                Error::Interrupted | Error::Stopped => ExitCode::from(output::INTERRUPTED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
