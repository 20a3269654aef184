//! The header of a safetensors file: eight bytes of length, then a JSON object of tensors and metadata.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::ImportError;
use crate::gguf::{NameIndex, reserve, shorten};

/// The longest header that is read, as in the `safetensors` library.
pub(super) const HEADER_LIMIT: u64 = 100_000_000;

/// Most dimensions of a tensor that are read.
const DIMENSION_LIMIT: usize = 8;

/// Bytes before the header: its length.
pub(super) const LENGTH_BYTES: u64 = 8;

/// The key of the metadata among the tensors.
pub(super) const METADATA_KEY: &str = "__metadata__";

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $text:literal $bits:literal;)*) => {
        /// The type of a tensor's elements, as safetensors defines it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Dtype {
            $($(#[$doc])* $name,)*
        }

        impl Dtype {
            /// The name in safetensors files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Bits of an element: 4 to 64.
            pub const fn bits(self) -> u32 {
                match self {
                    $(Self::$name => $bits,)*
                }
            }

            fn named(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

dtypes! {
    /// Truth values, a byte each.
    Bool = "BOOL" 8;
    /// E2M1 numbers, two a byte.
    F4 = "F4" 4;
    /// E2M3 numbers of 6 bits.
    F6E2m3 = "F6_E2M3" 6;
    /// E3M2 numbers of 6 bits.
    F6E3m2 = "F6_E3M2" 6;
    /// Unsigned bytes.
    U8 = "U8" 8;
    /// Signed bytes.
    I8 = "I8" 8;
    /// E5M2 numbers.
    F8E5m2 = "F8_E5M2" 8;
    /// E4M3 numbers without infinities.
    F8E4m3 = "F8_E4M3" 8;
    /// Powers of two.
    F8E8m0 = "F8_E8M0" 8;
    /// E4M3 numbers without infinities and −0, of another bias.
    F8E4m3Fnuz = "F8_E4M3FNUZ" 8;
    /// E5M2 numbers without infinities and −0, of another bias.
    F8E5m2Fnuz = "F8_E5M2FNUZ" 8;
    /// Signed 16-bit integers.
    I16 = "I16" 16;
    /// Unsigned 16-bit integers.
    U16 = "U16" 16;
    /// IEEE 754 binary16.
    F16 = "F16" 16;
    /// bfloat16.
    Bf16 = "BF16" 16;
    /// Signed 32-bit integers.
    I32 = "I32" 32;
    /// Unsigned 32-bit integers.
    U32 = "U32" 32;
    /// IEEE 754 binary32.
    F32 = "F32" 32;
    /// Complex numbers of two binary32.
    C64 = "C64" 64;
    /// IEEE 754 binary64.
    F64 = "F64" 64;
    /// Signed 64-bit integers.
    I64 = "I64" 64;
    /// Unsigned 64-bit integers.
    U64 = "U64" 64;
}

impl Dtype {
    /// Bytes that a tensor of this shape takes; `None` if that overflows or its elements do not fill whole bytes.
    pub fn byte_size(self, shape: &[u64]) -> Option<u64> {
        // With a zero there are no elements, wherever it stands among dimensions that would overflow.
        if shape.contains(&0) {
            return Some(0);
        }
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &dimension| product.checked_mul(dimension))?;
        let bits = elements.checked_mul(u64::from(self.bits()))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A tensor of a file: its name, shape, type and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    begin: u64,
    byte_size: u64,
    file: usize,
}

impl TensorInfo {
    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions, outermost first: elements along the last are adjacent. None means a single element.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Bytes that the tensor takes.
    pub fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// Which of the model's files has the tensor, from 0; 0 where there is one file.
    pub fn file(&self) -> usize {
        self.file
    }

    /// Where the tensor begins, in bytes from the start of its file's tensor data.
    pub fn offset(&self) -> u64 {
        self.begin
    }

    /// How many elements there are. No overflow: they lie within the file.
    pub fn elements(&self) -> u64 {
        if self.shape.contains(&0) {
            0
        } else {
            self.shape.iter().product()
        }
    }
}

/// What the header of one file says.
pub(super) struct Header {
    pub(super) metadata: Vec<(String, String)>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Where the tensor data begins, in bytes from the start of the file.
    pub(super) data_start: u64,
}

impl Header {
    /// Reads and checks the header of file `file` of a model, which `source` holds from its position 0 on.
    pub(super) fn read<R: Read + Seek>(source: &mut R, file: usize) -> Result<Self, ImportError> {
        let reading = |length, source| ImportError::Read {
            offset: 0,
            length,
            source,
        };
        let length = source
            .seek(SeekFrom::End(0))
            .and_then(|length| source.rewind().map(|()| length))
            .map_err(|source| reading(0, source))?;
        let truncated = |what, offset, needed| ImportError::Truncated {
            what,
            offset,
            needed,
            available: length.saturating_sub(offset),
        };
        if length < LENGTH_BYTES {
            return Err(truncated("the length of the header", 0, LENGTH_BYTES));
        }
        let mut bytes = [0; LENGTH_BYTES as usize];
        source
            .read_exact(&mut bytes)
            .map_err(|source| reading(LENGTH_BYTES, source))?;
        let header_length = u64::from_le_bytes(bytes);
        let available = length - LENGTH_BYTES;
        // What is no safetensors file mostly has a huge length here, and no brace.
        let mut first = [0];
        if available > 0 {
            source
                .read_exact(&mut first)
                .map_err(|source| reading(LENGTH_BYTES + 1, source))?;
            if first[0] != b'{' {
                return Err(ImportError::NotSafetensors { found: first[0] });
            }
        }
        if header_length > HEADER_LIMIT {
            return Err(ImportError::TooLong {
                what: "the header",
                length: header_length,
                limit: HEADER_LIMIT,
            });
        }
        if header_length > available || header_length == 0 {
            return Err(truncated("the header", LENGTH_BYTES, header_length.max(1)));
        }
        let mut text = Vec::new();
        let count = reserve(&mut text, header_length, "the header")?;
        text.push(first[0]);
        text.resize(count, 0);
        source
            .read_exact(text.get_mut(1..).unwrap_or_default())
            .map_err(|source| reading(LENGTH_BYTES + header_length, source))?;

        let Entries { metadata, tensors } =
            serde_json::from_slice(&text).map_err(|source| ImportError::InvalidJson {
                what: "the header",
                source: source.into(),
            })?;
        drop(text);
        NameIndex::new(&metadata, |(key, _)| key.as_str())
            .map_err(|key| ImportError::DuplicateKey { key: shorten(key) })?;
        let data_length = available - header_length;
        let mut infos = Vec::new();
        reserve(&mut infos, tensors.len() as u64, "the list of tensors")?;
        for (name, entry) in tensors {
            infos.push(entry.check(name, data_length, file)?);
        }
        check_places(&infos, data_length)?;
        Ok(Self {
            metadata,
            tensors: infos,
            data_start: LENGTH_BYTES + header_length,
        })
    }
}

/// Checks that no two tensors overlap, and that they fill the `length` bytes of tensor data.
fn check_places(tensors: &[TensorInfo], length: u64) -> Result<(), ImportError> {
    let mut places: Vec<&TensorInfo> = tensors.iter().collect();
    places.sort_by_key(|info| (info.begin, info.byte_size));
    let (mut end, mut last) = (0, None);
    for info in places {
        if info.begin < end {
            return Err(ImportError::OverlappingTensors {
                first: shorten(last.map_or("", TensorInfo::name)),
                second: shorten(&info.name),
                end,
                start: info.begin,
            });
        }
        if info.begin > end {
            return Err(ImportError::Hole {
                begin: end,
                end: info.begin,
            });
        }
        // Both lie within the file.
        end = info.begin + info.byte_size;
        last = Some(info);
    }
    if end < length {
        return Err(ImportError::Hole {
            begin: end,
            end: length,
        });
    }
    Ok(())
}

/// The JSON object: tensors in its order. Names may still be double.
struct Entries {
    metadata: Vec<(String, String)>,
    tensors: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut metadata, mut tensors) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA_KEY {
                        tensors.push((name, map.next_value()?));
                    } else if metadata.is_some() {
                        return Err(A::Error::duplicate_field(METADATA_KEY));
                    } else {
                        let Strings(strings) = map.next_value()?;
                        metadata = Some(strings);
                    }
                }
                Ok(Entries {
                    metadata: metadata.unwrap_or_default(),
                    tensors,
                })
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// An object of strings, in its order. Keys may be double.
struct Strings(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringsVisitor;

        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut strings = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    strings.push(entry);
                }
                Ok(Strings(strings))
            }
        }

        deserializer.deserialize_map(StringsVisitor)
    }
}

/// A tensor as the header has it.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entry {
    fn check(self, name: String, data_length: u64, file: usize) -> Result<TensorInfo, ImportError> {
        let Self {
            dtype,
            shape: Shape(shape),
            data_offsets: (begin, end),
        } = self;
        let Some(dtype) = Dtype::named(&dtype) else {
            return Err(ImportError::UnknownDtype {
                tensor: shorten(&name),
                dtype: shorten(&dtype),
            });
        };
        let expected = dtype.byte_size(&shape);
        match end.checked_sub(begin) {
            Some(size) if Some(size) == expected => {
                if end > data_length {
                    return Err(ImportError::TensorOutOfFile {
                        tensor: shorten(&name),
                        offset: begin,
                        size,
                        available: data_length,
                    });
                }
                Ok(TensorInfo {
                    name,
                    dtype,
                    shape,
                    begin,
                    byte_size: size,
                    file,
                })
            }
            _ => Err(ImportError::TensorSize {
                tensor: shorten(&name),
                dtype,
                shape,
                expected,
                begin,
                end,
            }),
        }
    }
}

/// Dimensions, not too many.
pub(super) struct Shape(pub(super) Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;

        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {DIMENSION_LIMIT} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = sequence.next_element()? {
                    if shape.len() == DIMENSION_LIMIT {
                        return Err(A::Error::invalid_length(DIMENSION_LIMIT + 1, &self));
                    }
                    shape.push(dimension);
                }
                Ok(Shape(shape))
            }
        }

        deserializer.deserialize_seq(ShapeVisitor)
    }
}
