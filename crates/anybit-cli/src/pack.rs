//! `anybit pack`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use anybit::formats::{PackedMatrix, Rounding, quantize_with};
use anybit_import::safetensors::PackedFileWriter;
use anybit_import::{ImportError, ModelFile, ModelWeight};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wildmatch::WildMatch;

use crate::cli::PackArguments;
use crate::error::Error;
use crate::options::{FormatChoice, Role, quantize_options};
use crate::report::{Deviation, decibels};
use crate::{codebook, interrupt, output, table};

/// Values decoded at a time to be compared.
const COMPARED: usize = 1 << 20;

pub(crate) fn run(arguments: &PackArguments) -> Result<(), Error> {
    output::check_folder(&arguments.output)?;
    // The file is written under another name first, which must not replace a device.
    if arguments.output.exists() && !arguments.output.is_file() {
        return Err(Error::OutputPath {
            path: arguments.output.clone(),
        });
    }
    codebook::register(&arguments.codebooks.codebook)?;
    let choice = FormatChoice::new(
        &arguments.weight_format,
        Role::Weights,
        (&arguments.scales).into(),
    )?;
    // Before there is a file to leave behind.
    let interrupted = interrupt::watch();
    let mut packing = Packing::new(arguments, choice)?;
    let weights = packing.selected()?;
    let keep = globs(&arguments.keep);

    let bar = progress_bar(weights.iter().filter_map(|weight| weight.byte_size).sum());
    for (key, value) in packing.model.metadata() {
        packing.writer.metadata(&key, &value)?;
    }
    let mut tensors = Vec::new();
    for weight in &weights {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        bar.set_message(weight.name.clone());
        tensors.push(if weight.is_matrix() && !matches(&keep, &weight.name) {
            packing.quantise(weight, &bar)?
        } else {
            packing.keep(weight)?
        });
        bar.inc(weight.byte_size.unwrap_or(0));
    }
    packing.writer.finish()?;
    bar.finish_and_clear();
    let report = Report {
        output: arguments.output.display().to_string(),
        bytes: std::fs::metadata(&arguments.output).map_or(0, |metadata| metadata.len()),
        tensors,
    };
    output::print(&if arguments.json {
        // Strings and finite numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        report.text()
    })
}

fn globs(globs: &[String]) -> Vec<WildMatch> {
    globs.iter().map(|glob| WildMatch::new(glob)).collect()
}

fn matches(globs: &[WildMatch], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

/// A bar over the bytes of the model, where stderr is a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}, {eta} left  {wide_msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// A model on its way into a file.
struct Packing<'a> {
    arguments: &'a PackArguments,
    choice: FormatChoice,
    model: ModelFile,
    writer: PackedFileWriter,
    /// Weights that were quantised so far.
    quantised: u32,
    /// Notes that were printed.
    notes: HashSet<String>,
}

impl<'a> Packing<'a> {
    fn new(arguments: &'a PackArguments, choice: FormatChoice) -> Result<Self, Error> {
        let model = ModelFile::open(&arguments.model)
            .map_err(|source| Error::import(&arguments.model, source))?;
        Ok(Self {
            writer: PackedFileWriter::create(&arguments.output)?,
            arguments,
            choice,
            model,
            quantised: 0,
            notes: HashSet::new(),
        })
    }

    /// The tensors that are to be written.
    fn selected(&self) -> Result<Vec<ModelWeight>, Error> {
        let include = globs(&self.arguments.include);
        let exclude = globs(&self.arguments.exclude);
        let weights: Vec<ModelWeight> = self
            .model
            .weights()
            .into_iter()
            .filter(|weight| include.is_empty() || matches(&include, &weight.name))
            .filter(|weight| !matches(&exclude, &weight.name))
            .collect();
        if weights.is_empty() {
            return Err(Error::Usage(format!(
                "{}: there is no tensor to write; --include and --exclude leave none of {}",
                self.arguments.model.display(),
                self.model.weights().len()
            )));
        }
        Ok(weights)
    }

    fn imported<T>(&self, result: Result<T, ImportError>) -> Result<T, Error> {
        result.map_err(|source| Error::import(&self.arguments.model, source))
    }

    /// Quantises a weight and writes it.
    fn quantise(&mut self, weight: &ModelWeight, bar: &ProgressBar) -> Result<Line, Error> {
        let values = self.imported(self.model.values(&weight.name))?;
        // There are as many values, so that the shape fits a usize.
        let columns = weight.shape.last().map_or(1, |&columns| columns as usize);
        let rows = values.len() / columns.max(1);
        let (format, note) = self.choice.fitted(columns);
        if let Some(note) = note {
            if self.notes.insert(note.clone()) {
                bar.suspend(|| output::note(&note));
            }
        }
        let [mut options] = quantize_options(&self.arguments.rounding, [(&self.choice, format)])?;
        if let Rounding::Stochastic { seed } = options.rounding {
            options.rounding = Rounding::Stochastic {
                seed: seed.wrapping_add(self.quantised),
            };
        }
        self.quantised += 1;
        // What is stored in this very format stays as it is, code for code.
        let stored = if weight.matrix_format == Some(format) {
            self.model.matrix(&weight.name).ok()
        } else {
            None
        };
        let matrix = match stored {
            Some(matrix) => matrix,
            None => quantize_with(&values, rows, columns, format, &options).map_err(|source| {
                Error::Tensor {
                    tensor: weight.name.clone(),
                    source,
                }
            })?,
        };
        self.writer.matrix(&weight.name, &matrix)?;
        Ok(Line {
            error: Some(deviation(&values, &matrix)),
            ..Line::of_matrix(weight, &matrix)
        })
    }

    /// Writes a tensor as it is stored.
    fn keep(&mut self, weight: &ModelWeight) -> Result<Line, Error> {
        let has_codes = weight
            .matrix_format
            .is_some_and(|format| format.element().has_codes());
        if weight.is_matrix() && has_codes {
            // Columns that are stored in another order keep their values alone.
            if let Ok(matrix) = self.model.matrix(&weight.name) {
                self.writer.matrix(&weight.name, &matrix)?;
                return Ok(Line::of_matrix(weight, &matrix));
            }
        }
        let tensor = self.imported(self.model.plain(&weight.name))?;
        self.writer
            .tensor(&weight.name, tensor.dtype, &tensor.shape, &tensor.bytes)?;
        Ok(Line {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
            stored_as: weight.stored_as.clone(),
            format: tensor.dtype.name().to_lowercase(),
            bits_per_element: f64::from(tensor.dtype.bits()),
            error: None,
        })
    }
}

/// The error of a matrix, some rows at a time, so that no second copy of it is in memory.
fn deviation(values: &[f32], matrix: &PackedMatrix) -> Deviation {
    let step = (COMPARED / matrix.columns().max(1)).max(1);
    let decoded = (0..matrix.rows()).step_by(step).flat_map(|start| {
        let end = matrix.rows().min(start + step);
        // The range lies in the matrix.
        matrix
            .row_range(start..end)
            .map(|part| part.decode())
            .unwrap_or_default()
    });
    Deviation::between(
        values.iter().copied().map(f64::from),
        decoded.map(f64::from),
    )
}

/// A tensor of the report.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    shape: Vec<u64>,
    stored_as: String,
    format: String,
    bits_per_element: f64,
    /// Of tensors that were quantised.
    error: Option<Deviation>,
}

impl Line {
    /// The line of a matrix, without its error.
    fn of_matrix(weight: &ModelWeight, matrix: &PackedMatrix) -> Self {
        Self {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
            stored_as: weight.stored_as.clone(),
            format: matrix.format().to_string(),
            bits_per_element: matrix
                .format()
                .bits_per_element(matrix.rows(), matrix.columns()),
            error: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    /// Length of the file.
    bytes: u64,
    tensors: Vec<Line>,
}

impl Report {
    fn text(&self) -> String {
        let rows: Vec<[String; 7]> = self
            .tensors
            .iter()
            .map(|line| {
                let axes: Vec<String> = line.shape.iter().map(ToString::to_string).collect();
                let (relative, sqnr) = match &line.error {
                    Some(error) => (
                        format!("{:.3e}", error.relative_rms),
                        decibels(error.sqnr_db),
                    ),
                    None => ("kept".to_owned(), String::new()),
                };
                [
                    line.name.clone(),
                    axes.join("x"),
                    line.stored_as.clone(),
                    line.format.clone(),
                    format!("{:.4}", line.bits_per_element),
                    relative,
                    sqnr,
                ]
            })
            .collect();
        let head = [
            "tensor", "shape", "from", "format", "bits", "RMS/RMS", "SQNR",
        ];
        let mut text = table::aligned(&head, &rows);
        let quantised = self
            .tensors
            .iter()
            .filter(|line| line.error.is_some())
            .count();
        let _ = writeln!(
            text,
            "\n{quantised} quantised, {} kept; {} is {:.1} MB",
            self.tensors.len() - quantised,
            self.output,
            self.bytes as f64 / 1e6
        );
        text
    }
}
