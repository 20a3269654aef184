//! f32 outputs lie within the bounds of the error model.

use anybit::{Engine, Problem};
use anybit_formats::{
    AffineFormat, ElementFormat, Encoding, Granularity, MatrixFormat, ScaleLayout, ScaleType,
    ZeroKind,
};
use anybit_tests::case::{Case, Kernel};
use anybit_tests::cover::{each_level, pairwise};
use anybit_tests::full;
use anybit_tests::operand::{Fill, format};
use anybit_tests::rig::{Rig, on_each_adapter};

use super::decode::element_classes;

const GRANULARITIES: [Granularity; 7] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(64),
    Granularity::Group(96),
    Granularity::Group(128),
];
const SCALES: [ScaleType; 2] = [ScaleType::F32, ScaleType::F16];
const ZEROS: [ZeroKind; 3] = [ZeroKind::None, ZeroKind::Integer, ZeroKind::Minimum];
const ENCODINGS: [Encoding; 3] = [
    Encoding::Unsigned,
    Encoding::TwosComplement,
    Encoding::Bipolar,
];

/// Levels of a coded operand: bits, encoding, granularity, scale type, zero. Without `full`, a level of bits stands for two
/// widths, which take turns.
fn operand_levels() -> [usize; 5] {
    let bits = if full() { 8 } else { 4 };
    [
        bits,
        ENCODINGS.len(),
        GRANULARITIES.len(),
        SCALES.len(),
        ZEROS.len(),
    ]
}

fn coded(levels: &[usize], turn: usize) -> MatrixFormat {
    let bits = if full() {
        levels[0]
    } else {
        2 * levels[0] + turn % 2
    };
    let element = AffineFormat::new(bits as u8 + 1, ENCODINGS[levels[1]]).expect("a format");
    let layout = ScaleLayout {
        granularity: GRANULARITIES[levels[2]],
        scale: SCALES[levels[3]],
        zero: ZEROS[levels[4]],
    };
    MatrixFormat::new(ElementFormat::Affine(element), Some(layout)).expect("a format")
}

/// K that whole groups of both operands divide, and whole steps do not where it can be.
fn k_of(problem: &Problem, step: usize) -> [usize; 2] {
    let group = |format: &MatrixFormat| match format.scales() {
        Some(ScaleLayout {
            granularity: Granularity::Group(group),
            ..
        }) => group as usize,
        _ => 1,
    };
    let unit = lcm(group(&problem.activation), group(&problem.weight));
    let odd = |length: usize| length.div_ceil(unit) * unit;
    [odd(step - 1), odd(2 * step + 3)]
}

const fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Checks a kernel on a few shapes and fills.
fn check_shapes(
    rig: &mut Rig,
    kernel: Kernel,
    activation: MatrixFormat,
    weight: MatrixFormat,
    seed: u64,
) {
    let sample = Problem::new((1, 1, 1), activation, weight);
    let fills = Fill::ALL[seed as usize % Fill::ALL.len()];
    for (index, k) in k_of(&sample, kernel.step(&sample)).into_iter().enumerate() {
        let (m, n) = (kernel.tile.m as usize + 1, kernel.tile.n as usize + 3);
        let problem = match index {
            0 => Problem::new((m.min(8), n, k), activation, weight),
            // Gemv kernels take up to eight rows.
            _ => Problem::new(
                (m.min(if kernel.tile.k == 0 { 8 } else { m }), n / 2 + 1, k),
                activation,
                weight,
            ),
        };
        let fills = if index == 0 {
            (Fill::Random, Fill::Random)
        } else {
            (Fill::Random, fills)
        };
        rig.check(&Case::new(problem, kernel, seed).with_fills(fills.0, fills.1));
    }
}

/// The classes of kernels of an engine on an adapter: those that take narrow operands, hence all. With `full` each kernel
/// is a class of its own.
fn classes(rig: &mut Rig, engine: Engine) -> Vec<Vec<Kernel>> {
    let sample = match engine {
        Engine::Fma | Engine::LMul | Engine::Lut | Engine::Lut8 => {
            Problem::new((1, 64, 128), format("f32"), format("u2f"))
        }
        _ => Problem::new((1, 64, 128), format("u2f"), format("u2f")),
    };
    let classes = rig.classes(&sample, engine);
    if full() {
        return classes
            .into_iter()
            .flatten()
            .map(|kernel| vec![kernel])
            .collect();
    }
    classes
}

fn check_integer_engine(test: &str, engine: Engine) {
    on_each_adapter(test, |rig| {
        let classes = classes(rig, engine);
        let caps = rig.best().caps().clone();
        let operand = operand_levels();
        let levels: Vec<usize> = [classes.len()]
            .into_iter()
            .chain(operand)
            .chain(operand)
            .collect();
        let rows = pairwise(&levels, |row| {
            let (activation, weight) = (coded(&row[1..6], 1), coded(&row[6..11], 1));
            let problem = Problem::new((1, 64, 384), activation, weight);
            classes[row[0]][0].id(&problem, &caps).is_some()
        });
        // What these have of their own is little: operands, scales and sums are dot4's and bitplane's.
        let every = match engine {
            Engine::Swar | Engine::IntegerFma if !full() => 12,
            // A pair of levels of two factors may be met on one of the two engines alone.
            Engine::Dot4 | Engine::Bitplane if !full() => 2,
            _ => 1,
        };
        let first = usize::from(engine == Engine::Bitplane) % every;
        for (turn, row) in rows.iter().enumerate().skip(first).step_by(every) {
            let (activation, weight) = (coded(&row[1..6], turn), coded(&row[6..11], turn / 2));
            let problem = Problem::new((1, 64, 384), activation, weight);
            let able = |kernel: &Kernel| kernel.id(&problem, &caps).is_some();
            let class: Vec<Kernel> = classes[row[0]].iter().copied().filter(able).collect();
            check_shapes(
                rig,
                Kernel::in_turn(&class, turn),
                activation,
                weight,
                turn as u64,
            );
        }
    });
}

#[test]
fn dot4_stays_within_the_bounds() {
    check_integer_engine("dot4_stays_within_the_bounds", Engine::Dot4);
}

#[test]
fn swar_stays_within_the_bounds() {
    check_integer_engine("swar_stays_within_the_bounds", Engine::Swar);
}

#[test]
fn integer_fma_stays_within_the_bounds() {
    check_integer_engine("integer_fma_stays_within_the_bounds", Engine::IntegerFma);
}

#[test]
fn bitplane_stays_within_the_bounds() {
    check_integer_engine("bitplane_stays_within_the_bounds", Engine::Bitplane);
}

#[test]
fn fma_of_codes_stays_within_the_bounds() {
    on_each_adapter("fma_of_codes_stays_within_the_bounds", |rig| {
        let classes = classes(rig, Engine::Fma);
        let activations = ["f32", "f16", "bf16"].map(format);
        let levels: Vec<usize> = [classes.len(), activations.len()]
            .into_iter()
            .chain(operand_levels())
            .collect();
        for (turn, row) in pairwise(&levels, |_| true).iter().enumerate() {
            let kernel = Kernel::in_turn(&classes[row[0]], turn);
            check_shapes(
                rig,
                kernel,
                activations[row[1]],
                coded(&row[2..], turn),
                turn as u64,
            );
        }
    });
}

/// Floats with integers of up to four bits in every encoding under all scales, by tables.
fn check_tables(test: &str, engine: Engine) {
    on_each_adapter(test, |rig| {
        let classes = classes(rig, engine);
        let caps = rig.best().caps().clone();
        let activations = ["f32", "f16", "bf16"].map(format);
        let [_, rest @ ..] = operand_levels();
        let levels: Vec<usize> = [classes.len(), activations.len(), 4]
            .into_iter()
            .chain(rest)
            .collect();
        for (turn, row) in pairwise(&levels, |_| true).iter().enumerate() {
            let mut coded_levels = row[2..].to_vec();
            // Without `full`, a level stands for two widths.
            let turn_of_width = coded_levels[0] % 2;
            if !full() {
                coded_levels[0] /= 2;
            }
            let weight = coded(&coded_levels, turn_of_width);
            let activation = activations[row[1]];
            let problem = Problem::new((1, 64, 384), activation, weight);
            let able = |kernel: &Kernel| kernel.id(&problem, &caps).is_some();
            let class: Vec<Kernel> = classes[row[0]].iter().copied().filter(able).collect();
            let kernel = Kernel::in_turn(&class, turn);
            check_shapes(rig, kernel, activation, weight, turn as u64);
        }
    });
}

#[test]
fn lut_stays_within_the_bounds() {
    check_tables("lut_stays_within_the_bounds", Engine::Lut);
}

#[test]
fn lut8_stays_within_the_bounds() {
    check_tables("lut8_stays_within_the_bounds", Engine::Lut8);
}

#[test]
fn fma_of_floats_stays_within_the_bounds() {
    on_each_adapter("fma_of_floats_stays_within_the_bounds", |rig| {
        let classes = classes(rig, Engine::Fma);
        let floats = ["f32", "f16", "bf16"].map(format);
        let levels = [classes.len(), floats.len(), floats.len()];
        for (turn, row) in pairwise(&levels, |_| true).iter().enumerate() {
            let kernel = Kernel::in_turn(&classes[row[0]], turn);
            check_shapes(rig, kernel, floats[row[1]], floats[row[2]], turn as u64);
        }
    });
}

/// The formats of an element: each granularity and scale type that it takes, with the zeros that it needs.
fn scaled_formats(element: ElementFormat) -> Vec<MatrixFormat> {
    let mut formats = Vec::new();
    for granularity in GRANULARITIES {
        for scale in ScaleType::ALL {
            for zero in [ZeroKind::None, ZeroKind::Choice] {
                let layout = ScaleLayout {
                    granularity,
                    scale,
                    zero,
                };
                formats.extend(MatrixFormat::new(element, Some(layout)));
            }
        }
    }
    formats
}

/// Elements, one of each class that has pipelines of its own, in turn.
fn in_turn(classes: &[Vec<ElementFormat>], class: usize, turn: usize) -> ElementFormat {
    classes[class][turn % classes[class].len()]
}

/// Pairs of operands of all families, under scales and on kernels in turn, unless `full` every third of them and those that
/// bring a kernel or an operand that had none. `activations` and `weights` are classes of elements, floats among them.
fn check_families(
    rig: &mut Rig,
    engine: Engine,
    activations: &[Vec<ElementFormat>],
    weights: &[Vec<ElementFormat>],
) {
    let kernels = classes(rig, engine);
    let caps = rig.best().caps().clone();
    let levels = [kernels.len(), activations.len(), weights.len()];
    let rows = each_level(&levels, |_| true, 3);
    for (turn, row) in rows.iter().enumerate() {
        let operand = |classes: &[Vec<ElementFormat>], class: usize, turn: usize| {
            let element = in_turn(classes, class, turn);
            if !element.has_codes() {
                return MatrixFormat::activation_default(element);
            }
            // Every scale in turn. 11 has no factor in common with their number.
            let formats = scaled_formats(element);
            formats[11 * turn % formats.len()]
        };
        let activation = operand(activations, row[1], turn);
        let weight = operand(weights, row[2], turn + 5);
        let problem = Problem::new((1, 64, 384), activation, weight);
        let able = |kernel: &Kernel| kernel.id(&problem, &caps).is_some();
        let class: Vec<Kernel> = kernels[row[0]].iter().copied().filter(able).collect();
        if !class.is_empty() {
            let kernel = Kernel::in_turn(&class, turn);
            check_shapes(rig, kernel, activation, weight, turn as u64);
        }
    }
}

/// Floats, each a class of its own.
fn floats() -> Vec<Vec<ElementFormat>> {
    ["f32", "f16", "bf16"]
        .map(|name| vec![format(name).element()])
        .into()
}

/// Minifloats, codebooks and integers, decoded to f32, with each other and with floats.
#[test]
fn fma_of_every_family_stays_within_the_bounds() {
    on_each_adapter("fma_of_every_family_stays_within_the_bounds", |rig| {
        let coded: Vec<Vec<ElementFormat>> = element_classes()
            .into_iter()
            .filter(|class| full() || class[0].affine().is_none() || class[0].bits() % 3 == 2)
            .collect();
        let some = ["e4m3", "e2m1", "nf4", "int8"];
        let activations = match full() {
            true => coded.clone(),
            false => some
                .map(|name| vec![name.parse().expect("an element")])
                .into(),
        };
        let activations: Vec<_> = floats().into_iter().chain(activations).collect();
        check_families(rig, Engine::Fma, &activations, &coded);
    });
}

/// L-Mul of operands of every family, bare and scaled, on kernels in turn. As f32 multiply-add decodes the same operands, a
/// few of each show the products.
#[test]
fn l_mul_of_every_family_stays_within_the_bounds() {
    on_each_adapter("l_mul_of_every_family_stays_within_the_bounds", |rig| {
        let classes = classes(rig, Engine::LMul);
        let pairs = [
            ("e4m3", "e4m3"),
            ("f16", "e4m3rf"),
            ("e4m3rf", "e2m1g32e"),
            ("bf16", "nf4g64f"),
            ("f32", "i4g32h"),
            ("f16", "u4g32hm"),
            ("i8rf", "e5m2g32h"),
            ("f32", "bitmod3g128qc"),
            ("e5m2g32e", "dynamic8g128f"),
        ];
        for (turn, (x, w)) in pairs.into_iter().enumerate() {
            let kernel = Kernel::in_turn(&classes[turn % classes.len()], turn);
            check_shapes(rig, kernel, format(x), format(w), turn as u64);
        }
    });
}

/// Values lifted to integers, with each other and with integers.
#[test]
fn dot4_of_lifted_values_stays_within_the_bounds() {
    on_each_adapter("dot4_of_lifted_values_stays_within_the_bounds", |rig| {
        let lifted: Vec<Vec<ElementFormat>> = element_classes()
            .into_iter()
            .map(|mut class| {
                class.retain(|element| element.affine().is_none() && element.lift_unit().is_some());
                class
            })
            .filter(|class| !class.is_empty())
            .collect();
        let integers = ["i8", "u4", "b8", "t"].map(|name| vec![format(name).element()]);
        let all: Vec<_> = lifted.iter().cloned().chain(integers).collect();
        let some = ["e2m1", "e3m0", "power4", "int8"];
        let activations = match full() {
            true => all.clone(),
            false => some
                .map(|name| vec![name.parse().expect("an element")])
                .into(),
        };
        check_families(rig, Engine::Dot4, &activations, &all);
    });
}

/// Ternary and binary, the named formats of GGUF, MX and NVFP4, and every width against f32 and against itself, on the
/// kernels that the planner takes.
#[test]
fn usual_contracts_stay_within_the_bounds() {
    on_each_adapter("usual_contracts_stay_within_the_bounds", |rig| {
        let mut pairs: Vec<(String, String)> = [
            ("i8rf", "tg32h"),
            ("i8rf", "b1rh"),
            ("trf", "trf"),
            ("b1rf", "b1rf"),
            ("i8rf", "i4g32h"),
            ("i8rf", "u4g32hm"),
            ("i8rf", "u5g32hm"),
            ("i8rf", "i5g32h"),
            ("i8rf", "i8g32h"),
            ("f32", "tg64f"),
            ("e4m3rf", "e4m3rf"),
            ("e5m2rf", "e4m3g32h"),
            ("e4m3rf", "e2m1g32e"),
            ("e4m3g32e", "e4m3g32e"),
            ("e3m2g32e", "e3m2g32e"),
            ("e2m3g32e", "e2m3g32e"),
            ("e2m1g32e", "e2m1g32e"),
            ("e2m1g16k", "e2m1g16k"),
            ("i8rf", "e2m1g32e"),
            ("i8rf", "u4g32sm"),
            ("i8rf", "i6g16s"),
            ("i8rf", "iq4nlg32s"),
            ("i8rf", "bitmod4g128qc"),
            ("f32", "bitmod3g128qc"),
            ("f32", "nf4g64f"),
            ("f16", "e3m2g32h"),
            ("f32", "dynamic8g128f"),
            ("i8rf", "shift3g32h"),
            ("e4m3rf", "i4g32h"),
        ]
        .map(|(x, w)| (x.to_owned(), w.to_owned()))
        .into();
        for bits in 1..=8 {
            pairs.push(("f32".to_owned(), format!("i{bits}g32h")));
            pairs.push((format!("i{bits}rf"), format!("i{bits}g32h")));
        }
        for (index, (x, w)) in pairs.iter().enumerate() {
            for (turn, (m, n, k)) in [(1, 70, 256), (7, 33, 384), (33, 65, 256)]
                .into_iter()
                .enumerate()
            {
                // A shape each in turn: each brings another pipeline.
                if !full() && (index + turn) % 3 != 0 {
                    continue;
                }
                let problem = Problem::new((m, n, k), format(x), format(w));
                let kernel = Kernel::all_for(&problem, rig.best().caps(), false)[0];
                rig.check(&Case::new(problem, kernel, index as u64));
            }
        }
    });
}
