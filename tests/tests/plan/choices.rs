//! Measured choices as data: what is read, what is ignored, and what the planner makes of them.

use anybit::{
    Batch, Caps, Choices, ChoicesWarning, ChosenBy, DeviceClass, Engine, OutputFormat, Plan,
    PlanOptions, Problem, ShapeClass, Skeleton, candidates, explain, plan, plan_with,
};
use anybit_tests::operand::format;
use proptest::prelude::*;

/// A made-up software adapter with subgroups.
fn caps() -> Caps {
    Caps {
        name: "adapter \"X\"".into(),
        driver: "driver 1.2".into(),
        class: DeviceClass::Software,
        subgroup: Some((8, 8)),
        ..Caps::floor()
    }
}

fn problem(m: usize, x: &str, w: &str) -> Problem {
    Problem::new((m, 576, 512), format(x), format(w))
}

/// Ids of the candidates, cheapest first.
fn ids(problem: &Problem, caps: &Caps, options: &PlanOptions) -> Vec<String> {
    let (accepted, _) = candidates(problem, caps, options).expect("a problem");
    let id = |candidate: anybit::Candidate| candidate.specialization.id;
    accepted.into_iter().map(id).collect()
}

/// A choice as a file has it.
fn choice(contract: &str, class: &str, kernels: &[(&str, f64)]) -> String {
    let kernels: Vec<String> = kernels
        .iter()
        .map(|(id, seconds)| format!(r#"{{"id": "{id}", "seconds": {seconds:e}}}"#))
        .collect();
    format!(
        r#"{{"contract": "{contract}", "shape": "{class}", "kernels": [{}]}}"#,
        kernels.join(", ")
    )
}

/// A file with choices for one device.
fn file(device: &str, choices: &[String]) -> String {
    format!(
        r#"{{"format": "anybit choices", "version": 1, "devices": [{{{device}, "choices": [{}]}}]}}"#,
        choices.join(", ")
    )
}

const ADAPTER: &str = r#""adapter": "adapter \"X\"", "driver": "driver 1.2", "backend": "noop""#;
const CLASS: &str = r#""class": "software""#;

/// The choices in which the kernels of a problem took the longer the better the cost model likes them.
fn reversed(device: &str, problem: &Problem) -> Choices {
    let ids = ids(problem, &caps(), &PlanOptions::default());
    let times: Vec<(&str, f64)> = ids
        .iter()
        .rev()
        .enumerate()
        .map(|(index, id)| (id.as_str(), (index + 1) as f64 / 1000.0))
        .collect();
    let class = ShapeClass::of(problem).expect("a class").to_string();
    let choices = Choices::parse(&file(
        device,
        &[choice(&problem.contract(), &class, &times)],
    ));
    assert_eq!(choices.warnings(), []);
    assert_eq!(choices.len(), 1);
    choices
}

fn chosen(problem: &Problem, options: &PlanOptions, choices: &Choices) -> Plan {
    plan_with(problem, &caps(), options, choices).expect("a plan")
}

#[test]
fn the_fastest_of_a_class_comes_first() {
    let default = PlanOptions::default();
    for (x, w) in [("i8rf", "u4g32hm"), ("f32", "e4m3rf"), ("b1", "b1")] {
        for m in [1, 7, 200] {
            let problem = problem(m, x, w);
            let listed = ids(&problem, &caps(), &default);
            for (device, by) in [(ADAPTER, ChosenBy::Tuned), (CLASS, ChosenBy::Builtin)] {
                let choices = reversed(device, &problem);
                let last = listed.last().expect("kernels");
                assert_eq!(chosen(&problem, &default, &choices).id(), last);
                let explained = explain(&problem, &caps(), &default, &choices).expect("a problem");
                let order: Vec<&str> = explained
                    .candidates
                    .iter()
                    .map(|other| other.candidate.specialization.id.as_str())
                    .collect();
                assert_eq!(explained.by, by);
                assert_eq!(order[0], last);
                assert_eq!(order[1..], listed[..listed.len() - 1]);
                assert_eq!(explained.candidates[0].measured, Some(1e-3));
                assert_eq!(explained.candidates[1].estimate, 1.0);
            }
        }
    }
}

#[test]
fn the_adapters_own_choice_comes_before_its_classs() {
    let problem = problem(7, "i8rf", "u4g32hm");
    let listed = ids(&problem, &caps(), &PlanOptions::default());
    let class = ShapeClass::of(&problem).expect("a class").to_string();
    let one = |device, id: &str| {
        let kernels = [(listed[0].as_str(), 2e-3), (id, 1e-3)];
        Choices::parse(&file(
            device,
            &[choice(&problem.contract(), &class, &kernels)],
        ))
    };
    let mut choices = one(CLASS, &listed[2]);
    let default = PlanOptions::default();
    assert_eq!(chosen(&problem, &default, &choices).id(), listed[2]);
    choices.merge(one(ADAPTER, &listed[3]));
    assert_eq!(chosen(&problem, &default, &choices).id(), listed[3]);
    choices.merge(one(ADAPTER, &listed[1]));
    assert_eq!(chosen(&problem, &default, &choices).id(), listed[1]);
    assert_eq!((choices.len(), choices.len_on(&caps())), (2, 1));
}

#[test]
fn options_are_stronger_than_choices() {
    let problem = problem(64, "i8rf", "i4g32h");
    let choices = reversed(ADAPTER, &problem);
    for engine in Engine::ALL {
        let options = PlanOptions::engine(engine);
        if let Ok(plan) = plan_with(&problem, &caps(), &options, &choices) {
            assert_eq!(plan.engine(), engine);
        }
    }
    for skeleton in [Skeleton::Tiled, Skeleton::Subgroup] {
        let mut options = PlanOptions::default();
        options.skeleton = Some(skeleton);
        assert_eq!(chosen(&problem, &options, &choices).skeleton(), skeleton);
    }
    // Weights that lie on the device already: the fastest of those that read them.
    for id in ids(&problem, &caps(), &PlanOptions::default()) {
        let exact = PlanOptions::kernel(&id);
        let there = chosen(&problem, &exact, &choices);
        assert_eq!(there.id(), id);
        let options = PlanOptions::default().with_weight_layout(there.weight_layout());
        let found = chosen(&problem, &options, &choices);
        assert_eq!(found.weight_layout(), there.weight_layout());
        let listed = ids(&problem, &caps(), &options);
        assert_eq!(Some(found.id()), listed.last().map(String::as_str));
    }
}

/// What the cost model would take is of a kind that nothing was measured of.
#[test]
fn choices_do_not_speak_of_what_was_not_measured() {
    let problem = problem(64, "i8rf", "i4g32h");
    let (accepted, _) = candidates(&problem, &caps(), &PlanOptions::default()).expect("a problem");
    let kind = |candidate: &anybit::Candidate| (candidate.engine, candidate.skeleton);
    let first = kind(&accepted[0]);
    let other = accepted
        .iter()
        .find(|candidate| kind(candidate) != first)
        .expect("two kinds");
    let class = ShapeClass::of(&problem).expect("a class").to_string();
    let only = [(other.specialization.id.as_str(), 1e-6)];
    let choices = Choices::parse(&file(
        ADAPTER,
        &[choice(&problem.contract(), &class, &only)],
    ));
    assert_eq!(choices.len(), 1);
    let found = chosen(&problem, &PlanOptions::default(), &choices);
    assert_eq!(found.id(), accepted[0].specialization.id);
}

#[test]
fn deterministic_plans_go_by_one_row_alone() {
    let options = PlanOptions::default().with_deterministic(true);
    let one = problem(1, "i8rf", "u4g32hm");
    let many = reversed(ADAPTER, &problem(64, "i8rf", "u4g32hm"));
    let untuned = plan(&one, &caps(), &options).expect("a plan");
    let mut all = reversed(ADAPTER, &one);
    let tuned = chosen(&one, &options, &all);
    assert_ne!(tuned.id(), untuned.id());
    all.merge(many.clone());
    for m in [1, 2, 5, 64, 1000, 100_000] {
        let problem = problem(m, "i8rf", "u4g32hm");
        assert_eq!(chosen(&problem, &options, &many).id(), untuned.id(), "{m}");
        assert_eq!(chosen(&problem, &options, &all).id(), tuned.id(), "{m}");
    }
}

#[test]
fn a_choice_speaks_of_its_class_with_and_without_residual() {
    let default = PlanOptions::default();
    let problem = problem(7, "i8rf", "u4g32hm");
    let choices = reversed(ADAPTER, &problem);
    let by = |other: &Problem| {
        explain(other, &caps(), &default, &choices)
            .expect("a problem")
            .by
    };
    let at = |m, n, k| Problem::new((m, n, k), problem.activation, problem.weight);
    assert_eq!(by(&problem.clone().with_residual()), ChosenBy::Tuned);
    for near in [at(5, 300, 512), at(8, 1024, 1024), at(6, 257, 288)] {
        assert_eq!(by(&near), ChosenBy::Tuned, "{near:?}");
    }
    let batch = Batch {
        count: 8,
        ..Batch::ONE
    };
    for far in [
        at(4, 576, 512),
        at(7, 1120, 512),
        at(7, 576, 256),
        at(9, 576, 512),
        at(7, 576, 512).with_output(OutputFormat::F16),
        at(7, 576, 512).with_batch(batch),
        at(7, 576, 0),
    ] {
        assert_eq!(by(&far), ChosenBy::CostModel, "{far:?}");
    }
    let twice = at(7, 288, 512).with_batch(Batch { count: 2, ..batch });
    assert_eq!(by(&twice), ChosenBy::Tuned);
}

/// A kernel that could pass an i32, or has too many workgroups, is not taken, although it was the fastest of its class.
#[test]
fn a_choice_makes_no_plan_fail() {
    let small = Caps {
        max_workgroups: 4,
        ..caps()
    };
    let choices = reversed(ADAPTER, &problem(7, "i8rf", "u4g32hm"));
    for n in [300, 600, 1000, 1024] {
        let problem = Problem::new((7, n, 512), format("i8rf"), format("u4g32hm"));
        let default = PlanOptions::default();
        if plan(&problem, &small, &default).is_ok() {
            assert!(
                plan_with(&problem, &small, &default, &choices).is_ok(),
                "{n}"
            );
        }
    }
    // Floats that dot4 can lift: its sums overflow at such a K, those of fma do not.
    let long = |k| Problem::new((1, 40, k), format("e2m3rf"), format("e2m3rf"));
    let listed = ids(&long(512), &caps(), &PlanOptions::default());
    let kernel = |engine: &str| {
        let has = |id: &&String| id.contains(&format!("__{engine}_"));
        listed.iter().find(has).expect("a kernel").as_str()
    };
    let class = ShapeClass::of(&long(1 << 22)).expect("a class").to_string();
    let times = [(kernel("dot4"), 1e-6), (kernel("fma"), 1e-3)];
    let choices = Choices::parse(&file(
        ADAPTER,
        &[choice(&long(1).contract(), &class, &times)],
    ));
    for k in [1 << 16, 1 << 20, 1 << 22] {
        let default = PlanOptions::default();
        if let Ok(untuned) = plan(&long(k), &caps(), &default) {
            let tuned = plan_with(&long(k), &caps(), &default, &choices);
            assert!(tuned.is_ok(), "{}, {k}", untuned.id());
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut choices = reversed(ADAPTER, &problem(7, "i8rf", "u4g32hm"));
    choices.merge(reversed(ADAPTER, &problem(1, "f32", "nf4rh")));
    choices.merge(reversed(CLASS, &problem(600, "b1", "b1")));
    let text = choices.to_json();
    assert_eq!(Choices::parse(&text), choices, "{text}");
    assert_eq!(choices.len(), 3);
}

#[test]
fn what_is_wrong_is_ignored_with_a_warning() {
    let problem = problem(7, "i8rf", "u4g32hm");
    let id = &ids(&problem, &caps(), &PlanOptions::default())[0];
    let contract = problem.contract();
    let class = "5-8x257-1024x257-1024";
    let right = choice(&contract, class, &[(id, 1e-3)]);
    let with = |text: &str| file(ADAPTER, &[text.to_owned(), right.clone()]);
    assert_eq!(Choices::parse(&with(&right)).warnings(), []);

    type Is = fn(&ChoicesWarning) -> bool;
    let syntax: Is = |warning| matches!(warning, ChoicesWarning::Syntax { .. });
    let version: Is = |warning| matches!(warning, ChoicesWarning::Version { expected: 1, .. });
    // Nothing of these is used.
    for (text, is) in [
        (String::new(), syntax),
        ("[".repeat(100_000), syntax),
        (
            r#"{"format": "other", "version": 1, "devices": []}"#.into(),
            syntax,
        ),
        (
            r#"{"format": "anybit choices", "version": 1}"#.into(),
            syntax,
        ),
        (
            r#"{"format": "anybit choices", "version": -1, "devices": []}"#.into(),
            syntax,
        ),
        (
            r#"{"format": "anybit choices", "version": 2, "machines": 7}"#.into(),
            version,
        ),
        (with(&right)[..200].to_owned(), syntax),
        (with(r#"{"contract": 7}"#), syntax),
    ] {
        let choices = Choices::parse(&text);
        assert!(choices.is_empty(), "{text:.200}");
        assert!(
            matches!(choices.warnings(), [warning] if is(warning)),
            "{choices:?}"
        );
    }
    // What the parser quotes is bounded, and nothing that a terminal would act on.
    for key in ["k".repeat(100_000), "\\u001b[31m\\u0007".to_owned()] {
        let choices = Choices::parse(&with(&format!(r#"{{"{key}": 7}}"#)));
        let [warning] = choices.warnings() else {
            panic!("{choices:?}");
        };
        let message = warning.to_string();
        assert!(syntax(warning) && message.len() < 1000, "{message:.2000}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let huge = Choices::parse(&" ".repeat((8 << 20) + 1));
    assert!(matches!(huge.warnings(), [ChoicesWarning::TooLarge { .. }]));

    let shape: Is = |warning| matches!(warning, ChoicesWarning::Shape { .. });
    let kernel: Is = |warning| matches!(warning, ChoicesWarning::Kernel { .. });
    let seconds: Is = |warning| matches!(warning, ChoicesWarning::Seconds { .. });
    let other = id.replace("gemm_", "gemv_");
    // Of these only the part that is wrong is not.
    for (wrong, is) in [
        (choice("gemm_i8rf_f32", class, &[(id, 1e-3)]), shape),
        (choice("gemm_i8rf_x9_f32", class, &[(id, 1e-3)]), shape),
        (
            choice("gemm_i8rf_u4g32hm_i32_residual", class, &[(id, 1e-3)]),
            shape,
        ),
        (choice(&contract, "5-8x257-1024", &[(id, 1e-3)]), shape),
        (
            choice(&contract, "5-9x257-1024x257-1024", &[(id, 1e-3)]),
            shape,
        ),
        (choice(&contract, class, &[("", 1e-3)]), kernel),
        (choice(&contract, class, &[(&other, 1e-3)]), kernel),
        (
            choice(
                &contract,
                class,
                &[(&format!("{contract}__dot4_7x7x7"), 1e-3)],
            ),
            kernel,
        ),
        (
            choice(
                &contract,
                class,
                &[(&format!("{contract}__magic_8x128x32"), 1e-3)],
            ),
            kernel,
        ),
        (
            choice(&contract, class, &[(&format!("{id}\\u001b[2J"), 1e-3)]),
            kernel,
        ),
        (choice(&contract, class, &[(id, 0.0)]), seconds),
        (choice(&contract, class, &[(id, -1.0)]), seconds),
        (choice(&contract, class, &[(id, 1e30)]), seconds),
    ] {
        let choices = Choices::parse(&with(&wrong));
        assert_eq!(choices.len(), 1, "{wrong}");
        assert!(
            matches!(choices.warnings(), [warning] if is(warning)),
            "{wrong}: {choices:?}"
        );
        let text = choices.warnings()[0].to_string();
        assert!(!text.contains('\u{1b}') && text.len() < 400, "{text:?}");
    }
    let class = Choices::parse(&file(r#""class": "quantum""#, std::slice::from_ref(&right)));
    assert!(matches!(class.warnings(), [ChoicesWarning::Class(_)]) && class.is_empty());

    let many = vec![choice("nothing", "1x1x1", &[]); 1000];
    let warnings = Choices::parse(&file(ADAPTER, &many)).warnings().to_vec();
    assert!(warnings.len() < 32);
    assert!(matches!(warnings.last(), Some(ChoicesWarning::More(count)) if *count > 900));
}

/// Fields may come in any order, and those that a device has besides are ignored; of two kernels with an id the first counts.
#[test]
fn devices_are_read_in_any_order_of_their_fields() {
    let problem = problem(7, "i8rf", "u4g32hm");
    let id = &ids(&problem, &caps(), &PlanOptions::default())[0];
    let contract = problem.contract();
    let class = ShapeClass::of(&problem).expect("a class").to_string();
    let right = choice(&contract, &class, &[(id, 1e-3), (id, 1e-4)]);
    let device = |fields: &str| {
        Choices::parse(&format!(
            r#"{{"more": [[1], {{}}], "version": 1, "devices": [{{{fields}}}], "format": "anybit choices"}}"#
        ))
    };
    let adapter = file(ADAPTER, std::slice::from_ref(&right));
    let adapter = Choices::parse(&adapter);
    let figures = adapter.figures(&problem, &caps()).expect("a choice");
    assert!(
        matches!(figures, [figure] if figure.seconds == 1e-3),
        "{figures:?}"
    );
    assert_eq!(
        device(&format!(
            r#""choices": [{right}], "note": [0, {{"a": 1}}], {ADAPTER}"#
        )),
        adapter
    );
    // An adapter with its driver and backend goes before a class.
    assert_eq!(
        device(&format!(
            r#""class": "gpu", "choices": [{right}], {ADAPTER}"#
        )),
        adapter
    );
    let of_class = Choices::parse(&file(CLASS, std::slice::from_ref(&right)));
    assert_eq!(
        device(&format!(
            r#""choices": [{right}], "adapter": "alone", {CLASS}"#
        )),
        of_class
    );
    // What an unknown class has is not looked at.
    let wrong = choice("nothing", "1x1x1", &[]);
    let unknown = device(&format!(
        r#""choices": [{wrong}, {right}], "class": "quantum""#
    ));
    assert!(unknown.is_empty());
    assert!(matches!(unknown.warnings(), [ChoicesWarning::Class(_)]));
    for fields in [
        "",
        r#""choices": []"#,
        r#""class": "gpu""#,
        r#""adapter": "a", "driver": "b", "choices": []"#,
        r#""class": "gpu", "class": "gpu", "choices": []"#,
        r#""class": "gpu", "choices": [], "choices": []"#,
        r#""class": 7, "choices": []"#,
    ] {
        let found = device(fields);
        let warnings = found.warnings();
        assert!(
            found.is_empty() && matches!(warnings, [ChoicesWarning::Syntax { .. }]),
            "{fields}: {warnings:?}"
        );
    }
}

#[test]
fn choices_of_other_adapters_and_drivers_are_ignored_with_a_warning() {
    let problem = problem(7, "i8rf", "u4g32hm");
    let choices = reversed(ADAPTER, &problem);
    assert_eq!(choices.warnings_on(&caps()), []);
    for other in [
        Caps {
            name: "another".into(),
            ..caps()
        },
        Caps {
            driver: "driver 1.3".into(),
            ..caps()
        },
        Caps {
            backend: anybit::wgpu::Backend::Vulkan,
            ..caps()
        },
    ] {
        let default = PlanOptions::default();
        let tuned = plan_with(&problem, &other, &default, &choices).expect("a plan");
        let untuned = plan(&problem, &other, &default).expect("a plan");
        assert_eq!(tuned.id(), untuned.id());
        let warnings = choices.warnings_on(&other);
        assert!(matches!(
            &warnings[..],
            [ChoicesWarning::OtherDevice { .. }]
        ));
    }
    // Defaults of a class are for everyone.
    assert_eq!(reversed(CLASS, &problem).warnings_on(&Caps::floor()), []);
}

#[test]
fn a_file_that_is_not_there_is_a_warning() {
    let choices = Choices::load("no/such/file.json");
    assert!(choices.is_empty());
    assert!(matches!(
        choices.warnings(),
        [ChoicesWarning::Unreadable { .. }]
    ));
}

#[test]
fn classes_cover_all_shapes_and_have_names() {
    let class = |m, n, k| {
        let problem = Problem::new((m, n, k), format("f32"), format("f32"));
        ShapeClass::of(&problem)
    };
    for (shape, name) in [
        ((1, 1, 1), "1x1-256x1-256"),
        ((2, 256, 257), "2x1-256x257-1024"),
        ((3, 1024, 1025), "3-4x257-1024x1025-4096"),
        ((4, 4096, 4097), "3-4x1025-4096x4097-16384"),
        ((5, 16384, 16385), "5-8x4097-16384x16385+"),
        ((32, 1, 1), "9-32x1-256x1-256"),
        ((33, 1, 1), "33-128x1-256x1-256"),
        ((512, 1, 1), "129-512x1-256x1-256"),
        ((513, usize::MAX, 1), "513+x16385+x1-256"),
    ] {
        let (m, n, k) = shape;
        let found = class(m, n, k).expect("a class");
        assert_eq!(found.to_string(), name);
        assert_eq!(name.parse(), Ok(found));
    }
    for empty in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        assert_eq!(class(empty.0, empty.1, empty.2), None);
    }
    for wrong in [
        "",
        "1",
        "1x1-256",
        "1x1-256x1-256x1-256",
        "0x1-256x1-256",
        "1x1-256x1-257",
    ] {
        assert!(wrong.parse::<ShapeClass>().is_err(), "{wrong}");
    }
}

/// Bits of files, right and wrong, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(ADAPTER.to_owned()),
        Just(CLASS.to_owned()),
        Just(r#""choices": ["#.to_owned()),
        Just(r#"{"format": "anybit choices", "version": 1, "devices": [{"#.to_owned()),
        Just(choice(
            "gemm_i8rf_u4g32hm_f32",
            "5-8x257-1024x257-1024",
            &[("x", 1.0)]
        )),
        Just("]}]}".to_owned()),
        Just("1e999".to_owned()),
        "[\\[\\]{}\",:0-9a-z]{0,12}",
        ".{0,12}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if anybit_tests::full() { 20_000 } else { 500 }))]

    #[test]
    fn any_text_is_taken_or_warned_of(text in pieces()) {
        let choices = Choices::parse(&text);
        prop_assert!(!choices.is_empty() || !choices.warnings().is_empty() || text.contains("\"devices\""));
        let again = Choices::parse(&choices.to_json());
        prop_assert_eq!(again.len(), choices.len());
    }

    /// A right file with one byte changed, or cut short.
    #[test]
    fn a_damaged_file_makes_no_plan_fail(at in 0_usize..2000, byte in 0_u8..128, cut in any::<bool>(), m in 1_usize..40) {
        let problem = problem(m, "i8rf", "u4g32hm");
        let mut bytes = reversed(ADAPTER, &problem).to_json().into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let choices = Choices::parse(&String::from_utf8_lossy(&bytes));
        for deterministic in [false, true] {
            let options = PlanOptions::default().with_deterministic(deterministic);
            let found = plan_with(&problem, &caps(), &options, &choices);
            prop_assert!(found.is_ok());
        }
    }

    /// Whatever the choices are, a plan takes one of the kernels that the options leave.
    #[test]
    fn choices_only_reorder(
        times in prop::collection::vec((any::<prop::sample::Index>(), 1e-7_f64..10.0), 1..12),
        m in 1_usize..700,
        engine in prop::option::of(prop::sample::select(Engine::ALL.to_vec())),
        deterministic in any::<bool>(),
    ) {
        let problem = problem(m, "i8rf", "i4g32h");
        let listed = ids(&problem, &caps(), &PlanOptions::default());
        let class = ShapeClass::of(&problem).expect("a class").to_string();
        let times: Vec<(&str, f64)> = times
            .iter()
            .map(|(index, seconds)| (index.get(&listed).as_str(), *seconds))
            .collect();
        let choices = Choices::parse(&file(ADAPTER, &[choice(&problem.contract(), &class, &times)]));
        prop_assert_eq!(choices.warnings(), []);
        let mut options = PlanOptions::default().with_deterministic(deterministic);
        options.engine = engine;
        let left = ids(&problem, &caps(), &options);
        match plan_with(&problem, &caps(), &options, &choices) {
            Ok(plan) => prop_assert!(left.iter().any(|id| id == plan.id())),
            Err(_) => prop_assert!(plan(&problem, &caps(), &options).is_err()),
        }
    }
}
