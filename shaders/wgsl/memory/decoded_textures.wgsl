// The bindings of a matrix in textures that is decoded.

@group(0) @binding(1) var w_codes: texture_storage_2d<rgba32uint, read>;
@group(0) @binding(2) var w_side: texture_storage_2d<rgba32uint, read>;
