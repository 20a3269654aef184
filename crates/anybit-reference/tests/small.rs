//! A product by each kind of kernel, at sizes that an interpreter can bear, and so small that they take no threads:
//! `cargo xtask test` runs this file under miri.

use anybit_formats::{PackedMatrix, quantize};
use anybit_reference::kernel::{self, Tile};
use anybit_reference::{Batches, bound, exact};

fn matrix(format: &str, rows: usize) -> PackedMatrix {
    let values: Vec<f32> = (0..rows * 64)
        .map(|index| (index as f32 * 0.37).sin())
        .collect();
    quantize(&values, rows, 64, format.parse().expect(format), None).expect(format)
}

#[test]
fn integer_kernels_agree_with_the_exact_product() {
    let (x, w) = (matrix("i8", 1), matrix("i4", 3));
    let tile = Tile::of(&x, &w);
    let expected = exact::gemm_i64(&x, &w).expect("integers");
    for found in [
        kernel::gemm_tiled_dot4::<i32>(&x, &w, Batches::ONE, tile),
        kernel::gemm_tiled_bitplane(&x, &w, Batches::ONE, tile),
        kernel::gemv_dot4(&x, &w, Batches::ONE, tile),
        kernel::gemv_bitplane(&x, &w, Batches::ONE, tile),
    ] {
        let found: Vec<i64> = found
            .expect("integers")
            .into_iter()
            .map(i64::from)
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn scaled_products_are_within_their_bound() {
    let (x, w) = (matrix("i8rf", 2), matrix("u4g32hm", 3));
    let found: Vec<f32> =
        kernel::gemm_tiled_dot4(&x, &w, Batches::ONE, Tile::of(&x, &w)).expect("integers");
    let bounds = bound::gemm_integer_bound(&x, &w).expect("integers");
    let exact = exact::gemm_f64(&x, &w).expect("the shapes fit");
    for ((found, exact), bound) in found.iter().zip(exact).zip(bounds) {
        assert!(
            (f64::from(*found) - exact).abs() <= bound,
            "{found} {exact} {bound}"
        );
    }
}
