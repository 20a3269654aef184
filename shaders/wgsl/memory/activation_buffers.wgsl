// The bindings of activations that lie in buffers.

@group(0) @binding(1) var<storage, read> a_codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> a_side: array<u32>;
