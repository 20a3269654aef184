//! Rows of results: on the terminal and as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anybit::{Caps, DeviceClass, TimingMethod};
use serde::{Serialize, Serializer};

use crate::cli::BenchArguments;
use crate::correctness::Verdict;
use crate::explain::Explained;
use crate::probe::Ceilings;
use crate::problem::Shape;
use crate::roofline::{Bound, Roof};
use crate::{Error, adapters};

/// One kernel on one problem. The fields that are serialised are the JSON keys, in this order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) adapter: String,
    pub(crate) backend: &'static str,
    pub(crate) contract: String,
    pub(crate) kernel: String,
    pub(crate) activation: &'static str,
    pub(crate) weight: &'static str,
    pub(crate) activation_bits: u32,
    pub(crate) weight_bits: u32,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Only of mixtures of experts: how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) experts: Option<usize>,
    pub(crate) source: &'static str,
    #[serde(serialize_with = "as_text")]
    pub(crate) checked: Verdict,
    pub(crate) seconds: Option<f64>,
    pub(crate) cpu_seconds: Option<f64>,
    /// 2·M·N·K / seconds / 10⁹.
    pub(crate) gops: Option<f64>,
    /// Operands and output, each once, / seconds / 10⁹.
    pub(crate) gbps: Option<f64>,
    /// Speed against the best f32 row of the same shape on the same adapter.
    pub(crate) ratio_f32: Option<f64>,
    /// Fraction of what the adapter's arithmetic allows for the kernel's engine.
    pub(crate) ceiling: Option<f64>,
    /// GOP/s that the adapter's arithmetic allows for the engine; on software adapters those of a core, as the next two.
    pub(crate) arithmetic_gops: Option<f64>,
    /// GOP/s that its loads allow, of the bytes that the row must load at least (see the module `roofline`).
    pub(crate) load_gops: Option<f64>,
    /// Which of the two is lower.
    pub(crate) bound: Option<Bound>,
    /// Fraction of the lower one that is reached.
    pub(crate) roof_fraction: Option<f64>,
    /// Only with `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explained>,
    #[serde(skip)]
    pub(crate) roof: Option<Roof>,
    #[serde(skip)]
    pub(crate) engine: &'static str,
    #[serde(skip)]
    pub(crate) workload: String,
    #[serde(skip)]
    pub(crate) precision: String,
    /// f32 activations and f32 weights.
    #[serde(skip)]
    pub(crate) baseline: bool,
    /// Whether the user asked for it; a baseline may run for the sake of ratios alone.
    #[serde(skip)]
    pub(crate) selected: bool,
}

fn as_text<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(verdict)
}

impl Row {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(self.m, self.n, self.k)
    }

    /// Whether another row is of the same problem on the same adapter.
    pub(crate) fn same_problem(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.backend, row.shape());
        key(self) == key(other)
            && self.adapter == other.adapter
            && self.workload == other.workload
            && self.contract == other.contract
    }

    /// Takes the ceilings in.
    pub(crate) fn set_roof(&mut self, roof: Roof) {
        self.arithmetic_gops = roof.arithmetic;
        self.load_gops = Some(roof.loads);
        self.bound = Some(roof.bound());
        self.roof_fraction = Some(roof.fraction());
        self.roof = Some(roof);
    }

    /// The adapter, and the API under it.
    pub(crate) fn on(&self) -> String {
        format!("{} ({})", self.adapter, self.backend)
    }

    /// `W4A8 q4_1`: the precision as people say it.
    pub(crate) fn label(&self) -> String {
        if self.activation == self.weight {
            format!("{} {}", self.precision, self.weight)
        } else {
            format!("{} {} x {}", self.precision, self.activation, self.weight)
        }
    }
}

/// Fills in the ratios of the rows of one adapter.
pub(crate) fn compare(rows: &mut [Row]) {
    let baselines: Vec<(Shape, f64)> = rows
        .iter()
        .filter(|row| row.baseline)
        .filter_map(|row| Some((row.shape(), row.seconds?)))
        .collect();
    for row in rows {
        let shape = row.shape();
        let best = baselines
            .iter()
            .filter(|(other, _)| *other == shape)
            .map(|(_, seconds)| *seconds)
            .min_by(f64::total_cmp);
        row.ratio_f32 = best.zip(row.seconds).map(|(best, seconds)| best / seconds);
    }
}

/// Of each problem the row with the fastest kernel, in the order of the problems.
pub(crate) fn fastest<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<&'a Row> {
    let mut fastest: Vec<&Row> = Vec::new();
    for row in rows.filter(|row| row.seconds.is_some()) {
        let same = |other: &&mut &Row| {
            (&other.workload, &other.contract, other.shape())
                == (&row.workload, &row.contract, row.shape())
        };
        match fastest.iter_mut().find(same) {
            Some(other) if other.seconds <= row.seconds => {}
            Some(other) => *other = row,
            None => fastest.push(row),
        }
    }
    fastest
}

/// What is measured, and the ceilings.
pub(crate) fn print_header(
    caps: &Caps,
    method: TimingMethod,
    ceilings: &Ceilings,
    arguments: &BenchArguments,
) {
    println!(
        "\n== {} ({})",
        caps.name,
        adapters::backend_name(caps.backend)
    );
    println!("driver:  {}", caps.driver);
    println!("timing:  {method}; medians");
    println!(
        "input:   {}",
        match (&arguments.model, arguments.shapes.is_empty()) {
            (Some(path), true) => format!(
                "block 0 and LM head of {}; random square matrices",
                path.display()
            ),
            (None, true) => "SYNTHETIC: random matrices, no model".to_owned(),
            (_, false) => "SYNTHETIC: random matrices of the shapes asked for".to_owned(),
        }
    );
    println!(
        "kernels: {}",
        if arguments.explain {
            "the planner's choice, then all others that it could take"
        } else if arguments.quick {
            "the planner's choice"
        } else {
            "the planner's choice, then the best of every other kind"
        }
    );
    if arguments.quantize {
        println!("times:   with the quantising of the activations");
    }
    println!("ceilings:");
    for (name, unit, ceiling) in ceilings.named() {
        let per_core = ceiling
            .rate_per_core
            .map_or_else(String::new, |rate| format!("   ({rate:.1} a core)"));
        println!("  {name:<20} {:>9.1} {unit}{per_core}", ceiling.rate);
    }
    if caps.class == DeviceClass::Software {
        println!("  (a core: for each second of CPU time, which % ceil and % roof go by)");
    }
}

/// Every row.
pub(crate) fn print_table(rows: &[Row]) {
    let width = |text: &dyn Fn(&Row) -> usize, title: &str| {
        rows.iter().map(text).max().unwrap_or(0).max(title.len())
    };
    let contract = width(&|row| row.contract.len(), "contract");
    let kernel = width(&|row| row.kernel.len(), "kernel id");
    let shape = width(&|row| row.shape().to_string().len(), "shape");
    println!();
    println!(
        "{:<contract$}  {:<kernel$}  {:<shape$}  {:>9}  {:>9}  {:>8}  {:>8}  {:>7}  {:>6}  {:<5}  {:>6}  checked",
        "contract",
        "kernel id",
        "shape",
        "time",
        "CPU time",
        "GOP/s",
        "GB/s",
        "x f32",
        "% ceil",
        "bound",
        "% roof",
    );
    let mut workload = None;
    for row in rows {
        if workload != Some((&row.workload, row.shape())) {
            workload = Some((&row.workload, row.shape()));
            println!("-- {} ({}), M = {}", row.workload, row.source, row.m);
        }
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        println!(
            "{:<contract$}  {:<kernel$}  {:<shape$}  {:>9}  {:>9}  {:>8}  {:>8}  {:>7}  {:>6}  {:<5}  {:>6}  {}",
            row.contract,
            row.kernel,
            row.shape(),
            row.seconds.map_or_else(|| "-".to_owned(), duration),
            row.cpu_seconds.map_or_else(|| "-".to_owned(), duration),
            number(row.gops, 1),
            number(row.gbps, 2),
            number(row.ratio_f32, 2),
            number(row.ceiling.map(|ceiling| 100.0 * ceiling), 1),
            row.bound.map_or("-", Bound::name),
            number(row.roof_fraction.map(|fraction| 100.0 * fraction), 1),
            if row.checked.failed() {
                format!("FAILED: {}", row.checked)
            } else {
                row.checked.to_string()
            },
        );
    }
}

/// The matrices of the block, run one after the other in one precision.
#[derive(Debug, PartialEq)]
pub(crate) struct Sum {
    label: String,
    m: usize,
    matrices: usize,
    seconds: f64,
    /// Of the same matrices in f32.
    baseline: f64,
    selected: bool,
}

/// Sums over the matrices of the block, of each its fastest kernel.
pub(crate) fn block_sums(rows: &[Row]) -> Vec<Sum> {
    let block = || rows.iter().filter(|row| row.workload.starts_with("blk.0."));
    let best = |workload: &str, m, label: Option<&str>| {
        block()
            .filter(|row| row.workload == workload && row.m == m)
            .filter(|row| label.map_or(row.baseline, |label| row.label() == label))
            .filter_map(|row| row.seconds)
            .min_by(f64::total_cmp)
    };
    let mut sums: Vec<Sum> = Vec::new();
    let mut seen = Vec::new();
    for row in block() {
        let label = row.label();
        let key = (&row.workload, row.m, label.clone());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let times = best(&row.workload, row.m, Some(&label)).zip(best(&row.workload, row.m, None));
        let Some((seconds, baseline)) = times else {
            continue;
        };
        match sums
            .iter_mut()
            .find(|sum| sum.label == label && sum.m == row.m)
        {
            Some(sum) => {
                sum.matrices += 1;
                sum.seconds += seconds;
                sum.baseline += baseline;
            }
            None => sums.push(Sum {
                label,
                m: row.m,
                matrices: 1,
                seconds,
                baseline,
                selected: row.selected,
            }),
        }
    }
    sums
}

/// What the rows come to.
pub(crate) fn print_summary(rows: &[Row], sums: &[Sum]) {
    let sums = || sums.iter().filter(|sum| sum.selected);
    let mut ms: Vec<usize> = sums().map(|sum| sum.m).collect();
    ms.sort_unstable();
    ms.dedup();
    for m in ms {
        println!("\nblock 0, M = {m}: all its matrices, one after the other, against f32");
        for sum in sums().filter(|sum| sum.m == m) {
            println!(
                "  {:<24} {:>2} matrices {:>9}  {:>6.2}x",
                sum.label,
                sum.matrices,
                duration(sum.seconds),
                sum.baseline / sum.seconds
            );
        }
    }
    let mut workload = None;
    let others = rows
        .iter()
        .filter(|row| !row.workload.starts_with("blk.0."));
    for row in fastest(others) {
        let (Some(gops), Some(ratio)) = (row.gops, row.ratio_f32) else {
            continue;
        };
        if workload != Some((&row.workload, row.shape())) {
            workload = Some((&row.workload, row.shape()));
            if row.source == "model" {
                println!("\n{}, M = {}: against f32", row.workload, row.m);
            } else {
                println!("\n{}: against f32", row.shape());
            }
        }
        println!("  {:<24} {gops:>8.1} GOP/s  {ratio:>6.2}x", row.label());
    }
}

/// One JSON object a line.
///
/// # Errors
///
/// [`Error::File`].
pub(crate) fn write_json<T: Serialize>(rows: &[T], path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    for row in rows {
        serde_json::to_writer(&mut file, row).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
    }
    file.flush().map_err(failed)
}

pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.1} us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(workload: &str, m: usize, baseline: bool, seconds: Option<f64>) -> Row {
        let format = if baseline { "f32" } else { "int8" };
        Row {
            adapter: "a".to_owned(),
            backend: "vulkan",
            contract: format!("gemm_{format}"),
            kernel: "k".to_owned(),
            activation: format,
            weight: format,
            activation_bits: 8,
            weight_bits: 8,
            m,
            n: 2,
            k: 3,
            experts: None,
            source: if workload.starts_with("blk.0.") {
                "model"
            } else {
                "synthetic"
            },
            checked: Verdict::Bounded,
            seconds,
            cpu_seconds: None,
            gops: seconds.map(|seconds| Shape::new(m, 2, 3).operations() / seconds / 1e9),
            gbps: None,
            ratio_f32: None,
            ceiling: None,
            arithmetic_gops: None,
            load_gops: None,
            bound: None,
            roof_fraction: None,
            explain: None,
            roof: None,
            engine: "dot4",
            workload: workload.to_owned(),
            precision: "W8A8".to_owned(),
            baseline,
            selected: true,
        }
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        let mut failed = row("w", 1, false, None);
        failed.checked = Verdict::Failed("3 elements are wrong".to_owned());
        let value = serde_json::to_value(&failed).expect("a row");
        let object = value.as_object().expect("an object");
        let promised = "adapter backend contract kernel activation weight activation_bits weight_bits m n k source \
                        checked seconds cpu_seconds gops gbps ratio_f32 ceiling arithmetic_gops load_gops bound roof_fraction";
        let mut promised: Vec<&str> = promised.split_whitespace().collect();
        promised.sort_unstable();
        let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, promised);
        assert_eq!(object["checked"], "3 elements are wrong");
        assert!(object["seconds"].is_null());
        let right = serde_json::to_value(row("w", 1, false, Some(0.5))).expect("a row");
        assert_eq!(right["checked"], "bounded");
    }

    #[test]
    fn ratios_are_to_the_best_baseline_of_the_shape() {
        let mut rows = vec![
            row("blk.0.a", 1, true, Some(4.0)),
            row("blk.0.b", 1, true, Some(3.0)),
            row("blk.0.a", 1, false, Some(1.0)),
            row("blk.0.a", 8, false, Some(1.0)),
            row("blk.0.b", 1, false, None),
        ];
        compare(&mut rows);
        let ratios: Vec<Option<f64>> = rows.iter().map(|row| row.ratio_f32).collect();
        assert_eq!(ratios, [Some(0.75), Some(1.0), Some(3.0), None, None]);
    }

    #[test]
    fn sums_take_the_fastest_kernel_of_each_matrix() {
        let mut rows = vec![
            row("blk.0.a", 1, true, Some(4.0)),
            row("blk.0.a", 1, false, Some(2.0)),
            row("blk.0.a", 1, false, Some(1.0)),
            row("blk.0.b", 1, true, Some(4.0)),
            row("blk.0.b", 1, false, Some(3.0)),
            row("square", 1, false, Some(3.0)),
        ];
        rows[1].selected = false;
        let sums = block_sums(&rows);
        let int8 = sums.iter().find(|sum| sum.label == "W8A8 int8");
        assert_eq!(
            int8,
            Some(&Sum {
                label: "W8A8 int8".to_owned(),
                m: 1,
                matrices: 2,
                seconds: 4.0,
                baseline: 8.0,
                selected: false,
            })
        );
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(1.25e-5), "12.5 us");
        assert_eq!(duration(0.0123), "12.30 ms");
        assert_eq!(duration(2.0), "2.00 s");
    }
}
