//! The grids of the IQ types: tables of points, found by search, that `grid/make_grids.py` takes from the `gguf`
//! package. A point is the magnitudes, or for IQ1 the values, of neighbouring elements.

/// Values of IQ1_S and IQ1_M, before the shift of 1/8.
pub(super) static IQ1: [[i8; 8]; 2048] = grid(include_bytes!("grid/iq1.bin"), 2, &[-1, 0, 1]);
pub(super) static IQ2_XXS: [[i8; 8]; 256] = grid(include_bytes!("grid/iq2_xxs.bin"), 2, &IQ2);
pub(super) static IQ2_XS: [[i8; 8]; 512] = grid(include_bytes!("grid/iq2_xs.bin"), 2, &IQ2);
pub(super) static IQ2_S: [[i8; 8]; 1024] = grid(include_bytes!("grid/iq2_s.bin"), 2, &IQ2);
pub(super) static IQ3_XXS: [[i8; 4]; 256] = grid(
    include_bytes!("grid/iq3_xxs.bin"),
    4,
    &[4, 12, 20, 28, 36, 44, 52, 62],
);
pub(super) static IQ3_S: [[i8; 4]; 512] = grid(
    include_bytes!("grid/iq3_s.bin"),
    4,
    &[1, 3, 5, 7, 9, 11, 13, 15],
);

/// Magnitudes of the IQ2 types.
const IQ2: [i8; 3] = [8, 25, 43];

/// Unpacks a grid at compile time: indices into `numbers`, of `bits` bits each, the first in the lowest.
const fn grid<const ELEMENTS: usize, const POINTS: usize>(
    packed: &[u8],
    bits: usize,
    numbers: &[i8],
) -> [[i8; ELEMENTS]; POINTS] {
    assert!(packed.len() * 8 == POINTS * ELEMENTS * bits);
    let mut points = [[0; ELEMENTS]; POINTS];
    let mut index = 0;
    while index < POINTS * ELEMENTS {
        let bit = index * bits;
        let field = packed[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
        points[index / ELEMENTS][index % ELEMENTS] = numbers[field as usize];
        index += 1;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml keeps its points in order, the last element the most significant. Golden blocks touch only some of them;
    /// this sees most of what could befall the others.
    #[test]
    fn points_ascend() {
        fn check<const ELEMENTS: usize>(name: &str, grid: &[[i8; ELEMENTS]]) {
            let ascending = grid.is_sorted_by(|one, next| one.iter().rev().lt(next.iter().rev()));
            assert!(ascending, "{name}");
        }
        check("IQ1", &IQ1);
        check("IQ2_XXS", &IQ2_XXS);
        check("IQ2_XS", &IQ2_XS);
        check("IQ2_S", &IQ2_S);
        check("IQ3_XXS", &IQ3_XXS);
        check("IQ3_S", &IQ3_S);
    }
}
