//! Where each bit of a matrix stands in the words that shaders read. `docs/packing.md` draws it.
//!
//! A matrix on the device is two word arrays. *Codes* holds one stream for each piece of the codes.
//! *Side* holds the scales, the zeros and the code sums.

use crate::nested::{STORED_BITS, check_bits};
use crate::{ElementFormat, FormatError, Granularity, MatrixFormat, ScaleLayout, ZeroKind};

/// Columns a block: rows are padded with code 0 to whole blocks.
pub const BLOCK: usize = 32;

/// Streams and sections start on multiples of so many words: 256 bytes, the largest offset
/// alignment of WebGPU.
pub const SECTION_ALIGNMENT: usize = 64;

/// Words of the table of a codebook of more than 4 bits.
const CODEBOOK_WORDS: u128 = 256;

/// Zero words at the end of each array, so that the last load of four words stays inside.
pub const SLACK: usize = 4;

/// How a code is cut into pieces, each its own stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PieceLayout {
    /// Pieces of 1, 2, 4 or 8 bits, low bits first: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1.
    #[default]
    Pieces,
    /// Every bit its own piece, low bit first. Floats stay whole.
    Planes,
}

/// Which sums of codes a matrix carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SumLayout {
    /// None.
    #[default]
    None,
    /// Σu per 32 columns; per 16 where the scale group is 16.
    Blocks,
    /// Σu per scale group; per row where scales are not grouped.
    Groups,
}

/// What kind of device memory a matrix lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Storage buffers: what every kernel reads.
    #[default]
    Buffers,
    /// Textures of four words a texel, for weights. Software drivers gather texels many times as fast as words of buffers.
    Textures,
    /// Codes in such a texture, which kernels can write too, and what stands beside them in a buffer: for activations.
    TextureCodes,
}

/// How a matrix is laid out on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceLayout {
    /// How codes are cut.
    pub pieces: PieceLayout,
    /// Rows that take turns in memory, unit by unit: 1 (row-major), 2, 4, 8, 16 or 32.
    pub interleave: u32,
    /// Which code sums are stored.
    pub sums: SumLayout,
    /// What it lies in.
    pub memory: Memory,
}

impl DeviceLayout {
    /// Row-major pieces without sums: the interchange layout.
    pub const ROW_MAJOR: Self = Self {
        pieces: PieceLayout::Pieces,
        interleave: 1,
        sums: SumLayout::None,
        memory: Memory::Buffers,
    };

    fn checked_interleave(&self) -> Result<usize, FormatError> {
        match self.interleave {
            1 | 2 | 4 | 8 | 16 | 32 => Ok(self.interleave as usize),
            interleave => Err(FormatError::Interleave { interleave }),
        }
    }
}

impl Default for DeviceLayout {
    fn default() -> Self {
        Self::ROW_MAJOR
    }
}

/// Bits of each piece of an element, low bits first. They add up to [`ElementFormat::bits`].
pub const fn piece_widths(element: ElementFormat, pieces: PieceLayout) -> &'static [u32] {
    const PIECES: [&[u32]; 8] = [
        &[1],
        &[2],
        &[2, 1],
        &[4],
        &[4, 1],
        &[4, 2],
        &[4, 2, 1],
        &[8],
    ];
    const PLANES: [&[u32]; 8] = [
        &[1],
        &[1; 2],
        &[1; 3],
        &[1; 4],
        &[1; 5],
        &[1; 6],
        &[1; 7],
        &[1; 8],
    ];
    match element {
        ElementFormat::Float(float) => match float.bits() {
            16 => &[16],
            _ => &[32],
        },
        _ => {
            let index = element.bits() as usize - 1;
            match pieces {
                PieceLayout::Pieces => PIECES[index],
                PieceLayout::Planes => PLANES[index],
            }
        }
    }
}

/// Bit where code `code` of a word begins, for a piece of 1, 2, 4 or 8 bits. `code` counts from 0
/// to 32 / `width` − 1.
///
/// Four neighbouring codes stand in four different bytes, so `(word >> (width * t)) & mask` is
/// codes 4t to 4t + 3, one a byte, whatever the width.
pub const fn code_bit(width: u32, code: u32) -> u32 {
    8 * (code % 4) + width * (code / 4)
}

/// Words of one row of a piece: whole blocks of 32 columns.
pub const fn row_words(width: u32, columns: usize) -> usize {
    columns.div_ceil(BLOCK) * width as usize
}

/// Words that stay together when rows interleave: as many as a piece has in a block, at most four.
pub const fn unit_words(width: u32) -> usize {
    match width {
        0 | 1 => 1,
        2 | 3 => width as usize,
        _ => 4,
    }
}

/// Rows with the padding to a multiple of the interleave.
pub const fn padded_rows(rows: usize, interleave: u32) -> usize {
    match rows.checked_next_multiple_of(interleave as usize) {
        Some(padded) => padded,
        None => rows,
    }
}

/// Index in its stream of word `word` of row `row` of a piece, counted along the row.
///
/// For a place in a matrix that [`Sections::new`] accepts, nothing overflows. An interleave of 0
/// counts as 1.
pub const fn word_index(
    interleave: u32,
    width: u32,
    columns: usize,
    row: usize,
    word: usize,
) -> usize {
    let unit = unit_words(width);
    let units = row_words(width, columns) / unit;
    side_index(interleave, units, row, word / unit) * unit + word % unit
}

/// Index in its section of entry `group` of row `row`, where rows have `groups` entries.
///
/// For a place in a matrix that [`Sections::new`] accepts, nothing overflows. An interleave of 0
/// counts as 1.
pub const fn side_index(interleave: u32, groups: usize, row: usize, group: usize) -> usize {
    let interleave = if interleave == 0 {
        1
    } else {
        interleave as usize
    };
    ((row / interleave) * groups + group) * interleave + row % interleave
}

/// Code sums a row: 0 for [`SumLayout::None`].
pub const fn sum_groups(format: &MatrixFormat, columns: usize, sums: SumLayout) -> usize {
    match sums {
        SumLayout::None => 0,
        SumLayout::Groups => format.groups(columns),
        SumLayout::Blocks => columns.div_ceil(BLOCK) * (BLOCK / sum_block(format)),
    }
}

/// Columns of one sum of [`SumLayout::Blocks`]: 16 where the scale group is 16, else 32.
pub const fn sum_block(format: &MatrixFormat) -> usize {
    match format.scales() {
        Some(ScaleLayout {
            granularity: Granularity::Group(16),
            ..
        }) => 16,
        _ => BLOCK,
    }
}

/// A plane of an `int8` matrix beside its 8: one bit a code, which says whether Double Rounding to so many bits makes it
/// one more than truncation does. See [`Nesting`](crate::Nesting).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CarryPlane {
    /// The width that it serves, 2 to 7.
    pub bits: u8,
    /// Offset in the codes array of its stream.
    pub offset: u32,
}

/// Word offsets of the streams and sections of a matrix on the device.
///
/// A section that the format or the layout has not is at offset 0, and so is an empty one at the
/// start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// Offset in the codes array of each piece's stream, low bits first.
    pub pieces: Vec<u32>,
    /// The carry planes, after the pieces, in the order asked for.
    pub carries: Vec<CarryPlane>,
    /// Words of the codes array.
    pub codes_words: usize,
    /// Offset in the side array of the scales.
    pub scales: u32,
    /// Offset in the side array of the integer zero points, the minima or the choices.
    pub zeros: u32,
    /// Offset in the side array of the second level of the scales.
    pub second: u32,
    /// Offset in the side array of the second level of the minima.
    pub second_minima: u32,
    /// Offset in the side array of the table of a codebook of more than 4 bits: 256 f32 values, by
    /// code. Smaller tables are in the parameters of kernels.
    pub table: u32,
    /// Offset in the side array of the code sums.
    pub sums: u32,
    /// Words of the side array; at least [`SLACK`].
    pub side_words: usize,
}

impl Sections {
    /// The sections of a `rows` × `columns` matrix.
    ///
    /// # Errors
    ///
    /// [`FormatError::Interleave`], [`FormatError::SumsOfFloats`] and
    /// [`FormatError::GroupDoesNotDivide`] for a layout or shape that the format cannot have;
    /// [`FormatError::TooLarge`] if an array passes 2³² − 1 words or a code sum could pass 2³² − 1.
    pub fn new(
        format: &MatrixFormat,
        rows: usize,
        columns: usize,
        layout: &DeviceLayout,
    ) -> Result<Self, FormatError> {
        layout.checked_interleave()?;
        format.check_shape(rows, columns)?;
        let element = format.element();
        if layout.sums != SumLayout::None {
            let Some(max_code) = element.max_code() else {
                return Err(FormatError::SumsOfFloats { element });
            };
            if columns as u64 * u64::from(max_code) > u64::from(u32::MAX) {
                return Err(FormatError::TooLarge {
                    rows,
                    columns,
                    what: "a 32-bit code sum",
                });
            }
        }

        let padded = padded_rows(rows, layout.interleave);
        let mut codes = Cursor {
            rows,
            columns,
            what: "the codes array",
            end: 0,
        };
        let mut pieces = Vec::new();
        for &width in piece_widths(element, layout.pieces) {
            pieces.push(codes.section(padded as u128 * row_words(width, columns) as u128)?);
        }

        let mut side = Cursor {
            rows,
            columns,
            what: "the side array",
            end: 0,
        };
        let (mut scales, mut zeros, mut sums) = (0, 0, 0);
        let (mut second, mut second_minima) = (0, 0);
        let table = match element {
            ElementFormat::Codebook(codebook) if codebook.bits() > 4 => {
                side.section(CODEBOOK_WORDS)?
            }
            _ => 0,
        };
        if let Some(layout_of_scales) = format.scales() {
            let entries = match layout_of_scales.granularity {
                Granularity::Tensor => 1,
                _ => padded as u128 * format.groups(columns) as u128,
            };
            let words = |bits: u32| (entries * u128::from(bits)).div_ceil(32);
            let scale_words = words(layout_of_scales.scale.bits());
            scales = side.section(scale_words)?;
            match layout_of_scales.zero {
                ZeroKind::None => {}
                ZeroKind::Integer | ZeroKind::Choice => zeros = side.section(words(8))?,
                ZeroKind::Minimum => zeros = side.section(scale_words)?,
            }
            if let Some(level) = layout_of_scales.scale.second() {
                let entries = match level.granularity {
                    Granularity::Tensor => 1,
                    _ => padded as u128 * format.second_groups(columns) as u128,
                };
                let words = (entries * u128::from(level.float.bits())).div_ceil(32);
                second = side.section(words)?;
                if layout_of_scales.zero == ZeroKind::Minimum {
                    second_minima = side.section(words)?;
                }
            }
        }
        if layout.sums != SumLayout::None {
            sums =
                side.section(padded as u128 * sum_groups(format, columns, layout.sums) as u128)?;
        }
        Ok(Self {
            pieces,
            carries: Vec::new(),
            codes_words: codes.finish()?,
            scales,
            zeros,
            second,
            second_minima,
            table,
            sums,
            side_words: side.finish()?,
        })
    }
}

impl Sections {
    /// The sections of a matrix in planes that also has carry planes for these widths. All else is where
    /// [`new`](Self::new) puts it.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new); if there are widths, [`FormatError::NestedBits`] for one that is not 2 to 7 and
    /// [`FormatError::CarryTwice`] for one that comes again, [`FormatError::NestedFormat`] unless the matrix is one of
    /// `int8` without zero points, and [`FormatError::CarryLayout`] unless it is in planes.
    pub fn with_carries(
        format: &MatrixFormat,
        rows: usize,
        columns: usize,
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<Self, FormatError> {
        let mut sections = Self::new(format, rows, columns, layout)?;
        let Some(last) = sections.pieces.last() else {
            return Ok(sections);
        };
        let words = padded_rows(rows, layout.interleave) as u128 * row_words(1, columns) as u128;
        let mut codes = Cursor {
            rows,
            columns,
            what: "the codes array",
            // Of planes, the last is as long as a carry plane.
            end: (u128::from(*last) + words).try_into().unwrap_or(u32::MAX),
        };
        for (index, &bits) in widths.iter().enumerate() {
            check_bits(bits)?;
            format.nested(bits)?;
            if bits == STORED_BITS {
                return Err(FormatError::NestedBits { bits });
            }
            if layout.pieces != PieceLayout::Planes {
                return Err(FormatError::CarryLayout {
                    pieces: layout.pieces,
                });
            }
            if widths.iter().take(index).any(|&other| other == bits) {
                return Err(FormatError::CarryTwice { bits });
            }
            let offset = codes.section(words)?;
            sections.carries.push(CarryPlane { bits, offset });
            sections.codes_words = codes.finish()?;
        }
        Ok(sections)
    }

    /// The same sections as they are for the rows from `row` on, in the same arrays: a matrix that begins there. The lengths of
    /// the arrays stay. `None` unless `row` is a multiple of [`BLOCK`], so that every section goes on at a whole vector of words.
    ///
    /// `format`, `columns` and `layout` are those that the sections were made for.
    pub fn from_row(
        &self,
        format: &MatrixFormat,
        columns: usize,
        layout: &DeviceLayout,
        row: usize,
    ) -> Option<Self> {
        if !row.is_multiple_of(BLOCK) {
            return None;
        }
        let element = format.element();
        // What begins in the array after so many words for each row.
        let later = |offset: u32, words: usize| {
            u32::try_from(row.checked_mul(words)?)
                .ok()?
                .checked_add(offset)
        };
        // Entries of 8 bits or more: 32 rows of them are whole words.
        let entries = |offset: u32, granularity: Granularity, groups: usize, bits: u32| {
            let words = (row / BLOCK)
                .checked_mul(groups)?
                .checked_mul(bits as usize)?;
            match granularity {
                Granularity::Tensor => Some(offset),
                _ => u32::try_from(words).ok()?.checked_add(offset),
            }
        };
        let mut later_on = self.clone();
        let widths = piece_widths(element, layout.pieces);
        for (piece, &width) in later_on.pieces.iter_mut().zip(widths) {
            *piece = later(*piece, row_words(width, columns))?;
        }
        for carry in &mut later_on.carries {
            carry.offset = later(carry.offset, row_words(1, columns))?;
        }
        if let Some(scales) = format.scales() {
            let granularity = scales.granularity;
            let groups = format.groups(columns);
            let bits = scales.scale.bits();
            later_on.scales = entries(self.scales, granularity, groups, bits)?;
            later_on.zeros = match scales.zero {
                ZeroKind::None => self.zeros,
                ZeroKind::Integer | ZeroKind::Choice => {
                    entries(self.zeros, granularity, groups, 8)?
                }
                ZeroKind::Minimum => entries(self.zeros, granularity, groups, bits)?,
            };
            if let Some(level) = scales.scale.second() {
                let groups = format.second_groups(columns);
                let bits = level.float.bits();
                later_on.second = entries(self.second, level.granularity, groups, bits)?;
                if scales.zero == ZeroKind::Minimum {
                    later_on.second_minima =
                        entries(self.second_minima, level.granularity, groups, bits)?;
                }
            }
        }
        later_on.sums = later(self.sums, sum_groups(format, columns, layout.sums))?;
        Some(later_on)
    }

    /// Writes the table of a codebook, if the element is one that keeps it here.
    pub fn store_table(&self, element: ElementFormat, side: &mut [u32]) {
        if let ElementFormat::Codebook(codebook) = element {
            if codebook.bits() > 4 {
                let table = side.iter_mut().skip(self.table as usize);
                for (word, value) in table.zip(codebook.values()) {
                    *word = value.to_bits();
                }
            }
        }
    }
}

/// Lays aligned sections one after the other.
struct Cursor {
    rows: usize,
    columns: usize,
    what: &'static str,
    end: u32,
}

impl Cursor {
    /// Offset of a new section of so many words.
    fn section(&mut self, words: u128) -> Result<u32, FormatError> {
        let start = u128::from(self.end).next_multiple_of(SECTION_ALIGNMENT as u128);
        let end = self.fit(start + words)?;
        let start = self.fit(start)?;
        self.end = end;
        Ok(start)
    }

    /// Words of the array with its slack.
    fn finish(&self) -> Result<usize, FormatError> {
        Ok(self.fit(u128::from(self.end) + SLACK as u128)? as usize)
    }

    fn fit(&self, words: u128) -> Result<u32, FormatError> {
        u32::try_from(words).map_err(|_| FormatError::TooLarge {
            rows: self.rows,
            columns: self.columns,
            what: self.what,
        })
    }
}
