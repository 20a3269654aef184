//! `cargo xtask fuzz`: damaged inputs for every parser, for a time or a number of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anybit_tests::fuzz::runner::{Extent, Failure, Meter, Report, measure, run};
use anybit_tests::fuzz::{TARGETS, Target, Verdict};
use clap::Parser;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const METER: Meter = Meter {
    reset: || ALLOCATOR.reset_peak_usage(),
    current: || ALLOCATOR.current_usage(),
    peak: || ALLOCATOR.peak_usage(),
};

/// Damages right inputs of each parser and checks what becomes of them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds for all targets together
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "runs")]
    seconds: u64,

    /// Damaged inputs a target, however long they take
    #[arg(long, value_name = "N")]
    runs: Option<u64>,

    /// Only this target
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: Option<&'static Target>,

    /// Which damage is done
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Run this input alone
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "runs", "seed"])]
    input: Option<PathBuf>,

    /// Write the right inputs of each target into this folder, for another fuzzer to begin with, and run nothing
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["input", "seconds", "runs", "seed"])]
    write_seeds: Option<PathBuf>,
}

fn target(name: &str) -> Result<&'static Target, String> {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    Target::named(name).ok_or_else(|| format!("the targets are {}", names.join(", ")))
}

fn main() -> ExitCode {
    match fuzz(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(arguments: &Arguments) -> std::io::Result<bool> {
    let targets: Vec<&'static Target> = match arguments.target {
        Some(target) => vec![target],
        None => TARGETS.iter().collect(),
    };
    if let Some(folder) = &arguments.write_seeds {
        return write_seeds(&targets, folder).map(|()| true);
    }
    if let (Some(file), Some(target)) = (&arguments.input, arguments.target) {
        return run_one(target, file);
    }
    let extent = match arguments.runs {
        Some(runs) => Extent::Runs(runs),
        None => {
            let all = Duration::from_secs(arguments.seconds);
            Extent::Time(all / targets.len() as u32)
        }
    };
    println!(
        "{:<12} {:>6} {:>8} {:>9} {:>9} {:>11} {:>10} {:>8}",
        "target", "corpus", "damaged", "accepted", "refused", "longest", "memory", "time"
    );
    let start = Instant::now();
    let mut inputs = 0;
    let mut failures = Vec::new();
    for &target in &targets {
        let begun = Instant::now();
        let report = run(target, extent, arguments.seed, METER, |failure| {
            print_failure(target, failure);
        })?;
        print_report(target, &report, begun.elapsed());
        inputs += report.accepted + report.refused;
        failures.extend(report.failure.map(|failure| (target, failure)));
    }
    println!();
    for (target, failure) in &failures {
        print_failure(target, failure);
    }
    println!(
        "{inputs} inputs in {:.0?}: {} passed, {} failed",
        start.elapsed(),
        targets.len() - failures.len(),
        failures.len()
    );
    Ok(failures.is_empty())
}

fn print_report(target: &Target, report: &Report, time: Duration) {
    println!(
        "{:<12} {:>6} {:>8} {:>9} {:>9} {:>11} {:>10} {:>8}{}",
        target.name,
        report.kept,
        report.damaged,
        report.accepted,
        report.refused,
        format!("{:.1?}", report.longest),
        kibibytes(report.memory),
        format!("{:.1} s", time.as_secs_f64()),
        match report.failure {
            Some(_) => "  FAILED",
            None => "",
        }
    );
}

fn kibibytes(bytes: usize) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn print_failure(target: &Target, failure: &Failure) {
    println!("{}: {}; to see it again:", target.name, failure.what);
    println!(
        "  cargo xtask fuzz --target {} --input {}",
        target.name,
        shown(&failure.file).display()
    );
}

/// The path from the repository, where that is the folder at hand.
fn shown(path: &Path) -> &Path {
    let folder = std::env::current_dir();
    folder
        .ok()
        .and_then(|folder| path.strip_prefix(folder).ok())
        .unwrap_or(path)
}

/// One input, without the limits that a thread's stack sets, so that a debugger sees it.
fn run_one(target: &'static Target, file: &Path) -> std::io::Result<bool> {
    let input = std::fs::read(file)?;
    let measured = measure(target, &input, METER);
    println!(
        "{}: {} in {:.1?}, {} beyond its {} bytes",
        target.name,
        match &measured.verdict {
            Ok(Verdict::Accepted) => "accepted",
            Ok(Verdict::Refused) => "refused",
            Err(what) => what,
        },
        measured.time,
        kibibytes(measured.memory),
        input.len()
    );
    Ok(measured.verdict.is_ok())
}

fn write_seeds(targets: &[&'static Target], folder: &Path) -> std::io::Result<()> {
    for target in targets {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index:03}")), seed)?;
        }
    }
    Ok(())
}
