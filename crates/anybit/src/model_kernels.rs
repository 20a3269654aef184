//! The list of the kernels of language models, for tests of every shader.

use anybit_formats::{DeviceLayout, MatrixFormat, QuantizeRowsOptions};

use crate::attention::{
    AttentionTile, Pairing, attention_specialization, merge_specialization, rotate_specialization,
};
use crate::cache::{KvFormat, quantize_cache_specialization};
use crate::caps::Caps;
use crate::parts::add_parts_specializations;
use crate::row_kernels::quantize_plan;
use crate::row_source::{Gate, SourceKind, write_specialization};
use crate::sequence::{
    advance_specialization, cross_entropy_specialization, draw_specialization,
    gather_specialization, largest_specialization,
};
use crate::specialize::Specialization;

/// Heads that bring shaders of their own.
const HEAD_DIMS: [usize; 4] = [64, 80, 128, 256];

/// Rows, query heads for each of the keys, and capacity: what decides a tile of attention.
const TILES: [(usize, usize, usize); 4] = [(1, 3, 64), (1, 8, 4096), (1, 7, 4096), (64, 4, 4096)];

/// A shader of every kernel beside the products, in every variant, as a device gets it: sums of the parts that a product was split
/// into; and, of language models, rows to codes and f32, gathering, rotary embedding, KV caches, attention, cross entropy and
/// drawing. For tests that look at all of them.
pub fn model_specializations(caps: &Caps) -> Vec<Specialization> {
    let mut all = vec![
        advance_specialization(),
        largest_specialization(),
        draw_specialization(),
        cross_entropy_specialization(caps, false),
        cross_entropy_specialization(caps, true),
    ];
    all.extend(add_parts_specializations());
    all.extend(row_specializations(caps));
    for format in KvFormat::ALL {
        for head_dim in HEAD_DIMS {
            all.extend(attention_specializations(caps, format, head_dim));
            if format.code_bits().is_some() {
                all.push(quantize_cache_specialization(format, head_dim));
            }
        }
    }
    all
}

fn row_specializations(caps: &Caps) -> Vec<Specialization> {
    let mut all = Vec::new();
    let sources = [
        SourceKind::RmsNorm,
        SourceKind::Gated(Gate::Silu),
        SourceKind::Gated(Gate::GeluTanh),
    ];
    let packed = ["i8rf", "i4rf", "b1rf", "e4m3rf", "i8g32f", "e2m1g32e"];
    let formats = packed
        .iter()
        .filter_map(|name| name.parse::<MatrixFormat>().ok());
    let formats: Vec<_> = formats.collect();
    for source in sources {
        all.extend([false, true].map(|residual| write_specialization(caps, source, residual)));
        for format in &formats {
            let options = QuantizeRowsOptions::default();
            let plan = quantize_plan(caps, format, &DeviceLayout::ROW_MAJOR, &options, source);
            all.extend(plan.map(|plan| plan.specialization));
        }
    }
    for name in ["f32", "f16", "i8g32h", "u4g32hm", "e4m3rf", "nf4g32h"] {
        let format = name.parse::<MatrixFormat>();
        all.extend(format.map(|format| gather_specialization(&format, &DeviceLayout::ROW_MAJOR)));
    }
    all
}

fn attention_specializations(
    caps: &Caps,
    format: KvFormat,
    head_dim: usize,
) -> Vec<Specialization> {
    let mut all = Vec::new();
    for (rows, group, capacity) in TILES {
        let tile = AttentionTile::new(rows, group, head_dim, capacity);
        let capped = head_dim == 256;
        all.push(attention_specialization(
            caps, format, head_dim, tile, capped,
        ));
        if tile.split != 0 {
            all.push(merge_specialization(head_dim, tile.split));
        }
    }
    for pairing in [Pairing::Neighbours, Pairing::Halves] {
        for extra in [[false, false], [true, false], [false, true], [true, true]] {
            let rotated = head_dim.min(64);
            all.push(rotate_specialization(
                format, head_dim, rotated, pairing, extra,
            ));
        }
    }
    all
}
