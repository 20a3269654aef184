//! The tuner: measures every kernel that can do a problem, and makes choices of the fastest.
//!
//! Operands are made up on the device, since no kernel's time depends on the codes. All kernels of a problem are first run
//! on their own: the untuned choice, the first of every engine and skeleton, then the others in the order of the cost model.
//! Those that take far longer than the best so far are out. The others take turns, so that what else the machine does meets
//! them alike, and their medians count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anybit_formats::{DeviceLayout, ElementFormat, FloatFormat, MatrixFormat, ScaleType};

use crate::caps::DeviceClass;
use crate::choices::{Choices, ChosenBy, Explained, Figure, ShapeClass, explain};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::kernel::{Engine, Skeleton};
use crate::matrix::{Chunk, DeviceMatrix};
use crate::plan::{Candidate, Memories, PlanOptions, plan_of};
use crate::prepare::{Epilogue, Operands, Prepared};
use crate::problem::Problem;
use crate::timing::{PassTimer, TimingMethod, median};

/// A first run that takes so many times that of the best is the last.
const HOPELESS: f64 = 3.0;

/// A first run twice over that takes so many times that of the best is the last.
const SLOWER: f64 = 1.6;

/// After two turns, a kernel whose best turn takes so many times the median of the best is out.
const BEHIND: f64 = 1.15;

/// Turns of each kernel that is not out.
const TURNS: usize = 7;

/// A turn should last so long, against the cost of a submit and the grain of clocks.
const TURN: Duration = Duration::from_millis(8);

/// How long a GPU works before the turns: it raises its clocks only under load, and they fall while kernels are compiled.
const WARM_UP: Duration = Duration::from_millis(60);

const MOST_REPETITIONS: usize = 1000;

/// The part of a problem's time that first runs may take; the turns get what is left.
const FIRST_RUNS: f64 = 0.75;

/// What is tuned, and for how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TuneOptions {
    /// The problems to measure. Each stands for all of its contract and [class](ShapeClass); several of one class count
    /// together. Residuals are left out: a choice serves its contract with one too.
    pub problems: Vec<Problem>,
    /// Time for all of it, which the problems share, small ones first. The last passes may end later.
    pub time: Duration,
}

impl TuneOptions {
    /// To measure these problems within five minutes.
    pub fn new(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            time: Duration::from_secs(300),
        }
    }

    /// The same within another time.
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }
}

/// What was measured of a kernel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunedKernel {
    /// Its id.
    pub id: String,
    /// How it multiplies.
    pub engine: Engine,
    /// How it shares the work out.
    pub skeleton: Skeleton,
    /// What it reads operands from.
    pub memories: Memories,
    /// The cost model's estimate, in units of the least of all.
    pub estimate: f64,
    /// Seconds for one product. `None` if there was no time for it, or if it failed.
    pub seconds: Option<f64>,
    /// Turns that the time is the median of; 0 of a kernel that was out after its first run.
    pub turns: usize,
    /// Why the driver did not run it, if so.
    pub failure: Option<String>,
}

/// What was measured of a problem.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunedProblem {
    /// The problem.
    pub problem: Problem,
    /// Its kernels: the planner's untuned choice, then the others by the cost model. Empty if there was no time for any.
    pub kernels: Vec<TunedKernel>,
    /// Why the first kernel is the untuned choice: the cost model, or a choice that comes with the crate.
    pub by: ChosenBy,
    /// Why none could be measured, if so: no kernel does the problem, or its matrices do not fit the device.
    pub failure: Option<String>,
}

impl TunedProblem {
    /// The fastest kernel.
    pub fn fastest(&self) -> Option<&TunedKernel> {
        let measured = self
            .kernels
            .iter()
            .filter(|kernel| kernel.seconds.is_some());
        measured.min_by(|a, b| {
            let seconds = |kernel: &TunedKernel| kernel.seconds.unwrap_or(f64::INFINITY);
            seconds(a).total_cmp(&seconds(b))
        })
    }

    /// How many times the fastest kernel's time the planner's untuned choice takes.
    pub fn untuned_ratio(&self) -> Option<f64> {
        Some(self.kernels.first()?.seconds? / self.fastest()?.seconds?)
    }

    /// Kernels that there was no time for.
    pub fn not_reached(&self) -> usize {
        let waiting = |kernel: &&TunedKernel| kernel.seconds.is_none() && kernel.failure.is_none();
        self.kernels.iter().filter(waiting).count()
    }

    /// Whether there was no time for any kernel of it.
    pub fn is_untouched(&self) -> bool {
        self.failure.is_none() && self.kernels.iter().all(|kernel| kernel.seconds.is_none())
    }
}

/// What a tuning found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tuning {
    /// The choices, for [`Context::with_choices`] or [`Choices::to_json`].
    pub choices: Choices,
    /// Every problem that was asked for, in order.
    pub problems: Vec<TunedProblem>,
    /// How it was timed.
    pub method: TimingMethod,
}

/// A kernel that is being measured.
struct Contender {
    index: usize,
    prepared: Prepared,
    /// The shortest of its first runs.
    first: f64,
    repetitions: usize,
    turns: Vec<f64>,
}

impl Contender {
    fn best(&self) -> f64 {
        self.turns.iter().copied().fold(self.first, f64::min)
    }

    fn seconds(&self) -> f64 {
        if self.turns.is_empty() {
            self.first
        } else {
            median(&mut self.turns.clone())
        }
    }
}

/// A time after another, or a far one if no clock goes so far.
fn after(start: Instant, time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start
        .checked_add(time)
        .unwrap_or_else(|| start + time.min(YEAR))
}

impl Context {
    /// Measures every kernel that can do some problems on this device, and chooses the fastest. Results do not depend on
    /// choices where they are integers, and stay within the same bounds where they are floats.
    ///
    /// `done` hears of each problem as it ends. This context stays as it is; [`with_choices`](Self::with_choices) makes one
    /// that goes by what was found.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]. A kernel or problem that fails otherwise is left out, and says so.
    pub fn tune_blocking(
        &self,
        options: &TuneOptions,
        mut done: impl FnMut(&TunedProblem),
    ) -> Result<Tuning> {
        let end = after(Instant::now(), options.time);
        let timer = PassTimer::new(self);
        // The small ones first: one that takes longer than its share takes it from few.
        let mut order: Vec<usize> = (0..options.problems.len()).collect();
        order.sort_by_key(|index| work(&options.problems[*index]));
        let mut problems: Vec<Option<TunedProblem>> = vec![None; order.len()];
        for (turn, index) in order.into_iter().enumerate() {
            // What one problem leaves of its share is for those after it.
            let left = end.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(problems.len() - turn).unwrap_or(u32::MAX);
            let problem = &options.problems[index];
            let tuned = self.tune_problem(&timer, problem, after(Instant::now(), share))?;
            done(&tuned);
            problems[index] = Some(tuned);
        }
        let problems: Vec<TunedProblem> = problems.into_iter().flatten().collect();
        Ok(Tuning {
            choices: self.choices_of(&problems),
            problems,
            method: timer.method(),
        })
    }

    fn tune_problem(
        &self,
        timer: &PassTimer,
        problem: &Problem,
        end: Instant,
    ) -> Result<TunedProblem> {
        let problem = &Problem {
            residual: false,
            ..problem.clone()
        };
        let mut tuned = TunedProblem {
            problem: problem.clone(),
            kernels: Vec::new(),
            by: ChosenBy::CostModel,
            failure: None,
        };
        match self.measure(timer, problem, end, &mut tuned) {
            Ok(()) => {}
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => tuned.failure = Some(error.to_string()),
        }
        Ok(tuned)
    }

    fn measure(
        &self,
        timer: &PassTimer,
        problem: &Problem,
        end: Instant,
        tuned: &mut TunedProblem,
    ) -> Result<()> {
        // What a self-check has found wrong is not measured, and what needs one takes part if it has passed.
        let options = self.with_own_verdicts(&PlanOptions::default().with_uploaded(true));
        let untuned = explain(problem, self.caps(), &options, Choices::builtin())?;
        tuned.by = untuned.by;
        if untuned.candidates.is_empty() || problem.is_empty() {
            return Err(Error::Unsupported {
                contract: problem.contract(),
                refusals: untuned.refusals,
            });
        }
        tuned.kernels = untuned
            .candidates
            .iter()
            .map(|explained| TunedKernel {
                id: explained.candidate.specialization.id.clone(),
                engine: explained.candidate.engine,
                skeleton: explained.candidate.skeleton,
                memories: explained.candidate.memories,
                estimate: explained.estimate,
                seconds: None,
                turns: 0,
                failure: None,
            })
            .collect();

        let mut stage = Stage::new(self, problem);
        let mut contenders: Vec<Contender> = Vec::new();
        let mut best = f64::INFINITY;
        let share = end.saturating_duration_since(Instant::now());
        let first_end = Instant::now() + share.mul_f64(FIRST_RUNS);
        for (index, candidate) in in_order(untuned.candidates) {
            // The first one runs as long as there is any time at all.
            if Instant::now() >= if index == 0 { end } else { first_end } {
                break;
            }
            let once = || -> Result<(Prepared, f64, bool)> {
                let prepared = stage.prepare(candidate)?;
                // The first pass only warms caches, and compiles.
                timer.run(1, |pass| prepared.encode(pass))?;
                let mut first = timer.run(1, |pass| prepared.encode(pass))?;
                if first < HOPELESS * best {
                    first = first.min(timer.run(1, |pass| prepared.encode(pass))?);
                }
                let first = first.max(1e-9);
                Ok((prepared, first, first > SLOWER * best))
            };
            match once() {
                Ok((prepared, first, slow)) => {
                    best = best.min(first);
                    tuned.kernels[index].seconds = Some(first);
                    // The untuned choice is compared with the best, so it is measured as well as that.
                    if !slow || index == 0 {
                        let repetitions = (TURN.as_secs_f64() / first).ceil() as usize;
                        contenders.push(Contender {
                            index,
                            prepared,
                            first,
                            repetitions: repetitions.clamp(1, MOST_REPETITIONS),
                            turns: Vec::new(),
                        });
                    }
                }
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error) => tuned.kernels[index].failure = Some(error.to_string()),
            }
        }
        contenders.retain(|contender| contender.index == 0 || contender.first <= SLOWER * best);
        if self.caps().class == DeviceClass::Gpu {
            let begun = Instant::now();
            while let Some(first) = contenders.first().filter(|_| begun.elapsed() < WARM_UP) {
                timer.run(first.repetitions, |pass| first.prepared.encode(pass))?;
            }
        }
        for turn in 0..TURNS {
            // Forth and back, so that none always follows the same other.
            contenders.reverse();
            for contender in &mut contenders {
                if turn > 0 && Instant::now() >= end {
                    break;
                }
                let repetitions = contender.repetitions;
                let seconds = timer.run(repetitions, |pass| contender.prepared.encode(pass))?;
                contender.turns.push(seconds / repetitions as f64);
            }
            if Instant::now() >= end {
                break;
            }
            if turn > 0 {
                let least = contenders.iter().map(Contender::seconds);
                let least = least.fold(f64::INFINITY, f64::min);
                note(&contenders, tuned);
                contenders
                    .retain(|contender| contender.index == 0 || contender.best() <= BEHIND * least);
            }
        }
        note(&contenders, tuned);
        Ok(())
    }

    /// The choices that follow from measured problems.
    fn choices_of(&self, problems: &[TunedProblem]) -> Choices {
        let mut choices = Choices::none();
        let mut groups: Vec<((String, ShapeClass), Vec<&TunedProblem>)> = Vec::new();
        for tuned in problems.iter().filter(|tuned| tuned.fastest().is_some()) {
            let Some(class) = ShapeClass::of(&tuned.problem) else {
                continue;
            };
            let key = (tuned.problem.contract(), class);
            match groups.iter_mut().find(|(other, _)| *other == key) {
                Some((_, group)) => group.push(tuned),
                None => groups.push((key, vec![tuned])),
            }
        }
        for (_, group) in &groups {
            choices.insert(self.caps(), &group[0].problem, figures(group));
        }
        choices
    }
}

/// Products of a problem.
const fn work(problem: &Problem) -> u128 {
    let Problem { m, n, k, batch, .. } = problem;
    (*m as u128)
        .saturating_mul(*n as u128)
        .saturating_mul(*k as u128)
        .saturating_mul(batch.count as u128)
}

/// Candidates with their places, in the order in which they are first run: the first of each engine and skeleton, then the
/// others.
fn in_order(candidates: Vec<Explained>) -> Vec<(usize, Candidate)> {
    let mut kinds = Vec::new();
    let mut firsts = Vec::new();
    let mut others = Vec::new();
    for (index, Explained { candidate, .. }) in candidates.into_iter().enumerate() {
        let kind = (candidate.engine, candidate.skeleton, candidate.memories);
        if kinds.contains(&kind) {
            others.push((index, candidate));
        } else {
            kinds.push(kind);
            firsts.push((index, candidate));
        }
    }
    firsts.append(&mut others);
    firsts
}

/// Writes down what contenders took so far.
fn note(contenders: &[Contender], tuned: &mut TunedProblem) {
    for contender in contenders {
        let kernel = &mut tuned.kernels[contender.index];
        kernel.seconds = Some(contender.seconds());
        kernel.turns = contender.turns.len();
    }
}

/// The figures of problems of one class: geometric means over all of them, of the kernels measured in all. Shapes of other
/// sizes so count the same.
fn figures(group: &[&TunedProblem]) -> Vec<Figure> {
    let seconds = |tuned: &TunedProblem, id: &str| {
        let kernel = tuned.kernels.iter().find(|kernel| kernel.id == id)?;
        kernel.seconds
    };
    let times = group[0].kernels.iter().filter_map(|kernel| {
        let logarithms: Option<f64> = group
            .iter()
            .map(|tuned| seconds(tuned, &kernel.id).map(f64::ln))
            .sum();
        let figure = Figure {
            id: kernel.id.clone(),
            seconds: rounded((logarithms? / group.len() as f64).exp()),
        };
        Some(((kernel.engine, kernel.skeleton, kernel.memories), figure))
    });
    fastest_of_each_kind(times.collect())
}

/// How a kernel multiplies, shares the work out, and what it reads the weights from.
type Kind = (Engine, Skeleton, Memories);

/// Of some kernels' times, what a choice keeps: the fastest of each kind, the fastest first. So a plan that
/// may only take one of these finds the fastest of its kind.
fn fastest_of_each_kind(mut times: Vec<(Kind, Figure)>) -> Vec<Figure> {
    times.sort_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
    let mut kinds = Vec::new();
    times.retain(|(kind, _)| {
        let keep = !kinds.contains(kind);
        kinds.push(*kind);
        keep
    });
    times.into_iter().map(|(_, figure)| figure).collect()
}

/// Four digits: more than repeat, and few enough to be read from a file as they were written.
fn rounded(seconds: f64) -> f64 {
    format!("{seconds:.3e}").parse().unwrap_or(seconds)
}

/// Made-up operands of a problem on the device, in the layouts that kernels ask for.
struct Stage<'a> {
    context: &'a Context,
    problem: &'a Problem,
    activations: HashMap<DeviceLayout, DeviceMatrix>,
    weights: HashMap<DeviceLayout, DeviceMatrix>,
}

impl<'a> Stage<'a> {
    fn new(context: &'a Context, problem: &'a Problem) -> Self {
        Self {
            context,
            problem,
            activations: HashMap::new(),
            weights: HashMap::new(),
        }
    }

    fn prepare(&mut self, candidate: Candidate) -> Result<Prepared> {
        let Self {
            context, problem, ..
        } = *self;
        let plan = plan_of(problem, context.caps(), candidate)?;
        let activation = made_up(
            context,
            &mut self.activations,
            problem.activation,
            (problem.activation_rows(), problem.k),
            plan.activation_layout(),
        )?;
        let weight = made_up(
            context,
            &mut self.weights,
            problem.weight,
            (problem.weight_rows(), problem.k),
            plan.weight_layout(),
        )?;
        let output = context.output(problem.output, problem.output_rows(), problem.n)?;
        let operands = Operands {
            activation: &activation,
            weight: &weight,
            output: &output,
        };
        let Some(experts) = problem.experts else {
            return context.prepare(&plan, operands);
        };
        // As many rows for each, as far as they go round.
        let offsets = context.expert_offsets(experts)?;
        let begin = |expert: usize| (expert as u128 * problem.m as u128 / experts as u128) as u32;
        let begins: Vec<u32> = (0..=experts).map(begin).collect();
        context.write_expert_offsets(&offsets, &begins)?;
        context.prepare_experts(&plan, operands, &offsets, &Epilogue::default())
    }
}

/// A matrix of random codes under moderate scales.
fn made_up(
    context: &Context,
    matrices: &mut HashMap<DeviceLayout, DeviceMatrix>,
    format: MatrixFormat,
    (rows, columns): (usize, usize),
    layout: DeviceLayout,
) -> Result<DeviceMatrix> {
    if let Some(matrix) = matrices.get(&layout) {
        return Ok(matrix.clone());
    }
    let matrix = context.allocate(format, rows, columns, &layout)?;
    let codes = random_words(format.element());
    for chunk in &matrix.chunks {
        let side = side_words(&format, chunk);
        if let Some(buffer) = chunk.buffer() {
            let mut offset = chunk.codes.start;
            while offset < chunk.codes.end {
                let words = codes.len().min(((chunk.codes.end - offset) / 4) as usize);
                context.write(buffer, offset, &codes[..words])?;
                offset += 4 * words as u64;
            }
        } else {
            let words = codes.iter().copied().cycle();
            let words: Vec<u32> = words.take(chunk.sections.codes_words).collect();
            context.write_codes(chunk, &words)?;
        }
        if let Some(side) = side {
            context.write_side(chunk, &side)?;
        }
    }
    matrices.insert(layout, matrix.clone());
    Ok(matrix)
}

/// A mebibyte of an element's codes, to be repeated.
fn random_words(element: ElementFormat) -> Vec<u32> {
    // Floats in 0.5 .. 1, or of 16 bits about there; any bits are codes.
    let (kept, set) = match element {
        ElementFormat::Float(FloatFormat::F32) => (0x007f_ffff, 0x3f00_0000),
        ElementFormat::Float(FloatFormat::F16) => (0x03ff_03ff, 0x3800_3800),
        ElementFormat::Float(FloatFormat::Bf16) => (0x007f_007f, 0x3f00_3f00),
        _ => (u32::MAX, 0),
    };
    let mut state = 0x9e37_79b9_u32;
    (0..1 << 18)
        .map(|_| {
            // Xorshift: the same words on every machine.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state & kept) | set
        })
        .collect()
}

/// Scales and what else lies beside codes; `None` where there is nothing but what the matrix was made with.
fn side_words(format: &MatrixFormat, chunk: &Chunk) -> Option<Vec<u32>> {
    // About 1 as f16, 0.01 as f32, or an eighth as a power of two: nothing that overflows.
    let word = match format.scales()?.scale {
        ScaleType::E8m0 => 0x7c7c_7c7c,
        _ => 0x3c3c_3c3c,
    };
    let mut side = vec![word; chunk.sections.side_words];
    chunk.sections.store_table(format.element(), &mut side);
    Some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        let format = |name: &str| name.parse().expect("a format");
        Problem::new((4, 64, 64), format("i8rf"), format("i4g32h"))
    }

    fn tuned(seconds: &[(&str, Engine, Option<f64>)]) -> TunedProblem {
        TunedProblem {
            problem: problem(),
            kernels: seconds
                .iter()
                .map(|&(id, engine, seconds)| TunedKernel {
                    id: id.to_owned(),
                    engine,
                    skeleton: Skeleton::Tiled,
                    memories: Memories::BUFFERS,
                    estimate: 1.0,
                    seconds,
                    turns: 1,
                    failure: None,
                })
                .collect(),
            by: ChosenBy::CostModel,
            failure: None,
        }
    }

    #[test]
    fn shapes_of_a_class_count_the_same_whatever_their_size() {
        use Engine::{Bitplane, Dot4};
        let small = tuned(&[
            ("a", Dot4, Some(1e-4)),
            ("b", Dot4, Some(3e-4)),
            ("c", Bitplane, Some(9e-4)),
            ("d", Bitplane, None),
        ]);
        let large = tuned(&[
            ("a", Dot4, Some(2e-2)),
            ("b", Dot4, Some(1e-2)),
            ("c", Bitplane, Some(1e-2)),
            ("d", Bitplane, Some(1e-6)),
        ]);
        let found = figures(&[&small, &large]);
        let ids: Vec<&str> = found.iter().map(|figure| figure.id.as_str()).collect();
        // b loses by 3 and wins by 2; d was not measured in both.
        assert_eq!(ids, ["a", "c"]);
        // √(1e-4 · 2e-2)
        assert_eq!(found[0].seconds, 1.414e-3);
    }

    #[test]
    fn the_ratio_is_that_of_the_first_to_the_fastest() {
        use Engine::Dot4;
        let slower = tuned(&[
            ("a", Dot4, Some(3.0)),
            ("b", Dot4, Some(2.0)),
            ("c", Dot4, None),
        ]);
        assert_eq!(slower.untuned_ratio(), Some(1.5));
        assert_eq!(slower.fastest().map(|kernel| kernel.id.as_str()), Some("b"));
        assert_eq!(slower.not_reached(), 1);
        let untouched = tuned(&[("a", Dot4, None)]);
        assert_eq!(untouched.untuned_ratio(), None);
        assert!(untouched.is_untouched());
    }
}
