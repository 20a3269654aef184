// The bindings of activations whose codes lie in a texture.

@group(0) @binding(1) var a_codes: texture_storage_2d<rgba32uint, read>;
@group(0) @binding(2) var<storage, read> a_side: array<u32>;
