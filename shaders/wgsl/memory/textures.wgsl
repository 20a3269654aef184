// A matrix in two textures, four words a texel, row by row. Drivers that run shaders on a CPU gather texels without branches,
// and words of buffers one invocation at a time.
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

// Four words from a multiple of four on.
fn mem_side_quad(word: u32) -> vec4<u32> {
    let i = word / 4u;
    return textureLoad(side, vec2<u32>(i % MEM_WIDTH, i / MEM_WIDTH), 0);
}

fn mem_side(word: u32) -> u32 {
    return mem_side_quad(word)[word % 4u];
}

fn mem_side_pair(word: u32) -> vec2<u32> {
    let texel = mem_side_quad(word);
    return select(texel.xy, texel.zw, (word & 2u) != 0u);
}
