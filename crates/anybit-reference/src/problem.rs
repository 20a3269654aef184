//! Shape of a product: which rows meet which.

use std::ops::Range;

use anybit_formats::{FloatFormat, PackedMatrix};
use rayon::prelude::*;

use crate::ReferenceError;

/// How the rows of two stacked operands pair up: batch b multiplies the b-th part of each, or all of an operand that is
/// broadcast.
///
/// With `count` batches of M × K activations and N × K weights, the activations have `count` · M rows, or M where they
/// are broadcast, and the weights likewise. The outputs are `count` matrices of M × N, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batches {
    /// Batches, at least 1.
    pub count: usize,
    /// Every batch takes the same activations.
    pub broadcast_activation: bool,
    /// Every batch takes the same weights.
    pub broadcast_weight: bool,
}

impl Batches {
    /// One product of two whole matrices.
    pub const ONE: Self = Self {
        count: 1,
        broadcast_activation: false,
        broadcast_weight: false,
    };
}

impl Default for Batches {
    fn default() -> Self {
        Self::ONE
    }
}

/// f32 activations, row-major with `columns` a row, as a matrix.
///
/// # Errors
///
/// [`ReferenceError::Length`] unless the values make whole rows; [`ReferenceError::Format`] for a value that is not
/// finite.
pub fn activations(values: &[f32], columns: usize) -> Result<PackedMatrix, ReferenceError> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    if rows * columns != values.len() {
        return Err(ReferenceError::Length {
            what: "activations (whole rows of K)",
            expected: rows * columns,
            found: values.len(),
        });
    }
    Ok(PackedMatrix::from_f32(
        FloatFormat::F32,
        rows,
        columns,
        values,
    )?)
}

/// A checked shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    batches: Batches,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// The outputs of one batch for a few rows of W.
pub(crate) struct Part {
    /// Rows of X.
    pub(crate) activation: Range<usize>,
    /// Rows of W.
    pub(crate) weight: Range<usize>,
    /// Index of the first output.
    start: usize,
}

/// Rows of W that a task takes: enough to reuse a row of X, few enough to stay in cache.
const PART_ROWS: usize = 48;

impl Problem {
    pub(crate) fn new(
        x: &PackedMatrix,
        w: &PackedMatrix,
        batches: Batches,
    ) -> Result<Self, ReferenceError> {
        if x.columns() != w.columns() {
            return Err(ReferenceError::Columns {
                activation: x.columns(),
                weight: w.columns(),
            });
        }
        let part = |rows: usize, broadcast: bool| {
            let part = if broadcast && batches.count > 0 {
                Some(rows)
            } else {
                rows.checked_div(batches.count)
                    .filter(|part| part * batches.count == rows)
            };
            part.ok_or(ReferenceError::Batches {
                rows,
                batches: batches.count,
            })
        };
        let m = part(x.rows(), batches.broadcast_activation)?;
        let n = part(w.rows(), batches.broadcast_weight)?;
        let bytes = batches
            .count
            .checked_mul(m)
            .and_then(|rows| rows.checked_mul(n))
            .and_then(|outputs| outputs.checked_mul(8));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(ReferenceError::TooLarge {
                batches: batches.count,
                m,
                n,
            });
        }
        Ok(Self {
            batches,
            m,
            n,
            k: x.columns(),
        })
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.batches.count * self.m * self.n
    }

    pub(crate) fn batch_count(&self) -> usize {
        self.batches.count
    }

    /// Rows of X that batch `batch` takes.
    pub(crate) fn activation_rows(&self, batch: usize) -> Range<usize> {
        let batch = if self.batches.broadcast_activation {
            0
        } else {
            batch
        };
        batch * self.m..(batch + 1) * self.m
    }

    /// Rows of W that batch `batch` takes.
    pub(crate) fn weight_rows(&self, batch: usize) -> Range<usize> {
        let batch = if self.batches.broadcast_weight {
            0
        } else {
            batch
        };
        batch * self.n..(batch + 1) * self.n
    }

    /// The outputs, made in parallel: `fill` gets a part and a buffer of its M × (rows of W) outputs, row-major.
    pub(crate) fn fill<T, F>(&self, fill: F) -> Result<Vec<T>, ReferenceError>
    where
        T: Copy + Default + Send,
        F: Fn(&Part, &mut [T]) -> Result<(), ReferenceError> + Sync,
    {
        let parts: Vec<Part> = (0..self.batches.count)
            .flat_map(|batch| {
                let weight = self.weight_rows(batch);
                (0..self.n).step_by(PART_ROWS).map(move |first| Part {
                    activation: self.activation_rows(batch),
                    weight: weight.start + first..weight.start + self.n.min(first + PART_ROWS),
                    start: batch * self.m * self.n + first,
                })
            })
            .collect();
        let filled = |part: &Part| {
            let mut buffer = vec![T::default(); self.m * part.weight.len()];
            fill(part, &mut buffer).map(|()| buffer)
        };
        let filled = match &parts[..] {
            // No other thread is needed.
            [part] => vec![filled(part)?],
            parts => parts.par_iter().map(filled).collect::<Result<_, _>>()?,
        };
        let mut outputs = vec![T::default(); self.outputs()];
        for (part, buffer) in parts.iter().zip(&filled) {
            let len = part.weight.len();
            for (row, values) in buffer.chunks_exact(len).enumerate() {
                outputs[part.start + row * self.n..][..len].copy_from_slice(values);
            }
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use anybit_formats::{ElementFormat, MatrixFormat, Zeros};

    use super::*;

    fn codes(rows: usize, columns: usize) -> PackedMatrix {
        let format = MatrixFormat::new(ElementFormat::UINT8, None).unwrap();
        let codes: Vec<u8> = (0..rows * columns).map(|i| i as u8).collect();
        PackedMatrix::from_codes(format, rows, columns, &codes, &[], Zeros::None).unwrap()
    }

    #[test]
    fn shapes_that_do_not_pair_are_refused() {
        let (x, w) = (codes(6, 4), codes(9, 4));
        assert_eq!(
            Problem::new(&x, &codes(9, 5), Batches::ONE).err(),
            Some(ReferenceError::Columns {
                activation: 4,
                weight: 5
            })
        );
        let batches = |count| Batches {
            count,
            ..Batches::ONE
        };
        assert!(Problem::new(&x, &w, batches(3)).is_ok());
        assert_eq!(
            Problem::new(&x, &w, batches(2)).err(),
            Some(ReferenceError::Batches {
                rows: 9,
                batches: 2
            })
        );
        assert_eq!(
            Problem::new(&x, &w, batches(0)).err(),
            Some(ReferenceError::Batches {
                rows: 6,
                batches: 0
            })
        );
    }

    #[test]
    fn every_output_is_filled_once_with_its_own_rows() {
        let (x, w) = (codes(6, 4), codes(300, 4));
        for (broadcast_activation, broadcast_weight) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let batches = Batches {
                count: 3,
                broadcast_activation,
                broadcast_weight,
            };
            let problem = Problem::new(&x, &w, batches).unwrap();
            let rows: Vec<(usize, usize)> = problem
                .fill(|part, out| {
                    let pairs = part
                        .activation
                        .clone()
                        .flat_map(|m| part.weight.clone().map(move |n| (m, n)));
                    for (out, pair) in out.iter_mut().zip(pairs) {
                        *out = pair;
                    }
                    Ok(())
                })
                .unwrap();
            let m = if broadcast_activation { 6 } else { 2 };
            let n = if broadcast_weight { 300 } else { 100 };
            assert_eq!(rows.len(), 3 * m * n);
            for (index, &pair) in rows.iter().enumerate() {
                let (batch, row, column) = (index / (m * n), index / n % m, index % n);
                let x_batch = if broadcast_activation { 0 } else { batch };
                let w_batch = if broadcast_weight { 0 } else { batch };
                assert_eq!(pair, (x_batch * m + row, w_batch * n + column));
            }
        }
    }

    #[test]
    fn activations_are_whole_finite_rows() {
        assert_eq!(activations(&[1.0; 6], 3).unwrap().rows(), 2);
        assert!(activations(&[1.0; 7], 3).is_err());
        assert!(activations(&[f32::NAN; 3], 3).is_err());
        assert_eq!(activations(&[], 0).unwrap().rows(), 0);
        assert!(activations(&[1.0], 0).is_err());
    }
}
