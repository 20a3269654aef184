//! A packed matrix on the host, and its device image.

use std::fmt;
use std::ops::Range;

use crate::layout::{
    self, BLOCK, piece_widths, row_words, side_index, sum_block, sum_groups, unit_words,
};
use crate::parallel::{find, for_each_chunk_mut};
use crate::{
    DeviceLayout, ElementFormat, FloatFormat, FormatError, Granularity, MatrixFormat, PieceLayout,
    Sections, SumLayout, ZeroKind,
};

mod block;
mod device;
mod nested;
mod side;
mod ternary;

use block::Block;
pub use device::DeviceRows;
pub(crate) use side::Side;
pub use side::{SideData, Zeros};
pub use ternary::{pack_ternary5, ternary5_bytes, unpack_ternary5};

/// A matrix in packed form, row-major: the streams of its pieces, its scales and its zeros.
///
/// Every matrix is valid: codes are codes of the format and stand for finite values, floats and
/// scales are finite and exact in their stored type, and the padding after the last column is code 0. Rows or columns may be 0.
#[derive(Clone, PartialEq)]
pub struct PackedMatrix {
    format: MatrixFormat,
    rows: usize,
    columns: usize,
    /// One row-major stream for each of `piece_widths(element, Pieces)`, in the bit order of
    /// [`layout::code_bit`].
    pieces: Vec<Vec<u32>>,
    side: Side,
}

/// Words of a device image that one thread makes at a time: what the nearest caches hold.
const STRETCH: usize = 1 << 13;

/// A matrix as the two word arrays that shaders read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceImage {
    /// Where the streams and sections begin.
    pub sections: Sections,
    /// The streams of the pieces; `sections.codes_words` words.
    pub codes: Vec<u32>,
    /// Scales, zeros and code sums; `sections.side_words` words.
    pub side: Vec<u32>,
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "PackedMatrix({}, {}x{})",
            self.format, self.rows, self.columns
        )
    }
}

fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), FormatError> {
    if expected == found {
        Ok(())
    } else {
        Err(FormatError::Length {
            what,
            expected,
            found,
        })
    }
}

/// Row and column of an element index; (0, 0) where there are no columns.
fn position(index: usize, columns: usize) -> (usize, usize) {
    (
        index.checked_div(columns).unwrap_or(0),
        index.checked_rem(columns).unwrap_or(0),
    )
}

impl PackedMatrix {
    /// Packs codes whose scales have one level: [`from_parts`](Self::from_parts) with these scales
    /// and zeros.
    ///
    /// # Errors
    ///
    /// Those of [`from_parts`](Self::from_parts).
    pub fn from_codes(
        format: MatrixFormat,
        rows: usize,
        columns: usize,
        codes: &[u8],
        scales: &[f32],
        zeros: Zeros<'_>,
    ) -> Result<Self, FormatError> {
        let side = SideData {
            scales,
            zeros,
            ..SideData::default()
        };
        Self::from_parts(format, rows, columns, codes, side)
    }

    /// Packs codes.
    ///
    /// `codes` is `rows` × `columns`, row-major, one code a byte. Scales and minima are rounded to
    /// their stored type. Scales may be negative or 0.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotCodes`] for a float format; [`FormatError::Length`],
    /// [`FormatError::ZeroKind`], [`FormatError::CodeTooLarge`], [`FormatError::NonFiniteCode`],
    /// [`FormatError::ChoiceTooLarge`], [`FormatError::ScaleOverflow`] and
    /// [`FormatError::MinimumOverflow`] for wrong data; and those of [`MatrixFormat::check_shape`].
    pub fn from_parts(
        format: MatrixFormat,
        rows: usize,
        columns: usize,
        codes: &[u8],
        side: SideData<'_>,
    ) -> Result<Self, FormatError> {
        let element = format.element();
        if !element.has_codes() {
            return Err(FormatError::NotCodes { element });
        }
        format.check_shape(rows, columns)?;
        check_len("codes", rows * columns, codes.len())?;
        let valid = CodeCheck::new(element);
        if let Some(index) = find(codes, |&code| !valid.holds(code)) {
            let (row, column) = position(index, columns);
            return Err(valid.error(row, column, codes[index]));
        }
        let side = Side::new(&format, rows, columns, side)?;

        let mut shift = 0;
        let mut pieces = Vec::new();
        for &width in piece_widths(element, PieceLayout::Pieces) {
            let row_len = row_words(width, columns);
            let mut stream = vec![0; rows * row_len];
            for_each_chunk_mut(&mut stream, row_len, |row, words| {
                let row_codes = &codes[row * columns..][..columns];
                for (chunk, words) in row_codes
                    .chunks(BLOCK)
                    .zip(words.chunks_exact_mut(width as usize))
                {
                    Block::from_codes(chunk).store_piece(width, shift, words);
                }
            });
            pieces.push(stream);
            shift += width;
        }
        Ok(Self {
            format,
            rows,
            columns,
            pieces,
            side,
        })
    }

    /// A matrix of streams as [`pieces`](Self::pieces) gives them, and of side data. Nothing is packed anew, but
    /// everything is checked.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] for another number of streams than the format has, or one of another length;
    /// [`FormatError::CodeTooLarge`], [`FormatError::NonFiniteCode`] and [`FormatError::NonFinite`] for elements that
    /// the format has not; [`FormatError::Padding`] for others than code 0 after the last column;
    /// [`FormatError::ZeroKind`], [`FormatError::ChoiceTooLarge`], [`FormatError::ScaleOverflow`] and
    /// [`FormatError::MinimumOverflow`] for wrong side data; and those of [`MatrixFormat::check_shape`].
    pub fn from_pieces(
        format: MatrixFormat,
        rows: usize,
        columns: usize,
        pieces: Vec<Vec<u32>>,
        side: SideData<'_>,
    ) -> Result<Self, FormatError> {
        format.check_shape(rows, columns)?;
        let widths = piece_widths(format.element(), PieceLayout::Pieces);
        check_len("streams", widths.len(), pieces.len())?;
        for (stream, &width) in pieces.iter().zip(widths) {
            check_len(
                "words of a stream",
                rows * row_words(width, columns),
                stream.len(),
            )?;
        }
        let matrix = Self {
            format,
            rows,
            columns,
            pieces,
            side: Side::new(&format, rows, columns, side)?,
        };
        matrix.check_elements()?;
        Ok(matrix)
    }

    /// Packs floats, rounded to nearest, ties to even. `values` is `rows` × `columns`, row-major.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`], [`FormatError::NonFinite`] and [`FormatError::ElementOverflow`] for
    /// wrong data, and [`FormatError::TooLarge`].
    pub fn from_f32(
        element: FloatFormat,
        rows: usize,
        columns: usize,
        values: &[f32],
    ) -> Result<Self, FormatError> {
        let format = MatrixFormat::new(ElementFormat::Float(element), None)?;
        format.check_shape(rows, columns)?;
        check_len("values", rows * columns, values.len())?;
        check_finite(values, columns)?;
        if let Some(index) = find(values, |&value| element.overflows(value)) {
            let (row, column) = position(index, columns);
            let element = format.element();
            return Err(FormatError::ElementOverflow {
                row,
                column,
                value: values[index],
                element,
            });
        }
        Ok(Self::from_float_bits(
            format,
            element,
            rows,
            columns,
            |index| element.encode(values[index]),
        ))
    }

    /// Packs 16-bit floats given as their bits. `bits` is `rows` × `columns`, row-major.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotSixteenBits`] for f32; [`FormatError::Length`] and
    /// [`FormatError::NonFinite`] for wrong data; and [`FormatError::TooLarge`].
    pub fn from_float_bits16(
        element: FloatFormat,
        rows: usize,
        columns: usize,
        bits: &[u16],
    ) -> Result<Self, FormatError> {
        let format = MatrixFormat::new(ElementFormat::Float(element), None)?;
        if element.bits() != 16 {
            return Err(FormatError::NotSixteenBits {
                element: format.element(),
            });
        }
        format.check_shape(rows, columns)?;
        check_len("values", rows * columns, bits.len())?;
        let value = |index: usize| element.decode(u32::from(bits[index]));
        if let Some(index) = (0..bits.len()).find(|&index| !value(index).is_finite()) {
            let (row, column) = position(index, columns);
            return Err(FormatError::NonFinite {
                row,
                column,
                value: value(index),
            });
        }
        Ok(Self::from_float_bits(
            format,
            element,
            rows,
            columns,
            |index| u32::from(bits[index]),
        ))
    }

    /// `bits` gives the bits of the element at a row-major index.
    fn from_float_bits(
        format: MatrixFormat,
        element: FloatFormat,
        rows: usize,
        columns: usize,
        bits: impl Fn(usize) -> u32 + Send + Sync,
    ) -> Self {
        let row_len = row_words(element.bits(), columns);
        let mut stream = vec![0; rows * row_len];
        for_each_chunk_mut(&mut stream, row_len, |row, words| {
            let start = row * columns;
            if element.bits() == 32 {
                for (column, word) in words[..columns].iter_mut().enumerate() {
                    *word = bits(start + column);
                }
            } else {
                for (index, word) in words[..columns.div_ceil(2)].iter_mut().enumerate() {
                    let column = 2 * index;
                    let high = if column + 1 < columns {
                        bits(start + column + 1)
                    } else {
                        0
                    };
                    *word = bits(start + column) | high << 16;
                }
            }
        });
        Self {
            format,
            rows,
            columns,
            pieces: vec![stream],
            side: Side::EMPTY,
        }
    }

    /// The format.
    pub fn format(&self) -> &MatrixFormat {
        &self.format
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, without padding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The row-major streams, one for each of [`piece_widths`] in the [`PieceLayout::Pieces`]
    /// layout, low bits first. Each row has [`row_words`] words.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.pieces.iter().map(Vec::as_slice)
    }

    /// Scales and zeros, row-major, exact in their stored types.
    pub fn side(&self) -> SideData<'_> {
        self.side.data()
    }

    /// The scales, row-major; [`MatrixFormat::scale_count`] entries, each exact in its stored type.
    /// Of two levels, the first; see [`scale`](Self::scale).
    pub fn scales(&self) -> &[f32] {
        self.side().scales
    }

    /// The zero points, minima or choices, row-major, one for each scale.
    pub fn zeros(&self) -> Zeros<'_> {
        self.side().zeros
    }

    /// The code at a place; `None` outside the matrix and for floats.
    pub fn code(&self, row: usize, column: usize) -> Option<u8> {
        if !self.format.element().has_codes() {
            return None;
        }
        if row >= self.rows || column >= self.columns {
            return None;
        }
        let widths = piece_widths(self.format.element(), PieceLayout::Pieces);
        let (mut code, mut shift) = (0, 0);
        for (stream, &width) in self.pieces.iter().zip(widths) {
            let codes_per_word = 32 / width;
            let word = stream
                .get(row * row_words(width, self.columns) + column / codes_per_word as usize)?;
            let bit = layout::code_bit(width, column as u32 % codes_per_word);
            code |= (word >> bit & ((1 << width) - 1)) << shift;
            shift += width;
        }
        Some(code as u8)
    }

    /// All codes, row-major, one a byte; empty for floats.
    pub fn unpack_codes(&self) -> Vec<u8> {
        if !self.format.element().has_codes() {
            return Vec::new();
        }
        let mut codes = vec![0; self.rows * self.columns];
        for_each_chunk_mut(&mut codes, self.columns, |row, codes| {
            for (index, chunk) in codes.chunks_mut(BLOCK).enumerate() {
                let block = self.block(row, index).to_codes();
                chunk.copy_from_slice(&block[..chunk.len()]);
            }
        });
        codes
    }

    /// The codes of block `index` of a row. Row and index must lie in the matrix, and the format be
    /// of codes.
    fn block(&self, row: usize, index: usize) -> Block {
        let mut block = Block::default();
        let mut shift = 0;
        for (stream, &width) in self
            .pieces
            .iter()
            .zip(piece_widths(self.format.element(), PieceLayout::Pieces))
        {
            let start = row * row_words(width, self.columns) + index * width as usize;
            block.load_piece(width, shift, &stream[start..][..width as usize]);
            shift += width;
        }
        block
    }

    /// The integers a·u + b − z that scales multiply, row-major; `None` unless the format is of
    /// integers.
    pub fn integer_values(&self) -> Option<Vec<i32>> {
        self.format.element().affine()?;
        // Integers of codes are small, so f32 holds them.
        Some(self.map_codes(|value, _, _| value as i32))
    }

    /// The integers that the `dot4` engine multiplies, row-major: the [values](Self::integer_values) of
    /// integer formats, of others the values of the codes in units of their
    /// [lift](ElementFormat::lift_unit). `None` for formats without such integers.
    pub fn lifted_values(&self) -> Option<Vec<i32>> {
        let per_unit = self.format.element().lift_unit()?.recip();
        // A power of two times a multiple of its inverse, exactly.
        Some(self.map_codes(|value, _, _| (value * per_unit) as i32))
    }

    /// `value(t − z, s, m)` of every element, t the value of its code.
    fn map_codes<T: Copy + Default + Send>(
        &self,
        value: impl Fn(f32, f32, f32) -> T + Send + Sync,
    ) -> Vec<T> {
        let element = self.format.element();
        let tables: Vec<[f32; 256]> = (0..element.choice_count().max(1))
            .map(|choice| element.value_table(choice as u8))
            .collect();
        let group_len = self.format.group_len(self.columns).max(1);
        let mut values = vec![T::default(); self.rows * self.columns];
        for_each_chunk_mut(&mut values, self.columns, |row, values| {
            for (index, values) in values.chunks_mut(BLOCK).enumerate() {
                let codes = self.block(row, index).to_codes();
                // 16 divides every group and every block, so each half block has one scale.
                let halves = values.chunks_mut(BLOCK / 2).zip(codes.chunks(BLOCK / 2));
                for (half, (values, codes)) in halves.enumerate() {
                    let group = (index * BLOCK + half * (BLOCK / 2)) / group_len;
                    let (s, m) = (self.scale(row, group), self.minimum(row, group));
                    let zero = self.zero_point(row, group) as f32;
                    let choice = usize::from(self.choice(row, group));
                    let Some(table) = tables.get(choice) else {
                        continue;
                    };
                    for (out, &code) in values.iter_mut().zip(codes) {
                        *out = value(table[usize::from(code)] - zero, s, m);
                    }
                }
            }
        });
        values
    }

    /// Index of the scale of a row and group; `None` without scales or outside the matrix.
    fn scale_index(&self, row: usize, group: usize) -> Option<usize> {
        let groups = self.format.groups(self.columns);
        if row >= self.rows || group >= groups {
            return None;
        }
        match self.format.scales()?.granularity {
            Granularity::Tensor => Some(0),
            _ => Some(row * groups + group),
        }
    }

    /// The scale of a row and group, the product of both levels where it has two; 1 without scales
    /// or outside the matrix. Row and tensor scales have one group.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        self.scale_index(row, group).map_or(1.0, |index| {
            self.side.scale(&self.format, self.columns, index)
        })
    }

    /// Both levels of the scale of a row and group, first and second; 1 for what there is not.
    pub fn scale_levels(&self, row: usize, group: usize) -> [f32; 2] {
        self.scale_index(row, group).map_or([1.0; 2], |index| {
            self.side.scale_levels(&self.format, self.columns, index)
        })
    }

    /// Both levels of the minimum of a row and group, first and second; 0 and 1 for what there is not.
    pub fn minimum_levels(&self, row: usize, group: usize) -> [f32; 2] {
        self.scale_index(row, group).map_or([0.0, 1.0], |index| {
            self.side.minimum_levels(&self.format, self.columns, index)
        })
    }

    /// The integer zero point of a row and group; 0 without zero points or outside the matrix.
    pub fn zero_point(&self, row: usize, group: usize) -> i32 {
        self.scale_index(row, group)
            .map_or(0, |index| self.side.zero_point(index))
    }

    /// The minimum of a row and group, the product of both levels where it has two; 0 without
    /// minima or outside the matrix.
    pub fn minimum(&self, row: usize, group: usize) -> f32 {
        self.scale_index(row, group).map_or(0.0, |index| {
            self.side.minimum(&self.format, self.columns, index)
        })
    }

    /// The choice of a row and group; 0 without choices or outside the matrix.
    pub fn choice(&self, row: usize, group: usize) -> u8 {
        self.scale_index(row, group)
            .map_or(0, |index| self.side.choice(index))
    }

    /// The values, row-major: s·(t − z), rounded to f32, then + m, rounded to f32, where t is the
    /// value of the code: a·u + b for integers.
    pub fn decode(&self) -> Vec<f32> {
        match self.format.element() {
            ElementFormat::Float(float) => self.decode_floats(float),
            _ if self.format.zero_kind() == ZeroKind::Minimum => {
                self.map_codes(|value, s, m| s * value + m)
            }
            _ => self.map_codes(|value, s, _| s * value),
        }
    }

    /// The stored floats.
    fn decode_floats(&self, float: FloatFormat) -> Vec<f32> {
        let row_len = row_words(float.bits(), self.columns);
        let per_word = 32 / float.bits() as usize;
        let mut values = vec![0.0; self.rows * self.columns];
        for_each_chunk_mut(&mut values, self.columns, |row, values| {
            let words = self
                .pieces
                .iter()
                .flat_map(|stream| &stream[row * row_len..][..row_len]);
            for (values, &word) in values.chunks_mut(per_word).zip(words) {
                for (index, value) in values.iter_mut().enumerate() {
                    *value = float.decode(word >> (16 * index));
                }
            }
        });
        values
    }

    /// The values in f64, row-major: s·(t − z) exactly, then + m with one rounding.
    pub fn decode_f64(&self) -> Vec<f64> {
        match self.format.element() {
            ElementFormat::Float(float) => self
                .decode_floats(float)
                .into_iter()
                .map(f64::from)
                .collect(),
            _ => self.map_codes(|value, s, m| f64::from(s) * f64::from(value) + f64::from(m)),
        }
    }

    /// Matrices of the same format and columns, one below the other.
    ///
    /// # Errors
    ///
    /// [`FormatError::Length`] if a part has another number of columns; [`FormatError::PartFormat`] if one has another
    /// format, or, with a scale per tensor, another scale.
    pub fn concat_rows(
        format: MatrixFormat,
        columns: usize,
        parts: &[Self],
    ) -> Result<Self, FormatError> {
        let widths = piece_widths(format.element(), PieceLayout::Pieces);
        let Some((first, rest)) = parts.split_first() else {
            return Ok(Self {
                format,
                rows: 0,
                columns,
                pieces: vec![Vec::new(); widths.len()],
                side: Side::empty_rows(&format, columns)?,
            });
        };
        let part_format = |part: &Self| FormatError::PartFormat {
            expected: format,
            actual: part.format,
        };
        check_len("columns of a part", columns, first.columns)?;
        if first.format != format {
            return Err(part_format(first));
        }
        let mut whole = first.clone();
        for part in rest {
            check_len("columns of a part", columns, part.columns)?;
            if part.format != format || !whole.side.append(&format, &part.side) {
                return Err(part_format(part));
            }
            whole.rows += part.rows;
            for (stream, rows) in whole.pieces.iter_mut().zip(&part.pieces) {
                stream.extend_from_slice(rows);
            }
        }
        Ok(whole)
    }

    /// The rows of a range as a matrix of their own. A tensor scale stays with every part.
    ///
    /// # Errors
    ///
    /// [`FormatError::RowRange`] unless the range lies in the matrix.
    pub fn row_range(&self, range: Range<usize>) -> Result<Self, FormatError> {
        let Range { start, end } = range.clone();
        if start > end || end > self.rows {
            return Err(FormatError::RowRange {
                start,
                end,
                rows: self.rows,
            });
        }
        let widths = piece_widths(self.format.element(), PieceLayout::Pieces);
        let pieces = self.pieces.iter().zip(widths).map(|(stream, &width)| {
            let row_len = row_words(width, self.columns);
            stream[start * row_len..end * row_len].to_vec()
        });
        Ok(Self {
            format: self.format,
            rows: end - start,
            columns: self.columns,
            pieces: pieces.collect(),
            side: self.side.row_range(&self.format, self.columns, &range),
        })
    }

    /// Bits of the row-major form: the codes with the padding of their rows, the scales and the
    /// zeros.
    pub fn storage_bits(&self) -> u64 {
        let words: usize = self.pieces.iter().map(Vec::len).sum();
        32 * words as u64 + self.side.storage_bits(&self.format)
    }

    /// [`storage_bits`](Self::storage_bits) for each element; 0 without elements.
    pub fn bits_per_element(&self) -> f64 {
        let elements = self.rows as f64 * self.columns as f64;
        if elements == 0.0 {
            0.0
        } else {
            self.storage_bits() as f64 / elements
        }
    }

    /// The matrix as shaders read it.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::new`].
    pub fn to_device(&self, layout: &DeviceLayout) -> Result<DeviceImage, FormatError> {
        self.to_device_with_carries(layout, &[])
    }

    /// [`to_device`](Self::to_device) of an `int8` matrix in planes, with a carry plane for each of these widths.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::with_carries`].
    pub fn to_device_with_carries(
        &self,
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<DeviceImage, FormatError> {
        let rows = self.device_rows(0..self.rows, layout, widths)?;
        let mut codes = vec![0; rows.sections().codes_words];
        for_each_chunk_mut(&mut codes, STRETCH, |index, words| {
            rows.fill_codes(index * STRETCH, words);
        });
        Ok(DeviceImage {
            codes,
            side: rows.side(),
            sections: rows.sections().clone(),
        })
    }

    /// Calls `add` with the sum's place and Σu of every 16 columns of a row. A place may come
    /// several times.
    fn row_sums(&self, row: usize, sums: SumLayout, mut add: impl FnMut(usize, u32)) {
        let columns_per_sum = match sums {
            SumLayout::Blocks => sum_block(&self.format),
            _ => self.format.group_len(self.columns),
        };
        for index in 0..self.columns.div_ceil(BLOCK) {
            let halves = self.block(row, index).half_sums();
            for (half, sum) in halves.into_iter().enumerate() {
                let column = index * BLOCK + half * (BLOCK / 2);
                // The second half of the last block may be padding, with a sum of 0 and perhaps no
                // place.
                if column < self.columns {
                    add(column / columns_per_sum, sum);
                }
            }
        }
    }

    /// Reads back what [`to_device`](Self::to_device), or a shader, wrote.
    ///
    /// Everything is checked: what a valid matrix must be, that codes after the last column are 0,
    /// and that stored sums are those of the codes. Padding rows, gaps between sections and the
    /// slack are not read.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::new`]; [`FormatError::Length`] unless the arrays have the lengths it
    /// says; [`FormatError::CodeTooLarge`], [`FormatError::NonFinite`],
    /// [`FormatError::ScaleOverflow`], [`FormatError::MinimumOverflow`], [`FormatError::Padding`]
    /// and [`FormatError::Sum`] for wrong data.
    pub fn from_device(
        format: MatrixFormat,
        rows: usize,
        columns: usize,
        layout: &DeviceLayout,
        codes: &[u32],
        side: &[u32],
    ) -> Result<Self, FormatError> {
        let sections = Sections::new(&format, rows, columns, layout)?;
        check_len("words of codes", sections.codes_words, codes.len())?;
        check_len("words of side data", sections.side_words, side.len())?;

        let element = format.element();
        let (mut pieces, mut first_bit) = (Vec::new(), 0);
        for (index, &width) in piece_widths(element, PieceLayout::Pieces)
            .iter()
            .enumerate()
        {
            let row_len = row_words(width, columns);
            let mut stream = vec![0; rows * row_len];
            match (layout.pieces, element) {
                (PieceLayout::Planes, element) if element.has_codes() => {
                    let planes = &sections.pieces[first_bit..][..width as usize];
                    for_each_chunk_mut(&mut stream, row_len, |row, words| {
                        for (index, words) in words.chunks_exact_mut(width as usize).enumerate() {
                            let place =
                                layout::word_index(layout.interleave, 1, columns, row, index);
                            for (bit, &plane) in planes.iter().enumerate() {
                                block::add_plane(
                                    words,
                                    width,
                                    bit as u32,
                                    codes[plane as usize + place],
                                );
                            }
                        }
                    });
                }
                _ => {
                    let source = &codes[sections.pieces[index] as usize..];
                    let unit = unit_words(width);
                    for_each_chunk_mut(&mut stream, row_len, |row, words| {
                        for (index, words) in words.chunks_exact_mut(unit).enumerate() {
                            let place = layout::word_index(
                                layout.interleave,
                                width,
                                columns,
                                row,
                                index * unit,
                            );
                            words.copy_from_slice(&source[place..][..unit]);
                        }
                    });
                }
            }
            pieces.push(stream);
            first_bit += width as usize;
        }

        let matrix = Self {
            format,
            rows,
            columns,
            pieces,
            side: Side::load(&format, rows, columns, &sections, layout, side)?,
        };
        matrix.check_elements()?;
        matrix.check_sums(&sections, layout, side)?;
        Ok(matrix)
    }

    /// Checks streams that came from outside: valid codes, finite floats, zero padding.
    fn check_elements(&self) -> Result<(), FormatError> {
        if self.columns == 0 {
            // However many rows there may be.
            return Ok(());
        }
        let padding = |row| FormatError::Padding {
            row,
            columns: self.columns,
        };
        match self.format.element() {
            ElementFormat::Float(float) => {
                let row_len = row_words(float.bits(), self.columns);
                let per_word = 32 / float.bits();
                for row in 0..self.rows {
                    let words = self
                        .pieces
                        .iter()
                        .flat_map(|stream| &stream[row * row_len..][..row_len]);
                    let elements =
                        words.flat_map(|&word| (0..per_word).map(move |i| word >> (16 * i)));
                    for (column, bits) in elements.enumerate() {
                        let value = float.decode(bits);
                        if column >= self.columns {
                            // Zero of either sign is as good, but only +0 compares equal to what
                            // the host packs.
                            if value.to_bits() != 0 {
                                return Err(padding(row));
                            }
                        } else if !value.is_finite() {
                            return Err(FormatError::NonFinite { row, column, value });
                        }
                    }
                }
            }
            element => {
                let valid = CodeCheck::new(element);
                let every_code_valid =
                    (0..=u8::MAX >> (8 - element.bits().min(8))).all(|code| valid.holds(code));
                let used = self.columns % BLOCK;
                let last = self.columns / BLOCK;
                for row in 0..self.rows {
                    if used != 0
                        && self.block(row, last).to_codes()[used..]
                            .iter()
                            .any(|&code| code != 0)
                    {
                        return Err(padding(row));
                    }
                    if every_code_valid {
                        continue;
                    }
                    for index in 0..self.columns.div_ceil(BLOCK) {
                        let codes = self.block(row, index).to_codes();
                        if let Some(offset) = codes.iter().position(|&code| !valid.holds(code)) {
                            let column = index * BLOCK + offset;
                            return Err(valid.error(row, column, codes[offset]));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks stored sums against the codes.
    fn check_sums(
        &self,
        sections: &Sections,
        layout: &DeviceLayout,
        side: &[u32],
    ) -> Result<(), FormatError> {
        if layout.sums == SumLayout::None {
            return Ok(());
        }
        let groups = sum_groups(&self.format, self.columns, layout.sums);
        let section = &side[sections.sums as usize..];
        let mut sums = vec![0_u32; groups];
        for row in 0..self.rows {
            sums.fill(0);
            self.row_sums(row, layout.sums, |group, sum| {
                if let Some(entry) = sums.get_mut(group) {
                    *entry += sum;
                }
            });
            for (index, &expected) in sums.iter().enumerate() {
                let found = section[side_index(layout.interleave, groups, row, index)];
                if found != expected {
                    return Err(FormatError::Sum {
                        row,
                        index,
                        expected,
                        found,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Checks that every value of a matrix is finite.
pub(crate) fn check_finite(values: &[f32], columns: usize) -> Result<(), FormatError> {
    match find(values, |value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            let (row, column) = position(index, columns);
            Err(FormatError::NonFinite {
                row,
                column,
                value: values[index],
            })
        }
    }
}

/// Which codes a matrix may hold.
struct CodeCheck {
    element: ElementFormat,
    values: [f32; 256],
}

impl CodeCheck {
    fn new(element: ElementFormat) -> Self {
        Self {
            element,
            values: element.value_table(0),
        }
    }

    fn holds(&self, code: u8) -> bool {
        self.values[usize::from(code)].is_finite()
    }

    fn error(&self, row: usize, column: usize, code: u8) -> FormatError {
        let max = self.element.max_code().unwrap_or(0);
        if code > max {
            FormatError::CodeTooLarge {
                row,
                column,
                code,
                max,
            }
        } else {
            FormatError::NonFiniteCode {
                row,
                column,
                code,
                value: self.values[usize::from(code)],
                element: self.element,
            }
        }
    }
}
