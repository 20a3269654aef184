//! `anybit matmul`.

use anybit::formats::{FloatFormat, MatrixFormat, PackedMatrix, quantize_with};
use anybit::{Operands, OutputFormat, Problem};
use anybit_import::npy::{self, NpyArray};
use anybit_reference::exact;
use serde::Serialize;

use crate::cli::MatmulArguments;
use crate::error::Error;
use crate::options::{FormatChoice, Role, quantize_options};
use crate::report::Deviation;
use crate::{codebook, gpu, output};

pub(crate) fn run(arguments: &MatmulArguments) -> Result<(), Error> {
    output::check_folder(&arguments.output)?;
    codebook::register(&arguments.codebooks.codebook)?;
    let weight_choice = FormatChoice::new(
        &arguments.weight_format,
        Role::Weights,
        (&arguments.weight_scales).into(),
    )?;
    let activation_choice = FormatChoice::new(
        &arguments.activation_format,
        Role::Activations,
        (&arguments.activation_scales).into(),
    )?;

    let matrix = |path: &std::path::Path| -> Result<_, Error> {
        let failed = |source| Error::npy(path, source);
        let array = NpyArray::open(path).map_err(failed)?;
        let shape = array.matrix_shape().map_err(failed)?;
        Ok((array.values, shape))
    };
    let (activations, (m, k)) = matrix(&arguments.activations)?;
    let (weights, (n, weight_k)) = matrix(&arguments.weights)?;
    if k != weight_k {
        return Err(Error::Columns {
            activations: (m, k),
            weights: (n, weight_k),
        });
    }
    let weight_format = weight_choice.for_columns(k);
    let activation_format = activation_choice.for_columns(k);
    let [weight_options, activation_options] = quantize_options(
        &arguments.rounding,
        [
            (&weight_choice, weight_format),
            (&activation_choice, activation_format),
        ],
    )?;

    let packed_weights = quantize_with(&weights, n, k, weight_format, &weight_options)
        .map_err(|error| weight_choice.failed(error))?;
    let packed_activations =
        quantize_with(&activations, m, k, activation_format, &activation_options)
            .map_err(|error| activation_choice.failed(error))?;

    let context = gpu::context(&arguments.choice)?;
    let problem = Problem::new((m, n, k), activation_format, weight_format);
    let plan = gpu::plan(&context, &problem, arguments.engine)?;
    let weight = context.upload(&packed_weights, &plan.weight_layout())?;
    let activation = context.upload(&packed_activations, &plan.activation_layout())?;
    let product = context.output(OutputFormat::F32, m, n)?;
    let work = context.prepare(
        &plan,
        Operands {
            activation: &activation,
            weight: &weight,
            output: &product,
        },
    )?;
    let values = match context.run(&work, &product)? {
        anybit::Values::F32(values) => values,
        anybit::Values::F16(values) => values.into_iter().map(f32::from).collect(),
        anybit::Values::I32(values) => values.into_iter().map(|value| value as f32).collect(),
    };
    output::write_file(&arguments.output, |writer| {
        npy::write(writer, &[m, n], &values)
    })?;

    if !arguments.report.report && !arguments.report.json {
        return Ok(());
    }
    let given_weights = PackedMatrix::from_f32(FloatFormat::F32, n, k, &weights)?;
    let found = || values.iter().copied().map(f64::from);
    let caps = context.caps();
    let report = Report {
        m,
        n,
        k,
        weights: OperandReport::new(&packed_weights),
        activations: OperandReport::new(&packed_activations),
        kernel: plan.id().to_owned(),
        engine: plan.engine().name(),
        adapter: caps.name.clone(),
        backend: caps.backend.to_string(),
        driver: caps.driver.clone(),
        error: Deviation::between(exact::gemm_f64_of(&activations, &given_weights)?, found()),
        kernel_error: Deviation::between(
            exact::gemm_f64(&packed_activations, &packed_weights)?,
            found(),
        ),
    };
    output::print(&if arguments.report.json {
        report.json()
    } else {
        report.text()
    })
}

#[derive(Debug, Serialize)]
struct OperandReport {
    format: String,
    bits_per_element: f64,
}

impl OperandReport {
    fn new(matrix: &PackedMatrix) -> Self {
        let format: &MatrixFormat = matrix.format();
        Self {
            format: format.to_string(),
            bits_per_element: format.bits_per_element(matrix.rows(), matrix.columns()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    m: usize,
    n: usize,
    k: usize,
    weights: OperandReport,
    activations: OperandReport,
    kernel: String,
    engine: &'static str,
    adapter: String,
    backend: String,
    driver: String,
    /// Against the product of the matrices as they were given.
    error: Deviation,
    /// Against the exact product of the quantised matrices.
    kernel_error: Deviation,
}

impl Report {
    fn json(&self) -> String {
        // Strings and finite numbers alone: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    fn text(&self) -> String {
        let Self { m, n, k, .. } = self;
        let operand = |report: &OperandReport| {
            format!(
                "{}, {:.4} bits an element",
                report.format, report.bits_per_element
            )
        };
        let mut adapter = format!("{} ({})", self.adapter, self.backend);
        if !self.driver.is_empty() {
            adapter = format!("{adapter}, {}", self.driver);
        }
        format!(
            "shape         M = {m}, N = {n}, K = {k}\n\
             weights       {}\n\
             activations   {}\n\
             kernel        {}\n\
             adapter       {adapter}\n\
             error         {}\n\
             kernel error  {}\n\
             \n\
             error: against the product, in f64, of the matrices as they were given.\n\
             kernel error: against the product, in f64, of the quantised matrices.\n",
            operand(&self.weights),
            operand(&self.activations),
            self.kernel,
            self.error.line(),
            self.kernel_error.line(),
        )
    }
}
