//! Is there a Vulkan driver on this Linux machine, and if not, how does one get there?
//!
//! A driver announces itself by a manifest, a JSON file in one of the folders that the Vulkan
//! loader (libvulkan.so.1) searches. The search below follows the loader's own rules, so that no
//! driver is installed beside one that works already.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Variables, variable};
use crate::process::{self, Failure};

const DEBIAN_PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];
const LOADER: &str = "libvulkan.so.1";

/// These two name files and replace the loader's search; the second is the first's older name.
pub(super) const CHOSEN_BY: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// Reports the driver, after installing it if it is missing and `install` allows it.
pub(super) fn ensure(install: bool) -> Result<(), Failure> {
    let inspection = Inspection::of_this_machine();
    let Some(problem) = inspection.problem() else {
        println!("driver: ok: {}", inspection.summary());
        return Ok(());
    };
    if let Some(name) = inspection.chosen_by {
        return Err(Failure::new(format!(
            "{problem}; unset {name}, or let it name a driver's JSON file"
        )));
    }
    let system = System::of_this_machine();
    let remedy = system.remedy();
    if !install || system != System::Debian {
        return Err(Failure::new(format!("{problem}; {remedy}")));
    }
    let Some(privilege) = Privilege::available() else {
        return Err(Failure::new(format!(
            "{problem}, and it takes root or a sudo without password to install one; {remedy}"
        )));
    };
    println!("driver: {problem}; installing Mesa's, which also runs without a GPU");
    // A repository that fails to refresh need not be the one that the packages come from.
    if let Err(failure) = process::run(privilege.apt_get().arg("update")) {
        println!("driver: {failure}; going on with the package lists as they are");
    }
    process::run(
        privilege
            .apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(DEBIAN_PACKAGES),
    )
    .map_err(|failure| Failure::new(format!("{failure}; {remedy}")))?;

    let inspection = Inspection::of_this_machine();
    match inspection.problem() {
        None => {
            println!("driver: ok: installed, {}", inspection.summary());
            Ok(())
        }
        Some(problem) => Err(Failure::new(format!(
            "{problem}, although {} are installed",
            DEBIAN_PACKAGES.join(" and ")
        ))),
    }
}

/// What the Vulkan loader would find.
#[derive(Debug)]
pub(super) struct Inspection {
    /// The variable that replaces the loader's search, if one is set.
    chosen_by: Option<&'static str>,
    manifests: Vec<PathBuf>,
    loader: Option<PathBuf>,
}

impl Inspection {
    pub(super) fn of_this_machine() -> Self {
        Self::new(Path::new("/"), &variable)
    }

    /// Searches below `root`, which is `/` but in tests.
    fn new(root: &Path, variables: Variables<'_>) -> Self {
        let chosen = CHOSEN_BY
            .into_iter()
            .find_map(|name| Some((name, variables(name)?)));
        let places: Vec<PathBuf> = match &chosen {
            Some((_, list)) => env::split_paths(list).collect(),
            None => search_path(variables),
        };
        let manifests = places
            .iter()
            .flat_map(|place| manifests_at(&below(root, place)))
            .collect();
        Self {
            chosen_by: chosen.map(|(name, _)| name),
            manifests,
            loader: find_loader(root, variables),
        }
    }

    /// What is missing, or `None` if nothing is.
    pub(super) fn problem(&self) -> Option<String> {
        match (self.manifests.is_empty(), self.chosen_by, &self.loader) {
            (true, Some(name), _) => Some(format!("{name} is set but names no Vulkan driver")),
            (true, None, _) => Some("no Vulkan driver is installed".to_owned()),
            (false, _, None) => Some(format!("the Vulkan loader {LOADER} is not installed")),
            (false, _, Some(_)) => None,
        }
    }

    fn summary(&self) -> String {
        let names: Vec<_> = self
            .manifests
            .iter()
            .filter_map(|manifest| manifest.file_stem())
            .map(OsStr::to_string_lossy)
            .collect();
        format!("Vulkan drivers {}", names.join(", "))
    }
}

/// The places where the loader looks for manifests, in its order.
fn search_path(variables: Variables<'_>) -> Vec<PathBuf> {
    let home = variables("HOME").map(PathBuf::from);
    let one = |name: &str, below_home: &str| {
        variables(name)
            .map(PathBuf::from)
            .or_else(|| Some(home.as_ref()?.join(below_home)))
            .into_iter()
            .collect::<Vec<_>>()
    };
    let list = |name: &str, default: &str| {
        let value = variables(name).unwrap_or_else(|| default.into());
        env::split_paths(&value).collect::<Vec<_>>()
    };
    let added = variables("VK_ADD_DRIVER_FILES").unwrap_or_default();
    let folders = [
        one("XDG_CONFIG_HOME", ".config"),
        list("XDG_CONFIG_DIRS", "/etc/xdg"),
        vec!["/etc".into(), "/usr/local/etc".into()],
        one("XDG_DATA_HOME", ".local/share"),
        list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
        // Where distributions put them, also when XDG_DATA_DIRS says otherwise.
        vec!["/usr/local/share".into(), "/usr/share".into()],
    ];
    let mut places: Vec<PathBuf> = env::split_paths(&added)
        .filter(|place| !place.as_os_str().is_empty())
        .collect();
    for folder in folders.into_iter().flatten() {
        let folder = folder.join("vulkan/icd.d");
        if !places.contains(&folder) {
            places.push(folder);
        }
    }
    places
}

/// The manifest that `place` is, or the manifests in the folder that it is.
fn manifests_at(place: &Path) -> Vec<PathBuf> {
    let is_manifest = |path: &Path| path.extension() == Some("json".as_ref()) && path.is_file();
    if is_manifest(place) {
        return vec![place.to_path_buf()];
    }
    let mut manifests: Vec<PathBuf> = entries(place).filter(|path| is_manifest(path)).collect();
    manifests.sort();
    manifests
}

fn find_loader(root: &Path, variables: Variables<'_>) -> Option<PathBuf> {
    let named = variables("LD_LIBRARY_PATH").unwrap_or_default();
    let system = ["lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib"].map(|f| root.join(f));
    // Debian keeps the libraries of each architecture in a folder of its own.
    let per_architecture = system
        .iter()
        .flat_map(|folder| entries(folder))
        .filter(|folder| {
            folder.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with(debian_architecture()) && name.contains("-linux-")
            })
        });
    env::split_paths(&named)
        .filter(|folder| !folder.as_os_str().is_empty())
        .map(|folder| below(root, &folder))
        .chain(system.iter().cloned())
        .chain(per_architecture)
        .map(|folder| folder.join(LOADER))
        .find(|file| file.is_file())
        .or_else(|| in_loader_cache(root))
}

/// Asks the dynamic linker's cache, for libraries in places of the distribution's own.
fn in_loader_cache(root: &Path) -> Option<PathBuf> {
    if root != Path::new("/") {
        return None;
    }
    let cache = ["ldconfig", "/sbin/ldconfig"]
        .into_iter()
        .find_map(|program| process::capture(Command::new(program).arg("-p")).ok())?;
    cache
        .lines()
        .filter(|line| line.trim_start().starts_with(LOADER))
        .filter_map(|line| Some(PathBuf::from(line.split(" => ").nth(1)?)))
        .find(|file| file.is_file())
}

/// How Debian's library folders of this architecture begin.
fn debian_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86" => "i386",
        other => other,
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    // A folder that is absent or closed to us holds nothing that we could use.
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
}

/// A family of distributions, by its package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Debian,
    Fedora,
    Arch,
    Suse,
    Alpine,
    Other,
}

impl System {
    pub(super) fn of_this_machine() -> Self {
        Self::of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    /// Reads the distribution from the text of /etc/os-release.
    fn of(os_release: &str) -> Self {
        let field = |name: &str| {
            os_release
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .next()
                .map(|value| value.trim().trim_matches(['"', '\'']))
                .unwrap_or_default()
        };
        let families = [field("ID"), field("ID_LIKE")];
        families
            .iter()
            .flat_map(|family| family.split_whitespace())
            .find_map(|family| match family {
                "debian" | "ubuntu" => Some(Self::Debian),
                "fedora" | "rhel" | "centos" => Some(Self::Fedora),
                "arch" => Some(Self::Arch),
                "alpine" => Some(Self::Alpine),
                family if family.contains("suse") => Some(Self::Suse),
                _ => None,
            })
            .unwrap_or(Self::Other)
    }

    /// What the user can do, in a clause.
    fn remedy(self) -> String {
        let command = match self {
            Self::Debian => format!(
                "sudo apt-get update && sudo apt-get install {}",
                DEBIAN_PACKAGES.join(" ")
            ),
            Self::Fedora => "sudo dnf install mesa-vulkan-drivers vulkan-loader".to_owned(),
            Self::Arch => "sudo pacman -S vulkan-swrast vulkan-icd-loader".to_owned(),
            Self::Suse => "sudo zypper install libvulkan_lvp libvulkan1".to_owned(),
            Self::Alpine => "sudo apk add mesa-vulkan-swrast vulkan-loader".to_owned(),
            Self::Other => {
                return "install your GPU's Vulkan driver, or Mesa's software driver lavapipe, \
                        and the Vulkan loader; or choose `--backend gl`"
                    .to_owned();
            }
        };
        format!("run `{command}`, or your GPU vendor's installer; or choose `--backend gl`")
    }
}

/// How apt-get gets its rights.
#[derive(Clone, Copy)]
pub(super) enum Privilege {
    Root,
    Sudo,
}

impl Privilege {
    /// Never asks for a password: nobody may be there to type it.
    pub(super) fn available() -> Option<Self> {
        if process::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
            return Some(Self::Root);
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        sudo.is_ok_and(|status| status.success())
            .then_some(Self::Sudo)
    }

    pub(super) fn apt_get(self) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new("apt-get");
                command.env("DEBIAN_FRONTEND", "noninteractive");
                command
            }
            // sudo drops the caller's variables.
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
                command
            }
        }
    }
}

// The paths and their lists are those of Linux, where alone this is asked.
#[cfg(all(test, unix))]
mod tests {
    use super::super::Scratch;
    use super::*;
    use std::ffi::OsString;

    fn inspect(root: &Scratch, variables: &[(&str, &str)]) -> Inspection {
        Inspection::new(&root.0, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(found.1))
        })
    }

    fn with_loader(test: &str) -> Scratch {
        let root = Scratch::new(test);
        let folder = format!("usr/lib/{}-linux-gnu", debian_architecture());
        root.file(&format!("{folder}/{LOADER}"), b"");
        root
    }

    #[test]
    fn an_empty_machine_has_no_driver() {
        let root = Scratch::new("empty");
        let problem = inspect(&root, &[]).problem();
        assert_eq!(problem.as_deref(), Some("no Vulkan driver is installed"));
    }

    #[test]
    fn every_folder_of_the_loader_is_searched() {
        let variables = [
            ("HOME", "/home/user"),
            ("XDG_CONFIG_DIRS", "/nix/etc:/etc/xdg"),
            ("XDG_DATA_HOME", "/data"),
        ];
        for folder in [
            "usr/share/vulkan/icd.d",
            "usr/local/share/vulkan/icd.d",
            "etc/vulkan/icd.d",
            "etc/xdg/vulkan/icd.d",
            "nix/etc/vulkan/icd.d",
            "data/vulkan/icd.d",
            "home/user/.config/vulkan/icd.d",
        ] {
            let root = with_loader("folders");
            let manifest = root.file(&format!("{folder}/lvp_icd.json"), b"{}");
            root.file(&format!("{folder}/README"), b"");
            let inspection = inspect(&root, &variables);
            assert_eq!(inspection.manifests, [manifest], "{folder}");
            assert_eq!(inspection.problem(), None, "{folder}");
        }
    }

    #[test]
    fn a_driver_without_the_loader_is_not_enough() {
        let root = Scratch::new("no-loader");
        root.file("usr/share/vulkan/icd.d/nvidia_icd.json", b"{}");
        root.file(&format!("usr/lib/sparc64-linux-gnu/{LOADER}"), b"");
        let problem = inspect(&root, &[]).problem().expect("no usable loader");
        assert!(problem.contains(LOADER), "{problem}");

        let library_path = [("LD_LIBRARY_PATH", ":/opt/vulkan")];
        root.file(&format!("opt/vulkan/{LOADER}"), b"");
        assert_eq!(inspect(&root, &library_path).problem(), None);
    }

    #[test]
    fn a_variable_replaces_the_search() {
        let root = with_loader("variable");
        root.file("usr/share/vulkan/icd.d/lvp_icd.json", b"{}");
        let manifest = root.file("opt/driver/other.json", b"{}");
        for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            for value in ["/opt/driver/other.json", "/nowhere.json:/opt/driver"] {
                assert_eq!(
                    inspect(&root, &[(name, value)]).manifests,
                    std::slice::from_ref(&manifest)
                );
            }
            let problem = inspect(&root, &[(name, "/nowhere.json")]).problem();
            assert!(problem.is_some_and(|text| text.starts_with(name)));
        }
        let added = inspect(&root, &[("VK_ADD_DRIVER_FILES", "/opt/driver")]);
        assert_eq!(added.manifests.len(), 2);
    }

    #[test]
    fn distributions_are_recognised() {
        let cases = [
            ("ID=debian\n", System::Debian),
            (
                "NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                System::Debian,
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                System::Fedora,
            ),
            (
                "ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"\n",
                System::Suse,
            ),
            ("ID=nixos\n", System::Other),
            ("", System::Other),
        ];
        for (text, system) in cases {
            assert_eq!(System::of(text), system, "{text}");
        }
    }
}
