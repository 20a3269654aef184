//! NF4 and FP4 of bitsandbytes: `weight`, and beside it `weight.absmax`, `weight.quant_map` and
//! `weight.quant_state.bitsandbytes__nf4` (or `__fp4`), as `QuantState.as_dict` of its `functional.py` packs them.
//!
//! `weight` is bytes of two codes, the first in the high bits, of the matrix row after row; some store the bytes as
//! another type. Each block of so many elements has a scale, `absmax`. With double quantisation `absmax` is bytes, and
//! the scale is `nested_quant_map[byte] · nested_absmax[block] + nested_offset`, each operation rounded to f32. The
//! quant state is JSON in bytes.

use anybit_formats::{CodebookFormat, ElementFormat, ScaleType};
use serde::Deserialize;

use super::header::Shape;
use super::read::{check_dtype, check_shape, index, non_finite, wrong_shape};
use super::weight::{CodedWeight, Places, Plan};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo, WeightLayout};
use crate::ImportError;
use crate::gguf::{reserve, shorten};

/// What the names of the other tensors have after that of the weight, but for the quant state.
pub(super) const COMPANIONS: [&str; 4] = [
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
];

/// The longest quant state that is read.
const STATE_LIMIT: u64 = 1 << 16;

/// The table of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Nf4,
    Fp4,
}

impl Code {
    pub(super) const ALL: [Self; 2] = [Self::Nf4, Self::Fp4];

    /// What the name of the quant state has after that of the weight.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Nf4 => ".quant_state.bitsandbytes__nf4",
            Self::Fp4 => ".quant_state.bitsandbytes__fp4",
        }
    }

    pub(super) fn layout(self) -> WeightLayout {
        match self {
            Self::Nf4 => WeightLayout::BitsAndBytesNf4,
            Self::Fp4 => WeightLayout::BitsAndBytesFp4,
        }
    }

    fn codebook(self) -> CodebookFormat {
        match self {
            Self::Nf4 => CodebookFormat::NF4,
            Self::Fp4 => CodebookFormat::FP4BNB,
        }
    }
}

/// What is read of the JSON.
#[derive(Deserialize)]
pub(super) struct State {
    blocksize: u64,
    shape: Shape,
    nested_blocksize: Option<u64>,
    nested_offset: Option<f64>,
}

fn part<'a>(
    file: &'a SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
    suffix: &str,
) -> Result<&'a TensorInfo, ImportError> {
    file.part(weight, &format!("{}{suffix}", main.name()))
}

pub(super) fn plan(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
    code: Code,
) -> Result<(Plan, State), ImportError> {
    let text = part(file, weight, main, code.suffix())?;
    check_dtype(text, Dtype::U8)?;
    if text.byte_size() > STATE_LIMIT {
        return Err(ImportError::TooLong {
            what: "a quant state",
            length: text.byte_size(),
            limit: STATE_LIMIT,
        });
    }
    let state: State =
        serde_json::from_slice(&file.bytes(text)?).map_err(|source| ImportError::InvalidJson {
            what: "a quant state",
            source: source.into(),
        })?;
    let [rows, columns] = match *state.shape.0.as_slice() {
        [columns] => [1, columns],
        [rows, columns] => [rows, columns],
        _ => {
            return Err(ImportError::NotAMatrix {
                tensor: shorten(weight.name()),
                dimensions: state.shape.0,
            });
        }
    };
    let elements = rows.checked_mul(columns).filter(|&elements| elements > 0);
    let Some(elements) = elements.filter(|elements| elements.div_ceil(2) == main.byte_size())
    else {
        return Err(wrong_shape(
            main,
            format!("{rows} x {columns} codes of 4 bits, as the quant state says"),
        ));
    };
    let setting = |setting, value: u64| ImportError::Setting {
        weight: shorten(weight.name()),
        setting,
        value: value.to_string(),
        expected: "it must be above 0".to_owned(),
    };
    if state.blocksize == 0 {
        return Err(setting("blocksize", state.blocksize));
    }
    let blocks = elements.div_ceil(state.blocksize);
    let absmax = part(file, weight, main, ".absmax")?;
    check_shape(absmax, &[blocks])?;
    let map = part(file, weight, main, ".quant_map")?;
    check_dtype(map, Dtype::F32)?;
    check_shape(map, &[16])?;
    if absmax.dtype() == Dtype::U8 {
        let block = state.nested_blocksize.unwrap_or(0);
        if block == 0 {
            return Err(setting("nested_blocksize", block));
        }
        let nested = part(file, weight, main, ".nested_absmax")?;
        check_dtype(nested, Dtype::F32)?;
        check_shape(nested, &[blocks.div_ceil(block)])?;
        let map = part(file, weight, main, ".nested_quant_map")?;
        check_dtype(map, Dtype::F32)?;
        check_shape(map, &[256])?;
    } else {
        check_dtype(absmax, Dtype::F32)?;
    }
    let plan = Plan {
        rows: index(rows, "the rows of a tensor")?,
        columns: index(columns, "the columns of a tensor")?,
        element: ElementFormat::Codebook(code.codebook()),
        scale: Some(ScaleType::F32),
        zeros: false,
        // A block beyond the matrix is as good as one that ends with it.
        places: Places::Flat(index(state.blocksize.min(elements), "a block")?),
    };
    Ok((plan, state))
}

pub(super) fn load(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
    code: Code,
) -> Result<CodedWeight, ImportError> {
    let (plan, state) = plan(file, weight, main, code)?;
    // Kernels have the table built in, so another one would not be obeyed.
    let map = part(file, weight, main, ".quant_map")?;
    if file.scales(map)? != code.codebook().values() {
        return Err(ImportError::Setting {
            weight: shorten(weight.name()),
            setting: "quant_map",
            value: "another table".to_owned(),
            expected: format!("{} has the one of bitsandbytes", weight.layout()),
        });
    }

    let absmax = part(file, weight, main, ".absmax")?;
    let scales = if absmax.dtype() == Dtype::U8 {
        let nested = part(file, weight, main, ".nested_absmax")?;
        let (tables, factors) = (
            file.scales(part(file, weight, main, ".nested_quant_map")?)?,
            file.scales(nested)?,
        );
        // As PyTorch makes a tensor of the number.
        let offset = state.nested_offset.unwrap_or(0.0) as f32;
        if !offset.is_finite() {
            return Err(non_finite(nested, offset));
        }
        let block = index(state.nested_blocksize.unwrap_or(1), "a block").unwrap_or(usize::MAX);
        let bytes = file.bytes(absmax)?;
        let mut scales = Vec::new();
        reserve(&mut scales, bytes.len() as u64, "the scales of a tensor")?;
        for (bytes, &factor) in bytes.chunks(block.max(1)).zip(&factors) {
            scales.extend(bytes.iter().map(|&byte| {
                let scaled = tables.get(usize::from(byte)).copied().unwrap_or(0.0) * factor;
                scaled + offset
            }));
        }
        scales
    } else {
        file.scales(absmax)?
    };

    let mut codes = Vec::new();
    let count = reserve(
        &mut codes,
        plan.rows as u64 * plan.columns as u64,
        "the codes of a tensor",
    )?;
    file.read_chunks(main, 0..main.byte_size(), |bytes| {
        let left = count - codes.len();
        codes.extend(
            bytes
                .iter()
                .flat_map(|&byte| [byte >> 4, byte & 0xF])
                .take(left),
        );
    })?;
    Ok(CodedWeight {
        plan,
        codes,
        scales,
        zeros: Vec::new(),
        second: None,
    })
}
