//! The comparisons of the kernels of language models bite: shaders that are wrong on purpose fail them.

use anybit::{
    Context, KvFormat, KvShape, OutputFormat, OutputMatrix, Specialization, model_specializations,
};
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_reference::cache::{Cache, Section};
use anybit_reference::kernel::Attention;
use anybit_shaders::Modules;
use anybit_tests::compare::Wrong;
use anybit_tests::kv::{random_cache, shape_of};
use anybit_tests::model::{Outcome, bounded, values};
use anybit_tests::random::Random;
use anybit_tests::raw::{Params, dispatch};
use anybit_tests::rig::{buffer_of, on_each_adapter};
use anybit_tests::shader::Shader;

const HEAD_DIM: usize = 64;
/// Query heads of a head of keys, all of a tile.
const GROUP: usize = 3;
const ROWS: usize = 5;
const DONE: usize = 301;

/// A change of a module's text, and the kernel that must suffer from it.
struct Mutation {
    what: &'static str,
    module: &'static str,
    from: &'static str,
    to: &'static str,
    format: KvFormat,
}

macro_rules! mutations {
    ($($what:literal: $module:literal, $from:literal => $to:literal, $format:ident;)*) => {
        &[$(Mutation {
            what: $what,
            module: $module,
            from: $from,
            to: $to,
            format: KvFormat::$format,
        }),*]
    };
}

const ATTENTION: &[Mutation] = mutations! {
    "queries are a token too far": "kernel/attention", "let position = vec4<u32>(first)" => "let position = vec4<u32>(first + 1u)", F16;
    "the window is a token too far": "kernel/attention", "(back < vec4<u32>(params.window))" => "(back <= vec4<u32>(params.window))", F16;
    "values are not rescaled": "kernel/attention", "low[r] *= scales[r / 4u][r % 4u];" => "", F16;
    "sums are not rescaled": "kernel/attention", "sum[v] *= rescale;" => "", F16;
    "queries are not scaled": "kernel/attention", "* params.scale;" => ";", F16;
    "chunks of keys change places": "core/cache", "CACHE_CHUNKS + chunk) * 32u" => "CACHE_CHUNKS + (chunk ^ 1u)) * 32u", F16;
    "powers of two are one off": "core/ext_exp", "+ vec4<i32>(127)" => "+ vec4<i32>(126)", F16;
    "exponentials leave out a coefficient": "core/ext_exp", "m * t + 0.16667652" => "m * t", F16;
    "minima of keys are left out": "kv/codes", "low_scale.x + low_scale.y" => "low_scale.x", Int4;
    "scales of values are those of the next token": "kv/codes", "params.cache.value_scales + group" => "params.cache.value_scales + group + 1u", Int4;
    "codes begin a bit too high": "kv/codes", "code % KV_CODES * KV_BITS" => "code % KV_CODES * KV_BITS + 1u", Int4;
    "the block before the own is read as codes": "core/cache", "min(block, cache.recent_blocks)" => "min(block, cache.recent_blocks - 1u)", Int4;
};

fn attention_shader(context: &Context, format: KvFormat) -> Option<Specialization> {
    let id = format!("attention_f32_{format}_f32__1x{GROUP}x128_d{HEAD_DIM}");
    model_specializations(context.caps())
        .into_iter()
        .find(|specialization| specialization.id == id)
}

/// Attention by the shader's text, without anybit's host code.
fn attention(
    context: &Context,
    wgsl: &str,
    cache: &Cache,
    queries: &[f32],
    options: &Attention,
) -> Outcome<Vec<f32>> {
    let shader = Shader::new(wgsl, context.device().features())?;
    let shape = cache.shape();
    let heads = shape.heads * GROUP;
    let width = heads * HEAD_DIM;
    let mut params = Params::new(&shader.module);
    for (name, value) in [
        ("rows", ROWS),
        ("grid_x", shape.heads * ROWS),
        ("head_tiles", shape.heads),
        ("row_tiles", ROWS),
        ("splits", 1),
        ("query_heads", heads),
        ("group", GROUP),
        ("query_row", width),
        ("output_row", width),
        (
            "window",
            options.window.unwrap_or(usize::MAX).min(u32::MAX as usize),
        ),
        ("cache.ring", shape.ring()),
        ("cache.heads", shape.heads),
        ("cache.keys", shape.section(Section::Keys).start),
        ("cache.values", shape.section(Section::Values).start),
        ("cache.key_codes", shape.section(Section::KeyCodes).start),
        ("cache.key_scales", shape.section(Section::KeyScales).start),
        (
            "cache.value_codes",
            shape.section(Section::ValueCodes).start,
        ),
        (
            "cache.value_scales",
            shape.section(Section::ValueScales).start,
        ),
        ("cache.blocks", shape.tokens() / 32),
        ("cache.recent_blocks", 1),
    ] {
        params.set(name, value as u32);
    }
    params.set("scale", options.scale.to_bits());
    params.set("cap", 0);
    let output = buffer_of(context, (0..ROWS * width).map(|_| 0));
    let buffers = [
        params.buffer(context),
        buffer_of(context, queries.iter().map(|value| value.to_bits())),
        buffer_of(context, cache.words().iter().copied()),
        buffer_of(context, [DONE as u32, 0, 0, 0].into_iter()),
    ];
    let workgroups = (shape.heads * ROWS) as u32;
    dispatch(context, wgsl, buffers.iter().chain([&output]), workgroups);
    let view = OutputMatrix::from_buffer(&output, 0, OutputFormat::F32, (ROWS, width), width)?;
    anybit_tests::model::read(context, &view)
}

/// What is wrong with a shader's attention.
fn check(context: &Context, modules: &Modules<'_>, format: KvFormat) -> Outcome<Option<Wrong>> {
    let mut random = Random::new(0xa77);
    let shape = KvShape {
        heads: 2,
        head_dim: HEAD_DIM,
        capacity: 512,
        step: 32,
    };
    let cache = random_cache(shape_of(format, shape), 2.0, &mut random);
    let queries = values(ROWS * 2 * GROUP * HEAD_DIM, 3.0, &mut random);
    let options = Attention {
        scale: 0.125,
        window: Some(100),
        cap: None,
    };
    let shader = attention_shader(context, format).ok_or("there is no such shader")?;
    let wgsl = shader.link_from(modules)?.wgsl;
    let found = attention(context, &wgsl, &cache, &queries, &options)?;
    let expected: Vec<Bounded> =
        ErrorModel::WGSL.attention(&options, &queries, 2 * GROUP, &cache, DONE);
    Ok(bounded(&found, &expected))
}

#[test]
fn wrong_attention_is_caught() {
    on_each_adapter("wrong_attention_is_caught", |rig| {
        // Without subgroups, so that every adapter runs the same kernels.
        let context = rig.floor();
        for format in [KvFormat::F16, KvFormat::Int4] {
            // The unchanged shader is right, also without anybit's host code.
            match check(&context, &Modules::embedded(), format) {
                Ok(wrong) => rig.note_wrong(format.name(), wrong),
                Err(error) => rig.note(Err(format!("{format}: {error}"))),
            }
        }
        for mutation in ATTENTION {
            let modules = Modules::embedded();
            let text = modules.text(mutation.module).unwrap_or_default().to_owned();
            assert!(
                text.contains(mutation.from),
                "{} no longer has `{}`: the mutation needs another place",
                mutation.module,
                mutation.from
            );
            let mutated = modules.with(mutation.module, text.replace(mutation.from, mutation.to));
            rig.note(match check(&context, &mutated, mutation.format) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("{}: not noticed", mutation.what)),
                Err(error) => Err(format!("{}: {error}", mutation.what)),
            });
        }
    });
}
