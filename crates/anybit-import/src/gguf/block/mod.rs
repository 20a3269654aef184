//! Taking ggml's blocks apart, a file for each family of types.
//!
//! A quantised tensor is a sequence of blocks of equal size. For most types a block is codes and scales, and a packed
//! matrix keeps them as they are: a [`ReadCodes`] separates them. The rows of the table of types
//! (`tensor.rs`) say which function reads which type. Layouts are those of ggml's `ggml-common.h` and
//! `dequantize_row_*` in `ggml-quants.c`.
//!
//! Readers may index as they like into the block they are given: its length is that of the type, whatever the file.

pub(super) mod basic;
mod grid;
pub(super) mod iq;
pub(super) mod iq4;
pub(super) mod k_quants;
pub(super) mod microscaling;
pub(super) mod ternary;

use anybit_formats::{MatrixFormat, ScaleType, ZeroKind};
use half::f16;

use super::parallel::join;
use crate::ScalePart;

/// Takes one block apart. The block is as long as its type says, and so are the parts.
pub(super) type ReadCodes = fn(&[u8], Parts<'_>) -> Result<(), Fault>;

/// Decodes one block, as long as its type says, into as many values as it has.
pub(super) type ReadValues = fn(&[u8], &mut [f32]) -> Result<(), Fault>;

/// What blocks come apart into, each part in the order of the elements and empty where the type has none.
#[derive(Default)]
pub(super) struct Parts<'a> {
    /// The codes as a packed matrix stores them, one for each element.
    pub(super) codes: &'a mut [u8],
    /// The scales, one for each group of elements. Where there is a second level they are its integers.
    pub(super) scales: &'a mut [f32],
    /// The minima, one for each scale.
    pub(super) minima: &'a mut [f32],
    /// The factors of the scales, one for each block.
    pub(super) second: &'a mut [f32],
    /// The factors of the minima, one for each block.
    pub(super) second_minima: &'a mut [f32],
}

impl<'a> Parts<'a> {
    /// The parts of the first `blocks` blocks, and the others.
    pub(super) fn split_at(self, shape: &Shape, blocks: usize) -> (Self, Self) {
        let (codes, other_codes) = self.codes.split_at_mut(blocks * shape.elements);
        let (scales, other_scales) = self.scales.split_at_mut(blocks * shape.scales);
        let (minima, other_minima) = self.minima.split_at_mut(blocks * shape.minima);
        let (second, other_second) = self.second.split_at_mut(blocks * shape.second);
        let (second_minima, other_second_minima) = self
            .second_minima
            .split_at_mut(blocks * shape.second_minima);
        (
            Self {
                codes,
                scales,
                minima,
                second,
                second_minima,
            },
            Self {
                codes: other_codes,
                scales: other_scales,
                minima: other_minima,
                second: other_second,
                second_minima: other_second_minima,
            },
        )
    }
}

/// How large the blocks of a type are, and each of their parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) bytes: usize,
    pub(super) elements: usize,
    pub(super) scales: usize,
    pub(super) minima: usize,
    pub(super) second: usize,
    pub(super) second_minima: usize,
}

impl Shape {
    /// Of a type that becomes a matrix of `format`.
    pub(super) fn of(bytes: usize, elements: usize, format: &MatrixFormat) -> Self {
        let scales = format.groups(elements);
        let two_levels = format
            .scales()
            .is_some_and(|layout| layout.scale == ScaleType::Super);
        let minima = match format.zero_kind() {
            ZeroKind::Minimum => scales,
            _ => 0,
        };
        Self {
            bytes,
            elements,
            scales,
            minima,
            second: usize::from(two_levels),
            second_minima: usize::from(two_levels && minima > 0),
        }
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// A scale or minimum is infinite or not a number.
    NonFinite(ScalePart, f32),
    /// A scale of one byte is no number, and which bytes are.
    ScaleByte { byte: u8, expected: &'static str },
    /// A code that the type does not define, and the largest that it does.
    Code { code: u8, limit: u8 },
}

/// A fault, and which of the blocks has it, from 0.
pub(super) type FaultAt = (usize, Fault);

/// Below so many bytes of blocks, handing work to other threads costs more than it saves.
const WORTH_THREADS: usize = 1 << 15;

/// Takes whole blocks apart, in parallel.
pub(super) fn separate(
    shape: &Shape,
    read: ReadCodes,
    bytes: &[u8],
    parts: Parts<'_>,
) -> Result<(), FaultAt> {
    let blocks = bytes.len() / shape.bytes;
    if bytes.len() < WORTH_THREADS || blocks < 2 {
        let mut rest = parts;
        for (index, block) in bytes.chunks_exact(shape.bytes).enumerate() {
            let (parts, others) = rest.split_at(shape, 1);
            read(block, parts).map_err(|fault| (index, fault))?;
            rest = others;
        }
        return Ok(());
    }
    let first = blocks / 2;
    let (first_bytes, other_bytes) = bytes.split_at(first * shape.bytes);
    let (first_parts, other_parts) = parts.split_at(shape, first);
    in_order(
        first,
        join(
            || separate(shape, read, first_bytes, first_parts),
            || separate(shape, read, other_bytes, other_parts),
        ),
    )
}

/// Decodes whole blocks of `elements` values and `block_bytes` bytes each, in parallel.
pub(super) fn decode(
    block_bytes: usize,
    elements: usize,
    read: &(impl Fn(&[u8], &mut [f32]) -> Result<(), Fault> + Sync),
    bytes: &[u8],
    values: &mut [f32],
) -> Result<(), FaultAt> {
    let blocks = bytes.len() / block_bytes;
    if bytes.len() < WORTH_THREADS || blocks < 2 {
        for (index, (block, values)) in bytes
            .chunks_exact(block_bytes)
            .zip(values.chunks_exact_mut(elements))
            .enumerate()
        {
            read(block, values).map_err(|fault| (index, fault))?;
        }
        return Ok(());
    }
    let first = blocks / 2;
    let (first_bytes, other_bytes) = bytes.split_at(first * block_bytes);
    let (first_values, other_values) = values.split_at_mut(first * elements);
    in_order(
        first,
        join(
            || decode(block_bytes, elements, read, first_bytes, first_values),
            || decode(block_bytes, elements, read, other_bytes, other_values),
        ),
    )
}

/// The fault of the earlier block, where the second part begins at block `first`.
fn in_order(
    first: usize,
    (one, other): (Result<(), FaultAt>, Result<(), FaultAt>),
) -> Result<(), FaultAt> {
    one.and(other.map_err(|(index, fault)| (first + index, fault)))
}

/// The values of blocks of codes.
pub(super) struct Decoder {
    read: ReadCodes,
    shape: Shape,
    /// The element of each code.
    elements: [f32; 256],
}

impl Decoder {
    pub(super) fn new(shape: Shape, read: ReadCodes, format: &MatrixFormat) -> Self {
        let element = format.element();
        let mut elements = [0.0; 256];
        for (code, value) in (0..=u8::MAX).zip(&mut elements) {
            // Readers give no code that has no value.
            *value = element.code_value(code).unwrap_or(0.0);
        }
        Self {
            read,
            shape,
            elements,
        }
    }

    /// Decodes one block into as many values as it has: scale times element, rounded, plus the minimum where there is
    /// one, rounded, as a packed matrix does it.
    pub(super) fn decode(&self, block: &[u8], values: &mut [f32]) -> Result<(), Fault> {
        let shape = &self.shape;
        let (mut codes, mut scales, mut minima) =
            ([0; MOST_ELEMENTS], [0.0; MOST_SCALES], [0.0; MOST_SCALES]);
        let (mut second, mut second_minima) = ([1.0], [1.0]);
        let parts = Parts {
            codes: &mut codes[..shape.elements],
            scales: &mut scales[..shape.scales],
            minima: &mut minima[..shape.minima],
            second: &mut second[..shape.second],
            second_minima: &mut second_minima[..shape.second_minima],
        };
        (self.read)(block, parts)?;
        let group = shape.elements / shape.scales;
        let groups = values
            .chunks_exact_mut(group)
            .zip(codes.chunks_exact(group));
        for ((values, codes), (scale, minimum)) in groups.zip(scales.iter().zip(&minima)) {
            let scale = second[0] * scale;
            let minimum = second_minima[0] * minimum;
            for (value, &code) in values.iter_mut().zip(codes) {
                let scaled = scale * self.elements[usize::from(code)];
                // Adding no minimum would turn a −0 into 0.
                *value = if shape.minima > 0 {
                    scaled + minimum
                } else {
                    scaled
                };
            }
        }
        Ok(())
    }
}

/// Elements of the largest blocks.
const MOST_ELEMENTS: usize = 256;
/// Scales of the blocks with the most.
const MOST_SCALES: usize = 16;

/// The f16 at the start of `bytes`, if it is finite.
fn half(bytes: &[u8], part: ScalePart) -> Result<f32, Fault> {
    let value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Fault::NonFinite(part, value))
    }
}

/// Unpacks fields of `bits` bits.
///
/// The bytes come in runs of `run`. A run holds `run` fields in the lowest bits of its bytes, then `run` more in the
/// next bits, and so on. Each field goes to the bits of `fields` from `to` on: fields at 0 replace what was there,
/// higher ones are added to it.
fn unpack(bytes: &[u8], run: usize, bits: usize, to: usize, fields: &mut [u8]) {
    let mask = ((1u16 << bits) - 1) as u8;
    for (bytes, fields) in bytes
        .chunks_exact(run)
        .zip(fields.chunks_exact_mut(run * 8 / bits))
    {
        for (position, fields) in fields.chunks_exact_mut(run).enumerate() {
            let shift = position * bits;
            for (field, byte) in fields.iter_mut().zip(bytes) {
                let below = if to == 0 { 0 } else { *field };
                *field = (byte >> shift & mask) << to | below;
            }
        }
    }
}
