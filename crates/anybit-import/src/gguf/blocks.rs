//! ggml's blocks of 32 codes.

use half::f16;

use super::TensorType;
use crate::ScalePart;

/// Codes in a block.
pub(super) const CODES: usize = 32;

/// How the blocks of a quantised tensor are laid out.
///
/// A block is an f16 scale; then, where there is one, an f16 minimum; then, for 5-bit codes, four bytes with the
/// fifth bits of codes 0 to 31; then the codes. Of 4- and 5-bit codes, byte j holds code j in its low half and code
/// j + 16 in its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockLayout {
    bits: u8,
    minimum: bool,
}

/// A block with its codes in their order, as the unsigned codes that a packed matrix stores.
pub(super) struct Block {
    pub(super) scale: f32,
    /// 0 where the layout has none.
    pub(super) minimum: f32,
    pub(super) codes: [u8; CODES],
}

impl BlockLayout {
    /// The layout of a type, or `None` if the type is not a quantised one that can be read.
    pub(super) fn of(tensor_type: TensorType) -> Option<Self> {
        let (bits, minimum) = match tensor_type {
            TensorType::Q4_0 => (4, false),
            TensorType::Q4_1 => (4, true),
            TensorType::Q5_0 => (5, false),
            TensorType::Q5_1 => (5, true),
            TensorType::Q8_0 => (8, false),
            _ => return None,
        };
        Some(Self { bits, minimum })
    }

    pub(super) fn has_minimum(self) -> bool {
        self.minimum
    }

    /// Bytes that a block takes.
    pub(super) fn bytes(self) -> usize {
        2 + if self.minimum { 2 } else { 0 } + usize::from(self.bits) * CODES / 8
    }

    /// What is added to an unsigned code before it is scaled.
    fn offset(self) -> i16 {
        if self.minimum {
            0
        } else {
            -(1 << (self.bits - 1))
        }
    }

    /// Takes apart a block, which must be [`bytes`](Self::bytes) long.
    ///
    /// # Errors
    /// Which of its scale and minimum is not finite, and what it is.
    pub(super) fn read(self, bytes: &[u8]) -> Result<Block, (ScalePart, f32)> {
        let half_at = |at: usize, part| {
            let value = f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
            if value.is_finite() {
                Ok(value)
            } else {
                Err((part, value))
            }
        };
        let scale = half_at(0, ScalePart::Scale)?;
        let (minimum, bytes_of_codes) = if self.minimum {
            (half_at(2, ScalePart::Minimum)?, &bytes[4..])
        } else {
            (0.0, &bytes[2..])
        };

        let mut codes = [0; CODES];
        if self.bits == 8 {
            // Two's complement with its top bit flipped is the code: −128 is 0, 127 is 255.
            for (code, &byte) in codes.iter_mut().zip(bytes_of_codes) {
                *code = byte ^ 0x80;
            }
        } else {
            let (fifth_bits, halves) = if self.bits == 5 {
                let (bits, halves) = bytes_of_codes.split_at(4);
                (
                    u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]),
                    halves,
                )
            } else {
                (0, bytes_of_codes)
            };
            let fifth_bit = |position: usize| ((fifth_bits >> position) as u8 & 1) << 4;
            let (low, high) = codes.split_at_mut(CODES / 2);
            for (j, ((low, high), &byte)) in low.iter_mut().zip(high).zip(halves).enumerate() {
                *low = (byte & 0x0F) | fifth_bit(j);
                *high = (byte >> 4) | fifth_bit(j + CODES / 2);
            }
        }
        Ok(Block {
            scale,
            minimum,
            codes,
        })
    }

    /// The values of a block: scale times code, rounded, plus the minimum where there is one, rounded.
    pub(super) fn decode(self, block: &Block) -> [f32; CODES] {
        block.codes.map(|code| {
            let scaled = block.scale * f32::from(i16::from(code) + self.offset());
            // Adding no minimum would turn a −0 into 0.
            if self.minimum {
                scaled + block.minimum
            } else {
                scaled
            }
        })
    }
}
