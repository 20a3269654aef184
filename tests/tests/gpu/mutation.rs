//! The comparisons bite: shaders that are wrong on purpose fail them.

use anybit::{Context, Engine, Operands, OutputFormat, Plan, PlanOptions, Problem, Skeleton, Values};
use anybit_formats::PackedMatrix;
use anybit_reference::exact;
use anybit_shaders::Modules;
use anybit_tests::compare::{self, Wrong};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::raw;
use anybit_tests::rig::{on_each_adapter, reference};

/// One change of a module's text.
struct Mutation {
    contract: (&'static str, &'static str, OutputFormat),
    engine: Engine,
    skeleton: Skeleton,
    module: &'static str,
    from: &'static str,
    to: &'static str,
}

const I32: OutputFormat = OutputFormat::I32;
const F32: OutputFormat = OutputFormat::F32;

const MUTATIONS: &[Mutation] = &[
    // Decoding: codes of the two pieces of 3 bits swapped in weight, and a plane's bits out of order.
    Mutation {
        contract: ("i8", "u3", I32),
        engine: Engine::Dot4,
        skeleton: Skeleton::Tiled,
        module: "format/affine",
        from: "<< P0;",
        to: "<< (P0 - 1u);",
    },
    Mutation {
        contract: ("f32", "u5rf", F32),
        engine: Engine::Fma,
        skeleton: Skeleton::Gemv,
        module: "format/affine",
        from: "* operand().multiplier + operand().offset",
        to: "* operand().multiplier - operand().offset + 1",
    },
    Mutation {
        contract: ("i2", "u3", I32),
        engine: Engine::Bitplane,
        skeleton: Skeleton::Gemv,
        module: "format/affine_planes",
        from: "plane * operand().pieces.y",
        to: "(plane ^ 1u) * operand().pieces.y",
    },
    Mutation {
        contract: ("bf16", "bf16", F32),
        engine: Engine::Fma,
        skeleton: Skeleton::Tiled,
        module: "format/bf16",
        from: "low << 16u",
        to: "low << 15u",
    },
    // Scales: the wrong half of a pair of f16, and a group too far.
    Mutation {
        contract: ("i8rf", "u4g32h", F32),
        engine: Engine::Dot4,
        skeleton: Skeleton::Gemv,
        module: "scale/affine",
        from: "[index % 2u]",
        to: "[(index + 1u) % 2u]",
    },
    Mutation {
        contract: ("f32", "i4g32f", F32),
        engine: Engine::Fma,
        skeleton: Skeleton::Tiled,
        module: "scale/affine",
        from: "result += scale.minimum;",
        to: "result += 0.0;",
    },
    // Recovery: the zero's correction dropped, a power of two off, a centre forgotten.
    Mutation {
        contract: ("i8", "i4", I32),
        engine: Engine::Dot4,
        skeleton: Skeleton::Tiled,
        module: "core/integer",
        from: "product += span.offset * weight_codes;",
        to: "product += (span.offset + 1) * weight_codes;",
    },
    Mutation {
        contract: ("i3", "i2", I32),
        engine: Engine::Bitplane,
        skeleton: Skeleton::Tiled,
        module: "core/integer",
        from: "(weight.offset - weight_zero) * span.integers",
        to: "(weight.offset - weight_zero + 1) * span.integers",
    },
    Mutation {
        contract: ("u8", "u8", I32),
        engine: Engine::Dot4,
        skeleton: Skeleton::Gemv,
        module: "core/dot4",
        from: "return 128 * activation_codes;",
        to: "return 127 * activation_codes;",
    },
    Mutation {
        contract: ("f32", "f32", F32),
        engine: Engine::Fma,
        skeleton: Skeleton::Gemv,
        module: "core/fma",
        from: "k < vec4<u32>(params.k)",
        to: "k < vec4<u32>(params.k - 1u)",
    },
];
