//! The twin of `kernel/l_mul.wgsl`.

use anybit_formats::LMul;

/// The L-Mul products of two matrices, element by element: exact, bit for bit.
///
/// Both have the same shape; of two lengths the shorter one counts.
pub fn l_mul(x: &[f32], y: &[f32], l_mul: LMul) -> Vec<f32> {
    let pairs = x.iter().zip(y);
    pairs.map(|(&x, &y)| l_mul.product(x, y)).collect()
}
