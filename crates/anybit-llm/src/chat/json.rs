//! JSON as Python's `json.dumps` writes it: a space behind commas and colons, and only what must be escaped.

use std::io::{self, Write};

use minijinja::{Error, ErrorKind, Value};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The most that is written, in bytes: values that hold themselves often over are small in memory alone.
const LIMIT: usize = 1 << 24;

/// The widest indentation.
const INDENT_LIMIT: usize = 16;

/// The filter `tojson`.
pub(super) fn filter(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut output = Bounded(Vec::new());
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut output,
            Spaced,
        )),
        Some(width) if width <= INDENT_LIMIT => {
            let spaces = " ".repeat(width);
            let style = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut output,
                style,
            ))
        }
        Some(width) => {
            return Err(failure(format!(
                "an indentation of {width} is more than {INDENT_LIMIT}"
            )));
        }
    };
    written.map_err(|error| failure(error.to_string()))?;
    String::from_utf8(output.0).map_err(|error| failure(error.to_string()))
}

fn failure(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {why}"))
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Refuses more than [`LIMIT`] bytes.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > LIMIT - self.0.len() {
            return Err(io::Error::other(format!(
                "the text would have more than {LIMIT} bytes"
            )));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
