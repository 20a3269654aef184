//! compressed-tensors: `pack-quantized`, `int-quantized`, `nvfp4-pack-quantized` and `mxfp4-pack-quantized`; and NVFP4 as
//! ModelOpt stores it. (`float-quantized` and `mxfp8-quantized` are in `float8.rs`.)
//!
//! `pack-quantized` (`pack_to_int32`): `weight_packed` is [N, ⌈K · bits / 32⌉] words, the codes of a row one after the
//! other from the lowest bits up, across words where they do not divide them; a code is the signed integer plus
//! 2^(bits − 1). `weight_zero_point`, if there is one, is packed so along N: [⌈N · bits / 32⌉, G]. `weight_scale` is
//! [N, G], `weight_shape` is N and K, `weight_g_idx` the group of each column (older files).
//!
//! `int-quantized`: `weight` is signed bytes, `weight_scale` one, [N, 1] or [N, G], `weight_zero_point` signed bytes.
//!
//! NVFP4: two E2M1 codes a byte, the first in the low bits, and an E4M3 scale for each 16 columns. The factor of all
//! scales is 1 / `weight_global_scale` in compressed-tensors, `weight_scale_2` in ModelOpt. MXFP4: scales are exponents
//! for each 32 columns.

use anybit_formats::{AffineFormat, ElementFormat, Encoding, ScaleType};

use super::float8::check_exponents;
use super::gptq::column_groups;
use super::read::{
    check_dtype, check_shape, index, non_finite, scale_places, scale_type, single_scale,
    two_dimensions, wrong_dtype, wrong_shape,
};
use super::weight::{CodedWeight, Places, Plan, field};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo, WeightLayout};
use crate::ImportError;
use crate::gguf::{reserve, shorten};

/// The names after the stem of the other tensors of `pack-quantized`.
pub(super) const PACK_COMPANIONS: [&str; 4] = [
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
];

/// What the names of the other tensors of `int-quantized` have after that of the weight.
pub(super) const INT_COMPANIONS: [&str; 2] = ["_scale", "_zero_point"];

/// Whose 4-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fp4 {
    /// NVFP4 of compressed-tensors.
    Nvidia,
    /// NVFP4 of ModelOpt.
    ModelOpt,
    /// MXFP4 of compressed-tensors.
    Microscaling,
}

impl Fp4 {
    pub(super) fn layout(self) -> WeightLayout {
        match self {
            Self::Nvidia | Self::ModelOpt => WeightLayout::Nvfp4,
            Self::Microscaling => WeightLayout::Mxfp4,
        }
    }

    /// What the names of the other tensors have after that of the weight.
    pub(super) fn companions(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => &["_scale", "_global_scale"],
            Self::ModelOpt => &["_scale", "_scale_2"],
            Self::Microscaling => &["_scale"],
        }
    }

    fn group(self) -> usize {
        match self {
            Self::Nvidia | Self::ModelOpt => 16,
            Self::Microscaling => 32,
        }
    }
}

/// What the name of a `weight_packed` tensor has before that.
pub(super) fn stem(name: &str) -> Option<&str> {
    name.strip_suffix("weight_packed")
        .filter(|stem| stem.is_empty() || stem.ends_with('.'))
}

fn name(main: &TensorInfo, suffix: &str) -> String {
    match stem(main.name()) {
        Some(stem) => format!("{stem}weight{suffix}"),
        None => format!("{}{suffix}", main.name()),
    }
}

/// Signed integers of so many bits, or unsigned where zero points move them.
fn integer(weight: &WeightInfo, bits: u32, zeros: bool) -> Result<ElementFormat, ImportError> {
    let encoding = if zeros {
        Encoding::Unsigned
    } else {
        Encoding::TwosComplement
    };
    AffineFormat::new(bits as u8, encoding)
        .map(ElementFormat::Affine)
        .map_err(|source| ImportError::Matrix {
            tensor: shorten(weight.name()),
            source,
        })
}

/// The plan and the bits of a code.
pub(super) fn plan_packed(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<(Plan, u32), ImportError> {
    check_dtype(main, Dtype::I32)?;
    let scales = file.part(weight, &name(main, "_scale"))?;
    let shape = file.part(weight, &name(main, "_shape"))?;
    let (rows, words) = two_dimensions(main)?;
    check_shape(shape, &[2])?;
    let bytes = file.bytes(shape)?;
    let sizes: Vec<i64> = match shape.dtype() {
        Dtype::I64 => bytes
            .chunks_exact(8)
            .map(|bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | i64::from(byte))
            })
            .collect(),
        Dtype::I32 => bytes
            .chunks_exact(4)
            .map(|bytes| i64::from(super::read::u32_from(bytes) as i32))
            .collect(),
        _ => return Err(wrong_dtype(shape, "I64 or I32")),
    };
    let columns = match *sizes.as_slice() {
        [found, columns] if found == rows as i64 && columns > 0 => columns as u64,
        _ => {
            return Err(wrong_shape(
                main,
                format!(
                    "packed rows of a matrix of {sizes:?}, as {:?} says",
                    shape.name()
                ),
            ));
        }
    };

    let fits = |bits: &u32| {
        columns
            .checked_mul(u64::from(*bits))
            .is_some_and(|total| total.div_ceil(32) == words as u64)
    };
    let bits = match file.config.bits {
        Some(bits) => Some(bits)
            .filter(|bits| (1..=8).contains(bits) && fits(bits))
            .ok_or_else(|| ImportError::Setting {
                weight: shorten(weight.name()),
                setting: "num_bits",
                value: bits.to_string(),
                expected: format!(
                    "1 to 8 are read, and {columns} columns must fill rows of {words} words"
                ),
            })?,
        None => {
            let mut candidates = (1..=8).filter(fits);
            match (candidates.next(), candidates.next()) {
                (Some(bits), None) => bits,
                (Some(_), Some(_)) => {
                    return Err(ImportError::Undecided {
                        weight: shorten(weight.name()),
                        layout: weight.layout(),
                        what: "how many bits a code has",
                    });
                }
                _ => {
                    return Err(wrong_shape(
                        main,
                        format!("rows of {columns} codes of 1 to 8 bits"),
                    ));
                }
            }
        }
    };
    let columns = index(columns, "the columns of a tensor")?;
    let scale = scale_type(scales)?;
    if scale == ScaleType::E8m0 {
        return Err(wrong_dtype(scales, "F32, F16 or BF16"));
    }
    let places = scale_places(scales, rows, columns, None)?;
    let zeros = file.tensor(&name(main, "_zero_point"));
    if let Some(zeros) = zeros {
        check_zeros(zeros, scales, rows, bits)?;
    }
    if let Some(order) = file.tensor(&name(main, "_g_idx")) {
        check_dtype(order, Dtype::I32)?;
        check_shape(order, &[columns as u64])?;
    }
    let plan = Plan {
        rows,
        columns,
        element: integer(weight, bits, zeros.is_some())?,
        scale: Some(scale),
        zeros: zeros.is_some(),
        places,
    };
    Ok((plan, bits))
}

/// Checks a zero point for each scale: signed bytes, or packed along the rows.
fn check_zeros(
    zeros: &TensorInfo,
    scales: &TensorInfo,
    rows: usize,
    bits: u32,
) -> Result<(), ImportError> {
    match zeros.dtype() {
        Dtype::I8 if zeros.elements() == scales.elements() => Ok(()),
        Dtype::I8 => Err(wrong_shape(
            zeros,
            format!("{:?}, as the scales have", scales.shape()),
        )),
        Dtype::I32 => match *scales.shape() {
            [_, groups] => {
                let words = (rows as u64 * u64::from(bits)).div_ceil(32);
                check_shape(zeros, &[words, groups])
            }
            _ => Err(wrong_shape(
                scales,
                "two dimensions, where zero points are packed",
            )),
        },
        _ => Err(wrong_dtype(zeros, "I8 or I32")),
    }
}

pub(super) fn load_packed(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<CodedWeight, ImportError> {
    let (mut plan, bits) = plan_packed(file, weight, main)?;
    let (rows, columns) = (plan.rows, plan.columns);
    let scale_info = file.part(weight, &name(main, "_scale"))?;
    let scales = file.scales(scale_info)?;
    let words = file.words(main)?;
    let across = words.len() / rows;
    let mut codes = Vec::new();
    reserve(
        &mut codes,
        rows as u64 * columns as u64,
        "the codes of a tensor",
    )?;
    for row in words.chunks_exact(across) {
        let word = |index: usize| row.get(index).copied().unwrap_or(0);
        codes.extend((0..columns).map(|column| field(word, bits, column)));
    }

    let mut zeros = Vec::new();
    if let Some(info) = file.tensor(&name(main, "_zero_point")) {
        reserve(
            &mut zeros,
            scales.len() as u64,
            "the zero points of a tensor",
        )?;
        if info.dtype() == Dtype::I8 {
            let offset = 1i16 << (bits - 1);
            for byte in file.bytes(info)? {
                let zero = i16::from(byte as i8) + offset;
                zeros.push(u16::try_from(zero).map_err(|_| ImportError::InvalidScale {
                    tensor: shorten(info.name()),
                    row: 0,
                    block: 0,
                    byte,
                    expected: "zero points have the range of the codes",
                })?);
            }
        } else {
            let words = file.words(info)?;
            let groups = scales.len() / rows;
            for row in 0..rows {
                for group in 0..groups {
                    let word =
                        |index: usize| words.get(index * groups + group).copied().unwrap_or(0);
                    zeros.push(u16::from(field(word, bits, row)));
                }
            }
        }
    }
    if let Some(order) = file.tensor(&name(main, "_g_idx")) {
        let groups = match plan.places {
            Places::Groups(group) => columns.div_ceil(group),
            _ => 1,
        };
        // −1 stands for columns in order.
        if groups > 1 && !file.words(order)?.contains(&u32::MAX) {
            plan.places = column_groups(file, weight, order, plan.places, groups)?;
        }
    }
    Ok(CodedWeight {
        plan,
        codes,
        scales,
        zeros,
        second: None,
    })
}

pub(super) fn plan_int(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<Plan, ImportError> {
    let (rows, columns) = two_dimensions(main)?;
    let scales = file.part(weight, &name(main, "_scale"))?;
    let scale = scale_type(scales)?;
    if scale == ScaleType::E8m0 {
        return Err(wrong_dtype(scales, "F32, F16 or BF16"));
    }
    let zeros = file.tensor(&name(main, "_zero_point"));
    if let Some(zeros) = zeros {
        check_dtype(zeros, Dtype::I8)?;
        check_zeros(zeros, scales, rows, 8)?;
    }
    Ok(Plan {
        rows,
        columns,
        element: integer(weight, 8, zeros.is_some())?,
        scale: Some(scale),
        zeros: zeros.is_some(),
        places: scale_places(scales, rows, columns, None)?,
    })
}

pub(super) fn load_int(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<CodedWeight, ImportError> {
    let plan = plan_int(file, weight, main)?;
    let scales = file.scales(file.part(weight, &name(main, "_scale"))?)?;
    // Codes count from the least integer on, and so do zero points.
    let mut codes = file.bytes(main)?;
    for code in &mut codes {
        *code ^= 0x80;
    }
    let mut zeros = Vec::new();
    if let Some(info) = file.tensor(&name(main, "_zero_point")) {
        zeros.extend(file.bytes(info)?.iter().map(|byte| u16::from(byte ^ 0x80)));
    }
    Ok(CodedWeight {
        plan,
        codes,
        scales,
        zeros,
        second: None,
    })
}

pub(super) fn plan_fp4(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
    fp4: Fp4,
) -> Result<Plan, ImportError> {
    check_dtype(main, Dtype::U8)?;
    let (rows, bytes) = two_dimensions(main)?;
    let columns = bytes
        .checked_mul(2)
        .ok_or_else(|| wrong_shape(main, "fewer columns"))?;
    let scales = file.part(weight, &name(main, "_scale"))?;
    check_shape(scales, &[rows as u64, columns.div_ceil(fp4.group()) as u64])?;
    let scale = match fp4 {
        Fp4::Nvidia | Fp4::ModelOpt => {
            check_dtype(scales, Dtype::F8E4m3)?;
            ScaleType::E4m3
        }
        Fp4::Microscaling => {
            if scale_type(scales)? != ScaleType::E8m0 {
                return Err(wrong_dtype(scales, "U8 or F8_E8M0"));
            }
            ScaleType::E8m0
        }
    };
    Ok(Plan {
        rows,
        columns,
        element: ElementFormat::E2M1,
        scale: Some(scale),
        zeros: false,
        places: Places::Groups(fp4.group()),
    })
}

pub(super) fn load_fp4(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
    fp4: Fp4,
) -> Result<CodedWeight, ImportError> {
    let plan = plan_fp4(file, weight, main, fp4)?;
    let info = file.part(weight, &name(main, "_scale"))?;
    let scales = file.scales(info)?;
    let second = match fp4 {
        Fp4::Nvidia => {
            let info = file.part(weight, &name(main, "_global_scale"))?;
            let reciprocal = single_scale(file, info)?.recip();
            if !reciprocal.is_finite() {
                return Err(non_finite(info, reciprocal));
            }
            Some(reciprocal)
        }
        Fp4::ModelOpt => Some(single_scale(
            file,
            file.part(weight, &name(main, "_scale_2"))?,
        )?),
        Fp4::Microscaling => {
            check_exponents(info, &scales)?;
            None
        }
    };
    let mut codes = Vec::new();
    reserve(
        &mut codes,
        plan.rows as u64 * plan.columns as u64,
        "the codes of a tensor",
    )?;
    file.read_chunks(main, 0..main.byte_size(), |bytes| {
        codes.extend(bytes.iter().flat_map(|&byte| [byte & 0xF, byte >> 4]));
    })?;
    Ok(CodedWeight {
        plan,
        codes,
        scales,
        zeros: Vec::new(),
        second,
    })
}
