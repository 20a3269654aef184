// f32 output of the GEMM family, added to a residual of the output's layout.

alias out_t = f32;

@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read> out_residual: array<f32>;

fn out_store_pair(index: u32, first: out_t, second: out_t, both: bool) {
    output[index] = first + out_residual[index];
    if (both) {
        output[index + 1u] = second + out_residual[index + 1u];
    }
}
