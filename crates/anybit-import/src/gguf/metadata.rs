use std::fmt;
use std::io::Read;

use super::reader::FieldReader;
use crate::ImportError;

/// Longest metadata key and tensor name, in bytes. GGUF sets this limit for keys. It allows names 64 bytes, which
/// not every writer heeds, so they are held to the limit of keys.
pub(super) const NAME_LIMIT: u64 = 65_535;

/// Deepest nesting of arrays: bounds the recursion. llama.cpp reads no nested arrays at all.
const DEPTH_LIMIT: u32 = 8;

/// Bytes of the smallest entry: length of the key, one byte of key, type, one byte of value.
const SMALLEST_ENTRY: u64 = 8 + 1 + 4 + 1;

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValueType {
    /// Unsigned integer of 8 bits.
    U8,
    /// Signed integer of 8 bits.
    I8,
    /// Unsigned integer of 16 bits.
    U16,
    /// Signed integer of 16 bits.
    I16,
    /// Unsigned integer of 32 bits.
    U32,
    /// Signed integer of 32 bits.
    I32,
    /// Floating point number of 32 bits.
    F32,
    /// Truth value.
    Bool,
    /// String, UTF-8.
    String,
    /// Array of values of one type.
    Array,
    /// Unsigned integer of 64 bits.
    U64,
    /// Signed integer of 64 bits.
    I64,
    /// Floating point number of 64 bits.
    F64,
}

impl ValueType {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "a string",
            Self::Array => "an array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned integer of 8 bits.
    U8(u8),
    /// Signed integer of 8 bits.
    I8(i8),
    /// Unsigned integer of 16 bits.
    U16(u16),
    /// Signed integer of 16 bits.
    I16(i16),
    /// Unsigned integer of 32 bits.
    U32(u32),
    /// Signed integer of 32 bits.
    I32(i32),
    /// Floating point number of 32 bits.
    F32(f32),
    /// Truth value.
    Bool(bool),
    /// String.
    String(String),
    /// Array.
    Array(Array),
    /// Unsigned integer of 64 bits.
    U64(u64),
    /// Signed integer of 64 bits.
    I64(i64),
    /// Floating point number of 64 bits.
    F64(f64),
}

impl Value {
    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            _ => return None,
        })
    }

    fn read<R: Read>(
        reader: &mut FieldReader<R>,
        value_type: ValueType,
        key: &str,
    ) -> Result<Self, ImportError> {
        const WHAT: &str = "a metadata value";
        Ok(match value_type {
            ValueType::U8 => Self::U8(u8::from_le_bytes(reader.array(WHAT)?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(reader.array(WHAT)?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(reader.array(WHAT)?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(reader.array(WHAT)?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(reader.array(WHAT)?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(reader.array(WHAT)?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(reader.array(WHAT)?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(reader.array(WHAT)?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(reader.array(WHAT)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(reader.array(WHAT)?)),
            ValueType::Bool => Self::Bool(reader.bool(WHAT)?),
            ValueType::String => Self::String(reader.string("a metadata string")?),
            ValueType::Array => Self::Array(Array::read(reader, key, 1)?),
        })
    }
}

/// A metadata array: values of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Unsigned integers of 8 bits.
    U8(Vec<u8>),
    /// Signed integers of 8 bits.
    I8(Vec<i8>),
    /// Unsigned integers of 16 bits.
    U16(Vec<u16>),
    /// Signed integers of 16 bits.
    I16(Vec<i16>),
    /// Unsigned integers of 32 bits.
    U32(Vec<u32>),
    /// Signed integers of 32 bits.
    I32(Vec<i32>),
    /// Floating point numbers of 32 bits.
    F32(Vec<f32>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Strings.
    String(Vec<String>),
    /// Arrays, each with its own element type.
    Array(Vec<Array>),
    /// Unsigned integers of 64 bits.
    U64(Vec<u64>),
    /// Signed integers of 64 bits.
    I64(Vec<i64>),
    /// Floating point numbers of 64 bits.
    F64(Vec<f64>),
}

impl Array {
    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(values) => values.len(),
            Self::Array(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read<R: Read>(
        reader: &mut FieldReader<R>,
        key: &str,
        depth: u32,
    ) -> Result<Self, ImportError> {
        const WHAT: &str = "elements of a metadata array";
        if depth > DEPTH_LIMIT {
            return Err(ImportError::ArrayTooDeep {
                key: shorten(key),
                limit: DEPTH_LIMIT,
            });
        }
        let element_type = read_type(reader, key)?;
        let count = reader.u64("the length of a metadata array")?;
        Ok(match element_type {
            ValueType::U8 => Self::U8(reader.numbers(count, WHAT, u8::from_le_bytes)?),
            ValueType::I8 => Self::I8(reader.numbers(count, WHAT, i8::from_le_bytes)?),
            ValueType::U16 => Self::U16(reader.numbers(count, WHAT, u16::from_le_bytes)?),
            ValueType::I16 => Self::I16(reader.numbers(count, WHAT, i16::from_le_bytes)?),
            ValueType::U32 => Self::U32(reader.numbers(count, WHAT, u32::from_le_bytes)?),
            ValueType::I32 => Self::I32(reader.numbers(count, WHAT, i32::from_le_bytes)?),
            ValueType::F32 => Self::F32(reader.numbers(count, WHAT, f32::from_le_bytes)?),
            ValueType::U64 => Self::U64(reader.numbers(count, WHAT, u64::from_le_bytes)?),
            ValueType::I64 => Self::I64(reader.numbers(count, WHAT, i64::from_le_bytes)?),
            ValueType::F64 => Self::F64(reader.numbers(count, WHAT, f64::from_le_bytes)?),
            // These grow as they are read: what they take in memory then follows what the file really holds, at
            // every depth, and not what it announces.
            ValueType::Bool => {
                reader.check_count(count, 1, WHAT)?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(reader.bool(WHAT)?);
                }
                Self::Bool(values)
            }
            ValueType::String => {
                reader.check_count(count, 8, WHAT)?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(reader.string("a string of a metadata array")?);
                }
                Self::String(values)
            }
            ValueType::Array => {
                reader.check_count(count, 4 + 8, WHAT)?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(Self::read(reader, key, depth + 1)?);
                }
                Self::Array(values)
            }
        })
    }
}

fn read_type<R: Read>(reader: &mut FieldReader<R>, key: &str) -> Result<ValueType, ImportError> {
    let id = reader.u32("a metadata value type")?;
    ValueType::from_id(id).ok_or_else(|| ImportError::UnknownValueType {
        key: shorten(key),
        id,
    })
}

/// A name as it goes into an error: keys may be 64 KiB long.
pub(crate) fn shorten(name: &str) -> String {
    const LIMIT: usize = 128;
    match name.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// Positions of things in the order of their names: finds one by name without holding the names twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex(Vec<usize>);

impl NameIndex {
    /// The index of `things`, or the first name that two of them have.
    pub(crate) fn new<T>(things: &[T], name: fn(&T) -> &str) -> Result<Self, &str> {
        let mut named: Vec<(usize, &T)> = things.iter().enumerate().collect();
        named.sort_by_key(|(_, thing)| name(thing));
        let mut pairs = named.iter().zip(named.iter().skip(1));
        match pairs.find(|((_, first), (_, second))| name(first) == name(second)) {
            Some(((_, thing), _)) => Err(name(thing)),
            None => Ok(Self(named.iter().map(|&(position, _)| position).collect())),
        }
    }

    /// The one of `things`, which the index was made from, that has the name `wanted`.
    pub(crate) fn find<'a, T>(
        &self,
        things: &'a [T],
        name: fn(&T) -> &str,
        wanted: &str,
    ) -> Option<&'a T> {
        things.get(self.position(things, name, wanted)?)
    }

    /// The position of that one.
    pub(crate) fn position<T>(
        &self,
        things: &[T],
        name: fn(&T) -> &str,
        wanted: &str,
    ) -> Option<usize> {
        let found = self
            .0
            .binary_search_by_key(&Some(wanted), |&position| things.get(position).map(name))
            .ok()?;
        self.0.get(found).copied()
    }
}

/// The metadata of a file: keys with typed values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: NameIndex,
}

impl Metadata {
    pub(super) fn read<R: Read>(
        reader: &mut FieldReader<R>,
        count: u64,
    ) -> Result<Self, ImportError> {
        reader.check_count(count, SMALLEST_ENTRY, "metadata entries")?;
        let mut entries: Vec<(String, Value)> = Vec::new();
        for _ in 0..count {
            let key = reader.name(NAME_LIMIT, "a metadata key")?;
            let value_type = read_type(reader, &key)?;
            let value = Value::read(reader, value_type, &key)?;
            entries.push((key, value));
        }
        let index = NameIndex::new(&entries, |(key, _)| key)
            .map_err(|key| ImportError::DuplicateKey { key: shorten(key) })?;
        Ok(Self { entries, index })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, as the file holds it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index
            .find(&self.entries, |(key, _)| key, key)
            .map(|(_, value)| value)
    }

    /// The value of a key as `T`, or `None` if the file has no such key: for keys with a default.
    ///
    /// `T` is `u32`, `u64`, `i64`, `f32`, `f64`, `bool`, `&str`, `&Array` or `&[String]`. Integers of any width in the
    /// file are accepted for any integer `T` that holds them; f32 for `f64`; nothing else is converted.
    ///
    /// # Errors
    /// [`ImportError::WrongValueType`] and [`ImportError::ValueOutOfRange`] if the value is there but is no `T`.
    pub fn optional<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, ImportError> {
        self.get(key)
            .map(|value| T::from_value(value, key))
            .transpose()
    }

    /// The value of a key as `T`; see [`optional`](Self::optional) for what `T` can be.
    ///
    /// # Errors
    /// As [`optional`](Self::optional), and [`ImportError::MissingKey`].
    pub fn required<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, ImportError> {
        self.optional(key)?
            .ok_or_else(|| ImportError::MissingKey { key: shorten(key) })
    }

    /// The integer under `key`, of whatever width in the file.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_u32(&self, key: &str) -> Result<u32, ImportError> {
        self.required(key)
    }

    /// The integer under `key`, of whatever width in the file.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_u64(&self, key: &str) -> Result<u64, ImportError> {
        self.required(key)
    }

    /// The f32 under `key`.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_f32(&self, key: &str) -> Result<f32, ImportError> {
        self.required(key)
    }

    /// The truth value under `key`.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_bool(&self, key: &str) -> Result<bool, ImportError> {
        self.required(key)
    }

    /// The string under `key`.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_str(&self, key: &str) -> Result<&str, ImportError> {
        self.required(key)
    }

    /// The array under `key`, of whatever element type.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_array(&self, key: &str) -> Result<&Array, ImportError> {
        self.required(key)
    }

    /// The array of strings under `key`, such as a vocabulary.
    ///
    /// # Errors
    /// As [`required`](Self::required).
    pub fn get_strings(&self, key: &str) -> Result<&[String], ImportError> {
        self.required(key)
    }
}

/// Types that a metadata value can be asked for as; see [`Metadata::optional`]. Not to be implemented elsewhere.
pub trait FromValue<'a>: Sized + sealed::Sealed {
    /// `value`, which is that of `key`, as `Self`.
    #[doc(hidden)]
    fn from_value(value: &'a Value, key: &str) -> Result<Self, ImportError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for i64 {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for bool {}
    impl Sealed for &str {}
    impl Sealed for &super::Array {}
    impl Sealed for &[String] {}
}

fn wrong_type(value: &Value, key: &str, expected: &'static str) -> ImportError {
    ImportError::WrongValueType {
        key: shorten(key),
        expected,
        found: value.value_type(),
    }
}

macro_rules! integer_from_value {
    ($($type:ty),*) => {$(
        impl FromValue<'_> for $type {
            fn from_value(value: &Value, key: &str) -> Result<Self, ImportError> {
                let integer = value
                    .integer()
                    .ok_or_else(|| wrong_type(value, key, "an integer"))?;
                integer.try_into().map_err(|_| ImportError::ValueOutOfRange {
                    key: shorten(key),
                    value: integer,
                    expected: stringify!($type),
                })
            }
        }
    )*};
}
integer_from_value!(u32, u64, i64);

macro_rules! variant_from_value {
    ($lifetime:lifetime; $($type:ty, $expected:literal: $($pattern:pat => $result:expr),+;)*) => {$(
        impl<$lifetime> FromValue<$lifetime> for $type {
            fn from_value(value: &$lifetime Value, key: &str) -> Result<Self, ImportError> {
                match value {
                    $($pattern => Ok($result),)+
                    _ => Err(wrong_type(value, key, $expected)),
                }
            }
        }
    )*};
}
variant_from_value! {
    'a;
    f32, "f32": Value::F32(number) => *number;
    f64, "f64": Value::F64(number) => *number, Value::F32(number) => f64::from(*number);
    bool, "bool": Value::Bool(truth) => *truth;
    &'a str, "a string": Value::String(text) => text;
    &'a Array, "an array": Value::Array(array) => array;
    &'a [String], "an array of strings": Value::Array(Array::String(strings)) => strings;
}
