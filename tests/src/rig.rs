//! Runs cases on an adapter and collects what is wrong.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anybit::half::f16;
use anybit::{
    Caps, Context, DeviceClass, DeviceMatrix, Engine, Operands, OutputFormat, OutputMatrix, Plan,
    PlanOptions, Problem, Skeleton, Specialization, Values, wgpu,
};
use anybit_formats::{DeviceLayout, LMul, MatrixFormat, Memory, PackedMatrix, SumLayout};
use anybit_reference::bound::{Accumulation, Bounded, ErrorModel, f16_output};
use anybit_reference::{Batches, Parts, exact};

use crate::adapter;
use crate::case::{Case, Kernel};
use crate::compare::{self, Wrong};
use crate::full;
use crate::operand::operand;
use crate::random::Random;

/// Contexts that may be alive at once. Drivers compile on the calling thread, so several are faster than one. Software
/// adapters run on all cores already, and take much memory; others get a context a core, within reason.
fn contexts(adapter: &wgpu::Adapter) -> usize {
    match adapter.get_info().device_type {
        wgpu::DeviceType::Cpu => 2,
        _ => std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)),
    }
}

/// Pipelines after which a context is replaced: software drivers give their memory back only then.
const PIPELINES: usize = 40;

/// Failures after which a test ends.
const FAILURES: usize = 12;

/// Around every output in a buffer of the caller, and in it before the kernel runs. A NaN as f32, and its halves are no
/// zeros as f16.
const CANARY: u32 = 0x7fc0_beef;

/// An adapter with what has been run on it.
#[derive(Debug)]
pub struct Rig {
    test: String,
    adapter: wgpu::Adapter,
    best: Option<Context>,
    floor: Option<Context>,
    /// Hashes of the texts of the shaders, by kernel id and whether on the floor.
    texts: HashMap<(String, bool), u64>,
    pipelines: HashSet<(u64, bool)>,
    /// Contracts that were met, where few are, and each but once.
    met: Option<HashSet<String>>,
    made: usize,
    cases: usize,
    bounded: usize,
    sharp: usize,
    failures: Vec<String>,
    /// The case that took longest.
    slowest: (Duration, String),
    begun: Instant,
}

/// Runs a test on every selected adapter.
///
/// # Panics
///
/// If a case failed, no case was run, or no adapter fits although one is required.
pub fn on_each_adapter(test: &str, body: impl Fn(&mut Rig)) {
    for adapter in adapter::selected(test) {
        let _permit = Permit::take(contexts(&adapter));
        let mut rig = Rig {
            test: test.to_owned(),
            met: is_slow(adapter.get_info().backend, full()).then(HashSet::new),
            adapter,
            best: None,
            floor: None,
            texts: HashMap::new(),
            pipelines: HashSet::new(),
            made: 0,
            cases: 0,
            bounded: 0,
            sharp: 0,
            failures: Vec::new(),
            slowest: (Duration::ZERO, String::new()),
            begun: Instant::now(),
        };
        body(&mut rig);
        rig.finish();
    }
}

/// Contracts that a test meets where pipelines are slow.
const CONTRACTS_WHERE_SLOW: usize = 6;

/// Whether a test meets few contracts, each by one kernel: drivers of OpenGL take seconds for a pipeline. The matrix of
/// adapters runs every contract and kernel there.
const fn is_slow(backend: wgpu::Backend, full: bool) -> bool {
    matches!(backend, wgpu::Backend::Gl) && !full
}

/// Whether a contract is new, and not one too many where pipelines are slow.
fn is_one_of_few(met: &mut HashSet<String>, contract: String) -> bool {
    met.len() < CONTRACTS_WHERE_SLOW && met.insert(contract)
}

impl Rig {
    /// The adapter.
    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.adapter
    }

    /// A context with all that the adapter has.
    pub fn best(&mut self) -> Context {
        let make = || pollster::block_on(Context::from_adapter(&self.adapter));
        self.best
            .get_or_insert_with(|| make().unwrap_or_else(|error| panic!("{error}")))
            .clone()
    }

    /// Contexts within WebGPU's default limits: planned for as a GPU, and as a software adapter.
    pub fn of_each_class(&self) -> [Context; 2] {
        [DeviceClass::Gpu, DeviceClass::Software].map(|class| {
            let (device, queue) = open(&self.adapter, wgpu::Features::empty(), self.floor_limits());
            Context::from_device_as(class, device, queue)
        })
    }

    fn floor_limits(&self) -> wgpu::Limits {
        wgpu::Limits::default().or_worse_values_from(&self.adapter.limits())
    }

    /// Whether the adapter's subgroups may have fewer lanes than that, so that there is nothing to test of what needs them.
    /// Says so if they may.
    pub fn skips_subgroups(&mut self, lanes: u32) -> bool {
        let smallest = self
            .best()
            .caps()
            .subgroup
            .map_or(0, |(smallest, _)| smallest);
        let skips = smallest < lanes;
        if skips {
            println!("SKIP: no subgroups of {lanes} lanes or more");
            self.note(Ok(()));
        }
        skips
    }

    /// A context without optional features, within WebGPU's default limits.
    pub fn floor(&mut self) -> Context {
        let limits = self.floor_limits();
        let make = || device(&self.adapter, wgpu::Features::empty(), limits);
        self.floor.get_or_insert_with(make).clone()
    }

    /// The context that a kernel runs on.
    pub fn context(&mut self, kernel: &Kernel) -> Context {
        if kernel.floor {
            self.floor()
        } else {
            self.best()
        }
    }

    /// The kernels for a problem: all that the adapter can run, and those that only run where features are missing.
    pub fn kernels(&mut self, problem: &Problem) -> Vec<Kernel> {
        let mut kernels = Kernel::all_for(problem, self.best().caps(), false);
        // What differs without features is how teams join their sums.
        let floor = Kernel::all_for(problem, self.floor().caps(), true);
        let subgroups = self.best().caps().subgroup.is_some();
        kernels.extend(
            floor
                .into_iter()
                .filter(|kernel| subgroups && kernel.skeleton == Skeleton::Gemv),
        );
        kernels
    }

    /// The kernels of an engine for a problem, by skeleton and whether on the floor; the cheapest to compile first.
    pub fn classes(&mut self, problem: &Problem, engine: Engine) -> Vec<Vec<Kernel>> {
        let mut classes: Vec<Vec<Kernel>> = Vec::new();
        let mut kernels = self.kernels(problem);
        kernels.retain(|kernel| kernel.engine == engine);
        kernels.sort_by_key(|kernel| kernel.tile.thread_m * kernel.tile.thread_n);
        for kernel in kernels {
            let same = |class: &&mut Vec<Kernel>| {
                (class[0].skeleton, class[0].floor) == (kernel.skeleton, kernel.floor)
            };
            match classes.iter_mut().find(same) {
                Some(class) => class.push(kernel),
                None => classes.push(vec![kernel]),
            }
        }
        classes.sort_by_key(|class| (class[0].skeleton, class[0].floor));
        classes
    }

    /// Compares a case with the reference. A difference is noted and fails the test in the end. A kernel that cannot do
    /// the problem is no case; nor, where a test meets few contracts, is one that it has met or that is one too many.
    pub fn check(&mut self, case: &Case) {
        let caps = self.context(&case.kernel).caps().clone();
        self.check_as(case, &caps);
    }

    /// [`check`](Self::check), planned for a device that has less than the one it runs on.
    pub fn check_as(&mut self, case: &Case, caps: &Caps) {
        if case.kernel.id(&case.problem, caps).is_some() && self.is_wanted(case) {
            let result = self.try_check_as(case, caps);
            self.note(result);
        }
    }

    fn is_wanted(&mut self, case: &Case) -> bool {
        let few = |met: &mut HashSet<String>| is_one_of_few(met, case.problem.contract());
        self.met.as_mut().is_none_or(few)
    }

    /// Compares a case with the reference.
    ///
    /// # Errors
    ///
    /// What is wrong, and what reproduces it.
    pub fn try_check(&mut self, case: &Case) -> Result<(), String> {
        let caps = self.context(&case.kernel).caps().clone();
        self.try_check_as(case, &caps)
    }

    fn try_check_as(&mut self, case: &Case, caps: &Caps) -> Result<(), String> {
        let Some(id) = case.kernel.id(&case.problem, caps) else {
            return Err(format!(
                "{} cannot do {}: {case}",
                case.kernel,
                case.problem.contract()
            ));
        };
        let explain = |reason: String| format!("{id}: {case}: {reason}");
        let plan = anybit::plan(&case.problem, caps, &PlanOptions::kernel(&id))
            .map_err(|error| explain(error.to_string()))?;
        self.note_pipeline(plan.specialization(), case.kernel.floor);
        let context = self.context(&case.kernel);
        let begun = Instant::now();
        let result = self.run(&context, &plan, case);
        let time = begun.elapsed();
        if time > self.slowest.0 {
            self.slowest = (time, id.clone());
        }
        result.map_err(explain)
    }

    /// Counts a case, and notes what is wrong with it.
    pub fn note(&mut self, result: Result<(), String>) {
        self.cases += 1;
        if let Err(reason) = result {
            self.failures.push(reason);
            assert!(self.failures.len() < FAILURES, "{}", self.summary());
        }
    }

    /// [`note`](Self::note) of a comparison.
    pub fn note_wrong(&mut self, what: &str, wrong: Option<Wrong>) {
        self.note(match wrong {
            None => Ok(()),
            Some(wrong) => Err(format!("{what}: {wrong}")),
        });
    }

    /// Counts a pipeline, and replaces the contexts when there are too many. Contexts from before must not be used.
    pub fn note_pipeline(&mut self, specialization: &Specialization, floor: bool) {
        let text = *self
            .texts
            .entry((specialization.id.clone(), floor))
            .or_insert_with(|| {
                let wgsl = specialization
                    .link()
                    .map(|linked| linked.wgsl)
                    .unwrap_or_default();
                BuildHasherDefault::<DefaultHasher>::default().hash_one(wgsl)
            });
        if self.pipelines.insert((text, floor)) {
            self.made += 1;
            if self.pipelines.len() > PIPELINES {
                self.pipelines.clear();
                (self.best, self.floor) = (None, None);
            }
        }
    }

    fn run(&mut self, context: &Context, plan: &Plan, case: &Case) -> Result<(), String> {
        let problem = &case.problem;
        let mut random = Random::new(case.seed);
        let x = operand(
            &problem.activation,
            (problem.activation_rows(), problem.k),
            case.fills.0,
            &mut random,
        );
        let w = operand(
            &problem.weight,
            (problem.weight_rows(), problem.k),
            case.fills.1,
            &mut random,
        );
        let values =
            multiply(context, plan, &x, &w, &mut random).map_err(|error| error.to_string())?;
        let expected = Expected::of(plan, &x, &w)?;
        if let Some(resolution) = expected.resolution() {
            self.bounded += 1;
            self.sharp += usize::from(resolution < 1e-2);
        }
        match expected.wrong(values) {
            None => Ok(()),
            Some(wrong) => Err(format!("{}; {wrong}", case.place(wrong.index))),
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} on {}: {} of {} cases failed:\n  {}",
            self.test,
            adapter::describe(&self.adapter),
            self.failures.len(),
            self.cases,
            self.failures.join("\n  ")
        )
    }

    fn finish(self) {
        assert!(self.failures.is_empty(), "{}", self.summary());
        assert!(self.cases > 0, "{}: no case was run", self.test);
        assert!(
            2 * self.sharp >= self.bounded,
            "{}: only {} of {} bounds are under a hundredth of the values",
            self.test,
            self.sharp,
            self.bounded
        );
        println!(
            "{}: {} cases and {} pipelines in {:.1} s on {}; the slowest took {:.1} s: {}",
            self.test,
            self.cases,
            self.made,
            self.begun.elapsed().as_secs_f64(),
            adapter::describe(&self.adapter),
            self.slowest.0.as_secs_f64(),
            self.slowest.1
        );
    }
}

/// What a product must be.
#[derive(Clone, Debug)]
pub enum Expected {
    /// These integers.
    Exact(Vec<i64>),
    /// Values no farther than these bounds from these numbers.
    Bounded(Vec<f64>, Vec<f64>),
}

impl Expected {
    /// What a plan must give for two operands.
    ///
    /// # Errors
    ///
    /// What the reference refuses.
    pub fn of(plan: &Plan, x: &PackedMatrix, w: &PackedMatrix) -> Result<Self, String> {
        let problem = plan.problem();
        if problem.output == OutputFormat::I32 {
            let exact = exact::gemm_i64_batched(x, w, batches(problem));
            return exact.map(Self::Exact).map_err(|error| error.to_string());
        }
        let (values, bounds) = reference_of_parts(problem, plan.engine(), parts_of(plan)?, x, w)?;
        Ok(Self::Bounded(values, bounds))
    }

    /// What is wrong with what was found.
    pub fn wrong(&self, found: Values) -> Option<Wrong> {
        match (self, found) {
            (Self::Exact(exact), Values::I32(found)) => compare::exact(&found, exact),
            (Self::Exact(exact), _) => compare::exact(&[], exact),
            (Self::Bounded(values, bounds), found) => {
                compare::bounded(&found.into_f32().unwrap_or_default(), values, bounds)
            }
        }
    }

    /// The largest bound as a part of the largest value, if there are bounds.
    pub fn resolution(&self) -> Option<f64> {
        match self {
            Self::Exact(_) => None,
            Self::Bounded(values, bounds) => Some(compare::resolution(values, bounds)),
        }
    }
}

/// A context on a device with these features and limits.
///
/// # Panics
///
/// If the adapter makes no such device.
pub fn device(adapter: &wgpu::Adapter, features: wgpu::Features, limits: wgpu::Limits) -> Context {
    let (device, queue) = open(adapter, features, limits);
    Context::from_device(device, queue)
}

fn open(
    adapter: &wgpu::Adapter,
    features: wgpu::Features,
    limits: wgpu::Limits,
) -> (wgpu::Device, wgpu::Queue) {
    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("anybit-tests"),
        required_features: features,
        required_limits: limits,
        ..Default::default()
    }))
    .unwrap_or_else(|error| panic!("{}: {error}", adapter::describe(adapter)))
}

/// The reference's view of a problem's batches.
pub fn batches(problem: &Problem) -> Batches {
    Batches {
        count: problem.batch.count,
        broadcast_activation: problem.batch.broadcast_activation,
        broadcast_weight: problem.batch.broadcast_weight,
    }
}

/// The right f64 outputs of a problem, exact but for the saturation of f16, and how far the float outputs of an engine may
/// be from them; of the lmul engine, those of the multiplier that the formats ask for; of the engine `lut8`, those from
/// tables that are rounded as they should be.
///
/// # Errors
///
/// What the reference refuses.
pub fn reference(
    problem: &Problem,
    engine: Engine,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    reference_of_parts(problem, engine, Parts::ONE, x, w)
}

/// How a plan splits K, as the reference has it.
///
/// # Errors
///
/// What the reference refuses.
pub fn parts_of(plan: &Plan) -> Result<Parts, String> {
    let (parts, step) = (plan.parts() as usize, plan.part_step() as usize);
    match parts {
        1 => Ok(Parts::ONE),
        _ => Parts::new(parts, step).map_err(|error| error.to_string()),
    }
}

/// [`reference()`] of a product whose K is split into parts.
///
/// # Errors
///
/// What the reference refuses.
pub fn reference_of_parts(
    problem: &Problem,
    engine: Engine,
    parts: Parts,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let batches = batches(problem);
    let model = ErrorModel::WGSL;
    let text = |error: anybit_reference::ReferenceError| error.to_string();
    let exact = || exact::gemm_f64_batched(x, w, batches).map_err(text);
    let (expected, bounds): (Vec<f64>, Vec<f64>) = match engine {
        Engine::LMul => {
            let l_mul = LMul::of(x.format().element(), w.format().element());
            l_mul_reference(problem, l_mul, x, w)?
        }
        Engine::Lut8 => {
            let outputs = model.gemm_lut8(x, w, batches).map_err(text)?.into_iter();
            outputs.map(|output| (output.value, output.bound)).unzip()
        }
        Engine::Fma => (exact()?, model.gemm_fma(x, w, batches).map_err(text)?),
        Engine::Matrix => (exact()?, model.gemm_matrix(x, w, batches).map_err(text)?),
        Engine::Lut => (exact()?, model.gemm_lut(x, w, batches).map_err(text)?),
        _ => {
            let accumulation = Accumulation::of(&problem.activation, &problem.weight);
            let bounds = model.gemm_integer_parts(x, w, batches, accumulation, parts);
            (exact()?, bounds.map_err(text)?)
        }
    };
    if problem.output != OutputFormat::F16 {
        return Ok((expected, bounds));
    }
    Ok(expected
        .into_iter()
        .zip(bounds)
        .map(|(exact, bound)| {
            let Bounded { value, bound } = f16_output(exact, bound);
            (value, bound)
        })
        .unzip())
}

/// [`reference()`] of a multiplier of the lmul engine.
///
/// # Errors
///
/// What the reference refuses.
pub fn l_mul_reference(
    problem: &Problem,
    l_mul: LMul,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let batches = batches(problem);
    let expected = exact::gemm_l_mul_batched(x, w, batches, l_mul);
    let bounds = ErrorModel::WGSL.gemm_l_mul(x, w, batches, l_mul);
    Ok((
        expected.map_err(|error| error.to_string())?,
        bounds.map_err(|error| error.to_string())?,
    ))
}

/// Runs a plan on packed operands. Whether f32 operands and the output lie in buffers of the caller, with canaries round
/// them, is left to chance.
///
/// # Errors
///
/// Those of anybit, and a damaged canary.
pub fn multiply(
    context: &Context,
    plan: &Plan,
    x: &PackedMatrix,
    w: &PackedMatrix,
    random: &mut Random,
) -> Result<Values, Box<dyn std::error::Error>> {
    let problem = plan.problem();
    let activation = upload(context, x, plan.activation_layout(), random)?;
    let weight = upload(context, w, plan.weight_layout(), random)?;
    let shape = (problem.m * problem.batch.count, problem.n);
    if problem.is_empty() || random.one_in(2) {
        let output = context.output(problem.output, shape.0, shape.1)?;
        let prepared = context.prepare(
            plan,
            Operands {
                activation: &activation,
                weight: &weight,
                output: &output,
            },
        )?;
        return Ok(context.run(&prepared, &output)?);
    }
    let framed = Framed::new(context, problem.output, shape, random)?;
    let prepared = context.prepare(
        plan,
        Operands {
            activation: &activation,
            weight: &weight,
            output: &framed.output,
        },
    )?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    prepared.encode_pass(&mut encoder);
    let pending = context.encode_read(&mut encoder, &framed.whole)?;
    context.queue().submit([encoder.finish()]);
    framed.unframe(pending.read_blocking()?)
}

/// A matrix on the device; if of f32, it may be in a buffer of the caller, if of codes, it may carry sums that no kernel
/// asked for.
///
/// # Errors
///
/// Those of [`Context::upload`].
pub fn upload(
    context: &Context,
    matrix: &PackedMatrix,
    layout: DeviceLayout,
    random: &mut Random,
) -> Result<DeviceMatrix, Box<dyn std::error::Error>> {
    let empty = matrix.rows() * matrix.columns() == 0;
    let in_buffers = layout.memory == Memory::Buffers;
    if in_buffers && *matrix.format() == MatrixFormat::F32 && !empty && random.one_in(2) {
        return upload_strided(context, matrix, random);
    }
    let sums = match matrix.format().element() {
        element if element.has_codes() && layout.sums == SumLayout::None => {
            random.pick(&[SumLayout::None, SumLayout::Blocks, SumLayout::Groups])
        }
        _ => layout.sums,
    };
    Ok(context.upload(matrix, &DeviceLayout { sums, ..layout })?)
}

/// An f32 matrix in a larger buffer: NaN before, between and after its rows, which no kernel may use.
fn upload_strided(
    context: &Context,
    matrix: &PackedMatrix,
    random: &mut Random,
) -> Result<DeviceMatrix, Box<dyn std::error::Error>> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let values = matrix.decode();
    let stride = columns.next_multiple_of(4) + 4 * random.below(3);
    let offset = 64 * (1 + random.below(2));
    let mut words = vec![f32::from_bits(CANARY); offset + rows * stride + 64];
    for (row, values) in values.chunks(columns.max(1)).enumerate() {
        words[offset + row * stride..][..columns].copy_from_slice(values);
    }
    let buffer = buffer_of(context, words.iter().map(|value| value.to_bits()));
    Ok(DeviceMatrix::from_buffer(
        &buffer,
        4 * offset as u64,
        (rows, columns),
        stride,
    )?)
}

/// A storage buffer of these words.
pub fn buffer_of(context: &Context, words: impl Iterator<Item = u32>) -> wgpu::Buffer {
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("a buffer of the tests"),
        size: bytes.len() as u64,
        usage: wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    context.queue().write_buffer(&buffer, 0, &bytes);
    buffer
}

/// An output inside a larger buffer of canaries.
#[derive(Debug)]
pub struct Framed {
    /// The output.
    pub output: OutputMatrix,
    /// All of the buffer, as a single row of integers.
    pub whole: OutputMatrix,
    /// Words before it, and from row to row.
    offset: usize,
    stride: usize,
}

impl Framed {
    /// An output of a shape, somewhere in a buffer that ends after it.
    ///
    /// # Errors
    ///
    /// Those of [`OutputMatrix::from_buffer`].
    pub fn new(
        context: &Context,
        format: OutputFormat,
        (rows, columns): (usize, usize),
        random: &mut Random,
    ) -> Result<Self, anybit::Error> {
        let per_word = 4 / format.bytes();
        let stride = columns.div_ceil(per_word).next_multiple_of(4) + 4 * random.below(3);
        let offset = 64 * (1 + random.below(2));
        let words = offset + rows * stride + 64;
        let buffer = buffer_of(context, (0..words).map(|_| CANARY));
        Ok(Self {
            output: OutputMatrix::from_buffer(
                &buffer,
                4 * offset as u64,
                format,
                (rows, columns),
                stride * per_word,
            )?,
            whole: OutputMatrix::from_buffer(&buffer, 0, OutputFormat::I32, (1, words), words)?,
            offset,
            stride,
        })
    }

    /// The output's values out of [`whole`](Self::whole), if everything around them is as it was.
    ///
    /// # Errors
    ///
    /// A canary that was overwritten.
    pub fn unframe(&self, whole: Values) -> Result<Values, Box<dyn std::error::Error>> {
        let words = whole
            .into_i32()
            .ok_or("the whole buffer is read as integers")?;
        let (rows, columns) = (self.output.rows(), self.output.columns());
        let per_word = 4 / self.output.format().bytes();
        let row_words = columns.div_ceil(per_word);
        let mut values = Vec::with_capacity(rows * row_words);
        for (index, &word) in words.iter().enumerate() {
            let place = index
                .checked_sub(self.offset)
                .map(|at| (at / self.stride, at % self.stride));
            if place.is_some_and(|(row, column)| row < rows && column < row_words) {
                values.push(word);
            } else if word.cast_unsigned() != CANARY {
                return Err(format!(
                    "the canary at word {index} was overwritten with {word:#x}; the output has {rows} x {columns} \
                     elements from word {} at a stride of {}",
                    self.offset, self.stride
                )
                .into());
            }
        }
        Ok(match self.output.format() {
            OutputFormat::I32 => Values::I32(values),
            OutputFormat::F32 => Values::F32(
                values
                    .into_iter()
                    .map(|word| f32::from_bits(word.cast_unsigned()))
                    .collect(),
            ),
            OutputFormat::F16 => {
                let mut found = Vec::with_capacity(rows * columns);
                for (row, words) in values.chunks(row_words).enumerate() {
                    let halves = words
                        .iter()
                        .flat_map(|&word| [word as u16, (word >> 16) as u16]);
                    let (values, rest): (Vec<_>, Vec<_>) = halves
                        .enumerate()
                        .partition(|&(column, _)| column < columns);
                    if rest.iter().any(|&(_, half)| half != 0) {
                        return Err(format!(
                            "row {row}: the other half of its last word is not 0: {rest:x?}"
                        )
                        .into());
                    }
                    found.extend(values.into_iter().map(|(_, half)| f16::from_bits(half)));
                }
                Values::F16(found)
            }
        })
    }
}

/// A place among the contexts that may be alive at once.
struct Permit;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Permit {
    fn take(most: usize) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREED
            .wait_while(taken, |taken| *taken >= most)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_contracts_are_met_where_pipelines_are_slow() {
        assert!(is_slow(wgpu::Backend::Gl, false));
        assert!(!is_slow(wgpu::Backend::Gl, true) && !is_slow(wgpu::Backend::Vulkan, false));
        let mut met = HashSet::new();
        let each_twice = (0..10).flat_map(|number| [number; 2]);
        let taken = each_twice.filter(|number| is_one_of_few(&mut met, number.to_string()));
        assert_eq!(taken.collect::<Vec<i32>>(), [0, 1, 2, 3, 4, 5]);
    }
}
