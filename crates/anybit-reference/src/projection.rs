//! A quick check of integer products too large to compute again.

use std::ops::Range;

use anybit_formats::PackedMatrix;
use rayon::prelude::*;

use crate::ReferenceError;
use crate::integers::check_codes;
use crate::problem::{Batches, Problem};

/// Rounds of the check, each with its own vector.
const ROUNDS: u64 = 2;

/// Entries of the random vectors are below 2²⁰, so that N · 510 · 2²⁰ fits an i64 for every N below 2³².
const ENTRY_BITS: u32 = 20;

/// A row of an integer product that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongRow {
    /// Its batch.
    pub batch: usize,
    /// Its row in the batch.
    pub row: usize,
    /// Y·r of the row.
    pub found: i128,
    /// X·(Wᵀ·r) of the row.
    pub expected: i128,
}

/// Checks i32 outputs Y = X·Wᵀ (integers a·u + b − z, scales ignored) without computing them: Y·r = X·(Wᵀ·r) for
/// random vectors r, exactly. Returns the first wrong row found, `None` if there is none.
///
/// Costs about 2·(M·N + N·K + M·K) operations. A right result always passes. In a wrong row, whatever the other entries
/// of r are, at most one of the 2²⁰ values of the entry of a wrong output hides the error; so two rounds pass a wrong
/// row with a probability of at most 2⁻⁴⁰, over the choice of `seed`. The check finds which row is wrong, not which
/// output.
///
/// # Errors
///
/// [`ReferenceError::NotCodes`] for float operands, [`ReferenceError::Length`] for a wrong number of outputs, and those
/// of [`gemm_i64_batched`](crate::exact::gemm_i64_batched) for shapes.
pub fn random_projection(
    y: &[i32],
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    seed: u64,
) -> Result<Option<WrongRow>, ReferenceError> {
    check_codes(x)?;
    check_codes(w)?;
    let problem = Problem::new(x, w, batches)?;
    if y.len() != problem.outputs() {
        return Err(ReferenceError::Length {
            what: "outputs",
            expected: problem.outputs(),
            found: y.len(),
        });
    }
    if y.is_empty() {
        return Ok(None);
    }
    for batch in 0..problem.batch_count() {
        let y = &y[batch * problem.m * problem.n..][..problem.m * problem.n];
        let x = x.row_range(problem.activation_rows(batch))?;
        for round in 0..ROUNDS {
            let mut random = SplitMix64::new(seed ^ (ROUNDS * batch as u64 + round));
            let r: Vec<i64> = (0..problem.n)
                .map(|_| (random.next() >> (64 - ENTRY_BITS)) as i64)
                .collect();
            let projected = project_weights(w, problem.weight_rows(batch), &r)?;
            let integers = x.lifted_values().unwrap_or_default();
            let wrong = (0..problem.m).into_par_iter().find_map_first(|row| {
                let found = y[row * problem.n..][..problem.n]
                    .iter()
                    .zip(&r)
                    .map(|(&y, &r)| i128::from(i64::from(y) * r))
                    .sum();
                let expected = integers[row * problem.k..][..problem.k]
                    .iter()
                    .zip(&projected)
                    .map(|(&x, &t)| i128::from(x) * i128::from(t))
                    .sum();
                (found != expected).then_some(WrongRow {
                    batch,
                    row,
                    found,
                    expected,
                })
            });
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
    }
    Ok(None)
}

/// Wᵀ·r over the rows of a range.
fn project_weights(
    w: &PackedMatrix,
    rows: Range<usize>,
    r: &[i64],
) -> Result<Vec<i64>, ReferenceError> {
    /// Rows that are unpacked at a time.
    const CHUNK: usize = 256;
    let columns = w.columns();
    let starts: Vec<usize> = (0..rows.len()).step_by(CHUNK).collect();
    starts
        .into_par_iter()
        .map(|start| {
            let end = rows.len().min(start + CHUNK);
            let part = w.row_range(rows.start + start..rows.start + end)?;
            let integers = part.lifted_values().unwrap_or_default();
            let mut sums = vec![0; columns];
            for (row, &r) in r[start..end].iter().enumerate() {
                let integers = &integers[row * columns..][..columns];
                for (sum, &integer) in sums.iter_mut().zip(integers) {
                    *sum += i64::from(integer) * r;
                }
            }
            Ok(sums)
        })
        .try_reduce(
            || vec![0; columns],
            |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    *a += b;
                }
                Ok(a)
            },
        )
}

/// SplitMix64: enough for random vectors, and no dependency.
struct SplitMix64(u64);

impl SplitMix64 {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
