// Words of a matrix's side data in a texture, as memory/texture_codes has codes.
//#import core/texels
//#needs side

// Four words from a multiple of four on.
fn mem_side_quad(word: u32) -> vec4<u32> {
    return textureLoad(side, texels_place(word / 4u));
}

fn mem_side(word: u32) -> u32 {
    return mem_side_quad(word)[word % 4u];
}

fn mem_side_pair(word: u32) -> vec2<u32> {
    let texel = mem_side_quad(word);
    return select(texel.xy, texel.zw, (word & 2u) != 0u);
}
