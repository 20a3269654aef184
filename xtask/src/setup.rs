//! `cargo xtask setup`: what a fresh machine lacks. Every check prints one line.

mod browser;
mod download;
mod driver;
mod model;
mod onnxruntime;
mod swiftshader;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{AdapterChoice, Backend};
use crate::process::Failure;

pub(crate) use browser::BROWSER_VARIABLE;
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
    // Tests do without these two, and get the first by themselves.
    if !install {
        for (name, result) in [
            ("SwiftShader", swiftshader(false)),
            ("browser", browser(false)),
        ] {
            if let Err(failure) = result {
                println!("{name}: not there, which leaves out some tests: {failure}");
            }
        }
    }
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

/// Sees to a Python environment with onnxruntime's WebGPU provider and returns its Python.
pub(crate) fn onnxruntime(requirements: &Path) -> Result<PathBuf, Failure> {
    onnxruntime::ensure(requirements)
}

/// Sees to SwiftShader and returns its Vulkan manifest.
pub(crate) fn swiftshader(install: bool) -> Result<PathBuf, Failure> {
    match cfg!(target_os = "linux") {
        true => swiftshader::ensure(install),
        false => Err(Failure::new("it is run on Linux alone")),
    }
}

/// Lets a command see SwiftShader if that is the adapter asked for, which no loader finds by itself. Who has named drivers
/// in the environment is believed. Where it cannot be had the command says what adapters there are.
pub(crate) fn name_driver(choice: &AdapterChoice, command: &mut Command) {
    if cfg!(target_os = "linux") && swiftshader::is_wanted(choice, &variable) {
        match swiftshader(true) {
            Ok(manifest) => name_manifest(&manifest, command),
            Err(failure) => println!("SwiftShader: {failure}"),
        }
    }
}

/// Makes a Vulkan driver the only one that a command sees. Older loaders know the second name.
pub(crate) fn name_manifest(manifest: &Path, command: &mut Command) {
    for name in driver::CHOSEN_BY {
        command.env(name, manifest);
    }
}

/// Sees to a Chromium and returns its program.
pub(crate) fn browser(install: bool) -> Result<PathBuf, Failure> {
    browser::ensure(install)
}

/// A folder of anybit's in the user's cache folder.
fn cache_folder(name: &str) -> Result<PathBuf, Failure> {
    cache_folder_on(env::consts::OS, &variable)
        .map(|folder| folder.join(name))
        .ok_or_else(|| {
            Failure::new("no cache folder: neither the home folder nor its substitutes are set")
        })
}

/// anybit's folder in the user's cache folder on the operating system `system`.
fn cache_folder_on(system: &str, variables: Variables<'_>) -> Option<PathBuf> {
    let home = || variables("HOME").map(PathBuf::from);
    let base = match system {
        "windows" => variables("LOCALAPPDATA").map(PathBuf::from),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => variables("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // A relative path is invalid by the XDG standard, and to be ignored.
            .filter(|folder| folder.has_root())
            .or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("anybit"))
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
pub(crate) struct Scratch(pub(crate) PathBuf);

#[cfg(test)]
impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let folder = env::temp_dir().join(format!("anybit-xtask-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        Self(folder)
    }

    pub(crate) fn file(&self, path: &str, content: &[u8]) -> PathBuf {
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

    #[test]
    fn the_cache_folder_follows_the_system() {
        let variables = |name: &str| match name {
            "HOME" => Some("/home/user".into()),
            "XDG_CACHE_HOME" => Some("/cache".into()),
            "LOCALAPPDATA" => Some("/AppData/Local".into()),
            _ => None,
        };
        let only_home = |name: &str| (name == "HOME").then(|| "/home/user".into());
        let relative = |name: &str| match name {
            "XDG_CACHE_HOME" => Some("cache".into()),
            other => only_home(other),
        };
        let folder = |system, variables: Variables<'_>| cache_folder_on(system, variables);
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder("linux", &variables), path("/cache/anybit"));
        let in_home = path("/home/user/.cache/anybit");
        assert_eq!(folder("linux", &only_home), in_home);
        assert_eq!(folder("linux", &relative), in_home);
        assert_eq!(
            folder("macos", &variables),
            path("/home/user/Library/Caches/anybit")
        );
        assert_eq!(folder("windows", &variables), path("/AppData/Local/anybit"));
        assert_eq!(folder("windows", &only_home), None);
        assert_eq!(folder("linux", &|_| None), None);
    }
}
