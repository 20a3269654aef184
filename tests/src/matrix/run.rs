//! Running the matrix on an adapter.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anybit::{
    Caps, Context, DeviceClass, Engine, KERNELS, PlanOptions, Problem, Skeleton, Values, wgpu,
};
use anybit_formats::PackedMatrix;
use anybit_reference::exact;
use sha2::{Digest, Sha256};

use super::contracts::{CONTRACTS, Contract};
use super::report::{AdapterFacts, Outcome, Report, Row};
use crate::case::Kernel;
use crate::compare;
use crate::operand::{Fill, operand};
use crate::random::Random;
use crate::rig;

/// What of the matrix is run, and how the adapter is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the run is called.
    pub leg: String,
    /// Without optional features, within WebGPU's default limits.
    pub floor: bool,
    /// Kernels a contract and shape at most, which take turns; all kinds if there is no such limit.
    pub kernels: Option<usize>,
    /// All tiles of every kind of kernel.
    pub full: bool,
}

/// How often kinds of kernels have been run.
type Met = HashMap<(Engine, Skeleton), usize>;

/// Cases after which a context is replaced: software drivers give the memory of pipelines back only then.
const CASES: usize = 60;

/// The contexts that cases run on.
struct Contexts<'a> {
    adapter: &'a wgpu::Adapter,
    floor: bool,
    current: Option<Context>,
    used: usize,
}

impl Contexts<'_> {
    fn next(&mut self) -> Result<Context, anybit::Error> {
        self.used += 1;
        if self.used.is_multiple_of(CASES) {
            self.current = None;
        }
        let context = match self.current.take() {
            Some(context) => context,
            None if self.floor => {
                let limits = wgpu::Limits::default().or_worse_values_from(&self.adapter.limits());
                rig::device(self.adapter, wgpu::Features::empty(), limits)
            }
            None => pollster::block_on(Context::from_adapter(self.adapter))?,
        }
        .without_choices();
        self.current = Some(context.clone());
        Ok(context)
    }
}

/// Runs the matrix. `progress` is told of each case.
///
/// # Errors
///
/// If the adapter makes no device. What is wrong with a case is in its row.
pub fn run(
    adapter: &wgpu::Adapter,
    options: &Options,
    mut progress: impl FnMut(&Row),
) -> Result<Report, anybit::Error> {
    let begun = Instant::now();
    let mut contexts = Contexts {
        adapter,
        floor: options.floor,
        current: None,
        used: 0,
    };
    let caps = contexts.next()?.caps().clone();
    let mut rows = Vec::new();
    let mut met = Met::new();
    for contract in CONTRACTS {
        for problem in contract.problems() {
            let (x, w) = operands(&problem);
            for kernel in kernels(&problem, &caps, options, &mut met) {
                let row = case(&contexts.next()?, contract, &problem, kernel, (&x, &w));
                progress(&row);
                rows.push(row);
            }
        }
    }
    let refused = refusals(&rows, &caps);
    Ok(Report {
        leg: options.leg.clone(),
        adapter: facts(&caps),
        rows,
        refused,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn facts(caps: &Caps) -> AdapterFacts {
    AdapterFacts {
        name: caps.name.to_string(),
        backend: caps.backend.to_str().to_owned(),
        driver: caps.driver.clone(),
        subgroup: caps.subgroup,
        software: caps.class == DeviceClass::Software,
        max_binding: caps.max_binding,
        max_workgroup_memory: caps.max_workgroup_memory,
        timestamps: caps.timestamps,
    }
}

/// The operands of a problem, the same on every adapter.
fn operands(problem: &Problem) -> (PackedMatrix, PackedMatrix) {
    let mut random = Random::new(0x6d61_7472_6978);
    let x = operand(
        &problem.activation,
        (problem.activation_rows(), problem.k),
        Fill::Random,
        &mut random,
    );
    let w = operand(
        &problem.weight,
        (problem.weight_rows(), problem.k),
        Fill::Random,
        &mut random,
    );
    (x, w)
}

/// The kernels that a problem meets: of each kind the tile that is cheapest to compile, or what the options say. Kernels for
/// few rows meet one row of X, all others several.
fn kernels(problem: &Problem, caps: &Caps, options: &Options, met: &mut Met) -> Vec<Kernel> {
    let mut kernels = Kernel::all_for(problem, caps, options.floor);
    kernels.retain(|kernel| (kernel.skeleton == Skeleton::Gemv) == (problem.m == 1));
    if options.full {
        return kernels;
    }
    let mut kinds = one_of_each_kind(kernels);
    if let Some(most) = options.kernels {
        // Those that the run has met least, so that none is left out.
        kinds.sort_by_key(|kernel| met.get(&kind(kernel)).copied().unwrap_or(0));
        kinds.truncate(most);
    }
    for kernel in &kinds {
        *met.entry(kind(kernel)).or_default() += 1;
    }
    kinds
}

const fn kind(kernel: &Kernel) -> (Engine, Skeleton) {
    (kernel.engine, kernel.skeleton)
}

/// Of each engine and skeleton that does a problem, the tile that is cheapest to compile.
pub fn cheapest_of_each_kind(problem: &Problem, caps: &Caps, floor: bool) -> Vec<Kernel> {
    one_of_each_kind(Kernel::all_for(problem, caps, floor))
}

fn one_of_each_kind(mut kernels: Vec<Kernel>) -> Vec<Kernel> {
    kernels.sort_by_key(|kernel| kernel.tile.thread_m * kernel.tile.thread_n);
    let mut kinds: Vec<Kernel> = Vec::new();
    for kernel in kernels {
        if kinds.iter().all(|known| kind(known) != kind(&kernel)) {
            kinds.push(kernel);
        }
    }
    kinds.sort_by_key(|kernel| (kernel.skeleton, kernel.engine));
    kinds
}

fn case(
    context: &Context,
    contract: &Contract,
    problem: &Problem,
    kernel: Kernel,
    (x, w): (&PackedMatrix, &PackedMatrix),
) -> Row {
    let id = kernel.id(problem, context.caps()).unwrap_or_default();
    let (outcome, wrong, digest) = match multiplied(context, problem, kernel, &id, (x, w)) {
        Ok((outcome, digest)) => (outcome, None, digest),
        Err(wrong) => (Outcome::Failed, Some(wrong), None),
    };
    let row = KERNELS
        .iter()
        .find(|row| (row.engine, row.skeleton) == (kernel.engine, kernel.skeleton));
    Row {
        contract: contract.name.to_owned(),
        kernel: row.map_or("", |row| row.stem).to_owned(),
        id,
        shape: (problem.m, problem.n, problem.k),
        outcome,
        problem: wrong,
        digest,
    }
}

fn multiplied(
    context: &Context,
    problem: &Problem,
    kernel: Kernel,
    id: &str,
    (x, w): (&PackedMatrix, &PackedMatrix),
) -> Result<(Outcome, Option<String>), String> {
    let text = |error: anybit::Error| error.to_string();
    let plan = context
        .plan_with(problem, &PlanOptions::kernel(id))
        .map_err(text)?;
    let mut random = Random::new(0x7265_706f_7274);
    let values =
        rig::multiply(context, &plan, x, w, &mut random).map_err(|error| error.to_string())?;
    match values {
        Values::I32(found) => {
            let expected = exact::gemm_i64_batched(x, w, rig::batches(problem))
                .map_err(|error| error.to_string())?;
            match compare::exact(&found, &expected) {
                None => Ok((Outcome::Exact, Some(digest(&found)))),
                Some(wrong) => Err(wrong.to_string()),
            }
        }
        found => {
            let parts = rig::parts_of(&plan)?;
            let (expected, bounds) = rig::reference_of_parts(problem, kernel.engine, parts, x, w)?;
            let found = found.into_f32().unwrap_or_default();
            match compare::bounded(&found, &expected, &bounds) {
                None => Ok((Outcome::WithinBound, None)),
                Some(wrong) => Err(wrong.to_string()),
            }
        }
    }
}

/// The first eight bytes of the SHA-256 of little-endian words.
fn digest(values: &[i32]) -> String {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Sha256::digest(&bytes)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Why kernels met no contract, by kernel.
fn refusals(rows: &[Row], caps: &Caps) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    for row in KERNELS {
        if rows.iter().any(|found| found.kernel == row.stem) {
            continue;
        }
        let mut reasons = CONTRACTS
            .iter()
            .flat_map(Contract::problems)
            .filter_map(|problem| {
                let options = PlanOptions::engine(row.engine).with_uploaded(true);
                anybit::candidates(&problem, caps, &options).ok()
            })
            .flat_map(|(_, refused)| refused)
            .filter(|refusal| refusal.stem == row.stem)
            .map(|refusal| refusal.reason)
            .filter(of_the_device);
        let reason = reasons.next().map_or_else(
            || "no contract met it in this run".to_owned(),
            |reason| reason.to_string(),
        );
        refused.insert(row.stem.to_owned(), reason);
    }
    refused
}

/// Whether a kernel was refused for what the device lacks, not for the problem.
fn of_the_device(reason: &anybit::Reason) -> bool {
    use anybit::Reason;
    matches!(
        reason,
        Reason::Subgroup { .. }
            | Reason::Invocations { .. }
            | Reason::WorkgroupMemory { .. }
            | Reason::Matrix(_)
            | Reason::WholeSubgroups { .. }
            | Reason::Unchecked
            | Reason::Denied
    )
}
