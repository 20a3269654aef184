// i32 output of the GEMM family: the exact integer product.

alias out_t = i32;

@group(0) @binding(5) var<storage, read_write> output: array<i32>;
