// The bindings of weights that lie in textures.

@group(0) @binding(3) var w_codes: texture_2d<u32>;
@group(0) @binding(4) var w_side: texture_2d<u32>;
