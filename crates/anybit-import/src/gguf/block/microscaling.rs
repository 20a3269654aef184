//! Blocks of E2M1 numbers with scales of one byte: MXFP4 and NVFP4.
//!
//! ggml computes both with twice the elements, which are then integers, and half the scale; the products are the same
//! but for one thing: ggml has no −0 among its elements. The code of −0 is read as that of 0, so that a decoded zero
//! has the sign that it has in ggml.

use super::{Fault, Parts, unpack};

/// E8M0 scale, then 32 codes: byte j holds code j in its low half, code j + 16 in its high half.
pub(in super::super) fn mxfp4(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    parts.scales.fill(e8m0(block[0])?);
    unpack(&block[1..], 16, 4, 0, parts.codes);
    without_negative_zero(parts.codes);
    Ok(())
}

/// Four E4M3 scales without sign, then 64 codes: 8 bytes for each scale, the first 8 codes in the low halves.
pub(in super::super) fn nvfp4(block: &[u8], parts: Parts<'_>) -> Result<(), Fault> {
    for (scale, &byte) in parts.scales.iter_mut().zip(&block[..4]) {
        *scale = unsigned_e4m3(byte)?;
    }
    unpack(&block[4..], 8, 4, 0, parts.codes);
    without_negative_zero(parts.codes);
    Ok(())
}

/// 2^(byte − 127).
fn e8m0(byte: u8) -> Result<f32, Fault> {
    match byte {
        0 => Ok(f32::from_bits(1 << 22)),
        255 => Err(Fault::ScaleByte {
            byte,
            expected: "an E8M0 number is 0x00 to 0xfe, and 0xff is NaN",
        }),
        _ => Ok(f32::from_bits(u32::from(byte) << 23)),
    }
}

/// Four bits of exponent with bias 7, three of mantissa.
fn unsigned_e4m3(byte: u8) -> Result<f32, Fault> {
    match byte {
        0..8 => Ok(f32::from(byte) / 512.0),
        8..0x7F => Ok(f32::from_bits((u32::from(byte) << 20) + (120 << 23))),
        _ => Err(Fault::ScaleByte {
            byte,
            expected: "an E4M3 number without sign is 0x00 to 0x7e, and 0x7f is NaN",
        }),
    }
}

fn without_negative_zero(codes: &mut [u8]) {
    for code in codes {
        if *code == 8 {
            *code = 0;
        }
    }
}
