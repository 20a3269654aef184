//! `cargo xtask matrix`: every contract by every kind of kernel against the reference, on several adapters, each used in other
//! ways, a few of them at a time; what is exact is compared between them. The program `anybit-matrix` of the tests does the work.

use std::fs;
use std::io::ErrorKind;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::cli::{AdapterChoice, Backend, MatrixArguments};
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
    let not_there = run_built(&root, arguments)?;
    if !not_there.is_empty() {
        println!("not there: {}", not_there.join("; "));
    }
    Ok(())
}

/// The same with the program that there is, for `cargo xtask test`. Says which legs were not there.
pub(crate) fn run_built(root: &Path, arguments: &MatrixArguments) -> Result<Vec<String>, Failure> {
    let program = process::built_program(PROGRAM, PROFILE)
        .ok_or_else(|| Failure::new(format!("{PROGRAM} is not built")))?;
    let folder = root.join("target/matrix");
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let (runs, mut not_there) = runs(&program, &folder, arguments);
    let done = in_turn(&runs, workers());
    not_there.extend(conclude(&runs, done, |reports, all_passed| {
        let mut compare = Command::new(&program);
        compare
            .arg("compare")
            .arg("--docs")
            .arg(root.join("docs"))
            .args(reports);
        if arguments.update && all_passed {
            compare.arg("--update");
        }
        process::run(&mut compare)
    })?);
    Ok(not_there)
}

/// Compares the reports that there are, also those of legs that failed, with whether all passed. Says which legs were not
/// there.
fn conclude(
    runs: &[Run],
    done: Vec<Result<(), Failure>>,
    compare: impl FnOnce(&[&Path], bool) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let mut not_there = Vec::new();
    let mut failed = Vec::new();
    for (run, result) in runs.iter().zip(done) {
        match result {
            Ok(()) => {}
            Err(failure) if failure.code() == SKIPPED => not_there.push(run.name.clone()),
            // What it wrote has been printed.
            Err(_) => failed.push(run.name.as_str()),
        }
    }
    let reports: Vec<&Path> = runs
        .iter()
        .map(|run| run.report.as_path())
        .filter(|report| report.is_file())
        .collect();
    if reports.is_empty() && failed.is_empty() {
        return Err(Failure::with_code("no adapter ran the matrix", SKIPPED));
    }
    let compared = match reports.is_empty() {
        true => Ok(()),
        false => compare(&reports, failed.is_empty()),
    };
    match failed.is_empty() {
        true => compared.map(|()| not_there),
        false => Err(Failure::new(format!(
            "{} failed; see above",
            failed.join("; ")
        ))),
    }
}

/// A leg with its command.
struct Run {
    name: String,
    command: Mutex<Command>,
    report: PathBuf,
}

/// The legs to run, and the names of those that cannot be had, with the reason.
fn runs(program: &Path, folder: &Path, arguments: &MatrixArguments) -> (Vec<Run>, Vec<String>) {
    let make = |name: &str, leg: Option<&Leg>| {
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
                command.args(arguments.choice.forwarded());
                if !arguments.full {
                    command.args(leg_of(&arguments.choice).map_or(&[][..], |leg| leg.flags));
                }
            }
        }
        if arguments.full {
            command.arg("--full");
        }
        Run {
            name: name.to_owned(),
            command: Mutex::new(command),
            report,
        }
    };
    let choice = &arguments.choice;
    if choice.backend.is_some() || choice.adapter.is_some() {
        let mut run = make("the adapter asked for", None);
        if let Ok(command) = run.command.get_mut() {
            setup::name_driver(choice, command);
        }
        return (vec![run], Vec::new());
    }
    let (mut runs, mut not_there) = (Vec::new(), Vec::new());
    for leg in LEGS
        .iter()
        .filter(|leg| arguments.leg.is_empty() || arguments.leg.iter().any(|name| name == leg.name))
    {
        let mut run = make(leg.name, Some(leg));
        if leg.swiftshader {
            match setup::swiftshader(true) {
                Ok(manifest) => {
                    if let Ok(command) = run.command.get_mut() {
                        setup::name_manifest(&manifest, command);
                    }
                }
                Err(failure) => {
                    let failure = failure.to_string();
                    println!("SKIP: {}: {failure}", leg.name);
                    let reason = failure.lines().next().unwrap_or_default();
                    not_there.push(format!("{}: {reason}", leg.name));
                    continue;
                }
            }
        }
        runs.push(run);
    }
    (runs, not_there)
}

/// The leg of the adapter that is asked for, as it is used by default; how many kernels it meets goes for the choice, too.
fn leg_of(choice: &AdapterChoice) -> Option<&'static Leg> {
    let wanted = choice.adapter.as_ref().map(|name| name.to_lowercase());
    LEGS.iter().find(|leg| {
        let Some((backend, adapter)) = leg.adapter else {
            return false;
        };
        let same_backend = |chosen: Backend| chosen.name() == backend;
        let of_backend = choice.backend.is_none_or(same_backend);
        let of_name = |name: &String| name.contains(&adapter.to_lowercase());
        // Those of OpenGL compile slowly everywhere, other drivers not.
        let of_adapter =
            choice.backend == Some(Backend::Gl) || wanted.as_ref().is_some_and(of_name);
        of_backend && of_adapter && leg.variables.is_empty() && !leg.flags.contains(&"--floor")
    })
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
    // That of a run before is none of this one.
    match fs::remove_file(&run.report) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::new(format!("{}: {error}", run.report.display())));
        }
        _ => {}
    }
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
        let (runs, _) = runs(Path::new("anybit-matrix"), Path::new("out"), arguments);
        runs.iter()
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
        let report = |name: &str| {
            let report = Path::new("out").join(name);
            process::quoted(report.as_os_str())
        };
        assert_eq!(
            only("lavapipe, four lanes"),
            [format!(
                "LP_NATIVE_VECTOR_WIDTH=128 MESA_SHADER_CACHE_DISABLE=true anybit-matrix run --json {} --leg \
                 'lavapipe, four lanes' --backend vulkan --adapter llvmpipe --kernels 1",
                report("lavapipe--four-lanes.json")
            )]
        );
        assert_eq!(
            only("hardware"),
            [format!(
                "anybit-matrix run --json {} --leg hardware --hardware",
                report("hardware.json")
            )]
        );
        assert_eq!(only("no such leg"), [""; 0]);
    }

    #[test]
    fn a_chosen_adapter_meets_as_many_kernels_as_its_leg() {
        let flags = |backend, adapter: Option<&str>, full| {
            let choice = AdapterChoice {
                backend,
                adapter: adapter.map(str::to_owned),
            };
            let arguments = MatrixArguments {
                full,
                choice,
                ..arguments()
            };
            let line = lines(&arguments).remove(0);
            let (_, rest) = line.split_once(".json").expect("it writes a report");
            rest.trim().to_owned()
        };
        let gl = Some(Backend::Gl);
        assert_eq!(flags(gl, None, false), "--backend gl --kernels 1");
        assert_eq!(flags(gl, None, true), "--backend gl --full");
        assert_eq!(
            flags(gl, Some("nvidia"), false),
            "--backend gl --adapter nvidia --kernels 1"
        );
        assert_eq!(
            flags(None, Some("llvmpipe"), false),
            "--adapter llvmpipe --kernels 2"
        );
        let radeon = flags(Some(Backend::Vulkan), Some("radeon"), false);
        assert_eq!(radeon, "--backend vulkan --adapter radeon");
        let metal = flags(Some(Backend::Metal), None, false);
        assert_eq!(metal, "--backend metal");
    }

    /// Legs that passed, failed with a report and without one, and were not there.
    #[test]
    fn reports_are_compared_although_a_leg_failed() {
        let scratch = setup::Scratch::new("legs");
        let run = |name: &str, line: &str| {
            let mut command = process::shell(line);
            command.current_dir(&scratch.0);
            Run {
                name: name.to_owned(),
                command: Mutex::new(command),
                report: scratch.0.join(name),
            }
        };
        let stale = scratch.file("absent", b"of a run before");
        let compared = |runs: &[Run]| {
            let mut seen = None;
            let result = conclude(runs, in_turn(runs, 2), |reports, all_passed| {
                let names = reports.iter().filter_map(|report| report.file_name());
                let names: Vec<String> = names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect();
                seen = Some((names.join(" "), all_passed));
                Ok(())
            });
            (result.map_err(|failure| failure.to_string()), seen)
        };
        let runs = [
            run("right", "echo x>right"),
            run("wrong", "echo x>wrong&& echo FAILED&& exit 1"),
            run("broken", "exit 101"),
            run("absent", "exit 77"),
        ];
        let (result, seen) = compared(&runs);
        assert_eq!(seen, Some(("right wrong".to_owned(), false)));
        assert_eq!(result, Err("wrong; broken failed; see above".to_owned()));
        assert!(!stale.is_file());

        let (result, seen) = compared(&[run("right", "echo x>right"), run("absent", "exit 77")]);
        assert_eq!(seen, Some(("right".to_owned(), true)));
        assert_eq!(result, Ok(vec!["absent".to_owned()]));

        let (result, seen) = compared(&[run("absent", "exit 77")]);
        assert!(result.is_err() && seen.is_none());
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
