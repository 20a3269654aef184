// f16 output of the GEMM family, two a word; sums are of f32. Needs no f16 feature.
//
// Reads OUT_BINDING.

alias out_t = f32;

@group(0) @binding(OUT_BINDING) var<storage, read_write> output: array<u32>;

// The largest f16. Packing leaves what lies beyond it open, so it saturates.
const OUT_LARGEST: f32 = 65504.0;

// An odd row ends with half a word, whose other half becomes 0. Rows are a whole number of words apart.
fn out_store_pair(index: u32, first: out_t, second: out_t, both: bool) {
    let values = vec2<f32>(first, select(0.0, second, both));
    output[index / 2u] = pack2x16float(clamp(values, vec2<f32>(-OUT_LARGEST), vec2<f32>(OUT_LARGEST)));
}
