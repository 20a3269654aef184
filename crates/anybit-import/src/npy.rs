//! Arrays in NumPy's file format, .npy: f32, f64 or f16 in C order.
//!
//! [`NpyArray`] reads versions 1 to 3 of the format, values of either byte order, and gives f32: f16 exactly, f64 rounded.
//! [`write()`] writes version 1, as NumPy does.
//!
//! # Files from strangers
//!
//! As of model files ([`gguf`](crate::gguf)): the header is read only as far as the file goes, and nothing is reserved for
//! the values before their number is compared with the length of the file. Their f32 take twice the length of a file of
//! f16, the same of f32 and half of f64, and reading takes 256 KiB besides. The header is a Python dict, of which only what
//! NumPy writes for a plain array is understood. The crates for the format hand it to a parser of all Python literals, whose
//! time doubles with every nested bracket of a hostile file.
//!
//! ```
//! use anybit_import::npy::{self, NpyArray};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut file = Vec::new();
//! npy::write(&mut file, &[2, 3], &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5])?;
//! let array = NpyArray::from_bytes(&file)?;
//! assert_eq!(array.matrix_shape()?, (2, 3));
//! assert_eq!(array.values[5], 2.5);
//! # Ok(())
//! # }
//! ```

use std::io::{self, Read, Write};
#[cfg(not(target_arch = "wasm32"))]
use std::path::{Path, PathBuf};

use half::f16;

use crate::error::printable;
use crate::gguf::shorten;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Headers of plain arrays have some 100 bytes; NumPy itself refuses more than 10000.
const HEADER_LIMIT: u64 = 10_000;

/// Most axes of an array; NumPy 2 has no more.
const AXES_LIMIT: usize = 64;

/// Values converted at a time.
const CHUNK: usize = 16_384;

/// An array of f32 in C order: the last axis runs fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// The lengths of the axes; none of a single value.
    pub shape: Vec<usize>,
    /// The values, as many as the product of the lengths.
    pub values: Vec<f32>,
}

impl NpyArray {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`NpyError::Open`], and whatever is wrong with the file.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NpyError> {
        let path = path.as_ref();
        let opened = std::fs::File::open(path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        let (file, length) = opened.map_err(|source| NpyError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::from_reader(file, length)
    }

    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NpyError> {
        Self::from_reader(bytes, bytes.len() as u64)
    }

    /// Rows and columns of an array of two axes that is not empty.
    ///
    /// # Errors
    /// [`NpyError::Empty`], and [`NpyError::Shape`] for another number of axes.
    pub fn matrix_shape(&self) -> Result<(usize, usize), NpyError> {
        match self.shape[..] {
            [0, _] | [_, 0] => Err(NpyError::Empty {
                shape: self.shape.clone(),
            }),
            [rows, columns] => Ok((rows, columns)),
            _ => Err(NpyError::Shape {
                expected: "a matrix, an array of two axes",
                found: self.shape.clone(),
            }),
        }
    }

    /// Rows and columns of an array of any axes that is not empty: the last axis makes the rows.
    ///
    /// # Errors
    /// [`NpyError::Empty`], and [`NpyError::Shape`] for an array without axes.
    pub fn rows_shape(&self) -> Result<(usize, usize), NpyError> {
        match self.shape.split_last() {
            None => Err(NpyError::Shape {
                expected: "an array of one axis or more",
                found: self.shape.clone(),
            }),
            Some(_) if self.values.is_empty() => Err(NpyError::Empty {
                shape: self.shape.clone(),
            }),
            Some((&columns, _)) => Ok((self.values.len() / columns, columns)),
        }
    }
}

/// Why an array could not be read.
///
/// Texts that come from the file are escaped in the messages and bounded in length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file could not be opened.
    #[cfg(not(target_arch = "wasm32"))]
    #[error("cannot open {path:?}; check that it exists, is a file and may be read")]
    Open {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not begin as .npy files do.
    #[error("expected a .npy file, found one that does not begin with \\x93NUMPY")]
    Magic,
    /// The file has a version that is not read.
    #[error("expected version 1, 2 or 3 of .npy, found {major}.{minor}")]
    Version {
        /// The version's first number.
        major: u8,
        /// Its second number.
        minor: u8,
    },
    /// The file ends before its header does.
    #[error("expected a header of {expected} bytes, found the end of the file after {found}")]
    HeaderLength {
        /// The length announced, in bytes.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The header is longer than that of any plain array.
    #[error("expected a header of at most {HEADER_LIMIT} bytes, found one of {length}")]
    HeaderSize {
        /// Its length in bytes.
        length: u64,
    },
    /// The header is not what NumPy writes.
    #[error("expected {expected} in the header, found {found}")]
    Header {
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// The header lacks an entry.
    #[error("the header has no entry '{key}'")]
    Missing {
        /// The entry's key.
        key: &'static str,
    },
    /// The values have a type that is not read.
    #[error(
        "expected values of the type f32 ('<f4'; f64 and f16 are converted), found '{found}'; convert with .astype(numpy.float32)"
    )]
    Type {
        /// NumPy's name of the type, or the beginning of a list of fields.
        found: String,
    },
    /// The first axis runs fastest.
    #[error(
        "expected an array in C order, found Fortran order; convert with numpy.ascontiguousarray"
    )]
    FortranOrder,
    /// The shape has more elements than an index can count.
    #[error("the shape {shape:?} has more elements than can be addressed")]
    Overflow {
        /// The shape.
        shape: Vec<u64>,
    },
    /// The file does not end where the values should.
    #[error("expected {expected} bytes of values for the shape {shape:?}, found {found}")]
    Length {
        /// The shape.
        shape: Vec<u64>,
        /// Bytes that it takes.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Memory for the values could not be had.
    #[error("no memory for the {elements} values of the array")]
    OutOfMemory {
        /// How many there are.
        elements: u64,
    },
    /// The array has another number of axes than is wanted.
    #[error("expected {expected}, found the shape {found:?}")]
    Shape {
        /// What is wanted.
        expected: &'static str,
        /// The array's shape.
        found: Vec<usize>,
    },
    /// The array has no elements.
    #[error("the array is empty: its shape is {shape:?}")]
    Empty {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The system failed to read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Characters of the longest text of a file that a message quotes.
const LONGEST_TEXT: usize = 128;

/// How a value is stored.
#[derive(Clone, Copy)]
enum Stored {
    F16,
    F32,
    F64,
}

impl Stored {
    const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// A value of so many bytes, rounded to f32.
    fn decode(self, bytes: &[u8], big_endian: bool) -> f32 {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        if big_endian {
            word[..self.bytes()].reverse();
        }
        let word = u64::from_le_bytes(word);
        match self {
            Self::F16 => f16::from_bits(word as u16).to_f32(),
            Self::F32 => f32::from_bits(word as u32),
            Self::F64 => f64::from_bits(word) as f32,
        }
    }
}

impl NpyArray {
    /// Reads a file of `length` bytes in all.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn from_reader(mut reader: impl Read, length: u64) -> Result<Self, NpyError> {
        let mut left = length;
        let preamble: [u8; 8] = take(&mut reader, &mut left).map_err(|error| match error {
            NpyError::HeaderLength { .. } => NpyError::Magic,
            other => other,
        })?;
        let [magic @ .., major, minor] = preamble;
        if magic != *MAGIC {
            return Err(NpyError::Magic);
        }
        let header_length = match (major, minor) {
            (1, 0) => u64::from(u16::from_le_bytes(take(&mut reader, &mut left)?)),
            (2 | 3, 0) => u64::from(u32::from_le_bytes(take(&mut reader, &mut left)?)),
            _ => return Err(NpyError::Version { major, minor }),
        };
        if header_length > left {
            return Err(NpyError::HeaderLength {
                expected: header_length,
                found: left,
            });
        }
        if header_length > HEADER_LIMIT {
            return Err(NpyError::HeaderSize {
                length: header_length,
            });
        }
        let mut header = vec![0; header_length as usize];
        reader.read_exact(&mut header)?;
        left -= header_length;
        let header = Header::parse(&header)?;
        let (stored, big_endian) = stored_type(&header.descr)?;
        if header.fortran_order {
            return Err(NpyError::FortranOrder);
        }

        let overflow = || NpyError::Overflow {
            shape: header.shape.clone(),
        };
        // With a zero there are no elements, whatever the other axes have.
        let elements = if header.shape.contains(&0) {
            0
        } else {
            header
                .shape
                .iter()
                .try_fold(1_u64, |product, &axis| product.checked_mul(axis))
                .ok_or_else(overflow)?
        };
        let expected = elements
            .checked_mul(stored.bytes() as u64)
            .ok_or_else(overflow)?;
        if expected != left {
            return Err(NpyError::Length {
                shape: header.shape,
                expected,
                found: left,
            });
        }
        let shape = header
            .shape
            .iter()
            .map(|&axis| usize::try_from(axis))
            .collect::<Result<_, _>>()
            .map_err(|_| overflow())?;
        let mut remaining = usize::try_from(elements).map_err(|_| overflow())?;
        let mut values = Vec::new();
        values
            .try_reserve_exact(remaining)
            .map_err(|_| NpyError::OutOfMemory { elements })?;
        let mut buffer = vec![0; stored.bytes() * CHUNK.min(remaining)];
        while remaining > 0 {
            let count = CHUNK.min(remaining);
            let chunk = &mut buffer[..stored.bytes() * count];
            reader.read_exact(chunk)?;
            values.extend(
                chunk
                    .chunks_exact(stored.bytes())
                    .map(|bytes| stored.decode(bytes, big_endian)),
            );
            remaining -= count;
        }
        Ok(Self { shape, values })
    }
}

fn take<const N: usize>(reader: &mut impl Read, left: &mut u64) -> Result<[u8; N], NpyError> {
    let mut bytes = [0; N];
    if *left < N as u64 {
        return Err(NpyError::HeaderLength {
            expected: N as u64,
            found: *left,
        });
    }
    reader.read_exact(&mut bytes)?;
    *left -= N as u64;
    Ok(bytes)
}

/// The type behind a NumPy type string, and whether its bytes are in big-endian order.
fn stored_type(descr: &str) -> Result<(Stored, bool), NpyError> {
    let unknown = || NpyError::Type {
        found: printable(descr, LONGEST_TEXT),
    };
    let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
    let big_endian = match order {
        "<" => false,
        ">" => true,
        "=" => cfg!(target_endian = "big"),
        _ => return Err(unknown()),
    };
    match kind {
        "f2" => Ok((Stored::F16, big_endian)),
        "f4" => Ok((Stored::F32, big_endian)),
        "f8" => Ok((Stored::F64, big_endian)),
        _ => Err(unknown()),
    }
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, the entries in any order.
    fn parse(text: &[u8]) -> Result<Self, NpyError> {
        let mut cursor = Cursor { text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        cursor.expect(b'{', "'{'")?;
        while !cursor.accept(b'}') {
            let key = cursor.string("a key")?;
            cursor.expect(b':', "':'")?;
            match key {
                "descr" => descr = Some(cursor.descr()?),
                "fortran_order" => fortran_order = Some(cursor.boolean()?),
                "shape" => shape = Some(cursor.shape()?),
                _ => {
                    return Err(NpyError::Header {
                        expected: "descr, fortran_order and shape",
                        found: format!("the key {:?}", shorten(key)),
                    });
                }
            }
            if !cursor.accept(b',') {
                cursor.expect(b'}', "',' or '}'")?;
                break;
            }
        }
        cursor.end()?;
        Ok(Self {
            descr: descr.ok_or(NpyError::Missing { key: "descr" })?,
            fortran_order: fortran_order.ok_or(NpyError::Missing {
                key: "fortran_order",
            })?,
            shape: shape.ok_or(NpyError::Missing { key: "shape" })?,
        })
    }
}

/// What is left of a header.
struct Cursor<'a> {
    text: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn wrong(&self, expected: &'static str) -> NpyError {
        let found = match self.text {
            [] => "the end of the header".to_owned(),
            text => {
                let start = &text[..text.len().min(20)];
                format!("{:?}", String::from_utf8_lossy(start))
            }
        };
        NpyError::Header { expected, found }
    }

    fn skip_space(&mut self) {
        self.text = self.text.trim_ascii_start();
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        match self.text.split_first() {
            Some((first, rest)) if *first == byte => {
                self.text = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), NpyError> {
        if self.accept(byte) {
            Ok(())
        } else {
            Err(self.wrong(name))
        }
    }

    /// A string in quotes, without escapes.
    fn string(&mut self, what: &'static str) -> Result<&'a str, NpyError> {
        self.skip_space();
        let quoted = match self.text.split_first() {
            Some((quote @ (b'\'' | b'"'), rest)) => rest
                .iter()
                .position(|byte| byte == quote)
                .map(|end| (&rest[..end], &rest[end + 1..])),
            _ => None,
        };
        let string = quoted.and_then(|(string, rest)| {
            let string = std::str::from_utf8(string).ok()?;
            (!string.contains('\\')).then_some((string, rest))
        });
        let (string, rest) = string.ok_or_else(|| self.wrong(what))?;
        self.text = rest;
        Ok(string)
    }

    /// A type string; of structured arrays, the beginning of their list of fields.
    fn descr(&mut self) -> Result<String, NpyError> {
        self.skip_space();
        if self.text.first() == Some(&b'[') {
            let start = &self.text[..self.text.len().min(40)];
            return Err(NpyError::Type {
                found: printable(&String::from_utf8_lossy(start), LONGEST_TEXT),
            });
        }
        Ok(self.string("a type")?.to_owned())
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.skip_space();
        for (name, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.text.strip_prefix(name.as_bytes()) {
                self.text = rest;
                return Ok(value);
            }
        }
        Err(self.wrong("True or False"))
    }

    fn shape(&mut self) -> Result<Vec<u64>, NpyError> {
        self.expect(b'(', "'('")?;
        let mut shape = Vec::new();
        while !self.accept(b')') {
            if shape.len() == AXES_LIMIT {
                return Err(self.wrong("a shape of at most 64 axes"));
            }
            shape.push(self.integer()?);
            if !self.accept(b',') {
                self.expect(b')', "',' or ')'")?;
                break;
            }
        }
        Ok(shape)
    }

    fn integer(&mut self) -> Result<u64, NpyError> {
        self.skip_space();
        let digits = self.text.iter().take_while(|byte| byte.is_ascii_digit());
        let (digits, rest) = self.text.split_at(digits.count());
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| self.wrong("the length of an axis"))?;
        // Python 2 marks long integers.
        self.text = rest.strip_prefix(b"L").unwrap_or(rest);
        Ok(number)
    }

    fn end(&mut self) -> Result<(), NpyError> {
        self.skip_space();
        if self.text.is_empty() {
            Ok(())
        } else {
            Err(self.wrong("the end of the header"))
        }
    }
}

/// Writes an array of f32 as NumPy does: version 1, little-endian, C order.
///
/// # Errors
/// Those of the writer, and one for more axes than a header of version 1 can list.
pub fn write(writer: &mut dyn Write, shape: &[usize], values: &[f32]) -> io::Result<()> {
    write_header(writer, shape)?;
    write_values(writer, values)
}

/// Writes what stands before the values of such an array.
///
/// # Errors
/// As [`write()`].
pub fn write_header(writer: &mut dyn Write, shape: &[usize]) -> io::Result<()> {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let axes = match &axes[..] {
        [axis] => format!("{axis},"),
        axes => axes.join(", "),
    };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // The values begin at a multiple of 64 bytes, after 10 bytes, the header and a line feed.
    let padding = (10 + header.len() + 1).next_multiple_of(64) - (10 + header.len() + 1);
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let length = u16::try_from(header.len())
        .map_err(|_| io::Error::other("the array has too many axes for .npy version 1"))?;
    writer.write_all(MAGIC)?;
    writer.write_all(&[1, 0])?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(header.as_bytes())
}

/// Writes values of such an array, in any number of parts.
///
/// # Errors
/// Those of the writer.
pub fn write_values(writer: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    for chunk in values.chunks(CHUNK) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<NpyArray, NpyError> {
        NpyArray::from_bytes(bytes)
    }

    #[test]
    fn axes_are_bounded_and_so_are_messages() {
        let shape = |axes: usize| {
            let shape = "1,".repeat(axes);
            let header =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
            read_bytes(&file(1, &header, &[0; 8]))
        };
        let error = shape(64).unwrap_err();
        assert!(
            matches!(&error, NpyError::Length { shape, .. } if shape.len() == 64),
            "{error}"
        );
        let error = shape(4000).unwrap_err();
        assert!(matches!(error, NpyError::Header { .. }), "{error:.200}");
        assert!(error.to_string().len() < 1000, "{error:.200}");
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![2, 3], vec![6], vec![1, 2, 3], vec![], vec![0, 5]] {
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|i| i as f32 - 2.5)
                .collect();
            let mut bytes = Vec::new();
            write(&mut bytes, &shape, &values).unwrap();
            assert_eq!((bytes.len() - 4 * values.len()) % 64, 0);
            assert_eq!(read_bytes(&bytes).unwrap(), NpyArray { shape, values });
        }
    }

    #[test]
    fn types_and_byte_orders() {
        let header = |descr: &str| {
            format!("{{\"shape\": (2,), 'descr': '{descr}' , 'fortran_order':False}}  \n")
        };
        let value = |descr: &str, data: &[u8]| {
            read_bytes(&file(2, &header(descr), data)).map(|array| array.values)
        };
        let pair = |bytes: &[u8]| [bytes, bytes].concat();
        for (descr, data) in [
            ("<f4", pair(&1.5_f32.to_le_bytes())),
            (">f4", pair(&1.5_f32.to_be_bytes())),
            ("<f8", pair(&1.5_f64.to_le_bytes())),
            (">f8", pair(&1.5_f64.to_be_bytes())),
            ("<f2", pair(&f16::from_f32(1.5).to_le_bytes())),
            (">f2", pair(&f16::from_f32(1.5).to_be_bytes())),
        ] {
            assert_eq!(value(descr, &data).unwrap(), [1.5, 1.5], "{descr}");
        }
        for descr in ["<i4", "|u1", "<c8", "f4", "", "<f16", "|O", "é"] {
            let error = value(descr, &[0; 8]).unwrap_err();
            assert!(
                matches!(&error, NpyError::Type { found } if found == descr),
                "{error}"
            );
        }
    }

    #[test]
    fn texts_of_the_file_are_bounded_and_escaped_in_messages() {
        let long = "x".repeat(9_000);
        for text in ["\u{1b}[31m\u{7}", &long] {
            for header in [
                format!("{{'descr': '{text}', 'fortran_order': False, 'shape': ()}}"),
                format!("{{'descr': [('{text}', '<f4')], 'shape': ()}}"),
                format!("{{'{text}': 1}}"),
                text.to_owned(),
            ] {
                let message = read_bytes(&file(1, &header, &[])).unwrap_err().to_string();
                assert!(!message.chars().any(char::is_control), "{message:?}");
                assert!(message.len() < 1000, "{message}");
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[2, 3], &[1.0; 6]).unwrap();
        for length in 0..bytes.len() {
            assert!(read_bytes(&bytes[..length]).is_err(), "{length}");
        }
        bytes.push(0);
        assert!(matches!(
            read_bytes(&bytes),
            Err(NpyError::Length {
                expected: 24,
                found: 25,
                ..
            })
        ));
    }

    #[test]
    fn every_changed_byte_is_refused_or_read_without_a_panic() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[2, 3], &[1.0; 6]).unwrap();
        for place in 0..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[place] = byte;
                if let Ok(array) = read_bytes(&changed) {
                    assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
                }
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused_at_once() {
        let of_shape = |shape: &str| {
            file(
                1,
                &format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"),
                &[0; 24],
            )
        };
        for shape in [
            "(18446744073709551615, 18446744073709551615)",
            "(4611686018427387904,)",
            "(4611686018427387905,)",
            "(99999999999999999999999,)",
            "(-1, 6)",
            "(2, 3",
            "2, 3)",
            "(2 3)",
            "(2., 3)",
            "None",
        ] {
            assert!(read_bytes(&of_shape(shape)).is_err(), "{shape}");
        }
        assert!(read_bytes(&of_shape("(2L, 3L)")).is_ok());
        let nested = "[".repeat(60_000);
        for header in [
            "",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x",
            "{'descr': '<f4\\'', 'fortran_order': False, 'shape': (2, 3)}",
            "{'descr': '<f4",
            &nested,
            &nested[..5000],
        ] {
            let bytes = file(2, header, &[0; 24]);
            let error = read_bytes(&bytes).unwrap_err();
            assert!(!matches!(error, NpyError::Read(_)), "{error}");
        }
        // A header of 4 GiB, in a file of a few bytes.
        let mut bytes = MAGIC.to_vec();
        bytes.extend([2, 0, 255, 255, 255, 255, b'{']);
        assert!(matches!(
            read_bytes(&bytes),
            Err(NpyError::HeaderLength {
                expected: 0xffff_ffff,
                found: 1
            })
        ));
        assert!(matches!(
            read_bytes(&file(4, "{}", &[])),
            Err(NpyError::Version { major: 4, minor: 0 })
        ));
        let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}";
        assert!(matches!(
            read_bytes(&file(1, fortran, &[0; 24])),
            Err(NpyError::FortranOrder)
        ));
    }
}
