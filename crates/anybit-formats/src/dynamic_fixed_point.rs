//! Dynamic fixed point: int16 codes under a shared power of two (Das et al., Mixed Precision Training of CNNs using Integer
//! Operations, arXiv 1802.00930).
//!
//! A value is I·2ᴱ with a 16-bit integer I and an exponent E of a whole tensor, or of a row.
//!
//! Kernels multiply codes of up to 8 bits, so I is cut in two: I = 256·hi + lo, where hi = I >> 8 is an unsigned code with the
//! zero point 128 and lo = I & 255 one with the zero point 0. Then
//!
//! ```text
//! I·J = 2¹⁶·hi·hi' + 2⁸·hi·lo' + 2⁸·lo·hi' + lo·lo'
//! ```
//!
//! and a product of 4K columns, [hi | hi | lo | lo] by [hi' | lo' | hi' | lo'], has all four with their powers of two as the
//! scales of the quarter rows: [`DynamicFixedPoint::to_activation`] and [`DynamicFixedPoint::to_weight`]. Integers are added
//! over spans of 32 columns, where they stay below 2²⁴, and spilled to f32 from span to span, so no K overflows.

use crate::packed::check_finite;
use crate::{
    ElementFormat, FormatError, Granularity, MatrixFormat, PackedMatrix, ScaleLayout, ScaleType,
    ZeroKind, Zeros, layout::BLOCK,
};

/// The least exponent: 2ᴱ is a normal f32.
pub const MIN_EXPONENT: i32 = -126;

/// The largest exponent: 2ᴱ⁺⁸, the scale of the upper halves, is a finite f32.
pub const MAX_EXPONENT: i32 = 119;

/// What shares an exponent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SharedBy {
    /// The whole tensor.
    #[default]
    Tensor,
    /// Each row its own.
    Row,
}

/// A matrix of int16 codes under shared powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicFixedPoint {
    rows: usize,
    columns: usize,
    codes: Vec<i16>,
    /// One, or one a row.
    exponents: Vec<i32>,
}

/// ⌊log₂ absmax⌋ − 14, so that the largest magnitude takes 15 bits and a sign; at least [`MIN_EXPONENT`], also for values
/// that are all zero.
pub fn shared_exponent(values: &[f32]) -> i32 {
    let absmax = values
        .iter()
        .fold(0.0_f32, |max, value| max.max(value.abs()));
    // From bits, so that no logarithm rounds. Subnormals have the exponent field 0.
    let exponent = (absmax.to_bits() >> 23) as i32 - 127;
    (exponent - 14).max(MIN_EXPONENT)
}

/// 2^exponent, exactly.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

impl DynamicFixedPoint {
    /// Quantises `rows` × `columns` values: I = x·2⁻ᴱ to nearest, ties to even, with E by [`shared_exponent`]. What rounds up
    /// to 2¹⁵ becomes 2¹⁵ − 1.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] and [`FormatError::NonFinite`] for wrong values.
    pub fn quantize(
        values: &[f32],
        rows: usize,
        columns: usize,
        shared_by: SharedBy,
    ) -> Result<Self, FormatError> {
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(FormatError::Length {
                what: "values",
                expected: rows.saturating_mul(columns),
                found: values.len(),
            });
        }
        check_finite(values, columns)?;
        let exponents: Vec<i32> = match shared_by {
            SharedBy::Tensor => vec![shared_exponent(values)],
            SharedBy::Row if columns == 0 => vec![shared_exponent(&[]); rows],
            SharedBy::Row => values.chunks(columns).map(shared_exponent).collect(),
        };
        let code = |(index, &value): (usize, &f32)| {
            let exponent = exponent_of(&exponents, index / columns.max(1));
            // A power of two times an f32 is exact in f64.
            let scaled = f64::from(value) * power(-exponent);
            scaled.round_ties_even().clamp(-32768.0, 32767.0) as i16
        };
        Ok(Self {
            rows,
            columns,
            codes: values.iter().enumerate().map(code).collect(),
            exponents,
        })
    }

    /// A matrix of codes and exponents: one exponent for all, or one a row.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] for another number of either; [`FormatError::Exponent`] for an exponent outside
    /// [`MIN_EXPONENT`] to [`MAX_EXPONENT`].
    pub fn from_codes(
        rows: usize,
        columns: usize,
        codes: Vec<i16>,
        exponents: Vec<i32>,
    ) -> Result<Self, FormatError> {
        if rows.checked_mul(columns) != Some(codes.len()) {
            return Err(FormatError::Length {
                what: "codes",
                expected: rows.saturating_mul(columns),
                found: codes.len(),
            });
        }
        if exponents.len() != 1 && exponents.len() != rows {
            return Err(FormatError::Length {
                what: "exponents (one, or one a row)",
                expected: rows,
                found: exponents.len(),
            });
        }
        let range = MIN_EXPONENT..=MAX_EXPONENT;
        if let Some(&exponent) = exponents.iter().find(|&exponent| !range.contains(exponent)) {
            return Err(FormatError::Exponent {
                exponent,
                smallest: MIN_EXPONENT,
                largest: MAX_EXPONENT,
            });
        }
        Ok(Self {
            rows,
            columns,
            codes,
            exponents,
        })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The codes, row-major.
    pub fn codes(&self) -> &[i16] {
        &self.codes
    }

    /// The exponent of a row.
    pub fn exponent(&self, row: usize) -> i32 {
        exponent_of(&self.exponents, row)
    }

    /// The values I·2ᴱ, row-major. Exact, but that values below 2⁻¹²⁶ are subnormal f32.
    pub fn decode(&self) -> Vec<f32> {
        let value = |(index, &code): (usize, &i16)| {
            let exponent = self.exponent(index / self.columns.max(1));
            (f64::from(code) * power(exponent)) as f32
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    /// As the activations of a product with [`to_weight`](Self::to_weight): quarter rows [hi | hi | lo | lo] with scales
    /// [2ᴱ⁺⁸ | 2ᴱ⁺⁸ | 2ᴱ | 2ᴱ], each padded to a multiple of 32 columns with zeros, as `uint8` codes with zero points.
    ///
    /// # Errors
    ///
    /// [`FormatError`] for sizes beyond what a matrix may have.
    pub fn to_activation(&self) -> Result<PackedMatrix, FormatError> {
        self.to_packed([Piece::High, Piece::High, Piece::Low, Piece::Low])
    }

    /// As the weights of a product with [`to_activation`](Self::to_activation): quarter rows [hi | lo | hi | lo].
    ///
    /// # Errors
    ///
    /// [`FormatError`] for sizes beyond what a matrix may have.
    pub fn to_weight(&self) -> Result<PackedMatrix, FormatError> {
        self.to_packed([Piece::High, Piece::Low, Piece::High, Piece::Low])
    }

    fn to_packed(&self, pieces: [Piece; 4]) -> Result<PackedMatrix, FormatError> {
        let quarter = self.columns.next_multiple_of(BLOCK).max(BLOCK);
        let group =
            u32::try_from(quarter).map_err(|_| FormatError::GroupSize { group: u32::MAX })?;
        let format = MatrixFormat::new(
            ElementFormat::UINT8,
            Some(ScaleLayout {
                granularity: Granularity::Group(group),
                scale: ScaleType::F32,
                zero: ZeroKind::Integer,
            }),
        )?;
        let mut codes = Vec::with_capacity(4 * self.rows * quarter);
        let mut scales = Vec::with_capacity(4 * self.rows);
        let mut points = Vec::with_capacity(4 * self.rows);
        for row in 0..self.rows {
            let values = &self.codes[row * self.columns..][..self.columns];
            for piece in pieces {
                codes.extend(values.iter().map(|&code| piece.code(code)));
                codes.extend(std::iter::repeat_n(
                    piece.zero_point(),
                    quarter - self.columns,
                ));
                scales.push(power(self.exponent(row) + piece.shift()) as f32);
                points.push(piece.zero_point());
            }
        }
        let zeros = Zeros::Integer(&points);
        PackedMatrix::from_codes(format, self.rows, 4 * quarter, &codes, &scales, zeros)
    }
}

fn exponent_of(exponents: &[i32], row: usize) -> i32 {
    match exponents {
        [exponent] => *exponent,
        exponents => exponents.get(row).copied().unwrap_or(MIN_EXPONENT),
    }
}

/// A half of a code.
#[derive(Clone, Copy)]
enum Piece {
    High,
    Low,
}

impl Piece {
    const fn code(self, code: i16) -> u8 {
        match self {
            Self::High => ((code >> 8) + 128) as u8,
            Self::Low => (code & 0xff) as u8,
        }
    }

    const fn zero_point(self) -> u8 {
        match self {
            Self::High => 128,
            Self::Low => 0,
        }
    }

    const fn shift(self) -> i32 {
        match self {
            Self::High => 8,
            Self::Low => 0,
        }
    }
}

/// Accumulators of integer products, at an exponent, as int16 codes again: R = bitlen(max |acc|) − 15 bits drop out, halves
/// rounded up, I = (acc + 2ᴿ⁻¹) >> R, and the exponent grows by R. Accumulators that fit stay as they are, and what rounds
/// up to 2¹⁵ becomes 2¹⁵ − 1.
pub fn down_convert(accumulators: &[i32], exponent: i32) -> (Vec<i16>, i32) {
    let largest = accumulators
        .iter()
        .map(|accumulator| accumulator.unsigned_abs())
        .max()
        .unwrap_or(0);
    let bits = u32::BITS - largest.leading_zeros();
    let shift = bits.saturating_sub(15);
    let half = (1_i64 << shift) >> 1;
    let codes = accumulators
        .iter()
        .map(|&accumulator| ((i64::from(accumulator) + half) >> shift).clamp(-32768, 32767) as i16)
        .collect();
    (codes, exponent + shift as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        let values = [0.75, -3.2, 0.001];
        let matrix = DynamicFixedPoint::quantize(&values, 1, 3, SharedBy::Tensor).unwrap();
        assert_eq!(matrix.exponent(0), -13);
        assert_eq!(matrix.codes(), [6144, -26214, 8]);
        assert_eq!(matrix.decode(), [0.75, -26214.0 / 8192.0, 8.0 / 8192.0]);
        assert_eq!(down_convert(&[123_456_789], -20), (vec![30141], -8));
    }

    #[test]
    fn exponents_are_shared_by_tensor_or_row() {
        let values = [1.0, 3.0, 100.0, -0.5, 0.0, 0.0];
        let tensor = DynamicFixedPoint::quantize(&values, 3, 2, SharedBy::Tensor).unwrap();
        assert_eq!([0, 1, 2].map(|row| tensor.exponent(row)), [-8; 3]);
        let rows = DynamicFixedPoint::quantize(&values, 3, 2, SharedBy::Row).unwrap();
        assert_eq!(
            [0, 1, 2].map(|row| rows.exponent(row)),
            [-13, -8, MIN_EXPONENT]
        );
        assert_eq!(rows.codes(), [8192, 24576, 25600, -128, 0, 0]);
        assert_eq!(rows.decode(), values);
        // The largest magnitude takes 15 bits, and rounds no further.
        let below_two = 2.0_f32.next_down();
        let edge = DynamicFixedPoint::quantize(&[below_two, -below_two], 1, 2, SharedBy::Tensor);
        assert_eq!(edge.unwrap().codes(), [32767, -32768]);
        // Tiny values have fewer bits rather than powers of two that devices flush.
        let tiny = DynamicFixedPoint::quantize(&[1.0e-37], 1, 1, SharedBy::Tensor).unwrap();
        assert_eq!(
            (tiny.exponent(0), tiny.codes()),
            (MIN_EXPONENT, &[9_i16][..])
        );
    }

    #[test]
    fn accumulators_that_fit_stay() {
        assert_eq!(
            down_convert(&[32767, -32767, 0], 3),
            (vec![32767, -32767, 0], 3)
        );
        assert_eq!(down_convert(&[], 3), (vec![], 3));
        // 16 bits: half of it, halves up.
        assert_eq!(down_convert(&[65535, -3, 3], 0), (vec![32767, -1, 2], 1));
        assert_eq!(
            down_convert(&[i32::MIN, i32::MAX], 0),
            (vec![-16384, 16384], 17)
        );
        for accumulator in [40_000, -40_000, 1 << 24, -(1 << 24) + 1, i32::MAX] {
            let (codes, exponent) = down_convert(&[accumulator], 0);
            let step = 1_i64 << exponent;
            let error = i64::from(codes[0]) * step - i64::from(accumulator);
            assert!(error.abs() <= step, "{accumulator}");
        }
    }

    /// The 4K columns of the packed operands have the integer product of the codes, in f64.
    #[test]
    fn quarter_rows_multiply_to_the_product() {
        let code = |index: usize| (index as i64 * 2_654_435_761 % 65_536 - 32_768) as i16;
        for columns in [1, 32, 37] {
            let x: Vec<i16> = (0..2 * columns).map(code).collect();
            let w: Vec<i16> = (0..3 * columns).map(|index| code(index + 77)).collect();
            let x = DynamicFixedPoint::from_codes(2, columns, x, vec![-3, 2]).unwrap();
            let w = DynamicFixedPoint::from_codes(3, columns, w, vec![-5]).unwrap();
            let (a, b) = (x.to_activation().unwrap(), w.to_weight().unwrap());
            let (left, right) = (a.decode_f64(), b.decode_f64());
            let wide = a.columns();
            assert_eq!(wide, 4 * columns.next_multiple_of(32));
            for row in 0..2 {
                for column in 0..3 {
                    let product: f64 = left[row * wide..][..wide]
                        .iter()
                        .zip(&right[column * wide..][..wide])
                        .map(|(x, w)| x * w)
                        .sum();
                    let exact: i64 = (0..columns)
                        .map(|k| {
                            i64::from(x.codes()[row * columns + k])
                                * i64::from(w.codes()[column * columns + k])
                        })
                        .sum();
                    let scale = power(x.exponent(row) + w.exponent(column));
                    assert_eq!(product, exact as f64 * scale);
                }
            }
        }
    }

    #[test]
    fn wrong_input_is_refused() {
        let quantize = |values: &[f32]| DynamicFixedPoint::quantize(values, 1, 2, SharedBy::Row);
        assert!(quantize(&[1.0]).is_err());
        assert!(quantize(&[1.0, f32::INFINITY]).is_err());
        let from = |exponents| DynamicFixedPoint::from_codes(2, 1, vec![0; 2], exponents);
        assert!(from(vec![0, 0]).is_ok());
        assert!(from(vec![0; 3]).is_err());
        assert!(matches!(
            from(vec![120]),
            Err(FormatError::Exponent { exponent: 120, .. })
        ));
        assert!(from(vec![-127]).is_err());
        assert!(DynamicFixedPoint::from_codes(usize::MAX, 2, Vec::new(), vec![0]).is_err());
        let empty = DynamicFixedPoint::quantize(&[], 2, 0, SharedBy::Row).unwrap();
        assert_eq!(empty.to_weight().unwrap().columns(), 128);
    }
}
