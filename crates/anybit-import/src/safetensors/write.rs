//! Writing files of packed matrices.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};

use anybit_formats::{ElementFormat, FORMATS, PackedMatrix, Zeros, pack_ternary5};

use super::Dtype;
use super::header::{HEADER_LIMIT, LENGTH_BYTES, METADATA_KEY};
use super::packed::{self, PackedEntry, Part, Role};
use crate::SaveError;
use crate::gguf::shorten;

/// Bytes kept free for the header, which is known when all else is written. About a thousand tensors have room; with
/// more, the data is moved up at the end.
const HEADER_ROOM: u64 = (128 << 10) - LENGTH_BYTES;

/// Every tensor begins at a multiple of so many bytes: readers may map them.
const ALIGNMENT: u64 = 8;

/// How much is copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes packed matrices and other tensors as a safetensors file, each when it is given, so that no more than one need
/// be in memory. `packed.rs` in this crate's sources describes the file; [`SafetensorsFile`](super::SafetensorsFile)
/// reads it.
///
/// [`PackedFileWriter`] does the same for a file on disk.
///
/// ```
/// use anybit_formats::{PackedMatrix, quantize};
/// use anybit_import::safetensors::{Dtype, PackedWriter, SafetensorsFile};
/// use std::io::Cursor;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let values: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
/// let matrix = quantize(&values, 2, 64, "i4g32h".parse()?, None)?;
///
/// let mut writer = PackedWriter::new(Cursor::new(Vec::new()))?;
/// writer.metadata("source", "an example")?;
/// writer.matrix("up.weight", &matrix)?;
/// writer.tensor("norm.weight", Dtype::F32, &[2], &[0; 8])?;
/// let bytes = writer.finish()?.into_inner();
///
/// let file = SafetensorsFile::from_bytes(bytes)?;
/// assert!(file.is_packed());
/// assert_eq!(file.matrix("up.weight")?, matrix);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PackedWriter<W> {
    inner: W,
    /// Bytes of tensor data so far.
    length: u64,
    tensors: Vec<Written>,
    names: BTreeSet<String>,
    metadata: Vec<(String, String)>,
    keys: BTreeSet<String>,
    /// A write failed, so that what was written is not whole.
    broken: bool,
}

#[derive(Debug)]
struct Written {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

impl<W: Read + Write + Seek> PackedWriter<W> {
    /// Begins a file in `inner`, which is written from its position 0 on and should be empty.
    ///
    /// # Errors
    /// [`SaveError::Write`].
    pub fn new(inner: W) -> Result<Self, SaveError> {
        let mut writer = Self {
            inner,
            length: 0,
            tensors: Vec::new(),
            names: BTreeSet::new(),
            metadata: Vec::new(),
            keys: BTreeSet::new(),
            broken: false,
        };
        writer.entry(packed::VERSION_KEY.to_owned(), packed::VERSION.to_string());
        writer
            .inner
            .seek(SeekFrom::Start(LENGTH_BYTES + HEADER_ROOM))
            .map_err(|source| SaveError::Write { source })?;
        Ok(writer)
    }

    fn entry(&mut self, key: String, value: String) {
        self.keys.insert(key.clone());
        self.metadata.push((key, value));
    }

    /// Adds an entry to the metadata.
    ///
    /// # Errors
    /// [`SaveError::KeyTaken`] if there is one with this key, or the key begins with `anybit.`.
    pub fn metadata(&mut self, key: &str, value: &str) -> Result<(), SaveError> {
        if key.starts_with(packed::RESERVED_PREFIX) || self.keys.contains(key) {
            return Err(SaveError::KeyTaken { key: shorten(key) });
        }
        self.entry(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Writes a matrix, of any format. Ternary codes are stored five a byte.
    ///
    /// # Errors
    /// [`SaveError::NameTaken`] if there is a tensor or matrix with this name or one that its parts take;
    /// [`SaveError::Write`].
    pub fn matrix(&mut self, name: &str, matrix: &PackedMatrix) -> Result<(), SaveError> {
        let entry = PackedEntry::of(name, matrix);
        let parts = entry.parts();
        self.check_names(parts.iter().map(|part| part.name.as_str()).chain([name]))?;
        if let ElementFormat::Codebook(codebook) = matrix.format().element() {
            let built_in = FORMATS
                .iter()
                .any(|row| row.element.name() == codebook.name());
            let table = format!("{}{}", packed::CODEBOOK_PREFIX, codebook.name());
            if !built_in && !self.names.contains(&table) {
                let shape = vec![codebook.values().len() as u64];
                let bytes = codebook
                    .values()
                    .iter()
                    .flat_map(|value| value.to_le_bytes());
                self.write(table, Dtype::F32, shape, bytes)?;
            }
        }
        for part in parts {
            self.write_part(matrix, part)?;
        }
        self.names.insert(name.to_owned());
        self.entry(format!("{}{name}", packed::MATRIX_PREFIX), entry.text());
        Ok(())
    }

    /// Writes a tensor as it is, such as the weights of a norm: little-endian elements, the last dimension fastest.
    ///
    /// # Errors
    /// [`SaveError::NameTaken`] if there is a tensor or matrix with this name; [`SaveError::Length`] unless the bytes
    /// are as many as the shape takes; [`SaveError::Write`].
    pub fn tensor(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        bytes: &[u8],
    ) -> Result<(), SaveError> {
        if dtype.byte_size(shape) != Some(bytes.len() as u64) {
            return Err(SaveError::Length {
                tensor: shorten(name),
                dtype,
                shape: shape.to_vec(),
                found: bytes.len() as u64,
            });
        }
        self.check_names([name])?;
        let place = self.begin(name.to_owned(), dtype, shape.to_vec())?;
        self.put(bytes)?;
        self.end(place);
        Ok(())
    }

    fn check_names<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<(), SaveError> {
        for name in names {
            let reserved = name == METADATA_KEY || name.starts_with(packed::RESERVED_PREFIX);
            if reserved || self.names.contains(name) {
                return Err(SaveError::NameTaken {
                    name: shorten(name),
                });
            }
        }
        Ok(())
    }

    fn write_part(&mut self, matrix: &PackedMatrix, part: Part) -> Result<(), SaveError> {
        let Part {
            role,
            name,
            dtype,
            shape,
        } = part;
        let side = matrix.side();
        let columns = matrix.columns();
        match role {
            Role::Piece(piece) => {
                let words = matrix.pieces().nth(piece).unwrap_or_default();
                self.write(
                    name,
                    dtype,
                    shape,
                    words.iter().flat_map(|word| word.to_le_bytes()),
                )
            }
            Role::Floats(float) => {
                // Without the padding of rows.
                let words = matrix.pieces().next().unwrap_or_default();
                let across = words.len().checked_div(matrix.rows()).unwrap_or(0).max(1);
                let used = columns * (float.bits() / 8) as usize;
                let bytes = words
                    .chunks_exact(across)
                    .flat_map(|row| row.iter().flat_map(|word| word.to_le_bytes()).take(used));
                self.write(name, dtype, shape, bytes)
            }
            Role::Ternary => {
                let place = self.begin(name, dtype, shape)?;
                let codes = matrix.unpack_codes();
                for row in codes.chunks_exact(columns.max(1)) {
                    // Codes of a ternary matrix are ternary.
                    let bytes = pack_ternary5(row).map_err(|error| SaveError::Write {
                        source: std::io::Error::other(error),
                    })?;
                    self.put(&bytes)?;
                }
                self.end(place);
                Ok(())
            }
            Role::Scales(scale) | Role::Minima(scale) => {
                let values = match (role, side.zeros) {
                    (Role::Minima(_), Zeros::Minimum(minima)) => minima,
                    _ => side.scales,
                };
                let bytes = scale.bits() as usize / 8;
                let encode =
                    |&value: &f32| scale.encode(value).to_le_bytes().into_iter().take(bytes);
                self.write(name, dtype, shape, values.iter().flat_map(encode))
            }
            Role::SecondScales(float) | Role::SecondMinima(float) => {
                let values = match role {
                    Role::SecondMinima(_) => side.second_minima,
                    _ => side.second,
                };
                let bytes = (float.bits() / 8) as usize;
                let encode =
                    |&value: &f32| float.encode(value).to_le_bytes().into_iter().take(bytes);
                self.write(name, dtype, shape, values.iter().flat_map(encode))
            }
            Role::ZeroPoints | Role::Choices => {
                let bytes = match side.zeros {
                    Zeros::Integer(bytes) | Zeros::Choice(bytes) => bytes,
                    _ => &[],
                };
                self.write(name, dtype, shape, bytes.iter().copied())
            }
        }
    }

    /// Writes a tensor, some bytes at a time.
    fn write(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<u64>,
        bytes: impl IntoIterator<Item = u8>,
    ) -> Result<(), SaveError> {
        let place = self.begin(name, dtype, shape)?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for byte in bytes {
            chunk.push(byte);
            if chunk.len() == CHUNK_BYTES {
                self.put(&chunk)?;
                chunk.clear();
            }
        }
        self.put(&chunk)?;
        self.end(place);
        Ok(())
    }

    /// Begins a tensor at the next aligned place. The bytes before it belong to a tensor of their own, as every byte of
    /// a safetensors file must to one.
    fn begin(&mut self, name: String, dtype: Dtype, shape: Vec<u64>) -> Result<Written, SaveError> {
        let gap = self.length.next_multiple_of(ALIGNMENT) - self.length;
        if gap > 0 {
            let number = self.tensors.len();
            let padding = Written {
                name: format!("{}{number}", packed::PADDING_PREFIX),
                dtype: Dtype::U8,
                shape: vec![gap],
                begin: self.length,
                end: 0,
            };
            // Fits: below the alignment.
            self.put(&[0; ALIGNMENT as usize][..gap as usize])?;
            self.end(padding);
        }
        Ok(Written {
            name,
            dtype,
            shape,
            begin: self.length,
            end: 0,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        self.inner.write_all(bytes).map_err(|source| {
            self.broken = true;
            SaveError::Write { source }
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Ends a tensor after what has been written since it began.
    fn end(&mut self, mut tensor: Written) {
        tensor.end = self.length;
        self.names.insert(tensor.name.clone());
        self.tensors.push(tensor);
    }

    /// Writes the header and gives back what was written to. Without this the file is not whole.
    ///
    /// # Errors
    /// [`SaveError::Write`], also if an earlier write failed; [`SaveError::HeaderTooLong`].
    pub fn finish(mut self) -> Result<W, SaveError> {
        let failed = |source| SaveError::Write { source };
        if self.broken {
            return Err(failed(std::io::Error::other("an earlier write failed")));
        }
        let mut header = self.header().map_err(|error| failed(error.into()))?;
        let length = header.len().next_multiple_of(ALIGNMENT as usize) as u64;
        if length > HEADER_LIMIT {
            return Err(SaveError::HeaderTooLong {
                length,
                limit: HEADER_LIMIT,
            });
        }
        let length = length.max(HEADER_ROOM);
        self.move_data(length - HEADER_ROOM).map_err(failed)?;
        // Spaces after the brace are part of the header. Fits: at most the limit.
        header.resize(length as usize, b' ');
        self.inner
            .rewind()
            .and_then(|()| self.inner.write_all(&length.to_le_bytes()))
            .and_then(|()| self.inner.write_all(&header))
            .and_then(|()| self.inner.flush())
            .map_err(failed)?;
        Ok(self.inner)
    }

    fn header(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = format!("{{\"{METADATA_KEY}\":{{").into_bytes();
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, key)?;
            text.push(b':');
            serde_json::to_writer(&mut text, value)?;
        }
        text.push(b'}');
        for tensor in &self.tensors {
            text.push(b',');
            serde_json::to_writer(&mut text, &tensor.name)?;
            let Written {
                dtype,
                shape,
                begin,
                end,
                ..
            } = tensor;
            text.extend_from_slice(format!(":{{\"dtype\":\"{dtype}\",\"shape\":").as_bytes());
            serde_json::to_writer(&mut text, shape)?;
            text.extend_from_slice(format!(",\"data_offsets\":[{begin},{end}]}}").as_bytes());
        }
        text.push(b'}');
        Ok(text)
    }

    /// Moves the data up by so many bytes, the last first.
    fn move_data(&mut self, distance: u64) -> std::io::Result<()> {
        if distance == 0 {
            return Ok(());
        }
        let start = LENGTH_BYTES + HEADER_ROOM;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = self.length;
        while left > 0 {
            // Fits: at most `CHUNK_BYTES`.
            let count = left.min(CHUNK_BYTES as u64);
            let bytes = chunk.get_mut(..count as usize).unwrap_or_default();
            left -= count;
            self.inner.seek(SeekFrom::Start(start + left))?;
            self.inner.read_exact(bytes)?;
            self.inner.seek(SeekFrom::Start(start + left + distance))?;
            self.inner.write_all(bytes)?;
        }
        Ok(())
    }
}

/// Writes packed matrices and other tensors to a safetensors file, as [`PackedWriter`] does.
///
/// The file is written under another name beside its place and renamed when it is whole, so that there is never half a
/// file, nor a time without the one that was there before. Dropped unfinished, it leaves nothing behind.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub struct PackedFileWriter {
    writer: PackedWriter<std::fs::File>,
    temporary: Temporary,
    path: std::path::PathBuf,
}

#[cfg(not(target_arch = "wasm32"))]
impl PackedFileWriter {
    /// Begins the file at `path`.
    ///
    /// # Errors
    /// [`SaveError::Create`] if no file can be made in its directory; [`SaveError::Write`].
    pub fn create(path: impl AsRef<std::path::Path>) -> Result<Self, SaveError> {
        let path = path.as_ref();
        let (temporary, file) = Temporary::beside(path)?;
        Ok(Self {
            writer: PackedWriter::new(file)?,
            temporary,
            path: path.to_owned(),
        })
    }

    /// Adds an entry to the metadata.
    ///
    /// # Errors
    /// Those of [`PackedWriter::metadata`].
    pub fn metadata(&mut self, key: &str, value: &str) -> Result<(), SaveError> {
        self.writer.metadata(key, value)
    }

    /// Writes a matrix, of any format. Ternary codes are stored five a byte.
    ///
    /// # Errors
    /// Those of [`PackedWriter::matrix`].
    pub fn matrix(&mut self, name: &str, matrix: &PackedMatrix) -> Result<(), SaveError> {
        self.writer.matrix(name, matrix)
    }

    /// Writes a tensor as it is.
    ///
    /// # Errors
    /// Those of [`PackedWriter::tensor`].
    pub fn tensor(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        bytes: &[u8],
    ) -> Result<(), SaveError> {
        self.writer.tensor(name, dtype, shape, bytes)
    }

    /// Writes the header and puts the file in its place. Without this there is no file.
    ///
    /// # Errors
    /// Those of [`PackedWriter::finish`], and [`SaveError::Replace`].
    pub fn finish(self) -> Result<(), SaveError> {
        let Self {
            writer,
            temporary,
            path,
        } = self;
        let file = writer.finish()?;
        file.sync_all()
            .map_err(|source| SaveError::Write { source })?;
        // Some systems do not rename open files.
        drop(file);
        temporary.rename(path)
    }
}

/// A file that is removed again, unless it is renamed.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
struct Temporary {
    path: std::path::PathBuf,
    renamed: bool,
}

#[cfg(not(target_arch = "wasm32"))]
impl Temporary {
    /// A new file in the directory of `target`.
    fn beside(target: &std::path::Path) -> Result<(Self, std::fs::File), SaveError> {
        /// How many names are tried.
        const ATTEMPTS: u32 = 100;
        let name = target.file_name().unwrap_or_default();
        let mut attempt = 0;
        loop {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.partial", std::process::id()));
            let path = target.with_file_name(hidden);
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            match file {
                Ok(file) => {
                    let renamed = false;
                    return Ok((Self { path, renamed }, file));
                }
                Err(source) => {
                    let taken = source.kind() == std::io::ErrorKind::AlreadyExists;
                    if !taken || attempt == ATTEMPTS {
                        return Err(SaveError::Create { path, source });
                    }
                    attempt += 1;
                }
            }
        }
    }

    fn rename(mut self, target: std::path::PathBuf) -> Result<(), SaveError> {
        match std::fs::rename(&self.path, &target) {
            Ok(()) => {
                self.renamed = true;
                Ok(())
            }
            Err(source) => Err(SaveError::Replace {
                path: target,
                source,
            }),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
