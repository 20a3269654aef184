//! Blocks of 4-bit indices into a table of 16 numbers: IQ4_NL and IQ4_XS.

use super::{Fault, Parts, half, unpack};
use crate::ScalePart;

/// f16 scale, then 32 indices: byte j holds index j in its low half, index j + 16 in its high half.
pub(in super::super) fn iq4_nl(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(half(block, ScalePart::Scale)?);
    unpack(&block[2..], 16, 4, 0, parts.codes);
    Ok(())
}

/// f16 scale; 8 scales of 6 bits less 32 for 32 elements each, their high 2 bits in 2 bytes, then their low 4 bits in
/// 4; 256 indices, as IQ4_NL has them, in 128 bytes.
pub(in super::super) fn iq4_xs(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.second.fill(half(block, ScalePart::Scale)?);
    let mut integers = [0; 8];
    unpack(&block[4..8], 1, 4, 0, &mut integers);
    unpack(&block[2..4], 1, 2, 4, &mut integers);
    for (scale, integer) in parts.scales.iter_mut().zip(integers) {
        *scale = f32::from(integer) - 32.0;
    }
    unpack(&block[8..], 16, 4, 0, parts.codes);
    Ok(())
}
