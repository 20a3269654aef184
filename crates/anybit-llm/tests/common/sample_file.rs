//! Where the sample model is, SmolLM2-135M-Instruct, and how tests say that they were skipped.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The file in the cache folder, and its length, by which it is told from other models.
const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const BYTES: u64 = 98_362_432;

/// The model that `ANYBIT_MODEL` names, else the one in the cache folder. `None`, and a note of the skip of `test`, if
/// there is none, or if it is another model.
///
/// # Panics
/// If `ANYBIT_MODEL` names what is not there.
pub(crate) fn path(test: &str) -> Option<PathBuf> {
    let named = variable("ANYBIT_MODEL").map(PathBuf::from);
    if let Some(named) = &named {
        assert!(
            named.is_file(),
            "ANYBIT_MODEL names {}, which is not a file",
            named.display()
        );
    }
    let found = named.or_else(|| Some(cache_folder()?.join(NAME)));
    let Some(path) = found.filter(|path| path.is_file()) else {
        skip(
            test,
            "the sample model is not there; `cargo xtask setup` gets it",
        );
        return None;
    };
    let length = path.metadata().expect("the file has just been there").len();
    if length != BYTES {
        skip(test, &format!("{} is not the sample model", path.display()));
        return None;
    }
    Some(path)
}

/// Notes on stderr, past the capturing of test output, that a test or a part of one did not run.
pub(crate) fn skip(test: &str, reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Written at once, so that other tests' output does not come in between. A closed stderr is no reason to fail.
    let line = format!("SKIP {count}: {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The value of an environment variable, unless it is empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Where `cargo xtask setup` puts models.
fn cache_folder() -> Option<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from);
    let base = match env::consts::OS {
        "windows" => variable("LOCALAPPDATA").map(PathBuf::from),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // A relative path is invalid by the XDG standard, and to be ignored.
            .filter(|folder| folder.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("anybit/models"))
}
