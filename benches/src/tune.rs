//! `tune`: measures every kernel for each contract and class of shapes, and keeps which were fastest.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anybit::{Choices, ChoicesWarning, Context, Problem, TuneOptions, TunedProblem, Tuning};
use anybit_formats::MatrixFormat;
use indicatif::ProgressBar;
use wildmatch::WildMatch;

use crate::cli::TuneArguments;
use crate::problem::{Precision, Shape};
use crate::report::duration;
use crate::{Error, adapters};

/// An untuned choice that takes so many times the best kernel's time is a good one.
const GOOD: f64 = 1.3;

/// Problems that are listed as the worst.
const WORST: usize = 10;

/// `anybit-benches tune`.
///
/// # Errors
///
/// [`Error::NoContract`] if nothing is to be tuned; [`Error::File`] if the choices cannot be written; those of adapters and
/// devices.
pub(crate) fn run(arguments: &TuneArguments) -> Result<(), Error> {
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => Choices::user_file().ok_or(Error::NoTuningFile)?,
    };
    let problems = problems(arguments)?;
    let adapter = adapters::find(&arguments.choice)?
        .into_iter()
        .next()
        .ok_or(Error::AdapterVanished)?;
    let context = pollster::block_on(Context::from_adapter(&adapter))?;
    let caps = context.caps();
    println!(
        "\n== {} ({})",
        caps.name,
        adapters::backend_name(caps.backend)
    );
    println!("driver:   {}", caps.driver);
    println!(
        "problems: {}, {} seconds for all of them",
        problems.len(),
        arguments.seconds
    );

    let options =
        TuneOptions::new(problems).with_time(Duration::from_secs(arguments.seconds.into()));
    let bar = ProgressBar::new(options.problems.len() as u64);
    let terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    let tuning = context.tune_blocking(&options, |tuned| {
        bar.inc(1);
        if terminal {
            bar.suspend(|| println!("{}", line(tuned)));
        } else {
            println!("{}", line(tuned));
        }
    })?;
    bar.finish_and_clear();
    println!(
        "\ntiming:   {}; medians of kernels in turn; {:.0} seconds in all",
        tuning.method,
        start.elapsed().as_secs_f64()
    );
    print_summary(&tuning);
    keep(&tuning, &context, &file)
}

/// A context that goes by the choices of this machine, if there are any. Says so, and what is wrong with them.
pub(crate) fn with_user_choices(context: Context) -> Context {
    let choices = Choices::load_user();
    warn(&choices.warnings_on(context.caps()));
    let count = choices.len_on(context.caps());
    if count > 0 {
        println!("tuned:   {count} choices of contracts and shapes for this adapter");
    }
    context.with_choices(choices)
}

fn warn(warnings: &[ChoicesWarning]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// What the arguments ask for: the problems of the bench, or of the shapes given.
fn problems(arguments: &TuneArguments) -> Result<Vec<Problem>, Error> {
    let mut all: Vec<Problem> = Vec::new();
    let mut add = |shape: Shape, precisions: Vec<Precision>| {
        for precision in precisions {
            let Shape { m, n, k } = shape;
            let problem = Problem::new((m, n, k), precision.activation, precision.weight)
                .with_output(precision.output);
            if !all.contains(&problem) {
                all.push(problem);
            }
        }
    };
    if arguments.shapes.is_empty() {
        let stored = MatrixFormat::named("q4_1").unwrap_or(MatrixFormat::F32);
        let head = MatrixFormat::named("q8_0").unwrap_or(MatrixFormat::F32);
        // The matrices of a block of SmolLM2-135M, and its head.
        for m in [1, 8, 128] {
            for (n, k) in [(576, 576), (192, 576), (1536, 576), (576, 1536)] {
                add(Shape::new(m, n, k), Precision::of_block(stored));
            }
            add(Shape::new(m, 49152, 576), Precision::of_head(head));
        }
        add(Shape::new(1024, 1024, 1024), Precision::of_square()?);
        add(Shape::new(1, 4096, 4096), Precision::all(4096)?);
    } else {
        for &shape in &arguments.shapes {
            add(shape, Precision::all(shape.k)?);
        }
    }
    let Some(glob) = &arguments.contract else {
        return Ok(all);
    };
    let mut contracts: Vec<String> = all.iter().map(Problem::contract).collect();
    let pattern = WildMatch::new(glob);
    all.retain(|problem| pattern.matches(&problem.contract()));
    if all.is_empty() {
        contracts.sort();
        contracts.dedup();
        return Err(Error::NoContract {
            glob: glob.clone(),
            contracts,
        });
    }
    Ok(all)
}

fn shape(problem: &Problem) -> Shape {
    Shape::new(problem.m, problem.n, problem.k)
}

fn implementation(id: &str) -> &str {
    id.split_once("__")
        .map_or(id, |(_, implementation)| implementation)
}

/// One problem in a line.
fn line(tuned: &TunedProblem) -> String {
    let name = format!("{} {}", tuned.problem.contract(), shape(&tuned.problem));
    if let Some(failure) = &tuned.failure {
        return format!("{name}: FAILED: {failure}");
    }
    let (Some(fastest), Some(ratio)) = (tuned.fastest(), tuned.untuned_ratio()) else {
        return format!("{name}: not reached");
    };
    let failed = tuned
        .kernels
        .iter()
        .filter(|kernel| kernel.failure.is_some())
        .count();
    let mut text = format!(
        "{name}: {} {}; untuned {} {ratio:.2}x; {} kernels",
        implementation(&fastest.id),
        fastest.seconds.map_or_else(String::new, duration),
        tuned
            .kernels
            .first()
            .map_or("", |kernel| implementation(&kernel.id)),
        tuned.kernels.len(),
    );
    if tuned.not_reached() > 0 {
        text += &format!(", {} not reached", tuned.not_reached());
    }
    if failed > 0 {
        text += &format!(", {failed} FAILED");
    }
    text
}

fn print_summary(tuning: &Tuning) {
    let problems = &tuning.problems;
    let mut ratios: Vec<(f64, &TunedProblem)> = problems
        .iter()
        .filter_map(|tuned| Some((tuned.untuned_ratio()?, tuned)))
        .collect();
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    let good = ratios.iter().filter(|(ratio, _)| *ratio <= GOOD).count();
    if !ratios.is_empty() {
        println!(
            "the untuned choice takes at most {GOOD} times the fastest kernel's time for {good} of {} problems \
             ({:.1} %); median {:.2}, worst {:.2}",
            ratios.len(),
            100.0 * good as f64 / ratios.len() as f64,
            ratios[ratios.len() / 2].0,
            ratios[0].0,
        );
    }
    let worst: Vec<_> = ratios
        .iter()
        .filter(|(ratio, _)| *ratio > GOOD)
        .take(WORST)
        .collect();
    if !worst.is_empty() {
        println!("the worst:");
    }
    for (ratio, tuned) in worst {
        let (Some(first), Some(fastest)) = (tuned.kernels.first(), tuned.fastest()) else {
            continue;
        };
        println!(
            "  {ratio:>5.2}x  {} {}: {} ({}), the fastest is {}",
            tuned.problem.contract(),
            shape(&tuned.problem),
            implementation(&first.id),
            tuned.by,
            implementation(&fastest.id),
        );
    }
    let untouched: Vec<&TunedProblem> = problems
        .iter()
        .filter(|tuned| tuned.is_untouched())
        .collect();
    let kernels: usize = problems.iter().map(TunedProblem::not_reached).sum();
    if kernels > 0 {
        println!(
            "not reached in time: {kernels} kernels; nothing of {} problems (--seconds N gives more time)",
            untouched.len()
        );
    }
    for tuned in untouched.iter().take(WORST) {
        println!("  {} {}", tuned.problem.contract(), shape(&tuned.problem));
    }
    for tuned in problems {
        for kernel in &tuned.kernels {
            if let Some(failure) = &kernel.failure {
                println!(
                    "FAILED: {} on {}: {failure}",
                    kernel.id,
                    shape(&tuned.problem)
                );
            }
        }
    }
}

/// Adds what was found to the file.
fn keep(tuning: &Tuning, context: &Context, file: &Path) -> Result<(), Error> {
    let failed = |action| {
        move |source| Error::File {
            action,
            path: file.to_owned(),
            source,
        }
    };
    let mut all = Choices::none();
    if file.exists() {
        let old = Choices::load(file);
        warn(old.warnings());
        if old.is_empty() && !old.warnings().is_empty() {
            // It may be something else of the user's.
            let aside = beside(file, ".old");
            fs::rename(file, &aside).map_err(failed("move"))?;
            println!("moved:    {} to {}", file.display(), aside.display());
        }
        all.merge(old);
    }
    all.merge(tuning.choices.clone());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    }
    // Readers see the old file or the new one.
    let written = beside(file, &format!(".{}", std::process::id()));
    fs::write(&written, all.to_json()).map_err(failed("write"))?;
    fs::rename(&written, file).map_err(failed("write"))?;
    println!(
        "choices:  {} of this adapter, {} of this run, in {}",
        all.len_on(context.caps()),
        tuning.choices.len(),
        file.display()
    );
    Ok(())
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::AdapterChoice;

    fn arguments(contract: Option<&str>, shapes: &[Shape]) -> TuneArguments {
        TuneArguments {
            contract: contract.map(str::to_owned),
            shapes: shapes.to_vec(),
            seconds: 1,
            file: None,
            choice: AdapterChoice::default(),
        }
    }

    #[test]
    fn the_problems_are_those_of_the_bench_or_of_the_shapes() {
        let all = problems(&arguments(None, &[])).expect("problems");
        for (shape, contract) in [
            (Shape::new(8, 1536, 576), "gemm_i8rf_u4g32hm_f32"),
            (Shape::new(1024, 1024, 1024), "gemm_b1_b1_i32"),
            (Shape::new(1, 4096, 4096), "gemv_f32_nf4g32h_f32"),
        ] {
            let found = all
                .iter()
                .any(|problem| super::shape(problem) == shape && problem.contract() == contract);
            assert!(found, "{contract} {shape}");
        }
        let some = problems(&arguments(
            Some("gemm_i8rf_*"),
            &[Shape::new(3, 40, 64), Shape::new(1, 40, 64)],
        ))
        .expect("problems");
        assert!(!some.is_empty());
        for problem in some {
            assert_eq!(problem.m, 3);
            assert!(problem.contract().starts_with("gemm_i8rf_"));
        }
        let none = problems(&arguments(Some("gemv_*"), &[Shape::new(3, 40, 64)]));
        assert!(matches!(none, Err(Error::NoContract { .. })));
    }
}
