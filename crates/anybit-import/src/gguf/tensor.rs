use std::fmt;
use std::io::Read;

use anybit_formats::MatrixFormat;

use super::metadata::{NAME_LIMIT, shorten};
use super::reader::FieldReader;
use crate::ImportError;

/// Most dimensions of a tensor, as in ggml.
const DIMENSION_LIMIT: u32 = 4;

/// Bytes of the smallest tensor entry: length of the name, one byte of name, number of dimensions, type, offset.
pub(super) const SMALLEST_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;

/// How a tensor's elements are stored: one of ggml's types, by its number in the file.
///
/// The constants are the types that can be read; the file's other types are listed but refused.
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
    /// bfloat16: the upper half of a binary32.
    pub const BF16: Self = Self(30);

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

    /// The format of the matrix that a tensor of this type is read as, or `None` if the type cannot be read.
    pub fn matrix_format(self) -> Option<MatrixFormat> {
        match self {
            Self::F32 => Some(MatrixFormat::F32),
            Self::F16 => Some(MatrixFormat::F16),
            Self::BF16 => Some(MatrixFormat::BF16),
            Self::Q4_0 => MatrixFormat::named("q4_0"),
            Self::Q4_1 => MatrixFormat::named("q4_1"),
            Self::Q5_0 => MatrixFormat::named("q5_0"),
            Self::Q5_1 => MatrixFormat::named("q5_1"),
            Self::Q8_0 => MatrixFormat::named("q8_0"),
            _ => None,
        }
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

struct TypeRow {
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
}

const fn row(id: u32, name: &'static str, block_elements: u64, block_bytes: u64) -> TypeRow {
    TypeRow {
        id,
        name,
        block_elements,
        block_bytes,
    }
}

/// ggml's types (`ggml.h`, `ggml-common.h`), without those that it has removed again. Sizes matter for all of them:
/// they tell whether the tensors of a file overlap.
const TYPES: &[TypeRow] = &[
    row(0, "F32", 1, 4),
    row(1, "F16", 1, 2),
    row(2, "Q4_0", 32, 18),
    row(3, "Q4_1", 32, 20),
    row(6, "Q5_0", 32, 22),
    row(7, "Q5_1", 32, 24),
    row(8, "Q8_0", 32, 34),
    row(9, "Q8_1", 32, 36),
    row(10, "Q2_K", 256, 84),
    row(11, "Q3_K", 256, 110),
    row(12, "Q4_K", 256, 144),
    row(13, "Q5_K", 256, 176),
    row(14, "Q6_K", 256, 210),
    row(15, "Q8_K", 256, 292),
    row(16, "IQ2_XXS", 256, 66),
    row(17, "IQ2_XS", 256, 74),
    row(18, "IQ3_XXS", 256, 98),
    row(19, "IQ1_S", 256, 50),
    row(20, "IQ4_NL", 32, 18),
    row(21, "IQ3_S", 256, 110),
    row(22, "IQ2_S", 256, 82),
    row(23, "IQ4_XS", 256, 136),
    row(24, "I8", 1, 1),
    row(25, "I16", 1, 2),
    row(26, "I32", 1, 4),
    row(27, "I64", 1, 8),
    row(28, "F64", 1, 8),
    row(29, "IQ1_M", 256, 56),
    row(30, "BF16", 1, 2),
    row(34, "TQ1_0", 256, 54),
    row(35, "TQ2_0", 256, 66),
    row(39, "MXFP4", 32, 17),
    row(40, "NVFP4", 64, 36),
    row(41, "Q1_0", 128, 18),
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

    /// Whether [`GgufFile::matrix`](super::GgufFile::matrix) can read the tensor: its type is one that is read, it
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
