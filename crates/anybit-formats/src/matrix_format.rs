//! How the numbers of a matrix are stored and scaled.

use std::fmt;
use std::str::FromStr;

use crate::{ElementFormat, FloatFormat, FormatError};

/// How many elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// The whole matrix.
    Tensor,
    /// A row: an output channel of weights, a token of activations.
    Row,
    /// So many consecutive columns of a row: 16 or a positive multiple of 32.
    Group(u32),
}

/// The stored type of scales and minima.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
}

impl ScaleType {
    /// Bits a scale takes: 32 or 16.
    pub const fn bits(self) -> u32 {
        self.float().bits()
    }

    /// `value` as stored: rounded to nearest, ties to even; infinite where it is too large.
    pub fn round(self, value: f32) -> f32 {
        self.float().decode(self.float().encode(value))
    }

    pub(crate) const fn float(self) -> FloatFormat {
        match self {
            Self::F32 => FloatFormat::F32,
            Self::F16 => FloatFormat::F16,
        }
    }
}

/// What moves the zero of a scaled format. `s` is the scale; a, b and u as in
/// [`AffineFormat`](crate::AffineFormat).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZeroKind {
    /// value = s·(a·u + b).
    None,
    /// value = s·(a·u + b − z), z from 0 to 255, one for each scale.
    Integer,
    /// value = s·(a·u + b) + m, m a float of the scale's type, one for each scale.
    Minimum,
}

/// How a matrix is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScaleLayout {
    /// How many elements share a scale.
    pub granularity: Granularity,
    /// The stored type of scales and minima.
    pub scale: ScaleType,
    /// What moves the zero.
    pub zero: ZeroKind,
}

/// The format of a matrix: its elements and its scales.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the name that kernel ids carry: the element's
/// [code](ElementFormat::code_name), then, when scaled, nothing for one scale a tensor, `r` for one
/// a row or `g32` for one every 32 columns, then `f` or `h` for f32 or f16 scales, then `z` for
/// integer zero points or `m` for minima. `i8rf`, `i4g32h`, `u4g32hm`, `u4g128fz`, `tf`; without
/// scales `i4` (bare codes), `f16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixFormat {
    element: ElementFormat,
    scales: Option<ScaleLayout>,
}

impl MatrixFormat {
    /// 32-bit floats.
    pub const F32: Self = Self {
        element: ElementFormat::F32,
        scales: None,
    };
    /// 16-bit IEEE floats.
    pub const F16: Self = Self {
        element: ElementFormat::F16,
        scales: None,
    };
    /// bfloat16.
    pub const BF16: Self = Self {
        element: ElementFormat::BF16,
        scales: None,
    };

    /// A format of such elements, scaled so. Without scales, integer codes stand for their bare
    /// values.
    ///
    /// # Errors
    ///
    /// [`FormatError::ScaledFloat`] for a float with scales; [`FormatError::GroupSize`] unless the
    /// group has 16 columns or a positive multiple of 32.
    pub const fn new(
        element: ElementFormat,
        scales: Option<ScaleLayout>,
    ) -> Result<Self, FormatError> {
        if let Some(layout) = scales {
            if let ElementFormat::Float(_) = element {
                return Err(FormatError::ScaledFloat { element });
            }
            if let Granularity::Group(group) = layout.granularity {
                if group != 16 && (group == 0 || group % 32 != 0) {
                    return Err(FormatError::GroupSize { group });
                }
            }
        }
        Ok(Self { element, scales })
    }

    const fn scaled(
        element: ElementFormat,
        granularity: Granularity,
        scale: ScaleType,
        zero: ZeroKind,
    ) -> Self {
        Self {
            element,
            scales: Some(ScaleLayout {
                granularity,
                scale,
                zero,
            }),
        }
    }

    /// What one number is.
    pub const fn element(&self) -> ElementFormat {
        self.element
    }

    /// How the numbers are scaled; `None` for floats and bare codes.
    pub const fn scales(&self) -> Option<ScaleLayout> {
        self.scales
    }

    /// The kind of zero; [`ZeroKind::None`] without scales.
    pub const fn zero_kind(&self) -> ZeroKind {
        match self.scales {
            Some(layout) => layout.zero,
            None => ZeroKind::None,
        }
    }

    /// The usual format of weights: one f16 scale per 32 columns; floats as they are.
    pub const fn weight_default(element: ElementFormat) -> Self {
        match element {
            ElementFormat::Float(_) => Self {
                element,
                scales: None,
            },
            ElementFormat::Affine(_) => Self::scaled(
                element,
                Granularity::Group(32),
                ScaleType::F16,
                ZeroKind::None,
            ),
        }
    }

    /// The usual format of activations: one f32 scale a row; floats as they are.
    pub const fn activation_default(element: ElementFormat) -> Self {
        match element {
            ElementFormat::Float(_) => Self {
                element,
                scales: None,
            },
            ElementFormat::Affine(_) => {
                Self::scaled(element, Granularity::Row, ScaleType::F32, ZeroKind::None)
            }
        }
    }

    /// The format with a name of [`NAMED_FORMATS`], such as `q4_0`.
    pub fn named(name: &str) -> Option<Self> {
        NAMED_FORMATS
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.format)
    }

    /// Columns that share a scale: the group's, or all of `columns`.
    pub const fn group_len(&self, columns: usize) -> usize {
        match self.scales {
            Some(ScaleLayout {
                granularity: Granularity::Group(group),
                ..
            }) => group as usize,
            _ => columns,
        }
    }

    /// Groups a row: 1 unless scales are grouped. Counts a last, shorter group, though matrices
    /// that have one are refused.
    pub const fn groups(&self, columns: usize) -> usize {
        match self.scales {
            Some(ScaleLayout {
                granularity: Granularity::Group(group),
                ..
            }) => columns.div_ceil(group as usize),
            _ => 1,
        }
    }

    /// Scales of a matrix: none without scales, 1 for a tensor scale, else rows times
    /// [`groups`](Self::groups).
    pub const fn scale_count(&self, rows: usize, columns: usize) -> usize {
        match self.scales {
            None => 0,
            Some(ScaleLayout {
                granularity: Granularity::Tensor,
                ..
            }) => 1,
            Some(_) => rows.saturating_mul(self.groups(columns)),
        }
    }

    /// Checks that a matrix of this shape can have this format.
    ///
    /// # Errors
    ///
    /// [`FormatError::GroupDoesNotDivide`] if the columns do not make whole groups;
    /// [`FormatError::TooLarge`] if the shape has more rows or columns than 2³² − 1 or more
    /// elements than memory could hold.
    pub fn check_shape(&self, rows: usize, columns: usize) -> Result<(), FormatError> {
        if let Some(ScaleLayout {
            granularity: Granularity::Group(group),
            ..
        }) = self.scales
        {
            if !columns.is_multiple_of(group as usize) {
                return Err(FormatError::GroupDoesNotDivide { columns, group });
            }
        }
        let too_large = |what| FormatError::TooLarge {
            rows,
            columns,
            what,
        };
        if u32::try_from(rows).is_err() || u32::try_from(columns).is_err() {
            return Err(too_large("a 32-bit index"));
        }
        // 4 bytes for each element of rows padded to whole blocks bounds every array kept for the
        // matrix.
        columns
            .checked_add(31)
            .and_then(|padded| padded.checked_mul(rows))
            .and_then(|elements| elements.checked_mul(4))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| too_large("the number of elements"))?;
        Ok(())
    }

    /// Row and group of the scale at `index` of the row-major scale array.
    pub(crate) const fn scale_position(&self, index: usize, columns: usize) -> (usize, usize) {
        match self.groups(columns) {
            0 => (0, 0),
            groups => (index / groups, index % groups),
        }
    }
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.element.code_name())?;
        let Some(layout) = self.scales else {
            return Ok(());
        };
        match layout.granularity {
            Granularity::Tensor => {}
            Granularity::Row => formatter.write_str("r")?,
            Granularity::Group(group) => write!(formatter, "g{group}")?,
        }
        formatter.write_str(match layout.scale {
            ScaleType::F32 => "f",
            ScaleType::F16 => "h",
        })?;
        formatter.write_str(match layout.zero {
            ZeroKind::None => "",
            ZeroKind::Integer => "z",
            ZeroKind::Minimum => "m",
        })
    }
}

impl FromStr for MatrixFormat {
    type Err = FormatError;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(name: &str) -> Result<Self, FormatError> {
        let unknown = || FormatError::UnknownMatrixFormat {
            name: name.to_owned(),
        };
        let (element, rest) = ElementFormat::split_code_name(name).ok_or_else(unknown)?;
        if rest.is_empty() {
            return Self::new(element, None);
        }
        let (granularity, rest) = if let Some(rest) = rest.strip_prefix('r') {
            (Granularity::Row, rest)
        } else if let Some(rest) = rest.strip_prefix('g') {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, rest) = rest.split_at(digits);
            if digits.starts_with('0') {
                return Err(unknown());
            }
            (
                Granularity::Group(digits.parse().map_err(|_| unknown())?),
                rest,
            )
        } else {
            (Granularity::Tensor, rest)
        };
        let (scale, rest) = if let Some(rest) = rest.strip_prefix('f') {
            (ScaleType::F32, rest)
        } else if let Some(rest) = rest.strip_prefix('h') {
            (ScaleType::F16, rest)
        } else {
            return Err(unknown());
        };
        let zero = match rest {
            "" => ZeroKind::None,
            "z" => ZeroKind::Integer,
            "m" => ZeroKind::Minimum,
            _ => return Err(unknown()),
        };
        Self::new(
            element,
            Some(ScaleLayout {
                granularity,
                scale,
                zero,
            }),
        )
    }
}

/// A row of [`NAMED_FORMATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedFormat {
    /// The name.
    pub name: &'static str,
    /// The format it stands for.
    pub format: MatrixFormat,
    /// Where the format is defined.
    pub source: &'static str,
}

impl NamedFormat {
    const fn gguf(name: &'static str, element: ElementFormat, zero: ZeroKind) -> Self {
        let format = MatrixFormat::scaled(element, Granularity::Group(32), ScaleType::F16, zero);
        Self {
            name,
            format,
            source: "ggml block formats (GGUF)",
        }
    }
}

/// Formats that other projects have named. The blocks are taken apart: codes, scales and minima are
/// separate.
pub const NAMED_FORMATS: &[NamedFormat] = &[
    NamedFormat::gguf("q4_0", ElementFormat::INT4, ZeroKind::None),
    NamedFormat::gguf("q4_1", ElementFormat::UINT4, ZeroKind::Minimum),
    NamedFormat::gguf("q5_0", ElementFormat::INT5, ZeroKind::None),
    NamedFormat::gguf("q5_1", ElementFormat::UINT5, ZeroKind::Minimum),
    NamedFormat::gguf("q8_0", ElementFormat::INT8, ZeroKind::None),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FORMATS;

    #[test]
    fn every_format_reads_back() {
        let granularities = [
            Granularity::Tensor,
            Granularity::Row,
            Granularity::Group(16),
            Granularity::Group(32),
            Granularity::Group(4096),
        ];
        for row in FORMATS {
            let bare = MatrixFormat::new(row.element, None).unwrap();
            assert_eq!(bare.to_string().parse(), Ok(bare));
            if row.element.affine().is_none() {
                continue;
            }
            for granularity in granularities {
                for scale in [ScaleType::F32, ScaleType::F16] {
                    for zero in [ZeroKind::None, ZeroKind::Integer, ZeroKind::Minimum] {
                        let layout = ScaleLayout {
                            granularity,
                            scale,
                            zero,
                        };
                        let format = MatrixFormat::new(row.element, Some(layout)).unwrap();
                        assert_eq!(format.to_string().parse(), Ok(format), "{format}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_as_in_kernel_ids() {
        for name in [
            "i4", "i4f", "i8rf", "i4g32h", "u4g32hm", "u4g128fz", "tf", "b1rh", "f32", "f16",
            "bf16",
        ] {
            assert_eq!(name.parse::<MatrixFormat>().unwrap().to_string(), name);
        }
        for (name, id) in [
            ("q4_0", "i4g32h"),
            ("q4_1", "u4g32hm"),
            ("q5_0", "i5g32h"),
            ("q5_1", "u5g32hm"),
            ("q8_0", "i8g32h"),
        ] {
            assert_eq!(MatrixFormat::named(name).unwrap().to_string(), id);
        }
        assert_eq!(MatrixFormat::named("q6_k"), None);
        assert_eq!(
            MatrixFormat::weight_default(ElementFormat::TERNARY).to_string(),
            "tg32h"
        );
        assert_eq!(
            MatrixFormat::activation_default(ElementFormat::INT8).to_string(),
            "i8rf"
        );
        assert_eq!(
            MatrixFormat::activation_default(ElementFormat::F16),
            MatrixFormat::F16
        );
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [
            "",
            "i",
            "i9",
            "i4r",
            "i4g",
            "i4g32",
            "i4gf",
            "i4g032h",
            "i4g+32h",
            "i4fx",
            "i4fzm",
            "x4",
            "i4z",
            "i4g99999999999h",
            "f64",
            "é",
        ] {
            let error = name.parse::<MatrixFormat>();
            assert_eq!(
                error,
                Err(FormatError::UnknownMatrixFormat {
                    name: name.to_owned()
                })
            );
        }
        assert_eq!(
            "i4g33h".parse::<MatrixFormat>(),
            Err(FormatError::GroupSize { group: 33 })
        );
        assert_eq!(
            "f16rf".parse::<MatrixFormat>(),
            Err(FormatError::ScaledFloat {
                element: ElementFormat::F16
            })
        );
    }

    #[test]
    fn group_sizes() {
        let with_group = |group| {
            let layout = ScaleLayout {
                granularity: Granularity::Group(group),
                scale: ScaleType::F32,
                zero: ZeroKind::None,
            };
            MatrixFormat::new(ElementFormat::INT4, Some(layout))
        };
        for group in [16, 32, 64, 96, 1 << 31] {
            assert!(with_group(group).is_ok());
        }
        for group in [0, 1, 8, 15, 17, 31, 33, 48, 80] {
            assert_eq!(with_group(group), Err(FormatError::GroupSize { group }));
        }
        let format = with_group(32).unwrap();
        assert_eq!(
            format.check_shape(3, 33),
            Err(FormatError::GroupDoesNotDivide {
                columns: 33,
                group: 32
            })
        );
        assert_eq!(format.check_shape(3, 0), Ok(()));
        assert_eq!(
            (
                format.groups(576),
                format.group_len(576),
                format.scale_count(4, 576)
            ),
            (18, 32, 72)
        );
        let row = MatrixFormat::activation_default(ElementFormat::INT8);
        assert_eq!(
            (row.groups(576), row.group_len(576), row.scale_count(4, 576)),
            (1, 576, 4)
        );
        assert_eq!(
            "i8f".parse::<MatrixFormat>().unwrap().scale_count(4, 576),
            1
        );
        assert_eq!(MatrixFormat::F32.scale_count(4, 576), 0);
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        for (rows, columns) in [
            (usize::MAX, 1),
            (1, usize::MAX),
            (u32::MAX as usize, u32::MAX as usize),
        ] {
            assert!(matches!(
                MatrixFormat::F32.check_shape(rows, columns),
                Err(FormatError::TooLarge { .. })
            ));
        }
    }
}
