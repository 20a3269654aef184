// Words of a matrix's codes in a storage texture. Drivers that run shaders on a CPU gather its texels without branches, and words
// of buffers one invocation at a time; of sampled textures they ask each lane's mip level first, in a function that they call.
//#import core/texels
//#needs codes

fn mem_codes(i: u32) -> vec4<u32> {
    return textureLoad(codes, texels_place(i));
}

fn mem_word(word: u32) -> u32 {
    return mem_codes(word / 4u)[word % 4u];
}

// Two words from an even one on.
fn mem_pair(word: u32) -> vec2<u32> {
    let texel = mem_codes(word / 4u);
    return select(texel.xy, texel.zw, (word & 2u) != 0u);
}
