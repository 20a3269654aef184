//! `anybit format`.

use std::fmt::Write as _;

use anybit::formats::{
    AffineFormat, Choice, CodebookFormat, ElementFormat, Encoding, FORMATS, Family, FloatFormat,
    FormatError, Granularity, MatrixFormat, MinifloatFormat, NAMED_FORMATS, ScaleType,
    SpecialValues, ZeroKind,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::FormatArguments;
use crate::error::Error;
use crate::report::special_name;
use crate::{codebook, output};

pub(crate) fn run(arguments: &FormatArguments) -> Result<(), Error> {
    let users = codebook::register(&arguments.codebooks.codebook)?;
    let text = match &arguments.name {
        None if arguments.json => {
            let names = FORMATS
                .iter()
                .map(|row| row.name)
                .chain(NAMED_FORMATS.iter().map(|row| row.name))
                .chain(users.iter().map(|user| user.name()));
            format!("{}\n", names.collect::<Value>())
        }
        None => list(&users),
        Some(name) => {
            let subject = Subject::find(name)?;
            if arguments.json {
                subject.json(name)?
            } else {
                subject.text(name)
            }
        }
    };
    output::print(&text)
}

/// What `--json` prints of a format.
#[derive(Serialize)]
struct Listing<'a> {
    name: &'a str,
    bits: u32,
    codes: Vec<CodeValue>,
    /// The code that each group chooses the value of, and what it chooses from.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<Value>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    matrix: Option<MatrixListing>,
}

#[derive(Serialize)]
struct CodeValue {
    code: u32,
    value: Value,
}

/// The same of a format with scales.
#[derive(Serialize)]
struct MatrixListing {
    format: String,
    element: &'static str,
    scales: Value,
}

/// What a name stands for.
enum Subject {
    Element(ElementFormat),
    Matrix(MatrixFormat),
    /// The codes of E8M0, which only scales have.
    PowersOfTwo,
}

impl Subject {
    fn find(name: &str) -> Result<Self, FormatError> {
        if let Ok(element) = name.parse() {
            return Ok(Self::Element(element));
        }
        if name == ScaleType::E8m0.name() {
            return Ok(Self::PowersOfTwo);
        }
        Ok(Self::Matrix(MatrixFormat::parse_weight(name)?))
    }

    fn codes(&self) -> Option<Vec<(u32, f32)>> {
        match self {
            Self::Element(element) => element_codes(*element),
            Self::Matrix(format) => element_codes(format.element()),
            Self::PowersOfTwo => Some(
                (0..=255)
                    .map(|code| (code, ScaleType::E8m0.decode(code)))
                    .collect(),
            ),
        }
    }

    const fn element(&self) -> Option<ElementFormat> {
        match self {
            Self::Element(element) => Some(*element),
            Self::Matrix(format) => Some(format.element()),
            Self::PowersOfTwo => None,
        }
    }

    fn json(&self, name: &str) -> Result<String, Error> {
        let codes = self.codes().ok_or_else(|| {
            Error::Usage(format!(
                "{name} has 2^32 codes, too many to list; without --json, `anybit format {name}` tells its range"
            ))
        })?;
        let codes = codes.into_iter().map(|(code, value)| CodeValue {
            code,
            value: number(value),
        });
        let listing = Listing {
            name,
            bits: self.element().map_or(8, ElementFormat::bits),
            codes: codes.collect(),
            choice: self.element().and_then(choice_of).map(|choice| {
                let values: Vec<Value> = choice.values.iter().map(|&value| number(value)).collect();
                json!({"code": choice.code, "values": values})
            }),
            matrix: match self {
                Self::Matrix(format) => Some(MatrixListing {
                    format: format.to_string(),
                    element: format.element().name(),
                    scales: scales_json(format),
                }),
                _ => None,
            },
        };
        // Strings and finite numbers alone: it cannot fail.
        Ok(serde_json::to_string(&listing).unwrap_or_default() + "\n")
    }

    fn text(&self, name: &str) -> String {
        let mut text = match self {
            Self::PowersOfTwo => "e8m0: scales of 8 bits, powers of two\n\n\
                 value    2^(code - 127); code 255 is NaN\n\
                 source   OCP Microscaling Formats (MX) 1.0\n"
                .to_owned(),
            Self::Element(element) => describe(name, *element),
            Self::Matrix(format) => {
                let mut text = format!("{name}: {}", scales_text(format));
                if let Some(row) = NAMED_FORMATS.iter().find(|row| row.name == name) {
                    let _ = writeln!(text, "source   {}", row.source);
                }
                text.push('\n');
                text + &describe(format.element().name(), format.element())
            }
        };
        let Some(codes) = self.codes().filter(|codes| codes.len() <= 256) else {
            let _ = writeln!(
                text,
                "\n{}",
                match self.element().map(ElementFormat::bits) {
                    Some(16) => format!("Its 65536 codes: anybit format {name} --json"),
                    _ => "It has 2^32 codes, too many to list.".to_owned(),
                }
            );
            return text;
        };
        let _ = writeln!(text, "\ncode  bits        value");
        for (code, value) in codes {
            let _ = writeln!(
                text,
                "0x{code:02x}  {:<10}  {}",
                self.bit_text(code),
                self.value_text(code, value)
            );
        }
        text
    }

    /// The bits of a code; of minifloats with sign, exponent and mantissa apart.
    fn bit_text(&self, code: u32) -> String {
        let fields: &[usize] = match self.element() {
            Some(ElementFormat::Minifloat(format)) => &[
                1,
                usize::from(format.exponent_bits()),
                usize::from(format.mantissa_bits()),
            ],
            Some(element) => &[element.bits() as usize],
            None => &[8],
        };
        let width = fields.iter().sum();
        let bits = format!("{code:0width$b}");
        let mut rest = &bits[..];
        let mut parts = Vec::new();
        for &field in fields {
            let (part, after) = rest.split_at(field);
            if !part.is_empty() {
                parts.push(part);
            }
            rest = after;
        }
        parts.join(" ")
    }

    fn value_text(&self, code: u32, value: f32) -> String {
        match self.element().and_then(choice_of) {
            Some(choice) if u32::from(choice.code) == code => {
                let values: Vec<String> = choice.values.iter().map(|&value| exact(value)).collect();
                format!("one of {}, chosen by each group", values.join(", "))
            }
            _ => exact(value),
        }
    }
}

const fn choice_of(element: ElementFormat) -> Option<Choice> {
    match element.codebook() {
        Some(codebook) => codebook.choice(),
        None => None,
    }
}

/// Every valid code with its value; `None` of f32.
fn element_codes(element: ElementFormat) -> Option<Vec<(u32, f32)>> {
    match element {
        ElementFormat::Float(FloatFormat::F32) => None,
        ElementFormat::Float(float) => Some(
            (0..=0xffff)
                .map(|bits| (bits, float.decode(bits)))
                .collect(),
        ),
        _ => Some(
            (0..=u8::MAX)
                .filter_map(|code| Some((u32::from(code), element.code_value(code)?)))
                .collect(),
        ),
    }
}

/// The value in JSON: exact, since every f32 is an f64.
fn number(value: f32) -> Value {
    match special_name(value.into()) {
        Some(name) => name.into(),
        None => f64::from(value).into(),
    }
}

/// The value in decimal, exactly; of many digits in scientific notation.
fn exact(value: f32) -> String {
    if let Some(name) = special_name(value.into()) {
        return name.to_owned();
    }
    let trim = |digits: &str| {
        digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    };
    // No f32 has more than 149 digits behind the point, or more than 112 significant ones.
    let plain = trim(&format!("{value:.149}"));
    if plain.len() <= 24 {
        return plain;
    }
    let scientific = format!("{value:.149e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) => format!("{}e{exponent}", trim(digits)),
        None => scientific,
    }
}

/// What an element format is, its range and its special codes.
fn describe(name: &str, element: ElementFormat) -> String {
    let mut text = String::new();
    match element {
        ElementFormat::Float(float) => describe_float(&mut text, name, float),
        ElementFormat::Affine(affine) => describe_affine(&mut text, name, affine),
        ElementFormat::Minifloat(minifloat) => describe_minifloat(&mut text, name, minifloat),
        ElementFormat::Codebook(codebook) => describe_codebook(&mut text, name, codebook),
        _ => {
            let _ = writeln!(text, "{name}: {} bits", element.bits());
        }
    }
    let source = match element {
        ElementFormat::Codebook(codebook) => Some(codebook.source()),
        _ => FORMATS
            .iter()
            .find(|row| row.name == name)
            .or_else(|| FORMATS.iter().find(|row| row.element == element))
            .map(|row| row.source),
    };
    if let Some(source) = source {
        let _ = writeln!(text, "source              {source}");
    }
    text
}

fn describe_float(text: &mut String, name: &str, float: FloatFormat) {
    let (exponent, mantissa) = match float {
        FloatFormat::F32 => (8, 23),
        FloatFormat::F16 => (5, 10),
        FloatFormat::Bf16 => (8, 7),
    };
    let infinity: u32 = ((1 << exponent) - 1) << mantissa;
    let sign: u32 = 1 << (exponent + mantissa);
    let _ = write!(
        text,
        "{name}: a float of {} bits: 1 sign, {exponent} exponent, {mantissa} mantissa\n\n\
         maximum             {}\n\
         smallest normal     {}\n\
         smallest subnormal  {}\n\
         special codes       inf {infinity:#x}, -inf {:#x}, NaN above them, -0 {sign:#x}\n",
        float.bits(),
        exact(float.decode(infinity - 1)),
        exact(float.decode(1 << mantissa)),
        exact(float.decode(1)),
        infinity | sign,
    );
}

fn describe_affine(text: &mut String, name: &str, affine: AffineFormat) {
    let encoding = match affine.encoding() {
        Encoding::Unsigned => "unsigned integers",
        Encoding::TwosComplement => "two's complement integers, stored with the top bit flipped",
        Encoding::Bipolar => "bipolar: odd integers, without a zero",
        Encoding::Ternary => "ternary",
    };
    let (factor, offset) = affine.coefficients();
    let code = if factor == 1 {
        "code".to_owned()
    } else {
        format!("{factor} code")
    };
    let value = match offset {
        0 => code,
        1.. => format!("{code} + {offset}"),
        _ => format!("{code} - {}", -offset),
    };
    let _ = write!(
        text,
        "{name}: {encoding}, {}\n\n\
         value               {value}\n\
         maximum             {}\n\
         minimum             {}\n\
         special codes       {}\n",
        bits(affine.bits().into()),
        affine.max_value(),
        affine.min_value(),
        match affine.encoding() {
            Encoding::Ternary => "0x03 is invalid",
            _ => "none",
        }
    );
}

fn describe_minifloat(text: &mut String, name: &str, format: MinifloatFormat) {
    let kind = match format.special() {
        SpecialValues::Finite => "every code is a finite number",
        SpecialValues::Fn => "NaN, no infinities",
        SpecialValues::Ieee => "infinities and NaN as in IEEE 754",
    };
    let mut special = Vec::new();
    for code in 0..=format.max_code() {
        let value = format.decode(code);
        let name = match special_name(value.into()) {
            Some(name) => name,
            None if value == 0.0 && value.is_sign_negative() => "-0",
            None => continue,
        };
        special.push(format!("{name} {code:#04x}"));
    }
    let normal = if format.min_normal() > format.max_value() {
        "none".to_owned()
    } else {
        exact(format.min_normal())
    };
    let _ = write!(
        text,
        "{name}: a float of {}: 1 sign, {} exponent (bias {}), {} mantissa; {kind}\n\n\
         maximum             {}\n\
         smallest normal     {normal}\n\
         smallest subnormal  {}\n\
         special codes       {}\n",
        bits(format.bits().into()),
        format.exponent_bits(),
        format.bias(),
        format.mantissa_bits(),
        exact(format.max_value()),
        format
            .min_subnormal()
            .map_or_else(|| "none".to_owned(), exact),
        special.join(", "),
    );
}

fn describe_codebook(text: &mut String, name: &str, codebook: CodebookFormat) {
    let values = || {
        let chosen = codebook.choice().map_or(&[][..], |choice| choice.values);
        codebook.values().iter().chain(chosen).copied()
    };
    let special = match codebook.choice() {
        Some(choice) => {
            let values: Vec<String> = choice.values.iter().map(|&value| exact(value)).collect();
            format!(
                "{:#04x} stands in each group for one of {}",
                choice.code,
                values.join(", ")
            )
        }
        None => {
            let unused = 1_u32 << codebook.bits();
            match unused - 1 - u32::from(codebook.max_code()) {
                0 => "none".to_owned(),
                1 => format!("{:#04x} is invalid", unused - 1),
                _ => format!("those above {:#04x} are invalid", codebook.max_code()),
            }
        }
    };
    let _ = write!(
        text,
        "{name}: a table of {} values in {}\n\n\
         maximum             {}\n\
         minimum             {}\n\
         special codes       {special}\n",
        codebook.values().len(),
        bits(codebook.bits().into()),
        exact(values().fold(f32::NEG_INFINITY, f32::max)),
        exact(values().fold(f32::INFINITY, f32::min)),
    );
}

fn bits(count: u32) -> String {
    match count {
        1 => "1 bit".to_owned(),
        _ => format!("{count} bits"),
    }
}

const fn zero_name(zero: ZeroKind) -> &'static str {
    match zero {
        ZeroKind::None => "none",
        ZeroKind::Integer => "integer",
        ZeroKind::Minimum => "minimum",
        ZeroKind::Choice => "choice",
    }
}

fn granularity_json(granularity: Granularity) -> Value {
    match granularity {
        Granularity::Tensor => "tensor".into(),
        Granularity::Row => "row".into(),
        Granularity::Group(group) => group.into(),
    }
}

fn granularity_text(granularity: Granularity) -> String {
    match granularity {
        Granularity::Tensor => "a matrix".to_owned(),
        Granularity::Row => "a row".to_owned(),
        Granularity::Group(group) => format!("per {group} columns"),
    }
}

/// `{"type", "bits", "group", "zero", "second"}`, null without scales.
fn scales_json(format: &MatrixFormat) -> Value {
    let Some(layout) = format.scales() else {
        return Value::Null;
    };
    let second = layout.scale.second().map(|second| {
        json!({
            "type": ElementFormat::Float(second.float).name(),
            "group": granularity_json(second.granularity),
        })
    });
    json!({
        "type": layout.scale.name(),
        "bits": layout.scale.bits(),
        "group": granularity_json(layout.granularity),
        "zero": zero_name(layout.zero),
        "second": second,
    })
}

/// The matrix format's id, its element and its scales.
fn scales_text(format: &MatrixFormat) -> String {
    let element = format.element().name();
    let Some(layout) = format.scales() else {
        return format!("{format}, {element} without scales\n");
    };
    let mut text = format!(
        "{format}, {element} with scales\n\n\
         scale    {} of {} bits, {}",
        layout.scale,
        layout.scale.bits(),
        granularity_text(layout.granularity)
    );
    if let Some(second) = layout.scale.second() {
        let _ = write!(
            text,
            ", times one {} {}",
            ElementFormat::Float(second.float),
            granularity_text(second.granularity)
        );
    }
    let _ = writeln!(
        text,
        "\nzero     {}",
        match layout.zero {
            ZeroKind::None => "none: value = scale * element",
            ZeroKind::Integer => "an integer for each scale: value = scale * (element - zero)",
            ZeroKind::Minimum =>
                "a minimum for each scale, of its type: value = scale * element + minimum",
            ZeroKind::Choice => "none; each scale goes with the choice of one code's value",
        }
    );
    text
}

/// All names, by family.
fn list(users: &[CodebookFormat]) -> String {
    let mut text = String::from("element formats\n");
    for row in FORMATS {
        let family = match row.family {
            Family::Float => "float",
            Family::Affine => "integer",
            Family::Minifloat => "minifloat",
            Family::Codebook => "codebook",
            _ => "",
        };
        let _ = writeln!(
            text,
            "  {:<12} {:>2} bit  {family:<10} {}",
            row.name,
            row.element.bits(),
            row.source
        );
    }
    for user in users {
        let _ = writeln!(
            text,
            "  {:<12} {:>2} bit  {:<10} {}",
            user.name(),
            user.bits(),
            "codebook",
            user.source()
        );
    }
    text.push_str("\nnamed formats\n");
    for row in NAMED_FORMATS {
        let _ = writeln!(
            text,
            "  {:<12} {:<9}  {}",
            row.name,
            row.format.to_string(),
            row.source
        );
    }
    text.push_str("\n`anybit format NAME` lists the codes of one.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (448.0, "448"),
            (-0.001_953_125, "-0.001953125"),
            (0.1, "1.00000001490116119384765625e-1"),
            (f32::INFINITY, "inf"),
            (f32::NEG_INFINITY, "-inf"),
            (f32::NAN, "NaN"),
            (f32::MAX, "3.4028234663852885981170418348451692544e38"),
        ] {
            assert_eq!(exact(value), text);
        }
        // 2^-149 has 105 significant digits.
        let smallest = exact(f32::from_bits(1));
        assert!(smallest.starts_with("1.40129846432481707092372958328991613128"));
        assert!(smallest.ends_with("e-45"), "{smallest}");
        assert_eq!(smallest.len(), 106 + 4);
        assert_eq!(smallest.parse(), Ok(f32::from_bits(1)));
    }
}
