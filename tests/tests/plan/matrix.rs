//! The engine of cooperative matrices on made-up devices.

use anybit::wgpu::{self, Features};
use anybit::{
    Candidate, Caps, Context, Engine, Error, Fragment, NoMatrix, Operands, OutputFormat, Plan,
    PlanOptions, Problem, Reason, Verdict, Verdicts, candidates, plan,
};
use anybit_formats::{FORMATS, MatrixFormat, PackedMatrix, ZeroKind};
use anybit_reference::kernel::{Fragments, gemm_tiled_matrix};
use anybit_reference::{Batches, exact};
use anybit_tests::compare;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::reference;

fn device(fragment: Fragment, subgroup: (u32, u32)) -> Caps {
    Caps {
        subgroup: Some(subgroup),
        matrix: Ok(fragment),
        ..Caps::floor()
    }
}

fn tensor_cores() -> Caps {
    device(Fragment::Sixteen, (32, 32))
}

fn unchecked() -> PlanOptions {
    PlanOptions::default().with_unchecked(true)
}

fn matrix() -> PlanOptions {
    PlanOptions::engine(Engine::Matrix).with_unchecked(true)
}

fn problem(m: usize, x: &str, w: &str) -> Problem {
    Problem::new((m, 4096, 4096), format(x), format(w))
}

fn reasons(problem: &Problem, caps: &Caps, options: &PlanOptions) -> Vec<Reason> {
    let (_, refused) = candidates(problem, caps, options).expect("a problem");
    refused
        .into_iter()
        .filter(|refusal| refusal.stem == "gemm_tiled_matrix")
        .map(|refusal| refusal.reason)
        .collect()
}

/// What the header of a plan's shader has for a constant.
fn constant(specialization: &anybit::Specialization, name: &str) -> u64 {
    let wgsl = specialization.link().expect("it links").wgsl;
    let start = format!("const {name}: u32 = ");
    let text = wgsl
        .lines()
        .find_map(|line| line.strip_prefix(&start))
        .unwrap_or_else(|| panic!("no {name}"));
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn devices_without_the_matrices_say_what_is_missing() {
    let problem = problem(512, "i8", "i4").with_output(OutputFormat::I32);
    for missing in [
        NoMatrix::Features(Features::SHADER_F16),
        NoMatrix::Adapter,
        NoMatrix::Sizes,
    ] {
        let caps = Caps {
            matrix: Err(missing),
            ..tensor_cores()
        };
        let found = reasons(&problem, &caps, &unchecked());
        assert!(!found.is_empty());
        for reason in found {
            assert_eq!(reason, Reason::Matrix(missing));
            assert!(
                reason.to_string().contains(&missing.to_string()),
                "{reason}"
            );
        }
        let Err(Error::Unsupported { refusals, .. }) = plan(&problem, &caps, &matrix()) else {
            panic!("{missing} is no hindrance");
        };
        let told = |reason: &Reason| *reason == Reason::Matrix(missing);
        assert!(refusals.iter().any(|refusal| told(&refusal.reason)));
    }
    // The floor has none of the features.
    let Err(NoMatrix::Features(features)) = Caps::floor().matrix else {
        panic!("{:?}", Caps::floor().matrix);
    };
    assert!(features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX));
}

/// The one rule that nothing may get round: without a passed self-check the engine is not taken.
#[test]
fn it_is_taken_only_after_a_self_check() {
    for fragment in [Fragment::Eight, Fragment::Sixteen] {
        let caps = device(fragment, (32, 32));
        for (x, w, output) in [
            ("i8", "i4", OutputFormat::I32),
            ("i8rf", "u4g128hm", OutputFormat::F32),
            ("f16", "e4m3rf", OutputFormat::F16),
        ] {
            let problem = problem(2048, x, w).with_output(output);
            let is_matrix = |candidate: &Candidate| candidate.engine == Engine::Matrix;
            for options in [PlanOptions::default(), PlanOptions::engine(Engine::Matrix)] {
                let (accepted, _) = candidates(&problem, &caps, &options).expect("a problem");
                assert!(!accepted.iter().any(is_matrix));
                assert!(reasons(&problem, &caps, &options).contains(&Reason::Unchecked));
            }
            let first = plan(&problem, &caps, &unchecked()).expect("a plan");
            assert_eq!(first.engine(), Engine::Matrix, "{}", first.id());
            assert!(first.needs_self_check());
            // Asked for by id it is refused too.
            let by_id = plan(&problem, &caps, &PlanOptions::kernel(first.id()));
            assert!(matches!(by_id, Err(Error::Unsupported { .. })), "{by_id:?}");

            let passed = Verdicts::default().with(first.id(), Verdict::Passed);
            let options = PlanOptions::default().with_verdicts(passed);
            let again = plan(&problem, &caps, &options).expect("a plan");
            assert_eq!(again.id(), first.id());

            let rejected = Verdict::Rejected("no".to_owned());
            let denied = Verdicts::default().with(first.id(), rejected);
            for options in [PlanOptions::default(), unchecked()] {
                let options = options.with_verdicts(denied.clone());
                let other = plan(&problem, &caps, &options).expect("a plan");
                assert_ne!(other.id(), first.id());
                assert!(reasons(&problem, &caps, &options).contains(&Reason::Denied));
            }
        }
    }
}

/// A plan that skipped the check is not prepared; on the noop backend.
#[test]
fn unchecked_plans_are_not_prepared() {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = Context::from_device(device, queue);
    let small = Problem::new((4, 8, 32), format("i8"), format("i4")).with_output(OutputFormat::I32);
    let plan = plan(&small, &tensor_cores(), &matrix()).expect("a plan");
    let upload = |name: &str, rows, layout| {
        let packed: PackedMatrix =
            operand(&format(name), (rows, 32), Fill::Random, &mut Random::new(1));
        context.upload(&packed, &layout).expect("an upload")
    };
    let output = context.output(OutputFormat::I32, 4, 8).expect("an output");
    let operands = Operands {
        activation: &upload("i8", 4, plan.activation_layout()),
        weight: &upload("i4", 8, plan.weight_layout()),
        output: &output,
    };
    let result = context.prepare(&plan, operands);
    assert!(
        matches!(&result, Err(Error::Unchecked { kernel }) if kernel == plan.id()),
        "{result:?}"
    );
    // The driver that computes nothing fails the check or rejects the shader; either way it is denied.
    let verdicts = context.self_check_blocking([&plan]).expect("verdicts");
    assert_ne!(verdicts, [Verdict::Passed]);
    let result = context.prepare(&plan, operands);
    assert!(matches!(result, Err(Error::Unchecked { .. })), "{result:?}");
}

#[test]
fn workgroups_are_whole_subgroups() {
    let problem = problem(512, "i8", "i4").with_output(OutputFormat::I32);
    let plans = |subgroup| {
        let (accepted, _) = candidates(&problem, &device(Fragment::Sixteen, subgroup), &matrix())
            .expect("a problem");
        accepted
    };
    for subgroup in [(32, 32), (32, 64), (8, 32), (4, 128)] {
        let accepted = plans(subgroup);
        assert!(!accepted.is_empty(), "{subgroup:?}");
        for candidate in accepted {
            assert!(candidate.tile.workgroup.is_multiple_of(subgroup.1));
        }
    }
    assert!(plans((4, 96)).is_empty());
    let caps = device(Fragment::Sixteen, (4, 96));
    for reason in reasons(&problem, &caps, &matrix()) {
        assert!(
            matches!(reason, Reason::WholeSubgroups { lanes: 96, .. }),
            "{reason}"
        );
    }
    // Four blocks: subgroups of 32 want 128 invocations, those of 64 want 256.
    let workgroup = |subgroup| {
        let caps = device(Fragment::Sixteen, subgroup);
        plan(&problem, &caps, &matrix())
            .expect("a plan")
            .tile()
            .workgroup
    };
    assert_eq!(workgroup((32, 32)), 128);
    assert_eq!(workgroup((64, 64)), 256);
}

/// Every format that f16 holds, and no other; what it does not take is refused with the operand at fault.
#[test]
fn operands_are_what_f16_holds() {
    for row in FORMATS {
        let Ok(bare) = MatrixFormat::new(row.element, None) else {
            continue;
        };
        let problem = Problem::new((64, 64, 64), MatrixFormat::F16, bare);
        let found = plan(&problem, &tensor_cores(), &matrix());
        assert_eq!(found.is_ok(), row.element.fits_f16(), "{}", row.element);
        let reversed = Problem::new((64, 64, 64), bare, MatrixFormat::F16);
        assert_eq!(
            plan(&reversed, &tensor_cores(), &matrix()).is_ok(),
            found.is_ok()
        );
    }
    let refused = |x: &str, w: &str, output| {
        let problem = problem(64, x, w).with_output(output);
        let found = reasons(&problem, &tensor_cores(), &matrix());
        assert!(!found.is_empty(), "{x} {w} is taken");
        found.into_iter().next().expect("a reason")
    };
    let f32_output = OutputFormat::F32;
    for (x, w) in [("f32", "i4g32h"), ("bf16", "i4g32h"), ("u8rfm", "i4g32h")] {
        assert_eq!(refused(x, w, f32_output), Reason::Activation(format(x)));
    }
    assert_eq!(
        refused("f16", "nf4g32h", f32_output),
        Reason::Weight(format("nf4g32h"))
    );
    for (x, w) in [
        ("i8", "i4g32h"),
        ("f16", "i4"),
        ("e4m3", "e4m3"),
        ("i8", "u4rfm"),
    ] {
        let output = OutputFormat::I32;
        assert_eq!(refused(x, w, output), Reason::Output(output), "{x} {w}");
    }
}

/// No sum of integers in a fragment passes 2^24, and no spill mixes two scales.
#[test]
fn spills_come_before_sums_are_inexact() {
    let magnitude = |format: &MatrixFormat| {
        let (low, high) = format.element().integer_range().expect("integers");
        let zero = match format.zero_kind() {
            ZeroKind::Integer => 255,
            _ => 0,
        };
        u64::from((low - zero).unsigned_abs().max(high.unsigned_abs()))
    };
    for x in ["i1", "i8", "u8", "b8", "u8rfz", "u8g96fz", "i4g128f"] {
        for w in [
            "b1",
            "t",
            "i4",
            "u8",
            "b8rfz",
            "u4g32hm",
            "b8g4096fz",
            "u2g16f",
            "b8g160fz",
        ] {
            let (x, w) = (format(x), format(w));
            // All groups divide the larger; without any, i32 holds no more than the smaller.
            let grouped = [x, w].iter().any(|format| format.groups(61_440) > 1);
            let problem = Problem::new((64, 64, if grouped { 61_440 } else { 4096 }), x, w);
            let Ok(plan) = plan(&problem, &tensor_cores(), &matrix()) else {
                panic!("no plan for {x} and {w}");
            };
            let spill = constant(plan.specialization(), "SPILL");
            let step = constant(plan.specialization(), "STEP");
            assert!(
                spill * magnitude(&x) * magnitude(&w) <= 1 << 24,
                "{}",
                plan.id()
            );
            assert_eq!(spill % step, 0);
            assert_eq!(u64::from(plan.tile().k) % step, 0);
            for format in [x, w] {
                let group = format.group_len(problem.k) as u64;
                if format.groups(problem.k) > 1 {
                    assert_eq!(group % spill, 0, "{}: {spill} in {group}", plan.id());
                }
            }
        }
    }
    let wide = Problem::new((64, 64, 4096), format("i8"), format("i8"));
    let plan = plan(&wide, &tensor_cores(), &matrix()).expect("a plan");
    assert_eq!(constant(plan.specialization(), "SPILL"), 1024);
}

/// The twin with the constants of the shader, against the reference: integers are equal, and the rest lies within the bounds.
#[test]
fn twins_with_the_constants_of_the_shaders() {
    let mut random = Random::new(0x7e57);
    for (fragment, size) in [(Fragment::Eight, 8), (Fragment::Sixteen, 16)] {
        let caps = device(fragment, (32, 32));
        for (x, w) in [
            ("i8", "i8"),
            ("u8", "b8"),
            ("b8rfz", "u8fz"),
            ("i8rf", "u4rfm"),
            ("i8rf", "u4g32hm"),
            ("i4g128f", "u8g160fz"),
            ("u3g32f", "e2m1g16k"),
            ("f16", "e4m3rf"),
            ("f16", "bitmod4g32qc"),
            ("f16", "f16"),
            ("e5m2rf", "i4g64h"),
        ] {
            let (x, w) = (format(x), format(w));
            let groups = x.groups(5120) > 1 || w.groups(5120) > 1;
            for k in [1, 31, 2100, 5120] {
                let k = if groups { 5120 * (k % 2 + 1) / 4 } else { k };
                if x.check_shape(3, k).is_err() || w.check_shape(5, k).is_err() {
                    continue;
                }
                let bare = x.scales().is_none() && w.scales().is_none();
                let integers = x.element().affine().is_some() && w.element().affine().is_some();
                let output = match bare && integers {
                    true => OutputFormat::I32,
                    false => OutputFormat::F32,
                };
                let problem = Problem::new((3, 5, k), x, w).with_output(output);
                let plan: Plan = plan(&problem, &caps, &matrix()).expect("a plan");
                let fragments = Fragments {
                    size,
                    spill: constant(plan.specialization(), "SPILL") as usize,
                };
                for fill in [Fill::Random, Fill::Smallest, Fill::Largest] {
                    let x = operand(&x, (3, k), fill, &mut random);
                    let w = operand(&w, (5, k), fill, &mut random);
                    let wrong = if output == OutputFormat::I32 {
                        let found = gemm_tiled_matrix::<i32>(&x, &w, Batches::ONE, fragments);
                        let expected = exact::gemm_i64(&x, &w).expect("a product");
                        compare::exact(&found.expect("a twin"), &expected)
                    } else {
                        let found = gemm_tiled_matrix::<f32>(&x, &w, Batches::ONE, fragments);
                        let (expected, bounds) =
                            reference(&problem, Engine::Matrix, &x, &w).expect("bounds");
                        compare::bounded(&found.expect("a twin"), &expected, &bounds)
                    };
                    assert!(wrong.is_none(), "{} K {k} {fill:?}: {wrong:?}", plan.id());
                }
            }
        }
    }
    // A spill that comes too late loses bits: what the limit is for.
    let k = 4096;
    let x = operand(&format("u8"), (1, k), Fill::Random, &mut random);
    let late = Fragments { size: 16, spill: k };
    let found = gemm_tiled_matrix::<i32>(&x, &x, Batches::ONE, late).expect("a twin");
    assert_ne!(
        i64::from(found[0]),
        exact::gemm_i64(&x, &x).expect("a product")[0]
    );
}
