// Reads a buffer once, 16 bytes a load, neighbouring invocations neighbouring loads.

struct Probe {
    iterations: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> probe: Probe;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;
@group(0) @binding(2) var<storage, read> source: array<vec4<u32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<u32>();
    for (var n = 0u; n < probe.iterations; n++) {
        sum ^= source[id.x + n * probe.stride];
    }
    output[id.x] = sum.x ^ sum.y ^ sum.z ^ sum.w;
}
