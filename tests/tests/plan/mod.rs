//! The planner on made-up devices.

mod choices;
mod matrix;

use std::collections::HashSet;

use anybit::{
    Batch, Candidate, Caps, DeviceClass, Engine, KERNELS, Memories, OutputFormat, PlanOptions,
    Problem, Reason, Skeleton, candidates, plan,
};
use anybit_formats::{ElementFormat, FORMATS, LMul, LMulReading, MatrixFormat};
use anybit_tests::full;
use anybit_tests::operand::format;
use proptest::prelude::*;

/// Devices between the floor and the ample.
fn devices() -> Vec<Caps> {
    let mut devices = Vec::new();
    for class in [DeviceClass::Gpu, DeviceClass::Software] {
        for subgroup in [
            None,
            Some((4, 4)),
            Some((8, 8)),
            Some((16, 32)),
            Some((64, 64)),
        ] {
            for (invocations, memory) in [(256, 16 << 10), (1024, 48 << 10)] {
                devices.push(Caps {
                    class,
                    subgroup,
                    max_invocations: invocations,
                    max_workgroup_memory: memory,
                    ..Caps::floor()
                });
            }
        }
    }
    devices
}

fn elements() -> Vec<ElementFormat> {
    FORMATS.iter().map(|row| row.element).collect()
}

/// Every element with elements of each family, on every device; with `full`, with every element.
#[test]
fn every_usual_pair_has_a_kernel_everywhere() {
    let partners: Vec<ElementFormat> = match full() {
        true => elements(),
        false => [
            "f32", "f16", "int8", "uint3", "e4m3", "e2m1", "nf4", "bitmod3",
        ]
        .map(|name| name.parse().expect("a format"))
        .into(),
    };
    for (index, element) in elements().into_iter().enumerate() {
        for (turn, &partner) in partners.iter().enumerate() {
            for (x, w) in [(element, partner), (partner, element)] {
                let problem = |m| {
                    Problem::new(
                        (m, 96, 128),
                        MatrixFormat::activation_default(x),
                        MatrixFormat::weight_default(w),
                    )
                };
                for (number, caps) in devices().iter().enumerate() {
                    // All devices, and all numbers of rows, in turn.
                    if !full() && (index + turn + number) % 5 != 0 {
                        continue;
                    }
                    let problem = problem([1, 5, 64][(index + number) % 3]);
                    if let Err(error) = plan(&problem, caps, &PlanOptions::default()) {
                        panic!("{} on {caps:?}: {error}", problem.contract());
                    }
                }
            }
        }
    }
}

#[test]
fn every_tile_is_taken_or_refused_and_within_the_device() {
    let tiles: usize = KERNELS.iter().map(|row| row.tiles.len()).sum();
    for caps in devices() {
        for (x, w) in [
            ("f32", "f32"),
            ("i8rf", "u4g32hm"),
            ("b1", "b1"),
            ("i3g16f", "u7rhz"),
        ] {
            for m in [1, 9] {
                let problem = Problem::new((m, 64, 96), format(x), format(w));
                let (accepted, refused) =
                    candidates(&problem, &caps, &PlanOptions::default()).expect("a problem");
                let of_buffers = accepted
                    .iter()
                    .filter(|candidate| candidate.memories == Memories::BUFFERS)
                    .count()
                    + refused
                        .iter()
                        .filter(|refusal| !refusal.kernel().ends_with("_textures"))
                        .count();
                assert_eq!(of_buffers, tiles, "{}", problem.contract());
                let textures = accepted.len() + refused.len() - of_buffers;
                let offered = caps.class == DeviceClass::Software && w != "f32";
                assert_eq!(textures > 0, offered, "{}", problem.contract());
                assert!(accepted.is_sorted_by(|a, b| a.cost <= b.cost));
                for candidate in accepted {
                    let shader = &candidate.specialization;
                    assert!(shader.workgroup <= caps.max_invocations, "{}", shader.id);
                    assert!(
                        shader.workgroup_memory <= caps.max_workgroup_memory,
                        "{}",
                        shader.id
                    );
                    assert!(!shader.subgroup || caps.subgroup.is_some(), "{}", shader.id);
                    assert!(
                        candidate.cost.is_finite() && candidate.cost > 0.0,
                        "{}",
                        shader.id
                    );
                }
            }
        }
    }
}

/// An id is the name of one shader, and says what it computes.
#[test]
fn ids_are_unique_and_begin_with_the_contract() {
    for caps in devices() {
        for (x, w) in [
            ("f32", "f32"),
            ("f16", "i4g32h"),
            ("i8rf", "u4g32hm"),
            ("u2g16f", "b3rf"),
        ] {
            for m in [1, 2, 8, 64] {
                let problem = Problem::new((m, 64, 96), format(x), format(w));
                let (accepted, _) =
                    candidates(&problem, &caps, &PlanOptions::default()).expect("a problem");
                let mut ids = HashSet::new();
                for candidate in accepted {
                    let id = candidate.specialization.id;
                    let (contract, implementation) = id.split_once("__").expect("two halves");
                    assert_eq!(contract, problem.contract());
                    assert!(implementation.starts_with(candidate.engine.name()), "{id}");
                    let again = plan(&problem, &caps, &PlanOptions::kernel(&id)).expect("a plan");
                    assert_eq!((again.id(), again.tile()), (id.as_str(), candidate.tile));
                    assert!(ids.insert(id.clone()), "{id} names two shaders");
                }
            }
        }
    }
}

/// Two encodings of a width make one shader wherever their coefficients allow it.
#[test]
fn encodings_of_like_coefficients_share_shaders() {
    let text = |x: &str, w: &str| {
        let problem =
            Problem::new((4, 64, 96), format(x), format(w)).with_output(OutputFormat::I32);
        let plan = plan(
            &problem,
            &Caps::floor(),
            &PlanOptions::engine(Engine::Bitplane),
        );
        plan.expect("a plan")
            .specialization()
            .link()
            .expect("it links")
            .wgsl
    };
    assert_eq!(text("t", "t"), text("i2", "i2"));
    assert_eq!(text("i3", "b4"), text("b3", "i4"));
    // Coefficients that are 0 or 1 are left out.
    assert_ne!(text("i3", "u4"), text("u3", "u4"));
    assert_ne!(text("i3", "i4"), text("b3", "i4"));
    assert_ne!(text("i3", "u4"), text("i4", "u4"));
}

#[test]
fn options_narrow_the_choice() {
    let caps = Caps {
        subgroup: Some((8, 8)),
        ..Caps::floor()
    };
    let problem = Problem::new((8, 64, 96), format("i4rf"), format("i4g32h"));
    for engine in [Engine::Dot4, Engine::Bitplane] {
        let plan = plan(&problem, &caps, &PlanOptions::engine(engine)).expect("a plan");
        assert_eq!(plan.engine(), engine);
        let kept = PlanOptions::default().with_weight_layout(plan.weight_layout());
        let again = anybit::plan(&problem, &caps, &kept).expect("a plan");
        assert_eq!(again.weight_layout(), plan.weight_layout());
    }
    // f32 multiply-add takes integers where it is asked for, and where no engine of integers does.
    let fma = plan(&problem, &caps, &PlanOptions::engine(Engine::Fma)).expect("a plan");
    assert_eq!(fma.engine(), Engine::Fma);
    let (accepted, refused) =
        candidates(&problem, &caps, &PlanOptions::default()).expect("a problem");
    assert!(
        accepted
            .iter()
            .all(|candidate| candidate.engine != Engine::Fma)
    );
    assert!(
        refused
            .iter()
            .any(|refusal| refusal.reason == Reason::Integers)
    );
    // An emulation is taken only where it is asked for, by engine or by id.
    for problem in [
        &problem,
        &Problem::new((8, 64, 96), MatrixFormat::F32, format("e4m3")),
    ] {
        let (accepted, refused) =
            candidates(problem, &caps, &PlanOptions::default()).expect("a problem");
        let engine = |candidate: &anybit::Candidate| candidate.engine;
        assert!(
            accepted
                .iter()
                .map(engine)
                .all(|engine| engine != Engine::LMul)
        );
        let refused = refused
            .iter()
            .filter(|refusal| refusal.reason == Reason::Emulation);
        let tiles = KERNELS.iter().filter(|row| row.engine == Engine::LMul);
        assert_eq!(
            refused.count(),
            tiles.map(|row| row.tiles.len()).sum::<usize>()
        );
        let asked = plan(problem, &caps, &PlanOptions::engine(Engine::LMul)).expect("a plan");
        assert_eq!(asked.engine(), Engine::LMul);
        let again = plan(problem, &caps, &PlanOptions::kernel(asked.id())).expect("a plan");
        assert_eq!((again.id(), again.l_mul()), (asked.id(), asked.l_mul()));
        let integers = problem.clone().with_output(OutputFormat::I32);
        assert!(plan(&integers, &caps, &PlanOptions::engine(Engine::LMul)).is_err());
    }
    let minima = Problem::new((8, 64, 96), format("u8rfm"), format("i4g32h"));
    let plan = plan(&minima, &caps, &PlanOptions::default()).expect("a plan");
    assert_eq!(plan.engine(), Engine::Fma);
}

/// Tiles that take turns are there to be measured, and not chosen before that.
#[test]
fn tiles_take_turns_where_that_was_measured() {
    for class in [DeviceClass::Gpu, DeviceClass::Software] {
        let caps = Caps {
            class,
            ..Caps::floor()
        };
        for (engine, x, w) in [
            (Engine::Fma, "f32", "f32"),
            (Engine::Dot4, "i8rf", "u4g32hm"),
            (Engine::Bitplane, "b1", "b1"),
        ] {
            let problem = Problem::new((512, 512, 512), format(x), format(w));
            let options = PlanOptions::engine(engine);
            let (accepted, _) = candidates(&problem, &caps, &options).expect("a problem");
            let buffers = |candidate: &Candidate| candidate.tile.buffers;
            assert_eq!(accepted.first().map(buffers), Some(1), "{engine}");
            assert!(accepted.iter().any(|tile| buffers(tile) == 2), "{engine}");
        }
    }
}

/// Two products a multiply are for codes of which 16 bits hold four products; drivers that run shaders on a CPU take them
/// unasked, GPUs do not.
#[test]
fn two_products_a_multiply_are_for_narrow_codes() {
    let software = Caps {
        class: DeviceClass::Software,
        subgroup: Some((8, 8)),
        ..Caps::floor()
    };
    let gpu = Caps {
        class: DeviceClass::Gpu,
        subgroup: Some((32, 32)),
        ..Caps::floor()
    };
    let asked = PlanOptions::engine(Engine::Swar);
    for (a, w) in (1..=8_u32).flat_map(|a| (1..=8_u32).map(move |w| (a, w))) {
        let problem = Problem::new(
            (64, 96, 64),
            format(&format!("u{a}")),
            format(&format!("u{w}")),
        )
        .with_output(OutputFormat::I32);
        let (accepted, refused) = candidates(&problem, &software, &asked).expect("a problem");
        let terms = 0xffff / (((1 << a) - 1) * ((1 << w) - 1));
        assert_eq!(accepted.is_empty(), terms < 4, "{a} x {w} bits");
        if terms < 4 {
            let reason = Reason::Terms { terms };
            assert!(refused.iter().any(|refusal| refusal.reason == reason));
        }
        // Without subgroups, by tiles.
        let (accepted, _) = candidates(&problem, &Caps::floor(), &asked).expect("a problem");
        assert_eq!(accepted.is_empty(), terms < 4, "{a} x {w} bits");
        let tiled = |candidate: &Candidate| candidate.skeleton == Skeleton::Tiled;
        assert!(accepted.iter().all(tiled));
        // Of floats every pair.
        let floats = PlanOptions::engine(Engine::IntegerFma);
        let (accepted, _) = candidates(&problem, &Caps::floor(), &floats).expect("a problem");
        assert!(!accepted.is_empty() && accepted.iter().all(tiled));
    }
    let square = |x: &str, w: &str| Problem::new((1024, 1024, 1024), format(x), format(w));
    let engine = |problem: &Problem, caps: &Caps| {
        plan(problem, caps, &PlanOptions::default())
            .expect("a plan")
            .engine()
    };
    // Two products a multiply-add before two a 32-bit multiply before one a multiply-add.
    let engines = [("i4rf", "u4g32hm"), ("i8rf", "u4g32hm"), ("i8rf", "i8rf")];
    let engines = engines.map(|(x, w)| engine(&square(x, w), &software));
    assert_eq!(
        engines,
        [Engine::IntegerFma, Engine::Swar, Engine::IntegerFma]
    );
    assert_eq!(engine(&square("i4rf", "u4g32hm"), &gpu), Engine::Dot4);
    // Integers that could overflow are refused as those of the other engines are.
    let edge = anybit::max_k(format("u8").element(), format("u4").element(), false);
    let edge = edge.expect("integers");
    let at = |k| {
        let problem = Problem::new((4, 4, k), format("u8"), format("u4"));
        plan(&problem.with_output(OutputFormat::I32), &software, &asked)
    };
    assert!(at(edge).is_ok());
    assert!(matches!(
        at(edge + 1),
        Err(anybit::Error::AccumulatorOverflow { .. })
    ));
}

/// The multiplier is the formats' unless the options name one, and stands in the id and in the shader.
#[test]
fn ids_name_the_multiplier() {
    let caps = Caps::floor();
    let problem = Problem::new((1, 64, 96), format("bf16"), format("e4m3"));
    let formula = LMul::new(3)
        .expect("3 bits")
        .with_reading(LMulReading::Formula);
    let mut texts = HashSet::new();
    for (options, l_mul, suffix) in [
        (PlanOptions::engine(Engine::LMul), LMul::new(3).ok(), "_m3"),
        (PlanOptions::l_mul(LMul::F32), Some(LMul::F32), "_m23"),
        (PlanOptions::l_mul(formula), Some(formula), "_m3_formula"),
    ] {
        let plan = plan(&problem, &caps, &options).expect("a plan");
        assert_eq!(plan.l_mul(), l_mul);
        assert!(
            plan.id().starts_with("gemv_bf16_e4m3_f32__lmul_"),
            "{}",
            plan.id()
        );
        assert!(plan.id().ends_with(suffix), "{}", plan.id());
        assert!(texts.insert(plan.specialization().link().expect("it links").wgsl));
    }
    let fma = plan(&problem, &caps, &PlanOptions::engine(Engine::Fma)).expect("a plan");
    assert_eq!(fma.l_mul(), None);
}

/// Tables are for few rows of floats with integers of few bits, and only where they are asked for.
#[test]
fn tables_are_asked_for() {
    for caps in devices() {
        let problem = |m, x: &str, w: &str| Problem::new((m, 64, 96), format(x), format(w));
        let usual = problem(1, "f16", "i2g32h");
        let (accepted, refused) =
            candidates(&usual, &caps, &PlanOptions::default()).expect("a problem");
        let tables = [Engine::Lut, Engine::Lut8];
        assert!(
            accepted
                .iter()
                .all(|candidate| !tables.contains(&candidate.engine))
        );
        for reason in [Reason::Tables, Reason::RoundedTables] {
            assert!(
                refused.iter().any(|refusal| refusal.reason == reason),
                "{refused:?}"
            );
        }
        for engine in tables {
            let asked_for = |problem: &Problem| plan(problem, &caps, &PlanOptions::engine(engine));
            for bits in 1..=4 {
                for m in [1, 8] {
                    let plan =
                        asked_for(&problem(m, "f32", &format!("u{bits}g16hm"))).expect("a plan");
                    assert!(plan.id().contains(&format!("__{engine}_")), "{}", plan.id());
                    let again =
                        anybit::plan(plan.problem(), &caps, &PlanOptions::kernel(plan.id()));
                    assert_eq!(again.expect("the same plan").id(), plan.id());
                    let shuffles = caps.subgroup.is_some_and(|(smallest, _)| smallest >= 8);
                    assert_eq!(plan.specialization().subgroup, shuffles);
                }
            }
            let reason = |problem: &Problem| match asked_for(problem) {
                Err(anybit::Error::Unsupported { refusals, .. }) => refusals
                    .into_iter()
                    .map(|refusal| refusal.reason)
                    .find(|reason| *reason != Reason::Options),
                _ => None,
            };
            assert_eq!(
                reason(&problem(9, "f32", "i2g32h")),
                Some(Reason::Rows { limit: 8 })
            );
            for weight in ["i5g32h", "e2m1g32e", "nf4g32f", "f32"] {
                let refused = reason(&problem(1, "f32", weight));
                assert_eq!(refused, Some(Reason::Weight(format(weight))));
            }
            for activation in ["i8rf", "e4m3rf"] {
                let refused = reason(&problem(1, activation, "i2g32h"));
                assert_eq!(refused, Some(Reason::Activation(format(activation))));
            }
            let integers = problem(1, "f32", "i2").with_output(OutputFormat::I32);
            assert_eq!(reason(&integers), Some(Reason::Output(OutputFormat::I32)));
            let batch = Batch {
                count: 2,
                ..Batch::ONE
            };
            let ragged = Problem {
                n: 63,
                ..usual.clone()
            }
            .with_batch(batch);
            assert_eq!(reason(&ragged), Some(Reason::BatchRows(63)));
        }
    }
}

fn any_format() -> impl Strategy<Value = MatrixFormat> {
    let scales = [
        "", "f", "h", "rf", "rh", "rfz", "g16f", "g32h", "g32hm", "g64fz", "g96h", "g32e", "g16k",
        "g128q", "g128qc", "g32sm", "rfc",
    ];
    (0..FORMATS.len(), 0..scales.len()).prop_filter_map(
        "floats have no scales",
        move |(row, scale)| {
            let name = format!("{}{}", FORMATS[row].element.code_name(), scales[scale]);
            name.parse().ok()
        },
    )
}

fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..200usize,
        4 => (0..80usize).prop_map(|groups| 96 * groups),
        2 => 0..1usize << 34,
        1 => any::<usize>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for: a plan within the device, or an error.
    #[test]
    fn no_problem_makes_the_planner_panic(
        shape in (any_size(), any_size(), any_size()),
        formats in (any_format(), any_format()),
        integers in any::<bool>(),
        batch in (any_size(), any::<bool>(), any::<bool>()),
        device in 0..20usize,
    ) {
        let caps = &devices()[device];
        let output = if integers { OutputFormat::I32 } else { OutputFormat::F32 };
        let batch = Batch { count: batch.0, broadcast_activation: batch.1, broadcast_weight: batch.2 };
        let problem = Problem::new(shape, formats.0, formats.1).with_output(output).with_batch(batch);
        match plan(&problem, caps, &PlanOptions::default()) {
            Ok(plan) => {
                prop_assert_eq!(plan.problem(), &problem);
                prop_assert!(plan.specialization().workgroup <= caps.max_invocations);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// Rows are counted by expert where kernels are for few.
#[test]
fn few_rows_an_expert_are_a_gemv() {
    for caps in devices() {
        let skeleton = |m, experts| {
            let problem = Problem::new((m, 1024, 1024), format("i8rf"), format("i4g32h"));
            let problem = problem.with_experts(experts);
            let (accepted, refused) =
                candidates(&problem, &caps, &PlanOptions::default()).expect("a problem");
            let few = accepted
                .iter()
                .filter(|candidate| candidate.skeleton == Skeleton::Gemv)
                .count();
            let refused = refused
                .iter()
                .filter(|refusal| refusal.reason == Reason::Rows { limit: 8 })
                .count();
            (accepted[0].skeleton, few > 0, refused > 0)
        };
        // Sixteen tokens by four of 64 experts each; then all by two.
        assert_eq!(skeleton(64, 64), (Skeleton::Gemv, true, false));
        assert!(skeleton(16, 2).1);
        let (skeleton, few, refused) = skeleton(512, 2);
        assert!(skeleton != Skeleton::Gemv && !few && refused);
    }
}

/// The parts that the planner's choice splits K into.
fn chosen_parts(shape: (usize, usize, usize), caps: &Caps, options: &PlanOptions) -> u32 {
    let problem = Problem::new(shape, format("i8rf"), format("i4g32h"));
    plan(&problem, caps, options).expect("a plan").parts()
}

#[test]
fn few_outputs_of_a_long_k_are_split() {
    for subgroup in [None, Some((32, 32))] {
        let gpu = Caps {
            subgroup,
            ..Caps::floor()
        };
        let software = Caps {
            class: DeviceClass::Software,
            ..gpu.clone()
        };
        let any = PlanOptions::default();
        assert!(chosen_parts((128, 576, 8192), &gpu, &any) > 1);
        assert_eq!(chosen_parts((4096, 4096, 4096), &gpu, &any), 1);
        assert_eq!(chosen_parts((128, 576, 128), &gpu, &any), 1);
        // Where there is one row of X, teams split K.
        assert_eq!(chosen_parts((1, 576, 8192), &gpu, &any), 1);
        assert_eq!(chosen_parts((128, 576, 8192), &software, &any), 1);
        let deterministic = any.with_deterministic(true);
        assert_eq!(chosen_parts((128, 576, 8192), &gpu, &deterministic), 1);
        let whole = PlanOptions::default().with_parts(1);
        assert_eq!(chosen_parts((128, 576, 8192), &gpu, &whole), 1);
        // Software adapters split where they are asked to.
        let forced = PlanOptions::default().with_parts(5);
        assert_eq!(chosen_parts((128, 576, 8192), &software, &forced), 5);
    }
}

#[test]
fn split_kernels_are_found_by_their_ids() {
    let caps = Caps::floor();
    let problem = Problem::new((64, 128, 4096), format("i8rf"), format("i4g32h"));
    let (accepted, _) = candidates(&problem, &caps, &PlanOptions::default()).expect("a problem");
    let split: Vec<_> = accepted.iter().filter(|found| found.parts > 1).collect();
    assert!(!split.is_empty());
    for candidate in split {
        let id = &candidate.specialization.id;
        assert!(id.contains(&format!("_split{}", candidate.parts)), "{id}");
        let found = plan(&problem, &caps, &PlanOptions::kernel(id)).expect("a plan");
        assert_eq!((found.id(), found.parts()), (id.as_str(), candidate.parts));
    }
}

#[test]
fn refused_splits_say_why() {
    use anybit::NoSplit;
    let refusals = |problem: &Problem, caps: &Caps, options: PlanOptions| -> Vec<Reason> {
        let (accepted, refused) = candidates(problem, caps, &options).expect("a problem");
        assert!(accepted.is_empty(), "{}", accepted[0].specialization.id);
        refused.into_iter().map(|refusal| refusal.reason).collect()
    };
    let caps = Caps::floor();
    let problem = Problem::new((16, 64, 160), format("i8rf"), format("i4g32h"));
    let tiled = || {
        let mut options = PlanOptions::engine(Engine::Dot4).with_parts(6);
        options.skeleton = Some(Skeleton::Tiled);
        options
    };
    let steps = |steps| Reason::Split(NoSplit::Steps { parts: 6, steps });
    let found = refusals(&problem, &caps, tiled());
    assert!(
        found.contains(&steps(5)) && found.contains(&steps(3)),
        "{found:?}"
    );
    let experts = Problem::new((16, 64, 640), format("i8rf"), format("i4g32h")).with_experts(2);
    let found = refusals(&experts, &caps, tiled());
    assert!(
        found.contains(&Reason::Split(NoSplit::Experts)),
        "{found:?}"
    );
    let long = Problem::new((16, 64, 640), format("i8rf"), format("i4g32h"));
    let found = refusals(&long, &caps, tiled().with_deterministic(true));
    assert!(
        found.contains(&Reason::Split(NoSplit::Deterministic)),
        "{found:?}"
    );
    let small = Caps {
        max_binding: 6 * 16 * 64 * 4 - 4,
        ..Caps::floor()
    };
    let found = refusals(&long, &small, tiled());
    let bytes = NoSplit::Bytes {
        bytes: 6 * 16 * 64 * 4,
        limit: small.max_binding,
    };
    assert!(found.contains(&Reason::Split(bytes)), "{found:?}");
    for parts in [0, 33] {
        let options = PlanOptions::default().with_parts(parts);
        assert!(matches!(
            candidates(&problem, &caps, &options),
            Err(anybit::Error::Parameter { .. })
        ));
    }
}
