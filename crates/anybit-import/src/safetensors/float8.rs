//! E4M3 and E5M2 weights: `weight`, and scales in `weight_scale` or `weight_scale_inv`.
//!
//! Both names are of factors: value = scale · number. DeepSeek-V3's `weight_scale_inv` is the inverse of what its
//! quantiser multiplied by (`weight_dequant` in its `kernel.py`: y = x · s), one for each block of 128 rows by 128 columns.

use anybit_formats::{ElementFormat, ScaleType};

use super::read::{scale_places, scale_type, two_dimensions};
use super::weight::{CodedWeight, Places, Plan};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo};
use crate::ImportError;

/// What the names of the scales have after that of the weight.
pub(super) const COMPANIONS: [&str; 2] = ["_scale", "_scale_inv"];

/// The tensor of the scales, if there is one.
fn scales<'a>(file: &'a SafetensorsFile, main: &TensorInfo) -> Option<&'a TensorInfo> {
    COMPANIONS
        .iter()
        .find_map(|suffix| file.tensor(&format!("{}{suffix}", main.name())))
}

pub(super) fn plan(
    file: &SafetensorsFile,
    _weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<Plan, ImportError> {
    let (rows, columns) = match *main.shape() {
        [_] if scales(file, main).is_none() => (1, main.elements() as usize),
        _ => two_dimensions(main)?,
    };
    let element = if main.dtype() == Dtype::F8E5m2 {
        ElementFormat::E5M2
    } else {
        ElementFormat::E4M3
    };
    let (scale, places) = match scales(file, main) {
        None => (None, Places::Tensor),
        Some(info) => (
            Some(scale_type(info)?),
            scale_places(info, rows, columns, file.config.weight_block_size)?,
        ),
    };
    Ok(Plan {
        rows,
        columns,
        element,
        scale,
        zeros: false,
        places,
    })
}

pub(super) fn load(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<CodedWeight, ImportError> {
    let plan = plan(file, weight, main)?;
    let scales = match scales(file, main) {
        None => Vec::new(),
        Some(info) => {
            let scales = file.scales(info)?;
            if plan.scale == Some(ScaleType::E8m0) {
                check_exponents(info, &scales)?;
            }
            scales
        }
    };
    Ok(CodedWeight {
        plan,
        codes: file.bytes(main)?,
        scales,
        zeros: Vec::new(),
        second: None,
    })
}

/// Checks that no exponent is the byte that stands for NaN.
pub(super) fn check_exponents(info: &TensorInfo, scales: &[f32]) -> Result<(), ImportError> {
    match scales.iter().position(|scale| scale.is_nan()) {
        None => Ok(()),
        Some(position) => {
            let columns = info.shape().last().copied().unwrap_or(1).max(1);
            Err(ImportError::InvalidScale {
                tensor: crate::gguf::shorten(info.name()),
                row: position as u64 / columns,
                block: position as u64 % columns,
                byte: u8::MAX,
                expected: "exponents are 0 to 254",
            })
        }
    }
}
