//! Chromium, or what is made of it: the browser of `cargo xtask web-check`.

use std::env;
use std::path::{Path, PathBuf};

use super::driver::{Privilege, System};
use super::{Variables, variable};
use crate::process::{self, Failure};

/// The variable that names the browser.
pub(crate) const BROWSER_VARIABLE: &str = "ANYBIT_CHROMIUM";

/// The package on Debian.
const PACKAGE: &str = "chromium";

/// What it is called, in the order of preference.
const NAMES: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
];

/// Where it is where it is not on the path.
const PLACES: [&str; 6] = [
    "/usr/bin/chromium",
    "/snap/bin/chromium",
    "/opt/google/chrome/chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
];

/// Reports the browser, after installing it if it is missing and `install` allows it.
pub(super) fn ensure(install: bool) -> Result<PathBuf, Failure> {
    if !install {
        return found(&PLACES, &variable);
    }
    if let Some(browser) = find(&PLACES, &variable)? {
        println!("browser: ok: {}", browser.display());
        return Ok(browser);
    }
    let remedy = format!(
        "install Chromium, as with `sudo apt-get install {PACKAGE}` on Debian, or let \
         {BROWSER_VARIABLE} name the program of one"
    );
    let missing = || missing(&remedy);
    if System::of_this_machine() != System::Debian {
        return Err(missing());
    }
    let privilege = Privilege::available().ok_or_else(missing)?;
    println!("browser: there is no Chromium; installing Debian's");
    // A repository that fails to refresh need not be the one that the package comes from.
    if let Err(failure) = process::run(privilege.apt_get().arg("update")) {
        println!("browser: {failure}; going on with the package lists as they are");
    }
    let mut command = privilege.apt_get();
    command.args(["install", "--yes", "--no-install-recommends", PACKAGE]);
    process::run(&mut command).map_err(|failure| Failure::new(format!("{failure}; {remedy}")))?;
    let browser = find(&PLACES, &variable)?.ok_or_else(missing)?;
    println!("browser: ok: installed, {}", browser.display());
    Ok(browser)
}

/// Reports the browser, and what gets one if it is missing.
fn found(places: &[&str], variables: Variables<'_>) -> Result<PathBuf, Failure> {
    let browser = find(places, variables)?.ok_or_else(|| {
        missing(&format!(
            "`cargo xtask setup --browser` gets one on Debian, and {BROWSER_VARIABLE} names the program of another"
        ))
    })?;
    println!("browser: ok: {}", browser.display());
    Ok(browser)
}

fn missing(remedy: &str) -> Failure {
    Failure::new(format!("there is no Chromium; {remedy}"))
}

/// A browser on this machine: the one that is named, one on the path, or one in a usual place.
fn find(places: &[&str], variables: Variables<'_>) -> Result<Option<PathBuf>, Failure> {
    if let Some(named) = variables(BROWSER_VARIABLE).map(PathBuf::from) {
        return match named.is_file() {
            true => Ok(Some(named)),
            false => Err(Failure::new(format!(
                "{BROWSER_VARIABLE} names {}, which is not a file",
                named.display()
            ))),
        };
    }
    let path = variables("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let on_path = NAMES.iter().flat_map(|name| {
        let program = format!("{name}{}", env::consts::EXE_SUFFIX);
        folders.iter().map(move |folder| folder.join(&program))
    });
    Ok(on_path
        .chain(places.iter().map(|place| Path::new(place).to_path_buf()))
        .find(|program| program.is_file()))
}

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::*;

    #[test]
    fn the_named_one_goes_before_that_on_the_path() {
        let scratch = Scratch::new("browser");
        let program = |name: &str| format!("{name}{}", env::consts::EXE_SUFFIX);
        let chrome = scratch.file(&format!("b/{}", program("google-chrome")), b"");
        let chromium = scratch.file(&format!("c/{}", program("chromium")), b"");
        let folders = ["a", "b", "c"].map(|folder| scratch.0.join(folder));
        let path = env::join_paths(&folders).expect("no colons");
        let on_path = |name: &str| (name == "PATH").then(|| path.clone());
        let found =
            |places: &[&str], variables: Variables<'_>| find(places, variables).expect("no fault");
        assert_eq!(found(&[], &on_path), Some(chromium.clone()));

        let named = |name: &str| match name {
            BROWSER_VARIABLE => Some(chrome.clone().into_os_string()),
            other => on_path(other),
        };
        assert_eq!(found(&[], &named), Some(chrome.clone()));

        let nothing = |_: &str| None;
        assert_eq!(found(&["/no/such/browser"], &nothing), None);
        let place = chromium.to_string_lossy().into_owned();
        assert_eq!(found(&[&place], &nothing), Some(chromium.clone()));
        let told = super::found(&[], &nothing).expect_err("there is none");
        assert!(told.to_string().contains("cargo xtask setup --browser"));
        let wrong = |_: &str| Some("/no/such/browser".into());
        assert!(find(&[], &wrong).is_err());
    }
}
