//! `cargo xtask matrix`: every contract by every kind of kernel against the reference, on one adapter after the other, each
//! used in other ways; what is exact is compared between them. The program `anybit-matrix` of the tests does the work.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::cli::{AdapterChoice, MatrixArguments};
use crate::process::{self, Failure, repository_root};
use crate::setup;
use crate::test::{self, PROFILE};

const PROGRAM: &str = "anybit-matrix";
/// The exit code of a run without its adapter.
pub(crate) const SKIPPED: u8 = 77;

/// A way to use an adapter.
struct Leg {
    name: &'static str,
    /// `None`: hardware, whichever comes first.
    adapter: Option<(&'static str, &'static str)>,
    variables: &'static [(&'static str, &'static str)],
    flags: &'static [&'static str],
    swiftshader: bool,
}

impl Leg {
    const fn new(name: &'static str, backend: &'static str, adapter: &'static str) -> Self {
        Self {
            name,
            adapter: Some((backend, adapter)),
            variables: &[],
            flags: &["--kernels", "1"],
            swiftshader: false,
        }
    }
}

/// Those that take longest come first, as several run at a time.
const LEGS: [Leg; 7] = [
    Leg {
        flags: &["--kernels", "2"],
        ..Leg::new("lavapipe", "vulkan", "llvmpipe")
    },
    Leg {
        swiftshader: true,
        ..Leg::new("SwiftShader", "vulkan", "SwiftShader")
    },
    // Mesa's cache of shaders does not know of the width, so it would give shaders of another one.
    Leg {
        variables: &[
            ("LP_NATIVE_VECTOR_WIDTH", "128"),
            ("MESA_SHADER_CACHE_DISABLE", "true"),
        ],
        ..Leg::new("lavapipe, four lanes", "vulkan", "llvmpipe")
    },
    Leg::new("llvmpipe, OpenGL", "gl", "llvmpipe"),
    Leg {
        flags: &["--kernels", "1", "--floor"],
        ..Leg::new("lavapipe, no optional feature", "vulkan", "llvmpipe")
    },
    Leg {
        variables: &[("WGPU_STRICT_WEBGPU_COMPLIANCE", "1")],
        ..Leg::new("lavapipe, strict WebGPU", "vulkan", "llvmpipe")
    },
    Leg {
        adapter: None,
        flags: &[],
        ..Leg::new("hardware", "", "")
    },
];

/// `cargo xtask matrix`.
pub(crate) fn run(arguments: &MatrixArguments) -> Result<(), Failure> {
    setup::driver(arguments.choice.backend, true)?;
    let root = repository_root();
    test::build(&root)?;
    run_built(&root, arguments).map(drop)
}

/// The same with the program that there is, for `cargo xtask test`. Says which legs were left out, and why.
pub(crate) fn run_built(root: &Path, arguments: &MatrixArguments) -> Result<Vec<String>, Failure> {
    let program = process::built_program(PROGRAM, PROFILE)
        .ok_or_else(|| Failure::new(format!("{PROGRAM} is not built")))?;
    let folder = root.join("target/matrix");
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let runs = runs(&program, &folder, arguments);
    let done = in_turn(&runs, workers());
    let mut reports = Vec::new();
    let mut skipped = Vec::new();
    for (run, result) in runs.iter().zip(done) {
        match result {
            Ok(()) => reports.push(run.report.clone()),
            Err(failure) if failure.code() == SKIPPED => skipped.push(run.name.clone()),
            Err(failure) => return Err(failure),
        }
    }
    if reports.is_empty() {
        return Err(Failure::with_code("no adapter ran the matrix", SKIPPED));
    }
    let mut compare = Command::new(&program);
    compare
        .arg("compare")
        .arg("--docs")
        .arg(root.join("docs"))
        .args(&reports);
    if arguments.update {
        compare.arg("--update");
    }
    process::run(&mut compare)?;
    Ok(skipped)
}

/// A leg with its command.
struct Run {
    name: String,
    command: Mutex<Command>,
    report: PathBuf,
}

fn runs(program: &Path, folder: &Path, arguments: &MatrixArguments) -> Vec<Run> {
    let make = |name: String, leg: Option<&Leg>, choice: &AdapterChoice| {
        let file: String = name
            .chars()
            .map(|character| {
                if character.is_ascii_alphanumeric() {
                    character
                } else {
                    '-'
                }
            })
            .collect();
        let report = folder.join(format!("{file}.json"));
        let mut command = Command::new(program);
        command.arg("run").arg("--json").arg(&report);
        match leg {
            Some(leg) => {
                command.args(["--leg", leg.name]);
                command.envs(leg.variables.iter().copied());
                match leg.adapter {
                    Some((backend, adapter)) => {
                        command.args(["--backend", backend, "--adapter", adapter])
                    }
                    None => command.arg("--hardware"),
                };
                if !arguments.full {
                    command.args(leg.flags);
                } else if leg.flags.contains(&"--floor") {
                    command.arg("--floor");
                }
            }
            None => {
                command.args(choice.forwarded());
            }
        }
        if arguments.full {
            command.arg("--full");
        }
        Run {
            name,
            command: Mutex::new(command),
            report,
        }
    };
    let choice = &arguments.choice;
    if choice.backend.is_some() || choice.adapter.is_some() {
        return vec![make("the adapter asked for".to_owned(), None, choice)];
    }
    LEGS.iter()
        .filter(|leg| arguments.leg.is_empty() || arguments.leg.iter().any(|name| name == leg.name))
        .filter_map(|leg| {
            let run = make(leg.name.to_owned(), Some(leg), choice);
            if leg.swiftshader {
                let manifest = swiftshader(leg.name)?;
                if let Ok(mut command) = run.command.lock() {
                    command
                        .env("VK_DRIVER_FILES", &manifest)
                        .env("VK_ICD_FILENAMES", &manifest);
                }
            }
            Some(run)
        })
        .collect()
}

/// The manifest of SwiftShader; without one the leg is left out, with the reason.
fn swiftshader(leg: &str) -> Option<PathBuf> {
    let found = match cfg!(target_os = "linux") {
        true => setup::swiftshader(),
        false => Err(Failure::new("it is run on Linux alone")),
    };
    found
        .map_err(|failure| println!("SKIP: {leg}: {failure}"))
        .ok()
}

/// Software adapters make pipelines on one thread, so several runs go on at once.
fn workers() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(4)
}

/// Runs all, so many at a time, and prints what each said when it ends.
fn in_turn(runs: &[Run], workers: usize) -> Vec<Result<(), Failure>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Result<(), Failure>>> =
        runs.iter().map(|_| Mutex::new(Ok(()))).collect();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(place) else { break };
                    let result = one(run);
                    if let Ok(mut slot) = results[place].lock() {
                        *slot = result;
                    }
                }
            });
        }
    });
    results
        .into_iter()
        .map(|result| result.into_inner().unwrap_or(Ok(())))
        .collect()
}

fn one(run: &Run) -> Result<(), Failure> {
    let Ok(mut command) = run.command.lock() else {
        return Err(Failure::new(format!("{}: a thread panicked", run.name)));
    };
    let begun = Instant::now();
    let result = process::capture(&mut command);
    let seconds = begun.elapsed().as_secs_f64();
    let line = process::line(&command);
    match result {
        Ok(said) => {
            println!("$ {line}\n{}", said.trim_end());
            println!("{}: {seconds:.0} s", run.name);
            Ok(())
        }
        Err(failure) => {
            println!("$ {line}\n{failure}");
            if failure.code() == SKIPPED {
                println!("SKIP: {}: its adapter is not there", run.name);
            }
            Err(failure)
        }
    }
}

/// The names of all legs.
pub(crate) fn leg_names() -> [&'static str; LEGS.len()] {
    LEGS.map(|leg| leg.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> MatrixArguments {
        MatrixArguments {
            leg: Vec::new(),
            full: false,
            update: false,
            choice: AdapterChoice::default(),
        }
    }

    fn lines(arguments: &MatrixArguments) -> Vec<String> {
        runs(Path::new("anybit-matrix"), Path::new("out"), arguments)
            .iter()
            .map(|run| process::line(&run.command.lock().expect("no thread has it")))
            .collect()
    }

    #[test]
    fn legs_say_how_they_run() {
        let only = |name: &str| {
            let arguments = MatrixArguments {
                leg: vec![name.to_owned()],
                ..arguments()
            };
            lines(&arguments)
        };
        assert_eq!(
            only("lavapipe, four lanes"),
            [
                "LP_NATIVE_VECTOR_WIDTH=128 MESA_SHADER_CACHE_DISABLE=true anybit-matrix run --json \
                 out/lavapipe--four-lanes.json --leg 'lavapipe, four lanes' --backend vulkan --adapter \
                 llvmpipe --kernels 1"
            ]
        );
        assert_eq!(
            only("hardware"),
            ["anybit-matrix run --json out/hardware.json --leg hardware --hardware"]
        );
        assert_eq!(only("no such leg"), [""; 0]);
    }

    #[test]
    fn a_full_run_keeps_to_the_floor() {
        let arguments = MatrixArguments {
            leg: vec!["lavapipe, no optional feature".to_owned()],
            full: true,
            ..arguments()
        };
        let line = &lines(&arguments)[0];
        assert!(line.ends_with("--floor --full"), "{line}");
    }

    #[test]
    fn every_run_is_done_once_and_keeps_its_place() {
        let run = |name: &str, program: &str, flag: &str| {
            let mut command = Command::new(program);
            command.args(["--profile", flag]).arg("--version");
            Run {
                name: name.to_owned(),
                command: Mutex::new(command),
                report: PathBuf::new(),
            }
        };
        let runs = [
            run("first", "no-such-program", "a"),
            run("second", "no-such-program-either", "b"),
        ];
        let results = in_turn(&runs, 2);
        assert!(results.iter().all(Result::is_err));
        let first = results[0].as_ref().map_err(ToString::to_string);
        assert!(first.is_err_and(
            |text| text.contains("no-such-program`") || text.contains("no-such-program ")
        ));
    }
}
