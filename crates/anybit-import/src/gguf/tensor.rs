use std::fmt;
use std::io::Read;

use anybit_formats::{FloatFormat, MatrixFormat};

use super::block::{ReadCodes, ReadValues, basic, iq, iq4, k_quants, microscaling, ternary};
use super::metadata::{NAME_LIMIT, shorten};
use super::reader::FieldReader;
use crate::ImportError;

use self::Becomes::{Codes, Floats, Nothing, Values};

/// Most dimensions of a tensor, as in ggml.
const DIMENSION_LIMIT: u32 = 4;

/// Bytes of the smallest tensor entry: length of the name, one byte of name, number of dimensions, type, offset.
pub(super) const SMALLEST_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;

/// How a tensor's elements are stored: one of ggml's types, by its number in the file.
///
/// The constants are the types that can be read; the file's other types are listed but refused. In their descriptions
/// d, m are floating-point scales and minima, the other letters integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorType(u32);

impl TensorType {
    /// IEEE 754 binary32.
    pub const F32: Self = Self(0);
    /// IEEE 754 binary16.
    pub const F16: Self = Self(1);
    /// 4-bit codes q in blocks of 32 with an f16 scale d; value d · (q − 8).
    pub const Q4_0: Self = Self(2);
    /// 4-bit codes q in blocks of 32 with an f16 scale d and minimum m; value d · q + m.
    pub const Q4_1: Self = Self(3);
    /// 5-bit codes q in blocks of 32 with an f16 scale d; value d · (q − 16).
    pub const Q5_0: Self = Self(6);
    /// 5-bit codes q in blocks of 32 with an f16 scale d and minimum m; value d · q + m.
    pub const Q5_1: Self = Self(7);
    /// Signed 8-bit integers q in blocks of 32 with an f16 scale d; value d · q.
    pub const Q8_0: Self = Self(8);
    /// 2-bit codes q in blocks of 256 with an f16 scale d and minimum m, and 4-bit s and t for each 16;
    /// value (d · s) · q − m · t.
    pub const Q2_K: Self = Self(10);
    /// 3-bit codes q in blocks of 256 with an f16 scale d, and 6-bit s for each 16; value (d · (s − 32)) · (q − 4).
    pub const Q3_K: Self = Self(11);
    /// 4-bit codes q in blocks of 256 with an f16 scale d and minimum m, and 6-bit s and t for each 32;
    /// value (d · s) · q − m · t.
    pub const Q4_K: Self = Self(12);
    /// 5-bit codes q in blocks of 256, else as [`Q4_K`](Self::Q4_K).
    pub const Q5_K: Self = Self(13);
    /// 6-bit codes q in blocks of 256 with an f16 scale d, and signed 8-bit s for each 16; value (d · s) · (q − 32).
    pub const Q6_K: Self = Self(14);
    /// Signed 8-bit integers q in blocks of 256 with an f32 scale d; value d · q.
    pub const Q8_K: Self = Self(15);
    /// 2.0625 bits an element: a grid of 256 points, signs, scales; see [`IQ1_S`](Self::IQ1_S).
    pub const IQ2_XXS: Self = Self(16);
    /// 2.3125 bits an element: a grid of 512 points, signs, scales; see [`IQ1_S`](Self::IQ1_S).
    pub const IQ2_XS: Self = Self(17);
    /// 3.0625 bits an element: a grid of 256 points, signs, scales; see [`IQ1_S`](Self::IQ1_S).
    pub const IQ3_XXS: Self = Self(18);
    /// 1.5625 bits an element: a grid of 2048 points of 8 elements each, scales and shifts.
    ///
    /// The codes of the IQ1, IQ2 and IQ3 types name neighbouring elements together, which no packed matrix can keep:
    /// they are read as values.
    pub const IQ1_S: Self = Self(19);
    /// 4-bit indices q of a table of 16 numbers v in blocks of 32 with an f16 scale d; value d · v(q).
    pub const IQ4_NL: Self = Self(20);
    /// 3.4375 bits an element: a grid of 512 points, signs, scales; see [`IQ1_S`](Self::IQ1_S).
    pub const IQ3_S: Self = Self(21);
    /// 2.5625 bits an element: a grid of 1024 points, signs, scales; see [`IQ1_S`](Self::IQ1_S).
    pub const IQ2_S: Self = Self(22);
    /// 4-bit indices q as in [`IQ4_NL`](Self::IQ4_NL) in blocks of 256 with an f16 scale d, and 6-bit s for each 32;
    /// value (d · (s − 32)) · v(q).
    pub const IQ4_XS: Self = Self(23);
    /// 1.75 bits an element: the grid of [`IQ1_S`](Self::IQ1_S), more scales and shifts.
    pub const IQ1_M: Self = Self(29);
    /// bfloat16: the upper half of a binary32.
    pub const BF16: Self = Self(30);
    /// Ternary numbers q, five a byte, in blocks of 256 with an f16 scale d; value d · q.
    pub const TQ1_0: Self = Self(34);
    /// Ternary numbers q, four a byte, in blocks of 256 with an f16 scale d; value d · q.
    pub const TQ2_0: Self = Self(35);
    /// E2M1 numbers q in blocks of 32 with an E8M0 scale d; value d · q.
    pub const MXFP4: Self = Self(39);
    /// E2M1 numbers q in blocks of 64 with an E4M3 scale d for each 16; value d · q. A model may hold one more factor
    /// of the whole tensor: beside `blk.0.ffn_up.weight` the tensor `blk.0.ffn_up.scale`, to be applied to products.
    pub const NVFP4: Self = Self(40);
    /// Single bits q in blocks of 128 with an f16 scale d; value d · (2q − 1).
    pub const Q1_0: Self = Self(41);

    /// The type's number in GGUF files.
    pub fn id(self) -> u32 {
        self.0
    }

    /// ggml's name of the type, or `None` if its number is not known here.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// Elements in a block, or `None` if the type is not known here. 1 for types without blocks.
    pub fn block_elements(self) -> Option<u64> {
        self.row().map(|row| row.block_elements)
    }

    /// Bytes that a block takes, or `None` if the type is not known here.
    pub fn block_bytes(self) -> Option<u64> {
        self.row().map(|row| row.block_bytes)
    }

    /// The format of the matrix that a tensor of this type is read as without loss, or `None` if there is none. Types
    /// of which only the values can be read ([`is_readable`](Self::is_readable)) have none either.
    pub fn matrix_format(self) -> Option<MatrixFormat> {
        match self.row()?.becomes {
            Becomes::Floats(FloatFormat::F32) => Some(MatrixFormat::F32),
            Becomes::Floats(FloatFormat::F16) => Some(MatrixFormat::F16),
            Becomes::Floats(FloatFormat::Bf16) => Some(MatrixFormat::BF16),
            Becomes::Codes(format, _) => format.parse().ok(),
            Becomes::Values(_) | Becomes::Nothing => None,
        }
    }

    /// Whether the values of a tensor of this type can be read, by [`GgufFile::values`](super::GgufFile::values).
    pub fn is_readable(self) -> bool {
        !matches!(self.becomes(), Becomes::Nothing)
    }

    /// What a tensor of this type is read as.
    pub(super) fn becomes(self) -> Becomes {
        self.row().map_or(Becomes::Nothing, |row| row.becomes)
    }

    fn row(self) -> Option<&'static TypeRow> {
        TYPES.iter().find(|row| row.id == self.0)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.pad(name),
            None => write!(formatter, "type {}", self.0),
        }
    }
}

/// The names of the types that can be read, for messages.
pub(crate) fn readable_types() -> String {
    let names: Vec<_> = TYPES
        .iter()
        .filter(|row| !matches!(row.becomes, Becomes::Nothing))
        .map(|row| row.name)
        .collect();
    names.join(", ")
}

/// What the tensors of a type are read as.
#[derive(Clone, Copy)]
pub(super) enum Becomes {
    /// A matrix of floats.
    Floats(FloatFormat),
    /// A matrix of the format named, with the codes and scales of the file.
    Codes(&'static str, ReadCodes),
    /// Values alone.
    Values(ReadValues),
    /// Nothing: the type is listed.
    Nothing,
}

struct TypeRow {
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
    becomes: Becomes,
}

const fn row(
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
    becomes: Becomes,
) -> TypeRow {
    TypeRow {
        id,
        name,
        block_elements,
        block_bytes,
        becomes,
    }
}

/// ggml's types (`ggml.h`, `ggml-common.h`), without those that it has removed again. Sizes matter for all of them:
/// they tell whether the tensors of a file overlap.
#[rustfmt::skip]
const TYPES: &[TypeRow] = &[
    row(0, "F32", 1, 4, Floats(FloatFormat::F32)),
    row(1, "F16", 1, 2, Floats(FloatFormat::F16)),
    row(2, "Q4_0", 32, 18, Codes("i4g32h", basic::q4_0)),
    row(3, "Q4_1", 32, 20, Codes("u4g32hm", basic::q4_1)),
    row(6, "Q5_0", 32, 22, Codes("i5g32h", basic::q5_0)),
    row(7, "Q5_1", 32, 24, Codes("u5g32hm", basic::q5_1)),
    row(8, "Q8_0", 32, 34, Codes("i8g32h", basic::q8_0)),
    row(9, "Q8_1", 32, 36, Nothing),
    row(10, "Q2_K", 256, 84, Codes("u2g16sm", k_quants::q2_k)),
    row(11, "Q3_K", 256, 110, Codes("i3g16s", k_quants::q3_k)),
    row(12, "Q4_K", 256, 144, Codes("u4g32sm", k_quants::q4_k)),
    row(13, "Q5_K", 256, 176, Codes("u5g32sm", k_quants::q5_k)),
    row(14, "Q6_K", 256, 210, Codes("i6g16s", k_quants::q6_k)),
    row(15, "Q8_K", 256, 292, Codes("i8g256f", k_quants::q8_k)),
    row(16, "IQ2_XXS", 256, 66, Values(iq::iq2_xxs)),
    row(17, "IQ2_XS", 256, 74, Values(iq::iq2_xs)),
    row(18, "IQ3_XXS", 256, 98, Values(iq::iq3_xxs)),
    row(19, "IQ1_S", 256, 50, Values(iq::iq1_s)),
    row(20, "IQ4_NL", 32, 18, Codes("iq4nlg32h", iq4::iq4_nl)),
    row(21, "IQ3_S", 256, 110, Values(iq::iq3_s)),
    row(22, "IQ2_S", 256, 82, Values(iq::iq2_s)),
    row(23, "IQ4_XS", 256, 136, Codes("iq4nlg32s", iq4::iq4_xs)),
    row(24, "I8", 1, 1, Nothing),
    row(25, "I16", 1, 2, Nothing),
    row(26, "I32", 1, 4, Nothing),
    row(27, "I64", 1, 8, Nothing),
    row(28, "F64", 1, 8, Nothing),
    row(29, "IQ1_M", 256, 56, Values(iq::iq1_m)),
    row(30, "BF16", 1, 2, Floats(FloatFormat::Bf16)),
    row(34, "TQ1_0", 256, 54, Codes("tg256h", ternary::tq1_0)),
    row(35, "TQ2_0", 256, 66, Codes("tg256h", ternary::tq2_0)),
    row(39, "MXFP4", 32, 17, Codes("e2m1g32e", microscaling::mxfp4)),
    row(40, "NVFP4", 64, 36, Codes("e2m1g16k", microscaling::nvfp4)),
    row(41, "Q1_0", 128, 18, Codes("b1g128h", basic::q1_0)),
];

/// A tensor of a file: its name, shape, type and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dimensions: Vec<u64>,
    tensor_type: TensorType,
    offset: u64,
    elements: u64,
    byte_size: Option<u64>,
}

impl TensorInfo {
    pub(super) fn read<R: Read>(reader: &mut FieldReader<R>) -> Result<Self, ImportError> {
        let name = reader.name(NAME_LIMIT, "a tensor name")?;
        let count = reader.u32("a tensor's number of dimensions")?;
        if count > DIMENSION_LIMIT {
            return Err(ImportError::TooManyDimensions {
                tensor: shorten(&name),
                count,
                limit: DIMENSION_LIMIT,
            });
        }
        let dimensions =
            reader.numbers(count.into(), "a tensor's dimensions", u64::from_le_bytes)?;
        let tensor_type = TensorType(reader.u32("a tensor's type")?);
        let offset = reader.u64("a tensor's offset")?;

        let overflow = || ImportError::DimensionsOverflow {
            tensor: shorten(&name),
            dimensions: dimensions.clone(),
        };
        // With a zero there are no elements, wherever it stands among dimensions that would overflow.
        let elements = if dimensions.contains(&0) {
            0
        } else {
            dimensions
                .iter()
                .try_fold(1u64, |product, &dimension| product.checked_mul(dimension))
                .ok_or_else(overflow)?
        };
        let byte_size = match tensor_type.row() {
            None => None,
            Some(row) => {
                let columns = dimensions.first().copied().unwrap_or(1);
                if !columns.is_multiple_of(row.block_elements) {
                    return Err(ImportError::BlockDoesNotDivide {
                        tensor: shorten(&name),
                        tensor_type,
                        columns,
                        block: row.block_elements,
                    });
                }
                let size = (elements / row.block_elements)
                    .checked_mul(row.block_bytes)
                    .ok_or_else(overflow)?;
                Some(size)
            }
        };
        Ok(Self {
            name,
            dimensions,
            tensor_type,
            offset,
            elements,
            byte_size,
        })
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions in GGUF order: the first is the one along which elements are adjacent. 0 to 4 of them; none
    /// means a single element.
    pub fn dimensions(&self) -> &[u64] {
        &self.dimensions
    }

    /// Columns of the tensor as a matrix: its first dimension, K. A one-dimensional tensor is one row.
    pub fn columns(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(1)
    }

    /// Rows of the tensor as a matrix: the product of all dimensions but the first, N for a weight matrix. 0 if the
    /// tensor has no elements.
    pub fn rows(&self) -> u64 {
        self.elements.checked_div(self.columns()).unwrap_or(0)
    }

    /// How many elements there are.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// How the elements are stored.
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Bytes that the tensor takes in the file, or `None` if its type is not known here.
    pub fn byte_size(&self) -> Option<u64> {
        self.byte_size
    }

    /// Where the tensor begins, in bytes from the start of the file's tensor data.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether [`GgufFile::matrix`](super::GgufFile::matrix) can read the tensor: its type has a matrix format, it
    /// has elements, and no dimension beyond the second.
    pub fn is_readable_matrix(&self) -> bool {
        self.is_matrix() && self.elements > 0 && self.tensor_type.matrix_format().is_some()
    }

    pub(super) fn is_matrix(&self) -> bool {
        self.dimensions
            .iter()
            .skip(2)
            .all(|&dimension| dimension == 1)
    }
}

/// Checks that every tensor is aligned and within the `available` bytes of tensor data, and that no two overlap.
pub(super) fn check_places(
    tensors: &[TensorInfo],
    alignment: u64,
    available: u64,
) -> Result<(), ImportError> {
    let mut places = Vec::new();
    for tensor in tensors {
        let TensorInfo { offset, .. } = *tensor;
        if !offset.is_multiple_of(alignment) {
            return Err(ImportError::MisalignedTensor {
                tensor: shorten(&tensor.name),
                offset,
                alignment,
            });
        }
        // A tensor of unknown type has an unknown size; that it begins within another can still be seen.
        let size = tensor.byte_size.unwrap_or(0);
        match offset.checked_add(size) {
            Some(end) if end <= available => {
                if tensor.byte_size != Some(0) {
                    places.push((offset, end, tensor));
                }
            }
            _ => {
                return Err(ImportError::TensorOutOfFile {
                    tensor: shorten(&tensor.name),
                    offset,
                    size,
                    available,
                });
            }
        }
    }
    places.sort_by_key(|&(offset, end, _)| (offset, end));
    for (&(_, end, first), &(start, _, second)) in places.iter().zip(places.iter().skip(1)) {
        if end > start {
            return Err(ImportError::OverlappingTensors {
                first: shorten(&first.name),
                second: shorten(&second.name),
                end,
                start,
            });
        }
    }
    Ok(())
}
