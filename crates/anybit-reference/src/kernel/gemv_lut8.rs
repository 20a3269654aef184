//! The twin of `kernel/gemv_lut8.wgsl`.

use std::ops::Range;

use anybit_formats::PackedMatrix;

use super::Tile;
use super::lut::{Tables, gemm};
use crate::tables::{self, BLOCK, ENTRIES, GROUPS, LARGEST, SMALLEST};
use crate::{Batches, ReferenceError};

/// Tables of signed bytes under one scale.
struct Bytes {
    codes: [[i8; ENTRIES]; GROUPS],
    scale: f32,
}

impl Tables for Bytes {
    fn of_block(x: &[f32; BLOCK]) -> Self {
        let group = |group| tables::group(x, group);
        let sizes = (0..GROUPS).map(|index| {
            let [a, b, c, d] = group(index).map(f32::abs);
            ((a + b) + c) + d
        });
        let size = sizes.fold(0.0, f32::max);
        if size < SMALLEST {
            return Self {
                codes: [[0; ENTRIES]; GROUPS],
                scale: 0.0,
            };
        }
        let inverse = LARGEST / size;
        let round = |sum: f32| {
            let code = (sum * inverse).round_ties_even().clamp(-LARGEST, LARGEST);
            code as i8
        };
        Self {
            codes: std::array::from_fn(|index| tables::entries(group(index)).map(round)),
            scale: size / LARGEST,
        }
    }

    fn look_up(&self, planes: &[u32], halves: Range<usize>) -> f32 {
        let mut sum = 0;
        for (plane, &word) in planes.iter().enumerate() {
            let looked_up = tables::groups(halves.clone()).map(|group| {
                let (entry, negative) = tables::index(word, group);
                let code = i32::from(self.codes[group][entry]);
                if negative { -code } else { code }
            });
            sum += looked_up.sum::<i32>() << plane;
        }
        sum as f32 * self.scale
    }
}

/// As [`gemv_lut`](super::gemv_lut()), with tables that are rounded to signed bytes under a scale a block.
///
/// # Errors
///
/// Those of [`gemv_lut`](super::gemv_lut()).
pub fn gemv_lut8(
    x: &PackedMatrix,
    w: &PackedMatrix,
    batches: Batches,
    tile: Tile,
) -> Result<Vec<f32>, ReferenceError> {
    gemm::<Bytes>(x, w, batches, tile)
}
