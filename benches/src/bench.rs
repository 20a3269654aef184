//! `bench`: every problem with every strategy, checked before timing.

use std::io::IsTerminal;
use std::time::Duration;

use anybit::{
    Caps, Context, DeviceMatrix, Engine, Epilogue, Explanation, Operands, Plan, PlanOptions,
};
use anybit_formats::{DeviceLayout, MatrixFormat, PackedMatrix};
use indicatif::{ProgressBar, ProgressStyle};
use wildmatch::WildMatch;

use crate::cli::BenchArguments;
use crate::correctness::{Reference, Verdict};
use crate::probe::{self, Ceilings};
use crate::problem::{Precision, Shape, Workload, format_name, mixture, synthetic};
use crate::report::{self, Row};
use crate::roofline::Roof;
use crate::strategy::{self, Strategy};
use crate::timing::{Budget, Timer, Timing};
use crate::{Error, adapters, chart, explain, model, roofline, tune};

/// `anybit-benches bench`.
///
/// # Errors
///
/// [`Error::Failed`] if a row failed its check; the others before anything has run, or for a lost device.
pub(crate) fn run(arguments: &BenchArguments) -> Result<(), Error> {
    let adapters = adapters::find(&arguments.choice)?;
    let count = if arguments.all_adapters {
        adapters.len()
    } else {
        1
    };
    let workloads = workloads(arguments)?;
    let selection = Selection::new(&arguments.contract, &workloads)?;

    let mut rows = Vec::new();
    for adapter in adapters.iter().take(count) {
        let mut context = pollster::block_on(Context::from_adapter(adapter))?;
        context = if arguments.untuned {
            context.without_choices()
        } else {
            tune::with_user_choices(context)
        };
        let timer = Timer::new(&context);
        let ceilings = probe::ceilings(&context, &timer)?;
        report::print_header(context.caps(), timer.method(), &ceilings, arguments);
        let bench = Bench {
            context,
            timer,
            ceilings,
            selection: &selection,
            quantize: arguments.quantize,
            strategy: match (arguments.explain, arguments.quick) {
                (true, _) => Strategy::Everything,
                (false, true) => Strategy::Planned,
                (false, false) => Strategy::EveryKind,
            },
            kernels: arguments
                .kernel
                .iter()
                .map(|glob| WildMatch::new(glob))
                .collect(),
            explain: arguments.explain,
            budget: if arguments.quick {
                Budget::QUICK
            } else {
                Budget::FULL
            },
        };
        let mut measured = bench.run(&workloads)?;
        let named = |row: &Row| bench.kernels.iter().any(|glob| glob.matches(&row.kernel));
        if !arguments.kernel.is_empty() && !measured.iter().any(named) {
            return Err(Error::NoKernel {
                glob: arguments.kernel.join(","),
            });
        }
        report::compare(&mut measured);
        let sums = report::block_sums(&measured);
        measured.retain(|row| row.selected || row.checked.failed());
        explain::compare(&mut measured);
        report::print_table(&measured);
        explain::print(&measured);
        report::print_summary(&measured, &sums);
        rows.extend(measured);
    }

    if let Some(path) = &arguments.json {
        report::write_json(&rows, path)?;
        println!("\nJSON lines: {}", path.display());
    }
    if let Some(path) = &arguments.svg {
        chart::draw(&rows, path)?;
        println!("chart: {}", path.display());
    }
    if let Some(path) = &arguments.roofline {
        roofline::draw(&rows, path)?;
        println!("roofline: {}", path.display());
    }
    if let Some(path) = &arguments.bits {
        chart::draw_bits(&rows, path)?;
        println!("speed against bits: {}", path.display());
    }
    let failed = rows.iter().filter(|row| row.checked.failed()).count();
    println!("\n{} rows checked, {failed} failed", rows.len());
    if failed > 0 {
        return Err(Error::Failed {
            failed,
            rows: rows.len(),
        });
    }
    Ok(())
}

/// What the arguments ask for.
fn workloads(arguments: &BenchArguments) -> Result<Vec<Workload>, Error> {
    let mut workloads = Vec::new();
    if !arguments.shapes.is_empty() {
        for &shape in &arguments.shapes {
            let precisions = Precision::all(shape.k)?;
            workloads.push(match arguments.experts {
                None => synthetic(shape.to_string(), shape, precisions)?,
                Some(count) => mixture(shape, count as usize, precisions)?,
            });
        }
    } else {
        if let Some(path) = &arguments.model {
            workloads = model::workloads(path)?;
        }
        let square = Shape::new(1024, 1024, 1024);
        workloads.push(synthetic("square", square, Precision::of_square()?)?);
        if arguments.synthetic {
            let shape = Shape::new(1, 4096, 4096);
            workloads.push(synthetic("GEMV", shape, Precision::all(shape.k)?)?);
            // Off every tile and block; the last off the usual group, too.
            for shape in [
                Shape::new(7, 515, 544),
                Shape::new(133, 257, 608),
                Shape::new(65, 129, 333),
            ] {
                workloads.push(synthetic("ragged", shape, Precision::all(shape.k)?)?);
            }
        }
    }
    if arguments.bits.is_some() {
        let usual = [Shape::new(1024, 1024, 1024), Shape::new(1, 4096, 4096)];
        let shapes = match arguments.shapes[..] {
            [] => &usual,
            _ => &arguments.shapes[..],
        };
        for &shape in shapes {
            let precisions = Precision::of_bits(shape.k)?;
            workloads.push(synthetic(chart::BITS, shape, precisions)?);
        }
    }
    Ok(workloads)
}

/// Which contracts run.
struct Selection {
    /// Any of them; all contracts where there is none.
    globs: Vec<WildMatch>,
}

impl Selection {
    fn new(globs: &[String], workloads: &[Workload]) -> Result<Self, Error> {
        let selection = Self {
            globs: globs.iter().map(|glob| WildMatch::new(glob)).collect(),
        };
        let mut contracts: Vec<String> = workloads
            .iter()
            .flat_map(|workload| {
                workload.ms.iter().flat_map(move |&m| {
                    let contract = move |precision| workload.problem(m, precision).contract();
                    workload.precisions.iter().map(contract)
                })
            })
            .collect();
        if contracts.iter().any(|contract| selection.takes(contract)) {
            return Ok(selection);
        }
        contracts.sort();
        contracts.dedup();
        Err(Error::NoContract {
            glob: globs.join(","),
            contracts,
        })
    }

    fn takes(&self, contract: &str) -> bool {
        self.globs.is_empty() || self.globs.iter().any(|glob| glob.matches(contract))
    }
}

/// One adapter, and how it is benched.
struct Bench<'a> {
    context: Context,
    timer: Timer,
    ceilings: Ceilings,
    selection: &'a Selection,
    /// Whether activations are quantised within the time.
    quantize: bool,
    strategy: Strategy,
    /// The kernels to run in place of those of the strategy, where there are any.
    kernels: Vec<WildMatch>,
    explain: bool,
    budget: Budget,
}

/// A packed pair of operands with its reference, and the weights as they are on the device.
struct Operand {
    activations: PackedMatrix,
    weights: PackedMatrix,
    reference: Reference,
    device: Option<DeviceMatrix>,
}

/// Bytes of X, of W and of Y.
type Bytes = [u64; 3];

impl Bench<'_> {
    fn run(&self, workloads: &[Workload]) -> Result<Vec<Row>, Error> {
        let problems = workloads.iter().flat_map(|workload| {
            let each = move |precision| self.rows_of(workload, precision).len();
            workload.precisions.iter().map(each)
        });
        let progress = Progress::new(problems.sum());
        let mut rows = Vec::new();
        for workload in workloads {
            let before = rows.len();
            for precision in &workload.precisions {
                let ms = self.rows_of(workload, precision);
                if ms.is_empty() {
                    continue;
                }
                let mut operand = match Operand::new(workload, precision) {
                    Ok(operand) => operand,
                    Err(error) => {
                        // Data that a format cannot hold, say. The other rows are worth having.
                        for &m in &ms {
                            let mut row = self.row(workload, precision, m, None);
                            row.checked = Verdict::Failed(error.to_string());
                            rows.push(row);
                            progress.step();
                        }
                        continue;
                    }
                };
                for &m in &ms {
                    progress.now(&workload.problem(m, precision).contract());
                    self.problem(workload, precision, m, &mut operand, &mut rows)?;
                    progress.step();
                }
            }
            // The precisions in turn of each M, as the table shows them.
            rows[before..].sort_by_key(|row| row.m);
            progress.done(&workload.name, rows.len() - before);
        }
        progress.finish();
        Ok(rows)
    }

    /// The Ms of a workload that are run in a precision: those selected, and for the baseline those of which any
    /// precision is, because the ratio needs it.
    fn rows_of(&self, workload: &Workload, precision: &Precision) -> Vec<usize> {
        let selected = |m, precision: &Precision| {
            self.selection
                .takes(&workload.problem(m, precision).contract())
        };
        let baseline = *precision == Precision::BASELINE;
        let ms = workload.ms.iter().copied();
        ms.filter(|&m| {
            selected(m, precision)
                || (baseline && workload.precisions.iter().any(|other| selected(m, other)))
        })
        .collect()
    }

    /// Runs one problem with every strategy and adds its rows.
    fn problem(
        &self,
        workload: &Workload,
        precision: &Precision,
        m: usize,
        operand: &mut Operand,
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        let problem = workload.problem(m, precision);
        let strategy = match (self.strategy, self.selection.takes(&problem.contract())) {
            // A baseline that nobody asked to explain.
            (Strategy::Everything, false) => Strategy::EveryKind,
            (strategy, _) => strategy,
        };
        // Operands are uploaded as plans name their layouts, unless activations are rounded on the device.
        let options = PlanOptions::default().with_uploaded(!self.quantize);
        let mut plans = strategy.plans(&self.context, &problem, &options);
        if !self.kernels.is_empty() {
            let named = strategy::named(&self.kernels, &self.context, &problem, &options);
            plans = match plans {
                // Ratios need the baseline, whatever kernels are asked for.
                Ok(mut plans) if *precision == Precision::BASELINE => named.map(|named| {
                    plans.truncate(1);
                    let others = named.into_iter().filter(|plan| plan.id() != plans[0].id());
                    plans.extend(others.collect::<Vec<_>>());
                    plans
                }),
                _ => named,
            };
        }
        let plans = match plans {
            Ok(plans) => plans,
            Err(error) => {
                let mut row = self.row(workload, precision, m, None);
                row.checked = Verdict::Failed(error.to_string());
                rows.push(row);
                return Ok(());
            }
        };
        let explanation: Option<Explanation> = match self.explain {
            true => Some(self.context.explain(&problem, &options)?),
            false => None,
        };
        for plan in &plans {
            let mut row = self.row(workload, precision, m, Some(plan));
            row.explain = explanation
                .as_ref()
                .and_then(|explanation| explain::of_kernel(explanation, plan.id()));
            match self.measure(plan, m, workload, operand) {
                Ok((verdict, timing)) => {
                    row.checked = verdict;
                    if let Some((timing, bytes)) = timing {
                        let rows = m.div_ceil(workload.matrices().0.max(1));
                        self.fill(&mut row, plan, timing, rows, bytes);
                    }
                }
                Err(error @ Error::Anybit(anybit::Error::DeviceLost { .. })) => return Err(error),
                Err(error) => row.checked = Verdict::Failed(error.to_string()),
            }
            rows.push(row);
        }
        Ok(())
    }

    /// Checks a plan, then times it. The bytes are those of X, W and Y.
    fn measure(
        &self,
        plan: &Plan,
        m: usize,
        workload: &Workload,
        operand: &mut Operand,
    ) -> Result<(Verdict, Option<(Timing, Bytes)>), Error> {
        let context = &self.context;
        let weights = operand.on_device(context, &plan.weight_layout())?;
        let activations = operand.activations.row_range(0..m)?;
        let activations = context.upload(&activations, &plan.activation_layout())?;
        let n = plan.problem().n;
        let output = context.output(plan.problem().output, m, n)?;
        let offsets = match &workload.experts {
            None => None,
            Some(offsets) => {
                let table = context.expert_offsets(offsets.len().saturating_sub(1))?;
                context.write_expert_offsets(&table, offsets)?;
                Some(table)
            }
        };
        let product = |activation: &DeviceMatrix| {
            let operands = Operands {
                activation,
                weight: &weights,
                output: &output,
            };
            match &offsets {
                None => context.prepare(plan, operands),
                Some(offsets) => {
                    context.prepare_experts(plan, operands, offsets, &Epilogue::default())
                }
            }
        };
        let prepared = product(&activations)?;
        let values = context.run(&prepared, &output)?;
        let x = operand.activations.row_range(0..m)?;
        let verdict = if matches!(plan.engine(), Engine::Lut | Engine::Lut8) {
            let of = |x: &PackedMatrix, w: &PackedMatrix| Reference::of_tables(plan.engine(), x, w);
            workload
                .reference(&x, &operand.weights, of)?
                .check(&values, n)?
        } else {
            operand.reference.check(&values, n)?
        };
        if verdict.failed() {
            return Ok((verdict, None));
        }
        let format = *operand.activations.format();
        let timing = if self.quantize && format != MatrixFormat::F32 {
            let k = operand.activations.columns();
            let input = context.upload_f32(&workload.activations[..m * k], m, k)?;
            let activations = context.allocate(format, m, k, &plan.activation_layout())?;
            let quantize = context.prepare_quantize(&input, &activations)?.work;
            let prepared = product(&activations)?;
            self.timer.measure(self.budget, |pass| {
                quantize.encode(pass);
                prepared.encode(pass);
            })?
        } else {
            self.timer
                .measure(self.budget, |pass| prepared.encode(pass))?
        };
        // Nothing need be loaded of experts without rows.
        let (met, matrices) = workload.matrices();
        let bytes = [
            activations.bytes(),
            weights.bytes() * met as u64 / matrices.max(1) as u64,
            4 * m as u64 * n as u64,
        ];
        Ok((verdict, Some((timing, bytes))))
    }

    fn row(
        &self,
        workload: &Workload,
        precision: &Precision,
        m: usize,
        plan: Option<&Plan>,
    ) -> Row {
        let caps: &Caps = self.context.caps();
        let contract = workload.problem(m, precision).contract();
        let Shape { n, k, .. } = workload.shape(m);
        Row {
            selected: self.selection.takes(&contract),
            workload: workload.name.clone(),
            precision: precision.short_name(),
            baseline: *precision == Precision::BASELINE,
            adapter: caps.name.clone(),
            backend: adapters::backend_name(caps.backend),
            contract,
            kernel: plan.map_or_else(String::new, |plan| plan.id().to_owned()),
            activation: format_name(&precision.activation),
            weight: format_name(&precision.weight),
            activation_bits: precision.activation.element().bits(),
            weight_bits: precision.weight.element().bits(),
            m,
            n,
            k,
            experts: workload.experts(),
            source: workload.source.name(),
            checked: Verdict::Failed("not run".to_owned()),
            seconds: None,
            cpu_seconds: None,
            gops: None,
            gbps: None,
            ratio_f32: None,
            ceiling: None,
            arithmetic_gops: None,
            load_gops: None,
            bound: None,
            roof_fraction: None,
            explain: None,
            roof: None,
            engine: plan.map_or("", |plan| plan.engine().name()),
        }
    }

    fn fill(&self, row: &mut Row, plan: &Plan, timing: Timing, rows: usize, bytes: Bytes) {
        let operations = Shape::new(row.m, row.n, row.k).operations();
        let bits = (row.activation_bits, row.weight_bits);
        row.seconds = Some(timing.seconds);
        row.cpu_seconds = timing.cpu_seconds;
        row.gops = Some(operations / timing.seconds / 1e9);
        row.gbps = Some(bytes.iter().sum::<u64>() as f64 / timing.seconds / 1e9);
        row.ceiling = self
            .ceilings
            .fraction(plan.engine(), bits, operations, timing);
        let loaded = roofline::loaded(self.context.caps().class, plan, rows, bytes);
        row.set_roof(Roof::new(
            &self.ceilings,
            plan,
            bits,
            operations,
            loaded,
            timing,
        ));
    }
}

impl Operand {
    fn new(workload: &Workload, precision: &Precision) -> Result<Self, Error> {
        let activations = workload.activations_in(precision)?;
        let weights = workload.weights_in(precision)?;
        Ok(Self {
            reference: workload.reference(&activations, &weights, |x, w| {
                Reference::new(x, w, precision.output)
            })?,
            activations,
            weights,
            device: None,
        })
    }

    /// The weights in a layout; uploaded only if the last plan had another.
    fn on_device(
        &mut self,
        context: &Context,
        layout: &DeviceLayout,
    ) -> Result<DeviceMatrix, Error> {
        if let Some(device) = self.device.take_if(|device| device.layout() != *layout) {
            // Freed before the next upload, not after.
            drop(device);
        }
        match &self.device {
            Some(device) => Ok(device.clone()),
            None => {
                let device = context.upload(&self.weights, layout)?;
                Ok(self.device.insert(device).clone())
            }
        }
    }
}

/// A bar on a terminal; elsewhere a line for each workload, so that a log shows life.
struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    fn new(problems: usize) -> Self {
        let bar = ProgressBar::new(problems as u64);
        let template = "{bar:30} {pos}/{len} [{elapsed}] {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let terminal = std::io::stderr().is_terminal();
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self { bar, terminal }
    }

    fn now(&self, contract: &str) {
        self.bar.set_message(contract.to_owned());
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn done(&self, workload: &str, rows: usize) {
        if !self.terminal {
            eprintln!(
                "{}/{} problems: {workload} done, {rows} rows",
                self.bar.position(),
                self.bar.length().unwrap_or_default()
            );
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares() -> Vec<Workload> {
        let shape = Shape::new(4, 8, 64);
        let precisions = Precision::of_square().expect("formats");
        vec![synthetic("test", shape, precisions).expect("a workload")]
    }

    #[test]
    fn globs_select_contracts() {
        let workloads = squares();
        let selection =
            Selection::new(&["gemm_i8rf_*".to_owned()], &workloads).expect("some match");
        assert!(selection.takes("gemm_i8rf_u4g32hm_f32"));
        assert!(!selection.takes("gemm_f32_f32_f32"));
        assert!(!selection.takes("gemv_i8rf_u4g32hm_f32"));
        let everything = Selection::new(&[], &workloads).expect("no glob");
        assert!(everything.takes("gemm_f32_f32_f32"));
    }

    #[test]
    fn a_glob_that_matches_nothing_lists_the_contracts() {
        let Err(Error::NoContract { contracts, .. }) =
            Selection::new(&["gemv_*".to_owned()], &squares())
        else {
            panic!("M is 4: there is no GEMV");
        };
        assert!(contracts.contains(&"gemm_i8rf_u4g32hm_f32".to_owned()));
    }
}
