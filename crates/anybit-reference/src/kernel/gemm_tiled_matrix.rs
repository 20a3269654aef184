//! The twin of `kernel/gemm_tiled_matrix.wgsl`.

use anybit_formats::{ElementFormat, PackedMatrix, ZeroKind};

use super::integer::Scale;
use crate::ReferenceError;
use crate::integers::is_grouped;
use crate::problem::{Batches, Problem};

/// The header constants of the matrix kernel that change its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragments {
    /// `FRAGMENT`: products that a multiply-add of fragments adds up at once.
    pub size: usize,
    /// `SPILL`: columns after which the sums of fragments are taken up as integers, or scaled. A multiple of the size that
    /// divides every scale group.
    pub spill: usize,
}

/// An output of the matrix kernel: i32 or f32.
pub trait MatrixOutput: sealed::Output {}

impl MatrixOutput for i32 {}
impl MatrixOutput for f32 {}

/// Y = X · Wᵀ of elements that f16 holds: f32 sums in fragments, spilled every so many columns.
///
/// A multiply-add of fragments adds its products up from left to right, then the sum so far. Hardware may take them in any
/// order; of integers, whose sums stay below 2²⁴, that makes no difference.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for formats with values that f16 does not hold, and for others than integers with i32 outputs;
/// [`ReferenceError::ActivationMinimum`] for activations that have minima; [`ReferenceError::Grouped`] for scale groups with i32
/// outputs; [`ReferenceError::Constant`] for fragments that the kernel cannot have; [`ReferenceError::Columns`],
/// [`ReferenceError::Batches`] and [`ReferenceError::TooLarge`] for shapes that do not fit.
pub fn gemm_tiled_matrix<O: MatrixOutput>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    fragments: Fragments,
) -> Result<Vec<O>, ReferenceError> {
    for matrix in [x, w] {
        if !matrix.format().element().fits_f16() {
            return Err(ReferenceError::NotCodes {
                format: *matrix.format(),
            });
        }
    }
    if x.format().zero_kind() == ZeroKind::Minimum {
        return Err(ReferenceError::ActivationMinimum {
            format: *x.format(),
        });
    }
    fragments.check(x, w)?;
    O::multiply(x, w, batches, fragments)
}

impl Fragments {
    fn check(self, x: &PackedMatrix, w: &PackedMatrix) -> Result<(), ReferenceError> {
        if !matches!(self.size, 8 | 16) {
            return Err(ReferenceError::Constant {
                what: "FRAGMENT",
                expected: "8 or 16",
                found: self.size,
            });
        }
        let divides = |matrix: &PackedMatrix| {
            let format = matrix.format();
            !is_grouped(format)
                || format
                    .group_len(matrix.columns())
                    .is_multiple_of(self.spill.max(1))
        };
        if self.spill == 0 || !self.spill.is_multiple_of(self.size) || !divides(x) || !divides(w) {
            return Err(ReferenceError::Constant {
                what: "SPILL",
                expected: "a multiple of FRAGMENT that divides every scale group",
                found: self.spill,
            });
        }
        Ok(())
    }

    /// The sums of every spill of a row with another, and those of the row's own elements.
    fn spills(self, x: &[f32], w: &[f32]) -> impl Iterator<Item = (f32, f32)> {
        x.chunks(self.spill)
            .zip(w.chunks(self.spill))
            .map(move |(x, w)| {
                let fragments = x.chunks(self.size).zip(w.chunks(self.size));
                let sum = fragments.fold(0.0, |sum, (x, w)| {
                    let products = x.iter().zip(w).map(|(x, w)| x * w);
                    sum + products.fold(0.0, |sum, product| sum + product)
                });
                (sum, x.iter().sum())
            })
    }
}

/// `scl_shift` of every value, row-major: not yet scaled.
fn shifted(matrix: &PackedMatrix) -> Vec<f32> {
    let element = matrix.format().element();
    let columns = matrix.columns();
    if let ElementFormat::Float(_) = element {
        return matrix.decode();
    }
    let group_len = matrix.format().group_len(columns).max(1);
    let codes = matrix.unpack_codes();
    codes
        .iter()
        .enumerate()
        .map(|(index, &code)| {
            let (row, group) = (index / columns, index % columns / group_len);
            let choice = matrix.choice(row, group);
            let value = element.code_value_with(code, choice).unwrap_or(f32::NAN);
            value - matrix.zero_point(row, group) as f32
        })
        .collect()
}

fn integers(x: &PackedMatrix, w: &PackedMatrix) -> bool {
    [x, w]
        .iter()
        .all(|matrix| matrix.format().element().affine().is_some())
}

/// The walk over the outputs; `multiply` makes one of the rows of X and W and their indices.
fn outputs<T: Copy + Default + Send>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    multiply: impl Fn((usize, &[f32]), (usize, &[f32]), &PackedMatrix) -> T + Sync,
) -> Result<Vec<T>, ReferenceError> {
    let problem = Problem::new(x, w, batches)?;
    let k = problem.k;
    let xs = shifted(x);
    problem.fill(|part, out| {
        let w = w.row_range(part.weight.clone())?;
        let ws = shifted(&w);
        let count = part.weight.len();
        for (row, out) in part.activation.clone().zip(out.chunks_exact_mut(count)) {
            let x = &xs[row * k..][..k];
            for (column, out) in out.iter_mut().enumerate() {
                *out = multiply((row, x), (column, &ws[column * k..][..k]), &w);
            }
        }
        Ok(())
    })
}

mod sealed {
    use super::{
        Batches, Fragments, PackedMatrix, ReferenceError, Scale, ZeroKind, integers, is_grouped,
        outputs,
    };

    pub trait Output: Copy + Default + Send {
        fn multiply(
            x: &PackedMatrix,
            w: &PackedMatrix,
            batches: Batches,
            fragments: Fragments,
        ) -> Result<Vec<Self>, ReferenceError>;
    }

    impl Output for i32 {
        /// `spill/whole_i32.wgsl`.
        fn multiply(
            x: &PackedMatrix,
            w: &PackedMatrix,
            batches: Batches,
            fragments: Fragments,
        ) -> Result<Vec<Self>, ReferenceError> {
            for matrix in [x, w] {
                let format = *matrix.format();
                if format.element().affine().is_none() {
                    return Err(ReferenceError::NotCodes { format });
                }
                if is_grouped(&format) {
                    return Err(ReferenceError::Grouped { format });
                }
            }
            outputs(x, w, batches, |(_, x), (_, w), _| {
                let spills = fragments.spills(x, w);
                spills.fold(0_i32, |sum, (value, _)| sum.wrapping_add(value as i32))
            })
        }
    }

    impl Output for f32 {
        /// `spill/whole_f32.wgsl` and `spill/scaled.wgsl`.
        fn multiply(
            x: &PackedMatrix,
            w: &PackedMatrix,
            batches: Batches,
            fragments: Fragments,
        ) -> Result<Vec<Self>, ReferenceError> {
            let grouped = [x, w].map(|matrix| is_grouped(matrix.format()));
            let minimum = w.format().zero_kind() == ZeroKind::Minimum;
            let activation = x;
            if integers(x, w) && grouped == [false; 2] {
                return outputs(x, w, batches, |(row, x), (column, w), weight| {
                    let (mut sum, mut row_sum) = (0_i32, 0_i32);
                    for (value, elements) in fragments.spills(x, w) {
                        sum = sum.wrapping_add(value as i32);
                        row_sum = row_sum.wrapping_add(elements as i32);
                    }
                    let scale = Scale::at(weight, column, 0);
                    let mut value = sum as f32 * scale.scale;
                    if minimum {
                        value += row_sum as f32 * scale.minimum;
                    }
                    value * Scale::at(activation, row, 0).scale
                });
            }
            outputs(x, w, batches, |(row, x), (column, w), weight| {
                let mut sum = 0.0;
                for (index, (value, elements)) in fragments.spills(x, w).enumerate() {
                    let scale = Scale::at(weight, column, index * fragments.spill);
                    let mut scaled = value * scale.scale;
                    if minimum {
                        scaled += elements * scale.minimum;
                    }
                    if grouped[0] {
                        scaled *= Scale::at(activation, row, index * fragments.spill).scale;
                    }
                    sum += scaled;
                }
                if grouped[0] {
                    sum
                } else {
                    sum * Scale::at(activation, row, 0).scale
                }
            })
        }
    }
}
