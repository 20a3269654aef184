//! The tasks that `anybit-benches` carries out, which alone touches a GPU.

mod peers;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::{AdapterChoice, BenchArguments, Shape, TuneArguments};
use crate::process::{self, Failure, cargo};
use crate::setup;

/// The package, and its binary.
pub(crate) const PACKAGE: &str = "anybit-benches";

/// Builds `anybit-benches` optimised and runs one of its tasks in the current folder, so that
/// relative paths mean what the user meant.
pub(crate) fn forward(
    task: &str,
    flags: impl IntoIterator<Item = OsString>,
) -> Result<(), Failure> {
    forward_on(&AdapterChoice::default(), task, flags)
}

/// The same where an adapter may be asked for, of which the flags tell, too.
pub(crate) fn forward_on(
    choice: &AdapterChoice,
    task: &str,
    flags: impl IntoIterator<Item = OsString>,
) -> Result<(), Failure> {
    let mut command = cargo();
    setup::name_driver(choice, &mut command);
    command
        .args(["run", "--release", "--package", PACKAGE, "--", task])
        .args(flags);
    process::run(&mut command)
}

/// `cargo xtask bench`.
pub(crate) fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    // Mistakes that can be seen now should not wait for the end of a build and a long run.
    let files = [
        &arguments.json,
        &arguments.svg,
        &arguments.roofline,
        &arguments.bits,
    ];
    for file in files.into_iter().flatten() {
        check_writable_place(file)?;
    }
    if arguments.peers {
        return peers::run(arguments);
    }
    if let Some(model) = &arguments.model {
        if !model.is_file() {
            return Err(Failure::new(format!(
                "--model {}: there is no such file",
                model.display()
            )));
        }
    }
    setup::driver(arguments.choice.backend, true)?;
    let weights = match (&arguments.model, arguments.synthetic) {
        (Some(model), _) => Weights::Model(model.clone()),
        (None, true) => Weights::Synthetic,
        (None, false) => sample_model()?,
    };
    forward_on(&arguments.choice, "bench", arguments.forwarded(&weights))
}

/// `cargo xtask tune`.
pub(crate) fn tune(arguments: &TuneArguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.file {
        check_writable_place(file)?;
    }
    setup::driver(arguments.choice.backend, true)?;
    forward_on(&arguments.choice, "tune", arguments.forwarded())
}

fn sample_model() -> Result<Weights, Failure> {
    match setup::model(true) {
        Ok(path) => Ok(Weights::Model(path)),
        // The user named a model: running on something else would be a surprise.
        Err(failure) if env::var_os(setup::MODEL_VARIABLE).is_some() => Err(failure),
        Err(failure) => {
            println!("model: {failure}");
            println!(
                "model: going on with SYNTHETIC matrices; use --model FILE.gguf for real ones"
            );
            Ok(Weights::Synthetic)
        }
    }
}

/// Whether a report can be written there.
pub(crate) fn check_writable_place(file: &Path) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{} cannot be written: its folder does not exist, or it is a folder itself",
            file.display()
        )))
    }
}

/// Where the benched weights come from.
#[derive(Debug)]
enum Weights {
    Model(PathBuf),
    Synthetic,
}

impl BenchArguments {
    /// The flags as `anybit-benches bench` takes them.
    fn forwarded(&self, weights: &Weights) -> Vec<OsString> {
        let mut flags: Vec<OsString> = match weights {
            Weights::Model(path) => vec!["--model".into(), path.into()],
            Weights::Synthetic => vec!["--synthetic".into()],
        };
        if !self.contract.is_empty() {
            flags.extend(["--contract".into(), self.contract.join(",").into()]);
        }
        if !self.kernel.is_empty() {
            flags.extend(["--kernel".into(), self.kernel.join(",").into()]);
        }
        if self.quantize {
            flags.push("--quantize".into());
        }
        for (flag, set) in [("--explain", self.explain), ("--untuned", self.untuned)] {
            flags.extend(set.then(|| flag.into()));
        }
        if let Some(experts) = self.experts {
            flags.extend(["--experts".into(), experts.to_string().into()]);
        }
        flags.extend(self.common());
        for (flag, file) in [
            ("--svg", &self.svg),
            ("--roofline", &self.roofline),
            ("--bits", &self.bits),
        ] {
            if let Some(file) = file {
                flags.extend([flag.into(), file.into()]);
            }
        }
        if self.all_adapters {
            flags.push("--all-adapters".into());
        }
        flags
    }

    /// The flags that `anybit-benches peers` takes, too.
    fn common(&self) -> Vec<OsString> {
        let mut flags = forwarded_shapes(&self.shapes);
        if self.quick {
            flags.push("--quick".into());
        }
        if let Some(file) = &self.json {
            flags.extend(["--json".into(), file.into()]);
        }
        flags.extend(self.choice.forwarded());
        flags
    }
}

impl TuneArguments {
    /// The flags as `anybit-benches tune` takes them.
    fn forwarded(&self) -> Vec<OsString> {
        let mut flags = Vec::new();
        if let Some(contract) = &self.contract {
            flags.extend(["--contract".into(), contract.into()]);
        }
        flags.extend(forwarded_shapes(&self.shapes));
        flags.extend(["--seconds".into(), self.seconds.to_string().into()]);
        if let Some(file) = &self.file {
            flags.extend(["--file".into(), file.into()]);
        }
        flags.extend(self.choice.forwarded());
        flags
    }
}

fn forwarded_shapes(shapes: &[Shape]) -> Vec<OsString> {
    if shapes.is_empty() {
        return Vec::new();
    }
    let shapes: Vec<String> = shapes.iter().map(ToString::to_string).collect();
    vec!["--shapes".into(), shapes.join(",").into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Task};
    use clap::Parser;

    fn forwarded(line: &str, weights: &Weights) -> Vec<OsString> {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Bench(arguments)) => arguments.forwarded(weights),
            other => panic!("expected a bench command, got {other:?}"),
        }
    }

    #[test]
    fn every_flag_is_handed_on() {
        let line = "xtask bench --contract gemm_*,gemv_* --kernel *_16x*,*_1x* --quantize --shapes 1x2x3,4x5x6 --shapes 7x8x9 --experts 4 --quick \
                    --explain --untuned --json a.jsonl --svg a.svg --roofline r.svg --bits b.svg --backend gl \
                    --adapter NVIDIA";
        let model = Weights::Model("/cache/a.gguf".into());
        assert_eq!(
            forwarded(&line.replace("                    ", ""), &model).join(" ".as_ref()),
            "--model /cache/a.gguf --contract gemm_*,gemv_* --kernel *_16x*,*_1x* --quantize --explain --untuned --experts 4 \
             --shapes 1x2x3,4x5x6,7x8x9 --quick --json a.jsonl --backend gl --adapter NVIDIA \
             --svg a.svg --roofline r.svg --bits b.svg"
        );
        assert_eq!(
            forwarded("xtask bench --all-adapters", &Weights::Synthetic),
            ["--synthetic", "--all-adapters"]
        );
    }

    #[test]
    fn a_tuning_is_handed_on() {
        let line = "xtask tune --backend gl --adapter NVIDIA --contract gemm_* --shapes 1x2x3,4x5x6 --seconds 9 --file f";
        let flags = |line: &str| match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Tune(arguments)) => arguments.forwarded(),
            other => panic!("expected a tune command, got {other:?}"),
        };
        assert_eq!(
            flags(line).join(" ".as_ref()),
            "--contract gemm_* --shapes 1x2x3,4x5x6 --seconds 9 --file f --backend gl --adapter NVIDIA"
        );
        assert_eq!(flags("xtask tune"), ["--seconds", "600"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_early() {
        assert!(check_writable_place(Path::new("rows.jsonl")).is_ok());
        assert!(check_writable_place(Path::new("no-such-folder/rows.jsonl")).is_err());
        assert!(check_writable_place(&env::temp_dir()).is_err());
    }
}
