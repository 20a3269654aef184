//! Tables of sums of four activations, as `core/lut.wgsl` has them.

use std::ops::{Add, Neg, Range, Sub};

use anybit_formats::AffineFormat;

/// Columns in a block.
pub(crate) const BLOCK: usize = 32;

/// Halves of a block.
pub(crate) const HALVES: usize = 2;

/// Groups of four columns in a block, each with a table.
pub(crate) const GROUPS: usize = 8;

/// Sums in a table; the others are minus these.
pub(crate) const ENTRIES: usize = 8;

/// The largest code of a table of signed bytes.
pub(crate) const LARGEST: f32 = 127.0;

/// Tables of bytes are 0 where the largest sum of their block is below this: 2⁻¹⁰⁰.
pub(crate) const SMALLEST: f32 = 7.888_609e-31;

/// The blocks of every row of a row-major matrix; what stands past K is the default.
pub(crate) fn blocks<T: Copy + Default>(values: &[T], k: usize) -> Vec<[T; BLOCK]> {
    let mut blocks = Vec::new();
    for row in values.chunks(k.max(1)) {
        for values in row.chunks(BLOCK) {
            let mut block = [T::default(); BLOCK];
            block[..values.len()].copy_from_slice(values);
            blocks.push(block);
        }
    }
    blocks
}

/// The members of group 4h + q: columns 16h + q + 0, 4, 8 and 12, whose bits are neighbours in a plane's word.
pub(crate) fn group<T: Copy>(block: &[T; BLOCK], group: usize) -> [T; 4] {
    let first = 16 * (group / 4) + group % 4;
    std::array::from_fn(|i| block[first + 4 * i])
}

/// The groups of some halves of a block.
pub(crate) fn groups(halves: Range<usize>) -> Range<usize> {
    GROUPS / HALVES * halves.start..GROUPS / HALVES * halves.end
}

/// The table of a group: entry e is ±x0 ±x1 ±x2 − x3, with + where bit 0, 1, 2 of e is set.
pub(crate) fn entries<T>(x: [T; 4]) -> [T; ENTRIES]
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Neg<Output = T>,
{
    std::array::from_fn(|entry| {
        let signed = |i: usize| if entry >> i & 1 == 1 { x[i] } else { -x[i] };
        ((signed(0) + signed(1)) + signed(2)) - x[3]
    })
}

/// Where a plane's word finds the sum of a group: its entry, and whether its sign changes.
pub(crate) fn index(word: u32, group: usize) -> (usize, bool) {
    let bits = (word >> (8 * (group % 4) + 4 * (group / 4)) & 15) as usize;
    if bits < ENTRIES {
        (bits, false)
    } else {
        (15 - bits, true)
    }
}

/// `(α, β)` of the integers a·u + b = α · Σ 2^p·(±1) + β, the signs being those of the bits of u.
pub(crate) fn coefficients(format: AffineFormat) -> (f32, f32) {
    let (multiplier, offset) = format.coefficients();
    let all_bits = (1 << format.bits()) - 1;
    (
        0.5 * multiplier as f32,
        0.5 * (multiplier * all_bits + 2 * offset) as f32,
    )
}

#[cfg(test)]
mod tests {
    use anybit_formats::Encoding;
    use anybit_formats::layout::code_bit;

    use super::*;

    /// T-MAC's tables, arXiv:2407.00088, in the symmetric form.
    #[test]
    fn a_table_and_its_mirror() {
        let x = [1.0, -2.0, 3.0, 0.5];
        let all = [
            -2.5, -0.5, -6.5, -4.5, 3.5, 5.5, -0.5, 1.5, -1.5, 0.5, -5.5, -3.5, 4.5, 6.5, 0.5, 2.5,
        ];
        let table = entries(x);
        assert_eq!(table, all[..8]);
        for (bits, &sum) in all.iter().enumerate() {
            let (entry, negative) = index(bits as u32, 0);
            let found = if negative {
                -table[entry]
            } else {
                table[entry]
            };
            assert_eq!(found, sum, "index {bits}");
        }
    }

    #[test]
    fn groups_are_neighbouring_bits_of_a_plane() {
        let bits: [u32; BLOCK] = std::array::from_fn(|code| code_bit(1, code as u32) as u32);
        for index in 0..GROUPS {
            let members = group(&bits, index);
            let first = 8 * (index as u32 % 4) + 4 * (index as u32 / 4);
            assert_eq!(members, [0, 1, 2, 3].map(|i| first + i));
        }
    }

    #[test]
    fn integers_are_sums_of_signs() {
        for bits in 1..=8 {
            for encoding in [
                Encoding::Unsigned,
                Encoding::TwosComplement,
                Encoding::Bipolar,
            ] {
                let format = AffineFormat::new(bits, encoding).unwrap();
                let (multiplier, offset) = format.coefficients();
                let (alpha, beta) = coefficients(format);
                for code in 0..1 << bits {
                    let signs = (0..bits).map(|p| (1 << p) * (2 * (code >> p & 1) - 1));
                    let value = alpha * signs.sum::<i32>() as f32 + beta;
                    assert_eq!(value, (multiplier * code + offset) as f32);
                }
            }
        }
    }
}
