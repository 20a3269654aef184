// The bindings of a matrix in buffers that is decoded.

@group(0) @binding(1) var<storage, read> w_codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_side: array<u32>;
