//! The 32 codes of a block, four a word, and how pieces and planes are cut from them.
//!
//! Word t of a [`Block`] holds codes 4t to 4t + 3, one a byte. In the bit order of
//! [`code_bit`](crate::layout::code_bit) word w of a piece of width b is then Σ over t of block
//! word 8w/b + t, its codes' bits of that piece shifted left by b·t, so four codes move in every
//! step.

use crate::layout::BLOCK;

/// 0x01 in every byte.
const BYTES: u32 = 0x0101_0101;

/// The lowest `width` bits (1 to 8) of every byte.
const fn byte_mask(width: u32) -> u32 {
    ((1 << width) - 1) * BYTES
}

/// 32 codes, one a byte.
#[derive(Clone, Copy, Default)]
pub(super) struct Block([u32; 8]);

impl Block {
    /// A block of up to 32 codes; the rest are 0.
    #[inline]
    pub(super) fn from_codes(codes: &[u8]) -> Self {
        let mut padded = [0; BLOCK];
        if let Ok(codes) = codes.try_into() {
            // The fixed size lets the compiler copy without a call.
            padded = codes;
        } else {
            for (padded, &code) in padded.iter_mut().zip(codes) {
                *padded = code;
            }
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(padded.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(words)
    }

    /// The codes.
    #[inline]
    pub(super) fn to_codes(self) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        for (bytes, word) in codes.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        codes
    }

    /// Writes bits `shift` to `shift + width − 1` of every code as the `width` words of a piece.
    #[inline]
    pub(super) fn store_piece(&self, width: u32, shift: u32, words: &mut [u32]) {
        let mask = byte_mask(width);
        for (word, lanes) in words
            .iter_mut()
            .zip(self.0.chunks_exact(8 / width as usize))
        {
            *word = lanes.iter().zip(0_u32..).fold(0, |word, (lane, t)| {
                word | (lane >> shift & mask) << (width * t)
            });
        }
    }

    /// Adds the `width` words of a piece as bits `shift` to `shift + width − 1` of every code.
    #[inline]
    pub(super) fn load_piece(&mut self, width: u32, shift: u32, words: &[u32]) {
        let mask = byte_mask(width);
        for (word, lanes) in words
            .iter()
            .zip(self.0.chunks_exact_mut(8 / width as usize))
        {
            for (lane, t) in lanes.iter_mut().zip(0_u32..) {
                *lane |= (word >> (width * t) & mask) << shift;
            }
        }
    }

    /// The word of the plane that has a bit of each code: `bits` gives that of four codes at once, as 0 or 1 a byte.
    #[inline]
    pub(super) fn plane_of(&self, bits: impl Fn(u32) -> u32) -> u32 {
        let words = self.0.iter().zip(0_u32..);
        words.fold(0, |plane, (&word, t)| plane | bits(word) << t)
    }

    /// Sums of the first and the last 16 codes.
    #[inline]
    pub(super) fn half_sums(&self) -> [u32; 2] {
        let sum = |words: &[u32]| {
            // Two 16-bit sums a word: at most 8 codes of 255 each.
            let pairs: u32 = words
                .iter()
                .map(|word| (word & 0x00ff_00ff) + (word >> 8 & 0x00ff_00ff))
                .sum();
            (pairs & 0xffff) + (pairs >> 16)
        };
        [sum(&self.0[..4]), sum(&self.0[4..])]
    }
}

/// Bit `bit` of the 32 codes of a block as a plane word, from the `width` words of the piece that
/// holds it.
#[inline]
pub(super) fn plane(words: &[u32], width: u32, bit: u32) -> u32 {
    words.iter().zip(0_u32..).fold(0, |plane, (word, index)| {
        plane | gather(word >> bit, width) << (8 / width * index)
    })
}

/// Adds a plane word as bit `bit` of a piece of `width` words.
#[inline]
pub(super) fn add_plane(words: &mut [u32], width: u32, bit: u32, plane: u32) {
    for (word, index) in words.iter_mut().zip(0_u32..) {
        *word |= spread(plane >> (8 / width * index), width) << bit;
    }
}

/// In every byte, moves bits 0, w, 2w … to bits 0, 1, 2 …
#[inline]
fn gather(word: u32, width: u32) -> u32 {
    match width {
        1 => word,
        2 => {
            let pairs = word & 0x5555_5555;
            let nibbles = (pairs | pairs >> 1) & 0x3333_3333;
            (nibbles | nibbles >> 2) & 0x0f0f_0f0f
        }
        4 => {
            let nibbles = word & 0x1111_1111;
            (nibbles | nibbles >> 3) & 0x0303_0303
        }
        _ => word & BYTES,
    }
}

/// In every byte, moves bits 0, 1, 2 … to bits 0, w, 2w …: undoes [`gather`].
#[inline]
fn spread(word: u32, width: u32) -> u32 {
    match width {
        1 => word,
        2 => {
            let nibbles = word & 0x0f0f_0f0f;
            let pairs = (nibbles | nibbles << 2) & 0x3333_3333;
            (pairs | pairs << 1) & 0x5555_5555
        }
        4 => {
            let pairs = word & 0x0303_0303;
            (pairs | pairs << 3) & 0x1111_1111
        }
        _ => word & BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::code_bit;

    /// Codes 0 to 31 by a generator that reaches every byte.
    fn codes(seed: u32) -> [u8; BLOCK] {
        std::array::from_fn(|i| ((i as u32 + seed).wrapping_mul(0x9e37_79b1) >> 13) as u8)
    }

    #[test]
    fn pieces_hold_each_code_at_its_bit() {
        for seed in 0..100 {
            let codes = codes(seed);
            let block = Block::from_codes(&codes);
            for width in [1, 2, 4, 8] {
                for shift in 0..=8 - width {
                    let mut words = [0; 8];
                    let words = &mut words[..width as usize];
                    block.store_piece(width, shift, words);
                    let per_word = 32 / width;
                    for (c, &code) in (0_u32..).zip(&codes) {
                        let word = words[(c / per_word) as usize];
                        let piece = word >> code_bit(width, c % per_word) & ((1 << width) - 1);
                        assert_eq!(piece, u32::from(code) >> shift & ((1 << width) - 1));
                    }
                    let mut back = Block::default();
                    back.load_piece(width, shift, words);
                    let mask = (((1_u16 << width) - 1) << shift) as u8;
                    assert_eq!(back.to_codes(), codes.map(|code| code & mask));
                }
            }
        }
    }

    #[test]
    fn planes_hold_each_bit_at_its_code() {
        for seed in 0..100 {
            let codes = codes(seed);
            for width in [1, 2, 4, 8] {
                let mut words = [0; 8];
                let words = &mut words[..width as usize];
                Block::from_codes(&codes).store_piece(width, 0, words);
                let mut rebuilt = [0; 8];
                let rebuilt = &mut rebuilt[..width as usize];
                for bit in 0..width {
                    let plane = plane(words, width, bit);
                    for (c, &code) in (0_u32..).zip(&codes) {
                        assert_eq!(plane >> code_bit(1, c) & 1, u32::from(code) >> bit & 1);
                    }
                    add_plane(rebuilt, width, bit, plane);
                }
                assert_eq!(rebuilt, words);
            }
        }
    }

    #[test]
    fn sums_of_halves() {
        assert_eq!(
            Block::from_codes(&[255; 32]).half_sums(),
            [16 * 255, 16 * 255]
        );
        assert_eq!(Block::from_codes(&[255; 17]).half_sums(), [16 * 255, 255]);
        let codes = codes(5);
        let sum = |codes: &[u8]| codes.iter().map(|&code| u32::from(code)).sum::<u32>();
        assert_eq!(
            Block::from_codes(&codes).half_sums(),
            [sum(&codes[..16]), sum(&codes[16..])]
        );
    }
}
