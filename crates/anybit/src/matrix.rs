//! Matrices on the device.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use anybit_formats::layout::{padded_rows, piece_widths, row_words};
use anybit_formats::{
    DeviceLayout, ElementFormat, FloatFormat, FormatError, MatrixFormat, Memory, Nesting,
    PackedMatrix, PieceLayout, Sections,
};

use half::f16;

use crate::bind_groups::Life;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::problem::OutputFormat;
use crate::readback::PendingWords;

const BLOCK: usize = anybit_formats::layout::BLOCK;

/// What holds more than scratch can be written and read by copies, too.
pub(crate) const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

/// Texels of a row of a texture that holds a matrix: `MEM_WIDTH` of memory/textures.wgsl. Four words a texel.
pub(crate) const TEXTURE_WIDTH: u32 = 512;

/// Four words.
pub(crate) const TEXEL: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Uint;

/// Bytes of such a row.
const TEXTURE_ROW: u64 = 16 * TEXTURE_WIDTH as u64;

/// What wgpu copies words to before they go on.
pub(crate) const STAGED: &str = "words on their way to it";

/// Rows of a texture for so many words. No power of two, within the limit: llvmpipe compiles a shader anew, for a second or more,
/// for every choice of its textures whose sides are powers of two.
fn texture_rows(words: u64, limit: u64) -> u64 {
    let rows = (4 * words).div_ceil(TEXTURE_ROW).max(1);
    match rows {
        1 | 2 => 3.min(limit),
        _ if rows.is_power_of_two() && rows < limit => rows + 1,
        _ => rows,
    }
}

/// What textures of matrices are used for. They are read as storage textures, too: software drivers load those in line, and
/// sampled ones by a call that asks each lane's mip level.
pub(crate) const TEXELS: wgpu::TextureUsages = wgpu::TextureUsages::STORAGE_BINDING
    .union(wgpu::TextureUsages::COPY_DST)
    .union(wgpu::TextureUsages::COPY_SRC);

/// A packed matrix on the device. Cheap to clone: clones share the buffers.
///
/// Its rows may be spread over several buffers, each within the device's limits; users need not know.
#[derive(Clone, Debug)]
pub struct DeviceMatrix {
    pub(crate) format: MatrixFormat,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) layout: DeviceLayout,
    pub(crate) chunks: Vec<Chunk>,
    /// Widths that the matrix as stored has carry planes for.
    carries: Vec<u8>,
    /// The format as stored and how it is read, if `format` is narrower.
    pub(crate) nested: Option<(MatrixFormat, Nesting)>,
}

/// What consecutive rows lie in.
#[derive(Clone, Debug)]
pub(crate) enum ChunkMemory {
    /// Codes first, then side data.
    Buffer(wgpu::Buffer),
    /// One of codes and one of side data.
    Textures(Box<[Words; 2]>),
    /// A texture of codes, a buffer of side data.
    TextureCodes(Box<(Words, wgpu::Buffer)>),
}

/// Words in a texture.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    texture: wgpu::Texture,
    view: wgpu::TextureView,
}

impl Words {
    /// Bytes that it takes on the device.
    fn bytes(&self) -> u64 {
        TEXTURE_ROW * u64::from(self.texture.height())
    }
}

/// Consecutive rows of a matrix.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) rows: Range<usize>,
    pub(crate) memory: ChunkMemory,
    pub(crate) sections: Sections,
    pub(crate) codes: Range<u64>,
    pub(crate) side: Range<u64>,
    /// Words from row to row, of float matrices.
    pub(crate) row_words: u32,
    pub(crate) life: Arc<Life>,
}

impl Chunk {
    /// The buffer, if it lies in one.
    pub(crate) fn buffer(&self) -> Option<&wgpu::Buffer> {
        match &self.memory {
            ChunkMemory::Buffer(buffer) => Some(buffer),
            ChunkMemory::Textures(_) | ChunkMemory::TextureCodes(_) => None,
        }
    }

    /// Codes and side data, for what reads or writes buffers alone.
    pub(crate) fn bindings(&self, what: &'static str) -> Result<[wgpu::BufferBinding<'_>; 2]> {
        let buffer = self.buffer().ok_or(Error::InTextures { what })?;
        Ok([binding(buffer, &self.codes), binding(buffer, &self.side)])
    }

    /// Codes and side data, for what writes them: codes into a buffer or texels, side data into a buffer.
    pub(crate) fn written(&self, what: &'static str) -> Result<[wgpu::BindingResource<'_>; 2]> {
        match &self.memory {
            ChunkMemory::Buffer(_) | ChunkMemory::TextureCodes(_) => Ok(self.resources()),
            ChunkMemory::Textures(_) => Err(Error::InTextures { what }),
        }
    }

    /// Codes and side data, for products.
    pub(crate) fn resources(&self) -> [wgpu::BindingResource<'_>; 2] {
        match &self.memory {
            ChunkMemory::Buffer(buffer) => [&self.codes, &self.side]
                .map(|bytes| wgpu::BindingResource::Buffer(binding(buffer, bytes))),
            ChunkMemory::Textures(textures) => textures
                .each_ref()
                .map(|words| wgpu::BindingResource::TextureView(&words.view)),
            ChunkMemory::TextureCodes(both) => {
                let (codes, side) = &**both;
                [
                    wgpu::BindingResource::TextureView(&codes.view),
                    side.as_entire_binding(),
                ]
            }
        }
    }

    /// Where codes and side data lie, for bind groups to be told apart by.
    pub(crate) fn places(&self) -> [[u64; 2]; 2] {
        match &self.memory {
            ChunkMemory::Buffer(_) => {
                [&self.codes, &self.side].map(|bytes| [bytes.start, bytes.end - bytes.start])
            }
            ChunkMemory::Textures(_) | ChunkMemory::TextureCodes(_) => [[0, 0], [1, 0]],
        }
    }

    /// The rows from `first` on of a matrix's chunk, as a chunk that lies in the same memory. `None` if no binding may begin
    /// there: at rows that are no multiple of 32.
    fn stretch(&self, matrix: &DeviceMatrix, first: usize, count: usize) -> Option<Cow<'_, Self>> {
        if first == 0 && count == self.rows.len() {
            return Some(Cow::Borrowed(self));
        }
        let stored = matrix.nested.map_or(matrix.format, |(stored, _)| stored);
        let mut stretch = self.clone();
        let start = self.rows.start + first;
        stretch.rows = start..start + count;
        match (stored.element(), &self.memory) {
            // They are bound from their first word to their last, which may be all that a binding holds.
            (ElementFormat::Float(_), ChunkMemory::Buffer(_)) => {
                if !first.is_multiple_of(BLOCK) {
                    return None;
                }
                let row = 4 * u64::from(self.row_words);
                let start = self.codes.start + first as u64 * row;
                let end = match first + count == self.rows.len() {
                    true => self.codes.end,
                    false => start + count as u64 * row,
                };
                stretch.codes = start..end;
            }
            _ => {
                let sections = &self.sections;
                stretch.sections =
                    sections.from_row(&stored, matrix.columns, &matrix.layout, first)?;
            }
        }
        Some(Cow::Owned(stretch))
    }

    /// Bytes that it takes on the device.
    fn bytes(&self) -> u64 {
        match &self.memory {
            ChunkMemory::Buffer(_) => self.side.end,
            ChunkMemory::Textures(textures) => textures.iter().map(Words::bytes).sum(),
            ChunkMemory::TextureCodes(both) => both.0.bytes() + both.1.size(),
        }
    }
}

/// The bytes of words as they lie in device memory.
fn little_endian(words: &[u32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(words))
    } else {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Rows of floats, `row_words` from each to the next, as they lie in a matrix of ours: so many words in all, zeros between rows
/// and after them, whatever a buffer of the caller has there.
fn close_rows(
    codes: &[u32],
    float: FloatFormat,
    columns: usize,
    row_words: u32,
    words: usize,
) -> Vec<u32> {
    let per_word = (32 / float.bits()) as usize;
    let mut closed = Vec::with_capacity(words);
    for row in codes.chunks(row_words.max(1) as usize) {
        let end = closed.len() + columns.div_ceil(BLOCK) * BLOCK / per_word;
        closed.extend(row.iter().take(columns.div_ceil(per_word)));
        if let Some(last) = closed
            .last_mut()
            .filter(|_| !columns.is_multiple_of(per_word))
        {
            *last &= 0xffff;
        }
        closed.resize(end, 0);
    }
    closed.resize(words, 0);
    closed
}

fn binding<'a>(buffer: &'a wgpu::Buffer, bytes: &Range<u64>) -> wgpu::BufferBinding<'a> {
    wgpu::BufferBinding {
        buffer,
        offset: bytes.start,
        size: wgpu::BufferSize::new(bytes.end - bytes.start),
    }
}

/// Bytes of the codes and side ranges of a chunk, padded to where a binding may start.
fn chunk_ranges(sections: &Sections) -> (Range<u64>, Range<u64>) {
    let codes = 4 * sections.codes_words as u64;
    let start = codes.next_multiple_of(256);
    (0..codes, start..start + 4 * sections.side_words as u64)
}

impl DeviceMatrix {
    /// The format.
    pub fn format(&self) -> &MatrixFormat {
        &self.format
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How it is laid out.
    pub fn layout(&self) -> DeviceLayout {
        self.layout
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(Chunk::bytes).sum()
    }

    /// The rows that lie together.
    pub(crate) fn chunk_rows(&self) -> Vec<Range<usize>> {
        self.chunks.iter().map(|chunk| chunk.rows.clone()).collect()
    }

    /// The most rows that a binding of `limit` bytes holds. Chunks of codes are made no larger than that; floats in a buffer
    /// of the caller may be.
    pub(crate) fn most_rows(&self, limit: u64) -> usize {
        let larger = self.chunks.iter().filter(|chunk| {
            matches!(chunk.memory, ChunkMemory::Buffer(_))
                && chunk.codes.end - chunk.codes.start > limit
        });
        larger
            .map(|chunk| (limit / (4 * u64::from(chunk.row_words.max(1)))) as usize)
            .min()
            .unwrap_or(usize::MAX)
    }

    /// Rows that lie together as a chunk, which those of a whole chunk are already. `None` if no binding may begin there.
    pub(crate) fn stretch(&self, rows: Range<usize>) -> Option<Cow<'_, Chunk>> {
        let chunk = self
            .chunks
            .iter()
            .find(|chunk| chunk.rows.start <= rows.start && rows.end <= chunk.rows.end)?;
        chunk.stretch(self, rows.start - chunk.rows.start, rows.len())
    }

    /// Whether any of it lies in a buffer.
    pub(crate) fn is_in(&self, buffer: &wgpu::Buffer) -> bool {
        self.chunks
            .iter()
            .any(|chunk| chunk.buffer() == Some(buffer))
    }

    /// Bytes of codes that a product reads, each counted once: of a matrix that is [nested](Self::nested), those of the
    /// planes that it looks at, which are l/8 of the stored codes by truncation to l bits and (l + 1)/8 with a carry plane.
    pub fn code_bytes_read(&self) -> u64 {
        let stored = self.nested.map_or(self.format, |(stored, _)| stored);
        if !stored.element().has_codes() {
            return self
                .chunks
                .iter()
                .map(|chunk| chunk.codes.end - chunk.codes.start)
                .sum();
        }
        let bits = match (self.nested, self.layout.pieces) {
            (Some((_, nesting)), PieceLayout::Planes) => {
                self.format.element().bits() + u32::from(nesting == Nesting::DoubleRounding)
            }
            _ => piece_widths(stored.element(), self.layout.pieces)
                .iter()
                .sum(),
        };
        self.chunks
            .iter()
            .map(|chunk| {
                let rows = padded_rows(chunk.rows.len(), self.layout.interleave) as u64;
                4 * rows * row_words(bits, self.columns) as u64
            })
            .sum()
    }

    /// [`code_bytes_read`](Self::code_bytes_read) with the scales and all else beside the codes.
    pub fn bytes_read(&self) -> u64 {
        let side = self
            .chunks
            .iter()
            .map(|chunk| chunk.side.end - chunk.side.start);
        self.code_bytes_read() + side.sum::<u64>()
    }

    /// How it is read, if at fewer bits than it is stored in.
    pub fn nesting(&self) -> Option<Nesting> {
        self.nested.map(|(_, nesting)| nesting)
    }

    /// The widths that it has carry planes for.
    pub fn carry_widths(&self) -> &[u8] {
        &self.carries
    }

    /// This `int8` matrix as weights of `bits` bits: the same buffers, of which products read what that width needs. It
    /// equals [`PackedMatrix::nested`] of the stored matrix, with `int{bits}` as its format. 8 bits are the matrix itself.
    ///
    /// In planes ([`PieceLayout::Planes`], the engine `bitplane`), truncation reads the top planes and Double Rounding a carry
    /// plane with them; in pieces (the engine `dot4`), both read all bytes. Plan with
    /// [`PlanOptions::with_weight`](crate::PlanOptions::with_weight).
    ///
    /// # Errors
    ///
    /// [`Error::Format`] with [`FormatError::NestedBits`] unless `bits` is 2 to 8, and with [`FormatError::NestedFormat`] unless
    /// the matrix is one of `int8` without zero points; [`Error::CarryPlane`] for Double Rounding in planes without a carry
    /// plane for the width; [`Error::Nested`] for a matrix that is nested already, since Double Rounding does not compose.
    pub fn nested(&self, bits: u8, nesting: Nesting) -> Result<Self> {
        self.check_stored("the matrix to nest")?;
        let format = self.format.nested(bits)?;
        if format == self.format {
            return Ok(self.clone());
        }
        if nesting == Nesting::DoubleRounding
            && self.layout.pieces == PieceLayout::Planes
            && !self.carries.contains(&bits)
        {
            return Err(Error::CarryPlane {
                bits,
                stored: self.carries.clone(),
            });
        }
        Ok(Self {
            format,
            nested: Some((self.format, nesting)),
            ..self.clone()
        })
    }

    /// Refuses nested matrices, for what reads or writes codes as they are stored.
    pub(crate) fn check_stored(&self, what: &'static str) -> Result<()> {
        match self.nested {
            None => Ok(()),
            Some(_) => Err(Error::Nested { what }),
        }
    }

    /// [`from_buffer_as`](Self::from_buffer_as) of f32.
    ///
    /// # Errors
    ///
    /// Those of [`from_buffer_as`](Self::from_buffer_as).
    pub fn from_buffer(
        buffer: &wgpu::Buffer,
        offset: u64,
        shape: (usize, usize),
        row_stride: usize,
    ) -> Result<Self> {
        Self::from_buffer_as(FloatFormat::F32, buffer, offset, shape, row_stride)
    }

    /// A matrix of floats in a buffer of the caller, such as the output of another pass: row-major, `row_stride` elements
    /// from row to row, starting `offset` bytes into the buffer; of 16-bit floats two a word, the first in the low half.
    /// What lies between a row's end and the next row is not used.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the buffer lacks the STORAGE usage, the offset is no multiple of 256, the stride is no
    /// multiple of 4 (of 16-bit floats: of 8) or shorter than a row, or the matrix runs past the buffer's end.
    pub fn from_buffer_as(
        element: FloatFormat,
        buffer: &wgpu::Buffer,
        offset: u64,
        (rows, columns): (usize, usize),
        row_stride: usize,
    ) -> Result<Self> {
        let problem = |problem: String| Error::Buffer {
            what: "a matrix of floats in the caller's buffer",
            problem,
        };
        let per_word = (32 / element.bits()) as usize;
        let unit = 4 * per_word;
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(problem("it lacks the usage STORAGE".into()));
        }
        if !offset.is_multiple_of(256) {
            return Err(problem(format!(
                "the offset {offset} is no multiple of 256"
            )));
        }
        if !row_stride.is_multiple_of(unit) || row_stride < columns {
            return Err(problem(format!(
                "the row stride {row_stride} must be a multiple of {unit} and at least the {columns} columns"
            )));
        }
        let row_words = row_stride / per_word;
        let bytes = (rows as u64)
            .checked_mul(row_words as u64)
            .and_then(|words| words.checked_mul(4))
            .filter(|bytes| {
                offset
                    .checked_add(*bytes)
                    .is_some_and(|end| end <= buffer.size())
            })
            .ok_or_else(|| {
                problem(format!(
                    "{rows} rows of {row_stride} elements from byte {offset} run past its {} bytes",
                    buffer.size()
                ))
            })?;
        let row_words = u32::try_from(row_words)
            .map_err(|_| problem(format!("the row stride {row_stride} is too large")))?;
        let chunks = if rows == 0 || columns == 0 {
            Vec::new()
        } else {
            vec![Chunk {
                rows: 0..rows,
                memory: ChunkMemory::Buffer(buffer.clone()),
                sections: Sections {
                    pieces: vec![0],
                    codes_words: (bytes / 4) as usize,
                    side_words: 4,
                    ..Sections::default()
                },
                codes: offset..offset + bytes,
                // Never read; any 16 bytes of the buffer will do.
                side: offset..offset + 16,
                row_words,
                life: Life::new(),
            }]
        };
        Ok(Self {
            format: MatrixFormat::new(element.into(), None)?,
            rows,
            columns,
            layout: DeviceLayout::ROW_MAJOR,
            chunks,
            carries: Vec::new(),
            nested: None,
        })
    }
}

impl Context {
    /// Uploads a packed matrix in a layout, as a plan names it. A matrix over the device's binding limit is split by
    /// rows.
    ///
    /// Words are put in order on several threads, straight in the memory that the device copies from. Of that there are 16 MiB:
    /// a matrix of 1 MiB or more is submitted piece by piece, and a large one takes until the device has copied all but its
    /// last pieces.
    ///
    /// # Errors
    ///
    /// [`Error::BindingTooLarge`] if not even a few rows fit a binding; [`Error::OutOfMemory`]; [`Error::Format`] for
    /// a layout that the format cannot have.
    pub fn upload(&self, matrix: &PackedMatrix, layout: &DeviceLayout) -> Result<DeviceMatrix> {
        self.upload_with_carries(matrix, layout, &[])
    }

    /// [`upload`](Self::upload) of an `int8` matrix in planes with a carry plane, an eighth of its codes, for each of these
    /// widths: those at which it can be read by Double Rounding ([`DeviceMatrix::nested`]).
    ///
    /// # Errors
    ///
    /// Those of [`upload`](Self::upload), and of [`Sections::with_carries`].
    pub fn upload_with_carries(
        &self,
        matrix: &PackedMatrix,
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<DeviceMatrix> {
        let shape = (matrix.rows(), matrix.columns());
        let device = self.allocate_with_carries(*matrix.format(), shape, layout, widths)?;
        for chunk in &device.chunks {
            let rows = matrix.device_rows(chunk.rows.clone(), layout, widths)?;
            match &chunk.memory {
                ChunkMemory::Buffer(buffer) => {
                    let places = [chunk.codes.start, chunk.side.start];
                    self.upload_rows(&rows, buffer, places)?;
                }
                ChunkMemory::Textures(_) | ChunkMemory::TextureCodes(_) => {
                    let mut words = vec![0; chunk.sections.codes_words];
                    rows.fill_codes(0, &mut words);
                    self.write_codes(chunk, &words)?;
                    self.write_side(chunk, &rows.side())?;
                }
            }
        }
        Ok(device)
    }

    /// Writes the words of a chunk's codes, from the first on.
    pub(crate) fn write_codes(&self, chunk: &Chunk, words: &[u32]) -> Result<()> {
        match &chunk.memory {
            ChunkMemory::Buffer(buffer) => self.write(buffer, chunk.codes.start, words),
            ChunkMemory::Textures(textures) => self.write_texture(&textures[0], words),
            ChunkMemory::TextureCodes(both) => self.write_texture(&both.0, words),
        }
    }

    /// Writes the words of a chunk's side data, from the first on.
    pub(crate) fn write_side(&self, chunk: &Chunk, words: &[u32]) -> Result<()> {
        match &chunk.memory {
            ChunkMemory::Buffer(buffer) => self.write(buffer, chunk.side.start, words),
            ChunkMemory::Textures(textures) => self.write_texture(&textures[1], words),
            ChunkMemory::TextureCodes(both) => self.write(&both.1, 0, words),
        }
    }

    pub(crate) fn write(&self, buffer: &wgpu::Buffer, offset: u64, words: &[u32]) -> Result<()> {
        let queue = &self.inner.queue;
        let bytes = little_endian(words);
        self.guard_memory(STAGED, bytes.len() as u64, |_| {
            queue.write_buffer(buffer, offset, &bytes);
        })
    }

    /// Writes words, four a texel, from the first texel on.
    fn write_texture(&self, target: &Words, words: &[u32]) -> Result<()> {
        let bytes = little_endian(words);
        let mut rest: &[u8] = &bytes;
        let mut y = 0;
        while !rest.is_empty() {
            // Whole rows, then what is left of the last.
            let rows = rest.len() as u64 / TEXTURE_ROW;
            let (part, width, height) = match rows {
                0 => (rest, (rest.len() as u32).div_ceil(16), 1),
                _ => (
                    &rest[..(rows * TEXTURE_ROW) as usize],
                    TEXTURE_WIDTH,
                    rows as u32,
                ),
            };
            let mut padded = Vec::new();
            let data = if part.len().is_multiple_of(16) {
                part
            } else {
                padded.extend_from_slice(part);
                padded.resize(part.len().next_multiple_of(16), 0);
                &padded
            };
            self.guard_memory(STAGED, data.len() as u64, |_| {
                self.inner.queue.write_texture(
                    wgpu::TexelCopyTextureInfo {
                        texture: &target.texture,
                        mip_level: 0,
                        origin: wgpu::Origin3d { x: 0, y, z: 0 },
                        aspect: wgpu::TextureAspect::All,
                    },
                    data,
                    wgpu::TexelCopyBufferLayout {
                        offset: 0,
                        bytes_per_row: Some(16 * width),
                        rows_per_image: None,
                    },
                    wgpu::Extent3d {
                        width,
                        height,
                        depth_or_array_layers: 1,
                    },
                );
            })?;
            rest = &rest[part.len()..];
            y += height;
        }
        Ok(())
    }

    /// A texture for so many words.
    pub(crate) fn texture(
        &self,
        what: &'static str,
        words: u64,
        usage: wgpu::TextureUsages,
    ) -> Result<Words> {
        let limit = u64::from(self.inner.caps.max_texture);
        let rows = texture_rows(words, limit);
        let height = u32::try_from(rows)
            .ok()
            .filter(|_| rows <= limit)
            .ok_or(Error::TooLarge {
                what: "the texels of a texture's side",
                value: rows,
                limit,
            })?;
        let texture = self.guard_memory(what, rows * TEXTURE_ROW, |device| {
            device.create_texture(&wgpu::TextureDescriptor {
                label: Some(what),
                size: wgpu::Extent3d {
                    width: TEXTURE_WIDTH,
                    height,
                    depth_or_array_layers: 1,
                },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: TEXEL,
                usage,
                view_formats: &[],
            })
        })?;
        let view = self.guard(|_| texture.create_view(&wgpu::TextureViewDescriptor::default()))?;
        Ok(Words { texture, view })
    }

    /// An f32 matrix from row-major values.
    ///
    /// # Errors
    ///
    /// Those of [`upload`](Self::upload); [`Error::Format`] if the length is not rows × columns or a value is not finite.
    pub fn upload_f32(&self, values: &[f32], rows: usize, columns: usize) -> Result<DeviceMatrix> {
        let matrix = PackedMatrix::from_f32(FloatFormat::F32, rows, columns, values)?;
        self.upload(&matrix, &DeviceLayout::ROW_MAJOR)
    }

    /// A matrix of zero words on the device, for a kernel to fill.
    ///
    /// # Errors
    ///
    /// Those of [`upload`](Self::upload).
    pub fn allocate(
        &self,
        format: MatrixFormat,
        rows: usize,
        columns: usize,
        layout: &DeviceLayout,
    ) -> Result<DeviceMatrix> {
        self.allocate_with_carries(format, (rows, columns), layout, &[])
    }

    fn allocate_with_carries(
        &self,
        format: MatrixFormat,
        (rows, columns): (usize, usize),
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<DeviceMatrix> {
        let sections = |rows| Sections::with_carries(&format, rows, columns, layout, widths);
        // Checks format, shape and layout together.
        sections(0)?;
        let mut chunks = Vec::new();
        if rows > 0 && columns > 0 {
            let per_chunk = self.rows_per_chunk(rows, layout.memory, sections)?;
            let row_words = match format.element() {
                ElementFormat::Float(_) => {
                    let words = columns.div_ceil(BLOCK) * format.element().bits() as usize;
                    u32::try_from(words).map_err(|_| Error::TooLarge {
                        what: "the words of a row",
                        value: words as u64,
                        limit: u64::from(u32::MAX),
                    })?
                }
                _ => 0,
            };
            let mut first = 0;
            while first < rows {
                let range = first..(first + per_chunk).min(rows);
                let sections = sections(range.len())?;
                let (codes, side) = chunk_ranges(&sections);
                let memory = match layout.memory {
                    Memory::Buffers => {
                        let buffer = self.buffer("a matrix", side.end, STORAGE)?;
                        self.write_table(format.element(), &sections, &buffer, side.start)?;
                        ChunkMemory::Buffer(buffer)
                    }
                    // Only an upload writes them, tables included.
                    Memory::Textures => ChunkMemory::Textures(Box::new([
                        self.texture("a matrix", sections.codes_words as u64, TEXELS)?,
                        self.texture("a matrix", sections.side_words as u64, TEXELS)?,
                    ])),
                    Memory::TextureCodes => {
                        let words = sections.codes_words as u64;
                        let codes = self.texture("a matrix", words, TEXELS)?;
                        let buffer = self.buffer("a matrix", side.end - side.start, STORAGE)?;
                        self.write_table(format.element(), &sections, &buffer, 0)?;
                        ChunkMemory::TextureCodes(Box::new((codes, buffer)))
                    }
                };
                chunks.push(Chunk {
                    rows: range.clone(),
                    memory,
                    sections,
                    codes,
                    side,
                    row_words,
                    life: Life::new(),
                });
                first = range.end;
            }
        }
        Ok(DeviceMatrix {
            format,
            rows,
            columns,
            layout: *layout,
            chunks,
            carries: widths.to_vec(),
            nested: None,
        })
    }

    /// Writes a large codebook into the side data, where kernels find it, whoever writes the codes.
    fn write_table(
        &self,
        element: ElementFormat,
        sections: &Sections,
        buffer: &wgpu::Buffer,
        offset: u64,
    ) -> Result<()> {
        if element.codebook().is_none() {
            return Ok(());
        }
        let mut words = vec![0; sections.side_words];
        sections.store_table(element, &mut words);
        self.write(buffer, offset, &words)
    }

    /// The most rows, a multiple of 32 unless it is all, whose bindings and buffer stay within the device's limits.
    fn rows_per_chunk(
        &self,
        rows: usize,
        memory: Memory,
        sections: impl Fn(usize) -> Result<Sections, FormatError>,
    ) -> Result<usize> {
        let caps = &self.inner.caps;
        let max_binding = match memory {
            Memory::Buffers => caps.max_binding,
            Memory::Textures | Memory::TextureCodes => caps
                .max_binding
                .min(TEXTURE_ROW * u64::from(caps.max_texture)),
        };
        let sizes = |rows: usize| -> Option<(u64, u64)> {
            let sections = sections(rows).ok()?;
            let (codes, side) = chunk_ranges(&sections);
            Some((codes.end.max(side.end - side.start), side.end))
        };
        let fits = |rows: usize| {
            sizes(rows).is_some_and(|(binding, buffer)| {
                binding <= max_binding && buffer <= caps.max_buffer
            })
        };
        if fits(rows) {
            return Ok(rows);
        }
        // The largest number of groups of 32 rows that fits, by bisection.
        let (mut low, mut high) = (0, rows.div_ceil(BLOCK));
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle * BLOCK) {
                low = middle;
            } else {
                high = middle;
            }
        }
        if low == 0 {
            return Err(Error::BindingTooLarge {
                what: "32 rows of a matrix",
                bytes: sizes(BLOCK).map_or(u64::MAX, |(binding, _)| binding),
                limit: max_binding,
            });
        }
        // Kernels of rows want multiples of 64, where they can be had.
        Ok(match low {
            1 => BLOCK,
            _ => (low - low % 2) * BLOCK,
        })
    }

    /// Reads a matrix back; of a nested one, the numbers that it stands for.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]; [`Error::OutOfMemory`]; [`Error::Format`] if its words are no valid matrix, as after a
    /// faulty kernel; [`Error::Buffer`] if a buffer of the caller lacks COPY_SRC.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn download(&self, matrix: &DeviceMatrix) -> Result<PackedMatrix> {
        pollster::block_on(self.download_async(matrix))
    }

    /// As [`download`](Self::download), without blocking.
    ///
    /// # Errors
    ///
    /// Those of [`download`](Self::download).
    pub async fn download_async(&self, matrix: &DeviceMatrix) -> Result<PackedMatrix> {
        match matrix.nested {
            None => self.download_stored(matrix, matrix.format).await,
            Some((stored, nesting)) => {
                let bits = matrix.format.element().bits() as u8;
                let stored = self.download_stored(matrix, stored).await?;
                Ok(stored.nested(bits, nesting)?)
            }
        }
    }

    /// Reads back the matrix as it is stored, in `format`. Carry planes follow from it, and stay.
    async fn download_stored(
        &self,
        matrix: &DeviceMatrix,
        format: MatrixFormat,
    ) -> Result<PackedMatrix> {
        if matrix.chunks.is_empty() {
            // A matrix without elements may still have rows, with scales of zero.
            let sections = Sections::new(&format, matrix.rows, matrix.columns, &matrix.layout)?;
            return Ok(PackedMatrix::from_device(
                format,
                matrix.rows,
                matrix.columns,
                &matrix.layout,
                &vec![0; sections.codes_words],
                &vec![0; sections.side_words],
            )?);
        }
        let mut parts = Vec::new();
        for chunk in &matrix.chunks {
            // Of the caller's buffers; ours can be copied from.
            if let Some(buffer) = chunk.buffer()
                && !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC)
            {
                return Err(Error::Buffer {
                    what: "the matrix",
                    problem: "it lacks the usage COPY_SRC".into(),
                });
            }
            let words = Sections::new(&format, chunk.rows.len(), matrix.columns, &matrix.layout)?
                .codes_words;
            let codes = match format.element() {
                ElementFormat::Float(_) => chunk.codes.clone(),
                _ => {
                    let end = chunk.codes.start + 4 * words as u64;
                    chunk.codes.start..chunk.codes.end.min(end)
                }
            };
            let side = chunk.side.clone();
            let lengths = [&codes, &side].map(|bytes| ((bytes.end - bytes.start) / 4) as usize);
            let (codes, side) = self.submit(|encoder| match &chunk.memory {
                ChunkMemory::Buffer(buffer) => Ok((
                    self.copy_out(encoder, buffer, codes)?,
                    self.copy_out(encoder, buffer, side)?,
                )),
                ChunkMemory::Textures(textures) => {
                    let [codes, side] = &**textures;
                    Ok((
                        self.copy_texture_out(encoder, codes)?,
                        self.copy_texture_out(encoder, side)?,
                    ))
                }
                ChunkMemory::TextureCodes(both) => Ok((
                    self.copy_texture_out(encoder, &both.0)?,
                    self.copy_out(encoder, &both.1, 0..both.1.size())?,
                )),
            })?;
            let (mut codes, mut side) = (codes.read().await?, side.read().await?);
            codes.truncate(lengths[0]);
            side.truncate(lengths[1]);
            if let ElementFormat::Float(float) = format.element() {
                codes = close_rows(&codes, float, matrix.columns, chunk.row_words, words);
            }
            parts.push(PackedMatrix::from_device(
                format,
                chunk.rows.len(),
                matrix.columns,
                &matrix.layout,
                &codes,
                &side,
            )?);
        }
        match parts.len() {
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(PackedMatrix::concat_rows(format, matrix.columns, &parts)?),
        }
    }

    /// Records a copy of all texels to the host.
    fn copy_texture_out(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        words: &Words,
    ) -> Result<PendingWords> {
        let length = words.bytes();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("a staging buffer", length, usage)?;
        encoder.copy_texture_to_buffer(
            words.texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &staging,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(TEXTURE_ROW as u32),
                    rows_per_image: None,
                },
            },
            words.texture.size(),
        );
        Ok(PendingWords::new(self, staging, (length / 4) as usize))
    }

    /// Records a copy of a byte range to the host.
    pub(crate) fn copy_out(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        bytes: Range<u64>,
    ) -> Result<PendingWords> {
        let length = bytes.end - bytes.start;
        let staging = self.buffer(
            "a staging buffer",
            length,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )?;
        encoder.copy_buffer_to_buffer(buffer, bytes.start, &staging, 0, length);
        Ok(PendingWords::new(self, staging, (length / 4) as usize))
    }
}

/// What a GEMM writes: M×N values of f32, f16 or i32, row-major, batches stacked; of f16 two a word, the first in the low
/// half.
///
/// Rows are padded to a multiple of 32 elements with zeros, so that a float output can be the next problem's activations.
#[derive(Clone, Debug)]
pub struct OutputMatrix {
    pub(crate) format: OutputFormat,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: u32,
    pub(crate) offset: u64,
    pub(crate) buffer: Option<wgpu::Buffer>,
    pub(crate) life: Arc<Life>,
}

impl OutputMatrix {
    /// What it holds.
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Rows, all batches together.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from row to row.
    pub fn row_stride(&self) -> usize {
        self.row_stride as usize
    }

    /// The buffer; none if the output is empty.
    pub fn buffer(&self) -> Option<&wgpu::Buffer> {
        self.buffer.as_ref()
    }

    /// The element format of the values; `None` for i32.
    fn float(&self) -> Option<FloatFormat> {
        match self.format {
            OutputFormat::F32 => Some(FloatFormat::F32),
            OutputFormat::F16 => Some(FloatFormat::F16),
            OutputFormat::I32 => None,
        }
    }

    /// The same values as activations of a further problem, in f32 or f16 as they are. `None` for i32.
    pub fn as_activation(&self) -> Option<DeviceMatrix> {
        let float = self.float()?;
        match &self.buffer {
            Some(buffer) => {
                let mut matrix = DeviceMatrix::from_buffer_as(
                    float,
                    buffer,
                    self.offset,
                    (self.rows, self.columns),
                    self.row_stride as usize,
                )
                .ok()?;
                for chunk in &mut matrix.chunks {
                    chunk.life = Arc::clone(&self.life);
                }
                Some(matrix)
            }
            None => Some(DeviceMatrix {
                format: MatrixFormat::new(float.into(), None).ok()?,
                rows: self.rows,
                columns: self.columns,
                layout: DeviceLayout::ROW_MAJOR,
                chunks: Vec::new(),
                carries: Vec::new(),
                nested: None,
            }),
        }
    }

    /// An output in a buffer of the caller: row-major, `row_stride` elements from row to row, `offset` bytes into it.
    /// Only the M×N elements are written; in f16, where N is odd, the other half of a row's last word becomes 0.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`], as [`DeviceMatrix::from_buffer_as`].
    pub fn from_buffer(
        buffer: &wgpu::Buffer,
        offset: u64,
        format: OutputFormat,
        (rows, columns): (usize, usize),
        row_stride: usize,
    ) -> Result<Self> {
        // The rules are those of floats of the same size.
        let float = match format {
            OutputFormat::F32 | OutputFormat::I32 => FloatFormat::F32,
            OutputFormat::F16 => FloatFormat::F16,
        };
        let matrix =
            DeviceMatrix::from_buffer_as(float, buffer, offset, (rows, columns), row_stride)?;
        // Its words fit a u32, and it has one element in each, or two.
        let row_stride = match matrix.chunks.first() {
            None => 0,
            Some(_) => u32::try_from(row_stride).map_err(|_| Error::TooLarge {
                what: "the row stride",
                value: row_stride as u64,
                limit: u64::from(u32::MAX),
            })?,
        };
        Ok(Self {
            format,
            rows,
            columns,
            row_stride,
            offset,
            buffer: (!matrix.chunks.is_empty()).then(|| buffer.clone()),
            life: Life::new(),
        })
    }

    pub(crate) fn bytes(&self) -> Range<u64> {
        let row = self.format.bytes() as u64 * u64::from(self.row_stride);
        self.offset..self.offset + self.rows as u64 * row
    }

    /// Some of its rows as a binding.
    pub(crate) fn rows_binding(&self, rows: Range<usize>) -> Option<wgpu::BufferBinding<'_>> {
        let row = self.format.bytes() as u64 * u64::from(self.row_stride);
        let bytes = self.offset + rows.start as u64 * row..self.offset + rows.end as u64 * row;
        self.buffer.as_ref().map(|buffer| binding(buffer, &bytes))
    }

    /// The most rows that a binding of `limit` bytes holds.
    pub(crate) fn most_rows(&self, limit: u64) -> usize {
        let row = self.format.bytes() as u64 * u64::from(self.row_stride);
        (limit / row.max(1)) as usize
    }

    /// The whole of it as a binding; none if it is empty.
    pub(crate) fn binding(&self) -> Option<wgpu::BufferBinding<'_>> {
        let bytes = self.bytes();
        self.buffer.as_ref().map(|buffer| binding(buffer, &bytes))
    }

    /// Whether another output has this one's shape, format and stride, in another buffer.
    pub(crate) fn check_like(&self, what: &'static str, other: &Self) -> Result<()> {
        if (self.rows, self.columns) != (other.rows, other.columns) {
            return Err(Error::ShapeMismatch {
                what,
                expected: (self.rows, self.columns),
                actual: (other.rows, other.columns),
            });
        }
        if self.format != other.format {
            return Err(Error::OutputMismatch {
                expected: self.format,
                actual: other.format,
            });
        }
        if self.row_stride != other.row_stride {
            return Err(Error::Buffer {
                what,
                problem: format!(
                    "its rows are {} elements apart, those of the output {}",
                    other.row_stride, self.row_stride
                ),
            });
        }
        if self.buffer.is_some() && self.buffer == other.buffer {
            return Err(Error::Aliased { what });
        }
        Ok(())
    }

    /// The M×N elements out of those of the padded rows.
    fn unpad<T: Copy>(&self, elements: &[T]) -> Vec<T> {
        if self.columns == 0 {
            return Vec::new();
        }
        elements
            .chunks(self.row_stride.max(1) as usize)
            .flat_map(|row| row.iter().take(self.columns).copied())
            .collect()
    }

    /// The M×N values out of the words of the padded rows.
    fn values(&self, words: &[u32]) -> Values {
        match self.format {
            OutputFormat::F32 => {
                let values = self.unpad(words).into_iter().map(f32::from_bits);
                Values::F32(values.collect())
            }
            OutputFormat::I32 => {
                let values = self.unpad(words).into_iter().map(u32::cast_signed);
                Values::I32(values.collect())
            }
            OutputFormat::F16 => {
                let halves = words
                    .iter()
                    .flat_map(|&word| [word as u16, (word >> 16) as u16]);
                let halves: Vec<f16> = halves.map(f16::from_bits).collect();
                Values::F16(self.unpad(&halves))
            }
        }
    }
}

impl Context {
    /// An output of zeros. It may be larger than the device's binding limit: products write it piece by piece then. It lies in
    /// one buffer.
    ///
    /// # Errors
    ///
    /// [`Error::BindingTooLarge`] if it is larger than the device's buffers may be; [`Error::OutOfMemory`].
    pub fn output(
        &self,
        format: OutputFormat,
        rows: usize,
        columns: usize,
    ) -> Result<OutputMatrix> {
        // Of a size without a multiple above it, the bytes are past every limit anyway.
        let stride = columns.checked_next_multiple_of(BLOCK).unwrap_or(columns);
        let bytes = (rows as u64)
            .saturating_mul(stride as u64)
            .saturating_mul(format.bytes() as u64);
        let limit = self.inner.caps.max_buffer;
        let Some(row_stride) = u32::try_from(stride).ok().filter(|_| bytes <= limit) else {
            return Err(Error::BindingTooLarge {
                what: "the output",
                bytes,
                limit,
            });
        };
        Ok(OutputMatrix {
            format,
            rows,
            columns,
            row_stride,
            offset: 0,
            buffer: if bytes == 0 {
                None
            } else {
                Some(self.buffer("the output", bytes, STORAGE)?)
            },
            life: Life::new(),
        })
    }

    /// Records a copy of an output to the host; submit the encoder, then read.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Buffer`] if a buffer of the caller lacks COPY_SRC.
    pub fn encode_read(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        output: &OutputMatrix,
    ) -> Result<PendingRead> {
        let read = match &output.buffer {
            None => None,
            Some(buffer) if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) => {
                return Err(Error::Buffer {
                    what: "the output",
                    problem: "it lacks the usage COPY_SRC".into(),
                });
            }
            Some(buffer) => Some(self.copy_out(encoder, buffer, output.bytes())?),
        };
        Ok(PendingRead {
            read,
            output: output.clone(),
        })
    }
}

/// An output on its way to the host.
#[derive(Debug)]
#[must_use = "the values are lost unless they are read"]
pub struct PendingRead {
    read: Option<PendingWords>,
    output: OutputMatrix,
}

impl PendingRead {
    /// The values, row-major without padding, once the submit that holds the copy is done.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub async fn read(self) -> Result<Values> {
        let words = match self.read {
            Some(read) => read.read().await?,
            None => Vec::new(),
        };
        Ok(self.output.values(&words))
    }

    /// As [`read`](Self::read), waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(self) -> Result<Values> {
        pollster::block_on(self.read())
    }
}

/// The values of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// f32 values.
    F32(Vec<f32>),
    /// f16 values.
    F16(Vec<f16>),
    /// i32 values.
    I32(Vec<i32>),
}

impl Values {
    /// The values in f32, if they are floats: f16 values as they are, since each is an f32 too.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        match self {
            Self::F32(values) => Some(values),
            Self::F16(values) => Some(values.into_iter().map(f16::to_f32).collect()),
            Self::I32(_) => None,
        }
    }

    /// The f16 values, if they are.
    pub fn into_f16(self) -> Option<Vec<f16>> {
        match self {
            Self::F16(values) => Some(values),
            Self::F32(_) | Self::I32(_) => None,
        }
    }

    /// The i32 values, if they are.
    pub fn into_i32(self) -> Option<Vec<i32>> {
        match self {
            Self::I32(values) => Some(values),
            Self::F32(_) | Self::F16(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_of_textures_are_no_powers_of_two() {
        let limit = 16384;
        for words in (0..4_000_000).step_by(509).chain([1, 2048, 4096, 8192]) {
            let rows = texture_rows(words, limit);
            assert!(!rows.is_power_of_two(), "{words}: {rows}");
            assert!(rows * TEXTURE_ROW >= 4 * words);
            assert!(rows <= (4 * words).div_ceil(TEXTURE_ROW) + 3);
        }
        // What just fits is not enlarged, what does not fit is not hidden.
        let most = limit * TEXTURE_ROW / 4;
        assert_eq!(texture_rows(most, limit), limit);
        assert_eq!(texture_rows(most + 1, limit), limit + 1);
    }
}
