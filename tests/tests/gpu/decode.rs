//! Every code of every format in every layout, decoded.

use anybit::{OutputFormat, decode_specialization};
use anybit_formats::{
    DeviceLayout, ElementFormat, FORMATS, FloatFormat, Granularity, MatrixFormat, Memory,
    PackedMatrix, PieceLayout, ScaleLayout, ScaleType, SideData, SumLayout, ZeroKind, Zeros,
};
use anybit_reference::bound::ErrorModel;
use anybit_tests::compare;
use anybit_tests::cover::pairwise;
use anybit_tests::operand::finite_codes;
use anybit_tests::random::Random;
use anybit_tests::raw::decode_all_codes;
use anybit_tests::rig::{Rig, on_each_adapter};

const GRANULARITIES: [Granularity; 5] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(128),
];
const ZEROS: [ZeroKind; 4] = [
    ZeroKind::None,
    ZeroKind::Integer,
    ZeroKind::Minimum,
    ZeroKind::Choice,
];
const PIECES: [PieceLayout; 2] = [PieceLayout::Pieces, PieceLayout::Planes];
const INTERLEAVES: [u32; 6] = [1, 2, 4, 8, 16, 32];
const SUMS: [SumLayout; 3] = [SumLayout::None, SumLayout::Blocks, SumLayout::Groups];

/// The elements of codes, those together that share their pipelines: of a family, a width, and whether they have special
/// codes.
pub(super) fn element_classes() -> Vec<Vec<ElementFormat>> {
    let key = |element: ElementFormat| {
        let special = (0..=element.max_code().unwrap_or(0)).any(|code| {
            element
                .code_value(code)
                .is_some_and(|value| !value.is_finite())
        });
        (element.family(), element.bits(), special)
    };
    let mut classes: Vec<Vec<ElementFormat>> = Vec::new();
    for element in FORMATS.iter().map(|row| row.element) {
        if !element.has_codes() {
            continue;
        }
        match classes
            .iter_mut()
            .find(|class| key(class[0]) == key(element))
        {
            Some(class) => class.push(element),
            None => classes.push(vec![element]),
        }
    }
    classes
}

/// Every code in every row, each row beginning with another; with `power` everything that scales is a power of two, so that
/// nothing rounds.
fn all_codes(
    format: MatrixFormat,
    rows: usize,
    columns: usize,
    power: bool,
    random: &mut Random,
) -> PackedMatrix {
    let finite = finite_codes(format.element());
    let codes: Vec<u8> = (0..rows * columns)
        .map(|index| finite[(index % columns + 7 * (index / columns)) % finite.len()])
        .collect();
    let stored = format
        .scales()
        .map_or(ScaleType::F32, |layout| layout.scale);
    let count = format.scale_count(rows, columns);
    let mut scale = |stored: ScaleType| {
        let power_of_two = [0.25, 1.0, -2.0, 8.0][random.below(4)];
        match stored {
            ScaleType::E8m0 => f32::abs(power_of_two),
            ScaleType::Int8 | ScaleType::Super => {
                [1.0, -4.0, 64.0, -128.0, 127.0][random.below(if power { 4 } else { 5 })]
            }
            _ if power => power_of_two,
            _ => power_of_two * (1.0 + 0.5 * random.signed()),
        }
    };
    let scales: Vec<f32> = (0..count).map(|_| scale(stored)).collect();
    let second: Vec<f32> = (0..format.second_count(rows, columns))
        .map(|_| scale(ScaleType::F32))
        .collect();
    let points: Vec<u8> = scales.iter().map(|_| random.below(256) as u8).collect();
    let choice_count = format.element().choice_count().max(1);
    let choices: Vec<u8> = scales
        .iter()
        .map(|_| random.below(choice_count) as u8)
        .collect();
    let minima: Vec<f32> = scales
        .iter()
        .map(|_| match stored {
            _ if power => 0.0,
            ScaleType::Super => random.below(256) as f32 - 128.0,
            _ => 8.0 * random.signed(),
        })
        .collect();
    let data = SideData {
        scales: &scales,
        second: &second,
        zeros: match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&points),
            ZeroKind::Minimum => Zeros::Minimum(&minima),
            ZeroKind::Choice => Zeros::Choice(&choices),
        },
        second_minima: match format.zero_kind() {
            ZeroKind::Minimum => &second,
            _ => &[],
        },
    };
    PackedMatrix::from_parts(format, rows, columns, &codes, data)
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
        let classes = element_classes();
        let levels = [
            classes.len(),
            PIECES.len() * INTERLEAVES.len(),
            SUMS.len(),
            // The last stands for no scales.
            GRANULARITIES.len() + 1,
            ScaleType::ALL.len(),
            ZEROS.len(),
        ];
        let scales = |row: &[usize]| {
            GRANULARITIES.get(row[3]).map(|&granularity| ScaleLayout {
                granularity,
                scale: ScaleType::ALL[row[4]],
                zero: ZEROS[row[5]],
            })
        };
        let formats = |row: &[usize]| -> Vec<MatrixFormat> {
            let format = |&element: &ElementFormat| MatrixFormat::new(element, scales(row)).ok();
            classes[row[0]].iter().filter_map(format).collect()
        };
        for (index, row) in pairwise(&levels, |row| !formats(row).is_empty())
            .into_iter()
            .enumerate()
        {
            let layout = DeviceLayout {
                pieces: PIECES[row[1] % 2],
                interleave: INTERLEAVES[row[1] / 2],
                sums: SUMS[row[2]],
                memory: [Memory::Buffers, Memory::Textures, Memory::TextureCodes][index % 3],
            };
            let grouped = matches!(
                scales(&row),
                Some(ScaleLayout {
                    granularity: Granularity::Group(_),
                    ..
                })
            );
            // Three and a half super-blocks of two-level scales.
            let columns = if grouped { 896 } else { 259 };
            let mut random = Random::new(index as u64);
            for format in formats(&row) {
                let exact = all_codes(format, 5, columns, true, &mut random);
                check(rig, &exact, layout, true);
                if format.scales().is_some() {
                    let rounded = all_codes(format, 3, columns, false, &mut random);
                    check(rig, &rounded, layout, false);
                }
            }
        }
    });
}

/// Every code of every format of up to 8 bits, those of infinities and NaN too, equals the host's value bit for bit.
#[test]
fn every_code_is_its_value() {
    on_each_adapter("every_code_is_its_value", |rig| {
        let context = rig.best();
        for row in FORMATS {
            let (element, Some(max_code)) = (row.element, row.element.max_code()) else {
                continue;
            };
            if element.has_choices() {
                // They have no values without a group; every_code_in_every_layout has them.
                continue;
            }
            let found = match decode_all_codes(&context, element) {
                Ok(found) => found,
                Err(error) => {
                    rig.note(Err(format!("{element}: {error}")));
                    continue;
                }
            };
            let wrong = (0..=max_code).find(|&code| {
                let value = element.code_value(code).expect("a code");
                let found = found[usize::from(code)];
                let same = found == value.to_bits();
                // Which NaN it is, WGSL leaves open.
                !(same || value.is_nan() && f32::from_bits(found).is_nan())
            });
            rig.note(match wrong {
                None => Ok(()),
                Some(code) => Err(format!(
                    "{element}: code {code:#x} is {:e}, expected {:?}",
                    f32::from_bits(found[usize::from(code)]),
                    element.code_value(code)
                )),
            });
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
