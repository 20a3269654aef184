// The bindings of a matrix that is decoded, whose codes lie in a texture.

@group(0) @binding(1) var w_codes: texture_storage_2d<rgba32uint, read>;
@group(0) @binding(2) var<storage, read> w_side: array<u32>;
