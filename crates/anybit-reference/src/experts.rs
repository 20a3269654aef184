//! Products of mixtures of experts: each expert's rows of X by its own rows of W.

use std::ops::Range;

use anybit_formats::PackedMatrix;

use crate::ReferenceError;

/// The rows of X that each expert has, of `rows`: expert e those from `offsets[e]` to before `offsets[e + 1]`. Offsets past
/// the end count as the end; where they do not ascend, an expert has no rows.
pub fn segments(offsets: &[u32], rows: usize) -> Vec<Range<usize>> {
    let clamped = |offset: u32| rows.min(offset as usize);
    offsets
        .windows(2)
        .map(|pair| {
            let begin = clamped(pair[0]);
            begin..clamped(pair[1]).max(begin)
        })
        .collect()
}

/// What a kernel with `rows/experts.wgsl` makes: the `product` of each expert's rows of X with its matrix, of which W is a
/// stack; `None` where no expert has the row, which the kernel leaves as it is. Any function of [`kernel`](crate::kernel) may
/// be the product, or of [`exact`](crate::exact): an expert's rows change no other's.
///
/// ```
/// use anybit_formats::{ElementFormat, MatrixFormat, quantize};
/// use anybit_reference::{exact, experts};
///
/// # fn main() -> Result<(), anybit_reference::ReferenceError> {
/// let format = MatrixFormat::activation_default(ElementFormat::INT8);
/// let x = quantize(&[1.0; 3 * 32], 3, 32, format, None)?;
/// let w = quantize(&[1.0; 4 * 32], 4, 32, format, None)?;
/// // Two experts of two rows of W: the first has one row of X, the second the next; the third row has no expert.
/// let y = experts::gemm_experts(&x, &w, &[0, 1, 2], exact::gemm_f64)?;
/// assert_eq!(y.iter().filter(|value| value.is_some()).count(), 4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ReferenceError::Batches`] unless the rows of W make a matrix for each expert; those of the product.
pub fn gemm_experts<T: Clone>(
    x: &PackedMatrix,
    w: &PackedMatrix,
    offsets: &[u32],
    product: impl Fn(&PackedMatrix, &PackedMatrix) -> Result<Vec<T>, ReferenceError>,
) -> Result<Vec<Option<T>>, ReferenceError> {
    let segments = segments(offsets, x.rows());
    let n = w
        .rows()
        .checked_div(segments.len())
        .filter(|n| n * segments.len() == w.rows())
        .ok_or(ReferenceError::Batches {
            rows: w.rows(),
            batches: segments.len(),
        })?;
    let mut outputs = vec![None; x.rows() * n];
    for (expert, rows) in segments.into_iter().enumerate() {
        if rows.is_empty() {
            continue;
        }
        let w = w.row_range(expert * n..(expert + 1) * n)?;
        let values = product(&x.row_range(rows.clone())?, &w)?;
        for (output, value) in outputs[rows.start * n..].iter_mut().zip(values) {
            *output = Some(value);
        }
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use anybit_formats::{ElementFormat, MatrixFormat, Zeros};

    use super::*;
    use crate::exact;

    fn codes(rows: usize, first: u8) -> PackedMatrix {
        let format = MatrixFormat::new(ElementFormat::UINT8, None).unwrap();
        let codes: Vec<u8> = (0..rows as u8).map(|row| first + row).collect();
        PackedMatrix::from_codes(format, rows, 1, &codes, &[], Zeros::None).unwrap()
    }

    #[test]
    fn each_row_meets_its_expert() {
        let (x, w) = (codes(5, 1), codes(6, 10));
        // The second expert has no rows, and the last row no expert.
        let found = gemm_experts(&x, &w, &[0, 2, 2, 4], exact::gemm_i64).unwrap();
        let expected = [10, 11, 20, 22, 3 * 14, 3 * 15, 4 * 14, 4 * 15];
        let expected = expected.into_iter().map(Some).chain([None, None]);
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn offsets_are_clamped() {
        assert_eq!(segments(&[3, 9, 1, 2], 5), [3..5, 5..5, 1..2]);
        assert!(segments(&[4], 5).is_empty());
    }

    #[test]
    fn weights_must_be_whole_experts() {
        let (x, w) = (codes(5, 1), codes(5, 1));
        for offsets in [&[0, 2, 5][..], &[0], &[]] {
            let found = gemm_experts(&x, &w, offsets, exact::gemm_i64);
            assert!(
                matches!(found, Err(ReferenceError::Batches { rows: 5, .. })),
                "{offsets:?}"
            );
        }
    }
}
