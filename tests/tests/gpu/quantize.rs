//! Quantising on the GPU: the scale within its bound, the codes exact from the inverse that the kernel emits, sums and
//! padding exact (reading a matrix back checks them).

use anybit::{
    Context, DeviceMatrix, OutputFormat, OutputMatrix, quantize_specialization_with, wgpu,
};
use anybit_formats::quantize::rounding;
use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, Granularity, MatrixFormat, Memory, Overflow,
    PackedMatrix, PieceLayout, QuantizeRowsOptions, Rounding, ScaleLayout, ScaleRule, ScaleType,
    SpecialValues, SumLayout, ZeroKind, layout::piece_widths,
};
use anybit_reference::bound::ErrorModel;
use anybit_reference::quantize::{codes_allowed_with, codes_given_with};
use anybit_shaders::{Header, LinkRequest, Modules};
use anybit_tests::cover::each_level;
use anybit_tests::full;
use anybit_tests::random::Random;
use anybit_tests::raw;
use anybit_tests::rig::{Rig, buffer_of, on_each_adapter};

use super::decode::element_classes;

const GRANULARITIES: [Granularity; 5] = [
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(96),
    Granularity::Group(128),
];
const INTERLEAVES: [u32; 3] = [1, 4, 32];

/// Rows of all kinds: ordinary, constant, zero, huge, tiny, subnormal, one-sided, with a single large value.
const ROWS: usize = 13;

/// Whether the GPU quantises into an element.
fn is_quantised(element: ElementFormat) -> bool {
    let large = element
        .codebook()
        .is_some_and(|codebook| codebook.bits() > 4);
    element.has_codes() && !element.has_choices() && !large
}

fn values(columns: usize, random: &mut Random) -> Vec<f32> {
    let mut values = Vec::with_capacity(ROWS * columns);
    for row in 0..ROWS {
        for column in 0..columns {
            let x = random.signed();
            values.push(match row {
                0 => 0.0,
                1 => -0.0,
                2 => 3.5,
                3 => -3.5,
                4 => x * 1.0e35,
                5 => x * 1.0e-37,
                6 => x * 1.0e-41,
                7 => x.abs(),
                8 => -x.abs(),
                9 if column == columns / 2 => 1000.0,
                // Halves, to meet ties.
                10 => (x * 16.0).round() / 2.0,
                11 if column % 2 == 0 => 0.0,
                _ => x,
            });
        }
    }
    values
}

/// What the GPU made of the values: the matrix and the inverses.
fn quantize(
    context: &Context,
    values: &[f32],
    columns: usize,
    format: MatrixFormat,
    layout: &DeviceLayout,
    options: &QuantizeRowsOptions,
) -> Result<(PackedMatrix, Vec<f32>), anybit::Error> {
    let rows = values.len() / columns;
    let input = context.upload_f32(values, rows, columns)?;
    let output = context.allocate(format, rows, columns, layout)?;
    let prepared = context.prepare_quantize_with(&input, &output, options)?;
    let inverses = prepared.inverses.expect("the matrix is not empty");
    let mut encoder = context.device().create_command_encoder(&Default::default());
    prepared.work.encode_pass(&mut encoder);
    // A copy whose length is one that a matrix may have.
    let words = (inverses.size() / 4).next_multiple_of(4) as usize;
    let copy = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * words as u64,
        usage: wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(&inverses, 0, &copy, 0, inverses.size());
    let view = OutputMatrix::from_buffer(&copy, 0, OutputFormat::F32, (1, words), words)?;
    let pending = context.encode_read(&mut encoder, &view)?;
    context.queue().submit([encoder.finish()]);
    let mut inverses_read = pending.read_blocking()?.into_f32().unwrap_or_default();
    inverses_read.truncate((inverses.size() / 4) as usize);
    Ok((context.download(&output)?, inverses_read))
}

/// Compares each group with the rule. Returns how many codes are not those of rounding to nearest.
fn compare(
    values: &[f32],
    matrix: &PackedMatrix,
    inverses: &[f32],
    options: &QuantizeRowsOptions,
    what: &str,
) -> Result<usize, String> {
    let format = matrix.format();
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let (groups, length) = (format.groups(columns), format.group_len(columns));
    let bare = format.scales().is_none();
    if !bare && inverses.len() != rows * groups {
        return Err(format!(
            "{what}: {} inverses for {rows} rows of {groups} groups",
            inverses.len()
        ));
    }
    let mut other = 0;
    for row in 0..rows {
        for group in 0..groups {
            let at = |reason: String| format!("{what}: row {row}, group {group}: {reason}");
            let first = group * length;
            let values = &values[row * columns + first..][..length];
            let mut inverse = 1.0;
            if !bare {
                inverse = inverses[row * groups + group];
                let scale = matrix.scale(row, group);
                let bound = ErrorModel::WGSL
                    .scale_with(values, format, options.scale_rule)
                    .map_err(|error| at(error.to_string()))?;
                if !bound.holds(scale) {
                    return Err(at(format!("the scale is {scale:e}, expected {bound:?}")));
                }
                let bound = ErrorModel::WGSL.inverse(scale);
                if !bound.holds(inverse) {
                    return Err(at(format!(
                        "the inverse of {scale:e} is {inverse:e}, expected {bound:?}"
                    )));
                }
            }
            let place = (row * columns + first) as u64;
            let given = codes_given_with(values, inverse, format, options, place);
            let allowed = codes_allowed_with(values, inverse, format, options, place);
            for (index, (allowed, given)) in allowed.into_iter().zip(given).enumerate() {
                let code = matrix.code(row, first + index).expect("a code");
                if !allowed.contains(code) {
                    return Err(at(format!(
                        "{:e} times {inverse:e} became code {code}, expected {allowed:?}",
                        values[index]
                    )));
                }
                // Subnormal values, which may be taken for 0, have rows of their own.
                let normal = values[index].abs() >= f32::MIN_POSITIVE;
                other += usize::from(code != given && normal);
            }
        }
    }
    Ok(other)
}

fn check(
    rig: &mut Rig,
    context: &Context,
    format: MatrixFormat,
    layout: DeviceLayout,
    columns: usize,
    options: &QuantizeRowsOptions,
    seed: u64,
) {
    let specialization =
        match quantize_specialization_with(context.caps(), &format, &layout, options) {
            Ok(specialization) => specialization,
            Err(error) => return rig.note(Err(format!("{format}: {error}"))),
        };
    rig.note_pipeline(&specialization, false);
    let what = format!("{} {ROWS}x{columns}, seed {seed}", specialization.id);
    let values = values(columns, &mut Random::new(seed));
    let result = quantize(context, &values, columns, format, &layout, options)
        .map_err(|error| format!("{what}: {error}"))
        .and_then(|(matrix, inverses)| compare(&values, &matrix, &inverses, options, &what))
        .and_then(|other| {
            // What WGSL allows beyond rounding to nearest is rare even where an adapter uses it.
            match other * 50 <= values.len() {
                true => Ok(()),
                false => Err(format!(
                    "{what}: {other} codes are not those of the nearest value"
                )),
            }
        });
    rig.note(result);
}

#[test]
fn codes_follow_from_the_emitted_scale() {
    on_each_adapter("codes_follow_from_the_emitted_scale", |rig| {
        // Their workgroups differ.
        let contexts = rig.of_each_class();
        let classes: Vec<Vec<ElementFormat>> = element_classes()
            .into_iter()
            .map(|mut class| {
                class.retain(|&element| is_quantised(element));
                class
            })
            .filter(|class| !class.is_empty())
            .collect();
        let scale_types = [Some(ScaleType::F32), Some(ScaleType::E8m0), None];
        let levels = [
            classes.len(),
            GRANULARITIES.len(),
            scale_types.len(),
            // Pieces or planes, and the interleave.
            2 * INTERLEAVES.len(),
            // With or without sums.
            2,
        ];
        let scales = |row: &[usize]| {
            scale_types[row[2]].map(|scale| ScaleLayout {
                granularity: GRANULARITIES[row[1]],
                scale,
                zero: ZeroKind::None,
            })
        };
        let allowed = |row: &[usize]| {
            // Powers of two scale groups.
            row[2] != 1 || GRANULARITIES[row[1]] != Granularity::Row
        };
        for (index, row) in each_level(&levels, allowed, 2).into_iter().enumerate() {
            let layout = DeviceLayout {
                pieces: [PieceLayout::Pieces, PieceLayout::Planes][row[3] % 2],
                interleave: INTERLEAVES[row[3] / 2],
                sums: [SumLayout::None, SumLayout::Blocks][row[4]],
                memory: Memory::Buffers,
            };
            let columns: &[usize] = match scales(&row).map(|scales| scales.granularity) {
                None | Some(Granularity::Row) => &[1, 31, 70, 257],
                Some(Granularity::Group(16)) => &[16, 48, 160],
                Some(Granularity::Group(group)) => &[group as usize, 5 * group as usize],
                Some(Granularity::Tensor) => &[],
            };
            for &element in &classes[row[0]] {
                let format = MatrixFormat::new(element, scales(&row)).expect("a format");
                // Codes whose blocks are whole texels go into textures every other time.
                let texels = matches!(piece_widths(element, layout.pieces), [4] | [8]);
                let memory = match texels && index % 2 == 1 {
                    true => Memory::TextureCodes,
                    false => Memory::Buffers,
                };
                let layout = DeviceLayout { memory, ..layout };
                for &columns in columns {
                    let options = QuantizeRowsOptions::default();
                    check(
                        rig,
                        &contexts[index / 2 % 2],
                        format,
                        layout,
                        columns,
                        &options,
                        index as u64,
                    );
                }
            }
        }
    });
}

/// All f16 values, infinities and NaN among them; every tie of the element with what lies next to it; zeros, subnormals and
/// the largest; and f32 values by chance.
fn values_to_encode(element: ElementFormat, by_chance: usize, random: &mut Random) -> Vec<f32> {
    let mut values: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::f16::from_bits(bits).to_f32())
        .collect();
    let mut table: Vec<f32> = (0..=element.max_code().unwrap_or(0))
        .filter_map(|code| element.code_value(code))
        .filter(|value| value.is_finite())
        .collect();
    table.sort_by(f32::total_cmp);
    for pair in table.windows(2) {
        let tie = ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
        for value in [pair[0], tie, pair[1]] {
            values.extend([value, value.next_up(), value.next_down()]);
        }
    }
    if let (Some(&first), Some(&last)) = (table.first(), table.last()) {
        // Beyond the ends, where one more step would be.
        values.extend([first, last].map(|value| value * 1.0625));
        values.extend([first, last].map(|value| value * 2.0));
    }
    for value in [
        0.0,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE.next_down(),
        f32::from_bits(1),
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        f32::from_bits(0x7f80_0001),
    ] {
        values.extend([value, -value]);
    }
    values.extend((0..by_chance).map(|_| f32::from_bits(random.bits() as u32)));
    // Some of usual sizes too.
    values.extend((0..by_chance).map(|_| 8.0 * random.signed()));
    if element.affine().is_some() {
        // What becomes of them is left open.
        values.retain(|value| value.is_finite());
    }
    values
}

/// Bare codes of f32 values: those of the reference, without exception.
fn check_bare(
    rig: &mut Rig,
    element: ElementFormat,
    options: &QuantizeRowsOptions,
    mut values: Vec<f32>,
) {
    const COLUMNS: usize = 1024;
    let layout = DeviceLayout::ROW_MAJOR;
    let format = MatrixFormat::new(element, None).expect("bare codes");
    values.resize(values.len().next_multiple_of(COLUMNS), 0.0);
    let rows = values.len() / COLUMNS;
    match quantize_specialization_with(rig.best().caps(), &format, &layout, options) {
        Ok(specialization) => rig.note_pipeline(&specialization, false),
        Err(error) => return rig.note(Err(format!("{element} {options:?}: {error}"))),
    }
    let context = rig.best();
    let quantised = || -> Result<Vec<u32>, anybit::Error> {
        // Infinities and NaN come in a buffer of the caller.
        let buffer = buffer_of(&context, values.iter().map(|value| value.to_bits()));
        let input = DeviceMatrix::from_buffer(&buffer, 0, (rows, COLUMNS), COLUMNS)?;
        let codes = context.allocate(format, rows, COLUMNS, &layout)?;
        let quantize = context.prepare_quantize_with(&input, &codes, options)?;
        // Read through the decoder, since no matrix of the host holds NaN. The decoder is tested on every code, and no two
        // codes but those of NaN have the same bits.
        let output = context.output(OutputFormat::F32, rows, COLUMNS)?;
        let decode = context.prepare_decode(&codes, &output)?;
        let decoded = context
            .submit_and_read(&[&quantize.work, &decode], &output)?
            .read_blocking()?;
        let decoded = decoded.into_f32().unwrap_or_default();
        Ok(decoded.into_iter().map(f32::to_bits).collect())
    };
    let found = match quantised() {
        Ok(found) => found,
        Err(error) => return rig.note(Err(format!("{element} {options:?}: {error}"))),
    };
    let expected = codes_given_with(&values, 1.0, &format, options, 0);
    let value_of = |code: u8| element.code_value(code).expect("a code");
    let wrong = (0..values.len()).find(|&index| {
        let expected = value_of(expected[index]);
        let same = found[index] == expected.to_bits();
        !(same || expected.is_nan() && f32::from_bits(found[index]).is_nan())
    });
    rig.note(match wrong {
        None => Ok(()),
        Some(index) => Err(format!(
            "{element} {options:?}: {:e} ({:#010x}) at {index} became {:e}, expected {:e}",
            values[index],
            values[index].to_bits(),
            f32::from_bits(found[index]),
            value_of(expected[index])
        )),
    });
}

#[test]
fn every_value_gets_its_code() {
    on_each_adapter("every_value_gets_its_code", |rig| {
        for (index, row) in FORMATS.iter().enumerate() {
            if is_quantised(row.element) {
                // In all there are a million random ones and more.
                let values = values_to_encode(row.element, 62_500, &mut Random::new(index as u64));
                check_bare(rig, row.element, &QuantizeRowsOptions::default(), values);
            }
        }
    });
}

const ROUNDINGS: [Rounding; 4] = [
    Rounding::NearestEven,
    Rounding::HalfAway,
    Rounding::Truncate,
    Rounding::Stochastic { seed: 0x5eed },
];

/// Every rounding of every minifloat, saturating or not, and of some integers of every encoding. Each pair of rounding and
/// overflow brings pipelines for every width.
#[test]
fn every_rounding_gets_its_code() {
    on_each_adapter("every_rounding_gets_its_code", |rig| {
        // Elements inside, so that those of one width share a pipeline while it lives.
        for (turn, rounding) in ROUNDINGS.into_iter().enumerate() {
            for (index, row) in FORMATS.iter().enumerate() {
                let element = row.element;
                let special = element
                    .minifloat()
                    .is_some_and(|minifloat| minifloat.special() != SpecialValues::Finite);
                let sampled = match element {
                    // The default's shaders are tested above.
                    _ if rounding == Rounding::NearestEven => special,
                    ElementFormat::Affine(_) => full() || index % 3 == 0,
                    ElementFormat::Minifloat(_) => true,
                    _ => false,
                };
                if !sampled {
                    continue;
                }
                let overflow = match (index + turn) % 2 {
                    1 if rounding != Rounding::NearestEven => Overflow::Saturate,
                    _ => Overflow::Special,
                };
                let options = QuantizeRowsOptions::default()
                    .with_rounding(rounding)
                    .with_overflow(overflow);
                let values = values_to_encode(element, 1_000, &mut Random::new(index as u64));
                check_bare(rig, element, &options, values);
            }
        }
    });
}

/// Scales and codes of rows and groups under every rounding and every rule for powers of two.
#[test]
fn scaled_codes_follow_the_options() {
    on_each_adapter("scaled_codes_follow_the_options", |rig| {
        let context = rig.best();
        let rules = [ScaleRule::Floor, ScaleRule::Ceil, ScaleRule::Nearest];
        let layout = DeviceLayout::ROW_MAJOR;
        for (index, name) in [
            "e2m1g32e", "e4m3g64e", "i5g16e", "b3g32e", "e3m2rf", "i4rf", "u7g32f",
        ]
        .into_iter()
        .filter_map(|name| name.parse::<MatrixFormat>().ok())
        .enumerate()
        {
            for (turn, rounding) in ROUNDINGS.into_iter().enumerate() {
                for (step, scale_rule) in rules.into_iter().enumerate() {
                    let powers = name.to_string().ends_with('e');
                    if !full() && (powers && (turn + step + index) % 2 == 1 || !powers && step > 0)
                    {
                        continue;
                    }
                    let options = QuantizeRowsOptions::default()
                        .with_rounding(rounding)
                        .with_scale_rule(scale_rule);
                    check(
                        rig,
                        &context,
                        name,
                        layout,
                        192,
                        &options,
                        (index + turn) as u64,
                    );
                }
            }
        }
    });
}

/// The mean of stochastically rounded values is the value, within three standard deviations.
#[test]
fn stochastic_rounding_is_unbiased() {
    on_each_adapter("stochastic_rounding_is_unbiased", |rig| {
        const COUNT: usize = 1 << 16;
        let context = rig.best();
        for (name, value, below, above) in [
            ("i8", 2.3_f32, 2.0_f64, 3.0_f64),
            ("i8", -2.3, -3.0, -2.0),
            ("u3", 0.03125, 0.0, 1.0),
            ("b4", 0.9, -1.0, 1.0),
            ("e4m3", 1.1, 1.0, 1.125),
            ("e2m1", -0.1, -0.5, 0.0),
            ("e5m2", 5.1, 5.0, 6.0),
        ] {
            for seed in 0..3 {
                let format: MatrixFormat = name.parse().expect("a format");
                let options =
                    QuantizeRowsOptions::default().with_rounding(Rounding::Stochastic { seed });
                let values = vec![value; COUNT];
                let layout = DeviceLayout::ROW_MAJOR;
                let what = format!("{name} {value} seed {seed}");
                let result = quantize(&context, &values, 256, format, &layout, &options)
                    .map_err(|error| format!("{what}: {error}"))
                    .and_then(|(matrix, _)| {
                        let decoded = matrix.decode_f64();
                        if let Some(other) = decoded.iter().find(|&&x| x != below && x != above) {
                            return Err(format!("{what}: {other} is neither neighbour"));
                        }
                        let mean = decoded.iter().sum::<f64>() / COUNT as f64;
                        let part = (f64::from(value) - below) / (above - below);
                        let deviation =
                            (above - below) * (part * (1.0 - part) / COUNT as f64).sqrt();
                        match (mean - f64::from(value)).abs() <= 3.0 * deviation {
                            true => Ok(()),
                            false => Err(format!("{what}: the mean is {mean}, sigma {deviation}")),
                        }
                    });
                rig.note(result);
            }
        }
    });
}

/// The hash's known answers, and random bits at places beyond 2^32, by the shader's functions.
#[test]
fn random_bits_are_those_of_the_host() {
    on_each_adapter("random_bits_are_those_of_the_host", |rig| {
        const KERNEL: &str = "
            //#import core/round
            @group(0) @binding(0) var<storage, read> input: array<vec4<u32>>;
            @group(0) @binding(1) var<storage, read_write> output: array<vec4<u32>>;
            @compute @workgroup_size(1)
            fn main(@builtin(workgroup_id) group: vec3<u32>) {
                let place = input[group.x];
                output[2u * group.x] = round_pcg(place);
                output[2u * group.x + 1u] =
                    round_random_at(place.x, place.y, place.z, vec4<u32>(place.w) + vec4<u32>(0u, 1u, 2u, 3u));
            }
        ";
        let context = rig.best();
        let mut random = Random::new(64);
        let mut places = vec![
            [0, 1, 2, 12345],
            [7, 0xffff_ffff, 0xffff_ffff, 0xffff_fff0],
            [1, 0x1_0000, 0x1_0000, 0],
            [9, 0x1_0001, 0xffff, 0xffff_fff8],
        ];
        places.extend((0..200).map(|_| [0; 4].map(|_: u32| random.bits() as u32)));
        let modules = Modules::embedded().with("kernel/random", KERNEL);
        let header = Header::new().constant_u32("ROUNDING", 3);
        let linked = modules
            .link(&LinkRequest {
                root: "kernel/random",
                slots: &[],
                header: &header,
            })
            .expect("a shader");
        let input = buffer_of(&context, places.iter().flatten().copied());
        let output = buffer_of(&context, (0..8 * places.len()).map(|_| 0));
        raw::dispatch(
            &context,
            &linked.wgsl,
            [&input, &output].into_iter(),
            places.len() as u32,
        );
        let words = 8 * places.len();
        let view = OutputMatrix::from_buffer(&output, 0, OutputFormat::I32, (1, words), words)
            .expect("a view");
        let found = context
            .submit_and_read(&[], &view)
            .and_then(anybit::PendingRead::read_blocking)
            .expect("the words")
            .into_i32()
            .expect("integers");
        for (place, found) in places.iter().zip(found.chunks(8)) {
            let [seed, row, columns, column] = *place;
            let hashed = place.map(rounding::pcg);
            let bits: Vec<u32> = (0..4)
                .map(|lane| {
                    let column = u64::from(column.wrapping_add(lane));
                    rounding::random(
                        seed,
                        u64::from(row)
                            .wrapping_mul(u64::from(columns))
                            .wrapping_add(column),
                    )
                })
                .collect();
            let found: Vec<u32> = found.iter().map(|&word| word.cast_unsigned()).collect();
            rig.note(match found[..4] == hashed && found[4..] == bits {
                true => Ok(()),
                false => Err(format!(
                    "{place:x?}: {found:x?}, expected {hashed:x?} {bits:x?}"
                )),
            });
        }
    });
}

/// A row longer than a workgroup reaches in one round, and more rows than one dimension of a grid is wide.
#[test]
fn long_rows_and_many_rows() {
    on_each_adapter("long_rows_and_many_rows", |rig| {
        let context = rig.best();
        let layout = DeviceLayout {
            pieces: PieceLayout::Planes,
            interleave: 4,
            sums: SumLayout::Blocks,
            memory: Memory::Buffers,
        };
        let format: MatrixFormat = "i5rf".parse().expect("a format");
        for (rows, columns) in [(2, 9001), (65_537, 33)] {
            let mut random = Random::new(rows as u64);
            let values: Vec<f32> = (0..rows * columns).map(|_| random.signed()).collect();
            let what = format!("quantize_rows {format} {rows}x{columns}");
            let options = QuantizeRowsOptions::default();
            let result = quantize(&context, &values, columns, format, &layout, &options)
                .map_err(|error| format!("{what}: {error}"))
                .and_then(|(matrix, inverses)| {
                    compare(&values, &matrix, &inverses, &options, &what)
                });
            rig.note(result.map(|_| ()));
        }
    });
}
