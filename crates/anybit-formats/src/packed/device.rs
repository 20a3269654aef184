//! A matrix as shaders read it, made a stretch of words at a time.

use std::ops::Range;

use super::{PackedMatrix, Side, block};
use crate::layout::{BLOCK, padded_rows, piece_widths, row_words, sum_groups, unit_words};
use crate::nested::carry_bytes;
use crate::parallel::for_each_chunk_mut;
use crate::{DeviceLayout, FormatError, PieceLayout, Sections, SumLayout};

/// Words of a stripe, at most: a unit of four words of each of 32 rows.
const MOST_STRIPE: usize = 128;

/// Rows of a matrix in a device layout, whose words are made as they are asked for: for uploads that write straight into the
/// device's memory, on several threads. [`PackedMatrix::device_rows`] makes it.
#[derive(Clone, Debug)]
pub struct DeviceRows<'a> {
    matrix: &'a PackedMatrix,
    rows: Range<usize>,
    layout: DeviceLayout,
    sections: Sections,
    streams: Vec<Stream<'a>>,
}

/// A stream of the codes array.
#[derive(Clone, Copy, Debug)]
struct Stream<'a> {
    offset: usize,
    words: usize,
    /// Words of a row.
    row_len: usize,
    /// Words that stay together.
    unit: usize,
    source: Source<'a>,
}

/// What a stream is made from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// A piece of the host, as it is.
    Piece(&'a [u32]),
    /// A bit of a piece of the host.
    Plane {
        piece: &'a [u32],
        width: u32,
        bit: u32,
    },
    /// Whether Double Rounding to so many bits carries.
    Carry { bits: u32 },
}

impl PackedMatrix {
    /// Some of the rows as shaders read them, with carry planes for these widths; nothing is made yet.
    ///
    /// # Errors
    ///
    /// [`FormatError::RowRange`] unless the rows lie in the matrix; those of [`Sections::with_carries`].
    pub fn device_rows(
        &self,
        rows: Range<usize>,
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<DeviceRows<'_>, FormatError> {
        let Range { start, end } = rows.clone();
        if start > end || end > self.rows {
            return Err(FormatError::RowRange {
                start,
                end,
                rows: self.rows,
            });
        }
        let columns = self.columns;
        let sections = Sections::with_carries(&self.format, rows.len(), columns, layout, widths)?;
        let padded = padded_rows(rows.len(), layout.interleave);
        let element = self.format.element();
        let planes = layout.pieces == PieceLayout::Planes && element.has_codes();
        let stream = |offset: u32, width: u32, source| {
            let row_len = row_words(width, columns);
            Stream {
                offset: offset as usize,
                words: padded * row_len,
                row_len,
                unit: unit_words(width),
                source,
            }
        };
        let mut streams = Vec::new();
        let widths = piece_widths(element, layout.pieces);
        for ((index, &width), &offset) in (0_u32..).zip(widths).zip(&sections.pieces) {
            let source = if planes {
                self.piece_of_bit(index)
                    .map(|(piece, width, bit)| Source::Plane { piece, width, bit })
            } else {
                // Without planes, the pieces of the host and the device are the same.
                let piece = self.pieces.get(index as usize);
                piece.map(|piece| Source::Piece(piece))
            };
            streams.extend(source.map(|source| stream(offset, width, source)));
        }
        for carry in &sections.carries {
            let bits = u32::from(carry.bits);
            streams.push(stream(carry.offset, 1, Source::Carry { bits }));
        }
        Ok(DeviceRows {
            matrix: self,
            rows,
            layout: *layout,
            sections,
            streams,
        })
    }

    /// The piece that holds a bit of the code, its width, and the bit's place in it.
    fn piece_of_bit(&self, bit: u32) -> Option<(&[u32], u32, u32)> {
        let mut shift = 0;
        for (stream, &width) in self
            .pieces
            .iter()
            .zip(piece_widths(self.format.element(), PieceLayout::Pieces))
        {
            if bit < shift + width {
                return Some((stream, width, bit - shift));
            }
            shift += width;
        }
        None
    }
}

impl DeviceRows<'_> {
    /// Where the streams and sections begin, and how long the arrays are.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// The words of the codes array from `start` on: all of `words` is written, past the array's end with zeros.
    pub fn fill_codes(&self, start: usize, words: &mut [u32]) {
        let (mut at, mut rest) = (start, words);
        for stream in &self.streams {
            let gap = stream.offset.saturating_sub(at).min(rest.len());
            let (zeros, after) = rest.split_at_mut(gap);
            zeros.fill(0);
            at += gap;
            let left = (stream.offset + stream.words).saturating_sub(at);
            let (part, after) = after.split_at_mut(left.min(after.len()));
            if !part.is_empty() {
                self.fill_stream(stream, at - stream.offset, part);
                at += part.len();
            }
            rest = after;
        }
        rest.fill(0);
    }

    /// Words of the codes array that the matrix holds as the device does; none where they have to be made.
    pub fn stored_codes(&self, words: Range<usize>) -> Option<&[u32]> {
        if self.layout.interleave != 1 {
            return None;
        }
        self.streams.iter().find_map(|stream| {
            let Source::Piece(piece) = stream.source else {
                return None;
            };
            let start = words.start.checked_sub(stream.offset)?;
            let end = words.end.checked_sub(stream.offset)?;
            let first = self.rows.start * stream.row_len;
            piece
                .get(first..first + stream.words)?
                .get(start..end.max(start))
        })
    }

    /// Words of a stream from its word `from` on; they end in it.
    fn fill_stream(&self, stream: &Stream<'_>, from: usize, words: &mut [u32]) {
        // The words of all rows of a group that are together: one unit of each.
        let stripe = self.layout.interleave as usize * stream.unit;
        let in_group = stream.row_len / stream.unit;
        let (mut at, mut rest) = (from, words);
        while !rest.is_empty() {
            let (number, skip) = (at / stripe, at % stripe);
            let (group, index) = (number / in_group, number % in_group);
            let whole = (in_group - index).min(rest.len() / stripe) * stripe;
            let len = if skip == 0 && whole > 0 {
                self.fill_stripes(stream, group, index, &mut rest[..whole]);
                whole
            } else {
                let mut buffer = [0; MOST_STRIPE];
                let made = &mut buffer[..stripe];
                self.fill_stripes(stream, group, index, made);
                let len = (stripe - skip).min(rest.len());
                rest[..len].copy_from_slice(&made[skip..][..len]);
                len
            };
            at += len;
            rest = &mut rest[len..];
        }
    }

    /// Whole stripes of a group of rows, from the `first`-th on.
    fn fill_stripes(&self, stream: &Stream<'_>, group: usize, first: usize, words: &mut [u32]) {
        let interleave = self.layout.interleave as usize;
        let (unit, stripe) = (stream.unit, interleave * stream.unit);
        for lane in 0..interleave {
            let row = group * interleave + lane;
            let stripes = words.chunks_exact_mut(stripe);
            if row >= self.rows.len() {
                for stripe in stripes {
                    stripe[lane * unit..][..unit].fill(0);
                }
                continue;
            }
            let row = self.rows.start + row;
            match stream.source {
                Source::Piece(piece) => {
                    let row = &piece[row * stream.row_len..][first * unit..];
                    match unit {
                        1 => scatter::<1>(row, stripe, lane, words),
                        2 => scatter::<2>(row, stripe, lane, words),
                        _ => scatter::<4>(row, stripe, lane, words),
                    }
                }
                Source::Plane { piece, width, bit } => {
                    let row = &piece[(row * stream.row_len + first) * width as usize..];
                    match width {
                        1 => scatter_planes::<1>(row, bit, stripe, lane, words),
                        2 => scatter_planes::<2>(row, bit, stripe, lane, words),
                        4 => scatter_planes::<4>(row, bit, stripe, lane, words),
                        _ => scatter_planes::<8>(row, bit, stripe, lane, words),
                    }
                }
                Source::Carry { bits } => {
                    for (stripe, index) in stripes.zip(first..) {
                        let block = self.matrix.block(row, index);
                        stripe[lane] = block.plane_of(|word| carry_bytes(word, bits));
                    }
                }
            }
        }
    }

    /// The side array: scales, zeros and code sums.
    pub fn side(&self) -> Vec<u32> {
        let (matrix, sections) = (self.matrix, &self.sections);
        let (format, columns) = (&matrix.format, matrix.columns);
        let mut words = vec![0; sections.side_words];
        let part: Side;
        let side = if self.rows == (0..matrix.rows) {
            &matrix.side
        } else {
            part = matrix.side.row_range(format, columns, &self.rows);
            &part
        };
        side.store(format, columns, sections, &self.layout, &mut words);
        sections.store_table(format.element(), &mut words);
        if self.layout.sums != SumLayout::None {
            self.store_sums(&mut words);
        }
        words
    }

    fn store_sums(&self, side: &mut [u32]) {
        let groups = sum_groups(&self.matrix.format, self.matrix.columns, self.layout.sums);
        let interleave = self.layout.interleave as usize;
        let padded = padded_rows(self.rows.len(), self.layout.interleave);
        let sums = &mut side[self.sections.sums as usize..][..padded * groups];
        for_each_chunk_mut(sums, interleave * groups, |index, chunk| {
            let first = index * interleave;
            for (lane, row) in (first..self.rows.len().min(first + interleave)).enumerate() {
                let row = self.rows.start + row;
                self.matrix.row_sums(row, self.layout.sums, |group, sum| {
                    if let Some(entry) = chunk.get_mut(group * interleave + lane) {
                        *entry += sum;
                    }
                });
            }
        });
    }
}

/// Puts the units of a row in their stripes.
fn scatter<const UNIT: usize>(row: &[u32], stripe: usize, lane: usize, words: &mut [u32]) {
    let stripes = words.chunks_exact_mut(stripe);
    for (stripe, unit) in stripes.zip(row.chunks_exact(UNIT)) {
        stripe[lane * UNIT..][..UNIT].copy_from_slice(unit);
    }
}

/// Puts a bit of the codes of a row in their stripes.
fn scatter_planes<const WIDTH: usize>(
    row: &[u32],
    bit: u32,
    stripe: usize,
    lane: usize,
    words: &mut [u32],
) {
    let stripes = words.chunks_exact_mut(stripe);
    for (stripe, words) in stripes.zip(row.chunks_exact(WIDTH)) {
        stripe[lane] = block::plane(words, WIDTH as u32, bit);
    }
}

// A stripe fits the buffer for parts of one, whatever the layout.
const _: () = assert!(MOST_STRIPE >= 32 * unit_words(BLOCK as u32));
