//! The kernels around the products: quantising, decoding, gathering, norms and gates, attention, drawing.

use std::collections::HashSet;

use anybit::{
    Attention, Context, Gate, KvFormat, KvShape, OutputFormat, RowSource, Sampling,
    decode_specialization, model_specializations, quantize_specialization,
};
use anybit_formats::{DeviceLayout, LMul, PackedMatrix, QuantizeRowsOptions};
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_reference::quantize::codes_within;
use anybit_reference::{Source, kernel};

use super::{Case, Device, Outcome, Runner, execute, judge};
use crate::kv::{random_cache, shape_of, upload};
use crate::model::{bounded, filled, input, read, values, words};
use crate::operand::{Fill, format, operand};
use crate::random::Random;
use crate::rig::buffer_of;

const SEED: u64 = 0xb17e;

/// Formats that a matrix is decoded and gathered from.
const STORED: [&str; 8] = [
    "u4g32hm",
    "bf16",
    "e4m3rf",
    "nf4g32h",
    "u4g32sm",
    "i3rf",
    "power5rf",
    "bitmod4g32qc",
];

/// Formats that rows are quantised to.
const QUANTIZED: [&str; 6] = ["i8rf", "u4rf", "e4m3rf", "b1rf", "i4g16f", "e2m1g32e"];

/// Every kernel with a reference here, run where the device runs; and every shader of these kernels, judged.
pub fn cases(device: Device, all: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    // Without subgroups, and what differs with them.
    if device.runs {
        cases.push(attention(device, KvFormat::F16, 1));
        cases.push(attention(device, KvFormat::Int8, 5));
        cases.push(cross_entropy(device));
    }
    if device == Device::FLOOR {
        cases.extend(QUANTIZED.map(quantize));
        cases.extend(STORED.map(decode));
        cases.extend(STORED.into_iter().take(4).map(gather));
        cases.extend([false, true].map(norm));
        cases.push(gate());
        cases.extend([draw(), advance(), l_mul()]);
    }
    cases.extend(judged(device, all));
    cases
}

/// Shaders that the compiler judges. Unless `all` are wanted, those of one number of channels for each that share the rest.
fn judged(device: Device, all: bool) -> Vec<Case> {
    let mut seen = HashSet::new();
    let mut specializations = model_specializations(&device.caps());
    if device == Device::FLOOR {
        let layout = DeviceLayout::ROW_MAJOR;
        let quantized = QUANTIZED.into_iter().chain(["tg32f", "nf4rf", "i3g96f"]);
        specializations.extend(quantized.filter_map(|name| {
            quantize_specialization(&device.caps(), &format(name), &layout).ok()
        }));
        let stored = STORED.map(|name| decode_specialization(&format(name), &layout));
        specializations.extend(stored);
    } else {
        specializations.retain(|specialization| specialization.subgroup);
    }
    // What tells shaders apart but for a size.
    let kind = |id: &str| id.replace(|letter: char| letter.is_ascii_digit(), "");
    specializations.retain(|specialization| {
        let id = &specialization.id;
        seen.insert(if all { id.clone() } else { kind(id) })
    });
    specializations
        .into_iter()
        .map(|specialization| {
            let id = format!("{}/{}/judged", specialization.id, device.name());
            let (stem, _) = specialization.id.split_once("__").unwrap_or_default();
            let contract = stem.to_owned();
            Case::new(id, "shaders of rows and models", contract, move |runner| {
                judge(runner, &specialization)
            })
        })
        .collect()
}

/// A case of a kernel that is in no table.
fn case(
    device: Device,
    kernel: &str,
    what: &str,
    run: impl Fn(&mut dyn Runner, &Context) -> Result<Outcome, Outcome> + Send + Sync + 'static,
) -> Case {
    let contract = format!("{kernel}_{what}");
    let id = format!("{contract}/{}", device.name());
    Case::new(id, kernel, contract, move |runner| {
        run(runner, &device.context())
    })
}

/// Compares values with what they must be within.
fn within(found: &[f32], expected: &[Bounded]) -> Result<Outcome, Outcome> {
    match bounded(found, expected) {
        None => Ok(Outcome::Bounded),
        Some(wrong) => Err(wrong.into()),
    }
}

fn exactly<T: PartialEq + std::fmt::Debug>(
    found: &[T],
    expected: &[T],
) -> Result<Outcome, Outcome> {
    match crate::compare::equal(found, expected) {
        None => Ok(Outcome::Exact),
        Some(wrong) => Err(wrong.into()),
    }
}

/// Columns that a format takes, more than one group.
fn columns_of(name: &str) -> usize {
    match name {
        _ if name.contains("g32s") => 512,
        _ if name.contains('g') => 96,
        _ => 75,
    }
}

fn matrix(name: &str, rows: usize) -> PackedMatrix {
    let shape = (rows, columns_of(name));
    operand(&format(name), shape, Fill::Random, &mut Random::new(SEED))
}

fn quantize(name: &'static str) -> Case {
    case(Device::FLOOR, "quantize", name, move |runner, context| {
        let (format, columns, rows) = (format(name), columns_of(name), 5);
        let x = values(rows * columns, 4.0, &mut Random::new(SEED));
        let source = input(context, &x, (rows, columns), 1)?;
        let output = context.allocate(format, rows, columns, &DeviceLayout::ROW_MAJOR)?;
        let prepared = context.prepare_quantize(&source, &output)?;
        execute(runner, context, &[&prepared.work], &Vec::new())?;
        let matrix = context.download(&output)?;
        let inverses = prepared.inverses.ok_or("the matrix is not empty")?;
        // Copied to a length that can be read.
        let size = inverses.size().next_multiple_of(16);
        let copy = buffer_of(context, (0..size / 4).map(|_| 0));
        context.submit(|encoder| {
            encoder.copy_buffer_to_buffer(&inverses, 0, &copy, 0, inverses.size());
            Ok(())
        })?;
        let inverses = words(context, &copy)?;

        let (model, options) = (ErrorModel::WGSL, QuantizeRowsOptions::default());
        let (groups, length) = (format.groups(columns), format.group_len(columns));
        let exact = |&value: &f32| Bounded {
            value: f64::from(value),
            bound: 0.0,
        };
        for (place, inverse) in inverses.into_iter().enumerate().take(rows * groups) {
            let (row, group) = (place / groups, place % groups);
            let first = row * columns + group * length;
            let x: Vec<Bounded> = x[first..][..length].iter().map(exact).collect();
            let (scale, inverse) = (matrix.scale(row, group), f32::from_bits(inverse));
            if !model
                .scale_within(&x, &format, options.scale_rule)?
                .holds(scale)
                || !model.inverse(scale).holds(inverse)
            {
                return Err(format!("row {row}: scale {scale:e}, inverse {inverse:e}").into());
            }
            let allowed = codes_within(&x, inverse, &format, &options, first as u64);
            for (index, allowed) in allowed.into_iter().enumerate() {
                let code = matrix.code(row, group * length + index).ok_or("a code")?;
                if !allowed.contains(code) {
                    let x = x[index].value;
                    return Err(format!("row {row}: {x} became {code}, not {allowed:?}").into());
                }
            }
        }
        Ok(Outcome::Bounded)
    })
}

fn decode(name: &'static str) -> Case {
    case(Device::FLOOR, "decode", name, move |runner, context| {
        let matrix = matrix(name, 5);
        let shape = (matrix.rows(), matrix.columns());
        let uploaded = context.upload(&matrix, &DeviceLayout::ROW_MAJOR)?;
        let output = context.output(OutputFormat::F32, shape.0, shape.1)?;
        let prepared = context.prepare_decode(&uploaded, &output)?;
        execute(runner, context, &[&prepared], &Vec::new())?;
        let bounds = ErrorModel::WGSL.decode(&matrix);
        let pairs = matrix.decode_f64().into_iter().zip(bounds);
        let expected = pairs.map(|(value, bound)| Bounded { value, bound });
        within(&read(context, &output)?, &expected.collect::<Vec<_>>())
    })
}

fn gather(name: &'static str) -> Case {
    case(Device::FLOOR, "gather", name, move |runner, context| {
        let matrix = matrix(name, 7);
        let (ids, factor, columns) = ([0, 6, 3, 3], -0.37, matrix.columns());
        let uploaded = context.upload(&matrix, &DeviceLayout::ROW_MAJOR)?;
        let sequence = context.sequence(2 + ids.len())?;
        context.write_tokens(&sequence, 2, &ids)?;
        context.write_done(&sequence, 2)?;
        let shape = (ids.len(), columns);
        let output = filled(context, &vec![0.0; ids.len() * columns], shape, 1)?;
        let work = context.prepare_gather(&uploaded, factor, &sequence, &output)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let all = ErrorModel::WGSL.gather(&matrix, factor);
        let rows = ids
            .iter()
            .map(|&id| &all[id as usize * columns..][..columns]);
        within(&read(context, &output)?, &rows.collect::<Vec<_>>().concat())
    })
}

fn norm(residual: bool) -> Case {
    let what = if residual {
        "rms_norm_residual"
    } else {
        "rms_norm"
    };
    case(Device::FLOOR, "write_rows", what, move |runner, context| {
        let (rows, columns, epsilon) = (3, 257, 1.0e-5);
        let mut random = Random::new(SEED);
        let x = values(rows * columns, 4.0, &mut random);
        let weight = values(columns, 3.0, &mut random);
        let added = values(rows * columns, 5.0, &mut random);
        let source = input(context, &x, (rows, columns), 0)?;
        let weights = input(context, &weight, (1, columns), 1)?;
        let output = filled(context, &vec![0.0; x.len()], (rows, columns), 1)?;
        let residuals = filled(context, &added, (rows, columns), 1)?;
        let on_device = RowSource::RmsNorm {
            weight: &weights,
            epsilon,
        };
        let work =
            context.prepare_rows(&source, &on_device, residual.then_some(&residuals), &output)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let host = Source::RmsNorm {
            weight: &weight,
            epsilon,
        };
        let mut expected = Vec::new();
        for row in x.chunks(columns) {
            expected.extend(ErrorModel::WGSL.source(&host, row)?);
        }
        if residual {
            for (expected, &residual) in expected.iter_mut().zip(&added) {
                *expected = ErrorModel::WGSL.with_residual(*expected, residual);
            }
        }
        within(&read(context, &output)?, &expected)
    })
}

fn gate() -> Case {
    case(Device::FLOOR, "write_rows", "silu", |runner, context| {
        let (rows, columns, up) = (3, 70, 72);
        let width = up + columns;
        let x = values(rows * width, 4.0, &mut Random::new(SEED));
        let source = input(context, &x, (rows, width), 0)?;
        let output = filled(context, &vec![0.0; rows * columns], (rows, columns), 1)?;
        let on_device = RowSource::Gated {
            gate: Gate::Silu,
            columns,
            up,
        };
        let work = context.prepare_rows(&source, &on_device, None, &output)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let host = Source::Gated {
            gate: anybit_reference::Gate::Silu,
            columns,
            up,
        };
        let mut expected = Vec::new();
        for row in x.chunks(width) {
            expected.extend(ErrorModel::WGSL.source(&host, row)?);
        }
        within(&read(context, &output)?, &expected)
    })
}

fn attention(device: Device, kv: KvFormat, rows: usize) -> Case {
    let what = format!("{kv}_rows{rows}");
    case(device, "attention", &what, move |runner, context| {
        // One row attends in stretches, which a second kernel merges.
        let (heads, group, head_dim, done) = (1, 2, 64, 300);
        let shape = KvShape {
            heads,
            head_dim,
            capacity: 600,
            step: 64,
        };
        let mut random = Random::new(SEED);
        let cache = context.kv_cache(kv, shape)?;
        let host = random_cache(shape_of(kv, shape), 2.0, &mut random);
        upload(context, &cache, &host)?;
        let width = heads * group * head_dim;
        let queries = values(rows * width, 3.0, &mut random);
        let sequence = context.sequence(shape.capacity)?;
        context.write_done(&sequence, done)?;
        let source = filled(context, &queries, (rows, width), 1)?;
        let output = filled(context, &vec![0.0; queries.len()], (rows, width), 2)?;
        let attention = Attention::new(0.125).with_window(Some(270));
        let work = context.prepare_attention(&attention, &source, &cache, &sequence, &output)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let on_host = kernel::Attention {
            scale: attention.scale,
            window: attention.window,
            cap: attention.cap,
        };
        let expected = ErrorModel::WGSL.attention(&on_host, &queries, heads * group, &host, done);
        within(&read(context, &output)?, &expected)
    })
}

fn cross_entropy(device: Device) -> Case {
    case(device, "cross_entropy", "f32", |runner, context| {
        let (rows, columns) = (3, 255);
        let mut random = Random::new(SEED);
        let logits = values(rows * columns, 6.0, &mut random);
        let ids: Vec<u32> = (0..rows).map(|_| random.below(columns) as u32).collect();
        let sequence = context.sequence(rows + 1)?;
        context.write_tokens(&sequence, 1, &ids)?;
        context.write_done(&sequence, 0)?;
        let source = filled(context, &logits, (rows, columns), 1)?;
        let output = filled(context, &vec![0.0; rows], (rows, 1), 0)?;
        let work = context.prepare_cross_entropy(&source, None, &sequence, 0, &output)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let rows = logits.chunks(columns).zip(ids);
        let expected = rows.map(|(row, id)| ErrorModel::WGSL.cross_entropy(row, None, id));
        within(&read(context, &output)?, &expected.collect::<Vec<_>>())
    })
}

fn draw() -> Case {
    case(Device::FLOOR, "draw", "f32", |runner, context| {
        let logits = values(1025, 6.0, &mut Random::new(SEED));
        let sampling = Sampling::temperature(0.7, 9).with_top_k(40).with_top_p(0.5);
        let sequence = context.sequence(8)?;
        context.write_done(&sequence, 0)?;
        let source = filled(context, &logits, (1, logits.len()), 0)?;
        let work = context.prepare_draw(&source, None, &sampling, &sequence, 1)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let words = words(context, sequence.buffer())?;
        let host = kernel::Sampling {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: 1 << 31,
            seed: sampling.seed,
            cap: None,
        };
        let allowed = ErrorModel::WGSL.draw(&logits, &host, 1);
        match allowed.contains(&(words[1] as usize)) {
            true => Ok(Outcome::Bounded),
            false => Err(format!("drew {}, expected {allowed:?}", words[1]).into()),
        }
    })
}

fn advance() -> Case {
    case(Device::FLOOR, "advance", "u32", |runner, context| {
        let sequence = context.sequence(60)?;
        context.write_done(&sequence, 7)?;
        let work = context.prepare_advance(&sequence, 5)?;
        execute(runner, context, &[&work, &work], &Vec::new())?;
        let mut expected = 7;
        kernel::advance(&mut expected, 5);
        kernel::advance(&mut expected, 5);
        exactly(&words(context, sequence.buffer())?[..1], &[expected])
    })
}

fn l_mul() -> Case {
    case(Device::FLOOR, "l_mul", "m4", |runner, context| {
        let (shape, l_mul) = ((3, 75), LMul::new(4)?);
        let mut random = Random::new(SEED);
        let [x, y] = [0; 2].map(|_| values(shape.0 * shape.1, 9.0, &mut random));
        let output = filled(context, &vec![0.0; x.len()], shape, 1)?;
        let on_device = [&x, &y].map(|values| input(context, values, shape, 0));
        let [first, second] = on_device;
        let work = context.prepare_l_mul(&first?, &second?, &output, l_mul)?;
        execute(runner, context, &[&work], &Vec::new())?;
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let products = x.iter().zip(&y);
        let expected = products.map(|(&x, &y)| l_mul.product(x, y)).collect();
        exactly(&bits(read(context, &output)?), &bits(expected))
    })
}
