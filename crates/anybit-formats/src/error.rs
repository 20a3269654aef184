//! What can be wrong with a format, a shape or the data.

use crate::{
    Calibration, ElementFormat, MatrixFormat, PieceLayout, ScaleLayout, ScaleType, ZeroKind,
};

/// Why a format, a layout or a matrix was refused. Rows, columns and groups count from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// An integer format has 1 to 8 bits.
    #[error("an integer format has 1 to 8 bits, not {bits}")]
    Bits {
        /// The bits asked for.
        bits: u8,
    },
    /// A ternary format has exactly 2 bits.
    #[error("a ternary format has 2 bits, not {bits}; use 2")]
    TernaryBits {
        /// The bits asked for.
        bits: u8,
    },
    /// No minifloat format has these bits.
    #[error(
        "e{exponent}m{mantissa} is not a minifloat format: it takes 1 exponent bit or more, at most 7 bits with the mantissa, and e1m0 only with all codes finite"
    )]
    Minifloat {
        /// The exponent bits asked for.
        exponent: u8,
        /// The mantissa bits asked for.
        mantissa: u8,
    },
    /// L-Mul keeps 1 to 23 mantissa bits of its operands.
    #[error("L-Mul keeps 1 to 23 mantissa bits of its operands, not {bits}")]
    LMulMantissa {
        /// The bits asked for.
        bits: u8,
    },
    /// The name of a user's codebook is not a name.
    #[error(
        "{name:?} cannot name a codebook; take a lowercase letter and then up to 31 lowercase letters, digits or underscores"
    )]
    CodebookName {
        /// The name given.
        name: String,
    },
    /// The name of a user's codebook is that of another format, or could be taken for one.
    #[error(
        "the name {name:?} is that of the format {by:?} or could be read as {by:?} and its scales, or the other way round; choose another"
    )]
    CodebookNameTaken {
        /// The name given.
        name: String,
        /// The name of the other format.
        by: String,
    },
    /// A codebook has 2 to 256 values.
    #[error("a codebook has 2 to 256 values, not {found}")]
    CodebookLength {
        /// The number of values given.
        found: usize,
    },
    /// A value of a codebook is NaN, infinite or subnormal.
    #[error(
        "the value {value:e} of code {code} is not a normal number; a codebook takes finite values that are 0 or at least 2^-126 in magnitude"
    )]
    CodebookValue {
        /// The code.
        code: usize,
        /// Its value.
        value: f32,
    },
    /// A codebook has at least one value other than 0.
    #[error("every value of the codebook is 0; it takes at least one that is not")]
    CodebookZeros,
    /// The process has as many codebooks of users as it can have.
    #[error(
        "there are {limit} codebooks of users, and no more can be made; start the program anew"
    )]
    TooManyCodebooks {
        /// How many there can be.
        limit: usize,
    },
    /// No power codebook has these bits and this power.
    #[error(
        "a power codebook has 2 to 8 bits and a finite power above 0, not {bits} bits and the power {power}"
    )]
    CodebookPower {
        /// The bits asked for.
        bits: u8,
        /// The power asked for.
        power: f64,
    },
    /// The exponent's power of two, or that of the upper halves, is no normal f32.
    #[error("an exponent is from {smallest} to {largest}, not {exponent}")]
    Exponent {
        /// The exponent.
        exponent: i32,
        /// The least.
        smallest: i32,
        /// The largest.
        largest: i32,
    },
    /// The group size is neither 16 nor a positive multiple of 32.
    #[error("a group has 16 columns or a positive multiple of 32, not {group}")]
    GroupSize {
        /// Columns a group.
        group: u32,
    },
    /// Floats are stored as they are and take no scales.
    #[error("{element} is a float format and takes no scales; leave them out")]
    ScaledFloat {
        /// The float format.
        element: ElementFormat,
    },
    /// The element cannot have such zeros.
    #[error(
        "{element} cannot have zeros of kind {zero:?}; zero points and minima are for integers, choices for codebooks that have them, and those need them"
    )]
    ZeroOfElement {
        /// The element format.
        element: ElementFormat,
        /// The kind asked for.
        zero: ZeroKind,
    },
    /// The scale type does not go with the granularity or the zero.
    #[error(
        "{element} cannot be scaled by {layout:?}; 8-bit scales of two levels need groups (super-blocks of 256 a group that divides it), and only f32, f16 and super-block scales have minima"
    )]
    SecondLevel {
        /// The element format.
        element: ElementFormat,
        /// How it was to be scaled.
        layout: ScaleLayout,
    },
    /// The columns do not make whole groups.
    #[error(
        "{columns} columns do not make whole groups of {group}; use a group size that divides them, or row scales"
    )]
    GroupDoesNotDivide {
        /// Columns of the matrix.
        columns: usize,
        /// Columns a group.
        group: u32,
    },
    /// The number of interleaved rows is not one of 1, 2, 4, 8, 16, 32.
    #[error("rows interleave by 1, 2, 4, 8, 16 or 32, not {interleave}")]
    Interleave {
        /// The interleave asked for.
        interleave: u32,
    },
    /// Row sums are sums of codes, which floats have not.
    #[error("{element} is a float format and has no code sums; use SumLayout::None")]
    SumsOfFloats {
        /// The float format.
        element: ElementFormat,
    },
    /// No element format has this name.
    #[error("no element format is named {name:?}; {}", suggestion(similar))]
    UnknownElement {
        /// The name given.
        name: String,
        /// The nearest names there are, if any is near.
        similar: Vec<&'static str>,
    },
    /// No named format or matrix format has this name.
    #[error("no format is named {name:?}; {}", suggestion(similar))]
    UnknownName {
        /// The name given.
        name: String,
        /// The nearest names there are, if any is near.
        similar: Vec<&'static str>,
    },
    /// The text is not the name of a matrix format.
    #[error(
        "{name:?} is not a matrix format; expected a code (i4, u4, b2, t, e4m3, nf4, f16), then, when scaled, r or gN, then one of f, h, e, k, q, s, then z, m or c, as in i4g32h"
    )]
    UnknownMatrixFormat {
        /// The text given.
        name: String,
    },
    /// No scale type has this name.
    #[error(
        "no scale type is named {name:?}; there are {}",
        ScaleType::ALL.map(ScaleType::name).join(", ")
    )]
    UnknownScaleType {
        /// The name given.
        name: String,
    },
    /// The matrix has more elements, words or sums than can be addressed.
    #[error(
        "a {rows}x{columns} matrix is too large: {what} would overflow; split it along its rows"
    )]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// What overflows.
        what: &'static str,
    },
    /// A slice has the wrong length.
    #[error("expected {expected} {what}, found {found}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// The length the format and the shape ask for.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// Integer codes were given for a float format.
    #[error("{element} is a float format and has no codes; give it values")]
    NotCodes {
        /// The float format.
        element: ElementFormat,
    },
    /// An `int8` matrix is read at 2 to 8 bits, and has carry planes for 2 to 7.
    #[error("an int8 matrix is read at 2 to 8 bits (with a carry plane, 2 to 7), not {bits}")]
    NestedBits {
        /// The bits asked for.
        bits: u8,
    },
    /// Only two's-complement integers of 8 bits without zero points are read at fewer bits.
    #[error(
        "{format} cannot be read at fewer bits; use int8 (two's complement) without integer zero points"
    )]
    NestedFormat {
        /// The format of the matrix.
        format: MatrixFormat,
    },
    /// Carry planes go with planes.
    #[error(
        "carry planes were asked for with {pieces:?}; they are read with planes, so use PieceLayout::Planes"
    )]
    CarryLayout {
        /// The layout asked for.
        pieces: PieceLayout,
    },
    /// A width is named twice where carry planes are listed.
    #[error("a carry plane for {bits} bits is asked for twice; name each width once")]
    CarryTwice {
        /// The width.
        bits: u8,
    },
    /// 16-bit floats were given for a format of another width.
    #[error("{element} does not take 16 bits; use from_f32")]
    NotSixteenBits {
        /// The format.
        element: ElementFormat,
    },
    /// The zeros given are not of the kind the format has.
    #[error("the format {format} has zeros of kind {expected:?}, found {found:?}")]
    ZeroKind {
        /// The format.
        format: MatrixFormat,
        /// The kind the format has.
        expected: ZeroKind,
        /// The kind given.
        found: ZeroKind,
    },
    /// A code is above the largest of its format.
    #[error(
        "code {code} at row {row}, column {column} is above {max}, the largest code of the format"
    )]
    CodeTooLarge {
        /// Row of the code.
        row: usize,
        /// Column of the code.
        column: usize,
        /// The code.
        code: u8,
        /// The largest valid code.
        max: u8,
    },
    /// A code stands for NaN or infinity.
    #[error(
        "code {code:#04x} at row {row}, column {column} is {value} in {element}; matrices hold finite values only"
    )]
    NonFiniteCode {
        /// Row of the code.
        row: usize,
        /// Column of the code.
        column: usize,
        /// The code.
        code: u8,
        /// What it stands for.
        value: f32,
        /// The element format.
        element: ElementFormat,
    },
    /// A choice is not one of the codebook's.
    #[error(
        "choice {choice} of row {row}, group {group} is not one of the {count} that the codebook has"
    )]
    ChoiceTooLarge {
        /// Row of the choice.
        row: usize,
        /// Group of the choice.
        group: usize,
        /// The choice.
        choice: u8,
        /// Choices of the codebook.
        count: usize,
    },
    /// A byte of packed ternary codes that no five codes make.
    #[error(
        "byte {index} of packed ternary codes is {byte:#04x}, which no codes from 0 to 2 make, or has others than 0 after the last"
    )]
    TernaryByte {
        /// Which byte.
        index: usize,
        /// The byte.
        byte: u8,
    },
    /// A value is NaN or infinite.
    #[error("the value at row {row}, column {column} is {value}; every value must be finite")]
    NonFinite {
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A value is too large for its 16-bit float format.
    #[error(
        "the value {value} at row {row}, column {column} is too large for {element}; use bf16 or f32, or rescale"
    )]
    ElementOverflow {
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
        /// The value.
        value: f32,
        /// The element format.
        element: ElementFormat,
    },
    /// A scale is NaN or infinite, or too large for its stored type.
    #[error(
        "the scale {value} of row {row}, group {group} is not a finite number of the format's scale type; use f32 scales or rescale the data"
    )]
    ScaleOverflow {
        /// Row of the scale (0 for a tensor scale).
        row: usize,
        /// Group of the scale.
        group: usize,
        /// The scale before rounding to the stored type.
        value: f32,
    },
    /// A minimum is NaN or infinite, or too large for its stored type.
    #[error(
        "the minimum {value} of row {row}, group {group} is not a finite number of the format's scale type; use f32 scales or rescale the data"
    )]
    MinimumOverflow {
        /// Row of the minimum (0 for a tensor minimum).
        row: usize,
        /// Group of the minimum.
        group: usize,
        /// The minimum before rounding to the stored type.
        value: f32,
    },
    /// The calibration does not apply to the format.
    #[error(
        "calibration {calibration:?} does not apply to the format {format}; leave the calibration out for the format's own"
    )]
    Calibration {
        /// The calibration asked for.
        calibration: Calibration,
        /// The format.
        format: MatrixFormat,
    },
    /// The format's values are rounded to nearest only.
    #[error(
        "{element} takes no other rounding than to nearest; leave the rounding out, or take an integer format or a minifloat"
    )]
    Rounding {
        /// The element format.
        element: ElementFormat,
    },
    /// Integer zero points are fitted for unsigned codes only.
    #[error(
        "no calibration fits integer zero points to the codes of {format}; use unsigned codes, a minimum, or none"
    )]
    SignedZeroPoint {
        /// The format.
        format: MatrixFormat,
    },
    /// A range of rows does not lie in the matrix.
    #[error("rows {start}..{end} do not lie in a matrix of {rows} rows")]
    RowRange {
        /// First row.
        start: usize,
        /// One past the last row.
        end: usize,
        /// Rows of the matrix.
        rows: usize,
    },
    /// A device image has a code other than 0 after the last column of a row.
    #[error("row {row} of the device image is not zero after its {columns} columns")]
    Padding {
        /// The row.
        row: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// A device image has a code sum that its codes do not have.
    #[error(
        "code sum {index} of row {row} of the device image is {found}; its codes add up to {expected}"
    )]
    Sum {
        /// The row.
        row: usize,
        /// The sum's place in the row.
        index: usize,
        /// The sum of the codes.
        expected: u32,
        /// The sum stored.
        found: u32,
    },
    /// Parts of one matrix that do not belong together. Join parts of one format, and with a scale per tensor, of one
    /// scale.
    #[error("a part of a {expected} matrix has the format {actual}, or another tensor scale")]
    PartFormat {
        /// The format of the whole.
        expected: MatrixFormat,
        /// The format of the part.
        actual: MatrixFormat,
    },
}

/// What to try instead of an unknown name.
fn suggestion(similar: &[&'static str]) -> String {
    match similar {
        [] => "`anybit format` lists the names, as does FORMATS".to_owned(),
        names => format!("did you mean {}?", names.join(" or ")),
    }
}
