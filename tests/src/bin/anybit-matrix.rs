//! The GPU-against-reference matrix, for `cargo xtask matrix`: runs it on one adapter, or compares and records what runs found.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anybit::{ContextOptions, wgpu};
use anybit_tests::adapter;
use anybit_tests::matrix::report::{Outcome, Report};
use anybit_tests::matrix::run::{Options, run};
use anybit_tests::matrix::table::Record;
use clap::{Args, Parser};

#[derive(Debug, Parser)]
#[command(name = "anybit-matrix", version)]
enum Task {
    /// Run the matrix on one adapter
    Run(RunArguments),
    /// Compare reports with each other and with docs/adapters.json
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// What the run is called; the adapter's name if nothing else is said
    #[arg(long)]
    leg: Option<String>,

    /// Only adapters of this graphics API
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// Only adapters whose name holds this text
    #[arg(long, value_name = "SUBSTRING")]
    adapter: Option<String>,

    /// Only adapters that run no shaders on a CPU
    #[arg(long)]
    hardware: bool,

    /// Use no optional feature, and WebGPU's default limits
    #[arg(long)]
    floor: bool,

    /// Kernels for each contract and shape at most, which take turns
    #[arg(long, value_name = "N")]
    kernels: Option<usize>,

    /// Run every tile of every kernel
    #[arg(long, conflicts_with = "kernels")]
    full: bool,

    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// The reports
    #[arg(required = true)]
    reports: Vec<PathBuf>,

    /// The folder of adapters.json and adapters.md
    #[arg(long, value_name = "FOLDER")]
    docs: PathBuf,

    /// Write both anew
    #[arg(long)]
    update: bool,
}

/// The exit code where the adapter is not there.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Run(arguments) => run_matrix(arguments),
        Task::Compare(arguments) => compare(&arguments).map(Some),
    };
    match result {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(SKIPPED),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no case failed; `None` if the adapter is not there.
fn run_matrix(arguments: RunArguments) -> Result<Option<bool>, Box<dyn Error>> {
    let mut wanted = ContextOptions::default();
    if let Some(backend) = &arguments.backend {
        wanted = wanted.with_backends(adapter::parse_backend(backend)?);
    }
    if let Some(name) = &arguments.adapter {
        wanted = wanted.with_adapter(name);
    }
    let mut adapters = pollster::block_on(anybit::adapters(&wanted))?;
    if arguments.hardware {
        adapters.retain(|found| found.get_info().device_type != wgpu::DeviceType::Cpu);
    }
    let Some(adapter) = adapters.first() else {
        eprintln!("there is no such adapter");
        return Ok(None);
    };
    let info = adapter.get_info();
    let leg = match (arguments.leg, arguments.hardware) {
        (Some(leg), false) => leg,
        _ => format!("{}, {}", info.name, info.backend),
    };
    println!("{leg}: {}", adapter::describe(adapter));
    let options = Options {
        leg,
        floor: arguments.floor,
        kernels: arguments.kernels,
        full: arguments.full,
    };
    let report = run(adapter, &options, |row| {
        if let Some(problem) = &row.problem {
            println!("FAILED {}: {}: {problem}", row.contract, row.id);
        }
    })?;
    let failed = count(&report, Outcome::Failed);
    println!(
        "{}: {} exact, {} within bound, {failed} failed in {:.1} s",
        report.leg,
        count(&report, Outcome::Exact),
        count(&report, Outcome::WithinBound),
        report.seconds,
    );
    write(&arguments.json, &serde_json::to_string(&report)?)?;
    Ok(Some(failed == 0))
}

fn count(report: &Report, outcome: Outcome) -> usize {
    let rows = report.rows.iter();
    rows.filter(|row| row.outcome == outcome).count()
}

/// Whether all reports agree, with each other and with what adapters ran before.
fn compare(arguments: &CompareArguments) -> Result<bool, Box<dyn Error>> {
    let (json, document) = (
        arguments.docs.join("adapters.json"),
        arguments.docs.join("adapters.md"),
    );
    let mut record = match json.is_file() {
        true => Record::parse(&read(&json)?)?,
        false => Record::default(),
    };
    let before = record.clone();
    let mut wrong = Vec::new();
    for path in &arguments.reports {
        let report: Report = serde_json::from_str(&read(path)?)?;
        wrong.extend(record.take(&report).err().unwrap_or_default());
    }
    for problem in &wrong {
        println!("FAILED {problem}");
    }
    println!(
        "{} reports, {} exact results the same on all that ran, now and before; {} failed",
        arguments.reports.len(),
        record.digests.len(),
        wrong.len()
    );
    // A checkout on Windows may end lines otherwise.
    let text = read(&document)?.replace("\r\n", "\n");
    let written = record.write_into(&text)?;
    if arguments.update && wrong.is_empty() {
        write(&json, &record.to_json())?;
        write(&document, &written)?;
    } else if before.write_into(&text)? != text {
        println!(
            "FAILED docs/adapters.md is not what docs/adapters.json says: cargo xtask matrix --update"
        );
        return Ok(false);
    }
    let changed = before.changed(&record);
    if !arguments.update && !changed.is_empty() {
        println!(
            "note: docs/adapters.md tells of another driver or other kernels of {}: cargo xtask matrix --update",
            changed.join("; ")
        );
    }
    Ok(wrong.is_empty())
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}
