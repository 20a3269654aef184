//! `cargo xtask bench --peers`: gets other libraries and their programs, and hands them on to `anybit-benches peers`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::BenchArguments;
use crate::process::{self, Failure, cargo, repository_root};
use crate::setup;

use super::forward;

/// What could be had of the peers.
#[derive(Debug, Default)]
struct Peers {
    onnxruntime: Option<PathBuf>,
    swiftshader: Option<PathBuf>,
    web_rwkv: Option<PathBuf>,
}

pub(super) fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    setup::driver(arguments.choice.backend, true)?;
    let root = repository_root();
    let folder = root.join("benches/peers");
    let onnxruntime = folder.join("onnxruntime");
    let peers = Peers {
        onnxruntime: available(
            "onnxruntime",
            setup::onnxruntime(&onnxruntime.join("requirements.txt")),
        ),
        // Elsewhere no adapter is a software one unless it is asked for.
        swiftshader: cfg!(target_os = "linux")
            .then(|| available("SwiftShader", setup::swiftshader(true)))
            .flatten(),
        web_rwkv: available("web-rwkv", build(&root, &folder.join("web-rwkv"))),
    };
    if peers.onnxruntime.is_none() && peers.web_rwkv.is_none() {
        return Err(Failure::new("no other library can be had here"));
    }
    forward(
        "peers",
        peers.flags(arguments, &onnxruntime.join("bench.py")),
    )
}

/// Says why a library is left out.
fn available(name: &str, result: Result<PathBuf, Failure>) -> Option<PathBuf> {
    result
        .inspect_err(|failure| println!("{name}: LEFT OUT: {failure}"))
        .ok()
}

/// Builds the program of a package that is not of the workspace, as its lock file has it.
fn build(root: &Path, package: &Path) -> Result<PathBuf, Failure> {
    let target = root.join("target/peers");
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    process::run(&mut command)?;
    let name = format!("anybit-peer-web-rwkv{}", std::env::consts::EXE_SUFFIX);
    Ok(target.join("release").join(name))
}

impl Peers {
    /// The flags of `anybit-benches peers`.
    fn flags(&self, arguments: &BenchArguments, script: &Path) -> Vec<OsString> {
        let mut flags = arguments.common();
        if let Some(python) = &self.onnxruntime {
            flags.extend(["--onnxruntime".into(), python.into()]);
            flags.extend(["--onnxruntime-script".into(), script.into()]);
        }
        if let Some(manifest) = &self.swiftshader {
            flags.extend(["--swiftshader".into(), manifest.into()]);
        }
        if let Some(program) = &self.web_rwkv {
            flags.extend(["--web-rwkv".into(), program.into()]);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Task};

    fn flags(peers: &Peers, line: &str) -> OsString {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Bench(arguments)) if arguments.peers => peers
                .flags(&arguments, Path::new("bench.py"))
                .join(" ".as_ref()),
            other => panic!("expected a bench of peers, got {other:?}"),
        }
    }

    #[test]
    fn what_could_be_had_is_handed_on() {
        let line = "xtask bench --peers --quick --shapes 1x64x64 --json a.jsonl --adapter llvmpipe";
        assert_eq!(
            flags(&Peers::default(), line),
            "--shapes 1x64x64 --quick --json a.jsonl --adapter llvmpipe"
        );
        let peers = Peers {
            onnxruntime: Some("venv/python".into()),
            swiftshader: Some("icd.json".into()),
            web_rwkv: Some("peer".into()),
        };
        assert_eq!(
            flags(&peers, "xtask bench --peers"),
            "--onnxruntime venv/python --onnxruntime-script bench.py --swiftshader icd.json \
             --web-rwkv peer"
        );
    }

    #[test]
    fn the_programs_are_where_they_are_looked_for() {
        let folder = repository_root().join("benches/peers");
        for file in [
            "onnxruntime/bench.py",
            "onnxruntime/requirements.txt",
            "web-rwkv/Cargo.toml",
            "web-rwkv/Cargo.lock",
        ] {
            assert!(folder.join(file).is_file(), "{file}");
        }
    }
}
