//! Matrices of any format, shape and layout, drawn from the bytes of an input: packing, unpacking, device images, parts,
//! quantising.

use anybit_formats::{
    Calibration, DeviceLayout, ElementFormat, FORMATS, FloatFormat, FormatError, Granularity,
    MatrixFormat, Memory, Nesting, PackedMatrix, PieceLayout, QuantizeOptions, Rounding,
    ScaleLayout, ScaleRule, ScaleType, Sections, SideData, SumLayout, ZeroKind, Zeros,
    pack_ternary5, quantize_with, unpack_ternary5,
};
use arbitrary::{Result, Unstructured};

use super::model::check_packing;
use super::{Target, Verdict, check_error, no_text, only_text};
use crate::operand::finite_codes;
use crate::random::Random;

pub(super) const TARGET: Target = Target {
    name: "packing",
    run,
    seeds,
    text: no_text,
    with_text: only_text,
    longest: super::LONGEST,
    words: &[],
};

/// What is tried, by the first byte.
const SCENARIOS: [fn(&mut Unstructured<'_>) -> Result<Outcome>; 7] = [
    codes_and_side_data,
    floats,
    values_to_quantise,
    words_of_a_device,
    shapes_of_any_size,
    five_ternary_codes_a_byte,
    names,
];

/// The error that refuses an input.
type Outcome = std::result::Result<(), FormatError>;

fn run(input: &[u8]) -> Verdict {
    let mut input = Unstructured::new(input);
    let outcome = input
        .choose(&SCENARIOS)
        .copied()
        .and_then(|scenario| scenario(&mut input));
    match outcome {
        Ok(Ok(())) => Verdict::Accepted,
        Ok(Err(error)) => {
            check_error(&error);
            Verdict::Refused
        }
        // Too short to say what is to be done.
        Err(_) => Verdict::Refused,
    }
}

fn element(input: &mut Unstructured<'_>) -> Result<ElementFormat> {
    Ok(input.choose(FORMATS)?.element)
}

/// A format, one in two of those that the bytes say.
fn format(input: &mut Unstructured<'_>) -> Result<std::result::Result<MatrixFormat, FormatError>> {
    let element = element(input)?;
    let any = input.arbitrary()?;
    let granularity = *input.choose(&[
        Granularity::Tensor,
        Granularity::Row,
        Granularity::Group(16),
        Granularity::Group(32),
        Granularity::Group(64),
        Granularity::Group(256),
        Granularity::Group(any),
    ])?;
    let layout = ScaleLayout {
        granularity,
        scale: *input.choose(&ScaleType::ALL)?,
        zero: *input.choose(&[
            ZeroKind::None,
            ZeroKind::Integer,
            ZeroKind::Minimum,
            ZeroKind::Choice,
        ])?,
    };
    let scales = input.ratio(7_u8, 8)?.then_some(layout);
    let format = MatrixFormat::new(element, scales);
    let Err(error) = &format else {
        return Ok(format);
    };
    check_error(error);
    // Most combinations are none; such an input is better spent on one that is.
    let plain = ScaleLayout {
        zero: ZeroKind::None,
        ..layout
    };
    Ok(MatrixFormat::new(element, Some(plain)))
}

/// A small shape, most of them of whole groups.
fn shape(input: &mut Unstructured<'_>, format: &MatrixFormat) -> Result<(usize, usize)> {
    let rows = input.int_in_range(0..=9)?;
    let columns = match format.scales().map(|layout| layout.granularity) {
        Some(Granularity::Group(group)) if group <= 256 && input.ratio(15_u8, 16)? => {
            group as usize * input.int_in_range(0..=3)?
        }
        _ => input.int_in_range(0..=100)?,
    };
    Ok((rows, columns))
}

fn layout(input: &mut Unstructured<'_>) -> Result<DeviceLayout> {
    let any = input.arbitrary()?;
    Ok(DeviceLayout {
        pieces: *input.choose(&[PieceLayout::Pieces, PieceLayout::Planes])?,
        interleave: *input.choose(&[1, 2, 4, 8, 16, 32, any])?,
        sums: *input.choose(&[SumLayout::None, SumLayout::Blocks, SumLayout::Groups])?,
        memory: *input.choose(&[Memory::Buffers, Memory::Textures, Memory::TextureCodes])?,
    })
}

/// So many bytes, of the input while there are any.
fn bytes(input: &mut Unstructured<'_>, count: usize) -> Result<Vec<u8>> {
    let mut bytes = input.bytes(count.min(input.len()))?.to_vec();
    let drawn = bytes.len();
    for index in drawn..count {
        // What repeats must not be all there is.
        let byte = bytes.get(index % drawn.max(1)).copied().unwrap_or(0x55);
        bytes.push(byte.rotate_left((index % 7) as u32));
    }
    Ok(bytes)
}

/// So many numbers, small ones or of any bits.
fn numbers(input: &mut Unstructured<'_>, count: usize) -> Result<Vec<f32>> {
    if input.ratio(7_u8, 8)? {
        let bytes = bytes(input, count)?;
        return Ok(bytes
            .iter()
            .map(|&byte| f32::from(byte as i8) / 8.0)
            .collect());
    }
    let bytes = bytes(input, 4 * count)?;
    let words = bytes.chunks_exact(4);
    Ok(words
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect())
}

/// A count, or one that is wrong.
fn count(input: &mut Unstructured<'_>, right: usize) -> Result<usize> {
    Ok(match input.ratio(1_u8, 64)? {
        true => right
            .wrapping_add(1)
            .saturating_sub(2 * input.int_in_range(0..=1)?),
        false => right,
    })
}

fn codes_and_side_data(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let format = match format(input)? {
        Ok(format) => format,
        Err(error) => return Ok(Err(error)),
    };
    let (rows, columns) = shape(input, &format)?;
    let finite = finite_codes(format.element());
    let any_code = input.ratio(1_u8, 8)?;
    let mut codes = {
        let codes = count(input, rows * columns)?;
        bytes(input, codes)?
    };
    if !any_code && !finite.is_empty() {
        for code in &mut codes {
            *code = finite[usize::from(*code) % finite.len()];
        }
    }
    let scale_count = count(input, format.scale_count(rows, columns))?;
    let second_count = count(input, format.second_count(rows, columns))?;
    let scales = numbers(input, scale_count)?;
    let second = numbers(input, second_count)?;
    let points = bytes(input, scale_count)?;
    let choices = format.element().choice_count().max(1);
    let choices: Vec<u8> = match any_code {
        true => points.clone(),
        false => points
            .iter()
            .map(|point| (usize::from(*point) % choices) as u8)
            .collect(),
    };
    let minima = numbers(input, scale_count)?;
    let second_minima = match format.zero_kind() {
        ZeroKind::Minimum => numbers(input, second_count)?,
        _ => Vec::new(),
    };
    let side = SideData {
        scales: &scales,
        second: &second,
        zeros: match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&points),
            ZeroKind::Minimum => Zeros::Minimum(&minima),
            ZeroKind::Choice => Zeros::Choice(&choices),
        },
        second_minima: &second_minima,
    };
    let matrix = match PackedMatrix::from_parts(format, rows, columns, &codes, side) {
        Ok(matrix) => matrix,
        Err(error) => return Ok(Err(error)),
    };
    assert_eq!(matrix.unpack_codes(), codes, "{matrix:?}");
    for (index, &code) in codes.iter().enumerate() {
        assert_eq!(matrix.code(index / columns, index % columns), Some(code));
    }
    assert_eq!(matrix.code(rows, 0), None);
    assert_eq!(matrix.code(0, columns), None);
    use_matrix(input, &matrix)?;
    Ok(Ok(()))
}

fn floats(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let element = *input.choose(&[FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16])?;
    let (rows, columns) = (input.int_in_range(0..=5)?, input.int_in_range(0..=70)?);
    let values = count(input, rows * columns)?;
    let values = numbers(input, values)?;
    let bits: Vec<u16> = values
        .iter()
        .map(|value| (value.to_bits() >> 16) as u16)
        .collect();
    match PackedMatrix::from_float_bits16(element, rows, columns, &bits) {
        Ok(matrix) => use_matrix(input, &matrix)?,
        Err(error) => check_error(&error),
    }
    match PackedMatrix::from_f32(element, rows, columns, &values) {
        Ok(matrix) => use_matrix(input, &matrix)?,
        Err(error) => return Ok(Err(error)),
    }
    Ok(Ok(()))
}

fn values_to_quantise(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let format = match format(input)? {
        Ok(format) => format,
        Err(error) => return Ok(Err(error)),
    };
    let (rows, columns) = shape(input, &format)?;
    let seed = input.arbitrary()?;
    let options = QuantizeOptions {
        calibration: *input.choose(&[
            None,
            Some(Calibration::AbsMax),
            Some(Calibration::AbsMean),
            Some(Calibration::MinMax),
            Some(Calibration::MeanSquareError),
        ])?,
        rounding: *input.choose(&[
            Rounding::NearestEven,
            Rounding::HalfAway,
            Rounding::Truncate,
            Rounding::Stochastic { seed },
        ])?,
        scale_rule: *input.choose(&[ScaleRule::Floor, ScaleRule::Ceil, ScaleRule::Nearest])?,
    };
    let values = count(input, rows * columns)?;
    let values = numbers(input, values)?;
    let quantised = quantize_with(&values, rows, columns, format, &options);
    let matrix = match quantised {
        Ok(matrix) => matrix,
        Err(error) => return Ok(Err(error)),
    };
    assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
    use_matrix(input, &matrix)?;
    Ok(Ok(()))
}

/// What every matrix can do, however it was made.
fn use_matrix(input: &mut Unstructured<'_>, matrix: &PackedMatrix) -> Result<()> {
    let (format, rows, columns) = (*matrix.format(), matrix.rows(), matrix.columns());
    assert_eq!(matrix.decode().len(), rows * columns);
    assert!(matrix.bits_per_element().is_finite());
    assert_eq!(format.to_string().parse(), Ok(format));
    let parts = match format.element() {
        ElementFormat::Float(float) => {
            PackedMatrix::from_f32(float, rows, columns, &matrix.decode())
        }
        _ => {
            let codes = matrix.unpack_codes();
            PackedMatrix::from_parts(format, rows, columns, &codes, matrix.side())
        }
    };
    assert_eq!(parts.as_ref(), Ok(matrix), "packed again");
    let pieces: Vec<Vec<u32>> = matrix.pieces().map(<[u32]>::to_vec).collect();
    let again = PackedMatrix::from_pieces(format, rows, columns, pieces.clone(), matrix.side());
    assert_eq!(again.as_ref(), Ok(matrix), "from its pieces");

    let mut damaged = pieces;
    if let Some(words) = damaged.iter_mut().find(|words| !words.is_empty()) {
        let place = input.choose_index(words.len())?;
        words[place] ^= input.arbitrary::<u32>()?;
        match PackedMatrix::from_pieces(format, rows, columns, damaged, matrix.side()) {
            Ok(other) => assert_eq!(other.decode().len(), rows * columns),
            Err(error) => check_error(&error),
        }
    }
    use_rows(input, matrix)?;
    use_device(input, matrix)?;
    let bits = input.arbitrary()?;
    for nesting in Nesting::ALL {
        match matrix.nested(bits, nesting) {
            Ok(nested) => assert_eq!(nested.decode().len(), rows * columns),
            Err(error) => check_error(&error),
        }
    }
    // The file has a header of 128 KiB, so that it cannot be written every time.
    if input.ratio(1_u8, 16)? {
        check_packing("m", matrix);
    }
    Ok(())
}

fn use_rows(input: &mut Unstructured<'_>, matrix: &PackedMatrix) -> Result<()> {
    let rows = matrix.rows();
    let middle = input.int_in_range(0..=rows)?;
    let parts = [0..middle, middle..rows].map(|rows| matrix.row_range(rows));
    let [Ok(first), Ok(second)] = parts else {
        panic!("{matrix:?} has no rows up to {middle}: {parts:?}");
    };
    let joined = PackedMatrix::concat_rows(*matrix.format(), matrix.columns(), &[first, second]);
    assert_eq!(joined.as_ref(), Ok(matrix), "cut at {middle}");
    let (start, end): (usize, usize) = input.arbitrary()?;
    match matrix.row_range(start..end) {
        Ok(part) => assert_eq!(part.rows(), end - start),
        Err(error) => check_error(&error),
    }
    Ok(())
}

/// To the words that shaders read, and back; and back from words that are damaged.
fn use_device(input: &mut Unstructured<'_>, matrix: &PackedMatrix) -> Result<()> {
    let (format, rows, columns) = (*matrix.format(), matrix.rows(), matrix.columns());
    let layout = layout(input)?;
    let read = |codes: &[u32], side: &[u32]| {
        PackedMatrix::from_device(format, rows, columns, &layout, codes, side)
    };
    let image = match matrix.to_device(&layout) {
        Ok(image) => image,
        Err(error) => {
            check_error(&error);
            return Ok(());
        }
    };
    assert_eq!(image.codes.len(), image.sections.codes_words);
    assert_eq!(image.side.len(), image.sections.side_words);
    assert_eq!(
        read(&image.codes, &image.side).as_ref(),
        Ok(matrix),
        "{layout:?}"
    );
    let (mut codes, mut side) = (image.codes, image.side);
    for words in [&mut codes, &mut side] {
        if !words.is_empty() {
            let place = input.choose_index(words.len())?;
            words[place] ^= input.arbitrary::<u32>()?;
        }
    }
    match read(&codes, &side) {
        Ok(other) => {
            let image = other.to_device(&layout).expect("the shape is as it was");
            assert_eq!(read(&image.codes, &image.side).as_ref(), Ok(&other));
        }
        Err(error) => check_error(&error),
    }
    Ok(())
}

fn words_of_a_device(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let format = match format(input)? {
        Ok(format) => format,
        Err(error) => return Ok(Err(error)),
    };
    let (rows, columns) = shape(input, &format)?;
    let layout = layout(input)?;
    let sections = match Sections::new(&format, rows, columns, &layout) {
        Ok(sections) => sections,
        Err(error) => return Ok(Err(error)),
    };
    let mut words = |right: usize| -> Result<Vec<u32>> {
        let count = count(input, right)?;
        let bytes = bytes(input, 4 * count)?;
        let words = bytes.chunks_exact(4);
        Ok(words
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    };
    let codes = words(sections.codes_words)?;
    let side = words(sections.side_words)?;
    match PackedMatrix::from_device(format, rows, columns, &layout, &codes, &side) {
        Ok(matrix) => use_matrix(input, &matrix)?,
        Err(error) => return Ok(Err(error)),
    }
    Ok(Ok(()))
}

/// Shapes that no memory holds, with data of a few bytes.
fn shapes_of_any_size(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let format = match format(input)? {
        Ok(format) => format,
        Err(error) => return Ok(Err(error)),
    };
    let mut size = || -> Result<usize> {
        let (any, narrow): (u64, u32) = (input.arbitrary()?, input.arbitrary()?);
        let edges = [
            0,
            1,
            32,
            256,
            1 << 31,
            u64::from(narrow),
            u64::from(u32::MAX),
            any,
        ];
        Ok(*input.choose(&edges)? as usize)
    };
    let (rows, columns) = (size()?, size()?);
    let layout = layout(input)?;
    let data = bytes(input, 8)?;
    let numbers: Vec<f32> = data.iter().map(|&byte| f32::from(byte)).collect();
    let words: Vec<u32> = data.iter().map(|&byte| u32::from(byte)).collect();
    let side = SideData {
        scales: &numbers[..1],
        ..SideData::default()
    };
    let sections = Sections::new(&format, rows, columns, &layout);
    let pieces = vec![words.clone()];
    // Rows without columns have their scales all the same, which the caller then asks for.
    let scales = format
        .scale_count(rows, columns)
        .max(format.second_count(rows, columns));
    let few_scales = scales <= 1 << 16;
    let options = QuantizeOptions::default();
    let quantised = few_scales.then(|| quantize_with(&[], rows, columns, format, &options));
    let results = [
        PackedMatrix::from_parts(format, rows, columns, &data, side).err(),
        PackedMatrix::from_pieces(format, rows, columns, pieces, side).err(),
        PackedMatrix::from_device(format, rows, columns, &layout, &words, &words).err(),
        PackedMatrix::from_f32(FloatFormat::F16, rows, columns, &numbers).err(),
        quantize_with(&numbers, rows, columns, format, &options).err(),
        PackedMatrix::from_parts(format, rows, columns, &[], SideData::default()).err(),
        quantised.and_then(|result| result.err()),
    ];
    for error in results.iter().flatten() {
        check_error(error);
    }
    Ok(sections.map(drop))
}

fn five_ternary_codes_a_byte(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let length = input.int_in_range(0..=64)?;
    let mut codes = bytes(input, length)?;
    if input.ratio(7_u8, 8)? {
        codes.iter_mut().for_each(|code| *code %= 3);
    }
    let packed = match pack_ternary5(&codes) {
        Ok(packed) => packed,
        Err(error) => return Ok(Err(error)),
    };
    let mut again = vec![0; codes.len()];
    assert_eq!(unpack_ternary5(&packed, &mut again), Ok(()));
    assert_eq!(again, codes);
    let any = bytes(input, packed.len())?;
    match unpack_ternary5(&any, &mut again) {
        Ok(()) => assert_eq!(pack_ternary5(&again), Ok(any)),
        Err(error) => check_error(&error),
    }
    Ok(Ok(()))
}

/// Names of formats, as files and users write them.
fn names(input: &mut Unstructured<'_>) -> Result<Outcome> {
    let text = String::from_utf8_lossy(input.bytes(input.len())?).into_owned();
    for parsed in [
        MatrixFormat::parse_weight(&text),
        MatrixFormat::parse_activation(&text),
    ] {
        match parsed {
            Ok(format) => assert_eq!(format.to_string().parse(), Ok(format)),
            Err(error) => check_error(&error),
        }
    }
    Ok(text.parse::<MatrixFormat>().map(|format| {
        assert_eq!(format.to_string(), text, "a format has one name");
    }))
}

/// Bytes at random after each first byte that says another scenario, and names.
fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let mut seeds = Vec::new();
    for scenario in 0..SCENARIOS.len() {
        // `choose` takes the high end of a byte times the number of choices, or its remainder; both are met here.
        for first in 0..=u8::MAX {
            let mut input: Vec<u8> = (0..64).map(|_| random.bits() as u8).collect();
            input[0] = first;
            let chosen = Unstructured::new(&input).choose_index(SCENARIOS.len());
            if chosen == Ok(scenario) && run(&input) == Verdict::Accepted {
                seeds.push(input);
                if seeds.len() % 6 == 0 {
                    break;
                }
            }
        }
    }
    // The last scenario reads a name.
    let names = SCENARIOS.len() - 1;
    let first = (0..=u8::MAX)
        .find(|&first| Unstructured::new(&[first; 64]).choose_index(SCENARIOS.len()) == Ok(names))
        .unwrap_or_default();
    for name in [
        "i4g32h",
        "u4g128hm",
        "nf4g64h",
        "e2m1g32e",
        "i8",
        "bitmod4g32qc",
    ] {
        seeds.push([&[first], name.as_bytes()].concat());
    }
    seeds
}
