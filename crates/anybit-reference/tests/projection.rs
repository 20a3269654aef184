//! The random projection finds wrong rows and no others.

mod common;

use anybit_formats::PackedMatrix;
use anybit_reference::projection::random_projection;
use anybit_reference::{Batches, ReferenceError, exact};
use common::{Random, format, matrix};

fn product(x: &PackedMatrix, w: &PackedMatrix, batches: Batches) -> Vec<i32> {
    let y = exact::gemm_i64_batched(x, w, batches).unwrap();
    y.into_iter().map(|y| i32::try_from(y).unwrap()).collect()
}

#[test]
fn right_results_pass_and_wrong_ones_are_found() {
    let mut random = Random::new(1);
    for (x, w, k) in [
        ("i8rf", "i4g32h", 96),
        ("u8rfz", "b8rfz", 77),
        ("b1", "t", 300),
    ] {
        for batches in [
            Batches::ONE,
            Batches {
                count: 3,
                broadcast_weight: true,
                ..Batches::ONE
            },
        ] {
            let x = matrix(format(x), 6, k, 1);
            let w = matrix(format(w), 300, k, 2);
            let mut y = product(&x, &w, batches);
            let m = 6 / batches.count;
            for seed in 0..20 {
                let check = random_projection(&y, &x, &w, batches, seed).unwrap();
                assert_eq!(check, None);
                let index = random.below(y.len());
                let right = y[index];
                y[index] = right.wrapping_add(1 << random.below(32));
                let wrong = random_projection(&y, &x, &w, batches, seed)
                    .unwrap()
                    .unwrap();
                let row = index / 300;
                assert_eq!((wrong.batch, wrong.row), (row / m, row % m));
                assert_ne!(wrong.found, wrong.expected);
                y[index] = right;
                // Two outputs exchanged.
                let other = index / 300 * 300 + random.below(300);
                y.swap(index, other);
                let found = random_projection(&y, &x, &w, batches, seed).unwrap();
                assert_eq!(found.is_some(), y[index] != y[other]);
                y.swap(index, other);
            }
        }
    }
}

#[test]
fn each_seed_has_its_own_vector() {
    let (x, w) = (
        matrix(format("i8"), 1, 32, 1),
        matrix(format("i4"), 3, 32, 2),
    );
    let wrong = [1 << 20; 3];
    let found = |seed| {
        let row = random_projection(&wrong, &x, &w, Batches::ONE, seed).unwrap();
        row.unwrap().found
    };
    assert_eq!(found(1), found(1));
    assert_ne!(found(2), found(1));
}

#[test]
fn wrong_input_is_refused() {
    let (x, w) = (
        matrix(format("i8"), 2, 32, 1),
        matrix(format("i4"), 3, 32, 2),
    );
    assert!(matches!(
        random_projection(&[0; 5], &x, &w, Batches::ONE, 0),
        Err(ReferenceError::Length {
            expected: 6,
            found: 5,
            ..
        })
    ));
    let float = matrix(format("f32"), 2, 32, 1);
    assert!(matches!(
        random_projection(&[0; 6], &float, &w, Batches::ONE, 0),
        Err(ReferenceError::NotCodes { .. })
    ));
    let empty = matrix(format("i8"), 0, 32, 1);
    assert_eq!(
        random_projection(&[], &empty, &w, Batches::ONE, 0),
        Ok(None)
    );
}
