//! The generated block of constants and aliases that specialises a kernel.

use std::collections::BTreeSet;
use std::fmt;

use crate::error::LinkError;
use crate::tokens::is_identifier;

/// An ordered list of `const` and `alias` lines, the only WGSL that is generated.
///
/// Equal headers give equal text, so a header can be part of a pipeline's key.
///
/// ```
/// use anybit_shaders::Header;
///
/// let header = Header::new()
///     .constant_u32("TILE_M", 64)
///     .alias("acc_t", "i32");
/// assert_eq!(header.to_string(), "const TILE_M: u32 = 64u;\nalias acc_t = i32;\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    lines: Vec<(String, HeaderValue)>,
}

/// What a header line says of its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HeaderValue {
    U32(u32),
    I32(i32),
    /// The bits of an `f32`, so that headers can be compared and hashed.
    F32(u32),
    Bool(bool),
    Alias(String),
}

impl Header {
    /// A header without lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `const name: u32 = value;`.
    #[must_use]
    pub fn constant_u32(self, name: impl Into<String>, value: u32) -> Self {
        self.with(name, HeaderValue::U32(value))
    }

    /// Adds `const name: i32 = value;`.
    #[must_use]
    pub fn constant_i32(self, name: impl Into<String>, value: i32) -> Self {
        self.with(name, HeaderValue::I32(value))
    }

    /// Adds `const name: f32 = value;`, written so that it reads back to the same bits. A value that is not finite is
    /// refused when linking, since WGSL cannot write it.
    #[must_use]
    pub fn constant_f32(self, name: impl Into<String>, value: f32) -> Self {
        self.with(name, HeaderValue::F32(value.to_bits()))
    }

    /// Adds `const name: bool = value;`.
    #[must_use]
    pub fn constant_bool(self, name: impl Into<String>, value: bool) -> Self {
        self.with(name, HeaderValue::Bool(value))
    }

    /// Adds `alias name = target;`, where `target` is a WGSL type such as `i32` or `vec4<f16>`.
    #[must_use]
    pub fn alias(self, name: impl Into<String>, target: impl Into<String>) -> Self {
        self.with(name, HeaderValue::Alias(target.into()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a line has this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&HeaderValue> {
        self.lines
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    }

    fn with(mut self, name: impl Into<String>, value: HeaderValue) -> Self {
        self.lines.push((name.into(), value));
        self
    }

    /// Checks that every line is WGSL and that no name comes twice.
    pub(crate) fn check(&self) -> Result<(), LinkError> {
        let mut names = BTreeSet::new();
        for (name, value) in &self.lines {
            if !is_identifier(name) {
                return Err(LinkError::HeaderName { name: name.clone() });
            }
            if !names.insert(name) {
                return Err(LinkError::HeaderDuplicate { name: name.clone() });
            }
            let expected = match value {
                HeaderValue::F32(bits) if !f32::from_bits(*bits).is_finite() => "a finite number",
                HeaderValue::Alias(target) if !is_type(target) => "a WGSL type",
                _ => continue,
            };
            return Err(LinkError::HeaderValue {
                name: name.clone(),
                value: value.to_string(),
                expected,
            });
        }
        Ok(())
    }
}

/// Whether `text` can be a type on one line; what it names is for the shader compiler to judge.
fn is_type(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic())
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '<' | '>' | ',' | ' '))
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}u"),
            // The literal after the minus sign would not fit `i32`.
            Self::I32(i32::MIN) => write!(f, "i32({})", i32::MIN),
            Self::I32(value) => write!(f, "{value}i"),
            // `Debug` writes the shortest digits that read back to the same bits.
            Self::F32(bits) => write!(f, "{:?}f", f32::from_bits(*bits)),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Alias(target) => f.write_str(target),
        }
    }
}

/// The WGSL text, a line for each entry.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.lines {
            let scalar = match value {
                HeaderValue::U32(_) => "u32",
                HeaderValue::I32(_) => "i32",
                HeaderValue::F32(_) => "f32",
                HeaderValue::Bool(_) => "bool",
                HeaderValue::Alias(_) => {
                    writeln!(f, "alias {name} = {value};")?;
                    continue;
                }
            };
            writeln!(f, "const {name}: {scalar} = {value};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text() {
        let header = Header::new()
            .constant_u32("TILE", u32::MAX)
            .constant_i32("LOW", i32::MIN)
            .constant_i32("OFFSET", -8)
            .constant_f32("EPSILON", 1e-6)
            .constant_f32("ONE", 1.0)
            .constant_f32("ZERO", -0.0)
            .constant_bool("FLAG", true)
            .alias("lane_t", "vec4<f16>");
        assert_eq!(
            header.to_string(),
            "const TILE: u32 = 4294967295u;\n\
             const LOW: i32 = i32(-2147483648);\n\
             const OFFSET: i32 = -8i;\n\
             const EPSILON: f32 = 1e-6f;\n\
             const ONE: f32 = 1.0f;\n\
             const ZERO: f32 = -0.0f;\n\
             const FLAG: bool = true;\n\
             alias lane_t = vec4<f16>;\n"
        );
        assert_eq!(header.check(), Ok(()));
        assert!(header.contains("FLAG") && !header.contains("flag"));
    }

    #[test]
    fn bad_lines_are_refused() {
        let error = |header: Header| header.check().expect_err("is refused");
        assert!(matches!(
            error(Header::new().constant_u32("2x", 1)),
            LinkError::HeaderName { .. }
        ));
        assert!(matches!(
            error(Header::new().constant_u32("A", 1).alias("A", "i32")),
            LinkError::HeaderDuplicate { .. }
        ));
        assert!(matches!(
            error(Header::new().constant_f32("A", f32::NAN)),
            LinkError::HeaderValue { .. }
        ));
        assert!(matches!(
            error(Header::new().alias("a", "i32;\nfn f() {}")),
            LinkError::HeaderValue { .. }
        ));
    }
}
