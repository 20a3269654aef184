// f32 output of the GEMM family.

alias out_t = f32;

@group(0) @binding(5) var<storage, read_write> output: array<f32>;
