//! `cargo xtask test`: everything that CI runs, step by step, cheapest first.
//!
//! All steps build under one profile, `release-checked`, so that no dependency is built twice: the
//! GPU tests need optimised code, with the checks that catch wrong index arithmetic.

mod examples;
mod miri;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench;
use crate::cli::{AdapterChoice, MatrixArguments, TestArguments, WebCheckArguments};
use crate::fuzz;
use crate::isa;
use crate::matrix;
use crate::process::{self, Failure, cargo, repository_root};
use crate::setup;
use crate::translations;
use crate::web_check;

/// The profile of all tests.
pub(crate) const PROFILE: &str = "release-checked";
const WASM: &str = "wasm32-unknown-unknown";

/// Seconds of damaged files for all parsers together.
const FUZZ_SECONDS: u32 = 24;

/// Damaged files for each parser with `--full`.
const FUZZ_RUNS: u32 = 100_000;

/// The crates that are published, with their folders.
const PUBLISHED: [(&str, &str); 7] = [
    ("anybit", "crates/anybit"),
    ("anybit-cli", "crates/anybit-cli"),
    ("anybit-formats", "crates/anybit-formats"),
    ("anybit-import", "crates/anybit-import"),
    ("anybit-llm", "crates/anybit-llm"),
    ("anybit-reference", "crates/anybit-reference"),
    ("anybit-shaders", "shaders"),
];

/// `cargo xtask test`.
pub(crate) fn run(arguments: &TestArguments) -> Result<(), Failure> {
    let root = repository_root();
    let mut steps = Steps::default();
    let result = run_steps(arguments, &root, &mut steps);
    steps.print_summary();
    result
}

fn run_steps(arguments: &TestArguments, root: &Path, steps: &mut Steps) -> Result<(), Failure> {
    steps.run("driver", || {
        let found = setup::driver(arguments.choice.backend, true);
        match found {
            Err(failure) if !adapter_required() => Ok(Outcome::Skipped(format!(
                "GPU tests cannot use Vulkan: {failure}"
            ))),
            other => other.map(|()| Outcome::Passed),
        }
    })?;
    let mut model = None;
    steps.run("sample model", || match setup::model(true) {
        Ok(path) => {
            model = Some(path);
            Ok(Outcome::Passed)
        }
        Err(failure) if env::var_os(setup::MODEL_VARIABLE).is_some() => Err(failure),
        Err(failure) => Ok(Outcome::Skipped(failure.to_string())),
    })?;
    steps.cargo("format", root, &["fmt", "--all", "--", "--check"])?;
    steps.run("package contents", || {
        PUBLISHED
            .iter()
            .try_for_each(|(package, folder)| check_package(root, package, folder))
            .map(|()| Outcome::Passed)
    })?;
    steps.cargo(
        "lints",
        root,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--profile",
            PROFILE,
            "--",
            "-D",
            "warnings",
        ],
    )?;
    steps.run("documentation", || {
        let mut command = cargo();
        command
            .args(["doc", "--workspace", "--no-deps", "--profile", PROFILE])
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root);
        process::run(&mut command).map(|()| Outcome::Passed)
    })?;
    steps.run("no default features", || {
        // One by one, since together each would switch on what the other asks of it.
        for package in ["anybit-formats", "anybit"] {
            let mut command = cargo();
            command
                .args(["check", "--package", package, "--no-default-features"])
                .args(["--profile", PROFILE])
                .current_dir(root);
            process::run(&mut command)?;
        }
        Ok(Outcome::Passed)
    })?;
    steps.run("WebAssembly", || check_wasm(root))?;
    steps.run("build", || build(root).map(|()| Outcome::Passed))?;
    steps.run("generated docs", || {
        process::run(&mut check_docs(root)).map(|()| Outcome::Passed)
    })?;
    steps.run("translations", || {
        translations::run_built(root, false).map(|()| Outcome::Passed)
    })?;
    steps.run("examples", || examples::run(root, arguments))?;
    thread::scope(|scope| {
        // A compiler on one core; the browser leaves others idle.
        let machine_code = scope.spawn(|| process::capture(&mut check_machine_code(root)));
        let web = steps.run("web", || check_web(root));
        let machine_code = steps.run("machine code", || match machine_code.join() {
            Ok(said) => machine_code_outcome(said),
            Err(_) => Err(Failure::new("its thread panicked")),
        });
        web.and(machine_code)
    })?;
    steps.run("tests", || {
        let mut command = cargo();
        command
            .args(["test", "--workspace", "--profile", PROFILE])
            .current_dir(root);
        choose_adapters(&mut command, arguments);
        setup::name_driver(&arguments.choice, &mut command);
        if let Some(model) = &model {
            command.env(setup::MODEL_VARIABLE, model);
        }
        process::run(&mut command).map(|()| Outcome::Passed)
    })?;
    steps.run("fuzz", || check_parsers(root, arguments.full))?;
    steps.run("miri", || miri::run(root))?;
    steps.run("adapters", || check_adapters(root, arguments))
}

/// Programs, tests and examples in one go: built apart, they would be built with different features.
pub(crate) fn build(root: &Path) -> Result<(), Failure> {
    let mut command = cargo();
    command
        .args(["build", "--workspace", "--bins", "--tests", "--examples"])
        .args(["--profile", PROFILE])
        .current_dir(root);
    process::run(&mut command)
}

fn adapter_required() -> bool {
    env::var_os("ANYBIT_REQUIRE_ADAPTER").is_some_and(|value| value == "1")
}

/// The matrix on every adapter that is there, or on the one asked for.
fn check_adapters(root: &Path, arguments: &TestArguments) -> Result<Outcome, Failure> {
    let choice = AdapterChoice {
        backend: arguments.choice.backend,
        adapter: arguments.choice.adapter.clone(),
    };
    let ran = matrix::run_built(
        root,
        &MatrixArguments {
            leg: Vec::new(),
            full: arguments.full,
            update: false,
            choice,
        },
    );
    match ran {
        Ok(not_there) if not_there.is_empty() => Ok(Outcome::Passed),
        Ok(not_there) => Ok(Outcome::PassedWithout(not_there)),
        Err(failure) if failure.code() == matrix::SKIPPED && !adapter_required() => {
            Ok(Outcome::Skipped(failure.to_string()))
        }
        Err(failure) => Err(failure),
    }
}

/// Hands the choices to the GPU tests. What the command line leaves open, the caller's environment
/// may decide.
fn choose_adapters(command: &mut Command, arguments: &TestArguments) {
    if let Some(backend) = arguments.choice.backend {
        command.env("ANYBIT_BACKEND", backend.name());
    }
    if let Some(adapter) = &arguments.choice.adapter {
        command.env("ANYBIT_ADAPTER", adapter);
        command.env_remove("ANYBIT_ALL_ADAPTERS");
    }
    if arguments.all_adapters {
        command.env("ANYBIT_ALL_ADAPTERS", "1");
        command.env_remove("ANYBIT_ADAPTER");
    }
    if arguments.full {
        command.env("ANYBIT_TESTS", "full");
    }
}

/// The web build, where the compiler can make one.
fn check_wasm(root: &Path) -> Result<Outcome, Failure> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = process::capture(
        Command::new(rustc)
            .args(["--print", "target-libdir", "--target", WASM])
            .current_dir(root),
    )?;
    if !Path::new(libraries.trim()).is_dir() {
        return Ok(Outcome::Skipped(format!(
            "the compiler lacks the target; run `rustup target add {WASM}`"
        )));
    }
    let mut command = cargo();
    command
        .args(["check", "--package", "anybit", "--no-default-features"])
        .args(["--features", "webgpu", "--target", WASM])
        .args(["--profile", PROFILE])
        .current_dir(root);
    process::run(&mut command).map(|()| Outcome::Passed)
}

/// `anybit-benches docs --check`.
fn check_docs(root: &Path) -> Command {
    let mut command = benches(root);
    command.args(["docs", "--check"]);
    command
}

/// `anybit-benches isa --check`, where there is the driver that docs/isa.json has figures of.
fn check_machine_code(root: &Path) -> Command {
    let mut command = benches(root);
    command.args(["isa", "--check"]);
    command
}

fn machine_code_outcome(said: Result<String, Failure>) -> Result<Outcome, Failure> {
    match said {
        Ok(text) => {
            println!("{}", text.trim_end());
            Ok(Outcome::Passed)
        }
        Err(failure) if failure.code() == isa::SKIPPED => {
            println!("{failure}");
            Ok(Outcome::Skipped(
                "another driver, or none; see above".to_owned(),
            ))
        }
        Err(failure) => Err(failure),
    }
}

/// The kernels in Chromium's WebGPU, where there is a Chromium that has it.
fn check_web(root: &Path) -> Result<Outcome, Failure> {
    // Who names a browser wants it.
    let wanted = env::var_os(setup::BROWSER_VARIABLE).is_some();
    let browser = match setup::browser(false) {
        Err(failure) if !wanted => return Ok(Outcome::Skipped(failure.to_string())),
        found => found?,
    };
    match web_check::run_built(root, &browser, &WebCheckArguments::default()) {
        Ok(()) => Ok(Outcome::Passed),
        Err(failure) if failure.code() == web_check::SKIPPED && !wanted => Ok(Outcome::Skipped(
            "the browser has no WebGPU here; see above".to_owned(),
        )),
        Err(failure) => Err(failure),
    }
}

/// `anybit-fuzz`: damaged files for every parser.
fn check_parsers(root: &Path, full: bool) -> Result<Outcome, Failure> {
    let mut command = program(root, fuzz::PACKAGE, fuzz::PROGRAM, "tests");
    match full {
        true => command.args(["--runs", &FUZZ_RUNS.to_string()]),
        false => command.args(["--seconds", &FUZZ_SECONDS.to_string()]),
    };
    fuzz::run_program(&mut command).map(|()| Outcome::Passed)
}

/// `anybit-benches`.
fn benches(root: &Path) -> Command {
    program(root, bench::PACKAGE, bench::PACKAGE, "benches")
}

/// A program of a package in a folder, as an earlier step has built it.
fn program(root: &Path, package: &str, name: &str, folder: &str) -> Command {
    let mut command = match process::built_program(name, PROFILE) {
        Some(program) => {
            let mut command = Command::new(program);
            // As under `cargo run`; otherwise the variable would name xtask's own folder.
            command.env("CARGO_MANIFEST_DIR", root.join(folder));
            command
        }
        None => {
            let mut command = cargo();
            command.args(["run", "--profile", PROFILE, "--package", package]);
            command.args(["--bin", name, "--"]);
            command
        }
    };
    command.current_dir(root);
    command
}

/// Checks that the published crate would contain all its Rust and WGSL sources.
fn check_package(root: &Path, package: &str, folder: &str) -> Result<(), Failure> {
    let listed = process::capture(
        cargo()
            .args(["package", "--list", "--allow-dirty", "--package", package])
            .current_dir(root),
    )?;
    let folder = root.join(folder);
    let mut needed = vec!["Cargo.toml".to_owned()];
    let mut shaders = 0;
    for file in files_below(&folder)
        .map_err(|error| Failure::new(format!("cannot list {}: {error}", folder.display())))?
    {
        let path = file.strip_prefix(&folder).unwrap_or(&file);
        let wgsl = path.extension() == Some(OsStr::new("wgsl"));
        let source = path.starts_with("src") || path.starts_with("examples");
        if wgsl || source {
            needed.push(slashes(&path.to_string_lossy()));
        }
        shaders += usize::from(wgsl);
    }
    if package == "anybit-shaders" && shaders == 0 {
        return Err(Failure::new(format!(
            "there is no WGSL file below {}",
            folder.display()
        )));
    }
    let missing = missing_from(&listed, &needed);
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "the published crate {package} would lack {}",
            missing.join(", ")
        )));
    }
    println!(
        "{package}: {} sources, {shaders} of them WGSL, would all be published",
        needed.len() - 1
    );
    Ok(())
}

/// The paths in `needed` that are not among the lines of `listed`.
fn missing_from<'a>(listed: &str, needed: &'a [String]) -> Vec<&'a str> {
    let listed: Vec<String> = listed.lines().map(slashes).collect();
    needed
        .iter()
        .filter(|path| !listed.contains(path))
        .map(String::as_str)
        .collect()
}

fn slashes(path: &str) -> String {
    path.replace('\\', "/")
}

/// All files below a package's folder but those of packages inside it, which cargo leaves out of the crate too.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.join("Cargo.toml").is_file() {
                    folders.push(path);
                }
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Debug)]
enum Outcome {
    Passed,
    /// But for these parts, which could not be run here.
    PassedWithout(Vec<String>),
    Skipped(String),
}

/// The steps so far, for the summary.
#[derive(Debug, Default)]
struct Steps {
    done: Vec<(&'static str, String, Duration)>,
    skipped: usize,
    /// Parts of steps that passed.
    skipped_parts: usize,
    failed: bool,
}

impl Steps {
    fn run(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<Outcome, Failure>,
    ) -> Result<(), Failure> {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        let time = start.elapsed();
        match result {
            Ok(Outcome::Passed) => {
                self.done.push((name, "passed".to_owned(), time));
                Ok(())
            }
            Ok(Outcome::PassedWithout(parts)) => {
                let parts_skipped = parts.len();
                let parts = parts.join("; ");
                println!("SKIP: {parts}");
                self.skipped_parts += parts_skipped;
                let outcome = format!("passed; SKIPPED, as not there: {parts}");
                self.done.push((name, outcome, time));
                Ok(())
            }
            Ok(Outcome::Skipped(reason)) => {
                println!("SKIP: {reason}");
                self.skipped += 1;
                self.done.push((name, format!("SKIPPED: {reason}"), time));
                Ok(())
            }
            Err(failure) => {
                self.failed = true;
                self.done.push((name, "FAILED".to_owned(), time));
                Err(failure.in_step(name))
            }
        }
    }

    fn cargo(
        &mut self,
        name: &'static str,
        root: &Path,
        arguments: &[&str],
    ) -> Result<(), Failure> {
        self.run(name, || {
            process::run(cargo().args(arguments).current_dir(root)).map(|()| Outcome::Passed)
        })
    }

    fn print_summary(&self) {
        println!("\n== summary");
        for (name, outcome, time) in &self.done {
            println!("{name:<20} {:>9}  {outcome}", duration(*time));
        }
        println!("{}", self.total());
    }

    fn total(&self) -> String {
        let failed = usize::from(self.failed);
        let time = self.done.iter().map(|(_, _, time)| *time).sum();
        let parts = match self.skipped_parts {
            0 => String::new(),
            1 => " and 1 part of another".to_owned(),
            parts => format!(" and {parts} parts of others"),
        };
        format!(
            "{} passed, {} skipped{parts}, {failed} failed in {}",
            self.done.len() - self.skipped - failed,
            self.skipped,
            duration(time)
        )
    }
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Task};
    use clap::Parser;

    #[test]
    fn every_publishable_crate_is_checked() {
        let root = repository_root();
        let mut publishable = Vec::new();
        for folder in ["crates", "."] {
            for entry in fs::read_dir(root.join(folder)).expect("the repository is readable") {
                let folder = entry.expect("readable").path();
                let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else {
                    continue;
                };
                if !manifest.contains("publish = false") {
                    publishable.push(folder);
                }
            }
        }
        publishable.sort();
        let mut checked = PUBLISHED.map(|(_, folder)| root.join(folder)).to_vec();
        checked.sort();
        let plain = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
            folders.iter().map(|f| f.components().collect()).collect()
        };
        assert_eq!(plain(publishable), plain(checked));
    }

    #[test]
    fn a_file_that_is_not_packaged_is_found() {
        let needed = ["src/lib.rs", "wgsl/core/index.wgsl"].map(str::to_owned);
        let complete = "Cargo.toml\nsrc\\lib.rs\nwgsl\\core\\index.wgsl\n";
        assert_eq!(missing_from(complete, &needed), [""; 0]);
        let lacking = "Cargo.toml\nsrc/lib.rs\n";
        assert_eq!(missing_from(lacking, &needed), ["wgsl/core/index.wgsl"]);
    }

    #[test]
    fn packages_inside_a_package_are_not_its_files() {
        let folder = repository_root().join("crates/anybit/examples");
        let files = files_below(&folder).expect("the repository is readable");
        let inner = folder.join("candle-linear");
        assert!(inner.join("Cargo.toml").is_file());
        assert!(!files.iter().any(|file| file.starts_with(&inner)));
        for name in examples::EXAMPLES {
            assert!(files.contains(&folder.join(format!("{name}.rs"))));
        }
    }

    #[test]
    fn choices_reach_the_tests_as_variables() {
        let variables = |line: &[&str]| -> Vec<(String, Option<String>)> {
            let Ok(Cli {
                task: Task::Test(arguments),
            }) = Cli::try_parse_from(line)
            else {
                panic!("{line:?} is a test command");
            };
            let mut command = Command::new("cargo");
            choose_adapters(&mut command, &arguments);
            let text = |value: &OsStr| value.to_string_lossy().into_owned();
            command
                .get_envs()
                .map(|(name, value)| (text(name), value.map(text)))
                .collect()
        };
        let set = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let unset = |name: &str| (name.to_owned(), None);
        assert_eq!(variables(&["xtask", "test"]), []);
        assert_eq!(
            variables(&["xtask", "test", "--adapter", "llvm", "--backend", "vulkan"]),
            [
                set("ANYBIT_ADAPTER", "llvm"),
                unset("ANYBIT_ALL_ADAPTERS"),
                set("ANYBIT_BACKEND", "vulkan"),
            ]
        );
        assert_eq!(
            variables(&["xtask", "test", "--all-adapters", "--full"]),
            [
                unset("ANYBIT_ADAPTER"),
                set("ANYBIT_ALL_ADAPTERS", "1"),
                set("ANYBIT_TESTS", "full"),
            ]
        );
    }

    #[test]
    fn the_first_failing_step_is_named_and_counted() {
        let mut steps = Steps::default();
        assert!(steps.run("first", || Ok(Outcome::Passed)).is_ok());
        let skip = || Ok(Outcome::Skipped("no target".to_owned()));
        assert!(steps.run("second", skip).is_ok());
        let failure = steps
            .run("third", || Err(Failure::new("broken")))
            .expect_err("the step fails");
        assert!(failure.to_string().contains("third"), "{failure}");
        assert_eq!(
            (steps.done.len(), steps.skipped, steps.failed),
            (3, 1, true)
        );
    }

    #[test]
    fn machine_code_that_cannot_be_made_is_a_skip() {
        let skipped = Err(Failure::with_code("another driver", isa::SKIPPED));
        let outcome = machine_code_outcome(skipped);
        assert!(matches!(outcome, Ok(Outcome::Skipped(_))), "{outcome:?}");
        assert!(machine_code_outcome(Err(Failure::new("a figure moved"))).is_err());
        let passed = machine_code_outcome(Ok("the same".to_owned()));
        assert!(matches!(passed, Ok(Outcome::Passed)), "{passed:?}");
    }

    #[test]
    fn parts_that_were_not_there_are_told_and_counted() {
        let mut steps = Steps::default();
        let without = || Ok(Outcome::PassedWithout(vec!["hardware".to_owned()]));
        assert!(steps.run("adapters", without).is_ok());
        assert!(steps.done[0].1.contains("hardware"), "{:?}", steps.done);
        let total = steps.total();
        let counts = "1 passed, 0 skipped and 1 part of another, 0 failed in ";
        assert!(total.starts_with(counts), "{total}");
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(605)), "10 m 05 s");
    }
}
