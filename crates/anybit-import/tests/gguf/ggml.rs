//! ggml's types as ggml defines them (`ggml-common.h`, `ggml-quants.c`), decoded straightforwardly and sharing nothing
//! with the crate under test.

/// A type under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// Name of the matrix format that it is read as.
    pub(crate) format: &'static str,
    pub(crate) block_elements: usize,
    pub(crate) block_bytes: usize,
    /// Where in a block its halves are that must be finite.
    pub(crate) halves: &'static [usize],
}

pub(crate) const F32: Type = float(0, "F32", "f32", 4);
pub(crate) const F16: Type = float(1, "F16", "f16", 2);
pub(crate) const BF16: Type = float(30, "BF16", "bf16", 2);
pub(crate) const Q4_0: Type = blocks(2, "Q4_0", "i4g32h", 18, &[0]);
pub(crate) const Q4_1: Type = blocks(3, "Q4_1", "u4g32hm", 20, &[0, 2]);
pub(crate) const Q5_0: Type = blocks(6, "Q5_0", "i5g32h", 22, &[0]);
pub(crate) const Q5_1: Type = blocks(7, "Q5_1", "u5g32hm", 24, &[0, 2]);
pub(crate) const Q8_0: Type = blocks(8, "Q8_0", "i8g32h", 34, &[0]);

pub(crate) const ALL: [Type; 8] = [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0];

const fn float(id: u32, name: &'static str, format: &'static str, bytes: usize) -> Type {
    Type {
        id,
        name,
        format,
        block_elements: 1,
        block_bytes: bytes,
        halves: &[],
    }
}

const fn blocks(
    id: u32,
    name: &'static str,
    format: &'static str,
    block_bytes: usize,
    halves: &'static [usize],
) -> Type {
    Type {
        id,
        name,
        format,
        block_elements: 32,
        block_bytes,
        halves,
    }
}

/// The value of a binary16, from its definition.
pub(crate) fn half(bytes: &[u8]) -> f32 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f32::from(bits & 1023);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// The codes of a block in order, as the signed or unsigned integers that ggml multiplies by the scale.
pub(crate) fn integers(tensor_type: Type, block: &[u8]) -> Vec<i32> {
    let mut integers = vec![0; 32];
    match tensor_type.name {
        "Q4_0" | "Q4_1" => {
            let (halves, bias) = if tensor_type.name == "Q4_0" {
                (&block[2..], 8)
            } else {
                (&block[4..], 0)
            };
            for j in 0..16 {
                integers[j] = i32::from(halves[j] & 0x0F) - bias;
                integers[j + 16] = i32::from(halves[j] >> 4) - bias;
            }
        }
        "Q5_0" | "Q5_1" => {
            let (rest, bias) = if tensor_type.name == "Q5_0" {
                (&block[2..], 16)
            } else {
                (&block[4..], 0)
            };
            let high = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let halves = &rest[4..];
            for j in 0..16 {
                let first = ((high >> j) << 4) & 0x10;
                let second = (high >> (j + 12)) & 0x10;
                integers[j] = (u32::from(halves[j] & 0x0F) | first) as i32 - bias;
                integers[j + 16] = (u32::from(halves[j] >> 4) | second) as i32 - bias;
            }
        }
        "Q8_0" => {
            for j in 0..32 {
                integers[j] = i32::from(block[2 + j] as i8);
            }
        }
        other => panic!("{other} has no blocks"),
    }
    integers
}

/// The values of a tensor's bytes, as ggml's `dequantize_row_*` computes them without contraction.
pub(crate) fn decode(tensor_type: Type, bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    for block in bytes.chunks(tensor_type.block_bytes) {
        match tensor_type.name {
            "F32" => values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            "F16" => values.push(half(block)),
            "BF16" => values.push(f32::from_le_bytes([0, 0, block[0], block[1]])),
            "Q4_1" | "Q5_1" => {
                let (scale, minimum) = (half(block), half(&block[2..]));
                let products = integers(tensor_type, block)
                    .into_iter()
                    .map(|integer| integer as f32 * scale);
                values.extend(products.map(|product| product + minimum));
            }
            _ => {
                let scale = half(block);
                let integers = integers(tensor_type, block);
                values.extend(integers.into_iter().map(|integer| integer as f32 * scale));
            }
        }
    }
    values
}

/// A small generator (splitmix64), so that test data need no files and stay the same.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Random bytes for `elements` elements, all values finite. Every pattern of codes and scales can occur; the first
/// blocks have the extreme ones: all bits of the codes clear or set, the largest, smallest and negative zero scale.
pub(crate) fn random_tensor(tensor_type: Type, elements: usize, seed: u64) -> Vec<u8> {
    let blocks = elements / tensor_type.block_elements;
    let mut bytes = Random(seed).bytes(blocks * tensor_type.block_bytes);
    let extremes = [0x0000u16, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF];
    for (position, block) in bytes.chunks_mut(tensor_type.block_bytes).enumerate() {
        match tensor_type.name {
            "F32" | "BF16" => {
                let last = block.len() - 1;
                // An exponent of all ones would be infinite or not a number.
                if block[last] & 0x7F == 0x7F && block[last - 1] & 0x80 == 0x80 {
                    block[last] &= 0xBF;
                }
            }
            "F16" => make_finite(block),
            _ => {
                for &at in tensor_type.halves {
                    make_finite(&mut block[at..at + 2]);
                }
                if let Some(extreme) = extremes.get(position) {
                    block[..2].copy_from_slice(&extreme.to_le_bytes());
                }
                let codes = tensor_type.halves.len() * 2;
                if position % 8 == 6 {
                    block[codes..].fill(0x00);
                } else if position % 8 == 7 {
                    block[codes..].fill(0xFF);
                }
            }
        }
    }
    bytes
}

fn make_finite(half: &mut [u8]) {
    if half[1] & 0x7C == 0x7C {
        half[1] &= 0xBF;
    }
}
