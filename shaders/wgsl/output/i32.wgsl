// i32 output of the GEMM family: the exact integer product.
//
// Reads OUT_BINDING.

alias out_t = i32;

@group(0) @binding(OUT_BINDING) var<storage, read_write> output: array<i32>;

fn out_store_pair(index: u32, first: out_t, second: out_t, both: bool) {
    output[index] = first;
    if (both) {
        output[index + 1u] = second;
    }
}
