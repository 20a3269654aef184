//! `peers`: products of other libraries beside anybit's, on the same adapter in one run.
//!
//! A peer is a program of its own under `benches/peers`, since it brings another wgpu, or none. It makes its operands,
//! checks its product against f64 arithmetic, times it, and writes a JSON object a line, which [`Line`] describes.
//! Ours are rows of `bench`, in a process of its own too, because a Vulkan loader reads only once which drivers it may
//! use. They count the rounding of activations to 8 bits, as the peers' times do.

mod table;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anybit::{Caps, DeviceClass, Problem};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::PeersArguments;
use crate::problem::{Precision, Shape, format_name};
use crate::report::write_json;
use crate::{Error, adapters};

/// The shapes that are run unless others are asked for: GEMM, GEMV, and the rows of a few tokens.
const SHAPES: [Shape; 3] = [
    Shape::new(1024, 1024, 1024),
    Shape::new(1, 4096, 4096),
    Shape::new(8, 4096, 4096),
];

/// The precisions of ours that stand beside a peer's, as [`format_name`] has them: activations and weights.
const OWN: [(&str, &str); 6] = [
    ("f32", "f32"),
    ("f32", "q8_0"),
    ("f32", "q4_1"),
    ("f32", "nf4"),
    ("int8", "q8_0"),
    ("int8", "q4_1"),
];

/// `anybit-benches peers`.
///
/// # Errors
///
/// [`Error::NoPeer`] if no peer gave a time; [`Error::Failed`] if a result of ours was wrong; others before anything
/// has run, or where the results cannot be written.
pub(crate) fn run(arguments: &PeersArguments) -> Result<(), Error> {
    let pairings = pairings(arguments)?;
    let shapes = if arguments.shapes.is_empty() {
        &SHAPES[..]
    } else {
        &arguments.shapes
    };
    let mut results = Vec::new();
    let (mut peers, mut own, mut failed) = (0, 0, 0);
    for (index, pairing) in pairings.iter().enumerate() {
        eprintln!("timing anybit beside {}", pairing.program);
        let ours = match pairing.ours(index, shapes, arguments.quick) {
            Ok(rows) => rows,
            Err(error) => {
                report(pairing.program, &error);
                continue;
            }
        };
        own += ours.len();
        failed += ours.iter().filter(|row| row.own.failed()).count();
        // What a peer wrote before it broke off is worth having.
        let (lines, error) = pairing.theirs(shapes, arguments.quick);
        if let Some(error) = error {
            report(pairing.program, &error);
        }
        peers += lines.iter().filter(|line| line.time().is_some()).count();
        let adapter = match ours.first() {
            Some(row) => (row.own.adapter.as_str(), row.own.backend.as_str()),
            None => (pairing.adapter.as_str(), pairing.backend),
        };
        table::print(adapter, &ours, &lines);
        for row in &ours {
            results.push(row.json.clone());
        }
        for line in &lines {
            results.push(line.row(adapter));
        }
    }
    if let Some(path) = &arguments.json {
        write_json(&results, path)?;
        println!("\nJSON lines: {}", path.display());
    }
    if failed > 0 {
        return Err(Error::Failed { failed, rows: own });
    }
    if peers == 0 {
        return Err(Error::NoPeer);
    }
    Ok(())
}

fn report(program: &str, error: &dyn std::error::Error) {
    println!("\n{program}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        println!("  because: {error}");
        cause = error.source();
    }
}

/// How long a peer measures a product. The first two are those of [`crate::timing::Budget`].
struct Budget {
    passes: usize,
    seconds: f64,
    /// After so many seconds fewer passes must do: some products take that long once.
    patience: f64,
}

const QUICK: Budget = Budget {
    passes: 3,
    seconds: 0.1,
    patience: 15.0,
};
const FULL: Budget = Budget {
    passes: 7,
    seconds: 1.0,
    patience: 60.0,
};

/// A peer, and the adapter that it shares with us.
struct Pairing {
    program: &'static str,
    /// What starts it, without the flags of every peer.
    command: Vec<OsString>,
    adapter: String,
    backend: &'static str,
    software: bool,
    /// The manifest of the only Vulkan driver for both, instead of those of the machine.
    driver: Option<PathBuf>,
}

/// Which peers run on which adapter.
fn pairings(arguments: &PeersArguments) -> Result<Vec<Pairing>, Error> {
    let caps = adapters::find(&arguments.choice)?
        .first()
        .map(Caps::of_adapter)
        .ok_or(Error::AdapterVanished)?;
    let software = caps.class == DeviceClass::Software;
    let backend = adapters::backend_name(caps.backend);
    let mut pairings = Vec::new();
    if let (Some(python), Some(script)) = (&arguments.onnxruntime, &arguments.onnxruntime_script) {
        let command = vec![python.into(), script.into()];
        // Dawn refuses lavapipe, but not SwiftShader; of other adapters it takes the one that it likes best.
        match (software, &arguments.swiftshader) {
            (true, Some(manifest)) => pairings.push(Pairing {
                program: "onnxruntime",
                command,
                adapter: "SwiftShader".to_owned(),
                backend: "vulkan",
                software: true,
                driver: Some(manifest.clone()),
            }),
            (true, None) => println!(
                "onnxruntime: left out: of the software adapters it takes SwiftShader alone, which is not here"
            ),
            (false, _) => {
                println!(
                    "onnxruntime: on the adapter that Dawn prefers; it cannot be told another"
                );
                pairings.push(Pairing {
                    program: "onnxruntime",
                    command,
                    adapter: caps.name.clone(),
                    backend,
                    software: false,
                    driver: None,
                });
            }
        }
    }
    if let Some(program) = &arguments.web_rwkv {
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(["--adapter".into(), caps.name.clone().into()]);
        command.extend(["--backend".into(), backend.into()]);
        pairings.push(Pairing {
            program: "web-rwkv",
            command,
            adapter: caps.name,
            backend,
            software,
            driver: None,
        });
    }
    Ok(pairings)
}

impl Pairing {
    /// A program that sees only the drivers of this pairing.
    fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(manifest) = &self.driver {
            // The second is the first's older name; loaders know one or both.
            command.env("VK_DRIVER_FILES", manifest);
            command.env("VK_ICD_FILENAMES", manifest);
        }
        command
    }

    /// Rows of anybit.
    fn ours(&self, index: usize, shapes: &[Shape], quick: bool) -> Result<Vec<OwnRow>, Error> {
        let own = env::current_exe().map_err(|source| Error::Start {
            program: "anybit-benches".into(),
            source,
        })?;
        let file = env::temp_dir().join(format!("anybit-{}-{index}.jsonl", std::process::id()));
        let mut command = self.program(&own);
        command
            .args(["bench", "--quantize", "--backend", self.backend])
            .args(["--adapter", &self.adapter])
            .args(["--shapes", &joined(shapes)])
            .args(["--contract", &contracts(shapes)?.join(",")])
            .arg("--json")
            .arg(&file)
            .stdout(Stdio::null());
        if quick {
            command.arg("--quick");
        }
        let status = command.status();
        let text = fs::read_to_string(&file);
        // A file that stays only takes up space.
        let _ = fs::remove_file(&file);
        let status = status.map_err(|source| Error::Start {
            program: own,
            source,
        })?;
        // Rows that failed their check end it with an error, and are in the file.
        let text = text.map_err(|_| self.ended(status))?;
        text.lines().map(|line| self.parsed(line)).collect()
    }

    /// What the peer wrote, and why it broke off.
    fn theirs(&self, shapes: &[Shape], quick: bool) -> (Vec<Line>, Option<Error>) {
        let mut lines = Vec::new();
        let result = self.read(shapes, quick, &mut lines);
        (lines, result.err())
    }

    fn read(&self, shapes: &[Shape], quick: bool, lines: &mut Vec<Line>) -> Result<(), Error> {
        let [program, first @ ..] = &self.command[..] else {
            return Ok(());
        };
        let budget = if quick { &QUICK } else { &FULL };
        let mut command = self.program(program);
        command
            .args(first)
            .args(["--shapes", &joined(shapes)])
            .args(["--passes", &budget.passes.to_string()])
            .args(["--seconds", &budget.seconds.to_string()])
            .args(["--patience", &budget.patience.to_string()])
            .stdout(Stdio::piped());
        if self.software {
            command.arg("--software");
        }
        let failed = |source| Error::Start {
            program: program.into(),
            source,
        };
        let mut child = command.spawn().map_err(failed)?;
        if let Some(output) = child.stdout.take() {
            for text in BufReader::new(output).lines() {
                let line: Line = self.parsed(&text.map_err(failed)?)?;
                eprintln!("  {} {}", line.shape(), line.kernel);
                lines.push(line);
            }
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(self.ended(status))
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::Ended {
            program: self.program.to_owned(),
            status,
        }
    }

    fn parsed<T: for<'a> Deserialize<'a>>(&self, line: &str) -> Result<T, Error> {
        serde_json::from_str(line).map_err(|source| Error::Line {
            program: self.program.to_owned(),
            line: line.to_owned(),
            source,
        })
    }
}

/// The contracts of the precisions that stand beside a peer's.
fn contracts(shapes: &[Shape]) -> Result<Vec<String>, Error> {
    let mut contracts = Vec::new();
    for shape in shapes {
        for precision in Precision::all(shape.k)? {
            let formats = (
                format_name(&precision.activation),
                format_name(&precision.weight),
            );
            let sizes = (shape.m, shape.n, shape.k);
            let contract = Problem::new(sizes, precision.activation, precision.weight)
                .with_output(precision.output)
                .contract();
            if OWN.contains(&formats) && !contracts.contains(&contract) {
                contracts.push(contract);
            }
        }
    }
    Ok(contracts)
}

fn joined(shapes: &[Shape]) -> String {
    let shapes: Vec<String> = shapes.iter().map(Shape::to_string).collect();
    shapes.join(",")
}

/// What a product took, wall clock and CPU; the latter only where shaders run on the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Time {
    seconds: f64,
    cpu_seconds: Option<f64>,
}

impl Time {
    /// By what times are compared: CPU time repeats on a busy machine, where wall clock does not.
    fn cost(self) -> f64 {
        self.cpu_seconds.unwrap_or(self.seconds)
    }
}

/// A row of `bench`, as it stands in its JSON.
#[derive(Debug)]
struct OwnRow {
    json: Value,
    own: Own,
}

impl<'a> Deserialize<'a> for OwnRow {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let own = Own::deserialize(&json).map_err(serde::de::Error::custom)?;
        Ok(Self { json, own })
    }
}

/// What is read from it.
#[derive(Debug, Deserialize)]
struct Own {
    adapter: String,
    backend: String,
    activation: String,
    weight: String,
    activation_bits: u32,
    weight_bits: u32,
    m: usize,
    n: usize,
    k: usize,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
}

impl Own {
    fn shape(&self) -> Shape {
        Shape::new(self.m, self.n, self.k)
    }

    /// What failed its check has not been timed.
    fn failed(&self) -> bool {
        self.seconds.is_none()
    }

    fn time(&self) -> Option<Time> {
        Some(Time {
            seconds: self.seconds?,
            cpu_seconds: self.cpu_seconds,
        })
    }

    /// `W4A8 q4_1`.
    fn label(&self) -> String {
        let Self {
            weight_bits,
            activation_bits,
            weight,
            ..
        } = self;
        format!("W{weight_bits}A{activation_bits} {weight}")
    }
}

/// What a peer writes of one product.
#[derive(Debug, Deserialize)]
struct Line {
    /// Name and version.
    peer: String,
    /// What it calls the product.
    kernel: String,
    activation: String,
    weight: String,
    activation_bits: u32,
    weight_bits: u32,
    m: usize,
    n: usize,
    k: usize,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    /// Largest difference from an f64 product of the rounded weights, against its largest value.
    error: Option<f64>,
    /// What that may be.
    bound: f64,
    /// Why there are no figures.
    failure: Option<String>,
}

impl Line {
    fn shape(&self) -> Shape {
        Shape::new(self.m, self.n, self.k)
    }

    /// What is wrong with the result, if something is.
    fn fault(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        match self.error {
            Some(error) if error <= self.bound => None,
            Some(error) => Some(format!("off by {error:.1e}, more than {:.0e}", self.bound)),
            None => Some("the result holds values that are not finite".to_owned()),
        }
    }

    /// Only of a right result.
    fn time(&self) -> Option<Time> {
        if self.fault().is_some() {
            return None;
        }
        Some(Time {
            seconds: self.seconds?,
            cpu_seconds: self.cpu_seconds,
        })
    }

    /// As a row of the JSON: the keys of ours, and `peer`.
    fn row(&self, (adapter, backend): (&str, &str)) -> Value {
        let time = self.time();
        let gops = time.map(|time| self.shape().operations() / time.seconds / 1e9);
        serde_json::json!({
            "peer": self.peer,
            "adapter": adapter,
            "backend": backend,
            "contract": null,
            "kernel": self.kernel,
            "activation": self.activation,
            "weight": self.weight,
            "activation_bits": self.activation_bits,
            "weight_bits": self.weight_bits,
            "m": self.m,
            "n": self.n,
            "k": self.k,
            "source": "synthetic",
            "checked": self.fault().unwrap_or_else(|| match self.error {
                Some(error) => format!("off by {error:.1e}"),
                None => String::new(),
            }),
            "seconds": time.map(|time| time.seconds),
            "cpu_seconds": time.and_then(|time| time.cpu_seconds),
            "gops": gops,
            "gbps": null,
            "ratio_f32": null,
            "ceiling": null,
            "arithmetic_gops": null,
            "load_gops": null,
            "bound": null,
            "roof_fraction": null,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(super) const LINE: &str = r#"{"peer": "p 1", "kernel": "mat", "activation": "f32", "weight": "int8",
        "activation_bits": 32, "weight_bits": 8, "m": 8, "n": 64, "k": 64, "seconds": 0.5, "cpu_seconds": 1.0,
        "error": 1e-6, "bound": 1e-4}"#;

    pub(super) fn line(changes: &[(&str, Value)]) -> Line {
        let mut value: Value = serde_json::from_str(LINE).expect("an object");
        for (key, change) in changes {
            value[*key] = change.clone();
        }
        serde_json::from_value(value).expect("a line")
    }

    pub(super) fn own(changes: &[(&str, Value)]) -> OwnRow {
        let row = crate::report::tests::row("w", 8, false, Some(0.25));
        let mut value = serde_json::to_value(row).expect("a row");
        (value["n"], value["k"]) = (64.into(), 64.into());
        for (key, change) in changes {
            value[*key] = change.clone();
        }
        serde_json::from_value(value).expect("a row of ours")
    }

    #[test]
    fn what_is_wrong_has_no_time() {
        assert!(line(&[]).time().is_some());
        for (key, value) in [
            ("error", 1e-3.into()),
            // What is not finite cannot be written.
            ("error", Value::Null),
            ("failure", "no adapter".into()),
            ("seconds", Value::Null),
        ] {
            let line = line(&[(key, value)]);
            assert_eq!(line.time(), None, "{line:?}");
            assert!(line.row(("a", "vulkan"))["gops"].is_null());
        }
    }

    #[test]
    fn rows_of_peers_have_our_keys_and_their_name() {
        let ours = own(&[]);
        let keys = |value: &Value| -> Vec<String> {
            let mut keys: Vec<String> = value
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect();
            keys.sort();
            keys
        };
        let mut expected = keys(&ours.json);
        expected.push("peer".to_owned());
        expected.sort();
        let row = line(&[]).row(("a", "vulkan"));
        assert_eq!(keys(&row), expected);
        assert_eq!(row["gops"], 2.0 * 8.0 * 64.0 * 64.0 / 0.5 / 1e9);
    }

    #[test]
    fn a_row_of_ours_is_handed_on_as_it_is() {
        let ours = own(&[]);
        assert_eq!(ours.json["kernel"], "k");
        assert_eq!(ours.own.shape(), Shape::new(8, 64, 64));
        assert!(own(&[("seconds", Value::Null)]).own.failed());
    }

    #[test]
    fn the_contracts_of_every_precision_are_asked_for() {
        let contracts = contracts(&SHAPES).expect("formats");
        // GEMM, and GEMV for a row; eight rows are a GEMM.
        assert_eq!(contracts.len(), 2 * OWN.len(), "{contracts:?}");
        assert!(contracts.contains(&"gemv_i8rf_u4g32hm_f32".to_owned()));
    }
}
