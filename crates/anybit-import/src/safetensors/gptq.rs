//! GPTQ and AWQ: `qweight`, `qzeros`, `scales` and, of GPTQ, `g_idx`, for K inputs and N outputs in G groups.
//!
//! GPTQ (AutoGPTQ, `QuantLinear.pack`): `qweight` is [K · bits / 32, N] words, the codes of a column one after the other
//! from the lowest bits up, those of 3 bits across words; `qzeros` is [G, N · bits / 32] words, packed so along the rows,
//! each zero point less one; `scales` is [G, N]; `g_idx` is the group of each input. In `gptq_v2` (GPTQModel) zero points
//! are as they are.
//!
//! AWQ (AutoAWQ, `WQLinear_GEMM`): `qweight` is [K, N / 8] words and `qzeros` is [G, N / 8], eight outputs a word in the
//! order 0, 2, 4, 6, 1, 3, 5, 7; zero points are as they are.

use anybit_formats::ElementFormat;

use super::read::{
    check_dtype, check_shape, groups_of, scale_type, two_dimensions, u32_from, wrong_dtype,
    wrong_shape,
};
use super::weight::{CodedWeight, Places, Plan, field};
use super::{Dtype, SafetensorsFile, TensorInfo, WeightInfo, WeightLayout};
use crate::ImportError;
use crate::gguf::{reserve, shorten};

/// The names after the stem of the other tensors.
pub(super) const COMPANIONS: [&str; 3] = ["qzeros", "scales", "g_idx"];

/// Which output of eight each 4-bit field of a word of AWQ is.
const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// What the name of a `qweight` tensor has before that.
pub(super) fn stem(name: &str) -> Option<&str> {
    name.strip_suffix("qweight")
        .filter(|stem| stem.is_empty() || stem.ends_with('.'))
}

fn part_name(main: &TensorInfo, part: &str) -> String {
    format!("{}{part}", stem(main.name()).unwrap_or(""))
}

/// GPTQ and AWQ have tensors of the same names; the shapes tell which it is.
pub(super) fn layout(file: &SafetensorsFile, main: usize) -> WeightLayout {
    let awq = file.tensors.get(main).is_some_and(|main| {
        let outputs = file
            .tensor(&part_name(main, "scales"))
            .and_then(|scales| scales.shape().last());
        match (main.shape(), outputs) {
            (&[_, words], Some(&outputs)) => {
                words != outputs && words.checked_mul(8) == Some(outputs)
            }
            _ => false,
        }
    });
    if awq {
        WeightLayout::Awq
    } else {
        WeightLayout::Gptq
    }
}

pub(super) struct GptqPlan {
    pub(super) plan: Plan,
    bits: u32,
    groups: usize,
    /// What is added to a stored zero point.
    zero_offset: u16,
}

pub(super) fn plan(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<GptqPlan, ImportError> {
    let scales = file.part(weight, &part_name(main, "scales"))?;
    let zeros = file.part(weight, &part_name(main, "qzeros"))?;
    check_dtype(main, Dtype::I32)?;
    check_dtype(zeros, Dtype::I32)?;
    let scale = scale_type(scales)?;
    if matches!(scales.dtype(), Dtype::U8 | Dtype::F8E8m0) {
        return Err(wrong_dtype(scales, "F16, BF16 or F32"));
    }
    let (groups, rows) = two_dimensions(scales)?;
    let (main_down, main_across) = two_dimensions(main)?;
    let (zeros_down, zeros_across) = two_dimensions(zeros)?;
    if zeros_down != groups {
        return Err(wrong_shape(
            zeros,
            format!("{groups} rows, as {:?} has", scales.name()),
        ));
    }
    let setting = |setting, value: &str, expected: &str| ImportError::Setting {
        weight: shorten(weight.name()),
        setting,
        value: shorten(value),
        expected: expected.to_owned(),
    };

    let (bits, columns, zero_offset);
    if weight.layout() == WeightLayout::Awq {
        if let Some(version) = file
            .config
            .version
            .as_deref()
            .filter(|&version| version != "gemm")
        {
            return Err(setting("version", version, "of AWQ only \"gemm\" is read"));
        }
        (bits, columns, zero_offset) = (4, main_down, 0);
        check_shape(zeros, &[groups as u64, main_across as u64])?;
    } else {
        if main_across != rows {
            return Err(wrong_shape(
                main,
                format!("{rows} columns, as {:?} has", scales.name()),
            ));
        }
        zero_offset = match file.config.checkpoint_format.as_deref() {
            None | Some("gptq") => 1,
            Some("gptq_v2") => 0,
            Some(other) => {
                return Err(setting(
                    "checkpoint_format",
                    other,
                    "\"gptq\" and \"gptq_v2\" are read",
                ));
            }
        };
        bits = [2, 3, 4, 8]
            .into_iter()
            .find(|&bits| rows as u64 * bits == zeros_across as u64 * 32)
            .ok_or_else(|| {
                wrong_shape(
                    zeros,
                    format!("{rows} zero points of 2, 3, 4 or 8 bits a row"),
                )
            })? as u32;
        let bits_down = main_down as u64 * 32;
        if !bits_down.is_multiple_of(u64::from(bits)) {
            return Err(wrong_shape(
                main,
                format!("whole codes of {bits} bits a column"),
            ));
        }
        columns = (bits_down / u64::from(bits)) as usize;
    }
    if let Some(other) = file.config.bits.filter(|&other| other != bits) {
        return Err(setting(
            "bits",
            &other.to_string(),
            &format!("the tensors have {bits}"),
        ));
    }
    if let Some(order) = file.tensor(&part_name(main, "g_idx")) {
        check_shape(order, &[columns as u64])?;
        check_dtype(order, Dtype::I32)?;
    }
    let configured = file
        .config
        .group_size
        .and_then(|group| usize::try_from(group).ok())
        .filter(|&group| group > 0 && columns.div_ceil(group) == groups);
    let group = configured
        .or_else(|| groups_of(columns, groups as u64))
        .ok_or_else(|| wrong_shape(scales, format!("groups of {columns} columns")))?;
    Ok(GptqPlan {
        plan: Plan {
            rows,
            columns,
            element: match bits {
                2 => ElementFormat::UINT2,
                3 => ElementFormat::UINT3,
                4 => ElementFormat::UINT4,
                _ => ElementFormat::UINT8,
            },
            scale: Some(scale),
            zeros: true,
            places: Places::Groups(group),
        },
        bits,
        groups,
        zero_offset,
    })
}

pub(super) fn load(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    main: &TensorInfo,
) -> Result<CodedWeight, ImportError> {
    let GptqPlan {
        mut plan,
        bits,
        groups,
        zero_offset,
    } = plan(file, weight, main)?;
    let (rows, columns) = (plan.rows, plan.columns);
    let scales = file.scales(file.part(weight, &part_name(main, "scales"))?)?;
    let zeros = file.words(file.part(weight, &part_name(main, "qzeros"))?)?;
    let words = file.words(main)?;
    let word = |index: usize| words.get(index).copied().unwrap_or(0);

    let mut codes = Vec::new();
    let count = reserve(
        &mut codes,
        rows as u64 * columns as u64,
        "the codes of a tensor",
    )?;
    codes.resize(count, 0);
    let awq = weight.layout() == WeightLayout::Awq;
    // Some rows at a time, so that neither what is read nor what is written strays far.
    const BAND: usize = 16;
    for (band, codes) in codes.chunks_mut(BAND * columns).enumerate() {
        let first = band * BAND;
        if awq {
            for column in 0..columns {
                for (row, codes) in codes.chunks_exact_mut(columns).enumerate() {
                    let row = first + row;
                    let place = AWQ_ORDER
                        .iter()
                        .position(|&output| output == row % 8)
                        .unwrap_or(0);
                    let word = word(column * (rows / 8) + row / 8);
                    if let Some(code) = codes.get_mut(column) {
                        *code = (word >> (4 * place) & 0xF) as u8;
                    }
                }
            }
        } else {
            // 32 codes take as many words as they have bits.
            for unit in 0..columns.div_ceil(32) {
                for (row, codes) in codes.chunks_exact_mut(columns).enumerate() {
                    let words =
                        |index: usize| word((unit * bits as usize + index) * rows + first + row);
                    let start = unit * 32;
                    for (index, code) in codes.iter_mut().skip(start).take(32).enumerate() {
                        *code = field(words, bits, index);
                    }
                }
            }
        }
    }

    // From [G, N] to [N, G].
    let across = zeros.len() / groups;
    let zero = |group: usize, row: usize| {
        let words = |index: usize| zeros.get(group * across + index).copied().unwrap_or(0);
        if awq {
            let place = AWQ_ORDER
                .iter()
                .position(|&output| output == row % 8)
                .unwrap_or(0);
            (words(row / 8) >> (4 * place) & 0xF) as u16
        } else {
            u16::from(field(words, bits, row)) + zero_offset
        }
    };
    let (mut by_row, mut zeros_by_row) = (Vec::new(), Vec::new());
    reserve(&mut by_row, scales.len() as u64, "the scales of a tensor")?;
    reserve(
        &mut zeros_by_row,
        scales.len() as u64,
        "the zero points of a tensor",
    )?;
    for row in 0..rows {
        for group in 0..groups {
            by_row.push(scales.get(group * rows + row).copied().unwrap_or(0.0));
            zeros_by_row.push(zero(group, row));
        }
    }

    if let Some(order) = file.tensor(&part_name(main, "g_idx")) {
        plan.places = column_groups(file, weight, order, plan.places, groups)?;
    }
    Ok(CodedWeight {
        plan,
        codes,
        scales: by_row,
        zeros: zeros_by_row,
        second: None,
    })
}

/// The groups that a tensor lists for each column: `places`, if it lists those.
pub(super) fn column_groups(
    file: &SafetensorsFile,
    weight: &WeightInfo,
    order: &TensorInfo,
    places: Places,
    groups: usize,
) -> Result<Places, ImportError> {
    let mut of_column = Vec::new();
    reserve(&mut of_column, order.elements(), "the groups of columns")?;
    file.read_chunks(order, 0..order.byte_size(), |bytes| {
        of_column.extend(bytes.chunks_exact(4).map(u32_from));
    })?;
    if let Places::Groups(group) = places {
        let in_order = of_column
            .iter()
            .enumerate()
            .all(|(column, &of)| of as usize == column / group);
        if in_order {
            return Ok(places);
        }
    }
    let wrong = of_column
        .iter()
        .enumerate()
        .find(|(_, group)| **group as usize >= groups);
    match wrong {
        Some((column, &group)) => Err(ImportError::GroupOutOfRange {
            weight: shorten(weight.name()),
            column: column as u64,
            group: i64::from(group as i32),
            groups: groups as u64,
        }),
        None => Ok(Places::Listed { groups, of_column }),
    }
}
