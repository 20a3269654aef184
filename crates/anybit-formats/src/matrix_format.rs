//! How the numbers of a matrix are stored and scaled.

use std::fmt;
use std::str::FromStr;

use crate::element::similar;
use crate::format::codebook::user_names;
use crate::format::scale_codes::{E8M0_NAN, e8m0_decode, e8m0_encode};
use crate::{
    ElementFormat, FORMATS, FloatFormat, FormatError, MinifloatFormat, Overflow, Rounding,
    ScaleRule,
};

/// Columns that share an entry of the second level of [`ScaleType::Super`].
const SUPER_GROUP: u32 = 256;

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
///
/// The scale of a type with a [second level](Self::second) is the product of both levels, rounded
/// to f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// A power of two, 2^(code − 127), in 8 bits; the code 255 is NaN and refused. The scale of the
    /// MX formats (OCP Microscaling 1.0). Code 0 is subnormal in f32, so that devices may take it
    /// for 0.
    E8m0,
    /// An [`E4M3`](MinifloatFormat::E4M3) a scale, times one f32 a matrix. The scale of NVFP4.
    E4m3,
    /// A signed 8-bit integer a scale, times one f32 a row. The scale of BitMoD.
    Int8,
    /// A signed 8-bit integer a scale, times one f16 every 256 columns of a row. The scale of
    /// ggml's K-quants, which use all of −128 to 127.
    Super,
}

/// What a second level of scales is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecondLevel {
    /// How many elements share an entry of the second level.
    pub granularity: Granularity,
    /// The stored type of the entries.
    pub float: FloatFormat,
}

impl ScaleType {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::F32,
        Self::F16,
        Self::E8m0,
        Self::E4m3,
        Self::Int8,
        Self::Super,
    ];

    /// Bits a scale takes, without its second level: 32, 16 or 8.
    pub const fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::F16 => 16,
            Self::E8m0 | Self::E4m3 | Self::Int8 | Self::Super => 8,
        }
    }

    /// The type's letter in names of matrix formats.
    pub const fn letter(self) -> char {
        match self {
            Self::F32 => 'f',
            Self::F16 => 'h',
            Self::E8m0 => 'e',
            Self::E4m3 => 'k',
            Self::Int8 => 'q',
            Self::Super => 's',
        }
    }

    /// The name: `f32`, `f16`, `e8m0`, `e4m3`, `int8`, `super`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::E8m0 => "e8m0",
            Self::E4m3 => "e4m3",
            Self::Int8 => "int8",
            Self::Super => "super",
        }
    }

    /// The second level, if the type has one.
    pub const fn second(self) -> Option<SecondLevel> {
        let (granularity, float) = match self {
            Self::F32 | Self::F16 | Self::E8m0 => return None,
            Self::E4m3 => (Granularity::Tensor, FloatFormat::F32),
            Self::Int8 => (Granularity::Row, FloatFormat::F32),
            Self::Super => (Granularity::Group(SUPER_GROUP), FloatFormat::F16),
        };
        Some(SecondLevel { granularity, float })
    }

    /// The stored bits of a first-level scale: rounded to nearest, ties to even. Infinite or NaN
    /// where the type cannot hold it, but the nearest integer where the type has integers; a power of
    /// two, where the type has no other values, is the nearest, ties to the even exponent.
    pub fn encode(self, value: f32) -> u32 {
        match self {
            Self::F32 => FloatFormat::F32.encode(value),
            Self::F16 => FloatFormat::F16.encode(value),
            Self::E8m0 if value >= 0.0 && value.is_finite() => {
                u32::from(e8m0_encode(value, ScaleRule::Nearest))
            }
            Self::E8m0 => u32::from(E8M0_NAN),
            Self::E4m3 => u32::from(MinifloatFormat::E4M3.encode(
                value,
                Rounding::NearestEven,
                Overflow::Special,
                0,
            )),
            Self::Int8 | Self::Super => u32::from(value.round_ties_even() as i8 as u8),
        }
    }

    /// The first-level scale that stored bits stand for, exactly.
    pub fn decode(self, bits: u32) -> f32 {
        match self {
            Self::F32 => FloatFormat::F32.decode(bits),
            Self::F16 => FloatFormat::F16.decode(bits),
            Self::E8m0 => e8m0_decode(bits as u8),
            Self::E4m3 => MinifloatFormat::E4M3.decode(bits as u8),
            Self::Int8 | Self::Super => f32::from(bits as u8 as i8),
        }
    }

    /// A first-level scale as stored; infinite or NaN where the type cannot hold it.
    pub fn round(self, value: f32) -> f32 {
        // Two's complement has no code for NaN.
        let fits = match self {
            Self::Int8 | Self::Super => (-128.0..=127.0).contains(&value.round_ties_even()),
            _ => true,
        };
        if fits {
            self.decode(self.encode(value))
        } else {
            f32::NAN
        }
    }
}

impl fmt::Display for ScaleType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for ScaleType {
    type Err = FormatError;

    /// Reads a [name](Self::name).
    fn from_str(name: &str) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|scale| scale.name() == name)
            .ok_or_else(|| FormatError::UnknownScaleType {
                name: name.to_owned(),
            })
    }
}

/// What moves the zero of a scaled format. `s` is the scale; a, b and u as in
/// [`AffineFormat`](crate::AffineFormat).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZeroKind {
    /// value = s·(a·u + b).
    None,
    /// value = s·(a·u + b − z), z from 0 to 255, one for each scale. For integer codes.
    Integer,
    /// value = s·(a·u + b) + m, m a float of the scale's type, one for each scale. With
    /// [`ScaleType::Super`], m has two levels too. For integer codes.
    Minimum,
    /// value = s·t, where one code's t depends on the group: which of a codebook's
    /// [choices](crate::Choice) it is, 0 to 3, one for each scale.
    Choice,
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
/// a row or `g32` for one every 32 columns, then the [letter](ScaleType::letter) of the scale type,
/// then `z` for integer zero points, `m` for minima or `c` for choices. `i8rf`, `i4g32h`,
/// `u4g32hm`, `u4g128fz`, `tf`, `e2m1g32e`, `bitmod4g128qc`; without scales `i4` (bare codes),
/// `f16`.
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

    /// A format of such elements, scaled so. Without scales, codes stand for their bare values.
    ///
    /// # Errors
    ///
    /// [`FormatError::ScaledFloat`] for a float with scales; [`FormatError::GroupSize`] unless the
    /// group has 16 columns or a positive multiple of 32; [`FormatError::ZeroOfElement`] for zero
    /// points or minima of other elements than integers, and unless a codebook with choices, and
    /// nothing else, has them; [`FormatError::SecondLevel`] for scales of two levels that are not
    /// grouped, minima with [`ScaleType::E8m0`], [`ScaleType::E4m3`] or [`ScaleType::Int8`], and
    /// groups that do not divide 256 with [`ScaleType::Super`].
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
            let fits = match layout.zero {
                ZeroKind::None => !element.has_choices(),
                ZeroKind::Choice => element.has_choices(),
                ZeroKind::Integer | ZeroKind::Minimum => element.affine().is_some(),
            };
            if !fits {
                return Err(FormatError::ZeroOfElement {
                    element,
                    zero: layout.zero,
                });
            }
            let fits = match (layout.scale, layout.granularity) {
                (ScaleType::F32 | ScaleType::F16, _) => true,
                (ScaleType::E8m0, _) => !matches!(layout.zero, ZeroKind::Minimum),
                (ScaleType::E4m3 | ScaleType::Int8, Granularity::Group(_)) => {
                    !matches!(layout.zero, ZeroKind::Minimum)
                }
                (ScaleType::Super, Granularity::Group(group)) => SUPER_GROUP.is_multiple_of(group),
                _ => false,
            };
            if !fits {
                return Err(FormatError::SecondLevel { element, layout });
            }
        } else if element.has_choices() {
            return Err(FormatError::ZeroOfElement {
                element,
                zero: ZeroKind::None,
            });
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

    /// The usual format of weights: one f16 scale per 32 columns; floats as they are; codebooks with
    /// choices as BitMoD has them, 8-bit scales per 128 columns.
    pub const fn weight_default(element: ElementFormat) -> Self {
        match element {
            ElementFormat::Float(_) => Self {
                element,
                scales: None,
            },
            _ if element.has_choices() => Self::scaled(
                element,
                Granularity::Group(128),
                ScaleType::Int8,
                ZeroKind::Choice,
            ),
            _ => Self::scaled(
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
            _ => {
                let zero = if element.has_choices() {
                    ZeroKind::Choice
                } else {
                    ZeroKind::None
                };
                Self::scaled(element, Granularity::Row, ScaleType::F32, zero)
            }
        }
    }

    /// The format of weights that a name stands for: an element format or a [user's
    /// codebook](crate::CodebookFormat::user) as [`weight_default`](Self::weight_default) has it
    /// (`int4`, `nf4`), a format of [`NAMED_FORMATS`] (`q4_0`, `mxfp4`), or what
    /// [`Display`](fmt::Display) writes (`i4g32h`), in this order.
    ///
    /// `e4m3` is thus E4M3 with scales. Its bare codes are [`new`](Self::new) without scales.
    ///
    /// # Errors
    ///
    /// [`FormatError::UnknownName`] with the nearest names; [`FormatError::UnknownMatrixFormat`] for
    /// what begins as the name of a matrix format and does not go on as one; those of
    /// [`new`](Self::new).
    pub fn parse_weight(name: &str) -> Result<Self, FormatError> {
        Self::parse_as(name, Self::weight_default)
    }

    /// As [`parse_weight`](Self::parse_weight), of activations: an element format is taken as
    /// [`activation_default`](Self::activation_default) has it.
    ///
    /// # Errors
    ///
    /// Those of [`parse_weight`](Self::parse_weight).
    pub fn parse_activation(name: &str) -> Result<Self, FormatError> {
        Self::parse_as(name, Self::activation_default)
    }

    fn parse_as(name: &str, default: fn(ElementFormat) -> Self) -> Result<Self, FormatError> {
        if let Ok(element) = name.parse() {
            return Ok(default(element));
        }
        if let Some(format) = Self::named(name) {
            return Ok(format);
        }
        name.parse().map_err(|error| {
            let begins_with_a_code = ElementFormat::split_code_name(name).next().is_some();
            let FormatError::UnknownMatrixFormat { .. } = error else {
                return error;
            };
            let names = FORMATS
                .iter()
                .map(|row| row.name)
                .chain(NAMED_FORMATS.iter().map(|row| row.name))
                .chain(user_names());
            let similar = similar(name, names);
            if similar.is_empty() && begins_with_a_code {
                return error;
            }
            FormatError::UnknownName {
                name: name.to_owned(),
                similar,
            }
        })
    }

    /// The same format where its groups divide `columns`; else with the largest group that does, of
    /// the halves down to 16 columns; else with a scale a row, in f32 where the type of the scales
    /// needs groups.
    #[must_use]
    pub const fn with_dividing_groups(self, columns: usize) -> Self {
        let Some(mut layout) = self.scales else {
            return self;
        };
        let Granularity::Group(mut group) = layout.granularity else {
            return self;
        };
        // Of 96 columns the half is 48, which no group may have.
        while !columns.is_multiple_of(group as usize) || (group != 16 && group % 32 != 0) {
            group /= 2;
            if group < 16 {
                layout.granularity = Granularity::Row;
                if layout.scale.second().is_some() {
                    layout.scale = ScaleType::F32;
                }
                return Self {
                    element: self.element,
                    scales: Some(layout),
                };
            }
        }
        layout.granularity = Granularity::Group(group);
        Self {
            element: self.element,
            scales: Some(layout),
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

    /// The second level of the scales, if they have one.
    pub const fn second(&self) -> Option<SecondLevel> {
        match self.scales {
            Some(layout) => layout.scale.second(),
            None => None,
        }
    }

    /// Entries of the second level a row: 0 without one, or where one entry serves the matrix.
    pub const fn second_groups(&self, columns: usize) -> usize {
        match self.second() {
            None => 0,
            Some(second) => match second.granularity {
                Granularity::Tensor => 0,
                Granularity::Row => 1,
                Granularity::Group(group) => columns.div_ceil(group as usize),
            },
        }
    }

    /// Entries of the second level of a matrix; 0 without one.
    pub const fn second_count(&self, rows: usize, columns: usize) -> usize {
        match self.second() {
            None => 0,
            Some(SecondLevel {
                granularity: Granularity::Tensor,
                ..
            }) => 1,
            Some(_) => rows.saturating_mul(self.second_groups(columns)),
        }
    }

    /// Bits of a matrix with its scales and zeros, for each element: 4.5 of `i4g32h`; 0 without
    /// elements. [`PackedMatrix::bits_per_element`](crate::PackedMatrix::bits_per_element) counts
    /// the padding of rows too.
    pub fn bits_per_element(&self, rows: usize, columns: usize) -> f64 {
        let elements = rows as f64 * columns as f64;
        if elements == 0.0 {
            return 0.0;
        }
        let mut bits = f64::from(self.element.bits()) * elements;
        if let Some(layout) = self.scales {
            let (zero_bits, second_levels) = match layout.zero {
                ZeroKind::None => (0, 1.0),
                ZeroKind::Integer | ZeroKind::Choice => (8, 1.0),
                ZeroKind::Minimum => (layout.scale.bits(), 2.0),
            };
            bits +=
                f64::from(layout.scale.bits() + zero_bits) * self.scale_count(rows, columns) as f64;
            if let Some(second) = layout.scale.second() {
                bits += second_levels
                    * f64::from(second.float.bits())
                    * self.second_count(rows, columns) as f64;
            }
        }
        bits / elements
    }

    /// Index in the row-major second level of the entry that serves the scale at `index`.
    pub(crate) const fn second_index(&self, index: usize, columns: usize) -> usize {
        let (row, group) = self.scale_position(index, columns);
        match self.second_groups(columns) {
            0 => 0,
            1 => row,
            groups => row * groups + group * self.group_len(columns) / SUPER_GROUP as usize,
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
        write!(formatter, "{}", layout.scale.letter())?;
        formatter.write_str(match layout.zero {
            ZeroKind::None => "",
            ZeroKind::Integer => "z",
            ZeroKind::Minimum => "m",
            ZeroKind::Choice => "c",
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
        // The longest code name that leaves a readable rest: e4m3f is E4M3 with an f32 scale, while
        // e4m3finite is an element of its own.
        ElementFormat::split_code_name(name)
            .find_map(|(element, rest)| {
                Self::scales_from_str(rest).map(|scales| Self::new(element, scales))
            })
            .unwrap_or_else(|| Err(unknown()))
    }
}

impl MatrixFormat {
    /// Reads the part of a name after the element's code; `None` if it is not one.
    fn scales_from_str(rest: &str) -> Option<Option<ScaleLayout>> {
        if rest.is_empty() {
            return Some(None);
        }
        let (granularity, rest) = if let Some(rest) = rest.strip_prefix('r') {
            (Granularity::Row, rest)
        } else if let Some(rest) = rest.strip_prefix('g') {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, rest) = rest.split_at(digits);
            if digits.starts_with('0') {
                return None;
            }
            (Granularity::Group(digits.parse().ok()?), rest)
        } else {
            (Granularity::Tensor, rest)
        };
        let (scale, rest) = ScaleType::ALL
            .iter()
            .find_map(|&scale| Some((scale, rest.strip_prefix(scale.letter())?)))?;
        let zero = match rest {
            "" => ZeroKind::None,
            "z" => ZeroKind::Integer,
            "m" => ZeroKind::Minimum,
            "c" => ZeroKind::Choice,
            _ => return None,
        };
        Some(Some(ScaleLayout {
            granularity,
            scale,
            zero,
        }))
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
    const fn new(
        name: &'static str,
        element: ElementFormat,
        group: u32,
        scale: ScaleType,
        zero: ZeroKind,
        source: &'static str,
    ) -> Self {
        Self {
            name,
            format: MatrixFormat::scaled(element, Granularity::Group(group), scale, zero),
            source,
        }
    }

    const fn ggml(
        name: &'static str,
        element: ElementFormat,
        group: u32,
        scale: ScaleType,
        zero: ZeroKind,
    ) -> Self {
        Self::new(
            name,
            element,
            group,
            scale,
            zero,
            "ggml block formats (GGUF)",
        )
    }

    const fn mx(name: &'static str, element: ElementFormat) -> Self {
        const MX: &str = "OCP Microscaling Formats (MX) 1.0";
        Self::new(name, element, 32, ScaleType::E8m0, ZeroKind::None, MX)
    }
}

/// Formats that standards and other projects have named. The blocks are taken apart: codes, scales
/// and minima are separate.
///
/// The elements of `mxint8` are integers times 2⁻⁶ in the standard; here they are the integers, and
/// the 2⁻⁶ is part of the scale, so a scale's code is the standard's less 6.
pub const NAMED_FORMATS: &[NamedFormat] = {
    use ElementFormat as E;
    use ScaleType::{E4m3, F16, F32, Super};
    use ZeroKind::{Minimum, None};
    &[
        NamedFormat::mx("mxfp8e4m3", E::E4M3),
        NamedFormat::mx("mxfp8e5m2", E::E5M2),
        NamedFormat::mx("mxfp6e3m2", E::E3M2),
        NamedFormat::mx("mxfp6e2m3", E::E2M3),
        NamedFormat::mx("mxfp4", E::E2M1),
        NamedFormat::mx("mxint8", E::INT8),
        NamedFormat::new(
            "nvfp4",
            E::E2M1,
            16,
            E4m3,
            None,
            "NVFP4 of NVIDIA Blackwell",
        ),
        NamedFormat::ggml("q4_0", E::INT4, 32, F16, None),
        NamedFormat::ggml("q4_1", E::UINT4, 32, F16, Minimum),
        NamedFormat::ggml("q5_0", E::INT5, 32, F16, None),
        NamedFormat::ggml("q5_1", E::UINT5, 32, F16, Minimum),
        NamedFormat::ggml("q8_0", E::INT8, 32, F16, None),
        NamedFormat::ggml("q2_k", E::UINT2, 16, Super, Minimum),
        NamedFormat::ggml("q3_k", E::INT3, 16, Super, None),
        NamedFormat::ggml("q4_k", E::UINT4, 32, Super, Minimum),
        NamedFormat::ggml("q5_k", E::UINT5, 32, Super, Minimum),
        NamedFormat::ggml("q6_k", E::INT6, 16, Super, None),
        NamedFormat::ggml("q8_k", E::INT8, 256, F32, None),
        NamedFormat::ggml("tq1_0", E::TERNARY, 256, F16, None),
        NamedFormat::ggml("tq2_0", E::TERNARY, 256, F16, None),
        NamedFormat::ggml("iq4_nl", E::IQ4NL, 32, F16, None),
        NamedFormat::ggml("iq4_xs", E::IQ4NL, 32, Super, None),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodebookFormat;

    #[test]
    fn every_format_reads_back() {
        let granularities = [
            Granularity::Tensor,
            Granularity::Row,
            Granularity::Group(16),
            Granularity::Group(32),
            Granularity::Group(4096),
        ];
        let mut count = 0;
        for row in FORMATS {
            if let Ok(bare) = MatrixFormat::new(row.element, None) {
                assert_eq!(bare.to_string().parse(), Ok(bare));
            }
            for granularity in granularities {
                for scale in ScaleType::ALL {
                    for zero in [
                        ZeroKind::None,
                        ZeroKind::Integer,
                        ZeroKind::Minimum,
                        ZeroKind::Choice,
                    ] {
                        let layout = ScaleLayout {
                            granularity,
                            scale,
                            zero,
                        };
                        let Ok(format) = MatrixFormat::new(row.element, Some(layout)) else {
                            continue;
                        };
                        assert_eq!(format.to_string().parse(), Ok(format), "{format}");
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 2000, "{count}");
    }

    #[test]
    fn names_as_in_kernel_ids() {
        for name in [
            "i4",
            "i4f",
            "i8rf",
            "i4g32h",
            "u4g32hm",
            "u4g128fz",
            "tf",
            "b1rh",
            "f32",
            "f16",
            "bf16",
            "e4m3",
            "e4m3f",
            "e4m3finite",
            "e4m3finiterf",
            "e2m1g16k",
            "bitmod4g128qc",
            "iq4nlg32s",
            "nf4g64f",
            "i5g64e",
        ] {
            assert_eq!(name.parse::<MatrixFormat>().unwrap().to_string(), name);
        }
        for (name, id) in [
            ("q4_0", "i4g32h"),
            ("q4_1", "u4g32hm"),
            ("q5_0", "i5g32h"),
            ("q5_1", "u5g32hm"),
            ("q8_0", "i8g32h"),
            ("q4_k", "u4g32sm"),
            ("q6_k", "i6g16s"),
            ("mxfp4", "e2m1g32e"),
            ("nvfp4", "e2m1g16k"),
            ("tq1_0", "tg256h"),
        ] {
            assert_eq!(MatrixFormat::named(name).unwrap().to_string(), id);
        }
        assert_eq!(MatrixFormat::named("q9_k"), None);
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
    fn names_of_scale_types_read_back() {
        for scale in ScaleType::ALL {
            assert_eq!(scale.to_string().parse(), Ok(scale));
        }
        assert_eq!(
            "f64".parse::<ScaleType>(),
            Err(FormatError::UnknownScaleType { name: "f64".into() })
        );
    }

    #[test]
    fn names_that_users_give() {
        CodebookFormat::user("mylevels", &[-1.0, 0.0, 1.0]).unwrap();
        for (name, weight, activation) in [
            ("int4", "i4g32h", "i4rf"),
            ("binary", "b1g32h", "b1rf"),
            ("e4m3", "e4m3g32h", "e4m3rf"),
            ("nf4", "nf4g32h", "nf4rf"),
            ("mylevels", "mylevelsg32h", "mylevelsrf"),
            ("bitmod4", "bitmod4g128qc", "bitmod4rfc"),
            ("f16", "f16", "f16"),
            ("mxfp4", "e2m1g32e", "e2m1g32e"),
            ("q4_k", "u4g32sm", "u4g32sm"),
            ("i4", "i4", "i4"),
            ("u4g128fz", "u4g128fz", "u4g128fz"),
        ] {
            let written = |format: Result<MatrixFormat, _>| format.unwrap().to_string();
            assert_eq!(written(MatrixFormat::parse_weight(name)), weight);
            assert_eq!(written(MatrixFormat::parse_activation(name)), activation);
        }
        let similar = |name: &str| match MatrixFormat::parse_weight(name) {
            Err(FormatError::UnknownName {
                name: found,
                similar,
            }) if found == name => similar,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(similar("mxfp5"), ["mxfp4"]);
        assert_eq!(similar("e4m4")[0], "e4m3");
        assert_eq!(similar("int9")[0], "int8");
        assert_eq!(similar("q4_2")[0], "q4_1");
        assert_eq!(similar("NVFP4"), ["nvfp4"]);
        assert!(similar("mylevel").contains(&"mylevels"));
        assert_eq!(similar(""), [""; 0]);
        assert_eq!(similar("quux"), [""; 0]);
        assert_eq!(
            MatrixFormat::parse_weight("i4g32x"),
            Err(FormatError::UnknownMatrixFormat {
                name: "i4g32x".into()
            })
        );
        assert_eq!(
            MatrixFormat::parse_activation("i4g33h"),
            Err(FormatError::GroupSize { group: 33 })
        );
    }

    #[test]
    fn groups_that_divide() {
        for (name, columns, expected) in [
            ("i4g32h", 64, "i4g32h"),
            ("i4g32h", 48, "i4g16h"),
            ("i4g32h", 40, "i4rh"),
            ("i4g32h", 0, "i4g32h"),
            ("u4g32hm", 7, "u4rhm"),
            ("bitmod4g128qc", 96, "bitmod4g32qc"),
            ("bitmod4g128qc", 100, "bitmod4rfc"),
            ("i4g96h", 48, "i4rh"),
            ("e2m1g32e", 33, "e2m1re"),
            ("u4g32sm", 24, "u4rfm"),
            ("i8rf", 3, "i8rf"),
            ("i4", 3, "i4"),
            ("f16", 3, "f16"),
        ] {
            let format: MatrixFormat = name.parse().unwrap();
            let divided = format.with_dividing_groups(columns);
            assert_eq!(divided.to_string(), expected, "{name} {columns}");
            assert_eq!(divided.check_shape(1, columns), Ok(()));
            // What it makes can also be made the long way.
            assert_eq!(
                MatrixFormat::new(divided.element(), divided.scales()),
                Ok(divided)
            );
        }
    }

    #[test]
    fn bits_are_those_of_packed_matrices() {
        for name in [
            "f32",
            "bf16",
            "i4",
            "i3rf",
            "i4g32h",
            "u4g32hm",
            "u5g64fz",
            "tf",
            "e2m1g32e",
            "e2m1g16k",
            "i8g32q",
            "u4g32sm",
            "i6g16s",
            "bitmod4g128qc",
            "nf4g64f",
        ] {
            let format: MatrixFormat = name.parse().unwrap();
            let values: Vec<f32> = (0..3 * 512).map(|i| (i as f32).sin()).collect();
            let matrix = crate::quantize(&values, 3, 512, format, None);
            let matrix = matrix.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                format.bits_per_element(3, 512),
                matrix.bits_per_element(),
                "{name}"
            );
        }
        let row: MatrixFormat = "i4rh".parse().unwrap();
        assert_eq!(row.bits_per_element(7, 40), 4.4);
        assert_eq!(row.bits_per_element(0, 40), 0.0);
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
