//! Ternary blocks: 256 elements −1, 0 or 1 as the codes 0, 1 and 2, and one f16 scale.

use super::{Fault, Parts, half, unpack};
use crate::ScalePart;

/// 48 bytes of five codes each and 4 of four, scale.
///
/// A byte is ⌈256 q / 243⌉ for the number q that has the codes as its five ternary digits, the first the highest. So
/// byte / 256 is a fraction whose digits they are: three times it has the first digit before the point. Every byte
/// has digits, though only 243 are ever written.
pub(in super::super) fn tq1_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    let (first, rest) = parts.codes.split_at_mut(5 * 32);
    let (second, third) = rest.split_at_mut(5 * 16);
    digits(&block[..32], first);
    digits(&block[32..48], second);
    digits(&block[48..52], third);
    parts.scales.fill(half(&block[52..], ScalePart::Scale)?);
    Ok(())
}

/// The first digits of all bytes, then the second ones, as many as there is room for.
fn digits(bytes: &[u8], codes: &mut [u8]) {
    let mut power = 1u8;
    for codes in codes.chunks_exact_mut(bytes.len()) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            let fraction = byte.wrapping_mul(power);
            *code = ((u16::from(fraction) * 3) >> 8) as u8;
        }
        power = power.wrapping_mul(3);
    }
}

/// 64 bytes of codes of 2 bits, scale. The code 3 would be the value 2 and is not ternary.
pub(in super::super) fn tq2_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    unpack(&block[..64], 32, 2, 0, parts.codes);
    if let Some(&code) = parts.codes.iter().find(|&&code| code > 2) {
        return Err(Fault::Code { code, limit: 2 });
    }
    parts.scales.fill(half(&block[64..], ScalePart::Scale)?);
    Ok(())
}
