//! The lmul kernels: L-Mul products, which are exact, and f32 sums.

use anybit_formats::LMul;

/// One product after the other.
pub(super) fn add_each(l_mul: LMul) -> impl Fn(f32, &[f32], &[f32]) -> f32 {
    move |sum, x, w| {
        let pairs = x.iter().zip(w);
        pairs.fold(sum, |sum, (&x, &w)| sum + l_mul.product(x, w))
    }
}

/// The sum of four products after the other.
pub(super) fn add_fours(l_mul: LMul) -> impl Fn(f32, &[f32], &[f32]) -> f32 {
    move |sum, x, w| {
        let fours = x.chunks(4).zip(w.chunks(4));
        fours.fold(sum, |sum, (x, w)| {
            let products = x.iter().zip(w).map(|(&x, &w)| l_mul.product(x, w));
            sum + products.reduce(|sum, product| sum + product).unwrap_or(0.0)
        })
    }
}
