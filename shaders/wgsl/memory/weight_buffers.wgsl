// The bindings of weights that lie in buffers.

@group(0) @binding(3) var<storage, read> w_codes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> w_side: array<u32>;
