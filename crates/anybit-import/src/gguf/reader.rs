//! Reading the fields of a header, each checked against what is left of the file before memory is taken for it.

use std::io::{BufReader, ErrorKind, Read};

use crate::ImportError;

/// A little-endian reader that knows how long its file is.
pub(super) struct FieldReader<R> {
    inner: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read> FieldReader<R> {
    /// Reads from `inner`, which stands at the start of a file of `length` bytes.
    pub(super) fn new(inner: R, length: u64) -> Self {
        Self {
            inner: BufReader::new(inner),
            position: 0,
            length,
        }
    }

    /// Offset of the next byte from the start of the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn available(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &'static str) -> Result<(), ImportError> {
        let needed = bytes.len() as u64;
        let available = self.available();
        let truncated = ImportError::Truncated {
            what,
            offset: self.position,
            needed,
            available,
        };
        if needed > available {
            return Err(truncated);
        }
        self.inner.read_exact(bytes).map_err(|source| {
            if source.kind() == ErrorKind::UnexpectedEof {
                truncated
            } else {
                ImportError::Read {
                    offset: self.position,
                    length: needed,
                    source,
                }
            }
        })?;
        self.position += needed;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], ImportError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, ImportError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, ImportError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, ImportError> {
        let offset = self.position;
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(ImportError::InvalidBool { offset, value }),
        }
    }

    /// A string of any length that the file can hold.
    pub(super) fn string(&mut self, what: &'static str) -> Result<String, ImportError> {
        let length = self.u64(what)?;
        self.text(length, what)
    }

    /// A string of 1 to `limit` bytes.
    pub(super) fn name(&mut self, limit: u64, what: &'static str) -> Result<String, ImportError> {
        let length = self.u64(what)?;
        if length == 0 || length > limit {
            return Err(ImportError::NameLength {
                what,
                offset: self.position,
                length,
                limit,
            });
        }
        self.text(length, what)
    }

    fn text(&mut self, length: u64, what: &'static str) -> Result<String, ImportError> {
        let offset = self.position;
        if length > self.available() {
            return Err(ImportError::Truncated {
                what,
                offset,
                needed: length,
                available: self.available(),
            });
        }
        let mut bytes = Vec::new();
        let count = reserve(&mut bytes, length, what)?;
        bytes.resize(count, 0);
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|error| ImportError::InvalidUtf8 {
            what,
            offset,
            source: error.utf8_error(),
        })
    }

    /// Checks that `count` things of at least `minimum` bytes each (not 0) can follow.
    pub(super) fn check_count(
        &self,
        count: u64,
        minimum: u64,
        what: &'static str,
    ) -> Result<(), ImportError> {
        let available = self.available();
        let limit = available / minimum;
        if count > limit {
            return Err(ImportError::CountTooLarge {
                what,
                count,
                limit,
                offset: self.position,
                available,
            });
        }
        Ok(())
    }

    /// `count` numbers of `N` bytes each.
    pub(super) fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        what: &'static str,
        decode: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, ImportError> {
        self.check_count(count, N as u64, what)?;
        let mut values = Vec::new();
        reserve(&mut values, count, what)?;
        for _ in 0..count {
            values.push(decode(self.array(what)?));
        }
        Ok(values)
    }
}

/// Takes memory for `count` more elements, which the caller has checked against the file's size, and gives the
/// count as an index.
pub(crate) fn reserve<T>(
    values: &mut Vec<T>,
    count: u64,
    what: &'static str,
) -> Result<usize, ImportError> {
    let out_of_memory = || ImportError::OutOfMemory {
        what,
        bytes: count.saturating_mul(size_of::<T>() as u64),
    };
    let count_here = usize::try_from(count).map_err(|_| out_of_memory())?;
    values
        .try_reserve_exact(count_here)
        .map_err(|_| out_of_memory())?;
    Ok(count_here)
}
