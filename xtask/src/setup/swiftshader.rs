//! SwiftShader: a Vulkan driver that runs shaders on the CPU and that Dawn accepts, unlike the lavapipe of many
//! distributions. Browsers ship it; it is taken out of Debian's chromium-common into the user's cache folder, so that no
//! browser is installed, and serves only programs that are told of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::download::Download;
use super::driver::{CHOSEN_BY, Privilege};
use super::{Variables, cache_folder, variable};
use crate::cli::{AdapterChoice, Backend};
use crate::process::{self, Failure};

/// The variable that names a manifest to be used instead.
const VARIABLE: &str = "ANYBIT_SWIFTSHADER";

const PACKAGE: &str = "chromium-common";
const MANIFEST: &str = "vk_swiftshader_icd.json";
/// Named by the manifest, relative to it.
const LIBRARY: &str = "libvk_swiftshader.so";

/// Where browsers of distributions keep it.
const INSTALLED: [&str; 4] = [
    "/usr/lib/chromium",
    "/usr/lib64/chromium-browser",
    "/opt/google/chrome",
    "/snap/chromium/current/usr/lib/chromium-browser",
];

/// Whether an adapter is asked for that only SwiftShader is, and no driver has been named.
pub(super) fn is_wanted(choice: &AdapterChoice, variables: Variables<'_>) -> bool {
    let named = |name: &String| name.to_lowercase().contains("swiftshader");
    choice.adapter.as_ref().is_some_and(named)
        && choice
            .backend
            .is_none_or(|backend| backend == Backend::Vulkan)
        && CHOSEN_BY.iter().all(|name| variables(name).is_none())
}

/// Returns the manifest, after getting the driver if it is not there and `install` allows it.
pub(super) fn ensure(install: bool) -> Result<PathBuf, Failure> {
    let folder = cache_folder("swiftshader")?;
    if let Some(manifest) = find(&folder, &variable)? {
        println!("SwiftShader: ok: {}", manifest.display());
        return Ok(manifest);
    }
    let got = match install {
        true => get(&folder),
        false => Err(Failure::new(format!(
            "there is no SwiftShader; `cargo xtask matrix` and `test` get it out of Debian's {PACKAGE} (32 MB)"
        ))),
    };
    got.map_err(|failure| {
        Failure::new(format!(
            "{failure}; {VARIABLE}=FILE.json names the manifest of a SwiftShader, such as the \
             {MANIFEST} that comes with Chromium"
        ))
    })?;
    let manifest = folder.join(MANIFEST);
    println!("SwiftShader: ok: out of {PACKAGE}, {}", manifest.display());
    Ok(manifest)
}

/// A manifest on this machine: the one that is named, the one in the cache, or that of a browser.
fn find(cache: &Path, variables: Variables<'_>) -> Result<Option<PathBuf>, Failure> {
    if let Some(named) = variables(VARIABLE).map(PathBuf::from) {
        return match named.is_file() {
            true => Ok(Some(named)),
            false => Err(Failure::new(format!(
                "{VARIABLE} names {}, which is not a file",
                named.display()
            ))),
        };
    }
    let folders = [cache].into_iter().chain(INSTALLED.map(Path::new));
    Ok(folders
        .filter(|folder| folder.join(LIBRARY).is_file())
        .map(|folder| folder.join(MANIFEST))
        .find(|manifest| manifest.is_file()))
}

/// Downloads the package, without installing it, and puts the driver's two files into `folder`.
fn get(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    let scratch = Download::begin(folder).map_err(failed)?;
    println!("SwiftShader: getting it out of Debian's {PACKAGE}, once (32 MB)");
    let download = || {
        let mut command = Command::new("apt-get");
        command
            .args(["download", PACKAGE])
            .current_dir(&scratch.folder);
        process::capture(&mut command)
    };
    if let Err(failure) = download() {
        // A fresh machine has no lists of packages, and an old one's name files that are gone.
        let privilege = Privilege::available().ok_or(failure)?;
        process::capture(privilege.apt_get().arg("update"))?;
        download()?;
    }
    let package = scratch
        .file("deb")
        .ok_or_else(|| Failure::new(format!("apt-get left no package {PACKAGE}")))?;
    let content = scratch.folder.join("content");
    process::capture(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package, &content]),
    )?;
    let found = content.join("usr/lib/chromium");
    // The manifest last: what it names is there when it is.
    for file in [LIBRARY, MANIFEST] {
        fs::rename(found.join(file), folder.join(file)).map_err(|error| {
            Failure::new(format!(
                "{PACKAGE} holds no {file} where it used to: {error}"
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::*;

    #[test]
    fn it_is_seen_where_its_name_is_asked_for() {
        let choice = |backend, name: &str| AdapterChoice {
            backend,
            adapter: Some(name.to_owned()),
        };
        let unset = |_: &str| None;
        assert!(is_wanted(&choice(None, "SwiftShader"), &unset));
        let vulkan = Some(Backend::Vulkan);
        assert!(is_wanted(&choice(vulkan, "swiftshader device"), &unset));
        assert!(!is_wanted(
            &choice(Some(Backend::Gl), "swiftshader"),
            &unset
        ));
        assert!(!is_wanted(&choice(None, "llvmpipe"), &unset));
        assert!(!is_wanted(&AdapterChoice::default(), &unset));
        let named = |name: &str| (name == "VK_ICD_FILENAMES").then(|| "other.json".into());
        assert!(!is_wanted(&choice(None, "SwiftShader"), &named));

        let mut command = Command::new("anybit-benches");
        super::super::name_manifest(Path::new("s.json"), &mut command);
        assert_eq!(
            process::line(&command),
            "VK_DRIVER_FILES=s.json VK_ICD_FILENAMES=s.json anybit-benches"
        );
    }

    #[test]
    fn the_named_one_goes_before_that_in_the_cache() {
        let scratch = Scratch::new("swiftshader");
        let unset = |_: &str| None;
        let cached = scratch.file(MANIFEST, b"{}");
        // A manifest without its library is no driver.
        assert_ne!(
            find(&scratch.0, &unset).expect("no fault"),
            Some(cached.clone())
        );
        scratch.file(LIBRARY, b"");
        assert_eq!(find(&scratch.0, &unset).expect("no fault"), Some(cached));

        let named = scratch.file("other.json", b"{}");
        let set = |_: &str| Some(named.clone().into_os_string());
        assert_eq!(
            find(&scratch.0, &set).expect("no fault"),
            Some(named.clone())
        );
        let wrong = |_: &str| Some("/no/such.json".into());
        assert!(find(&scratch.0, &wrong).is_err());
    }
}
