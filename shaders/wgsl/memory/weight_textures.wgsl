// The bindings of weights that lie in textures.

@group(0) @binding(3) var w_codes: texture_storage_2d<rgba32uint, read>;
@group(0) @binding(4) var w_side: texture_storage_2d<rgba32uint, read>;
