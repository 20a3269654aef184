use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::Utf8Error;

use anybit_formats::FormatError;

use crate::gguf::{TensorType, ValueType, readable_types};
use crate::safetensors::{Dtype, WeightLayout};

/// Why a model file, or a part of one, could not be read.
///
/// Names that come from the file are escaped in the messages and bounded in length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file could not be opened.
    #[error("cannot open {path:?}; check that it exists, is a file and may be read")]
    Open {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed to read bytes that lie within the file.
    #[error(
        "reading {length} bytes at offset {offset} failed; check the disk, and that the file is not being changed"
    )]
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes were wanted.
        length: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Memory for part of the file could not be had.
    #[error(
        "no memory for {what}: {bytes} bytes; free memory, or read the tensor in parts by `rows`"
    )]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for, in bytes.
        bytes: u64,
    },

    /// The file does not begin with the four bytes `GGUF`.
    #[error(
        "not a GGUF file: it begins with {found:02x?}, a GGUF file with [47, 47, 55, 46] (\"GGUF\")"
    )]
    NotGguf {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file is written for big-endian machines.
    #[error(
        "the file is big-endian GGUF version {version}; only little-endian files are read: convert it \
         (llama.cpp's `gguf_convert_endian.py` does)"
    )]
    BigEndian {
        /// The version, in the file's own byte order.
        version: u32,
    },
    /// The version of the format is not one that is read here.
    #[error(
        "GGUF version {version} is not supported; versions 2 and 3 are: convert the model again with a current tool"
    )]
    UnsupportedVersion {
        /// The version in the file.
        version: u32,
    },
    /// The file ends before something it announces.
    #[error(
        "the file ends too early: {what} at offset {offset} takes {needed} bytes and {available} are left; \
         it was probably cut off in transfer: fetch it again"
    )]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where in the file it begins, in bytes.
        offset: u64,
        /// How many bytes it takes.
        needed: u64,
        /// How many bytes are left from `offset` on.
        available: u64,
    },
    /// A count is larger than what the rest of the file could hold.
    #[error(
        "{what}: the file announces {count}, but the {available} bytes left at offset {offset} hold at most {limit}"
    )]
    CountTooLarge {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// The most that fit.
        limit: u64,
        /// Where what is counted would begin, in bytes.
        offset: u64,
        /// How many bytes are left from `offset` on.
        available: u64,
    },
    /// A key or a tensor name is empty or longer than the format allows.
    #[error("{what} at offset {offset} is {length} bytes long; 1 to {limit} are allowed")]
    NameLength {
        /// What is named: a metadata key or a tensor.
        what: &'static str,
        /// Where in the file the name begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// The longest allowed, in bytes.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8, as GGUF demands of every string")]
    InvalidUtf8 {
        /// What the string is.
        what: &'static str,
        /// Where in the file the string begins, in bytes.
        offset: u64,
        /// Where the string stops being UTF-8.
        source: Utf8Error,
    },

    /// A truth value is neither 0 nor 1.
    #[error("the truth value at offset {offset} is {value}; 0 and 1 are allowed")]
    InvalidBool {
        /// Where in the file, in bytes.
        offset: u64,
        /// The byte found.
        value: u8,
    },
    /// A metadata value has a type number that GGUF does not define.
    #[error(
        "metadata {key:?} has value type {id}; GGUF defines 0 to 12, and what follows an unknown type cannot be found"
    )]
    UnknownValueType {
        /// The metadata key.
        key: String,
        /// The type number in the file.
        id: u32,
    },
    /// Arrays of arrays are nested too deep.
    #[error("metadata {key:?} nests arrays deeper than {limit}, the most that is read")]
    ArrayTooDeep {
        /// The metadata key.
        key: String,
        /// The deepest nesting that is read.
        limit: u32,
    },
    /// Two metadata entries have the same key.
    #[error("metadata {key:?} occurs twice; keys must be unique")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata key that was asked for is not in the file.
    #[error(
        "the file has no metadata {key:?}; check that it is a model of the architecture expected"
    )]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value is of another type than was asked for.
    #[error("metadata {key:?} is {found}; expected {expected}")]
    WrongValueType {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file holds.
        found: ValueType,
    },
    /// A metadata integer does not fit the type that was asked for.
    #[error("metadata {key:?} is {value}, which does not fit {expected}")]
    ValueOutOfRange {
        /// The key.
        key: String,
        /// The value in the file.
        value: i128,
        /// What was asked for.
        expected: &'static str,
    },
    /// `general.alignment` is not usable.
    #[error("general.alignment is {value}; it must be a power of two from 1 to {limit}")]
    InvalidAlignment {
        /// The value in the file.
        value: u64,
        /// The largest alignment that is read.
        limit: u64,
    },

    /// Two tensors have the same name.
    #[error("tensor {name:?} occurs twice; names must be unique")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A tensor has more dimensions than the format allows, or than are read.
    #[error("tensor {tensor:?} has {count} dimensions; at most {limit} are allowed")]
    TooManyDimensions {
        /// The tensor.
        tensor: String,
        /// How many dimensions the file gives it.
        count: u32,
        /// The most allowed.
        limit: u32,
    },
    /// A tensor's dimensions multiply to more than can be counted.
    #[error(
        "tensor {tensor:?} with dimensions {dimensions:?} has more elements or bytes than 64 bits count"
    )]
    DimensionsOverflow {
        /// The tensor.
        tensor: String,
        /// Its dimensions as the file lists them.
        dimensions: Vec<u64>,
    },
    /// A row of a tensor is not a whole number of blocks of its type.
    #[error(
        "tensor {tensor:?} has rows of {columns} elements; {tensor_type} comes in blocks of {block}, which must divide them"
    )]
    BlockDoesNotDivide {
        /// The tensor.
        tensor: String,
        /// Its type.
        tensor_type: TensorType,
        /// Elements in a row, the first dimension.
        columns: u64,
        /// Elements in a block.
        block: u64,
    },
    /// A tensor does not begin on a multiple of the file's alignment.
    #[error(
        "tensor {tensor:?} begins at offset {offset} of the data, which is no multiple of the alignment {alignment}"
    )]
    MisalignedTensor {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the tensor data, in bytes.
        offset: u64,
        /// The file's alignment in bytes.
        alignment: u64,
    },
    /// A tensor reaches past the end of the file.
    #[error(
        "tensor {tensor:?} takes {size} bytes at offset {offset} of the tensor data, which is {available} bytes long; \
         the file was probably cut off in transfer: fetch it again"
    )]
    TensorOutOfFile {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the tensor data, in bytes.
        offset: u64,
        /// Its size in bytes; 0 if its type is unknown.
        size: u64,
        /// The length of the tensor data in bytes.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error(
        "tensors {first:?} and {second:?} overlap: the first ends at offset {end}, the second begins at {start}"
    )]
    OverlappingTensors {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins within it.
        second: String,
        /// Where the first ends, from the start of the tensor data, in bytes.
        end: u64,
        /// Where the second begins, from the start of the tensor data, in bytes.
        start: u64,
    },

    /// A tensor that was asked for is not in the file.
    #[error("the file has no tensor {name:?}; `tensors()` lists those it has")]
    UnknownTensor {
        /// The name.
        name: String,
    },
    /// A tensor's type is listed but cannot be read.
    #[error(
        "tensor {tensor:?} is {tensor_type}, which is not read; these are: {}: convert the model to one of them",
        readable_types()
    )]
    UnsupportedTensorType {
        /// The tensor.
        tensor: String,
        /// Its type.
        tensor_type: TensorType,
    },
    /// No packed matrix holds what a tensor's type stores.
    #[error(
        "tensor {tensor:?} is {tensor_type}, whose codes no packed matrix keeps without loss; \
         `values` decodes it exactly, `matrix_as` quantises it anew to a format you choose"
    )]
    NoMatrixFormat {
        /// The tensor.
        tensor: String,
        /// Its type.
        tensor_type: TensorType,
    },
    /// A tensor has more than two dimensions.
    #[error(
        "tensor {tensor:?} with dimensions {dimensions:?} is not a matrix; one with one or two dimensions is expected"
    )]
    NotAMatrix {
        /// The tensor.
        tensor: String,
        /// Its dimensions as the file lists them.
        dimensions: Vec<u64>,
    },
    /// A tensor has no elements.
    #[error("tensor {tensor:?} with dimensions {dimensions:?} has no elements")]
    EmptyTensor {
        /// The tensor.
        tensor: String,
        /// Its dimensions as the file lists them.
        dimensions: Vec<u64>,
    },
    /// A row that was asked for is not in the tensor.
    #[error("tensor {tensor:?} has {rows} rows; row {row} was asked for")]
    RowOutOfRange {
        /// The tensor.
        tensor: String,
        /// The row asked for, from 0.
        row: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// The scale or minimum of a block is infinite or not a number.
    #[error(
        "tensor {tensor:?}: the {part} of block {block} in row {row} is {value}; the file is damaged: fetch it again"
    )]
    NonFiniteScale {
        /// The tensor.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The block within the row, from 0.
        block: u64,
        /// Which of the block's numbers.
        part: ScalePart,
        /// Its value.
        value: f32,
    },
    /// The scale of a block is a byte that stands for no scale.
    #[error(
        "tensor {tensor:?}: a scale of block {block} in row {row} is the byte {byte:#04x}, but {expected}; \
         the file is damaged: fetch it again"
    )]
    InvalidScale {
        /// The tensor.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The block within the row, from 0.
        block: u64,
        /// The byte found.
        byte: u8,
        /// Which bytes are scales.
        expected: &'static str,
    },
    /// A block has a code that its type does not define.
    #[error(
        "tensor {tensor:?}: a code of block {block} in row {row} is {code}; codes are 0 to {limit}; \
         the file is damaged: fetch it again"
    )]
    InvalidCode {
        /// The tensor.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The block within the row, from 0.
        block: u64,
        /// The code found.
        code: u8,
        /// The largest code there is.
        limit: u8,
    },

    /// The file is neither GGUF nor safetensors.
    #[error(
        "{path:?} is no model file: it begins with {found:02x?}, a GGUF file with \"GGUF\", a safetensors file with \
         the length of its header and a brace"
    )]
    UnknownFile {
        /// The path as it was given.
        path: PathBuf,
        /// Its first bytes, at most nine.
        found: Vec<u8>,
    },
    /// A directory does not say which of its files is the model.
    #[error(
        "{path:?} holds {count} safetensors files but neither model.safetensors.index.json nor model.safetensors; \
         name one of them"
    )]
    NoModelInDirectory {
        /// The directory.
        path: PathBuf,
        /// How many safetensors files it holds.
        count: usize,
    },
    /// The header does not begin as a safetensors header does.
    #[error(
        "not a safetensors file: after the length of the header comes {found:#04x}, a header begins with a brace"
    )]
    NotSafetensors {
        /// The first byte of the header.
        found: u8,
    },
    /// A part of a file is longer than is read.
    #[error("{what} is {length} bytes long; at most {limit} are read")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length in bytes.
        length: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A JSON text is not right.
    #[error("{what} is not the JSON it should be; the file is damaged or of another kind")]
    InvalidJson {
        /// Which text.
        what: &'static str,
        /// What is wrong, and where.
        source: JsonError,
    },
    /// A tensor of a safetensors file has an element type that the format does not define.
    #[error("tensor {tensor:?} has the element type {dtype:?}, which safetensors does not define")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The type's name in the file.
        dtype: String,
    },
    /// A tensor's place has another length than its shape.
    #[error(
        "tensor {tensor:?} of {dtype} with the shape {shape:?} takes {} bytes; the file gives it {begin} to {end}",
        expected.map_or("too many or no whole".to_owned(), |bytes| bytes.to_string())
    )]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape, outermost dimension first.
        shape: Vec<u64>,
        /// The bytes it takes, or `None` if 64 bits do not count its bits, or they do not fill whole bytes.
        expected: Option<u64>,
        /// Where it begins, from the start of the tensor data, in bytes.
        begin: u64,
        /// Where it ends, from the start of the tensor data, in bytes.
        end: u64,
    },
    /// Bytes of a safetensors file belong to no tensor.
    #[error(
        "the {} bytes of tensor data from {begin} on belong to no tensor, which safetensors does not allow; \
         the file is damaged: fetch it again",
        end.saturating_sub(*begin)
    )]
    Hole {
        /// Where they begin, from the start of the tensor data.
        begin: u64,
        /// Where they end.
        end: u64,
    },
    /// The index of a model in several files names a file that is not simply beside it.
    #[error(
        "the index names the file {file:?}; only files in the index's own directory are opened"
    )]
    FileOutsideDirectory {
        /// The name in the index.
        file: String,
    },
    /// The index of a model names more files than are opened.
    #[error("the index names more than {limit} files; at most so many are opened")]
    TooManyFiles {
        /// The most that are opened.
        limit: usize,
    },
    /// A file of a model lacks a tensor that the index says it has.
    #[error(
        "the index says that {file:?} has the tensor {tensor:?}, but it has not; fetch the model again"
    )]
    NotInFile {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },

    /// A tensor that belongs to a quantised weight is missing.
    #[error(
        "weight {weight:?} is stored as {layout}, which takes a tensor {tensor:?}, but there is none; \
         if the model is in several files, open their index"
    )]
    MissingTensor {
        /// The weight.
        weight: String,
        /// How it is stored.
        layout: WeightLayout,
        /// The tensor that is missing.
        tensor: String,
    },
    /// A tensor has another element type than its part in a quantised weight takes.
    #[error("tensor {tensor:?} is {found}; expected {expected}")]
    WrongDtype {
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: Dtype,
        /// What it could be.
        expected: &'static str,
    },
    /// A tensor has another shape than its part in a quantised weight takes.
    #[error("tensor {tensor:?} has the shape {found:?}; expected {expected}")]
    WrongShape {
        /// The tensor.
        tensor: String,
        /// Its shape, outermost dimension first.
        found: Vec<u64>,
        /// What it could be.
        expected: String,
    },
    /// The tensors alone do not say how a weight is quantised.
    #[error(
        "weight {weight:?} is stored as {layout}, but neither its tensors nor a configuration tell {what}; \
         keep config.json beside the file, or give a QuantizationConfig"
    )]
    Undecided {
        /// The weight.
        weight: String,
        /// How it is stored.
        layout: WeightLayout,
        /// What is not known.
        what: &'static str,
    },
    /// The configuration of a quantised model has a value that is not read, or not what the tensors say.
    #[error("weight {weight:?}: the configuration says {setting} is {value}; {expected}")]
    Setting {
        /// The weight.
        weight: String,
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// A weight is stored in a way that is not read.
    #[error(
        "weight {weight:?} is stored as {layout}, which is not read; convert the model to F32, F16, BF16 or a \
         quantised layout that is"
    )]
    UnsupportedLayout {
        /// The weight.
        weight: String,
        /// How it is stored.
        layout: WeightLayout,
    },
    /// No packed matrix holds a quantised weight.
    #[error(
        "weight {weight:?} is stored as {layout}, but {reason}, so no packed matrix keeps it without loss; \
         `values` decodes it exactly, `matrix_as` quantises it anew to a format you choose"
    )]
    NotPackable {
        /// The weight.
        weight: String,
        /// How it is stored.
        layout: WeightLayout,
        /// Why not.
        reason: &'static str,
    },
    /// The columns of a weight are not in the order of their groups.
    #[error(
        "weight {weight:?} was quantised in another order than that of its columns (`desc_act`); \
         `permuted_matrix` gives it with the permutation of the activations, `values` in its own order"
    )]
    PermutedColumns {
        /// The weight.
        weight: String,
    },
    /// A column belongs to a group that there is not.
    #[error(
        "weight {weight:?}: column {column} is of group {group}, but there are {groups}; the file is damaged: fetch it again"
    )]
    GroupOutOfRange {
        /// The weight.
        weight: String,
        /// The column, from 0.
        column: u64,
        /// Its group.
        group: i64,
        /// How many groups there are.
        groups: u64,
    },

    /// A file of packed matrices is of a version that is not read.
    #[error(
        "the file's packed matrices are of version {version:?}; version {supported} is read: use a newer anybit"
    )]
    UnsupportedPackedVersion {
        /// The version in the file.
        version: String,
        /// The version that is read.
        supported: u32,
    },
    /// A file of packed matrices describes one in a way that is not read.
    #[error(
        "matrix {matrix:?} is described as {entry:?}; expected a format and a shape, as in \"u4g32hm 4096x11008\""
    )]
    InvalidMatrixEntry {
        /// The matrix.
        matrix: String,
        /// The description.
        entry: String,
    },
    /// The format of a packed matrix, or a codebook of the file, is not valid here.
    #[error("{what} {name:?} of the file is not valid here")]
    PackedFormat {
        /// The matrix or the codebook.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        source: FormatError,
    },
    /// A file of packed matrices has more codebooks than are read.
    #[error("the file has {count} codebooks; at most {limit} are read")]
    TooManyCodebooks {
        /// How many there are.
        count: usize,
        /// The most that are read.
        limit: usize,
    },

    /// What a tensor holds does not make a valid matrix.
    #[error("tensor {tensor:?} does not make a valid matrix")]
    Matrix {
        /// The tensor.
        tensor: String,
        /// Why not.
        source: FormatError,
    },
}

/// Why a text is not the JSON that it should be. What the message quotes of the text is escaped and bounded in length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    message: String,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        const LIMIT: usize = 300;
        let text = error.to_string();
        let mut message = printable(&text, LIMIT);
        if text.chars().nth(LIMIT).is_some() && error.line() > 0 {
            // The place stands at the end, which was cut off.
            message += &format!(" at line {} column {}", error.line(), error.column());
        }
        Self { message }
    }
}

/// Text of a file for a message: so many characters, and none that a terminal would act on.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut printable = String::new();
    for character in text.chars().take(limit) {
        match character.is_control() {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    if text.chars().nth(limit).is_some() {
        printable.push('…');
    }
    printable
}

/// Which of the numbers that stand before a block of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScalePart {
    /// The factor of the codes.
    Scale,
    /// The value that is added to every scaled code.
    Minimum,
}

impl fmt::Display for ScalePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ScalePart::Scale => "scale",
            ScalePart::Minimum => "minimum",
        })
    }
}

/// Why a file of packed matrices could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file could not be created.
    #[error("cannot create {path:?}; check that the directory exists and may be written")]
    Create {
        /// The path of the file, or of the temporary one beside it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed to write.
    #[error("writing failed; check that there is room on the disk")]
    Write {
        /// What the system said.
        source: io::Error,
    },
    /// The finished file could not be put in its place.
    #[error("cannot put the finished file at {path:?}; check that it may be written")]
    Replace {
        /// Where it belongs.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name occurs twice, or is one that the file needs itself.
    #[error(
        "the name {name:?} is in the file already, or is one that the file itself needs; choose another"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A metadata key is given twice.
    #[error(
        "the metadata key {key:?} is in the file already, or begins with \"anybit.\"; choose another"
    )]
    KeyTaken {
        /// The key.
        key: String,
    },
    /// A tensor's bytes are more or fewer than its shape takes.
    #[error("tensor {tensor:?} of {dtype} with the shape {shape:?} does not take {found} bytes")]
    Length {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape, outermost dimension first.
        shape: Vec<u64>,
        /// The bytes given.
        found: u64,
    },
    /// The header would be longer than safetensors files may have it.
    #[error(
        "the header would be {length} bytes long; at most {limit} are allowed: split the model"
    )]
    HeaderTooLong {
        /// Its length in bytes.
        length: u64,
        /// The most allowed.
        limit: u64,
    },
}
