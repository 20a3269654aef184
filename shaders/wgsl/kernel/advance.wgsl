// Counts a step's tokens as done.
//#import core/sequence

struct AdvanceParams {
    rows: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

@group(0) @binding(0) var<uniform> params: AdvanceParams;
@group(0) @binding(1) var<storage, read_write> sequence: array<u32>;

@compute @workgroup_size(1)
fn main() {
    sequence[SEQUENCE_DONE] += params.rows;
}
