//! Complex matrices whose entries are 1, i, −1 or −i under two scales: iFairy (arXiv 2508.05571).
//!
//! An entry is quantised by its phase, and a real and an imaginary unit have a scale each. The product of a linear layer is
//! y = Σ conj(x)·w, so with x = x_r + i·x_i and w = w_r + i·w_i
//!
//! ```text
//! y_r = x_r·w_r + x_i·w_i
//! y_i = x_r·w_i − x_i·w_r
//! ```
//!
//! Kernels for real matrices do it: an entry is ±1 in one of two ternary matrices T_r and T_i, and
//!
//! ```text
//!                        ⎡ α_r·T_r   α_i·T_i ⎤ ᵀ
//! [y_r | y_i] = [x_r|x_i]⎣ α_i·T_i  −α_r·T_r ⎦
//! ```
//!
//! is one product of M × 2K activations with 2N × 2K weights. [`UnitComplexMatrix::to_ternary`] makes the weights, whose half
//! rows are scale groups; [`stack`] lays activations out beside them.

use crate::packed::check_finite;
use crate::{
    ElementFormat, FormatError, Granularity, MatrixFormat, PackedMatrix, ScaleLayout, ScaleType,
    ZeroKind, Zeros, layout::BLOCK,
};

/// A matrix of the units 1, i, −1 and −i with a scale for ±1 and one for ±i.
///
/// A code has two bits: bit 0 is the axis, 1 for ±i, and bit 1 the sign, 1 for minus. So 0, 1, 2 and 3 are 1, i, −1 and −i,
/// and code c is iᶜ.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitComplexMatrix {
    /// Bare `uint2`.
    codes: PackedMatrix,
    real_scale: f32,
    imaginary_scale: f32,
}

/// The code of the unit next to re + i·im by its phase φ: 1 for −π/4 ≤ φ < π/4, i for π/4 ≤ φ < 3π/4, −i for
/// −3π/4 ≤ φ < −π/4, and −1 for all others. 0 + 0i, whose phase is taken as 0, becomes 1.
pub fn unit_code(re: f32, im: f32) -> u8 {
    if re > 0.0 && -re <= im && im < re {
        0
    } else if im > 0.0 && -im < re && re <= im {
        1
    } else if im < 0.0 && im <= re && re < -im {
        3
    } else if re == 0.0 && im == 0.0 {
        0
    } else {
        2
    }
}

/// The real and the imaginary part of a code's unit, −1, 0 or 1 each.
pub const fn unit(code: u8) -> (i8, i8) {
    match code & 3 {
        0 => (1, 0),
        1 => (0, 1),
        2 => (-1, 0),
        _ => (0, -1),
    }
}

/// Columns of a half row: K up to whole blocks, at least one.
fn half_row(columns: usize) -> usize {
    columns.next_multiple_of(BLOCK).max(BLOCK)
}

/// [`FormatError::Length`] unless there are `rows` × `columns` values.
fn check_length(
    what: &'static str,
    found: usize,
    rows: usize,
    columns: usize,
) -> Result<(), FormatError> {
    match rows.checked_mul(columns) {
        Some(expected) if expected == found => Ok(()),
        expected => Err(FormatError::Length {
            what,
            expected: expected.unwrap_or(usize::MAX),
            found,
        }),
    }
}

/// The format of stacked matrices of an element: a f32 scale for each half of a row of `columns` complex columns.
///
/// # Errors
///
/// [`FormatError`] where the element takes no such scales.
pub fn stacked_format(element: ElementFormat, columns: usize) -> Result<MatrixFormat, FormatError> {
    let group = half_row(columns);
    let group = u32::try_from(group).map_err(|_| FormatError::GroupSize { group: u32::MAX })?;
    MatrixFormat::new(
        element,
        Some(ScaleLayout {
            granularity: Granularity::Group(group),
            scale: ScaleType::F32,
            zero: ZeroKind::None,
        }),
    )
}

/// The rows [re | im] of complex activations, row-major: each half is padded with zeros to a multiple of 32 columns.
///
/// Quantised with [`stacked_format`], int8 for instance, re and im of every row have scales of their own. On a GPU the same
/// rows are two copies into one buffer: re and im of row m start m·2P and m·2P + P elements into it, where P is the padded
/// length, and what is between them is 0.
///
/// # Errors
///
/// [`FormatError::Length`] unless both parts have `rows` × `columns` values.
pub fn stack(re: &[f32], im: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>, FormatError> {
    check_length("real parts", re.len(), rows, columns)?;
    check_length("imaginary parts", im.len(), rows, columns)?;
    let half = half_row(columns);
    let mut stacked = vec![0.0; 2 * rows * half];
    for (row, stacked) in stacked.chunks_exact_mut(2 * half).enumerate() {
        let part = row * columns..(row + 1) * columns;
        stacked[..columns].copy_from_slice(&re[part.clone()]);
        stacked[half..half + columns].copy_from_slice(&im[part]);
    }
    Ok(stacked)
}

impl UnitComplexMatrix {
    /// Quantises re + i·im, row-major, by phase ([`unit_code`]). α_r is the mean |re| of the entries that become ±1 and α_i
    /// the mean |im| of those that become ±i; 0 where there are none.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] and [`FormatError::NonFinite`] for wrong values.
    pub fn quantize(
        re: &[f32],
        im: &[f32],
        rows: usize,
        columns: usize,
    ) -> Result<Self, FormatError> {
        check_length("real parts", re.len(), rows, columns)?;
        check_length("imaginary parts", im.len(), rows, columns)?;
        check_finite(re, columns)?;
        check_finite(im, columns)?;
        let codes: Vec<u8> = re
            .iter()
            .zip(im)
            .map(|(&re, &im)| unit_code(re, im))
            .collect();
        // The magnitude that counts is that along the entry's own axis.
        let mean = |axis: u8, parts: &[f32]| {
            let on_axis = codes
                .iter()
                .zip(parts)
                .filter(|&(&code, _)| code & 1 == axis);
            let (count, sum) = on_axis.fold((0_u64, 0.0), |(count, sum), (_, &part)| {
                (count + 1, sum + f64::from(part.abs()))
            });
            if count == 0 {
                0.0
            } else {
                (sum / count as f64) as f32
            }
        };
        let (real_scale, imaginary_scale) = (mean(0, re), mean(1, im));
        Self::from_codes(rows, columns, &codes, real_scale, imaginary_scale)
    }

    /// A matrix of codes, row-major, and scales.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] for another number of codes; [`FormatError::CodeTooLarge`] for a code above 3;
    /// [`FormatError::NonFinite`] for a scale that is not finite.
    pub fn from_codes(
        rows: usize,
        columns: usize,
        codes: &[u8],
        real_scale: f32,
        imaginary_scale: f32,
    ) -> Result<Self, FormatError> {
        check_finite(&[real_scale, imaginary_scale], 2)?;
        let format = MatrixFormat::new(ElementFormat::UINT2, None)?;
        Ok(Self {
            codes: PackedMatrix::from_codes(format, rows, columns, codes, &[], Zeros::None)?,
            real_scale,
            imaginary_scale,
        })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.codes.rows()
    }

    /// Complex columns.
    pub fn columns(&self) -> usize {
        self.codes.columns()
    }

    /// The codes, two bits each, as a matrix of bare `uint2`: 16 a word, as `docs/packing.md` has it.
    pub fn packed_codes(&self) -> &PackedMatrix {
        &self.codes
    }

    /// The codes, row-major.
    pub fn codes(&self) -> Vec<u8> {
        let code = |row, column| self.codes.code(row, column).unwrap_or(0);
        (0..self.rows())
            .flat_map(|row| (0..self.columns()).map(move |column| code(row, column)))
            .collect()
    }

    /// α_r, the scale of ±1.
    pub fn real_scale(&self) -> f32 {
        self.real_scale
    }

    /// α_i, the scale of ±i.
    pub fn imaginary_scale(&self) -> f32 {
        self.imaginary_scale
    }

    /// The real and the imaginary parts, row-major.
    pub fn decode(&self) -> (Vec<f32>, Vec<f32>) {
        let part = |unit: i8, scale: f32| match unit {
            0 => 0.0,
            unit => f32::from(unit) * scale,
        };
        let parts = self.codes().into_iter().map(unit);
        parts
            .map(|(re, im)| (part(re, self.real_scale), part(im, self.imaginary_scale)))
            .unzip()
    }

    /// The codes of the 2N × 2K ternary matrix [T_r | T_i ; T_i | −T_r], each half padded to a multiple of 32 columns with
    /// the code of 0.
    fn ternary_codes(&self) -> Vec<u8> {
        let (rows, columns, half) = (self.rows(), self.columns(), half_row(self.columns()));
        let mut ternary = vec![1_u8; 4 * rows * half];
        let code = |value: i8| (value + 1) as u8;
        for (index, unit) in self.codes().into_iter().map(unit).enumerate() {
            let (row, column) = (index / columns, index % columns);
            let real = row * 2 * half + column;
            let imaginary = (rows + row) * 2 * half + column;
            let (re, im) = unit;
            ternary[real] = code(re);
            ternary[real + half] = code(im);
            ternary[imaginary] = code(im);
            ternary[imaginary + half] = code(-re);
        }
        ternary
    }

    /// The real 2N × 2K matrix [α_r·T_r | α_i·T_i ; α_i·T_i | −α_r·T_r] as ternary codes with a scale for each half row.
    /// Each half is padded to a multiple of 32 columns with zeros, as [`stack`] pads activations.
    ///
    /// The product of [`stack`]ed activations with it is [y_r | y_i].
    ///
    /// # Errors
    ///
    /// [`FormatError`] for sizes beyond what a matrix may have.
    pub fn to_ternary(&self) -> Result<PackedMatrix, FormatError> {
        let (rows, columns) = (self.rows(), self.columns());
        let format = stacked_format(ElementFormat::TERNARY, columns)?;
        let (re, im) = (self.real_scale, self.imaginary_scale);
        let scales: Vec<f32> = [[re, im], [im, re]]
            .into_iter()
            .flat_map(|scales| std::iter::repeat_n(scales, rows))
            .flatten()
            .collect();
        let codes = self.ternary_codes();
        PackedMatrix::from_codes(
            format,
            2 * rows,
            2 * half_row(columns),
            &codes,
            &scales,
            Zeros::None,
        )
    }

    /// The integers [T_r | T_i ; T_i | −T_r] alone, bare ternary codes padded as [`to_ternary`](Self::to_ternary) pads them:
    /// for exact integer products.
    ///
    /// # Errors
    ///
    /// [`FormatError`] for sizes beyond what a matrix may have.
    pub fn to_bare_ternary(&self) -> Result<PackedMatrix, FormatError> {
        let format = MatrixFormat::new(ElementFormat::TERNARY, None)?;
        let columns = 2 * half_row(self.columns());
        let codes = self.ternary_codes();
        PackedMatrix::from_codes(format, 2 * self.rows(), columns, &codes, &[], Zeros::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boundaries by their phases, and points beside them.
    #[test]
    fn codes_go_by_the_phase() {
        for step in 0..8 {
            let (re, im) = [
                (1.0, 0.0),
                (1.0, 1.0),
                (0.0, 1.0),
                (-1.0, 1.0),
                (-1.0, 0.0),
                (-1.0, -1.0),
                (0.0, -1.0),
                (1.0, -1.0),
            ][step];
            // From each boundary on, the next unit counterclockwise.
            let expected = [0, 1, 1, 2, 2, 3, 3, 0][step];
            assert_eq!(unit_code(re, im), expected, "{re} {im}");
        }
        let mut wrong = 0;
        for index in 0..10_000 {
            let phase = f64::from(index) * 0.000_628_3 - std::f64::consts::PI + 1e-5;
            let expected = match (phase / std::f64::consts::FRAC_PI_4).floor() as i32 {
                -1 | 0 => 0,
                1 | 2 => 1,
                -3 | -2 => 3,
                _ => 2,
            };
            let size = 1.0 + f64::from(index % 7);
            let code = unit_code((size * phase.cos()) as f32, (size * phase.sin()) as f32);
            wrong += usize::from(code != expected);
        }
        assert_eq!(wrong, 0);
        for zero in [(0.0, 0.0), (-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0)] {
            assert_eq!(unit_code(zero.0, zero.1), 0);
        }
        assert_eq!([0, 1, 2, 3].map(unit), [(1, 0), (0, 1), (-1, 0), (0, -1)]);
    }

    #[test]
    fn scales_are_means_along_each_axis() {
        let re = [2.0, 0.5, -4.0, 0.25];
        let im = [1.0, 3.0, 1.0, -5.0];
        let matrix = UnitComplexMatrix::quantize(&re, &im, 2, 2).unwrap();
        assert_eq!(matrix.codes(), [0, 1, 2, 3]);
        assert_eq!((matrix.real_scale(), matrix.imaginary_scale()), (3.0, 4.0));
        let (re, im) = matrix.decode();
        assert_eq!(re, [3.0, 0.0, -3.0, 0.0]);
        assert_eq!(im, [0.0, 4.0, 0.0, -4.0]);
        // Two bits a code.
        assert_eq!(matrix.packed_codes().format().to_string(), "u2");
        let image = matrix
            .packed_codes()
            .to_device(&crate::DeviceLayout::ROW_MAJOR)
            .unwrap();
        // Codes 0 and 1 of a row are in the first two bytes of its first word.
        assert_eq!((image.codes[0], image.codes[2]), (0x100, 0x302));

        let only_real = UnitComplexMatrix::quantize(&[1.0; 3], &[0.0; 3], 1, 3).unwrap();
        assert_eq!(
            (only_real.real_scale(), only_real.imaginary_scale()),
            (1.0, 0.0)
        );
    }

    /// w = i and x = 3 + 5i: conj(x)·w = (3 − 5i)·i = 5 + 3i.
    #[test]
    fn the_product_conjugates_activations() {
        let w = UnitComplexMatrix::from_codes(1, 1, &[1], 1.0, 1.0).unwrap();
        let x = stack(&[3.0], &[5.0], 1, 1).unwrap();
        let ternary = w.to_ternary().unwrap();
        assert_eq!(ternary.format().to_string(), "tg32f");
        let values = ternary.decode();
        let y: Vec<f32> = values
            .chunks(64)
            .map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum())
            .collect();
        assert_eq!(y, [5.0, 3.0]);
    }

    #[test]
    fn ternary_halves_are_padded_and_scaled() {
        let codes: Vec<u8> = (0..3 * 40).map(|index| (index * 7 % 5 % 4) as u8).collect();
        let matrix = UnitComplexMatrix::from_codes(3, 40, &codes, 0.5, 0.25).unwrap();
        let (re, im) = matrix.decode();
        let ternary = matrix.to_ternary().unwrap();
        assert_eq!((ternary.rows(), ternary.columns()), (6, 128));
        assert_eq!(ternary.format().to_string(), "tg64f");
        let values = ternary.decode();
        let bare = matrix.to_bare_ternary().unwrap().decode();
        for row in 0..3 {
            for column in 0..64 {
                let at = |values: &[f32], row: usize, half: usize| {
                    values[row * 128 + half * 64 + column]
                };
                let (re, im) = match column {
                    0..40 => (re[row * 40 + column], im[row * 40 + column]),
                    _ => (0.0, 0.0),
                };
                assert_eq!(at(&values, row, 0), re);
                assert_eq!(at(&values, row, 1), im);
                assert_eq!(at(&values, 3 + row, 0), im);
                assert_eq!(at(&values, 3 + row, 1), -re);
                assert_eq!(at(&bare, 3 + row, 1), -2.0 * re);
                assert_eq!(at(&bare, row, 1), 4.0 * im);
            }
        }
    }

    #[test]
    fn wrong_input_is_refused() {
        assert!(UnitComplexMatrix::quantize(&[1.0; 4], &[1.0; 3], 2, 2).is_err());
        assert!(UnitComplexMatrix::quantize(&[1.0], &[f32::NAN], 1, 1).is_err());
        assert!(UnitComplexMatrix::from_codes(1, 1, &[4], 1.0, 1.0).is_err());
        assert!(UnitComplexMatrix::from_codes(1, 1, &[0], f32::INFINITY, 1.0).is_err());
        assert!(UnitComplexMatrix::from_codes(usize::MAX, 2, &[0], 1.0, 1.0).is_err());
        assert!(stack(&[1.0], &[1.0; 2], 1, 2).is_err());
        // Empty matrices are matrices.
        let empty = UnitComplexMatrix::quantize(&[], &[], 3, 0).unwrap();
        assert_eq!(empty.to_ternary().unwrap().columns(), 64);
        let none = UnitComplexMatrix::quantize(&[], &[], 0, 5).unwrap();
        assert_eq!(none.to_ternary().unwrap().rows(), 0);
    }
}
