//! What drivers are fed: each kernel's shader in every language that wgpu translates to, hashed, so that a change of naga or of a
//! module is seen; and through vendors' compilers, where they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anybit::{Caps, DeviceClass, Specialization, candidates, model_specializations};
use anybit::{PlanOptions, Problem};
use naga::back::glsl::Version;
use naga::back::hlsl::ShaderModel;
use sha2::{Digest, Sha256};

use crate::case::Kernel;
use crate::matrix::contracts::CONTRACTS;
use crate::matrix::run::cheapest_of_each_kind;
use crate::shader::Shader;

/// The first bytes of the SHA-256 of each language's text, by kernel id and language.
pub type Hashes = BTreeMap<String, BTreeMap<String, String>>;

/// Every kernel of the table for the contracts of the matrix, and those around them: without subgroups, and with.
pub fn specializations() -> Vec<Specialization> {
    let mut found: BTreeMap<String, Specialization> = BTreeMap::new();
    let mut add = |specialization: Specialization| {
        // Devices differ in what joins sums, which the id says for most kernels.
        let id = match specialization.subgroup {
            true => format!("{} with subgroups", specialization.id),
            false => specialization.id.clone(),
        };
        found.entry(id).or_insert(specialization);
    };
    for subgroup in [None, Some((4, 4)), Some((32, 32))] {
        let caps = Caps {
            subgroup,
            class: DeviceClass::Gpu,
            ..Caps::floor()
        };
        for problem in CONTRACTS.iter().flat_map(|contract| contract.problems()) {
            for kernel in cheapest_of_each_kind(&problem, &caps, false) {
                if let Some(specialization) = specialization(&problem, &caps, kernel) {
                    add(specialization);
                }
            }
        }
        model_specializations(&caps).into_iter().for_each(&mut add);
    }
    found.into_values().collect()
}

fn specialization(problem: &Problem, caps: &Caps, kernel: Kernel) -> Option<Specialization> {
    let id = kernel.id(problem, caps)?;
    let (accepted, _) = candidates(problem, caps, &PlanOptions::kernel(&id)).ok()?;
    accepted
        .into_iter()
        .map(|candidate| candidate.specialization)
        .find(|specialization| specialization.id == id)
}

/// A shader in every language.
#[derive(Debug)]
pub struct Translations {
    /// Bytes by language.
    pub by_language: Vec<(&'static str, Vec<u8>)>,
}

impl Translations {
    /// Links a kernel, validates it with exactly the features that it declares, and translates it.
    ///
    /// # Errors
    ///
    /// What the linker or naga says.
    pub fn of(specialization: &Specialization) -> Result<Self, String> {
        let linked = specialization.link().map_err(|error| error.to_string())?;
        let shader = Shader::new(&linked.wgsl, specialization.features())?;
        let words = |words: Vec<u32>| words.into_iter().flat_map(u32::to_le_bytes).collect();
        let mut by_language = vec![
            ("wgsl", linked.wgsl.into_bytes()),
            ("spirv", words(shader.spirv(true)?)),
            ("spirv-without-dot-product", words(shader.spirv(false)?)),
            ("msl", shader.msl()?.into_bytes()),
            ("hlsl-6.4", shader.hlsl(ShaderModel::V6_4)?.into_bytes()),
        ];
        if !specialization.subgroup {
            by_language.push(("hlsl-5.1", shader.hlsl(ShaderModel::V5_1)?.into_bytes()));
            by_language.push(("glsl-430", shader.glsl(Version::Desktop(430))?.into_bytes()));
        }
        Ok(Self { by_language })
    }

    /// Their hashes.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.by_language
            .iter()
            .map(|(language, bytes)| ((*language).to_owned(), hash(bytes)))
            .collect()
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A compiler of somebody else's.
#[derive(Clone, Debug)]
pub struct External {
    /// The program.
    pub program: PathBuf,
    /// The language that it takes.
    language: &'static str,
    flags: &'static [&'static str],
    /// The ending of its input's name.
    ending: &'static str,
}

/// Compilers that may be there: program, language, flags, ending. `{}` stands for the input.
const EXTERNAL: [(&str, &str, &[&str], &str); 4] = [
    (
        "spirv-val",
        "spirv",
        &["--target-env", "vulkan1.1", "{}"],
        "spv",
    ),
    (
        "spirv-val",
        "spirv-without-dot-product",
        &["--target-env", "vulkan1.1", "{}"],
        "spv",
    ),
    (
        "dxc",
        "hlsl-6.4",
        &["-T", "cs_6_4", "-E", "main", "{}"],
        "hlsl",
    ),
    (
        "xcrun",
        "msl",
        &[
            "-sdk",
            "macosx",
            "metal",
            "-std=macos-metal2.4",
            "-c",
            "-o",
            "/dev/null",
            "{}",
        ],
        "metal",
    ),
];

/// The compilers that are there, and the names of those that are not.
pub fn externals() -> (Vec<External>, Vec<&'static str>) {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (name, language, flags, ending) in EXTERNAL {
        match on_path(name) {
            Some(program) => found.push(External {
                program,
                language,
                flags,
                ending,
            }),
            None if missing.contains(&name) => {}
            None => missing.push(name),
        }
    }
    (found, missing)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
        .find(|path| path.is_file())
}

impl External {
    /// Whether it takes a shader; `None` if it is not there in the compiler's language.
    ///
    /// # Errors
    ///
    /// What the compiler says, or why it could not be run.
    pub fn check(&self, translations: &Translations, scratch: &Path) -> Option<Result<(), String>> {
        let (_, bytes) = translations
            .by_language
            .iter()
            .find(|(language, _)| *language == self.language)?;
        Some(self.check_bytes(bytes, scratch))
    }

    fn check_bytes(&self, bytes: &[u8], scratch: &Path) -> Result<(), String> {
        let input = scratch.with_extension(self.ending);
        let text = |error: std::io::Error| format!("{}: {error}", input.display());
        fs::File::create(&input)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(text)?;
        let mut command = Command::new(&self.program);
        for flag in self.flags {
            match *flag {
                "{}" => command.arg(&input),
                flag => command.arg(flag),
            };
        }
        let output = command.stdin(Stdio::null()).output().map_err(text)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{} {}: {}",
                self.program.display(),
                self.language,
                String::from_utf8_lossy(&output.stderr).trim_end()
            )),
        }
    }
}

/// How hashes differ from those that were kept, a line a kernel.
pub fn differences(kept: &Hashes, found: &Hashes) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, languages) in found {
        match kept.get(id) {
            None => lines.push(format!("{id}: is new")),
            Some(other) if other != languages => {
                let changed: Vec<&str> = languages
                    .iter()
                    .filter(|(language, hash)| other.get(*language) != Some(hash))
                    .map(|(language, _)| language.as_str())
                    .collect();
                lines.push(format!("{id}: changed in {}", changed.join(", ")));
            }
            Some(_) => {}
        }
    }
    let gone = kept.keys().filter(|id| !found.contains_key(*id));
    lines.extend(gone.map(|id| format!("{id}: is gone")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(entries: &[(&str, &str)]) -> Hashes {
        entries
            .iter()
            .map(|(id, hash)| {
                let languages = BTreeMap::from([("msl".to_owned(), (*hash).to_owned())]);
                ((*id).to_owned(), languages)
            })
            .collect()
    }

    #[test]
    fn changes_are_named() {
        let kept = hashes(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let found = hashes(&[("a", "1"), ("b", "9"), ("d", "4")]);
        assert_eq!(
            differences(&kept, &found),
            ["b: changed in msl", "d: is new", "c: is gone"]
        );
        assert_eq!(differences(&kept, &kept), [""; 0]);
    }

    #[test]
    fn every_kernel_is_translated() {
        let all = specializations();
        for row in anybit::KERNELS {
            let tile = format!("__{}_", row.engine);
            let needed = row.engine != anybit::Engine::Matrix;
            assert_eq!(
                all.iter().any(|one| one.id.contains(&tile)),
                needed,
                "{}",
                row.stem
            );
        }
    }
}
