//! Blocks of an f16 scale, an f16 minimum for some, and codes: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 with 32 elements, Q1_0
//! with 128.

use super::{Fault, Parts, half, unpack};
use crate::ScalePart;

/// Scale, 128 bits from the lowest: scale where the bit is set, else −scale.
pub(in super::super) fn q1_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    unpack(&block[2..], 1, 1, 0, parts.codes);
    Ok(())
}

/// Scale, then codes: byte j holds code j in its low half, code j + 16 in its high half.
pub(in super::super) fn q4_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    unpack(&block[2..], 16, 4, 0, parts.codes);
    Ok(())
}

/// Scale, minimum, then codes as in Q4_0.
pub(in super::super) fn q4_1(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    parts.minima.fill(half(&block[2..], ScalePart::Minimum)?);
    unpack(&block[4..], 16, 4, 0, parts.codes);
    Ok(())
}

/// Scale, the fifth bits of codes 0 to 31, then the low bits as in Q4_0.
pub(in super::super) fn q5_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    unpack(&block[6..], 16, 4, 0, parts.codes);
    unpack(&block[2..6], 1, 1, 4, parts.codes);
    Ok(())
}

/// Scale, minimum, then codes as in Q5_0.
pub(in super::super) fn q5_1(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    parts.minima.fill(half(&block[2..], ScalePart::Minimum)?);
    unpack(&block[8..], 16, 4, 0, parts.codes);
    unpack(&block[4..8], 1, 1, 4, parts.codes);
    Ok(())
}

/// Scale, then signed bytes.
pub(in super::super) fn q8_0(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    signed_bytes(&block[2..], parts.codes);
    Ok(())
}

/// Two's complement with its top bit flipped is the code: −128 is 0, 127 is 255.
pub(super) fn signed_bytes(bytes: &[u8], codes: &mut [u8]) {
    for (code, byte) in codes.iter_mut().zip(bytes) {
        *code = byte ^ 0x80;
    }
}
