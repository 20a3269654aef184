//! What drivers are fed: each kernel's shader in every language that wgpu translates to, hashed, so that a change of naga or of a
//! module is seen; and through vendors' compilers, where they are.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anybit::{
    Candidate, Caps, DeviceClass, Engine, Fragment, PlanOptions, Problem, Skeleton, Specialization,
    candidates, model_specializations,
};
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
    let models = SUBGROUPS
        .map(caps_with)
        .into_iter()
        .flat_map(|caps| model_specializations(&caps));
    let products = products()
        .into_iter()
        .map(|(_, specialization)| specialization);
    for specialization in products.chain(models) {
        // Devices differ in what joins sums, which the id says for most kernels.
        let id = match specialization.subgroup {
            true => format!("{} with subgroups", specialization.id),
            false => specialization.id.clone(),
        };
        found.entry(id).or_insert(specialization);
    }
    found.into_values().collect()
}

/// Subgroups of the devices that shaders are made for.
const SUBGROUPS: [Option<(u32, u32)>; 3] = [None, Some((4, 4)), Some((32, 32))];

fn caps_with(subgroup: Option<(u32, u32)>) -> Caps {
    Caps {
        subgroup,
        class: DeviceClass::Gpu,
        ..Caps::floor()
    }
}

/// A kernel of the table, by engine and skeleton, made for a contract.
type Product = ((Engine, Skeleton), Specialization);

fn products() -> Vec<Product> {
    let problems: Vec<Problem> = CONTRACTS
        .iter()
        .flat_map(|contract| contract.problems())
        .collect();
    let mut products = Vec::new();
    for caps in SUBGROUPS.map(caps_with) {
        for problem in &problems {
            for kernel in cheapest_of_each_kind(problem, &caps, false) {
                let product = specialization(problem, &caps, kernel);
                products.extend(product.map(|one| ((kernel.engine, kernel.skeleton), one)));
            }
        }
    }
    // Of mixtures of experts, one contract of each kind of kernel.
    for caps in SUBGROUPS.map(caps_with) {
        let mut met = HashSet::new();
        for problem in &problems {
            let problem = problem.clone().with_experts(4);
            for kernel in cheapest_of_each_kind(&problem, &caps, false) {
                let kind = (kernel.engine, kernel.skeleton);
                let product = specialization(&problem, &caps, kernel);
                products.extend(product.filter(|_| met.insert(kind)).map(|one| (kind, one)));
            }
        }
    }
    for fragment in [Fragment::Eight, Fragment::Sixteen] {
        let caps = Caps {
            matrix: Ok(fragment),
            ..caps_with(Some((32, 32)))
        };
        products.extend(
            problems
                .iter()
                .filter_map(|problem| matrix_product(problem, &caps)),
        );
    }
    products
}

fn specialization(problem: &Problem, caps: &Caps, kernel: Kernel) -> Option<Specialization> {
    let id = kernel.id(problem, caps)?;
    let (accepted, _) = candidates(problem, caps, &PlanOptions::kernel(&id)).ok()?;
    accepted
        .into_iter()
        .map(|candidate| candidate.specialization)
        .find(|specialization| specialization.id == id)
}

/// The smallest tile of cooperative matrices for a problem. The matrix of adapters takes none of them unasked.
fn matrix_product(problem: &Problem, caps: &Caps) -> Option<Product> {
    let options = PlanOptions::engine(Engine::Matrix).with_unchecked(true);
    let (accepted, _) = candidates(problem, caps, &options).ok()?;
    let size = |candidate: &Candidate| (candidate.tile.m * candidate.tile.n, candidate.tile.k);
    let smallest = accepted.into_iter().min_by_key(size)?;
    let kind = (smallest.engine, smallest.skeleton);
    Some((kind, smallest.specialization))
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
            ("spirv-of-old-drivers", words(shader.spirv(false)?)),
            ("msl", shader.msl()?.into_bytes()),
        ];
        // naga writes cooperative matrices for Vulkan and Metal alone.
        if !shader.has_cooperative_matrices() {
            let hlsl = shader.hlsl(ShaderModel::V6_4)?;
            by_language.push(("hlsl-6.4", hlsl.into_bytes()));
        }
        if !specialization.subgroup && !shader.has_cooperative_matrices() {
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
        &["--target-env", "vulkan1.3", "{}"],
        "spv",
    ),
    (
        "spirv-val",
        "spirv-of-old-drivers",
        &["--target-env", "vulkan1.1", "{}"],
        "spv",
    ),
    (
        "dxc",
        "hlsl-6.4",
        // As wgpu calls it.
        &[
            "-T",
            "cs_6_4",
            "-E",
            "main",
            "-HV",
            "2018",
            "-no-warnings",
            "-Ges",
            "{}",
        ],
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
        match on_path(name).filter(|program| name != "xcrun" || has_metal(program)) {
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

/// Whether Apple's tools have the compiler, which comes with Xcode alone.
fn has_metal(xcrun: &Path) -> bool {
    let mut command = Command::new(xcrun);
    command
        .args(["-sdk", "macosx", "--find", "metal"])
        .stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
        .find(|path| path.is_file())
}

impl External {
    /// The program with what it reads.
    pub fn name(&self) -> String {
        format!("{} of {}", self.program.display(), self.language)
    }

    /// Whether it knows a shader's language, and then takes the shader; `None` if it is not there in the compiler's language.
    ///
    /// # Errors
    ///
    /// What the compiler says, or why it could not be run.
    pub fn check(
        &self,
        translations: &Translations,
        scratch: &Path,
    ) -> Option<Result<bool, String>> {
        let (_, bytes) = translations
            .by_language
            .iter()
            .find(|(language, _)| *language == self.language)?;
        Some(self.check_bytes(bytes, scratch))
    }

    fn check_bytes(&self, bytes: &[u8], scratch: &Path) -> Result<bool, String> {
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
        if output.status.success() {
            return Ok(true);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match said.contains(TOO_OLD) {
            true => Ok(false),
            false => Err(format!("{}: {}", self.name(), said.trim_end())),
        }
    }
}

/// How a spirv-val of before 2023.3 speaks of cooperative matrices.
const TOO_OLD: &str = "Invalid capability operand: 6022";

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
        let (all, products) = (specializations(), products());
        for row in anybit::KERNELS {
            let kind = (row.engine, row.skeleton);
            let product = products.iter().find(|(other, _)| *other == kind);
            let (_, one) = product.unwrap_or_else(|| panic!("{} is not translated", row.stem));
            let id = &one.id;
            assert!(all.iter().any(|one| one.id == *id), "{id} is left out");
        }
    }

    /// A program that stands for a compiler: the shader is what it is to do.
    #[cfg(unix)]
    #[test]
    fn compilers_take_refuse_and_do_not_know() {
        let compiler = External {
            program: "/bin/sh".into(),
            language: "spirv",
            flags: &["{}"],
            ending: "sh",
        };
        let folder = tempfile::tempdir().expect("a folder");
        let check = |script: &str| {
            let translations = Translations {
                by_language: vec![("spirv", script.into())],
            };
            let result = compiler.check(&translations, &folder.path().join("shader"));
            result.expect("there is SPIR-V")
        };
        assert_eq!(check("exit 0"), Ok(true));
        let refused = check("echo no such thing >&2; exit 1").expect_err("it is refused");
        assert!(refused.contains("no such thing"), "{refused}");
        let unknown = check(&format!("echo 'error: line 6: {TOO_OLD}' >&2; exit 1"));
        assert_eq!(unknown, Ok(false));
        let msl_alone = Translations {
            by_language: vec![("msl", Vec::new())],
        };
        assert!(compiler.check(&msl_alone, folder.path()).is_none());
    }

    /// Those of cooperative matrices exist in fewer languages.
    #[test]
    fn translations_are_in_every_language_that_there_is() {
        let all = specializations();
        let languages = |wanted: &dyn Fn(&Specialization) -> bool| {
            let one = all.iter().find(|one| wanted(one)).expect("there is one");
            let translations = Translations::of(one).expect("it is translated");
            let names = translations.by_language.iter().map(|(name, _)| *name);
            names.collect::<Vec<_>>()
        };
        let vulkan_and_metal = ["wgsl", "spirv", "spirv-of-old-drivers", "msl"];
        let matrices = |one: &Specialization| one.has_cooperative_matrices();
        assert_eq!(languages(&matrices), vulkan_and_metal);
        let plain = |one: &Specialization| !one.has_cooperative_matrices() && !one.subgroup;
        let others = ["hlsl-6.4", "hlsl-5.1", "glsl-430"];
        assert_eq!(
            languages(&plain),
            [&vulkan_and_metal[..], &others[..]].concat()
        );
    }
}
