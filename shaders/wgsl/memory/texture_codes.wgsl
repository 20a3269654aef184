// A matrix whose codes lie in a texture, as in memory/textures, and whose side data in a buffer.
//#needs codes side

// Texels of a row: TEXTURE_WIDTH of crates/anybit.
const MEM_WIDTH: u32 = 512u;

fn mem_codes(i: u32) -> vec4<u32> {
    return textureLoad(codes, vec2<u32>(i % MEM_WIDTH, i / MEM_WIDTH), 0);
}

fn mem_word(word: u32) -> u32 {
    return mem_codes(word / 4u)[word % 4u];
}

// Two words from an even one on.
fn mem_pair(word: u32) -> vec2<u32> {
    let texel = mem_codes(word / 4u);
    return select(texel.xy, texel.zw, (word & 2u) != 0u);
}

fn mem_side(word: u32) -> u32 {
    return side[word];
}

fn mem_side_pair(word: u32) -> vec2<u32> {
    return vec2<u32>(side[word], side[word + 1u]);
}

// Four words from a multiple of four on.
fn mem_side_quad(word: u32) -> vec4<u32> {
    return vec4<u32>(side[word], side[word + 1u], side[word + 2u], side[word + 3u]);
}
