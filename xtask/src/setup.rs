//! `cargo xtask setup`: what a fresh machine lacks. Every check prints one line.

mod driver;
mod model;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::Backend;
use crate::process::Failure;

pub(crate) use model::MODEL_VARIABLE;

/// Looks up an environment variable; tests pass their own.
type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable of this process. An empty one counts as unset, as the XDG standard has it.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// `cargo xtask setup`: makes every check, then fails if one of them did.
pub(crate) fn run(install: bool) -> Result<(), Failure> {
    let mut missing = Vec::new();
    let mut note = |name, result: Result<(), Failure>| {
        if let Err(failure) = result {
            println!("{name}: MISSING: {failure}");
            missing.push(name);
        }
    };
    note("driver", driver(None, install));
    note("model", model(install).map(drop));
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("not set up: {}", missing.join(", "))))
    }
}

/// Sees to a Vulkan driver where the chosen backend needs one.
pub(crate) fn driver(backend: Option<Backend>, install: bool) -> Result<(), Failure> {
    if !cfg!(target_os = "linux") {
        println!("driver: ok: the graphics API is part of this operating system");
        return Ok(());
    }
    if !needs_vulkan(backend, &variable) {
        println!("driver: ok: the chosen backend is not Vulkan");
        return Ok(());
    }
    driver::ensure(install)
}

/// Says that there is no Vulkan driver, where that explains an empty list of adapters.
pub(crate) fn note_missing_driver(backend: Option<Backend>) {
    if cfg!(target_os = "linux") && needs_vulkan(backend, &variable) {
        if let Some(problem) = driver::Inspection::of_this_machine().problem() {
            println!("driver: MISSING: {problem}; run `cargo xtask setup`");
        }
    }
}

/// Sees to a model and returns its path: the file that `ANYBIT_MODEL` names, or the sample model.
pub(crate) fn model(install: bool) -> Result<PathBuf, Failure> {
    model::ensure(install)
}

/// The backend on the command line decides, then `ANYBIT_BACKEND`, then Vulkan is the default.
fn needs_vulkan(backend: Option<Backend>, variables: Variables<'_>) -> bool {
    match backend {
        Some(backend) => backend == Backend::Vulkan,
        None => variables("ANYBIT_BACKEND")
            .is_none_or(|name| name.eq_ignore_ascii_case(Backend::Vulkan.name())),
    }
}

/// A folder of a test's own, removed at its end.
#[cfg(test)]
struct Scratch(PathBuf);

#[cfg(test)]
impl Scratch {
    fn new(test: &str) -> Self {
        let folder = env::temp_dir().join(format!("anybit-xtask-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        Self(folder)
    }

    fn file(&self, path: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("writable");
        std::fs::write(&path, content).expect("writable");
        path
    }
}

#[cfg(test)]
impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-over test folders harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vulkan_needs_a_vulkan_driver() {
        let unset = |_: &str| None;
        let gl = |name: &str| (name == "ANYBIT_BACKEND").then(|| "gl".into());
        assert!(needs_vulkan(None, &unset));
        assert!(!needs_vulkan(Some(Backend::Gl), &unset));
        assert!(!needs_vulkan(None, &gl));
        assert!(needs_vulkan(Some(Backend::Vulkan), &gl));
    }
}
