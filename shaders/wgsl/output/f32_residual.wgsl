// f32 output of the GEMM family, added to a residual of the output's layout.
//
// Reads OUT_BINDING.

alias out_t = f32;

@group(0) @binding(OUT_BINDING) var<storage, read_write> output: array<f32>;
@group(0) @binding(OUT_BINDING + 1u) var<storage, read> out_residual: array<f32>;

fn out_store_pair(index: u32, first: out_t, second: out_t, both: bool) {
    output[index] = first + out_residual[index];
    if (both) {
        output[index + 1u] = second + out_residual[index + 1u];
    }
}
