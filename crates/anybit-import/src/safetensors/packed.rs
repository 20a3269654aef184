//! Packed matrices in a safetensors file: how their parts are called, typed and shaped, and reading them.
//!
//! The metadata has `anybit.version` and, for each matrix, `anybit.matrix.NAME` with its format and shape. A matrix of
//! floats is the tensor NAME. One of codes is these tensors, of which it has those that its format has:
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `NAME.codes.0`, `NAME.codes.1`, … | U32 | [rows, words a row]: the pieces of the codes, low bits first |
//! | `NAME.codes.ternary5` | U8 | [rows, ⌈columns / 5⌉]: ternary codes, five a byte, instead of pieces |
//! | `NAME.scales` | that of the scales | [1], or [rows, groups] |
//! | `NAME.second_scales` | F32 or F16 | [1], or [rows, entries a row] |
//! | `NAME.zero_points`, `NAME.choices` | U8 | as the scales |
//! | `NAME.minima` | that of the scales | as the scales |
//! | `NAME.second_minima` | F16 | as the second scales |
//!
//! 8-bit scales are F8_E4M3, exponents in U8 or integers in I8. The table of a user's codebook is the F32 tensor
//! `anybit.codebook.NAME`. Tensors `anybit.padding.N` keep the others aligned and mean nothing.

use anybit_formats::layout::{piece_widths, row_words};
use anybit_formats::{
    CodebookFormat, ElementFormat, FloatFormat, Granularity, MatrixFormat, PackedMatrix,
    PieceLayout, ScaleType, SideData, ZeroKind, Zeros, ternary5_bytes, unpack_ternary5,
};

use super::read::{check_dtype, check_shape, u16_from};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo};
use crate::ImportError;
use crate::gguf::{reserve, shorten};

/// The version of the description above.
pub(super) const VERSION: u32 = 1;
/// The metadata key of the version.
pub(super) const VERSION_KEY: &str = "anybit.version";
/// What the metadata keys of matrices begin with.
pub(super) const MATRIX_PREFIX: &str = "anybit.matrix.";
/// What the names of tables of codebooks begin with.
pub(super) const CODEBOOK_PREFIX: &str = "anybit.codebook.";
/// What the names of tensors between others begin with.
pub(super) const PADDING_PREFIX: &str = "anybit.padding.";
/// What the names and keys begin with that the file needs itself.
pub(super) const RESERVED_PREFIX: &str = "anybit.";
/// What an entry ends in whose codes are five a byte.
const TERNARY_MARK: &str = "ternary5";

/// Most codebooks of a file: each is kept for the life of the process.
const CODEBOOK_LIMIT: usize = 64;

/// Whether a tensor belongs to the file itself and is no weight.
pub(super) fn is_internal(name: &str) -> bool {
    name.starts_with(CODEBOOK_PREFIX) || name.starts_with(PADDING_PREFIX)
}

/// A packed matrix as the metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedEntry {
    name: String,
    format: MatrixFormat,
    rows: usize,
    columns: usize,
    ternary: bool,
}

/// What a tensor is to its matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Floats(FloatFormat),
    Piece(usize),
    Ternary,
    Scales(ScaleType),
    SecondScales(FloatFormat),
    ZeroPoints,
    Choices,
    Minima(ScaleType),
    SecondMinima(FloatFormat),
}

/// A tensor of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
}

fn float_dtype(float: FloatFormat) -> Dtype {
    match float {
        FloatFormat::F32 => Dtype::F32,
        FloatFormat::F16 => Dtype::F16,
        FloatFormat::Bf16 => Dtype::Bf16,
    }
}

fn scale_dtype(scale: ScaleType) -> Dtype {
    match scale {
        ScaleType::F32 => Dtype::F32,
        ScaleType::F16 => Dtype::F16,
        ScaleType::E8m0 => Dtype::U8,
        ScaleType::E4m3 => Dtype::F8E4m3,
        ScaleType::Int8 | ScaleType::Super => Dtype::I8,
    }
}

impl PackedEntry {
    /// That of a matrix to be written.
    pub(super) fn of(name: &str, matrix: &PackedMatrix) -> Self {
        Self {
            name: name.to_owned(),
            format: *matrix.format(),
            rows: matrix.rows(),
            columns: matrix.columns(),
            ternary: matrix.format().element() == ElementFormat::TERNARY,
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, ImportError> {
        let invalid = || ImportError::InvalidMatrixEntry {
            matrix: shorten(name),
            entry: shorten(text),
        };
        let mut words = text.split(' ');
        let (format, shape) = (words.next(), words.next());
        let ternary = match words.next() {
            None => false,
            Some(TERNARY_MARK) => true,
            Some(_) => return Err(invalid()),
        };
        let (rows, columns) = shape
            .and_then(|shape| shape.split_once('x'))
            .ok_or_else(invalid)?;
        let format: MatrixFormat =
            format
                .unwrap_or_default()
                .parse()
                .map_err(|source| ImportError::PackedFormat {
                    what: "the format of matrix",
                    name: shorten(name),
                    source,
                })?;
        let entry = Self {
            name: name.to_owned(),
            format,
            rows: rows.parse().map_err(|_| invalid())?,
            columns: columns.parse().map_err(|_| invalid())?,
            ternary,
        };
        let is_ternary = format.element() == ElementFormat::TERNARY;
        // Numbers have one way to be written.
        if words.next().is_some() || (ternary && !is_ternary) || entry.text() != text {
            return Err(invalid());
        }
        format
            .check_shape(entry.rows, entry.columns)
            .map_err(|source| ImportError::PackedFormat {
                what: "the shape of matrix",
                name: shorten(name),
                source,
            })?;
        Ok(entry)
    }

    /// What the metadata says of the matrix.
    pub(super) fn text(&self) -> String {
        let mark = if self.ternary {
            format!(" {TERNARY_MARK}")
        } else {
            String::new()
        };
        format!("{} {}x{}{mark}", self.format, self.rows, self.columns)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn format(&self) -> MatrixFormat {
        self.format
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The names of its tensors.
    pub(super) fn tensors(&self) -> Vec<String> {
        self.parts().into_iter().map(|part| part.name).collect()
    }

    /// Its tensors, in the order in which they are written.
    pub(super) fn parts(&self) -> Vec<Part> {
        let Self {
            ref name,
            format,
            rows,
            columns,
            ternary,
        } = *self;
        let matrix = |across: usize| vec![rows as u64, across as u64];
        let part = |role, suffix: &str, dtype, shape| Part {
            role,
            name: format!("{name}{suffix}"),
            dtype,
            shape,
        };
        let mut parts = Vec::new();
        if let ElementFormat::Float(float) = format.element() {
            parts.push(part(
                Role::Floats(float),
                "",
                float_dtype(float),
                matrix(columns),
            ));
        } else if ternary {
            let shape = matrix(ternary5_bytes(columns));
            parts.push(part(Role::Ternary, ".codes.ternary5", Dtype::U8, shape));
        } else {
            let widths = piece_widths(format.element(), PieceLayout::Pieces);
            for (piece, &width) in widths.iter().enumerate() {
                let shape = matrix(row_words(width, columns));
                let suffix = format!(".codes.{piece}");
                parts.push(part(Role::Piece(piece), &suffix, Dtype::U32, shape));
            }
        }
        let Some(layout) = format.scales() else {
            return parts;
        };
        let by = |granularity, across| match granularity {
            Granularity::Tensor => vec![1],
            _ => matrix(across),
        };
        let scales = || by(layout.granularity, format.groups(columns));
        let scale = layout.scale;
        parts.push(part(
            Role::Scales(scale),
            ".scales",
            scale_dtype(scale),
            scales(),
        ));
        match layout.zero {
            ZeroKind::None => {}
            ZeroKind::Integer => {
                parts.push(part(Role::ZeroPoints, ".zero_points", Dtype::U8, scales()));
            }
            ZeroKind::Choice => parts.push(part(Role::Choices, ".choices", Dtype::U8, scales())),
            ZeroKind::Minimum => {
                parts.push(part(
                    Role::Minima(scale),
                    ".minima",
                    scale_dtype(scale),
                    scales(),
                ));
            }
        }
        if let Some(level) = scale.second() {
            let second = || by(level.granularity, format.second_groups(columns));
            let dtype = float_dtype(level.float);
            parts.push(part(
                Role::SecondScales(level.float),
                ".second_scales",
                dtype,
                second(),
            ));
            if layout.zero == ZeroKind::Minimum {
                let role = Role::SecondMinima(level.float);
                parts.push(part(role, ".second_minima", dtype, second()));
            }
        }
        parts
    }
}

/// The packed matrices of a file; `None` if it is not a file of packed matrices.
pub(super) fn entries(file: &SafetensorsFile) -> Result<Option<Vec<PackedEntry>>, ImportError> {
    let mut versions = file
        .metadata
        .iter()
        .filter(|(key, _)| key == VERSION_KEY)
        .peekable();
    if versions.peek().is_none() {
        return Ok(None);
    }
    if let Some((_, version)) = versions.find(|(_, version)| *version != VERSION.to_string()) {
        return Err(ImportError::UnsupportedPackedVersion {
            version: shorten(version),
            supported: VERSION,
        });
    }
    add_codebooks(file)?;
    file.metadata
        .iter()
        .filter_map(|(key, text)| Some((key.strip_prefix(MATRIX_PREFIX)?, text)))
        .map(|(name, text)| PackedEntry::parse(name, text))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Makes the codebooks of a file known, so that their formats can be read.
fn add_codebooks(file: &SafetensorsFile) -> Result<(), ImportError> {
    let tables = || {
        let named = |info: &'_ TensorInfo| info.name().starts_with(CODEBOOK_PREFIX);
        file.tensors.iter().filter(move |info| named(info))
    };
    let count = tables().count();
    if count > CODEBOOK_LIMIT {
        return Err(ImportError::TooManyCodebooks {
            count,
            limit: CODEBOOK_LIMIT,
        });
    }
    for info in tables() {
        check_dtype(info, Dtype::F32)?;
        if !matches!(*info.shape(), [2..=256]) {
            return Err(super::read::wrong_shape(info, "2 to 256 values"));
        }
        let values = file.scales(info)?;
        let name = info.name().strip_prefix(CODEBOOK_PREFIX).unwrap_or("");
        CodebookFormat::user(name, &values).map_err(|source| ImportError::PackedFormat {
            what: "codebook",
            name: shorten(name),
            source,
        })?;
    }
    Ok(())
}

impl SafetensorsFile {
    /// Reads a packed matrix.
    pub(super) fn packed_matrix(
        &self,
        weight: &WeightInfo,
        entry: &PackedEntry,
    ) -> Result<PackedMatrix, ImportError> {
        let failed = |source| ImportError::Matrix {
            tensor: shorten(weight.name()),
            source,
        };
        let (rows, columns) = (entry.rows, entry.columns);
        let (mut pieces, mut ternary) = (Vec::new(), None);
        let (mut scales, mut second, mut second_minima) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut minima) = (Vec::new(), Vec::new());
        for part in entry.parts() {
            let info = self.part(weight, &part.name)?;
            check_dtype(info, part.dtype)?;
            check_shape(info, &part.shape)?;
            match part.role {
                Role::Floats(FloatFormat::F32) | Role::Piece(_) => pieces.push(self.words(info)?),
                Role::Floats(_) => pieces.push(self.halves(info, rows, columns)?),
                Role::Ternary => ternary = Some(self.bytes(info)?),
                Role::Scales(scale) => scales = self.numbers(info, scale)?,
                Role::Minima(scale) => minima = self.numbers(info, scale)?,
                Role::SecondScales(_) => second = self.scales(info)?,
                Role::SecondMinima(_) => second_minima = self.scales(info)?,
                Role::ZeroPoints | Role::Choices => bytes = self.bytes(info)?,
            }
        }
        let side = SideData {
            scales: &scales,
            second: &second,
            zeros: match entry.format.zero_kind() {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&bytes),
                ZeroKind::Minimum => Zeros::Minimum(&minima),
                ZeroKind::Choice => Zeros::Choice(&bytes),
            },
            second_minima: &second_minima,
        };
        let Some(ternary) = ternary else {
            if let ElementFormat::Float(FloatFormat::F32) = entry.format.element() {
                // Rows of a matrix are padded, those of the tensor are not.
                let values: Vec<f32> = pieces
                    .iter()
                    .flatten()
                    .map(|&bits| f32::from_bits(bits))
                    .collect();
                return PackedMatrix::from_f32(FloatFormat::F32, rows, columns, &values)
                    .map_err(failed);
            }
            return PackedMatrix::from_pieces(entry.format, rows, columns, pieces, side)
                .map_err(failed);
        };
        let mut codes = Vec::new();
        let count = reserve(
            &mut codes,
            rows as u64 * columns as u64,
            "the codes of a tensor",
        )?;
        codes.resize(count, 0);
        let packed = ternary.chunks_exact(ternary5_bytes(columns).max(1));
        for (codes, bytes) in codes.chunks_exact_mut(columns.max(1)).zip(packed) {
            unpack_ternary5(bytes, codes).map_err(failed)?;
        }
        PackedMatrix::from_parts(entry.format, rows, columns, &codes, side).map_err(failed)
    }

    /// Scales or minima as they are stored.
    fn numbers(&self, info: &TensorInfo, scale: ScaleType) -> Result<Vec<f32>, ImportError> {
        let mut values = Vec::new();
        reserve(&mut values, info.elements(), "the scales of a tensor")?;
        let decode = |bytes: &[u8]| {
            let bits = bytes
                .iter()
                .rev()
                .fold(0, |bits, &byte| bits << 8 | u32::from(byte));
            scale.decode(bits)
        };
        self.read_chunks(info, 0..info.byte_size(), |bytes| {
            values.extend(bytes.chunks_exact(scale.bits() as usize / 8).map(decode));
        })?;
        Ok(values)
    }

    /// Floats of 16 bits, two a word, each row filled up to whole blocks.
    fn halves(
        &self,
        info: &TensorInfo,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<u32>, ImportError> {
        let across = row_words(16, columns);
        let mut words = Vec::new();
        let count = reserve(
            &mut words,
            rows as u64 * across as u64,
            "the values of a tensor",
        )?;
        words.resize(count, 0u32);
        let mut place = 0;
        self.read_chunks(info, 0..info.byte_size(), |bytes| {
            for bits in bytes.chunks_exact(2).map(u16_from) {
                let (row, column) = (place / columns.max(1), place % columns.max(1));
                if let Some(word) = words.get_mut(row * across + column / 2) {
                    *word |= u32::from(bits) << (16 * (column % 2));
                }
                place += 1;
            }
        })?;
        Ok(words)
    }
}
