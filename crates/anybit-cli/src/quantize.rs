//! `anybit quantize`.

use anybit::formats::quantize_with;
use anybit_import::npy::{self, NpyArray};
use serde::Serialize;

use crate::cli::QuantizeArguments;
use crate::error::Error;
use crate::options::{FormatChoice, Role, quantize_options};
use crate::report::Deviation;
use crate::{codebook, output};

pub(crate) fn run(arguments: &QuantizeArguments) -> Result<(), Error> {
    output::check_folder(&arguments.output)?;
    codebook::register(&arguments.codebooks.codebook)?;
    let choice = FormatChoice::new(&arguments.format, Role::Values, (&arguments.scales).into())?;
    let failed = |source| Error::npy(&arguments.input, source);
    let array = NpyArray::open(&arguments.input).map_err(failed)?;
    let (rows, columns) = array.rows_shape().map_err(failed)?;
    let format = choice.for_columns(columns);
    let [options] = quantize_options(&arguments.rounding, [(&choice, format)])?;
    let matrix = quantize_with(&array.values, rows, columns, format, &options)
        .map_err(|error| choice.failed(error))?;
    let rounded = matrix.decode();
    output::write_file(&arguments.output, |writer| {
        npy::write(writer, &array.shape, &rounded)
    })?;

    if !arguments.report.report && !arguments.report.json {
        return Ok(());
    }
    let report = Report {
        format: format.to_string(),
        shape: &array.shape,
        bits_per_element: format.bits_per_element(rows, columns),
        error: Deviation::between(
            array.values.iter().copied().map(f64::from),
            rounded.iter().copied().map(f64::from),
        ),
    };
    output::print(&if arguments.report.json {
        // Strings and finite numbers alone: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        format!(
            "format  {}, {:.4} bits an element\nerror   {}\n",
            report.format,
            report.bits_per_element,
            report.error.line()
        )
    })
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    format: String,
    shape: &'a [usize],
    bits_per_element: f64,
    error: Deviation,
}
