//! Checks of results against the CPU reference, before anything is timed.
//!
//! Every output element is compared: i32 outputs with the exact integers, f32 outputs with the exact product within the
//! bound of the error model. The reference is made once for the largest M; a smaller M is its first rows, since rows of
//! X do not meet.
//!
//! Products of more than [`FULL_CHECK`] operations would take the CPU minutes. There
//! - i32 outputs take the random projection Y·r = X·(Wᵀ·r), exact in i64, which sees every element;
//! - f32 outputs are compared element by element, within the same bounds, for a sample of the rows of X with all rows
//!   of W and of the rows of W with all rows of X, so that every row and column of Y is met; and all elements
//!   together by the projection, in f64, within the sum of their bounds.

use std::fmt;

use anybit::{Engine, OutputFormat, Values};
use anybit_formats::{FormatError, PackedMatrix};
use anybit_reference::bound::{self, ErrorModel};
use anybit_reference::{Batches, exact, experts, projection};

use crate::Error;
use crate::problem::{Random, Shape};

/// Operations up to which every element is computed again.
const FULL_CHECK: f64 = 2e10;

/// Rows of either operand in the sample of a larger product.
const SAMPLE: usize = 48;

/// How a result was found right, or what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Equal to the exact integers.
    Exact,
    /// Within the bound of the error model.
    Bounded,
    /// Wrong, or not to be had.
    Failed(String),
}

impl Verdict {
    pub(crate) fn failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => formatter.pad("exact"),
            Self::Bounded => formatter.pad("bounded"),
            Self::Failed(problem) => formatter.pad(problem),
        }
    }
}

/// What the results of one pair of matrices are compared with.
#[derive(Debug)]
pub(crate) enum Reference {
    Integers(Vec<i64>),
    Values {
        exact: Vec<f64>,
        bounds: Vec<f64>,
    },
    Sampled(Box<Sample>),
    /// Of each expert that has rows, in order: how many, and their reference.
    Experts(Vec<(usize, Self)>),
}

impl Reference {
    /// The reference of X·Wᵀ.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] for operands that have no such product.
    pub(crate) fn new(
        x: &PackedMatrix,
        w: &PackedMatrix,
        output: OutputFormat,
    ) -> Result<Self, Error> {
        let shape = Shape::new(x.rows(), w.rows(), x.columns());
        Self::within(FULL_CHECK, shape, x, w, output)
    }

    /// The reference of an engine that looks sums up in tables, which errs in its own way; of [`Engine::Lut8`] the product of
    /// the tables as they should be rounded. Every element is compared: such engines are for few rows of X.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] for operands that have no such product.
    pub(crate) fn of_tables(
        engine: Engine,
        x: &PackedMatrix,
        w: &PackedMatrix,
    ) -> Result<Self, Error> {
        let model = ErrorModel::WGSL;
        let (exact, bounds) = match engine {
            Engine::Lut8 => model
                .gemm_lut8(x, w, Batches::ONE)?
                .into_iter()
                .map(|output| (output.value, output.bound))
                .unzip(),
            _ => (exact::gemm_f64(x, w)?, model.gemm_lut(x, w, Batches::ONE)?),
        };
        Ok(Self::Values { exact, bounds })
    }

    /// The reference of a mixture of experts, whose offsets these are: `of` makes that of an expert's rows of X and W.
    ///
    /// # Errors
    ///
    /// Those of `of`; [`Error::Format`] for offsets past the rows of X.
    pub(crate) fn of_experts(
        offsets: &[u32],
        x: &PackedMatrix,
        w: &PackedMatrix,
        of: impl Fn(&PackedMatrix, &PackedMatrix) -> Result<Self, Error>,
    ) -> Result<Self, Error> {
        let segments = experts::segments(offsets, x.rows());
        let n = w.rows() / segments.len().max(1);
        let mut parts = Vec::new();
        for (expert, rows) in segments.into_iter().enumerate() {
            if rows.is_empty() {
                continue;
            }
            let w = w.row_range(expert * n..(expert + 1) * n)?;
            parts.push((rows.len(), of(&x.row_range(rows)?, &w)?));
        }
        Ok(Self::Experts(parts))
    }

    fn within(
        limit: f64,
        shape: Shape,
        x: &PackedMatrix,
        w: &PackedMatrix,
        output: OutputFormat,
    ) -> Result<Self, Error> {
        if shape.operations() > limit {
            return Ok(Self::Sampled(Box::new(Sample::new(x, w, output)?)));
        }
        Ok(match output {
            OutputFormat::I32 => Self::Integers(exact::gemm_i64(x, w)?),
            OutputFormat::F32 | OutputFormat::F16 => {
                let (exact, bounds) = right(x, w, output)?;
                Self::Values { exact, bounds }
            }
        })
    }

    /// Compares an output with the first rows of the reference.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`].
    pub(crate) fn check(&self, values: &Values, columns: usize) -> Result<Verdict, Error> {
        Ok(match (self, values) {
            (Self::Integers(exact), Values::I32(values)) => {
                if values.len() > exact.len() {
                    return Ok(too_many(values.len(), exact.len()));
                }
                let wrong = |index: usize| i64::from(values[index]) != exact[index];
                match describe(values.len(), columns, wrong) {
                    None => Verdict::Exact,
                    Some((index, text)) => Verdict::Failed(format!(
                        "{text} is {}, exactly {}",
                        values[index], exact[index]
                    )),
                }
            }
            (Self::Values { exact, bounds }, Values::F32(values)) => {
                compare(values, exact, bounds, columns)
            }
            (Self::Values { exact, bounds }, Values::F16(values)) => {
                let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
                compare(&values, exact, bounds, columns)
            }
            (Self::Sampled(sample), values) => sample.check(values, columns)?,
            (Self::Experts(parts), values) => {
                let mut verdict = Verdict::Failed("no expert has a row".to_owned());
                let mut first = 0;
                for (rows, reference) in parts {
                    let part = part(values, first * columns..(first + rows) * columns);
                    verdict = match reference.check(&part, columns)? {
                        Verdict::Failed(problem) => {
                            let problem = format!("of the rows from {first} on, {problem}");
                            return Ok(Verdict::Failed(problem));
                        }
                        right => right,
                    };
                    first += rows;
                }
                verdict
            }
            _ => Verdict::Failed("the output has another type than the reference".to_owned()),
        })
    }
}

/// Some of the values, as far as there are so many.
fn part(values: &Values, range: std::ops::Range<usize>) -> Values {
    fn part<T: Clone>(values: &[T], range: std::ops::Range<usize>) -> Vec<T> {
        values.get(range).unwrap_or_default().to_vec()
    }
    match values {
        Values::F32(values) => Values::F32(part(values, range)),
        Values::F16(values) => Values::F16(part(values, range)),
        Values::I32(values) => Values::I32(part(values, range)),
    }
}

/// The right values of a float output, and how far a result may be from each.
fn right(
    x: &PackedMatrix,
    w: &PackedMatrix,
    output: OutputFormat,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let values = exact::gemm_f64(x, w)?.into_iter().zip(bounds(x, w)?);
    Ok(values
        .map(|(exact, bound)| match output {
            OutputFormat::F16 => {
                let rounded = bound::f16_output(exact, bound);
                (rounded.value, rounded.bound)
            }
            OutputFormat::F32 | OutputFormat::I32 => (exact, bound),
        })
        .unzip())
}

fn bounds(x: &PackedMatrix, w: &PackedMatrix) -> Result<Vec<f64>, Error> {
    // Integers are multiplied as such. Of lifted values, the bound of f32 multiply-add covers either engine.
    let affine = |matrix: &PackedMatrix| matrix.format().element().affine().is_some();
    Ok(if affine(x) && affine(w) {
        bound::gemm_integer_bound(x, w)?
    } else {
        bound::gemm_fma_bound(x, w)?
    })
}

fn compare(values: &[f32], exact: &[f64], bounds: &[f64], columns: usize) -> Verdict {
    // Written so that a NaN is wrong.
    let right = |index: usize| (f64::from(values[index]) - exact[index]).abs() <= bounds[index];
    let len = exact.len().min(bounds.len());
    if values.len() > len {
        return too_many(values.len(), len);
    }
    match describe(values.len(), columns, |index| !right(index)) {
        None => Verdict::Bounded,
        Some((index, text)) => Verdict::Failed(format!(
            "{text} is {:e}, exactly {:e} within {:e}",
            values[index], exact[index], bounds[index]
        )),
    }
}

fn too_many(found: usize, expected: usize) -> Verdict {
    Verdict::Failed(format!(
        "the output has {found} elements, the reference {expected}"
    ))
}

/// The first wrong element, and where it is in words; `None` if none is wrong.
fn describe(
    found: usize,
    columns: usize,
    wrong: impl Fn(usize) -> bool,
) -> Option<(usize, String)> {
    let count = (0..found).filter(|&index| wrong(index)).count();
    let first = (0..found).find(|&index| wrong(index))?;
    let columns = columns.max(1);
    let (row, column) = (first / columns, first % columns);
    Some((
        first,
        format!("{count} of {found} elements are wrong; row {row} column {column}"),
    ))
}

/// What a large product is compared with.
#[derive(Debug)]
pub(crate) struct Sample {
    x: PackedMatrix,
    w: PackedMatrix,
    /// Sampled rows of X against all of W, and all of X against sampled rows of W. Empty for integers.
    parts: Vec<Part>,
    projection: Option<Projection>,
}

#[derive(Debug)]
struct Part {
    rows: Vec<usize>,
    columns: Vec<usize>,
    exact: Vec<f64>,
    bounds: Vec<f64>,
}

/// Y·r for r of random signs: for each row of X the exact value and the sum of its elements' bounds.
#[derive(Debug)]
struct Projection {
    signs: Vec<f64>,
    exact: Vec<f64>,
    bounds: Vec<f64>,
}

impl Sample {
    fn new(x: &PackedMatrix, w: &PackedMatrix, output: OutputFormat) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut projection = None;
        if output != OutputFormat::I32 {
            let all = |matrix: &PackedMatrix| (0..matrix.rows()).collect::<Vec<_>>();
            parts.push(Part::new(x, w, output, sample(x.rows()), all(w))?);
            parts.push(Part::new(x, w, output, all(x), sample(w.rows()))?);
            // Bounds of f16 outputs are not sums of terms.
            projection = (output == OutputFormat::F32).then(|| Projection::new(x, w));
        }
        Ok(Self {
            x: x.clone(),
            w: w.clone(),
            parts,
            projection,
        })
    }

    fn check(&self, values: &Values, columns: usize) -> Result<Verdict, Error> {
        let columns = columns.max(1);
        match values {
            Values::I32(values) => {
                let x = self.x.row_range(0..values.len() / columns)?;
                let seed = 0x616e_7962_6974;
                let wrong = projection::random_projection(values, &x, &self.w, Batches::ONE, seed)?;
                Ok(match wrong {
                    None => Verdict::Exact,
                    Some(wrong) => Verdict::Failed(format!(
                        "row {} is wrong: its projection is {}, exactly {}",
                        wrong.row, wrong.found, wrong.expected
                    )),
                })
            }
            Values::F16(values) => {
                let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
                let failed = |verdict: &Verdict| verdict.failed();
                let verdicts = self.parts.iter().map(|part| part.check(&values, columns));
                Ok(verdicts
                    .into_iter()
                    .find(failed)
                    .unwrap_or(Verdict::Bounded))
            }
            Values::F32(values) => {
                for part in &self.parts {
                    let verdict = part.check(values, columns);
                    if verdict.failed() {
                        return Ok(verdict);
                    }
                }
                Ok(match &self.projection {
                    Some(projection) => projection.check(values, columns),
                    None => {
                        Verdict::Failed("the output has another type than the reference".into())
                    }
                })
            }
        }
    }
}

/// Rows spread over all, one from each stretch of equal length, at random; the first and last among them.
fn sample(rows: usize) -> Vec<usize> {
    if rows <= SAMPLE {
        return (0..rows).collect();
    }
    let mut random = Random::new(rows as u64);
    let mut sampled: Vec<usize> = (0..SAMPLE)
        .map(|i| {
            let (start, end) = (i * rows / SAMPLE, (i + 1) * rows / SAMPLE);
            start + (random.next() % (end - start) as u64) as usize
        })
        .collect();
    if let [first, .., last] = sampled.as_mut_slice() {
        (*first, *last) = (0, rows - 1);
    }
    sampled
}

fn pick(matrix: &PackedMatrix, rows: &[usize]) -> Result<PackedMatrix, FormatError> {
    let parts = rows
        .iter()
        .map(|&row| matrix.row_range(row..row + 1))
        .collect::<Result<Vec<_>, _>>()?;
    PackedMatrix::concat_rows(*matrix.format(), matrix.columns(), &parts)
}

impl Part {
    fn new(
        x: &PackedMatrix,
        w: &PackedMatrix,
        output: OutputFormat,
        rows: Vec<usize>,
        columns: Vec<usize>,
    ) -> Result<Self, Error> {
        let (x, w) = (pick(x, &rows)?, pick(w, &columns)?);
        let (exact, bounds) = right(&x, &w, output)?;
        Ok(Self {
            exact,
            bounds,
            rows,
            columns,
        })
    }

    fn check(&self, values: &[f32], columns: usize) -> Verdict {
        let mut index = 0;
        for &row in &self.rows {
            for &column in &self.columns {
                let (exact, bound) = (self.exact[index], self.bounds[index]);
                index += 1;
                let Some(&value) = values.get(row * columns + column) else {
                    // A smaller M than the reference's.
                    return Verdict::Bounded;
                };
                let right = (f64::from(value) - exact).abs() <= bound;
                if !right {
                    return Verdict::Failed(format!(
                        "row {row} column {column} is {value:e}, exactly {exact:e} within {bound:e}"
                    ));
                }
            }
        }
        Verdict::Bounded
    }
}

impl Projection {
    fn new(x: &PackedMatrix, w: &PackedMatrix) -> Self {
        let k = x.columns();
        let mut random = Random::new(w.rows() as u64);
        let signs: Vec<f64> = (0..w.rows())
            .map(|_| if random.next() & 1 == 0 { 1.0 } else { -1.0 })
            .collect();
        let sum = |values: &[f64], factors: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; k];
            for (row, values) in values.chunks(k.max(1)).enumerate() {
                let factor = factors(row);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += factor * value;
                }
            }
            sums
        };
        let projected = sum(&w.decode_f64(), &|row| signs[row]);
        let sizes = sum(&magnitudes(w), &|_| 1.0);
        let dot = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
        // No kernel rounds a term more often than K sums and a few scales; the last summand is this program's own f64.
        let relative = ErrorModel::WGSL.gamma(k + 8) + 4.0 * (w.rows() + k) as f64 * f64::EPSILON;
        Self {
            exact: x
                .decode_f64()
                .chunks(k.max(1))
                .map(|x| dot(x, &projected))
                .collect(),
            bounds: magnitudes(x)
                .chunks(k.max(1))
                .map(|x| relative * dot(x, &sizes) + f64::from(f32::MIN_POSITIVE))
                .collect(),
            signs,
        }
    }

    fn check(&self, values: &[f32], columns: usize) -> Verdict {
        for (row, values) in values.chunks(columns).enumerate() {
            let found: f64 = values
                .iter()
                .zip(&self.signs)
                .map(|(y, r)| f64::from(*y) * r)
                .sum();
            let (exact, bound) = (self.exact[row], self.bounds[row]);
            let right = (found - exact).abs() <= bound;
            if !right {
                return Verdict::Failed(format!(
                    "row {row} is wrong: its projection is {found:e}, exactly {exact:e} within {bound:e}"
                ));
            }
        }
        Verdict::Bounded
    }
}

/// |s·integer| + |minimum| of every element: what its rounding errors are relative to.
fn magnitudes(matrix: &PackedMatrix) -> Vec<f64> {
    let Some(integers) = matrix.integer_values() else {
        return matrix
            .decode()
            .into_iter()
            .map(|value| f64::from(value.abs()))
            .collect();
    };
    let columns = matrix.columns().max(1);
    let group = matrix.format().group_len(columns).max(1);
    let size = |(index, integer): (usize, i32)| {
        let (row, group) = (index / columns, index % columns / group);
        let scale = f64::from(matrix.scale(row, group).abs());
        scale * f64::from(integer.abs()) + f64::from(matrix.minimum(row, group).abs())
    };
    integers.into_iter().enumerate().map(size).collect()
}

#[cfg(test)]
mod tests {
    use anybit_reference::kernel;

    use super::*;
    use crate::problem::{Precision, Workload, synthetic};

    const SHAPE: Shape = Shape::new(70, 90, 96);

    fn workload() -> Workload {
        synthetic("test", SHAPE, Precision::all(SHAPE.k).expect("formats")).expect("a workload")
    }

    /// A result of the CPU twin of some kernel, and both kinds of reference.
    fn results(workload: &Workload, precision: &Precision) -> (Values, [Reference; 2]) {
        let x = workload.activations_in(precision).expect("activations");
        let w = workload.weights_in(precision).expect("weights");
        let values = match precision.output {
            OutputFormat::I32 => Values::I32(
                exact::gemm_i64(&x, &w)
                    .expect("a product")
                    .into_iter()
                    .map(|value| i32::try_from(value).expect("a small product"))
                    .collect(),
            ),
            OutputFormat::F32 | OutputFormat::F16 => {
                let tile = kernel::Tile::of(&x, &w);
                let values = if precision.activation.element().affine().is_some() {
                    kernel::gemm_tiled_dot4(&x, &w, Batches::ONE, tile)
                } else {
                    kernel::gemm_tiled_fma(&x, &w, Batches::ONE, tile)
                };
                Values::F32(values.expect("a product"))
            }
        };
        let references = [f64::INFINITY, 0.0].map(|limit| {
            Reference::within(limit, SHAPE, &x, &w, precision.output).expect("a reference")
        });
        (values, references)
    }

    #[test]
    fn right_results_pass_both_checks() {
        let workload = workload();
        for precision in &workload.precisions {
            let (values, references) = results(&workload, precision);
            let expected = match precision.output {
                OutputFormat::I32 => Verdict::Exact,
                OutputFormat::F32 | OutputFormat::F16 => Verdict::Bounded,
            };
            for reference in references {
                let verdict = reference.check(&values, SHAPE.n).expect("a verdict");
                assert_eq!(verdict, expected, "{precision:?}");
            }
        }
    }

    #[test]
    fn fewer_rows_are_the_first_of_the_reference() {
        let workload = workload();
        let (values, references) = results(&workload, &Precision::BASELINE);
        let Values::F32(values) = values else {
            panic!("the baseline is f32");
        };
        for reference in references {
            let first = Values::F32(values[..8 * SHAPE.n].to_vec());
            assert_eq!(
                reference.check(&first, SHAPE.n).expect("a verdict"),
                Verdict::Bounded
            );
            let second = Values::F32(values[8 * SHAPE.n..16 * SHAPE.n].to_vec());
            assert!(
                reference
                    .check(&second, SHAPE.n)
                    .expect("a verdict")
                    .failed()
            );
        }
    }

    #[test]
    fn wrong_results_fail() {
        let workload = workload();
        for precision in &workload.precisions {
            let (values, references) = results(&workload, precision);
            let last = SHAPE.m * SHAPE.n - 1;
            let wrong = match values {
                Values::I32(mut values) => {
                    values[last] += 1;
                    Values::I32(values)
                }
                Values::F16(_) => panic!("no precision has f16 outputs"),
                Values::F32(mut values) => {
                    values[last] = f32::NAN;
                    Values::F32(values)
                }
            };
            for reference in references {
                let verdict = reference.check(&wrong, SHAPE.n).expect("a verdict");
                assert!(verdict.failed(), "{precision:?}");
            }
        }
    }

    #[test]
    fn an_error_just_past_the_bound_is_seen() {
        let workload = workload();
        let (_, [reference, _]) = results(&workload, &Precision::BASELINE);
        let Reference::Values { exact, bounds } = &reference else {
            panic!("a full reference");
        };
        let mut values: Vec<f32> = exact.iter().map(|&value| value as f32).collect();
        values[SHAPE.n + 3] += (2.0 * bounds[SHAPE.n + 3]) as f32;
        let verdict = reference
            .check(&Values::F32(values), SHAPE.n)
            .expect("a verdict");
        let Verdict::Failed(text) = verdict else {
            panic!("the error passes");
        };
        assert!(
            text.starts_with("1 of 6300 elements are wrong; row 1 column 3"),
            "{text}"
        );
    }

    #[test]
    fn samples_are_spread() {
        assert_eq!(sample(5), [0, 1, 2, 3, 4]);
        let sampled = sample(1000);
        assert_eq!(sampled.len(), SAMPLE);
        assert_eq!((sampled[0], sampled[SAMPLE - 1]), (0, 999));
        assert!(
            sampled
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 42)
        );
    }
}
