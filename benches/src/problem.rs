//! Problems: what is multiplied, in which formats, from which data.

use std::fmt;
use std::str::FromStr;

use anybit::{OutputFormat, Problem};
use anybit_formats::{
    CodebookFormat, ElementFormat, Granularity, MatrixFormat, NAMED_FORMATS, PackedMatrix,
    ScaleLayout, ScaleType, ZeroKind, quantize,
};

use crate::Error;
use crate::correctness::Reference;

/// One problem size: X is M×K, W is N×K, Y = X·Wᵀ is M×N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Shape {
    pub(crate) const fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k }
    }

    /// Two for each multiply-accumulate.
    pub(crate) fn operations(self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Vec<usize> = text
            .split('x')
            .map(|size| match size.parse::<u32>() {
                Ok(0) => Err("a size of 0 leaves nothing to measure".to_owned()),
                Ok(size) => Ok(size as usize),
                Err(error) => Err(format!("`{size}`: {error}")),
            })
            .collect::<Result<_, _>>()?;
        match sizes[..] {
            [m, n, k] => Ok(Self { m, n, k }),
            _ => Err("expected three sizes joined by `x`, such as 1x1536x576".to_owned()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded as one text, so that it lines up in tables.
        formatter.pad(&format!("{}x{}x{}", self.m, self.n, self.k))
    }
}

/// Where the weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Model,
    Synthetic,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Synthetic => "synthetic",
        }
    }
}

/// A matrix of weights, the activations it meets, and the precisions to try.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The tensor's name, or what the shape is for.
    pub(crate) name: String,
    pub(crate) source: Source,
    /// The numbers of rows of X to run; each takes the first rows of `activations`.
    pub(crate) ms: Vec<usize>,
    /// Row-major, K a row, rows for the largest M.
    pub(crate) activations: Vec<f32>,
    pub(crate) weights: PackedMatrix,
    /// The f32 baseline first.
    pub(crate) precisions: Vec<Precision>,
    /// Of a mixture of experts, whose matrices the weights are a stack of: where each expert's rows of X begin, and the end.
    pub(crate) experts: Option<Vec<u32>>,
}

impl Workload {
    pub(crate) fn shape(&self, m: usize) -> Shape {
        let n = self.weights.rows() / self.experts().unwrap_or(1).max(1);
        Shape::new(m, n, self.weights.columns())
    }

    /// The reference of rows of X: what `of` makes of them, or of each expert's rows.
    ///
    /// # Errors
    ///
    /// Those of `of`; [`Error::Format`].
    pub(crate) fn reference(
        &self,
        x: &PackedMatrix,
        w: &PackedMatrix,
        of: impl Fn(&PackedMatrix, &PackedMatrix) -> Result<Reference, Error>,
    ) -> Result<Reference, Error> {
        match &self.experts {
            None => of(x, w),
            Some(offsets) => Reference::of_experts(offsets, x, w, of),
        }
    }

    /// How many experts there are.
    pub(crate) fn experts(&self) -> Option<usize> {
        let offsets = self.experts.as_ref()?;
        Some(offsets.len().saturating_sub(1))
    }

    /// Matrices of the weights that some row of X meets, and how many there are.
    pub(crate) fn matrices(&self) -> (usize, usize) {
        match &self.experts {
            None => (1, 1),
            Some(offsets) => {
                let met = offsets.windows(2).filter(|pair| pair[0] < pair[1]);
                (met.count(), offsets.len().saturating_sub(1))
            }
        }
    }

    /// The problem of one M in one precision.
    pub(crate) fn problem(&self, m: usize, precision: &Precision) -> Problem {
        let Shape { m, n, k } = self.shape(m);
        let problem = Problem::new((m, n, k), precision.activation, precision.weight)
            .with_output(precision.output);
        match self.experts() {
            None => problem,
            Some(count) => problem.with_experts(count),
        }
    }

    /// The activations in a precision: as they are, or quantised on the host by the default rule.
    ///
    /// # Errors
    ///
    /// [`Error::Format`].
    pub(crate) fn activations_in(&self, precision: &Precision) -> Result<PackedMatrix, Error> {
        let k = self.weights.columns();
        let rows = self.activations.len() / k.max(1);
        quantized(&self.activations, rows, k, precision.activation)
    }

    /// The weights in a precision: as stored where the format is theirs, else requantised from their decoded values by
    /// the default rule.
    ///
    /// # Errors
    ///
    /// [`Error::Format`].
    pub(crate) fn weights_in(&self, precision: &Precision) -> Result<PackedMatrix, Error> {
        if *self.weights.format() == precision.weight {
            return Ok(self.weights.clone());
        }
        quantized(
            &self.weights.decode(),
            self.weights.rows(),
            self.weights.columns(),
            precision.weight,
        )
    }
}

/// As [`quantize()`]; bare codes, whose integers are the values, get values that fill their range.
fn quantized(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: MatrixFormat,
) -> Result<PackedMatrix, Error> {
    let (ElementFormat::Affine(element), None) = (format.element(), format.scales()) else {
        return Ok(quantize(values, rows, columns, format, None)?);
    };
    let scaled = MatrixFormat::activation_default(format.element());
    let codes = quantize(values, rows, columns, scaled, None)?.unpack_codes();
    let bare = MatrixFormat::new(element.into(), None)?;
    let zeros = anybit_formats::Zeros::None;
    Ok(PackedMatrix::from_codes(
        bare,
        rows,
        columns,
        &codes,
        &[],
        zeros,
    )?)
}

/// The formats of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Precision {
    pub(crate) activation: MatrixFormat,
    pub(crate) weight: MatrixFormat,
    pub(crate) output: OutputFormat,
}

impl Precision {
    /// What every ratio is quoted against.
    pub(crate) const BASELINE: Self = Self::new(MatrixFormat::F32, MatrixFormat::F32);

    const fn new(activation: MatrixFormat, weight: MatrixFormat) -> Self {
        Self {
            activation,
            weight,
            output: OutputFormat::F32,
        }
    }

    /// One scale a row of activations, whatever the weights have.
    const fn integer(activation: ElementFormat, weight: MatrixFormat) -> Self {
        Self::new(MatrixFormat::activation_default(activation), weight)
    }

    /// The integers alone, without scales.
    fn bare(element: ElementFormat) -> Result<Self, Error> {
        let format = MatrixFormat::new(element, None)?;
        Ok(Self {
            activation: format,
            weight: format,
            output: OutputFormat::I32,
        })
    }

    /// `W4A8`: how the literature calls it.
    pub(crate) fn short_name(&self) -> String {
        format!(
            "W{}A{}{}",
            self.weight.element().bits(),
            self.activation.element().bits(),
            match self.output {
                OutputFormat::I32 => " i32",
                OutputFormat::F16 => " f16",
                OutputFormat::F32 => "",
            }
        )
    }

    /// For the matrices of a block, with weights as the model stores them.
    pub(crate) fn of_block(stored: MatrixFormat) -> Vec<Self> {
        use ElementFormat as E;
        let weight = MatrixFormat::weight_default;
        let mut precisions = vec![
            Self::BASELINE,
            Self::new(MatrixFormat::F32, stored),
            Self::new(MatrixFormat::F32, weight(E::INT2)),
        ];
        if stored.element().lift_unit().is_some() {
            precisions.push(Self::integer(E::INT8, stored));
            precisions.push(Self::integer(E::INT4, stored));
        }
        precisions.extend([
            Self::integer(E::INT8, weight(E::INT3)),
            Self::integer(E::INT8, weight(E::INT2)),
            Self::integer(E::INT2, weight(E::INT2)),
            Self::integer(E::BINARY, weight(E::BINARY)),
        ]);
        unique(precisions)
    }

    /// For the LM head: only as stored, since low bits are seldom used there.
    pub(crate) fn of_head(stored: MatrixFormat) -> Vec<Self> {
        let mut precisions = vec![Self::BASELINE, Self::new(MatrixFormat::F32, stored)];
        if stored.element().lift_unit().is_some() {
            precisions.push(Self::integer(ElementFormat::INT8, stored));
        }
        unique(precisions)
    }

    /// For the square matrices: the usual formats, and the bare integers.
    ///
    /// # Errors
    ///
    /// [`Error::Format`], which would be a bug.
    pub(crate) fn of_square() -> Result<Vec<Self>, Error> {
        use ElementFormat as E;
        let weight = MatrixFormat::weight_default;
        let q4_1 = synthetic_four_bits(32)?;
        Ok(vec![
            Self::BASELINE,
            Self::integer(E::INT8, weight(E::INT8)),
            Self::integer(E::INT8, q4_1),
            Self::integer(E::INT4, q4_1),
            Self::integer(E::INT2, weight(E::INT2)),
            Self::integer(E::BINARY, weight(E::BINARY)),
            Self::microscaled(E::E2M1),
            Self::microscaled(E::E4M3),
            Self::bare(E::INT8)?,
            Self::bare(E::INT4)?,
            Self::bare(E::INT2)?,
            Self::bare(E::BINARY)?,
        ])
    }

    /// Every precision of the bench for synthetic weights of `k` columns. Where groups of 32 do not divide them, a row
    /// has one scale.
    ///
    /// # Errors
    ///
    /// [`Error::Format`], which would be a bug.
    pub(crate) fn all(k: usize) -> Result<Vec<Self>, Error> {
        use ElementFormat as E;
        let weight = |element| weight_format(element, k, ZeroKind::None);
        let q4_1 = synthetic_four_bits(k)?;
        let nf4 = ElementFormat::Codebook(CodebookFormat::NF4);
        let mut precisions = vec![
            Self::BASELINE,
            Self::new(MatrixFormat::F32, MatrixFormat::F16),
            Self::new(MatrixFormat::F32, weight(E::INT8)?),
            Self::new(MatrixFormat::F32, weight(E::E4M3)?),
            Self::new(MatrixFormat::F32, weight(E::E3M2)?),
            Self::new(MatrixFormat::F32, weight(E::E2M1)?),
            Self::new(MatrixFormat::F32, weight(nf4)?),
            Self::new(MatrixFormat::F32, q4_1),
            Self::new(MatrixFormat::F32, weight(E::INT2)?),
            Self::new(MatrixFormat::F32, weight(E::TERNARY)?),
            Self::integer(E::E4M3, weight(E::E4M3)?),
            Self::new(MatrixFormat::F32, weight(E::BINARY)?),
            Self::integer(E::INT8, weight(E::INT8)?),
            Self::integer(E::INT8, q4_1),
            Self::integer(E::INT4, q4_1),
            Self::integer(E::INT8, weight(E::INT3)?),
            Self::integer(E::INT8, weight(E::INT2)?),
            Self::integer(E::INT8, weight(E::TERNARY)?),
            Self::integer(E::INT2, weight(E::INT2)?),
            Self::integer(E::BINARY, weight(E::BINARY)?),
            Self::bare(E::INT8)?,
            Self::bare(E::INT4)?,
            Self::bare(E::INT2)?,
            Self::bare(E::BINARY)?,
        ];
        if k.is_multiple_of(32) {
            let mxfp4 = microscaled(E::E2M1);
            precisions.extend([
                Self::new(MatrixFormat::F32, mxfp4),
                Self::integer(E::INT8, mxfp4),
                Self::microscaled(E::E2M1),
            ]);
        }
        Ok(precisions)
    }

    /// Integer weights of 1 to 8 bits by activations of f32, 8 and 4 bits, for the chart of speed against bits.
    ///
    /// # Errors
    ///
    /// [`Error::Format`], which would be a bug.
    pub(crate) fn of_bits(k: usize) -> Result<Vec<Self>, Error> {
        use ElementFormat as E;
        let weights = [
            E::BINARY,
            E::INT2,
            E::INT3,
            E::INT4,
            E::INT5,
            E::INT6,
            E::INT7,
            E::INT8,
        ];
        let mut precisions = vec![Self::BASELINE];
        for element in weights {
            let weight = weight_format(element, k, ZeroKind::None)?;
            precisions.push(Self::new(MatrixFormat::F32, weight));
            precisions.push(Self::integer(E::INT8, weight));
            precisions.push(Self::integer(E::INT4, weight));
        }
        Ok(precisions)
    }

    /// Both operands in an MX format.
    fn microscaled(element: ElementFormat) -> Self {
        let format = microscaled(element);
        Self::new(format, format)
    }
}

/// A power of two every 32 columns, as the MX formats have it.
fn microscaled(element: ElementFormat) -> MatrixFormat {
    let layout = ScaleLayout {
        granularity: Granularity::Group(32),
        scale: ScaleType::E8m0,
        zero: ZeroKind::None,
    };
    // No element of codes refuses it but those that choose by the group.
    MatrixFormat::new(element, Some(layout)).unwrap_or(MatrixFormat::F32)
}

fn unique(precisions: Vec<Precision>) -> Vec<Precision> {
    let mut kept = Vec::new();
    for precision in precisions {
        if !kept.contains(&precision) {
            kept.push(precision);
        }
    }
    kept
}

/// Q4_1, or the same with a scale and minimum a row.
fn synthetic_four_bits(k: usize) -> Result<MatrixFormat, Error> {
    weight_format(ElementFormat::UINT4, k, ZeroKind::Minimum)
}

fn weight_format(element: ElementFormat, k: usize, zero: ZeroKind) -> Result<MatrixFormat, Error> {
    let granularity = if k.is_multiple_of(32) {
        Granularity::Group(32)
    } else {
        Granularity::Row
    };
    Ok(MatrixFormat::new(
        element,
        Some(ScaleLayout {
            granularity,
            scale: ScaleType::F16,
            zero,
        }),
    )?)
}

/// The user-facing name of a format: a named one such as `q4_1`, else that of its elements.
pub(crate) fn format_name(format: &MatrixFormat) -> &'static str {
    NAMED_FORMATS
        .iter()
        .find(|named| named.format == *format)
        .map_or(format.element().name(), |named| named.name)
}

/// A workload of random weights and activations for one shape.
///
/// # Errors
///
/// [`Error::Format`] for a shape too large for this machine.
pub(crate) fn synthetic(
    name: impl Into<String>,
    shape: Shape,
    precisions: Vec<Precision>,
) -> Result<Workload, Error> {
    let Shape { m, n, k } = shape;
    for rows in [m, n] {
        MatrixFormat::F32.check_shape(rows, k)?;
    }
    let mut random = Random::new((m as u64) << 42 ^ (n as u64) << 21 ^ k as u64);
    let activations = random.values(m * k);
    let weights = quantize(&random.values(n * k), n, k, MatrixFormat::F32, None)?;
    Ok(Workload {
        name: name.into(),
        source: Source::Synthetic,
        ms: vec![m],
        activations,
        weights,
        precisions,
        experts: None,
    })
}

/// A workload of a mixture of experts: N rows of W for each, and for each row of X an expert at random.
///
/// # Errors
///
/// [`Error::Format`] for a shape too large for this machine.
pub(crate) fn mixture(
    shape: Shape,
    count: usize,
    precisions: Vec<Precision>,
) -> Result<Workload, Error> {
    let n = shape.n.saturating_mul(count);
    let name = format!("{shape} of {count} experts");
    let mut workload = synthetic(name, Shape { n, ..shape }, precisions)?;
    let mut random = Random::new(count as u64);
    let mut rows = vec![0; count];
    for _ in 0..shape.m {
        rows[(random.next() % count as u64) as usize] += 1;
    }
    let ends = rows.iter().scan(0, |end, rows| {
        *end += rows;
        Some(*end)
    });
    workload.experts = Some(std::iter::once(0).chain(ends).collect());
    Ok(workload)
}

/// Values for data that no model gives: SplitMix64, the same on every machine.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The sum of four uniform values in -0.5 .. 0.5: bell-shaped, as weights are.
    fn value(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        sum as f32 / 65536.0 - 2.0
    }

    pub(crate) fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_columns_get_row_scales() {
        let names = |k| -> Vec<String> {
            let precisions = Precision::all(k).expect("formats");
            precisions.iter().map(|p| p.weight.to_string()).collect()
        };
        assert!(names(64).contains(&"u4g32hm".to_owned()));
        assert!(names(65).contains(&"u4rhm".to_owned()));
        assert!(names(64).contains(&"e2m1g32e".to_owned()));
        assert!(names(65).iter().all(|name| !name.contains('g')));
    }

    #[test]
    fn weights_as_stored_are_not_requantised() {
        let q4_1 = MatrixFormat::named("q4_1").expect("a named format");
        let mut workload =
            synthetic("test", Shape::new(2, 3, 64), Precision::of_block(q4_1)).expect("a workload");
        workload.weights = quantized(&workload.weights.decode(), 3, 64, q4_1).expect("weights");
        for precision in &workload.precisions {
            let weights = workload.weights_in(precision).expect("weights");
            assert_eq!(*weights.format(), precision.weight);
            assert_eq!(weights == workload.weights, precision.weight == q4_1);
        }
    }

    #[test]
    fn every_row_has_an_expert() {
        let workload = mixture(Shape::new(50, 8, 32), 7, vec![Precision::BASELINE]);
        let workload = workload.expect("a workload");
        assert_eq!(workload.weights.rows(), 7 * 8);
        let problem = workload.problem(50, &Precision::BASELINE);
        assert_eq!((problem.n, problem.experts), (8, Some(7)));
        let offsets = workload.experts.expect("offsets");
        assert!(offsets.is_sorted());
        assert_eq!((offsets[0], offsets[7], offsets.len()), (0, 50, 8));
    }

    #[test]
    fn names_are_those_of_users() {
        let name = |text: &str| format_name(&text.parse().expect("a format"));
        assert_eq!(name("u4g32hm"), "q4_1");
        assert_eq!(name("i8g32h"), "q8_0");
        assert_eq!(name("i8rf"), "int8");
        assert_eq!(name("b1g32h"), "binary");
        assert_eq!(name("f32"), "f32");
    }

    #[test]
    fn stored_floats_are_benched_once() {
        let precisions = Precision::of_block(MatrixFormat::F32);
        let baseline = precisions.iter().filter(|p| **p == Precision::BASELINE);
        assert_eq!(baseline.count(), 1);
        assert_eq!(precisions[0], Precision::BASELINE);
    }
}
