//! Quantising on the GPU: the scale within its bound, the codes exact from the inverse that the kernel emits, sums and
//! padding exact (reading a matrix back checks them).

use anybit::{Context, OutputFormat, OutputMatrix, quantize_specialization, wgpu};
use anybit_formats::{
    Calibration, DeviceLayout, ElementFormat, FORMATS, Granularity, MatrixFormat, PackedMatrix,
    PieceLayout, ScaleLayout, ScaleType, SumLayout, ZeroKind,
};
use anybit_reference::bound::ErrorModel;
use anybit_reference::quantize::{codes_allowed, codes_given};
use anybit_tests::cover::pairwise;
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, on_each_adapter};

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

/// The affine elements of a width.
fn elements(bits: u32) -> impl Iterator<Item = ElementFormat> {
    FORMATS
        .iter()
        .map(|row| row.element)
        .filter(move |element| element.affine().is_some() && element.bits() == bits)
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
) -> Result<(PackedMatrix, Vec<f32>), anybit::Error> {
    let rows = values.len() / columns;
    let input = context.upload_f32(values, rows, columns)?;
    let output = context.allocate(format, rows, columns, layout)?;
    let prepared = context.prepare_quantize(&input, &output)?;
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
    what: &str,
) -> Result<usize, String> {
    let format = matrix.format();
    let element = format.element().affine().expect("codes");
    let calibration = Calibration::default_for(format).expect("a calibration");
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let (groups, length) = (format.groups(columns), format.group_len(columns));
    if inverses.len() != rows * groups {
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
            let (scale, inverse) = (matrix.scale(row, group), inverses[row * groups + group]);
            let bound = ErrorModel::WGSL
                .scale(values, element, calibration)
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
            let given = codes_given(values, inverse, element);
            let allowed = codes_allowed(values, inverse, element);
            for (index, (allowed, given)) in allowed.into_iter().zip(given).enumerate() {
                let code = matrix.code(row, first + index).expect("a code");
                if !allowed.contains(&code) {
                    return Err(at(format!(
                        "{:e} times {inverse:e} became code {code}, expected {allowed:?}",
                        values[index]
                    )));
                }
                other += usize::from(code != given);
            }
        }
    }
    Ok(other)
}

fn check(rig: &mut Rig, format: MatrixFormat, layout: DeviceLayout, columns: usize, seed: u64) {
    let specialization = match quantize_specialization(&format, &layout) {
        Ok(specialization) => specialization,
        Err(error) => return rig.note(Err(format!("{format}: {error}"))),
    };
    rig.note_pipeline(&specialization, false);
    let context = rig.best();
    let what = format!("{} {ROWS}x{columns}, seed {seed}", specialization.id);
    let values = values(columns, &mut Random::new(seed));
    let result = quantize(&context, &values, columns, format, &layout)
        .map_err(|error| format!("{what}: {error}"))
        .and_then(|(matrix, inverses)| compare(&values, &matrix, &inverses, &what))
        .and_then(|other| {
            // What WGSL allows beyond rounding to nearest is rare even where an adapter uses it.
            match other * 100 <= values.len() {
                true => Ok(()),
                false => Err(format!(
                    "{what}: {other} codes are not those of the nearest integer"
                )),
            }
        });
    rig.note(result);
}

#[test]
fn codes_follow_from_the_emitted_scale() {
    on_each_adapter("codes_follow_from_the_emitted_scale", |rig| {
        let levels = [
            // Bits: the elements of a width share their pipelines.
            8,
            GRANULARITIES.len(),
            // Pieces or planes, and the interleave.
            2 * INTERLEAVES.len(),
            // With or without sums.
            2,
        ];
        for (index, row) in pairwise(&levels, |_| true).into_iter().enumerate() {
            let scales = ScaleLayout {
                granularity: GRANULARITIES[row[1]],
                scale: ScaleType::F32,
                zero: ZeroKind::None,
            };
            let layout = DeviceLayout {
                pieces: [PieceLayout::Pieces, PieceLayout::Planes][row[2] % 2],
                interleave: INTERLEAVES[row[2] / 2],
                sums: [SumLayout::None, SumLayout::Blocks][row[3]],
            };
            let columns: &[usize] = match scales.granularity {
                Granularity::Row => &[1, 31, 70, 257],
                Granularity::Group(16) => &[16, 48, 160],
                Granularity::Group(group) => &[group as usize, 5 * group as usize],
                Granularity::Tensor => &[],
            };
            for element in elements(row[0] as u32 + 1) {
                let format = MatrixFormat::new(element, Some(scales)).expect("a format");
                for &columns in columns {
                    check(rig, format, layout, columns, index as u64);
                }
            }
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
        };
        let format: MatrixFormat = "i5rf".parse().expect("a format");
        for (rows, columns) in [(2, 9001), (65_537, 33)] {
            let mut random = Random::new(rows as u64);
            let values: Vec<f32> = (0..rows * columns).map(|_| random.signed()).collect();
            let what = format!("quantize_rows {format} {rows}x{columns}");
            let result = quantize(&context, &values, columns, format, &layout)
                .map_err(|error| format!("{what}: {error}"))
                .and_then(|(matrix, inverses)| compare(&values, &matrix, &inverses, &what));
            rig.note(result.map(|_| ()));
        }
    });
}
