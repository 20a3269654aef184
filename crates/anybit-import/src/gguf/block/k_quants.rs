//! The K-quants: blocks of 256 elements with one f16 scale, or f16 scale and minimum, and small integers that multiply
//! it for each 16 or 32 elements.
//!
//! ggml subtracts minima where a packed matrix adds them, so the second level of the minima is negated here. x − y and
//! x + (−y) are the same number, to the sign of a zero.

use super::basic::signed_bytes;
use super::{Fault, Parts, half, unpack};
use crate::ScalePart;

/// 16 bytes of scales (low half) and minima (high half) for 16 elements each, 64 bytes of codes of 2 bits, scale,
/// minimum.
pub(in super::super) fn q2_k(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    let integers = parts.scales.iter_mut().zip(parts.minima);
    for ((scale, minimum), byte) in integers.zip(&block[..16]) {
        *scale = f32::from(byte & 0x0F);
        *minimum = f32::from(byte >> 4);
    }
    unpack(&block[16..80], 32, 2, 0, parts.codes);
    parts.second.fill(half(&block[80..], ScalePart::Scale)?);
    let minimum = half(&block[82..], ScalePart::Minimum)?;
    parts.second_minima.fill(-minimum);
    Ok(())
}

/// The third bits of the codes in 32 bytes, their low 2 bits in 64, 12 bytes of scales of 6 bits less 32 for 16
/// elements each, scale.
pub(in super::super) fn q3_k(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    unpack(&block[32..96], 32, 2, 0, parts.codes);
    unpack(&block[..32], 32, 1, 2, parts.codes);
    let mut integers = [0; 16];
    unpack(&block[96..104], 8, 4, 0, &mut integers);
    unpack(&block[104..108], 4, 2, 4, &mut integers);
    for (scale, integer) in parts.scales.iter_mut().zip(integers) {
        *scale = f32::from(integer) - 32.0;
    }
    parts.second.fill(half(&block[108..], ScalePart::Scale)?);
    Ok(())
}

/// Scale, minimum, 12 bytes of scales and minima for 32 elements each, 128 bytes of codes of 4 bits.
pub(in super::super) fn q4_k(block: &[u8], mut parts: Parts<'_>) -> Result<(), Fault> {
    scales_and_minima(block, &mut parts)?;
    unpack(&block[16..], 32, 4, 0, parts.codes);
    Ok(())
}

/// As Q4_K, with the fifth bits of the codes in 32 bytes before the others.
pub(in super::super) fn q5_k(block: &[u8], mut parts: Parts<'_>) -> Result<(), Fault> {
    scales_and_minima(block, &mut parts)?;
    unpack(&block[48..], 32, 4, 0, parts.codes);
    unpack(&block[16..48], 32, 1, 4, parts.codes);
    Ok(())
}

/// The first 16 bytes of Q4_K and Q5_K. Bytes 4 to 7 hold scales 0 to 3 in their low 6 bits, bytes 8 to 11 minima 0 to
/// 3; bytes 12 to 15 the low halves of scales 4 to 7 and above them those of minima 4 to 7, whose upper 2 bits are the
/// upper bits of bytes 4 to 7 and 8 to 11.
fn scales_and_minima(block: &[u8], parts: &mut Parts<'_>) -> Result<(), Fault> {
    parts.second.fill(half(block, ScalePart::Scale)?);
    let minimum = half(&block[2..], ScalePart::Minimum)?;
    parts.second_minima.fill(-minimum);
    for j in 0..4 {
        let (scale, minimum, both) = (block[4 + j], block[8 + j], block[12 + j]);
        parts.scales[j] = f32::from(scale & 0x3F);
        parts.minima[j] = f32::from(minimum & 0x3F);
        parts.scales[j + 4] = f32::from(both & 0x0F | scale >> 2 & 0x30);
        parts.minima[j + 4] = f32::from(both >> 4 | minimum >> 2 & 0x30);
    }
    Ok(())
}

/// The low 4 bits of the codes in 128 bytes, their high 2 bits in 64, 16 signed bytes of scales for 16 elements each,
/// scale.
pub(in super::super) fn q6_k(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    unpack(&block[..128], 64, 4, 0, parts.codes);
    unpack(&block[128..192], 32, 2, 4, parts.codes);
    for (scale, &byte) in parts.scales.iter_mut().zip(&block[192..208]) {
        *scale = f32::from(byte as i8);
    }
    parts.second.fill(half(&block[208..], ScalePart::Scale)?);
    Ok(())
}

/// f32 scale, 256 signed bytes, and 16 sums of them, which follow from them and are not read.
pub(in super::super) fn q8_k(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    if !scale.is_finite() {
        return Err(Fault::NonFinite(ScalePart::Scale, scale));
    }
    parts.scales.fill(scale);
    signed_bytes(&block[4..260], parts.codes);
    Ok(())
}
