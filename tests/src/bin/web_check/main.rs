//! Runs kernels in a browser's WebGPU: `cargo xtask web-check`.

mod browser;
mod report;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anybit_tests::web::{Case, Device, Outcome, gemm, rows};
use clap::Parser;
use wildmatch::WildMatch;

use report::Report;
use server::{Hello, Workshop};

/// Runs every kernel's smallest case in Chromium's WebGPU
#[derive(Debug, Parser)]
#[command(name = "anybit-web-check")]
struct Arguments {
    /// The browser
    #[arg(long, value_name = "PROGRAM")]
    chromium: PathBuf,

    /// Run only the cases whose id matches
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,

    /// Run every contract with every kernel that takes it
    #[arg(long)]
    full: bool,

    /// Write the results to this file as JSON lines, one object a case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Seconds for all of it
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
}

/// The exit code where the browser does not start or has no WebGPU. xtask knows it, too.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let lanes = thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    let (workshop, hello) = match Workshop::open(arguments.chromium.clone(), lanes, limit) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("error: {error}");
            return SKIPPED.into();
        }
    };
    match run(&arguments, &workshop, &hello, lanes) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all cases passed.
fn run(
    arguments: &Arguments,
    workshop: &Workshop,
    hello: &Hello,
    lanes: usize,
) -> Result<bool, String> {
    let begun = Instant::now();
    println!("browser: {}", hello.browser);
    println!("adapter: {}", hello.adapter);
    check_the_check(workshop)?;

    let mut cases = cases(arguments.full, hello.subgroups);
    if let Some(filter) = &arguments.filter {
        let filter = WildMatch::new(filter);
        cases.retain(|case| filter.matches(&case.id));
    }
    if cases.is_empty() {
        return Err("no case matches".to_owned());
    }
    let mut report = Report::new(hello, arguments.json.as_deref())?;
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        // One more than the browser runs at once, so that it need not wait.
        for _ in 0..=lanes {
            let (sender, next, cases) = (sender.clone(), &next, &cases);
            scope.spawn(move || {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let mut runner = workshop;
                    let outcome = case.run(&mut runner);
                    // If nobody listens, the report has failed.
                    let _ = sender.send((case, outcome, begun.elapsed()));
                }
            });
        }
        drop(sender);
        for (case, outcome, time) in results {
            report.note(case, outcome, time)?;
        }
        Ok::<_, String>(())
    })?;
    Ok(report.finish(&workshop.warnings(), begun.elapsed()))
}

fn cases(full: bool, subgroups: Option<(u32, u32)>) -> Vec<Case> {
    let mut devices = vec![Device::FLOOR];
    match subgroups {
        None => println!("SKIP: no subgroups: kernels that use them are not compiled"),
        Some(subgroup) => {
            let own = Device {
                subgroup: Some(subgroup),
                runs: true,
            };
            devices.extend([own, Device::GPU]);
        }
    }
    devices
        .into_iter()
        .flat_map(|device| {
            let products = gemm::cases(device, full);
            products.into_iter().chain(rows::cases(device, full))
        })
        .collect()
}

/// Sees that shaders that are wrong on purpose are found out.
fn check_the_check(mut workshop: &Workshop) -> Result<(), String> {
    for (case, refused) in gemm::broken() {
        match (case.run(&mut workshop), refused) {
            (Outcome::Failed(reason), false) | (Outcome::Refused(reason), true) => {
                println!("a shader that is {} is found out: {reason}", case.id);
            }
            (other, _) => {
                return Err(format!("a shader that is {} was {other:?}", case.id));
            }
        }
    }
    Ok(())
}
