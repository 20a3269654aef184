//! L-Mul on the GPU: products element by element equal the host's bit for bit, and sums of any multiplier lie within the
//! bounds.

use anybit::{Engine, OutputFormat, OutputMatrix, PlanOptions, Problem, l_mul_specialization};
use anybit_formats::{LMul, LMulReading, MatrixFormat, PackedMatrix};
use anybit_reference::kernel;
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{Rig, buffer_of, l_mul_reference, multiply, on_each_adapter};

/// In the output before the kernel runs.
const CANARY: u32 = 0xdead_beef;

/// Multipliers of both readings and every l.
fn multipliers() -> Vec<LMul> {
    [1, 2, 3, 4, 7, 23]
        .into_iter()
        .flat_map(|bits| {
            let l_mul = LMul::new(bits).expect("1 to 23 bits");
            [LMulReading::Bits, LMulReading::Formula].map(|reading| l_mul.with_reading(reading))
        })
        .collect()
}

/// Words of every kind: 0, subnormals, the smallest and largest normal ones, infinities, NaN, ties of every rounding, and
/// their neighbours, of both signs.
fn edges() -> Vec<u32> {
    let mut words = vec![
        0,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
        0x7fff_ffff,
    ];
    // Halves, quarters, … of a step past 1 and 1.9…, near 1 and at both ends of the range.
    for exponent in [1, 63, 64, 126, 127, 128, 190, 254] {
        for bit in 0..23 {
            for mantissa in [1 << bit, 0x007f_ffff & !(1 << bit), (1 << bit) - 1] {
                words.push(exponent << 23 | mantissa);
            }
        }
    }
    words.sort_unstable();
    words.dedup();
    words
        .iter()
        .flat_map(|&word| [word, word | 1 << 31])
        .collect()
}

/// A float whose exponent is near 0 on three times out of four, so that products are mostly in range; any word else.
fn word(random: &mut Random) -> u32 {
    let word = random.bits() as u32;
    match random.one_in(4) {
        true => word,
        false => word & 0x83ff_ffff | 0x3c00_0000,
    }
}

/// Runs l_mul on words in buffers of the caller, whose rows begin at strides of their own.
fn run(
    rig: &mut Rig,
    l_mul: LMul,
    (rows, columns): (usize, usize),
    x: &[u32],
    y: &[u32],
) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let context = rig.best();
    let stride = columns.next_multiple_of(4);
    let input = |words: &[u32], stride: usize| {
        let mut padded = vec![CANARY; rows * stride];
        for (row, words) in words.chunks(columns).enumerate() {
            padded[row * stride..][..columns].copy_from_slice(words);
        }
        let buffer = buffer_of(&context, padded.into_iter());
        anybit::DeviceMatrix::from_buffer(&buffer, 0, (rows, columns), stride)
    };
    let (x, y) = (input(x, stride)?, input(y, stride + 4)?);
    let buffer = buffer_of(&context, (0..rows * stride).map(|_| CANARY));
    let shape = (rows, columns);
    let output = OutputMatrix::from_buffer(&buffer, 0, OutputFormat::F32, shape, stride)?;
    let whole = OutputMatrix::from_buffer(&buffer, 0, OutputFormat::I32, (rows, stride), stride)?;
    let prepared = context.prepare_l_mul(&x, &y, &output, l_mul)?;
    let words = context.run(&prepared, &whole)?;
    let words = words.into_i32().ok_or("read as integers")?;
    let mut products = Vec::with_capacity(rows * columns);
    for row in words.chunks(stride) {
        let (values, rest) = row.split_at(columns);
        if rest.iter().any(|&word| word.cast_unsigned() != CANARY) {
            return Err("words after the end of a row were overwritten".into());
        }
        products.extend(values.iter().map(|word| word.cast_unsigned()));
    }
    Ok(products)
}

fn check(rig: &mut Rig, l_mul: LMul, shape: (usize, usize), x: &[u32], y: &[u32]) {
    let floats = |words: &[u32]| {
        words
            .iter()
            .copied()
            .map(f32::from_bits)
            .collect::<Vec<_>>()
    };
    let expected: Vec<u32> = kernel::l_mul(&floats(x), &floats(y), l_mul)
        .into_iter()
        .map(f32::to_bits)
        .collect();
    rig.note_pipeline(&l_mul_specialization(l_mul), false);
    let what = format!("{l_mul} {shape:?}");
    match run(rig, l_mul, shape, x, y) {
        Err(error) => rig.note(Err(format!("{what}: {error}"))),
        Ok(found) => {
            let wrong = (0..found.len()).find(|&i| found[i] != expected[i]);
            rig.note(match wrong {
                None if found.len() == expected.len() => Ok(()),
                None => Err(format!("{what}: {} products", found.len())),
                Some(i) => Err(format!(
                    "{what}: {:#010x} · {:#010x} is {:#010x}, expected {:#010x}",
                    x[i], y[i], found[i], expected[i]
                )),
            });
        }
    }
}

#[test]
fn products_are_exact() {
    on_each_adapter("products_are_exact", |rig| {
        let edges = edges();
        for (turn, l_mul) in multipliers().into_iter().enumerate() {
            // Every edge with every edge.
            let count = edges.len();
            let x: Vec<u32> = (0..count * count).map(|i| edges[i / count]).collect();
            let y: Vec<u32> = (0..count * count).map(|i| edges[i % count]).collect();
            check(rig, l_mul, (count, count), &x, &y);
            let mut random = Random::new(turn as u64);
            let shape = (331, 203 + turn % 4);
            let mut words =
                || -> Vec<u32> { (0..shape.0 * shape.1).map(|_| word(&mut random)).collect() };
            let (x, y) = (words(), words());
            check(rig, l_mul, shape, &x, &y);
        }
        for shape in [(1, 1), (1, 5), (70, 3)] {
            let words = vec![0x3fc0_0000; shape.0 * shape.1];
            check(rig, LMul::F32, shape, &words, &words);
        }
    });
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    on_each_adapter("operands_that_do_not_fit_are_refused", |rig| {
        use anybit::Error;
        let context = rig.best();
        let matrix = |rows: usize, columns: usize| {
            context
                .upload_f32(&vec![1.5; rows * columns], rows, columns)
                .expect("a matrix")
        };
        let x = matrix(3, 8);
        let output = context.output(OutputFormat::F32, 3, 8).expect("an output");
        let prepare = |y: &anybit::DeviceMatrix, output: &OutputMatrix| {
            context.prepare_l_mul(&x, y, output, LMul::F32)
        };
        // A matrix times itself is no alias.
        let square = prepare(&x, &output).expect("a product");
        let values = context.run(&square, &output).expect("a result");
        assert_eq!(
            values.into_f32(),
            Some(vec![LMul::F32.product(1.5, 1.5); 24])
        );
        assert!(matches!(
            prepare(&matrix(3, 9), &output),
            Err(Error::ShapeMismatch { .. })
        ));
        let integers = context.output(OutputFormat::I32, 3, 8).expect("an output");
        assert!(matches!(
            prepare(&x, &integers),
            Err(Error::OutputMismatch { .. })
        ));
        let codes = PackedMatrix::from_codes(
            format("i8"),
            3,
            8,
            &[1; 24],
            &[],
            anybit_formats::Zeros::None,
        )
        .expect("codes");
        let codes = context.upload(&codes, &anybit_formats::DeviceLayout::ROW_MAJOR);
        let refused = prepare(&codes.expect("a matrix"), &output);
        assert!(matches!(refused, Err(Error::FormatMismatch { .. })));
        let buffer = buffer_of(&context, (0..64).map(|_| 0));
        let shared = anybit::DeviceMatrix::from_buffer(&buffer, 0, (3, 8), 8).expect("a matrix");
        let over = OutputMatrix::from_buffer(&buffer, 0, OutputFormat::F32, (3, 8), 8);
        let refused = prepare(&shared, &over.expect("an output"));
        assert!(matches!(refused, Err(Error::Aliased { .. })));
        let empty = context.output(OutputFormat::F32, 0, 8).expect("an output");
        let none = context.prepare_l_mul(&matrix(0, 8), &matrix(0, 8), &empty, LMul::F32);
        rig.note(match none.map(|prepared| prepared.dispatches()) {
            Ok(0) => Ok(()),
            other => Err(format!("an empty matrix: {other:?}")),
        });
    });
}

/// Sums of products of any multiplier, on a kernel of each skeleton.
#[test]
fn multipliers_stay_within_the_bounds() {
    on_each_adapter("multipliers_stay_within_the_bounds", |rig| {
        let problem = |m, x, w| Problem::new((m, 37, 100), x, w);
        let pairs = [
            (MatrixFormat::F32, MatrixFormat::F32),
            (format("bf16"), format("e4m3")),
        ];
        for (turn, l_mul) in multipliers().into_iter().enumerate() {
            let (x, w) = pairs[turn / 2 % pairs.len()];
            let skeletons = rig.classes(&problem(5, x, w), Engine::LMul);
            let kernel = skeletons[turn % skeletons.len()][0];
            let problem = problem(5, x, w);
            let context = rig.context(&kernel);
            let mut options = PlanOptions::l_mul(l_mul);
            options.skeleton = Some(kernel.skeleton);
            let plan = context.plan_with(&problem, &options).expect("a plan");
            assert_eq!(plan.l_mul(), Some(l_mul));
            rig.note_pipeline(plan.specialization(), kernel.floor);
            let context = rig.context(&kernel);
            let mut random = Random::new(turn as u64);
            let x = operand(&problem.activation, (5, 100), Fill::Random, &mut random);
            let w = operand(&problem.weight, (37, 100), Fill::Random, &mut random);
            let (expected, bounds) = l_mul_reference(&problem, l_mul, &x, &w).expect("a product");
            match multiply(&context, &plan, &x, &w, &mut random) {
                Err(error) => rig.note(Err(format!("{}: {error}", plan.id()))),
                Ok(found) => {
                    let found = found.into_f32().unwrap_or_default();
                    rig.note_wrong(plan.id(), compare::bounded(&found, &expected, &bounds));
                    // The bounds tell the readings apart.
                    let other = l_mul.with_reading(match l_mul.reading() {
                        LMulReading::Bits => LMulReading::Formula,
                        _ => LMulReading::Bits,
                    });
                    let (others, _) = l_mul_reference(&problem, other, &x, &w).expect("a product");
                    let same = compare::bounded(&found, &others, &bounds).is_none();
                    rig.note(match same {
                        false => Ok(()),
                        true => Err(format!("{} could be {other}", plan.id())),
                    });
                }
            }
        }
    });
}
