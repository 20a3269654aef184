//! A Python environment with onnxruntime's WebGPU provider, in the user's cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache_folder;
use crate::process::{self, Failure};

/// Where the requirements of a finished environment are kept in it.
const STAMP: &str = "anybit-requirements.txt";

/// Makes the environment unless one with these requirements is there, and returns its Python.
pub(super) fn ensure(requirements: &Path) -> Result<PathBuf, Failure> {
    let folder = cache_folder("peers")?.join("onnxruntime");
    let python = python_of(&folder);
    let wanted = fs::read_to_string(requirements)
        .map_err(|error| Failure::new(format!("{}: {error}", requirements.display())))?;
    let stamp = folder.join(STAMP);
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        println!("onnxruntime: ok: {}", folder.display());
        return Ok(python);
    }
    println!("onnxruntime: getting it and what it needs with pip, once (200 MB)");
    make_environment(&folder)?;
    // Only wheels: a source package would run its own code, and take long to build.
    process::run(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--quiet",
            ])
            .args(["--only-binary=:all:", "--requirement"])
            .arg(requirements),
    )
    .map_err(|failure| Failure::new(format!("the packages could not be installed: {failure}")))?;
    fs::write(&stamp, wanted)
        .map_err(|error| Failure::new(format!("{}: {error}", stamp.display())))?;
    println!("onnxruntime: ok: installed, {}", folder.display());
    Ok(python)
}

fn make_environment(folder: &Path) -> Result<(), Failure> {
    let mut reasons = Vec::new();
    for program in ["python3", "python"] {
        let mut command = Command::new(program);
        command.args(["-m", "venv", "--clear"]).arg(folder);
        match process::capture(&mut command) {
            Ok(_) => return Ok(()),
            Err(failure) => reasons.push(failure.to_string()),
        }
    }
    Err(Failure::new(format!(
        "no Python here that makes environments (on Debian `apt-get install python3-venv`): {}",
        reasons.join("; ")
    )))
}

/// The Python of an environment.
fn python_of(folder: &Path) -> PathBuf {
    if cfg!(windows) {
        folder.join("Scripts/python.exe")
    } else {
        folder.join("bin/python")
    }
}
