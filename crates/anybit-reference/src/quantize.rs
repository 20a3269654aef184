//! The arithmetic of the row quantisers: `core/quantize.wgsl`.

use anybit_formats::quantize::rounding::random;
use anybit_formats::quantize::rule::TERNARY_MIN_SCALE;
use anybit_formats::{
    AffineFormat, Calibration, ElementFormat, Encoding, FormatError, Granularity, MatrixFormat,
    PackedMatrix, QuantizeRowsOptions, Rounding, ScaleRule, ScaleType, SideData, ZeroKind,
};

use crate::ReferenceError;

mod within;

pub use within::codes_within;

/// What a scale is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// The largest magnitude.
    Magnitude,
    /// The largest value, at least 0.
    Value,
    /// The mean magnitude.
    Mean,
}

/// scale = max(statistic / divisor, smallest), or a power of two by a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) statistic: Statistic,
    pub(crate) divisor: f32,
    pub(crate) smallest: f32,
    /// How the scale is stored; `None` for bare codes.
    pub(crate) scale: Option<ScaleType>,
    /// Which power of two.
    scale_rule: ScaleRule,
}

impl Rule {
    pub(crate) fn new(
        format: &MatrixFormat,
        options: &QuantizeRowsOptions,
    ) -> Result<Self, ReferenceError> {
        options.check(format.element())?;
        let refuse = |reason| {
            Err(ReferenceError::Quantizer {
                format: *format,
                reason,
            })
        };
        let element = format.element();
        if !element.has_codes() {
            return refuse("floats have no codes");
        }
        if element.has_choices()
            || element
                .codebook()
                .is_some_and(|codebook| codebook.bits() > 4)
        {
            return refuse("they take codebooks of up to 4 bits, without choices");
        }
        let mut rule = Self {
            statistic: match element {
                ElementFormat::Affine(affine) if affine.encoding() == Encoding::Unsigned => {
                    Statistic::Value
                }
                _ => Statistic::Magnitude,
            },
            divisor: element.max_magnitude(0),
            smallest: 0.0,
            scale: None,
            scale_rule: options.scale_rule,
        };
        let Some(layout) = format.scales() else {
            return Ok(rule);
        };
        if layout.zero != ZeroKind::None || layout.granularity == Granularity::Tensor {
            return refuse("they make scales a row or a group, without zeros");
        }
        match (layout.scale, layout.granularity) {
            (ScaleType::F32, _) | (ScaleType::E8m0, Granularity::Group(_)) => {}
            _ => return refuse("they make f32 scales, and power-of-two scales of groups"),
        }
        rule.scale = Some(layout.scale);
        if Calibration::default_for(format) == Some(Calibration::AbsMean) {
            rule.statistic = Statistic::Mean;
            rule.divisor = 1.0;
            if element == ElementFormat::TERNARY {
                rule.smallest = TERNARY_MIN_SCALE;
            }
        }
        Ok(rule)
    }

    /// `quantize_statistic`: a vector of four values added to the statistic so far.
    pub(crate) fn statistic(&self, so_far: f32, values: [f32; 4]) -> f32 {
        let [x, y, z, w] = values;
        match self.statistic {
            Statistic::Value => so_far.max(x.max(y).max(z.max(w))),
            Statistic::Magnitude => so_far.max(x.abs().max(y.abs()).max(z.abs().max(w.abs()))),
            Statistic::Mean => so_far + ((x.abs() + y.abs()) + (z.abs() + w.abs())),
        }
    }

    /// `quantize_join`: two statistics as one.
    pub(crate) fn join(&self, a: f32, b: f32) -> f32 {
        match self.statistic {
            Statistic::Mean => a + b,
            Statistic::Magnitude | Statistic::Value => a.max(b),
        }
    }

    /// `quantize_scale`: the scale of `count` values and its inverse.
    pub(crate) fn scale_and_inverse(&self, statistic: f32, count: usize) -> (f32, f32) {
        let scale = match self.scale {
            None => return (1.0, 1.0),
            Some(ScaleType::E8m0) => {
                let code = self.scale_rule.e8m0(statistic, self.divisor);
                ScaleType::E8m0.decode(u32::from(code))
            }
            Some(_) => {
                let value = match self.statistic {
                    Statistic::Mean => statistic / count as f32,
                    Statistic::Magnitude | Statistic::Value => statistic,
                };
                (value / self.divisor).max(self.smallest)
            }
        };
        match self.scale {
            // 2⁻¹²⁷ stays, with the inverse 0.
            Some(ScaleType::E8m0) if scale < f32::MIN_POSITIVE => (scale, 0.0),
            _ if scale < f32::MIN_POSITIVE => (0.0, 0.0),
            _ => (scale, 1.0 / scale),
        }
    }
}

/// code = round(clamp((x · inverse + add) · factor, low, high)) + offset.
#[derive(Clone, Copy, Debug)]
struct AffineRounding {
    add: f32,
    factor: f32,
    low: f32,
    high: f32,
    offset: f32,
}

impl AffineRounding {
    fn new(element: AffineFormat, narrow: bool) -> Self {
        let (low, high) = (element.min_value() as f32, element.max_value() as f32);
        match element.encoding() {
            Encoding::Bipolar => Self {
                add: high,
                factor: 0.5,
                low: 0.0,
                high: f32::from(element.max_code()),
                offset: 0.0,
            },
            // Symmetric under a scale, so that it serves both signs; int1 keeps its only negative value.
            Encoding::TwosComplement => Self {
                add: 0.0,
                factor: 1.0,
                low: if narrow && element.bits() > 1 {
                    low + 1.0
                } else {
                    low
                },
                high,
                offset: -low,
            },
            Encoding::Unsigned | Encoding::Ternary => Self {
                add: 0.0,
                factor: 1.0,
                low,
                high,
                offset: -low,
            },
        }
    }

    /// From x · inverse + add.
    fn code(&self, sum: f32, rounding: Rounding, index: u64) -> u8 {
        let level = (sum * self.factor).clamp(self.low, self.high);
        (round(level, rounding, index) + self.offset) as u8
    }
}

/// A number below 2²³ rounded to an integer; `index` is its place in the matrix.
fn round(value: f32, rounding: Rounding, index: u64) -> f32 {
    match rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::HalfAway => value.round(),
        Rounding::Truncate => value.trunc(),
        Rounding::Stochastic { seed } => {
            // In units of 2⁻³², what is below being dropped; a random number below 2³² is added, and the units are dropped.
            let units = (f64::from(value.abs()) * 4_294_967_296.0) as u64;
            let sum = units + u64::from(random(seed, index));
            ((sum >> 32) as f32).copysign(value)
        }
    }
}

/// How a row quantiser makes a code of a product.
struct Coder {
    kind: Kind,
    options: QuantizeRowsOptions,
}

enum Kind {
    /// 1 for 0 and above.
    Sign,
    Affine(AffineRounding),
    /// Minifloats and codebooks.
    Other(ElementFormat),
}

impl Coder {
    fn new(format: &MatrixFormat, options: &QuantizeRowsOptions) -> Self {
        let kind = match format.element() {
            ElementFormat::Affine(affine) if affine == AffineFormat::BINARY => Kind::Sign,
            ElementFormat::Affine(affine) => {
                Kind::Affine(AffineRounding::new(affine, format.scales().is_some()))
            }
            element => Kind::Other(element),
        };
        Self {
            kind,
            options: *options,
        }
    }

    /// The code of value · inverse, from the product (and the sum for bipolar), for the value at `index` of the matrix.
    fn code(&self, product: f32, index: u64) -> u8 {
        let QuantizeRowsOptions {
            rounding, overflow, ..
        } = self.options;
        match &self.kind {
            Kind::Sign => u8::from(product >= 0.0),
            Kind::Affine(affine) => affine.code(product, rounding, index),
            Kind::Other(ElementFormat::Minifloat(minifloat)) => {
                minifloat.encode(product, rounding, overflow, index)
            }
            Kind::Other(ElementFormat::Codebook(codebook)) => codebook.encode(product, 0),
            Kind::Other(_) => 0,
        }
    }
}

/// The codes that a row quantiser gives to values, from the inverse scale that it emitted (1 for bare codes), with every
/// operation rounded to nearest and none contracted.
///
/// Scaled two's complement uses the narrow range, without its most negative value. Values must be finite, but for bare
/// minifloats: infinities take the largest finite value, and NaN the format's NaN, or 0 where it has none.
pub fn codes_given(values: &[f32], inverse: f32, format: &MatrixFormat) -> Vec<u8> {
    codes_given_with(values, inverse, format, &QuantizeRowsOptions::default(), 0)
}

/// [`codes_given`] with options, for consecutive values of the matrix from the place `first` on (row · columns + column).
pub fn codes_given_with(
    values: &[f32],
    inverse: f32,
    format: &MatrixFormat,
    options: &QuantizeRowsOptions,
    first: u64,
) -> Vec<u8> {
    let coder = Coder::new(format, options);
    let code = |(&value, index): (&f32, u64)| match &coder.kind {
        Kind::Sign => coder.code(value, index),
        Kind::Affine(affine) => coder.code(value * inverse + affine.add, index),
        Kind::Other(_) => coder.code(value * inverse, index),
    };
    values.iter().zip(first..).map(code).collect()
}

/// The codes that WGSL allows for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedCodes {
    /// Those of the smallest and of the largest product that WGSL allows, and of zeros of either sign where subnormals may
    /// be taken for them.
    codes: [u8; 4],
    /// Whether the codes between the first two are allowed too.
    between: bool,
}

impl AllowedCodes {
    /// Whether a code is allowed.
    pub fn contains(&self, code: u8) -> bool {
        let [low, high, ..] = self.codes;
        self.codes.contains(&code) || self.between && (low..=high).contains(&code)
    }

    /// The only code that is allowed; `None` if there are several.
    pub fn only(&self) -> Option<u8> {
        let [first, others @ ..] = self.codes;
        others.iter().all(|&code| code == first).then_some(first)
    }
}

/// The codes that WGSL allows for values, from the inverse scale that a row quantiser emitted.
///
/// WGSL may round the product, and the sum for bipolar formats, to either neighbour, may contract them, and may take
/// subnormals for 0. That matters only within a rounding error of the edge between two codes: elsewhere the one code of
/// [`codes_given`] is allowed. Bare codes are made from the values themselves: exact.
pub fn codes_allowed(values: &[f32], inverse: f32, format: &MatrixFormat) -> Vec<AllowedCodes> {
    codes_allowed_with(values, inverse, format, &QuantizeRowsOptions::default(), 0)
}

/// [`codes_allowed`] with options, for consecutive values of the matrix from the place `first` on. Every rounding keeps
/// products of one place in order, the stochastic one too.
pub fn codes_allowed_with(
    values: &[f32],
    inverse: f32,
    format: &MatrixFormat,
    options: &QuantizeRowsOptions,
    first: u64,
) -> Vec<AllowedCodes> {
    let coder = Coder::new(format, options);
    let bare = format.scales().is_none();
    let allowed = |(&value, index): (&f32, u64)| {
        let subnormal = value.abs() < f32::MIN_POSITIVE;
        if let Kind::Sign = coder.kind {
            let (code, flushed) = (
                coder.code(value, index),
                u8::from(value >= 0.0 || subnormal),
            );
            return AllowedCodes {
                codes: [code, flushed, code, flushed],
                between: false,
            };
        }
        // The product of two f32 is exact in f64.
        let (mut low, mut high) = neighbours(f64::from(value) * f64::from(inverse));
        if bare {
            (low, high) = (value, value);
        }
        let product_subnormal = low.abs() < f32::MIN_POSITIVE || high.abs() < f32::MIN_POSITIVE;
        let flushed = !bare && (subnormal || product_subnormal);
        if let Kind::Affine(affine) = &coder.kind {
            if flushed {
                (low, high) = (low.min(0.0), high.max(0.0));
            }
            if affine.add != 0.0 {
                low = sum_neighbours(affine.add, low).0;
                high = sum_neighbours(affine.add, high).1;
            }
        }
        let (low, high) = (coder.code(low, index), coder.code(high, index));
        let affine = matches!(coder.kind, Kind::Affine(_));
        let zeros = match flushed && !affine {
            true => [-0.0, 0.0].map(|zero| coder.code(zero, index)),
            false => [low, high],
        };
        AllowedCodes {
            codes: [low, high, zeros[0], zeros[1]],
            between: affine,
        }
    };
    values.iter().zip(first..).map(allowed).collect()
}

/// The f32 next below and next above a value, or the value itself twice.
fn neighbours(value: f64) -> (f32, f32) {
    let nearest = value as f32;
    let rounded = f64::from(nearest);
    if rounded > value {
        (nearest.next_down(), nearest)
    } else if rounded < value {
        (nearest, nearest.next_up())
    } else {
        (nearest, nearest)
    }
}

/// [`neighbours`] of a + b. Exact unless |b| passes |a| by far, where codes are clamped anyway.
fn sum_neighbours(a: f32, b: f32) -> (f32, f32) {
    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
    let sum = wide_a + wide_b;
    let (low, high) = neighbours(sum);
    // What a tiny b loses in f64; the sum is then an f32 itself.
    let error = wide_b - (sum - wide_a);
    if low == high && error < 0.0 {
        (low.next_down(), high)
    } else if low == high && error > 0.0 {
        (low, high.next_up())
    } else {
        (low, high)
    }
}

/// What a row quantiser writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Codes and scales.
    pub matrix: PackedMatrix,
    /// The inverse of each scale, row-major; none for bare codes.
    pub inverses: Vec<f32>,
    /// Σu per block of 32 codes, or of 16 where the scale group is 16; row-major.
    pub sums: Vec<u32>,
}

/// Sums of `block` codes along rows of `columns`; the last sum of a row may have fewer.
pub fn code_sums(codes: &[u8], columns: usize, block: usize) -> Vec<u32> {
    if columns == 0 || block == 0 {
        return Vec::new();
    }
    // Rows are padded with code 0 to whole blocks of 32, so there may be a last sum without codes.
    let per_row = columns.div_ceil(32) * 32usize.div_ceil(block);
    codes
        .chunks(columns)
        .flat_map(|row| {
            (0..per_row).map(move |index| {
                let start = (index * block).min(row.len());
                let end = (start + block).min(row.len());
                row[start..end].iter().map(|&code| u32::from(code)).sum()
            })
        })
        .collect()
}

/// Checks that there are `rows` × `columns` finite values.
pub(crate) fn check_values(
    values: &[f32],
    rows: usize,
    columns: usize,
) -> Result<(), ReferenceError> {
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(ReferenceError::Length {
            what: "values",
            expected: rows.saturating_mul(columns),
            found: values.len(),
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ReferenceError::Format(FormatError::NonFinite {
            row: index / columns,
            column: index % columns,
            value: values[index],
        })),
    }
}

/// Four values of a row from `4 * index` on, 0 past its end: `quantize_values`.
pub(crate) fn vector(row: &[f32], index: usize) -> [f32; 4] {
    std::array::from_fn(|lane| row.get(4 * index + lane).copied().unwrap_or(0.0))
}

/// Packs what a quantiser found: `scales` has an entry (scale, inverse) for each group of each row, and one for every 32
/// columns or less of bare codes.
pub(crate) fn assemble(
    values: &[f32],
    rows: usize,
    columns: usize,
    format: &MatrixFormat,
    options: &QuantizeRowsOptions,
    scales: &[(f32, f32)],
) -> Result<Quantized, ReferenceError> {
    let group_len = format.group_len(columns).max(1);
    let codes: Vec<u8> = values
        .chunks(group_len)
        .zip((0..).step_by(group_len))
        .zip(scales)
        .flat_map(|((values, first), &(_, inverse))| {
            codes_given_with(values, inverse, format, options, first)
        })
        .collect();
    let (scales, inverses): (Vec<f32>, Vec<f32>) = match format.scales() {
        None => Default::default(),
        Some(_) => scales.iter().copied().unzip(),
    };
    let side = SideData {
        scales: &scales,
        ..SideData::default()
    };
    Ok(Quantized {
        matrix: PackedMatrix::from_parts(*format, rows, columns, &codes, side)?,
        inverses,
        sums: code_sums(&codes, columns, group_len.min(32)),
    })
}
