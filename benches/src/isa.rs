//! `isa`: what GPUs would run. Every kernel is compiled by Mesa's driver for Radeon GPUs, of which none need be there, and
//! the machine code is read: registers, waves, and what the loop around the products is made of.
//!
//! A process for each family opens the driver ([`compiler`], [`vulkan`]) and compiles the SPIR-V that wgpu would hand it
//! ([`spirv`]); its disassembly is counted ([`assembly`]) and judged ([`figures`]), and compared with what is kept
//! ([`golden`]).

mod assembly;
mod compiler;
mod family;
mod figures;
mod golden;
mod spirv;
mod vulkan;

use std::cmp::Reverse;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anybit::{Candidate, Caps, Engine, OutputFormat, PlanOptions, Problem, Skeleton, candidates};
use indicatif::{ProgressBar, ProgressStyle};
use wildmatch::WildMatch;

pub(crate) use compiler::{TASK, serve};
pub(crate) use family::Family;

use crate::cli::IsaArguments;
use crate::report::write_json;
use crate::{Error, shaders};
use compiler::{Compiler, MUCH_PATIENCE, PATIENCE};
use figures::{Figures, Kernel};
use golden::Golden;
use spirv::Shader;

/// A pair of operands that the report has.
#[derive(Clone, Copy, Debug)]
struct Operands {
    activation: &'static str,
    weight: &'static str,
    output: OutputFormat,
    /// Whether its figures are kept.
    kept: bool,
}

const fn operands(activation: &'static str, weight: &'static str) -> Operands {
    Operands {
        activation,
        weight,
        output: OutputFormat::F32,
        kept: false,
    }
}

impl Operands {
    const fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    const fn bare(mut self) -> Self {
        self.output = OutputFormat::I32;
        self
    }
}

/// Of each kind that people use one, and of each way through the kernels.
const OPERANDS: &[Operands] = &[
    operands("f32", "f32").kept(),
    operands("f32", "u4g32hm").kept(),
    operands("f32", "i2g32h"),
    operands("f32", "b1g32h"),
    operands("f32", "nf4g32h"),
    operands("f32", "e2m1g32e"),
    operands("i8rf", "i8g32h").kept(),
    operands("i8rf", "u4g32hm").kept(),
    operands("i8rf", "i3g32h"),
    operands("i8rf", "i2g32h"),
    operands("i8rf", "e2m1g32e"),
    operands("i4rf", "u4g32hm"),
    operands("i4rf", "i3g32h"),
    operands("i2rf", "i2g32h").kept(),
    operands("b1rf", "b1g32h").kept(),
    operands("e4m3rf", "e4m3g32h"),
    operands("e2m1g32e", "e2m1g32e").kept(),
    operands("i8", "i8").bare(),
    operands("b1", "b1").bare(),
];

/// Rows of X that are no GEMV's.
const MANY: usize = 1024;

/// A kernel that takes the driver longer is named: its users wait as long.
const SLOW_SECONDS: f64 = 20.0;

/// `anybit-benches isa`.
///
/// # Errors
///
/// [`Error::Skipped`] without the driver, or with another than that of the figures kept; [`Error::NoContract`] and
/// [`Error::Kernel`] for what there is not; [`Error::Uncompiled`] if a kernel did not compile; [`Error::IsaDiffers`] and
/// [`Error::IsaOutOfDate`] when checking.
pub(crate) fn run(arguments: &IsaArguments) -> Result<(), Error> {
    if let Some(id) = &arguments.print {
        return print_assembly(id, &arguments.family);
    }
    let keeping = arguments.check || arguments.update;
    let kernels = if keeping {
        kept_kernels()?
    } else {
        kernels(arguments.contract.as_deref())?
    };
    let families = match &arguments.family[..] {
        _ if keeping => Family::KEPT.to_vec(),
        [] => Family::USUAL.to_vec(),
        families => families.to_vec(),
    };
    let golden = arguments.check.then(Golden::read).transpose()?;
    if let Some(golden) = &golden {
        golden.check_page()?;
    }

    let manifest = manifest()?;
    let patience = if keeping { MUCH_PATIENCE } else { PATIENCE };
    let driver = Compiler::start(families[0], &manifest, patience)?
        .driver
        .clone();
    if let Some(golden) = golden.as_ref().filter(|golden| golden.driver != driver) {
        return Err(Error::Skipped {
            reason: format!(
                "docs/isa.json has figures of {}, and this is {driver}: they are not compared",
                golden.driver
            ),
        });
    }
    let kernels = kernels
        .into_iter()
        .map(|(kernel, candidate)| Ok((kernel, spirv::translate(&candidate.specialization)?)))
        .collect::<Result<Vec<(Kernel, Shader)>, Error>>()?;
    let compiled = compile(&families, &kernels, &|family| {
        Compiler::start(family, &manifest, patience)
    });

    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (family, results) in families.iter().zip(compiled) {
        let mut of_family = Vec::new();
        for result in results {
            match result {
                Ok(row) => of_family.push(row),
                Err(error) => failures.push(error.to_string()),
            }
        }
        if !keeping {
            println!("\n== {} ({}), {driver}", family.name(), family.about());
            figures::print(*family, &of_family);
        }
        rows.extend(of_family);
    }
    if let Some(path) = &arguments.json {
        write_json(&rows, path)?;
        println!("\nJSON lines: {}", path.display());
    }
    println!(
        "\n{} kernels compiled for {} families",
        kernels.len(),
        families.len()
    );
    if !failures.is_empty() {
        return Err(Error::Uncompiled { failures });
    }
    if arguments.update {
        return Golden::new(driver, rows).write();
    }
    let differences = golden.map_or_else(Vec::new, |golden| golden.differences(&rows));
    if !differences.is_empty() {
        return Err(Error::IsaDiffers { differences });
    }
    Ok(())
}

/// A kernel's candidate, with its name in the report.
type Named = (Kernel, Candidate);

/// Every kernel of the contracts that match.
fn kernels(glob: Option<&str>) -> Result<Vec<Named>, Error> {
    let mut kernels = Vec::new();
    for operands in OPERANDS {
        kernels.extend(kernels_of(operands)?);
    }
    let Some(glob) = glob else {
        return Ok(in_order(kernels));
    };
    let pattern = WildMatch::new(glob);
    let mut contracts: Vec<String> = Vec::new();
    kernels.retain(|(kernel, _)| {
        contracts.push(kernel.contract.clone());
        pattern.matches(&kernel.contract)
    });
    if kernels.is_empty() {
        contracts.sort();
        contracts.dedup();
        return Err(Error::NoContract {
            glob: glob.to_owned(),
            contracts,
        });
    }
    Ok(in_order(kernels))
}

/// The kernels whose figures are kept, few enough to be compiled in a minute: of the operands that most people use, for many
/// rows of X and for one, each engine and skeleton in one tile.
fn kept_kernels() -> Result<Vec<Named>, Error> {
    /// Outputs an invocation, for many rows and for one. Larger tiles are the first to spill, and take the driver up to
    /// minutes.
    const LIMITS: [u32; 2] = [32, 4];
    let mut kept: Vec<Named> = Vec::new();
    for operands in OPERANDS.iter().filter(|operands| operands.kept) {
        let mut kernels = kernels_of(operands)?;
        kernels.retain(|(_, candidate)| {
            let tile = candidate.tile;
            let gemv = candidate.skeleton == Skeleton::Gemv;
            let kept = is_kept(candidate.engine);
            tile.thread_m * tile.thread_n <= LIMITS[usize::from(gemv)]
                && (!gemv || tile.m == 1)
                && tile.buffers == 1
                && kept
        });
        // The largest of each kind first.
        kernels.sort_by_key(|(kernel, candidate)| {
            let tile = candidate.tile;
            let outputs = tile.thread_m * tile.thread_n;
            (
                Reverse(outputs),
                Reverse(tile.m * tile.n),
                kernel.id.clone(),
            )
        });
        let mut kinds = Vec::new();
        kernels.retain(|(_, candidate)| {
            let kind = (candidate.engine, candidate.skeleton);
            let first = !kinds.contains(&kind);
            kinds.push(kind);
            first
        });
        kept.extend(kernels);
    }
    Ok(in_order(kept))
}

/// Whether figures of an engine are kept: not of those that are asked for, nor of what GPUs leave to drivers that run shaders on
/// a CPU, nor of what needs features that this driver lacks.
const fn is_kept(engine: Engine) -> bool {
    !matches!(
        engine,
        Engine::Lut
            | Engine::Lut8
            | Engine::LMul
            | Engine::Matrix
            | Engine::Swar
            | Engine::IntegerFma
    )
}

fn in_order(mut kernels: Vec<Named>) -> Vec<Named> {
    kernels.sort_by(|(a, _), (b, _)| (&a.contract, &a.id).cmp(&(&b.contract, &b.id)));
    kernels.dedup_by(|(a, _), (b, _)| a.id == b.id);
    kernels
}

/// Every row of the kernel table that takes the operands, in each of its tiles: a GEMM kernel for many rows of X, a GEMV
/// kernel for as many as it is made for.
fn kernels_of(operands: &Operands) -> Result<Vec<Named>, Error> {
    let (activation, weight) = (operands.activation.parse()?, operands.weight.parse()?);
    // What the planner takes unasked, and tables. L-Mul has products of its own, whatever the operands: once is enough.
    let mut options = vec![
        PlanOptions::default(),
        PlanOptions::engine(Engine::Lut),
        PlanOptions::engine(Engine::Lut8),
    ];
    if (operands.activation, operands.weight) == ("f32", "f32") {
        options.push(PlanOptions::engine(Engine::LMul));
    }
    let mut kernels = Vec::new();
    for m in [1, 2, 4, 8, MANY] {
        let problem =
            Problem::new((m, 1024, 4096), activation, weight).with_output(operands.output);
        for options in &options {
            // Kernels that split K differ from others in where they begin and end.
            let options = options.clone().with_parts(1);
            let (mut accepted, _) = candidates(&problem, &radeon(), &options)?;
            accepted.retain(|candidate| match candidate.skeleton {
                Skeleton::Gemv => candidate.tile.m as usize == m,
                _ => m == MANY,
            });
            kernels.extend(
                accepted
                    .into_iter()
                    .map(|candidate| (Kernel::of(&candidate), candidate)),
            );
        }
    }
    Ok(kernels)
}

/// A Radeon as wgpu shows it to anybit, which asks for no more than WebGPU's limits. GCN has subgroups of 64 alone; no
/// kernel tells them from those of RDNA, which are of 32 or 64.
fn radeon() -> Caps {
    Caps {
        name: "Radeon".into(),
        backend: anybit::wgpu::Backend::Vulkan,
        subgroup: Some((32, 64)),
        ..Caps::floor()
    }
}

/// Starts a compiler.
type Start<'a> = &'a (dyn Fn(Family) -> Result<Compiler, Error> + Sync);

/// All kernels for each family, side by side.
fn compile(
    families: &[Family],
    kernels: &[(Kernel, Shader)],
    start: Start<'_>,
) -> Vec<Vec<Result<Figures, Error>>> {
    let progress = &ProgressBar::new((families.len() * kernels.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed}]") {
        progress.set_style(style);
    }
    let compiled = thread::scope(|scope| {
        let threads: Vec<_> = families
            .iter()
            .map(|&family| scope.spawn(move || compile_for(family, kernels, start, progress)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    progress.finish_and_clear();
    compiled
}

fn compile_for(
    family: Family,
    kernels: &[(Kernel, Shader)],
    start: Start<'_>,
    progress: &ProgressBar,
) -> Vec<Result<Figures, Error>> {
    let mut compiler: Option<Compiler> = None;
    let mut compile_one = |kernel: &Kernel, shader| -> Result<Figures, Error> {
        // A new one after each failure, since a driver that has failed may do so again.
        let mut running = match compiler.take() {
            Some(compiler) => compiler,
            None => start(family)?,
        };
        let begin = Instant::now();
        let compiled = running.compile(&kernel.id, shader);
        let seconds = begin.elapsed().as_secs_f64();
        if seconds > SLOW_SECONDS {
            progress.suspend(|| {
                eprintln!(
                    "{}: {} took {seconds:.0} s to compile",
                    family.name(),
                    kernel.id
                );
            });
        }
        let compiled = compiled?;
        compiler = Some(running);
        Ok(Figures::new(family, kernel, &compiled))
    };
    kernels
        .iter()
        .map(|(kernel, shader)| {
            let result = compile_one(kernel, shader);
            progress.inc(1);
            result
        })
        .collect()
}

fn manifest() -> Result<PathBuf, Error> {
    compiler::manifest().ok_or_else(|| Error::Skipped {
        reason: "there is no Vulkan driver of Mesa's for Radeon GPUs, which compiles without one too; Debian and Ubuntu have it \
                 in mesa-vulkan-drivers"
            .to_owned(),
    })
}

/// `--print`: the disassembly itself.
fn print_assembly(id: &str, families: &[Family]) -> Result<(), Error> {
    let shader = spirv::translate(&shaders::find(id)?)?;
    let manifest = manifest()?;
    let families = match families {
        [] => &Family::USUAL[..1],
        families => families,
    };
    for &family in families {
        let mut compiler = Compiler::start(family, &manifest, MUCH_PATIENCE)?;
        let compiled = compiler.compile(id, &shader)?;
        println!("; {id} on {}, {}", family.name(), compiler.driver);
        for (name, value) in &compiled.statistics {
            println!("; {name}: {value}");
        }
        println!("{}", compiled.assembly);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anybit::KERNELS;

    use super::*;

    #[test]
    fn every_tile_of_every_kernel_is_in_the_report() {
        let kernels = kernels(None).expect("kernels");
        // The driver that compiles has no cooperative matrices.
        let compiled = KERNELS.iter().filter(|row| row.engine != Engine::Matrix);
        for row in compiled {
            for tile in row.tiles {
                let found = kernels.iter().any(|(_, candidate)| {
                    (candidate.engine, candidate.skeleton, candidate.tile)
                        == (row.engine, row.skeleton, *tile)
                });
                assert!(found, "{} {tile:?}", row.stem);
            }
        }
    }

    #[test]
    fn globs_select_contracts() {
        let kernels = kernels(Some("gemm_i8rf_u4*")).expect("some match");
        assert!(!kernels.is_empty());
        for (kernel, _) in kernels {
            assert_eq!(kernel.contract, "gemm_i8rf_u4g32hm_f32");
        }
    }

    #[test]
    fn a_glob_that_matches_nothing_lists_the_contracts() {
        let Err(error) = kernels(Some("conv_*")) else {
            panic!("there are no convolutions");
        };
        let message = error.to_string();
        assert!(message.contains("conv_*"), "{message}");
        assert!(message.contains("gemv_i8rf_u4g32hm_f32"), "{message}");
    }

    #[test]
    fn what_is_kept_is_a_small_part_of_the_report() {
        let kept = kept_kernels().expect("kernels");
        let all = kernels(None).expect("kernels");
        assert!(
            4 * kept.len() < all.len(),
            "{} of {}",
            kept.len(),
            all.len()
        );
        for (kernel, _) in &kept {
            assert!(all.iter().any(|(other, _)| other.id == kernel.id));
        }
        // Every kernel that there are aims for.
        for row in KERNELS {
            let kind = |candidate: &Candidate| (candidate.engine, candidate.skeleton);
            let found = kept
                .iter()
                .any(|(_, candidate)| kind(candidate) == (row.engine, row.skeleton));
            assert_eq!(found, is_kept(row.engine), "{}", row.stem);
        }
    }

    #[test]
    fn kernels_become_spirv() {
        let kernels = kernels(Some("gemv_i8rf_u4*")).expect("some match");
        for (_, candidate) in kernels {
            let shader = spirv::translate(&candidate.specialization).expect("SPIR-V");
            assert_eq!(shader.spirv.first(), Some(&0x0723_0203));
            assert_eq!(shader.bindings.len(), 6);
            assert_eq!(shader.bindings.first(), Some(&vulkan::Binding::Uniform));
        }
    }

    #[test]
    fn a_report_that_cannot_be_written_says_where() {
        let error = write_json::<Figures>(&[], Path::new("no-such-folder/isa.jsonl"))
            .expect_err("no folder");
        assert!(error.to_string().contains("no-such-folder"), "{error}");
    }
}
