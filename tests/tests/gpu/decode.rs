//! Every code of every format in every layout, decoded.

use anybit::{OutputFormat, decode_specialization};
use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, FloatFormat, Granularity, MatrixFormat, PackedMatrix,
    PieceLayout, ScaleLayout, ScaleType, SumLayout, ZeroKind, Zeros,
};
use anybit_reference::bound::ErrorModel;
use anybit_tests::compare;
use anybit_tests::cover::pairwise;
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, on_each_adapter};

const GRANULARITIES: [Granularity; 5] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(96),
];
const ZEROS: [ZeroKind; 3] = [ZeroKind::None, ZeroKind::Integer, ZeroKind::Minimum];
const SCALES: [ScaleType; 2] = [ScaleType::F32, ScaleType::F16];
const PIECES: [PieceLayout; 2] = [PieceLayout::Pieces, PieceLayout::Planes];
const INTERLEAVES: [u32; 6] = [1, 2, 4, 8, 16, 32];
const SUMS: [SumLayout; 3] = [SumLayout::None, SumLayout::Blocks, SumLayout::Groups];

/// The affine elements of a width.
fn elements(bits: u32) -> impl Iterator<Item = ElementFormat> {
    FORMATS
        .iter()
        .map(|row| row.element)
        .filter(move |element| element.affine().is_some() && element.bits() == bits)
}

/// Every code in every row, each row beginning with another; `power` scales are powers of two.
fn all_codes(
    format: MatrixFormat,
    rows: usize,
    columns: usize,
    power: bool,
    random: &mut Random,
) -> PackedMatrix {
    let count = format
        .element()
        .affine()
        .map_or(1, |element| usize::from(element.max_code()) + 1);
    let codes: Vec<u8> = (0..rows * columns)
        .map(|index| ((index % columns + 7 * (index / columns)) % count) as u8)
        .collect();
    let scales: Vec<f32> = (0..format.scale_count(rows, columns))
        .map(|_| {
            let power_of_two = [0.25, 1.0, -2.0, 8.0][random.below(4)];
            if power {
                power_of_two
            } else {
                power_of_two * (1.0 + 0.5 * random.signed())
            }
        })
        .collect();
    let points: Vec<u8> = scales.iter().map(|_| random.below(256) as u8).collect();
    let minima: Vec<f32> = scales
        .iter()
        .map(|_| if power { 0.0 } else { 8.0 * random.signed() })
        .collect();
    let zeros = match format.zero_kind() {
        ZeroKind::None => Zeros::None,
        ZeroKind::Integer => Zeros::Integer(&points),
        ZeroKind::Minimum => Zeros::Minimum(&minima),
    };
    PackedMatrix::from_codes(format, rows, columns, &codes, &scales, zeros)
        .unwrap_or_else(|error| panic!("{format}: {error}"))
}

/// Uploads, decodes and compares: equal where `exact`, else within the bounds.
fn check(rig: &mut Rig, matrix: &PackedMatrix, layout: DeviceLayout, exact: bool) {
    let specialization = decode_specialization(matrix.format(), &layout);
    rig.note_pipeline(&specialization, false);
    let context = rig.best();
    let what = format!(
        "{} {}x{}",
        specialization.id,
        matrix.rows(),
        matrix.columns()
    );
    let decoded = || -> Result<Vec<f32>, anybit::Error> {
        let uploaded = context.upload(matrix, &layout)?;
        let output = context.output(OutputFormat::F32, matrix.rows(), matrix.columns())?;
        let prepared = context.prepare_decode(&uploaded, &output)?;
        Ok(context
            .run(&prepared, &output)?
            .into_f32()
            .unwrap_or_default())
    };
    match decoded() {
        Err(error) => rig.note(Err(format!("{what}: {error}"))),
        Ok(found) if exact => {
            rig.note_wrong(&what, compare::equal(&found, &matrix.decode()));
        }
        Ok(found) => {
            let bounds = ErrorModel::WGSL.decode(matrix);
            rig.note_wrong(
                &what,
                compare::bounded(&found, &matrix.decode_f64(), &bounds),
            );
        }
    }
}

#[test]
fn every_code_in_every_layout() {
    on_each_adapter("every_code_in_every_layout", |rig| {
        let levels = [
            // Bits: the elements of a width share their pipelines.
            8,
            PIECES.len() * INTERLEAVES.len(),
            SUMS.len(),
            // The last stands for no scales.
            GRANULARITIES.len() + 1,
            SCALES.len(),
            ZEROS.len(),
        ];
        for (index, row) in pairwise(&levels, |_| true).into_iter().enumerate() {
            let scales = GRANULARITIES.get(row[3]).map(|&granularity| ScaleLayout {
                granularity,
                scale: SCALES[row[4]],
                zero: ZEROS[row[5]],
            });
            let layout = DeviceLayout {
                pieces: PIECES[row[1] % 2],
                interleave: INTERLEAVES[row[1] / 2],
                sums: SUMS[row[2]],
            };
            let grouped = matches!(
                scales,
                Some(ScaleLayout {
                    granularity: Granularity::Group(_),
                    ..
                })
            );
            let columns = if grouped { 288 } else { 259 };
            let mut random = Random::new(index as u64);
            for element in elements(row[0] as u32 + 1) {
                let format = MatrixFormat::new(element, scales).expect("a format");
                // A scale that is a power of two rounds nothing.
                let exact = all_codes(format, 5, columns, true, &mut random);
                check(rig, &exact, layout, true);
                if scales.is_some() {
                    let rounded = all_codes(format, 3, columns, false, &mut random);
                    check(rig, &rounded, layout, false);
                }
            }
        }
    });
}

/// All finite 16-bit floats, and f32 values of all sizes.
#[test]
fn every_float() {
    on_each_adapter("every_float", |rig| {
        for element in [FloatFormat::F16, FloatFormat::Bf16] {
            let bits: Vec<u16> = (0..=u16::MAX)
                .filter(|&bits| element.decode(u32::from(bits)).is_finite())
                .collect();
            let rows = (2..)
                .find(|rows| bits.len().is_multiple_of(*rows))
                .expect("a divisor");
            let matrix = PackedMatrix::from_float_bits16(element, rows, bits.len() / rows, &bits)
                .expect("finite floats");
            // Equal, but for subnormals, which may be 0.
            check(rig, &matrix, DeviceLayout::ROW_MAJOR, false);
        }
        let mut random = Random::new(3);
        let values: Vec<f32> = std::iter::repeat_with(|| f32::from_bits(random.bits() as u32))
            .filter(|value| value.is_finite())
            .take(3 * 1001)
            .collect();
        let matrix =
            PackedMatrix::from_f32(FloatFormat::F32, 3, 1001, &values).expect("finite floats");
        check(rig, &matrix, DeviceLayout::ROW_MAJOR, false);
    });
}
