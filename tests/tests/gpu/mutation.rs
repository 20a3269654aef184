//! The comparisons bite: shaders that are wrong on purpose fail them.

use anybit::{Context, Engine, OutputFormat, Plan, PlanOptions, Problem, Skeleton, Values};
use anybit_formats::{MatrixFormat, Memory, Nesting, PackedMatrix};
use anybit_reference::exact;
use anybit_shaders::Modules;
use anybit_tests::compare::{self, Wrong};
use anybit_tests::full;
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::raw;
use anybit_tests::rig::{on_each_adapter, reference};

/// The format of weights as they are stored, and how they are read at fewer bits: `i8>rounded4` is `i8` at 4 bits by Double
/// Rounding.
fn weight(name: &str) -> (MatrixFormat, Option<(u8, Nesting)>) {
    let Some((stored, nested)) = name.split_once('>') else {
        return (format(name), None);
    };
    let (way, bits) = nested.split_at(nested.len() - 1);
    let nesting = match way {
        "truncated" => Nesting::Truncation,
        "rounded" => Nesting::DoubleRounding,
        _ => panic!("{name} is no way to read weights"),
    };
    let bits = bits
        .parse()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    (format(stored), Some((bits, nesting)))
}

/// One change of a module's text, and a kernel that must suffer from it.
struct Mutation {
    what: &'static str,
    module: &'static str,
    from: &'static str,
    to: &'static str,
    engine: Engine,
    skeleton: Skeleton,
    activation: &'static str,
    weight: &'static str,
    output: OutputFormat,
}

use Engine::{Bitplane, Dot4, Fma, IntegerFma, LMul, Lut, Lut8, Swar};
use OutputFormat::{F16, F32, I32};
use Skeleton::{Gemv, Subgroup, Tiled};

macro_rules! mutations {
    ($($what:literal: $module:literal, $from:literal => $to:literal, $engine:ident $skeleton:ident $activation:literal $weight:literal $output:ident;)*) => {
        &[$(Mutation {
            what: $what,
            module: $module,
            from: $from,
            to: $to,
            engine: $engine,
            skeleton: $skeleton,
            activation: $activation,
            weight: $weight,
            output: $output,
        }),*]
    };
}

/// A decoding of each family, a scale of each kind, and a recovery of each engine.
const MUTATIONS: &[Mutation] = mutations! {
    "the second piece is put a bit too low": "codes/pieces", "FMT_MASK_1) << P0" => "FMT_MASK_1) << (P0 - 1u)", Dot4 Tiled "i8" "u3" I32;
    "the offset has the wrong sign": "format/affine", "+ operand().offset" => "- operand().offset", Fma Gemv "f32" "i5rf" F32;
    "planes are swapped": "codes/planes", "plane * operand().pieces.y" => "(plane ^ 1u) * operand().pieces.y", Bitplane Gemv "i2" "u3" I32;
    "bf16 is a bit off": "format/bf16", "low << 16u" => "low << 15u", Fma Gemv "bf16" "bf16" F32;
    "f16 values change places": "format/f16", "words[2u * t]" => "words[2u * t + 1u]", Fma Gemv "f32" "f16" F32;
    "subnormal minifloats keep their leading one": "format/minifloat", "subnormal = magnitude < vec4<u32>(1u << mantissa)" => "subnormal = magnitude > vec4<u32>(0xffu)", Fma Gemv "f32" "e4m3rf" F32;
    "the sign of minifloats is lost": "format/minifloat", "vec4<u32>(0x80000000u)" => "vec4<u32>(0u)", Fma Tiled "e2m1rf" "f32" F32;
    "a level of the tree picks the wrong side": "format/codebook", "fmt_bit(bytes, 1u)" => "fmt_bit(bytes, 0u)", Fma Tiled "f32" "nf4g32f" F32;
    "lanes hold the wrong half of a table": "format/codebook_lanes", "operand().table[2], operand().table[3]" => "operand().table[3], operand().table[2]", Fma Gemv "f32" "nf4g32f" F32;
    "a lane holds its neighbour's value": "format/codebook_lanes", "(entry & 1u) != 0u)" => "(entry & 2u) != 0u)", Fma Subgroup "f32" "bitmod3g32qc" F32;
    "a step past the end counts": "turns/together", "step < steps" => "step <= steps", Fma Gemv "f32" "nf4g32f" F32;
    "a large table is read an entry too far": "format/codebook_large", "+ code" => "+ code + 1u", Fma Gemv "f32" "power5rf" F32;
    "lifted minifloats forget the second doubling": "lift/minifloat", "value += value & middle_mask & low_mask;" => "", Dot4 Tiled "i8rf" "e2m3rh" F32;
    "lifted codes of a table are swapped": "lift/codebook", "lift_mask(bytes >> 1u)" => "lift_mask(bytes)", Dot4 Gemv "i8rf" "iq4nlg32f" F32;
    "the group's choice is not looked at": "lift/codebook", "operand().choices[choice]" => "operand().choices[0]", Dot4 Gemv "i8rf" "bitmod4g32qc" F32;
    "choices are not applied": "scale/affine", "operand().choices[scale.zero]" => "operand().choices[0]", Fma Gemv "f32" "bitmod3g32qc" F32;
    "the unit of lifted values is left out": "accumulate/grouped", "* params.fold" => "", Dot4 Tiled "e2m1rf" "e2m1g32e" F32;
    "scales are read a word too far": "scale/affine", "operand().scales" => "(operand().scales + 1u)", Dot4 Gemv "i8rf" "u4g32h" F32;
    "powers of two are one off": "scale/affine", "bytes << vec4<u32>(23u)" => "(bytes + 1u) << vec4<u32>(23u)", Dot4 Gemv "i8rf" "e2m1g32e" F32;
    "the second level is that of the matrix's start": "scale/affine", "group * GROUP / 256u" => "0u", Dot4 Gemv "i8rf" "u4g32sm" F32;
    "minima are read a word too far": "scale/affine", "operand().zeros" => "(operand().zeros + 1u)", Fma Tiled "f32" "u4g32fm" F32;
    "the activation's offset is one off": "core/integer", "* span.offset)" => "* (span.offset + 1))", Dot4 Tiled "b8" "i4" I32;
    "what 8-bit weights lost is not added back": "lift/affine_weight", "return 128 *" => "return 127 *", Dot4 Gemv "u8" "u8" I32;
    "the weight's offset is one off": "core/integer", "params.weight.offset * integers" => "(params.weight.offset + 1) * integers", Bitplane Tiled "i3" "i2" I32;
    "planes have the wrong weight": "kernel/gemv_bitplane", "power[p % W_BITS + q]" => "power[p % W_BITS]", Bitplane Gemv "u3" "u2" I32;
    "two f16 change places": "output/f16", "vec2<f32>(first, select(0.0, second, both))" => "vec2<f32>(select(0.0, second, both), first)", Dot4 Tiled "i8rf" "i4rf" F16;
    "f16 outputs lie a word too far": "output/f16", "index / 2u" => "index / 2u + 1u", Fma Gemv "f32" "f32" F16;
    "the second of two outputs is stored twice": "output/f32", "output[index] = first" => "output[index] = second", Fma Tiled "f32" "f32" F32;
    "L-Mul leaves out its offset": "core/l_mul", "a + b + vec4<u32>(offset)" => "a + b", LMul Gemv "f32" "f32" F32;
    "L-Mul does not round its operands": "product/l_mul", "l_mul_round(bitcast<vec4<u32>>(values))" => "bitcast<vec4<u32>>(values)", LMul Tiled "bf16" "e4m3rf" F32;
    "L-Mul takes the sign of one operand": "core/l_mul", "(x ^ y) & vec4<u32>(L_MUL_SIGN)" => "x & vec4<u32>(L_MUL_SIGN)", LMul Tiled "f16" "i4" F32;
    "the mirrored half of a table keeps its sign": "kernel/gemv_lut", "& LUT_SIGN));" => "& 0u));", Lut Gemv "f32" "i2rf" F32;
    "planes that are looked up have the same weight": "kernel/gemv_lut", "f32(1u << plane)" => "1.0", Lut Gemv "f16" "u3g32fz" F32;
    "the mirrored half of a table is not folded": "core/lut", "* 7u" => "* 0u", Lut Gemv "f32" "b4g32hm" F32;
    "what all bits add is one half off": "core/lut", "2 * weight.offset" => "2 * weight.offset + 1", Lut Gemv "bf16" "i4rh" F32;
    "a cluster's sum is left out": "core/lut", "e <= LANES_LOG2" => "e < LANES_LOG2", Lut Gemv "f32" "tg32f" F32;
    "tables are shared with the wrong cluster": "table/workgroup", "(input.local & ~7u)" => "(input.local & 7u)", Lut Gemv "f32" "u1g32h" F32;
    "a table is scaled by the smallest sum": "kernel/gemv_lut8", "sizes = max(" => "sizes = min(", Lut8 Gemv "f32" "i2rf" F32;
    "codes of a table are rounded down": "kernel/gemv_lut8", "round(entries" => "floor(entries", Lut8 Gemv "f32" "i4g32h" F32;
    "the mirrored half of a table of bytes is one off": "kernel/gemv_lut8", "(entry ^ sign) - sign" => "(entry ^ sign)", Lut8 Gemv "f16" "u4rhz" F32;
    "the lowest planes are taken for the top": "core/bitplane", "start = operand.pieces.x" => "start = 0u", Bitplane Tiled "i3" "i8>truncated4" I32;
    "the carry plane is not found": "core/bitplane", "start = operand.pieces.z" => "start = operand.pieces.x", Bitplane Gemv "i3" "i8>rounded4" I32;
    "the carry has the weight of the next plane": "kernel/gemm_tiled_bitplane", "power[p % W_BITS + q]" => "power[p * (W_BITS - 1u) / W_BITS + q]", Bitplane Tiled "u2" "i8>rounded3" I32;
    "sums of weights take the carry for a plane": "kernel/gemv_bitplane", "<< (plane % W_BITS)" => "<< plane", Bitplane Gemv "b3rf" "i8rf>rounded4" F32;
    "rows of a pair change places": "multiply/u32_pairs", "(low_even & 0xffffu) | (high_even << 16u)" => "(high_even & 0xffffu) | (low_even << 16u)", Swar Subgroup "i8" "i4" I32;
    "the halves of a sum are parted too low": "multiply/u32_pairs", "sum & 0xffffu" => "sum & 0x3fffu", Swar Subgroup "u8" "u4" I32;
    "codes of weights are summed by halves": "core/swar", "+ ((bytes >> 8u) & 0x00ff00ffu)" => "", Swar Subgroup "i8rf" "u4g32hm" F32;
    "sums of the high rows are those of the low ones": "kernel/gemm_subgroup_swar", "swar_codes(row_halves[SPANS * (WORD_ROWS * i + h) + s])" => "swar_codes(row_halves[SPANS * WORD_ROWS * i + s])", Swar Subgroup "u5rf" "b3g16h" F32;
    "neighbours in a tile share their sums": "kernel/gemm_tiled_swar", "swar_codes(halves[h])" => "swar_codes(halves[0])", Swar Tiled "u5rf" "b3g16h" F32;
    "the high row of a float is a bit low": "multiply/f32_pairs", "(bytes.y >> 4u) & 0xff000u" => "(bytes.y >> 5u) & 0xff000u", IntegerFma Tiled "u4" "i3" I32;
    "the low row of a float is parted too low": "multiply/f32_pairs", "both & 0xfff" => "both & 0x3ff", IntegerFma Tiled "i4rf" "u4g32hm" F32;
    "the third code of a float is lost": "multiply/f32_singles", "vec4<i32>(bytes_unpack(bytes))" => "vec4<i32>(bytes_unpack(bytes & 0xff00ffffu))", IntegerFma Tiled "i8" "u7" I32;
    "the last codes of a step are left out": "kernel/gemm_tiled_swar", "t < STEP_WORDS * (e + 1u)" => "t < STEP_WORDS * (e + 1u) - 1u", IntegerFma Tiled "b8rf" "i8g32h" F32;
    "ties go up": "lift/nested_weight", "+ LIFT_HALF + (kept & BYTES_ONE)" => "+ LIFT_HALF + BYTES_ONE", Dot4 Tiled "i8" "i8>rounded6" I32;
    "the largest code wraps": "lift/nested_weight", "rounded - ((rounded >> KEPT) & BYTES_ONE)" => "rounded & LIFT_KEPT_MASK", Dot4 Gemv "i8rf" "i8g32h>rounded4" F32;
    "truncation keeps the low bits": "lift/nested_weight", "(bytes >> LIFT_DROPPED) & LIFT_KEPT_MASK" => "bytes & LIFT_KEPT_MASK", Dot4 Gemv "u8rf" "i8rf>truncated2" F32;
    "the last column is left out": "core/fma", "vec4<u32>(params.k)" => "vec4<u32>(params.k - 1u)", Fma Gemv "f32" "f32" F32;
};

/// Modules that a kernel has on devices with subgroups alone, whatever its skeleton.
const OF_SUBGROUPS: [&str; 2] = ["format/codebook_lanes", "turns/together"];

fn compare(
    problem: &Problem,
    engine: Engine,
    x: &PackedMatrix,
    w: &PackedMatrix,
    found: Values,
) -> Option<Wrong> {
    match found {
        Values::I32(found) => compare::exact(&found, &exact::gemm_i64(x, w).expect("a product")),
        Values::F32(_) | Values::F16(_) => {
            let (expected, bounds) = reference(problem, engine, x, w).expect("a product");
            compare::bounded(&found.into_f32().unwrap_or_default(), &expected, &bounds)
        }
    }
}

fn run(
    context: &Context,
    plan: &Plan,
    stored: &MatrixFormat,
    modules: &Modules<'_>,
) -> Result<Option<Wrong>, String> {
    let problem = plan.problem();
    let mut random = Random::new(0xb17e);
    let x = operand(
        &problem.activation,
        (problem.m, problem.k),
        Fill::Random,
        &mut random,
    );
    let mut w = operand(stored, (problem.n, problem.k), Fill::Random, &mut random);
    let linked = plan
        .specialization()
        .link_from(modules)
        .map_err(|error| error.to_string())?;
    let found =
        raw::multiply(context, plan, &linked.wgsl, &x, &w).map_err(|error| error.to_string())?;
    if let Some(nesting) = plan.nesting() {
        let bits = problem.weight.element().bits() as u8;
        w = w.nested(bits, nesting).map_err(|error| error.to_string())?;
    }
    Ok(compare(problem, plan.engine(), &x, &w, found))
}

#[test]
fn wrong_shaders_are_caught() {
    on_each_adapter("wrong_shaders_are_caught", |rig| {
        for (turn, mutation) in MUTATIONS.iter().enumerate() {
            let grouped = mutation.weight.contains('g');
            // Two-level scales have more than one second level.
            // Swar's words hold rows that are eight apart.
            let m = if mutation.engine == Swar { 13 } else { 5 };
            let shape = (m, 33, if grouped { 352 } else { 75 });
            let (stored, nested) = weight(mutation.weight);
            let read = match nested {
                None => stored,
                Some((bits, _)) => stored.nested(bits).expect("int8"),
            };
            let problem =
                Problem::new(shape, format(mutation.activation), read).with_output(mutation.output);
            let mut options = PlanOptions::engine(mutation.engine).with_memory(Memory::Buffers);
            options.nesting = nested.map(|(_, nesting)| nesting);
            options.skeleton = Some(mutation.skeleton);
            // Without subgroups where that can be, so that every adapter runs the same kernels.
            let subgroups =
                mutation.skeleton == Subgroup || OF_SUBGROUPS.contains(&mutation.module);
            let context = if subgroups { rig.best() } else { rig.floor() };
            if subgroups && context.caps().subgroup.is_none() {
                println!("SKIP: {}: no subgroups", mutation.what);
                continue;
            }
            let candidates = anybit::candidates(&problem, context.caps(), &options);
            let (candidates, _) = candidates.unwrap_or_else(|error| panic!("{error}"));
            // The cheapest to compile.
            let kernel = candidates
                .into_iter()
                .filter(|candidate| candidate.skeleton == mutation.skeleton)
                .min_by_key(|candidate| candidate.tile.thread_m * candidate.tile.thread_n)
                .unwrap_or_else(|| panic!("{}: no kernel", mutation.what));
            options.kernel = Some(kernel.specialization.id);
            let plan = context
                .plan_with(&problem, &options)
                .unwrap_or_else(|error| panic!("{error}"));
            let modules = Modules::embedded();
            let text = modules.text(mutation.module).unwrap_or_default().to_owned();
            assert!(
                text.contains(mutation.from),
                "{} no longer has `{}`: the mutation needs another place",
                mutation.module,
                mutation.from
            );
            let what = format!("{}: {}", plan.id(), mutation.what);
            // The unchanged shader is right, also without anybit's host code. Other tests say so of all kernels.
            if full() || turn % 9 == 0 {
                match run(&context, &plan, &stored, &modules) {
                    Ok(wrong) => rig.note_wrong(plan.id(), wrong),
                    Err(error) => rig.note(Err(format!("{}: {error}", plan.id()))),
                }
            }
            let mutated = modules.with(mutation.module, text.replace(mutation.from, mutation.to));
            rig.note(match run(&context, &plan, &stored, &mutated) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("{what}: not noticed")),
                Err(error) => Err(format!("{what}: {error}")),
            });
        }
    });
}
