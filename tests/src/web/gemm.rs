//! Every row of the table of products: contracts that meet each family of formats, each kind of scale and each output.

use anybit::{
    Candidate, Context, DeviceMatrix, Engine, Epilogue, KERNELS, KernelRow, Operands, OutputFormat,
    Plan, PlanOptions, Problem, Skeleton,
};
use anybit_formats::{DeviceLayout, Memory, Nesting, PackedMatrix, PieceLayout};
use anybit_reference::bound::{Bounded, ErrorModel};

use super::job::{Job, Texels};
use super::{Case, Device, Outcome, Runner, judge, run_job};
use crate::model::{filled, values};
use crate::operand::{Fill, format, operand};
use crate::random::Random;
use crate::rig::{self, Expected, Framed};

use OutputFormat::{F16, F32, I32};

/// Activations, weights, output.
type Contract = (&'static str, &'static str, OutputFormat);

/// Integers of every width and encoding, floats, minifloats, codebooks, each kind of scale and of zero.
const CONTRACTS: &[Contract] = &[
    ("i8", "i4", I32),
    ("i8rf", "u4g32hm", F32),
    ("u3rf", "i4g32hm", F32),
    ("f32", "i4g32h", F32),
    ("i3", "u2", I32),
    ("f16", "f16", F16),
    ("i4rf", "b2g32h", F16),
    ("f32", "e4m3rf", F32),
    ("f32", "u2g32fz", F32),
    ("b1rf", "b1rf", F32),
    ("u8", "u8", I32),
    ("f32", "nf4g32h", F32),
    ("bf16", "bf16", F32),
    ("i8rf", "e2m1g32e", F32),
    ("u5rf", "i3g16h", F32),
    ("f32", "f32", F32),
    ("i8rf", "u4g32sm", F32),
    ("bf16", "i4rh", F16),
    ("e2m1rf", "e2m1g16k", F32),
    ("f32", "bitmod3g32qc", F32),
    ("u8rfz", "tg32f", F32),
    ("f32", "power5rf", F32),
    ("b2", "i6", I32),
    ("i8rf", "iq4nlg32f", F16),
    ("f16", "u4g32sm", F32),
    ("i8rf", "bitmod4g32qc", F32),
    ("f32", "b4g128hm", F32),
    ("i6rf", "u7rf", F32),
    ("f32", "e5m2rf", F16),
    ("e2m3rf", "e3m2rf", F32),
    ("f32", "dynamic8rf", F32),
    ("f16", "i1rf", F32),
    ("i7", "b5", I32),
];

/// The contracts that come, as ids have them: activations, weights, output.
pub fn contracts() -> Vec<String> {
    let contracts = CONTRACTS.iter();
    let names =
        contracts.map(|(activation, weight, output)| format!("{activation}_{weight}_{output}"));
    names.collect()
}

/// What a product is beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// Nothing.
    Plain,
    /// K in two parts, which a second kernel adds up.
    Split,
    /// Added to a residual.
    Residual,
    /// Each row of X by the matrix of its expert.
    Experts,
    /// Weights out of a matrix of int8.
    Nested(Nesting),
    /// Operands in textures.
    Textures,
}

const VARIANTS: [Variant; 6] = [
    Variant::Split,
    Variant::Residual,
    Variant::Experts,
    Variant::Nested(Nesting::Truncation),
    Variant::Nested(Nesting::DoubleRounding),
    Variant::Textures,
];

const EXPERTS: usize = 3;

/// Bits that nested weights are read at.
const NESTED_BITS: u8 = 4;

/// A product for one kernel.
#[derive(Clone, Debug)]
struct Product {
    device: Device,
    variant: Variant,
    plan: Plan,
}

/// Every case. `all` is every contract with every kernel that takes it, else some of them, such that each row of the table,
/// each contract and each variant come. Of a device with subgroups there are those kernels that use them.
pub fn cases(device: Device, all: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    // How often each contract and each variant came.
    let mut used = ([0; CONTRACTS.len()], [0; VARIANTS.len()]);
    let rows = KERNELS.iter().filter(|row| row.engine != Engine::Matrix);
    for row in rows {
        let (plain, varied) = match (device, row.skeleton) {
            _ if all => (CONTRACTS.len(), VARIANTS.len()),
            (Device::FLOOR, Skeleton::Tiled) => (3, 1),
            (Device::FLOOR, _) => (2, 1),
            (Device { runs: true, .. }, _) => (1, 0),
            // Judged alone, which is cheap.
            _ => (4, VARIANTS.len()),
        };
        let mut order: Vec<usize> = (0..CONTRACTS.len()).collect();
        // Those first that came least, and of these the narrow ones: planes and pieces of wide codes take compilers long.
        order.sort_by_key(|&index| (used.0[index], bits(CONTRACTS[index]), index));
        let found = order.iter().filter_map(|&index| {
            let rows = if index % 2 == 0 { 5 } else { 1 };
            let product = product(device, row, CONTRACTS[index], Variant::Plain, rows)?;
            Some((index, product))
        });
        for (index, product) in found.take(plain).collect::<Vec<_>>() {
            used.0[index] += 1;
            cases.push(product.into_case(row));
        }
        let mut variants: Vec<usize> = (0..VARIANTS.len()).collect();
        variants.sort_by_key(|&variant| used.1[variant]);
        let found = variants.iter().filter_map(|&variant| {
            let product = order.iter().find_map(|&index| {
                let product = product(device, row, CONTRACTS[index], VARIANTS[variant], 5);
                Some((index, product?))
            });
            Some((variant, product?))
        });
        for (variant, (index, product)) in found.take(varied).collect::<Vec<_>>() {
            used.0[index] += 1;
            used.1[variant] += 1;
            cases.push(product.into_case(row));
        }
    }
    // Contracts that few kernels take may have met none of them.
    let left = (0..CONTRACTS.len()).filter(|&index| device == Device::FLOOR && used.0[index] == 0);
    for index in left {
        let first = KERNELS.iter().find_map(|row| {
            let product = product(device, row, CONTRACTS[index], Variant::Plain, 1)?;
            Some(product.into_case(row))
        });
        cases.extend(first);
    }
    cases
}

/// Bits of a code of both operands.
fn bits((activation, weight, _): Contract) -> u32 {
    let bits = |name| format(name).element().bits();
    bits(activation) + bits(weight)
}

/// The cheapest kernel of a row of the table for a contract, if there is one that the floor does not have.
fn product(
    device: Device,
    row: &KernelRow,
    (activation, weight, output): Contract,
    variant: Variant,
    rows: usize,
) -> Option<Product> {
    let weight = match variant {
        // Nested weights are narrower than the int8 that they are stored in.
        Variant::Nested(_) => {
            weight_in_int8(weight)?;
            format(weight)
        }
        _ => format(weight),
    };
    let k = match weight.to_string() {
        name if name.contains("g128") => 384,
        name if name.contains("g32s") => 512,
        name if name.contains('g') => 96,
        _ => 75,
    };
    // An odd number of columns, in more than one tile.
    let mut problem = Problem::new((rows, 37, k), format(activation), weight).with_output(output);
    let mut options = PlanOptions::engine(row.engine).with_memory(match variant {
        Variant::Textures => Memory::Textures,
        _ => Memory::Buffers,
    });
    options.skeleton = Some(row.skeleton);
    match variant {
        Variant::Split => options = options.with_parts(2),
        Variant::Residual if output == F32 => problem = problem.with_residual(),
        Variant::Residual => return None,
        Variant::Experts => problem = problem.with_experts(EXPERTS),
        Variant::Nested(nesting) => options = options.with_nesting(nesting),
        Variant::Plain | Variant::Textures => {}
    }
    let candidate = |device: Device| -> Option<Candidate> {
        let (accepted, _) = anybit::candidates(&problem, &device.caps(), &options).ok()?;
        // The cheapest to compile, which software adapters take seconds for.
        accepted
            .into_iter()
            .filter(|candidate| candidate.skeleton == row.skeleton)
            .min_by_key(|candidate| {
                let linked = candidate.specialization.link();
                let length = linked.map_or(usize::MAX, |linked| linked.wgsl.len());
                (candidate.tile.thread_m * candidate.tile.thread_n, length)
            })
    };
    let found = candidate(device)?;
    if device != Device::FLOOR && !found.specialization.subgroup {
        return None;
    }
    options.kernel = Some(found.specialization.id);
    let plan = anybit::plan(&problem, &device.caps(), &options).ok()?;
    Some(Product {
        device,
        variant,
        plan,
    })
}

/// The format with codes of int8 that a format of int4 is read out of.
fn weight_in_int8(name: &str) -> Option<&'static str> {
    match name {
        "i4" => Some("i8"),
        "i4g32h" => Some("i8g32h"),
        "i4rh" => Some("i8rh"),
        "i4g32hm" => Some("i8g32hm"),
        _ => None,
    }
}

impl Product {
    fn into_case(self, row: &KernelRow) -> Case {
        let variant = match self.variant {
            Variant::Plain => "",
            Variant::Split => "/split",
            Variant::Residual => "/residual",
            Variant::Experts => "/experts",
            Variant::Nested(Nesting::Truncation) => "/truncated",
            Variant::Nested(_) => "/rounded",
            Variant::Textures => "/textures",
        };
        let id = format!("{}/{}{variant}", self.plan.id(), self.device.name());
        let contract = self.plan.problem().contract();
        Case::new(id, row.stem, contract, move |runner| {
            match self.device.runs {
                true => self.run(runner, |job| job),
                false => judge(runner, self.plan.specialization()),
            }
        })
    }

    /// Runs it, after `change` has had its way with the work.
    fn run(
        &self,
        runner: &mut dyn Runner,
        change: impl FnOnce(Job) -> Job,
    ) -> Result<Outcome, Outcome> {
        let problem = self.plan.problem();
        let context = self.device.context();
        let mut random = Random::new(0xb17e);
        let shape = (problem.activation_rows(), problem.k);
        let x = operand(&problem.activation, shape, Fill::Random, &mut random);
        let activation_layout = self.plan.activation_layout();
        let activation = rig::upload(&context, &x, activation_layout, &mut random)?;
        let (w, weight) = self.weight(&context, &mut random)?;
        let shape = (problem.output_rows(), problem.n);
        let framed = Framed::new(&context, problem.output, shape, &mut random)?;
        let residual = problem.residual.then(|| {
            let values = values(shape.0 * shape.1, 100.0, &mut random);
            // Rows lie apart as those of the output do.
            let extra = (framed.output.row_stride() - problem.n.next_multiple_of(4)) / 4;
            filled(&context, &values, shape, extra).map(|output| (values, output))
        });
        let residual = residual.transpose()?;
        let epilogue = residual
            .as_ref()
            .map_or_else(Epilogue::default, |(_, added)| Epilogue::residual(added));
        let operands = Operands {
            activation: &activation,
            weight: &weight,
            output: &framed.output,
        };
        let prepared = match problem.experts {
            None => context.prepare_with(&self.plan, operands, &epilogue)?,
            Some(experts) => {
                let table = context.expert_offsets(experts)?;
                context.write_expert_offsets(&table, &offsets(problem.m))?;
                context.prepare_experts(&self.plan, operands, &table, &epilogue)?
            }
        };
        let mut texels = texels(&x, &activation_layout, 1)?;
        texels.extend(self::texels(&w, &self.plan.weight_layout(), 3)?);
        let mut job = change(Job::new(&context, &[&prepared], &texels)?);
        run_job(runner, &context, &mut job)?;

        let whole = context.submit(|encoder| context.encode_read(encoder, &framed.whole))?;
        let found = framed.unframe(whole.read_blocking()?)?;
        let expected = self.expected(&x, &w, residual.map(|(values, _)| values))?;
        match (expected.wrong(found), expected) {
            (Some(wrong), _) => Err(Outcome::Failed(wrong.to_string())),
            (None, Expected::Exact(_)) => Ok(Outcome::Exact),
            (None, Expected::Bounded(..)) => Ok(Outcome::Bounded),
        }
    }

    /// The weights, as they count and on the device.
    fn weight(
        &self,
        context: &Context,
        random: &mut Random,
    ) -> Result<(PackedMatrix, DeviceMatrix), Outcome> {
        let problem = self.plan.problem();
        let layout = self.plan.weight_layout();
        let shape = (problem.weight_rows(), problem.k);
        let Some(nesting) = self.plan.nesting() else {
            let w = operand(&problem.weight, shape, Fill::Random, random);
            let weight = rig::upload(context, &w, layout, random)?;
            return Ok((w, weight));
        };
        let name = problem.weight.to_string();
        let stored = weight_in_int8(&name).ok_or("no such weights in int8")?;
        let w = operand(&format(stored), shape, Fill::Random, random);
        let carries = layout.pieces == PieceLayout::Planes && nesting == Nesting::DoubleRounding;
        let carries: &[u8] = if carries { &[NESTED_BITS] } else { &[] };
        let weight = context.upload_with_carries(&w, &layout, carries)?;
        Ok((
            w.nested(NESTED_BITS, nesting)?,
            weight.nested(NESTED_BITS, nesting)?,
        ))
    }

    /// What the reference makes of it.
    fn expected(
        &self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        residual: Option<Vec<f32>>,
    ) -> Result<Expected, Outcome> {
        let problem = self.plan.problem();
        if let Some(experts) = problem.experts {
            return self.expected_of(experts, x, w);
        }
        let expected = Expected::of(&self.plan, x, w)?;
        let (Some(residual), Expected::Bounded(values, bounds)) = (residual, &expected) else {
            return Ok(expected);
        };
        let products = values.iter().zip(bounds).zip(residual);
        let sums = products.map(|((&value, &bound), residual)| {
            let sum = ErrorModel::WGSL.with_residual(Bounded { value, bound }, residual);
            (sum.value, sum.bound)
        });
        let (values, bounds) = sums.unzip();
        Ok(Expected::Bounded(values, bounds))
    }

    /// What experts make of their rows, one after the other.
    fn expected_of(
        &self,
        experts: usize,
        x: &PackedMatrix,
        w: &PackedMatrix,
    ) -> Result<Expected, Outcome> {
        let problem = self.plan.problem();
        let offsets = offsets(problem.m);
        let mut all: Option<Expected> = None;
        for expert in 0..experts {
            let rows = offsets[expert] as usize..offsets[expert + 1] as usize;
            let x = x.row_range(rows)?;
            let w = w.row_range(expert * problem.n..(expert + 1) * problem.n)?;
            let own = Expected::of(&self.plan, &x, &w)?;
            all = Some(match (all, own) {
                (None, own) => own,
                (Some(Expected::Exact(mut all)), Expected::Exact(own)) => {
                    all.extend(own);
                    Expected::Exact(all)
                }
                (Some(Expected::Bounded(mut all, mut bounds)), Expected::Bounded(own, others)) => {
                    all.extend(own);
                    bounds.extend(others);
                    Expected::Bounded(all, bounds)
                }
                _ => return Err("experts of two kinds".into()),
            });
        }
        all.ok_or_else(|| "no experts".into())
    }
}

/// A table that gives every row to an expert, and one expert none.
fn offsets(rows: usize) -> [u32; EXPERTS + 1] {
    let rows = rows as u32;
    [0, rows / 2, rows / 2, rows]
}

/// The words of an operand's textures, if it lies in any, which are bound at `first` and after it.
fn texels(matrix: &PackedMatrix, layout: &DeviceLayout, first: usize) -> Result<Texels, Outcome> {
    if layout.memory == Memory::Buffers {
        return Ok(Texels::new());
    }
    let image = matrix.to_device(layout)?;
    Ok(vec![(first, image.codes), (first + 1, image.side)])
}

/// Shaders that are wrong on purpose, each with whether the compiler must refuse it. If one passes, no result counts.
pub fn broken() -> Vec<(Case, bool)> {
    let contract = ("i8", "i4", I32);
    let row = KERNELS
        .iter()
        .find(|row| row.engine == Engine::Dot4 && row.skeleton == Skeleton::Tiled);
    let product = row.and_then(|row| product(Device::FLOOR, row, contract, Variant::Plain, 5));
    let product = product.expect("the floor has packed dot products");
    [
        ("wrong", "dot4I8Packed(", "-dot4I8Packed(", false),
        ("not WGSL", "fn main(", "fn main(unknown: nothing_t, ", true),
    ]
    .into_iter()
    .map(|(what, from, to, refused)| {
        let product = product.clone();
        let case = Case::new(what, "broken", contract.0, move |runner| {
            product.run(runner, |job| job.mutated(from, to))
        });
        (case, refused)
    })
    .collect()
}
