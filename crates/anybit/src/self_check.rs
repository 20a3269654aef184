//! Small products that a device must get right before it is trusted with a kernel: a wrong driver costs speed, never
//! correctness.
//!
//! A case has the formats, the kernel and the tile of a plan, and operands whose products and sums f32 holds exactly in
//! whatever order a kernel adds them up, so the expected words are plain host arithmetic. They come close to 2^24, where a unit
//! that adds up in less than full f32 is off by its last bits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use anybit_formats::{
    ElementFormat, FloatFormat, MatrixFormat, PackedMatrix, PieceLayout, SideData, ZeroKind, Zeros,
};
use anybit_shaders::MODULES;
use half::f16;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::caps::Caps;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::kernel::{Engine, Skeleton};
use crate::matrix::{OutputMatrix, Values};
use crate::plan::{Plan, PlanOptions};
use crate::prepare::{Epilogue, Operands};
use crate::problem::{Batch, OutputFormat, Problem};
use crate::specialize::{greatest_common_divisor, group_of, spill_of};

/// What a self-check of a kernel found on a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// All outputs were right.
    Passed,
    /// Some outputs were wrong: how many, and the first of them.
    Wrong {
        /// How many outputs were wrong.
        count: usize,
        /// The first one's row.
        row: usize,
        /// The first one's column.
        column: usize,
        /// What it should be, in decimal digits.
        expected: String,
        /// What it was.
        found: String,
    },
    /// The driver made no pipeline of the kernel.
    Rejected(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(formatter, "passed"),
            Self::Wrong {
                count,
                row,
                column,
                expected,
                found,
            } => write!(
                formatter,
                "{count} outputs are wrong; the first is {found} where {expected} belongs, in row {row} and column {column}"
            ),
            Self::Rejected(message) => write!(formatter, "the driver rejects it: {message}"),
        }
    }
}

/// What self-checks found on a device, by kernel id. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdicts {
    by_id: Arc<BTreeMap<String, Verdict>>,
}

impl Verdicts {
    /// What is known of the kernel of this id.
    pub fn get(&self, id: &str) -> Option<&Verdict> {
        self.by_id.get(id)
    }

    /// Every kernel that was checked, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Verdict)> {
        self.by_id
            .iter()
            .map(|(id, verdict)| (id.as_str(), verdict))
    }

    /// The same with a verdict more, or in place of the one on that kernel.
    #[must_use]
    pub fn with(mut self, id: impl Into<String>, verdict: Verdict) -> Self {
        self.insert(id.into(), verdict);
        self
    }

    pub(crate) fn insert(&mut self, id: String, verdict: Verdict) {
        Arc::make_mut(&mut self.by_id).insert(id, verdict);
    }

    /// Takes over what the other knows and this does not.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.by_id.is_empty() {
            self.by_id = Arc::clone(&other.by_id);
        } else if !other.by_id.is_empty() {
            let by_id = Arc::make_mut(&mut self.by_id);
            for (id, verdict) in other.by_id.iter() {
                by_id.entry(id.clone()).or_insert_with(|| verdict.clone());
            }
        }
    }
}

/// The version of the form in which verdicts are kept.
const VERSION: u32 = 1;

/// Longer texts are not read: every kernel of every contract that a program uses takes far less.
const LONGEST_TEXT: usize = 4 << 20;

/// Verdicts as they are kept from run to run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    adapter: String,
    driver: String,
    backend: String,
    /// SHA-256 of all shader modules and of the crate's version, in hexadecimal digits.
    shaders: String,
    verdicts: BTreeMap<String, Verdict>,
}

/// SHA-256 of the embedded shader modules and of this crate's version: verdicts on other texts, or on what another version makes
/// of them, say nothing of these.
fn shaders() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut digest = Sha256::new();
        digest.update(env!("CARGO_PKG_VERSION"));
        for (name, text) in MODULES {
            for part in [name, text] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        let bytes = digest.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

impl Saved {
    /// What is kept of a device, without its verdicts.
    fn of(caps: &Caps) -> Self {
        Self {
            version: VERSION,
            adapter: caps.name.clone(),
            driver: caps.driver.clone(),
            backend: caps.backend.to_str().to_owned(),
            shaders: shaders().to_owned(),
            verdicts: BTreeMap::new(),
        }
    }
}

impl Verdicts {
    /// JSON, to be kept for further runs with this device: see [`Context::add_verdicts`].
    pub fn to_json(&self, caps: &Caps) -> String {
        let saved = Saved {
            verdicts: (*self.by_id).clone(),
            ..Saved::of(caps)
        };
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&saved).unwrap_or_default()
    }

    /// The verdicts of such a text, if it is of this device, with this driver, and of these shaders; none otherwise, and none
    /// of a text that is damaged or has more than 4 MiB. Reading takes at most 64 MiB beyond the text.
    pub fn from_json(text: &str, caps: &Caps) -> Self {
        if text.len() > LONGEST_TEXT {
            return Self::default();
        }
        match serde_json::from_str::<Saved>(text) {
            Ok(mut saved) => {
                let verdicts = std::mem::take(&mut saved.verdicts);
                match saved == Saved::of(caps) {
                    true => Self {
                        by_id: Arc::new(verdicts),
                    },
                    false => Self::default(),
                }
            }
            Err(_) => Self::default(),
        }
    }
}

impl Context {
    /// Takes over what self-checks have found before, as in an earlier run ([`Verdicts::to_json`]): those kernels are not
    /// checked again. What this context has found itself stays.
    ///
    /// Verdicts must come from a place that only the user who runs the program can write to: a kernel that is said to have
    /// passed is trusted.
    pub fn add_verdicts(&self, verdicts: &Verdicts) {
        self.inner.verdicts().add(verdicts);
    }

    /// What self-checks have found on this device.
    pub fn verdicts(&self) -> Verdicts {
        self.inner.verdicts().clone()
    }

    /// Runs a small case of each plan's kernel on the device and compares it with the words that host arithmetic gives.
    /// Verdicts are kept: a kernel is checked once in a context and its clones, one that failed is planned no more, and one
    /// that [needs it](Plan::needs_self_check) is planned from then on.
    ///
    /// The cases are a tile or two large, and as long along K as the kernel's longest sums. They take work that is submitted at
    /// once.
    ///
    /// # Errors
    ///
    /// [`Error::NoSelfCheck`] for kernels whose results are not exact by design; [`Error::OutOfMemory`],
    /// [`Error::DeviceLost`]. A kernel that is wrong, or that the driver rejects, is no error but a verdict.
    pub async fn self_check<'a>(
        &self,
        plans: impl IntoIterator<Item = &'a Plan>,
    ) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for plan in plans {
            let known = self.inner.verdicts().get(plan.id()).cloned();
            let verdict = match known {
                Some(verdict) => verdict,
                None => {
                    let verdict = self.check_kernel(plan).await?;
                    let mut verdicts = self.inner.verdicts();
                    verdicts.insert(plan.id().to_string(), verdict.clone());
                    verdict
                }
            };
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    /// As [`self_check`](Self::self_check), waiting for it.
    ///
    /// # Errors
    ///
    /// Those of [`self_check`](Self::self_check).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn self_check_blocking<'a>(
        &self,
        plans: impl IntoIterator<Item = &'a Plan>,
    ) -> Result<Vec<Verdict>> {
        pollster::block_on(self.self_check(plans))
    }

    /// How this device does a problem, with a kernel that it has been seen to run rightly: kernels are checked in the planner's
    /// order, those that [need it](Plan::needs_self_check) among them, until one passes.
    ///
    /// # Errors
    ///
    /// Those of [`plan_with`](Self::plan_with), [`Error::Unsupported`] also where every kernel fails; those of
    /// [`self_check`](Self::self_check).
    pub async fn plan_checked(&self, problem: &Problem, options: &PlanOptions) -> Result<Plan> {
        self.plan_passed(problem, options, false).await
    }

    /// [`plan_checked`](Self::plan_checked); if `inexact`, of kernels that have no self-check, too.
    pub(crate) async fn plan_passed(
        &self,
        problem: &Problem,
        options: &PlanOptions,
        inexact: bool,
    ) -> Result<Plan> {
        let mut options = options.clone().with_unchecked(true);
        loop {
            // A kernel that fails is not planned again, so this ends.
            let plan = self.plan_any(problem, &options)?;
            match self.self_check([&plan]).await {
                Ok(verdicts) if verdicts == [Verdict::Passed] => return Ok(plan),
                Ok(_) => {}
                // What needs a check and has none is not for use.
                Err(Error::NoSelfCheck { .. }) if inexact && plan.needs_self_check() => {
                    options = options.with_unchecked(false);
                }
                Err(Error::NoSelfCheck { .. }) if inexact => return Ok(plan),
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`plan_checked`](Self::plan_checked), waiting for it.
    ///
    /// # Errors
    ///
    /// Those of [`plan_checked`](Self::plan_checked).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_checked_blocking(&self, problem: &Problem, options: &PlanOptions) -> Result<Plan> {
        pollster::block_on(self.plan_checked(problem, options))
    }

    async fn check_kernel(&self, plan: &Plan) -> Result<Verdict> {
        // A pipeline that is left for later is no verdict.
        let now = self.compiling();
        for case in Case::of(plan)? {
            match now.run_case(&case).await {
                Ok(Verdict::Passed) => {}
                Ok(verdict) => return Ok(verdict),
                // Of a device that is gone, nothing is learnt about a kernel.
                Err(Error::Pipeline { message, .. }) if self.is_lost() => {
                    return Err(Error::DeviceLost { reason: message });
                }
                Err(Error::Pipeline { message, .. }) => return Ok(Verdict::Rejected(message)),
                Err(error) => return Err(error),
            }
        }
        Ok(Verdict::Passed)
    }

    async fn run_case(&self, case: &Case) -> Result<Verdict> {
        let Case {
            plan, x, stored, ..
        } = case;
        let problem = plan.problem();
        let activation = self.upload(x, &plan.activation_layout())?;
        let mut weight_layout = plan.weight_layout();
        // Sums are extra; what reads fewer bits in planes reads carry planes.
        let bits = problem.weight.element().bits() as u8;
        let weight = match plan.nesting() {
            None => self.upload(stored, &weight_layout)?,
            Some(nesting) => {
                let planes = weight_layout.pieces == PieceLayout::Planes;
                let widths = if planes { &[bits][..] } else { &[] };
                weight_layout.sums = anybit_formats::SumLayout::None;
                self.upload_with_carries(stored, &weight_layout, widths)?
                    .nested(bits, nesting)?
            }
        };
        let output = self.output(problem.output, problem.m, problem.n)?;
        let residual = match &case.residual {
            Some(values) => Some(self.residual_of(&output, values)?),
            None => None,
        };
        let operands = Operands {
            activation: &activation,
            weight: &weight,
            output: &output,
        };
        let epilogue = Epilogue {
            residual: residual.as_ref(),
        };
        let offsets = match &case.starts[..] {
            [] => None,
            starts => {
                let table = self.expert_offsets(starts.len() - 1)?;
                self.write_expert_offsets(&table, starts)?;
                Some(table)
            }
        };
        let prepared = self.prepare_unchecked(plan, operands, &epilogue, offsets.as_ref())?;
        let found = self.submit_and_read(&[&prepared], &output)?.read().await?;
        Ok(case.compare(&found))
    }

    /// Values, row-major, as a residual of an output.
    fn residual_of(&self, output: &OutputMatrix, values: &[f32]) -> Result<OutputMatrix> {
        let residual = self.output(output.format(), output.rows(), output.columns())?;
        if let Some(buffer) = residual.buffer() {
            let mut words = vec![0; residual.rows() * residual.row_stride()];
            let rows = words.chunks_exact_mut(residual.row_stride());
            for (words, values) in rows.zip(values.chunks_exact(residual.columns())) {
                for (word, value) in words.iter_mut().zip(values) {
                    *word = value.to_bits();
                }
            }
            self.write(buffer, 0, &words)?;
        }
        Ok(residual)
    }
}

/// A product whose result is known.
struct Case {
    /// The plan that is checked, for the case's own small problem.
    plan: Plan,
    x: PackedMatrix,
    /// W as it is stored, where the kernel reads it at fewer bits.
    stored: PackedMatrix,
    /// Where the rows of each expert begin, and where the last one's end, if there are experts.
    starts: Vec<u32>,
    residual: Option<Vec<f32>>,
    expected: Vec<f64>,
}

/// Columns that every case has at least, beside those that its sums need.
const COLUMNS: usize = 96;

/// Experts of a case, if its plan has any: one has the first rows, one none, one the rest.
const EXPERTS: usize = 3;

/// The longest sums that a case makes where nothing in the kernel bounds them.
const LONGEST: usize = 4096;

impl Case {
    /// The cases of a plan's kernel.
    fn of(plan: &Plan) -> Result<Vec<Self>> {
        let mut units = vec![Unit::One];
        let small = |format: &MatrixFormat| Unit::Smallest.of(format.element()) < 1.0 / 16384.0;
        // The subnormals of f16, which a matrix unit must not take for 0.
        if plan.engine() == Engine::Matrix
            && (small(&plan.problem().activation) || small(&plan.problem().weight))
        {
            units.push(Unit::Smallest);
        }
        units
            .into_iter()
            .map(|unit| Self::with_unit(plan, unit))
            .collect()
    }

    fn with_unit(plan: &Plan, unit: Unit) -> Result<Self> {
        let no_check = || Error::NoSelfCheck {
            kernel: plan.id().to_string(),
        };
        if matches!(plan.engine(), Engine::LMul | Engine::Lut8) {
            return Err(no_check());
        }
        let full = plan.problem();
        let problem = Problem {
            batch: Batch::ONE,
            ..full.clone()
        };
        let tile = plan.tile();
        // Two tiles, the second of them ragged; what is for one row stays so.
        let rows = match (full.m, plan.skeleton()) {
            (1, _) => 1,
            (_, Skeleton::Gemv) => (tile.m as usize).clamp(2, 8),
            (_, Skeleton::Tiled | Skeleton::Subgroup) => tile.m as usize + 3,
        };
        let group = group_of(&full.activation).max(group_of(&full.weight)) as usize;
        let sums = match plan.engine() {
            Engine::Matrix => (spill_of(full, tile.k) as usize).min(LONGEST),
            _ => COLUMNS,
        };
        // Past the first sums, so that a second stretch is begun; whole groups, or a ragged end.
        let columns = sums + COLUMNS.max(2 * tile.k as usize);
        let codebook = |format: &MatrixFormat| format.element().codebook().is_some();
        let columns = if group != 0 {
            let both =
                [group_of(&full.activation), group_of(&full.weight)].map(|group| group.max(1));
            let step = both[0] as usize * both[1] as usize
                / greatest_common_divisor(both[0], both[1]) as usize;
            columns.next_multiple_of(step)
        } else if codebook(&full.activation) || codebook(&full.weight) {
            columns.next_multiple_of(32)
        } else {
            columns + 3
        };
        // Matrices of experts begin at whole groups of rows.
        let n = match full.experts {
            None => tile.n as usize + 5,
            Some(_) => tile.n as usize + 4,
        };
        let problem = Problem {
            m: rows,
            n,
            k: columns,
            experts: full.experts.map(|_| EXPERTS),
            ..problem
        };
        let starts = match (full.experts, rows) {
            (None, _) => vec![],
            (Some(_), 1) => vec![0, 0, 1, 1],
            (Some(_), rows) => {
                let first = (rows - 1).min(3) as u32;
                vec![0, first, first, rows as u32]
            }
        };
        let stored = match plan.nesting() {
            None => problem.weight,
            Some(_) => MatrixFormat::new(ElementFormat::INT8, problem.weight.scales())?,
        };
        let (activation, weight) = (
            Table::new(&problem.activation, unit).ok_or_else(no_check)?,
            Table::new(&stored, unit).ok_or_else(no_check)?,
        );
        // A quarter is left to engines that add halves, or sums of activations beside the products.
        let room = match plan.engine() {
            Engine::Matrix => f64::from(1 << 24),
            _ => f64::from(1 << 22),
        };
        let light = columns as f64 * activation.light * weight.light;
        let heavy = (room - light) / (activation.largest * weight.largest);
        let heavy = (heavy.max(0.0) as usize).min(sums);
        let mut random = Random(0x5eed);
        let x = activation.draw(problem.m, columns, heavy, &mut random)?;
        let stored = weight.draw(problem.weight_rows(), columns, heavy, &mut random)?;
        let read = match plan.nesting() {
            None => None,
            Some(nesting) => Some(stored.nested(problem.weight.element().bits() as u8, nesting)?),
        };
        let w = read.as_ref().unwrap_or(&stored);
        let values = |matrix: &PackedMatrix| match problem.output {
            OutputFormat::I32 => matrix
                .lifted_values()
                .map(|values| values.into_iter().map(f64::from).collect()),
            OutputFormat::F32 | OutputFormat::F16 => Some(matrix.decode_f64()),
        };
        let xs: Vec<f64> = values(&x).ok_or_else(no_check)?;
        let ws: Vec<f64> = values(w).ok_or_else(no_check)?;
        let mut expected = Vec::with_capacity(problem.m * problem.n);
        for (row, x) in xs.chunks_exact(columns).enumerate() {
            // The last expert that begins at the row or before it.
            let begun = starts.iter().take_while(|&&start| start as usize <= row);
            let expert = begun.count().saturating_sub(1);
            let of_expert = ws
                .chunks_exact(columns)
                .skip(expert * problem.n)
                .take(problem.n);
            for w in of_expert {
                // Exact: every partial sum is an integer number of units below 2^53.
                expected.push(x.iter().zip(w).map(|(x, w)| x * w).sum());
            }
        }
        // A unit towards 0, so that no sum becomes larger than it was.
        let unit = activation.unit * weight.unit;
        let residual = problem.residual.then(|| {
            let towards_zero = |sum: &f64| if *sum > 0.0 { -unit } else { unit };
            let residual: Vec<f64> = expected.iter().map(towards_zero).collect();
            for (sum, residual) in expected.iter_mut().zip(&residual) {
                *sum += residual;
            }
            residual.into_iter().map(|value| value as f32).collect()
        });
        Ok(Self {
            plan: Plan {
                problem,
                ..plan.clone()
            },
            x,
            stored,
            starts,
            residual,
            expected,
        })
    }

    fn compare(&self, found: &Values) -> Verdict {
        let columns = self.plan.problem().n;
        let mut wrong = Vec::new();
        let mut note = |index: usize, right: bool, found: String| {
            if !right {
                wrong.push((index, found));
            }
        };
        for (index, &expected) in self.expected.iter().enumerate() {
            match found {
                Values::I32(found) => {
                    let found = found.get(index).copied();
                    note(
                        index,
                        found.map(f64::from) == Some(expected),
                        format!("{found:?}"),
                    );
                }
                Values::F32(found) => {
                    let found = found.get(index).copied();
                    note(
                        index,
                        found.map(f64::from) == Some(expected),
                        format!("{found:?}"),
                    );
                }
                Values::F16(found) => {
                    let found = found.get(index).map(|found| f64::from(*found));
                    note(
                        index,
                        found.is_some_and(|found| is_rounded_f16(found, expected)),
                        format!("{found:?}"),
                    );
                }
            }
        }
        match wrong.first() {
            None => Verdict::Passed,
            Some((index, found)) => Verdict::Wrong {
                count: wrong.len(),
                row: index / columns,
                column: index % columns,
                expected: self.expected[*index].to_string(),
                found: found.clone(),
            },
        }
    }
}

/// Whether an f16 is one of the two next to a value, which saturates; a subnormal may be 0.
fn is_rounded_f16(found: f64, value: f64) -> bool {
    let largest = f64::from(f16::MAX);
    let value = value.clamp(-largest, largest);
    let step = (value.abs() * f64::from(f16::EPSILON)).max(f64::from(f16::MIN_POSITIVE));
    (found - value).abs() < step || found == value
}

/// Which values of an element a case is made of: multiples of a power of two.
#[derive(Clone, Copy)]
enum Unit {
    /// Ordinary ones.
    One,
    /// The least that the format has.
    Smallest,
}

impl Unit {
    fn of(self, element: ElementFormat) -> f64 {
        let smallest = match element {
            ElementFormat::Float(FloatFormat::F16) => f64::from(f16::MIN_POSITIVE_SUBNORMAL),
            ElementFormat::Minifloat(minifloat) => f64::from(
                minifloat
                    .min_subnormal()
                    .unwrap_or_else(|| minifloat.min_normal()),
            ),
            _ => 1.0,
        };
        match (self, element) {
            (_, ElementFormat::Affine(_)) | (Self::One, ElementFormat::Float(_)) => 1.0,
            (Self::One, _) => 1.0 / 16.0,
            (Self::Smallest, _) => smallest,
        }
    }
}

/// Multiples of a unit are taken up to this; f16 holds them, and products of a few fit 24 bits.
const LARGEST_MULTIPLE: f64 = 1023.0;

/// How many of the least magnitudes of a group light columns have.
const LIGHT: usize = 3;

/// How many zero points or choices groups differ by.
const ZERO_POINTS: usize = 4;

/// The elements of which a case's operand is made.
struct Table {
    format: MatrixFormat,
    unit: f64,
    /// Codes with their values in units, less no zero point; of floats, values alone.
    entries: Vec<Entry>,
    /// The largest magnitude of an element, scaled, in units; and of one in a light column.
    largest: f64,
    light: f64,
}

#[derive(Clone, Copy)]
struct Entry {
    code: u8,
    /// In units, of each choice.
    value: [f64; ZERO_POINTS],
}

impl Table {
    /// `None` for a format of whose values no two are multiples of a unit.
    fn new(format: &MatrixFormat, unit: Unit) -> Option<Self> {
        let element = format.element();
        let unit = unit.of(element);
        let entries: Vec<Entry> = match element.max_code() {
            None => {
                let largest = match element {
                    ElementFormat::Float(FloatFormat::Bf16) => 255,
                    _ => LARGEST_MULTIPLE as i32,
                };
                (-largest..=largest)
                    .map(|value| Entry {
                        code: 0,
                        value: [f64::from(value); ZERO_POINTS],
                    })
                    .collect()
            }
            Some(max_code) => {
                let choices = element.choice_count().max(1);
                let value = |code, choice| {
                    let value = element.code_value_with(code, (choice % choices) as u8);
                    f64::from(value.unwrap_or(f32::NAN)) / unit
                };
                let usable = |value: f64| value.fract() == 0.0 && value.abs() <= LARGEST_MULTIPLE;
                (0..=max_code)
                    .map(|code| Entry {
                        code,
                        value: std::array::from_fn(|choice| value(code, choice)),
                    })
                    .filter(|entry| entry.value.iter().all(|&value| usable(value)))
                    .collect()
            }
        };
        let mut table = Self {
            format: *format,
            unit,
            entries,
            largest: 0.0,
            light: 0.0,
        };
        let scaled = format.scales().is_some();
        // Scales are 1 and 2, minima too.
        let scale = if scaled { 2.0 } else { 1.0 };
        let minimum = match format.zero_kind() {
            ZeroKind::Minimum => 2.0 / unit,
            _ => 0.0,
        };
        for group in 0..ZERO_POINTS {
            let order = table.by_magnitude(group);
            let magnitude = |index: usize| table.element(index, group).abs() * scale + minimum;
            let (&largest, &light) = (order.last()?, order.get(LIGHT - 1).or(order.last())?);
            let (largest, light) = (magnitude(largest), magnitude(light));
            table.largest = table.largest.max(largest);
            table.light = table.light.max(light);
        }
        (table.largest > 0.0).then_some(table)
    }

    /// An entry in a group, less its zero point, in units.
    fn element(&self, index: usize, group: usize) -> f64 {
        let zero = match self.format.zero_kind() {
            ZeroKind::Integer => (group % ZERO_POINTS) as f64,
            _ => 0.0,
        };
        self.entries[index].value[group % ZERO_POINTS] - zero
    }

    fn by_magnitude(&self, group: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (self.element(a, group), self.element(b, group));
            a.abs().total_cmp(&b.abs())
        });
        order
    }

    /// A matrix: its first `heavy` columns hold anything, in row 0 the most positive and in row 1 the most negative element but
    /// for an odd one at the end of them; the others small ones.
    fn draw(
        &self,
        rows: usize,
        columns: usize,
        heavy: usize,
        random: &mut Random,
    ) -> Result<PackedMatrix> {
        let format = self.format;
        let group_len = format.group_len(columns).max(1);
        let groups = format.groups(columns).max(1);
        let per_row = format.scale_count(rows, columns) > 1;
        // What a group has of zero points, choices and scales; one for all under a single scale.
        let kind = |row: usize, column: usize| match per_row {
            true => row * groups + column / group_len,
            false => 0,
        };
        let orders: Vec<Vec<usize>> = (0..ZERO_POINTS)
            .map(|group| self.by_magnitude(group))
            .collect();
        let mut chosen = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let group = kind(row, column) % ZERO_POINTS;
                let order = &orders[group];
                let extreme = |sign: f64| {
                    (0..self.entries.len()).max_by(|&a, &b| {
                        let size = |index| sign * self.element(index, group);
                        size(a).total_cmp(&size(b))
                    })
                };
                let index = if column >= heavy {
                    order[random.below(order.len().min(LIGHT))]
                } else if column + 1 == heavy && row < 2 {
                    order[usize::from(order.len() > 1)]
                } else {
                    let any = random.below(order.len());
                    match row {
                        0 => extreme(1.0).unwrap_or(any),
                        1 => extreme(-1.0).unwrap_or(any),
                        _ => any,
                    }
                };
                chosen.push(index);
            }
        }
        if let ElementFormat::Float(float) = format.element() {
            let values: Vec<f32> = chosen
                .iter()
                .map(|&index| (self.entries[index].value[0] * self.unit) as f32)
                .collect();
            return Ok(PackedMatrix::from_f32(float, rows, columns, &values)?);
        }
        let codes: Vec<u8> = chosen
            .iter()
            .map(|&index| self.entries[index].code)
            .collect();
        let count = format.scale_count(rows, columns);
        let each =
            |value: &dyn Fn(usize) -> usize| -> Vec<usize> { (0..count).map(value).collect() };
        let powers = |kinds: Vec<usize>| -> Vec<f32> {
            kinds
                .into_iter()
                .map(|kind| (1 + kind % 2) as f32)
                .collect()
        };
        let scales = powers(each(&|index| index));
        let minima = powers(each(&|index| index + 1));
        let zeros = |modulus: usize| -> Vec<u8> {
            let kinds = each(&|index| index % ZERO_POINTS % modulus);
            kinds.into_iter().map(|kind| kind as u8).collect()
        };
        let points = zeros(ZERO_POINTS);
        let choices = zeros(format.element().choice_count().max(1));
        let second = vec![1.0; format.second_count(rows, columns)];
        let side = SideData {
            scales: &scales,
            second: &second,
            zeros: match format.zero_kind() {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&points),
                ZeroKind::Minimum => Zeros::Minimum(&minima),
                ZeroKind::Choice => Zeros::Choice(&choices),
            },
            second_minima: match format.zero_kind() {
                ZeroKind::Minimum => &second,
                _ => &[],
            },
        };
        Ok(PackedMatrix::from_parts(
            format, rows, columns, &codes, side,
        )?)
    }
}

/// Numbers that are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }
}
