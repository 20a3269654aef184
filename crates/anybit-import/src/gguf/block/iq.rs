//! The IQ1, IQ2 and IQ3 types: blocks of 256 elements, stored as indices of points of a grid, four or eight elements
//! each, with signs beside them. No packed format has such codes, so blocks are decoded.
//!
//! All products are exact in f32, so their order does not matter: a scale has at most 16 significant bits, a point 6.

use super::grid;
use super::{Fault, half, unpack};
use crate::ScalePart;

/// f16 scale; for each 32 elements, 4 indices of a byte each, then a word with four times 7 bits of signs and a scale
/// above them.
pub(in super::super) fn iq2_xxs(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    for (bytes, values) in block[2..].chunks_exact(8).zip(values.chunks_exact_mut(32)) {
        let word = word(&bytes[4..]);
        let scale = scale * (0.5 + (word >> 28) as f32) * 0.25;
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let point = &grid::IQ2_XXS[usize::from(bytes[i])];
            signed(scale, point, even_signs(word >> (7 * i)), values);
        }
    }
    Ok(())
}

/// f16 scale; 32 times 16 bits, an index of 9 bits and above it signs of 7; 16 scales of 4 bits.
pub(in super::super) fn iq2_xs(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    let mut scales = [0; 16];
    unpack(&block[66..], 1, 4, 0, &mut scales);
    for (i, values) in values.chunks_exact_mut(8).enumerate() {
        let scale = scale * (0.5 + f32::from(scales[i / 2])) * 0.25;
        let bits = pair(&block[2 + 2 * i..]);
        let point = &grid::IQ2_XS[usize::from(bits & 511)];
        signed(scale, point, even_signs(u32::from(bits >> 9)), values);
    }
    Ok(())
}

/// f16 scale; the low 8 bits of 32 indices; 32 bytes of signs; the high 2 bits of the indices; 16 scales of 4 bits.
pub(in super::super) fn iq2_s(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    let mut high = [0; 32];
    unpack(&block[66..74], 1, 2, 0, &mut high);
    let mut scales = [0; 16];
    unpack(&block[74..], 1, 4, 0, &mut scales);
    for (i, values) in values.chunks_exact_mut(8).enumerate() {
        let scale = scale * (0.5 + f32::from(scales[i / 2])) * 0.25;
        let point = &grid::IQ2_S[usize::from(high[i]) << 8 | usize::from(block[2 + i])];
        signed(scale, point, block[34 + i], values);
    }
    Ok(())
}

/// f16 scale; 64 indices of a byte each; for each 32 elements a word as in IQ2_XXS.
pub(in super::super) fn iq3_xxs(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    let (indices, words) = block[2..].split_at(64);
    for ((indices, bytes), values) in indices
        .chunks_exact(8)
        .zip(words.chunks_exact(4))
        .zip(values.chunks_exact_mut(32))
    {
        let word = word(bytes);
        let scale = scale * (0.5 + (word >> 28) as f32) * 0.5;
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let signs = even_signs(word >> (7 * i));
            let (first, second) = values.split_at_mut(4);
            let point = |index: usize| &grid::IQ3_XXS[usize::from(indices[index])];
            signed(scale, point(2 * i), signs, first);
            signed(scale, point(2 * i + 1), signs >> 4, second);
        }
    }
    Ok(())
}

/// f16 scale; the low 8 bits of 64 indices; their ninth bits; 32 bytes of signs; 8 scales of 4 bits.
pub(in super::super) fn iq3_s(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    let mut high = [0; 64];
    unpack(&block[66..74], 1, 1, 0, &mut high);
    let mut scales = [0; 8];
    unpack(&block[106..], 1, 4, 0, &mut scales);
    for (i, values) in values.chunks_exact_mut(4).enumerate() {
        let scale = scale * f32::from(1 + 2 * scales[i / 8]);
        let point = &grid::IQ3_S[usize::from(high[i]) << 8 | usize::from(block[2 + i])];
        signed(scale, point, block[74 + i / 2] >> (4 * (i % 2)), values);
    }
    Ok(())
}

/// f16 scale; the low 8 bits of 32 indices; for each 32 elements 16 bits: four times the high 3 bits of an index, a
/// scale of 3 bits, and the sign of the shift.
pub(in super::super) fn iq1_s(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let scale = half(block, ScalePart::Scale)?;
    for (i, values) in values.chunks_exact_mut(8).enumerate() {
        let bits = pair(&block[34 + i / 4 * 2..]);
        let scale = scale * f32::from(2 * (bits >> 12 & 7) + 1);
        let high = usize::from(bits >> (3 * (i % 4)) & 7);
        let point = &grid::IQ1[high << 8 | usize::from(block[2 + i])];
        shifted(scale, point, bits & 0x8000 != 0, values);
    }
    Ok(())
}

/// The low 8 bits of 32 indices; for each index 4 bits: its high 3 and the sign of the shift; four times 16 bits: four
/// scales of 3 bits for 16 elements each, and above them 4 bits of the f16 scale, the lowest first.
pub(in super::super) fn iq1_m(block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
    let words = [48, 50, 52, 54].map(|at| pair(&block[at..]));
    let bits = (0..).zip(words).fold(0, |bits, (position, word)| {
        bits | (word >> 12) << (4 * position)
    });
    let scale = half(&u16::to_le_bytes(bits), ScalePart::Scale)?;
    let mut nibbles = [0; 32];
    unpack(&block[32..48], 1, 4, 0, &mut nibbles);
    for (i, values) in values.chunks_exact_mut(8).enumerate() {
        let scale = scale * f32::from(2 * (words[i / 8] >> (3 * (i / 2 % 4)) & 7) + 1);
        let high = usize::from(nibbles[i] & 7);
        let point = &grid::IQ1[high << 8 | usize::from(block[i])];
        shifted(scale, point, nibbles[i] & 8 != 0, values);
    }
    Ok(())
}

/// Magnitudes times scale, negative where the bit of `signs` is set, the lowest bit first.
fn signed(scale: f32, point: &[i8], signs: u8, values: &mut [f32]) {
    for (i, (value, &magnitude)) in values.iter_mut().zip(point).enumerate() {
        let magnitude = f32::from(magnitude);
        let element = if signs >> i & 1 == 1 {
            -magnitude
        } else {
            magnitude
        };
        *value = scale * element;
    }
}

/// Values, moved by 1/8 up or down, times scale.
fn shifted(scale: f32, point: &[i8], down: bool, values: &mut [f32]) {
    let shift = if down { -0.125 } else { 0.125 };
    for (value, &element) in values.iter_mut().zip(point) {
        *value = scale * (f32::from(element) + shift);
    }
}

/// Eight signs from the low 7 bits of `bits`: the eighth makes the number of negative ones even.
fn even_signs(bits: u32) -> u8 {
    let signs = bits as u8 & 0x7F;
    signs | ((signs.count_ones() as u8 & 1) << 7)
}

fn pair(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
