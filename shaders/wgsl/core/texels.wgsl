// Textures that hold words, four a texel, row by row.

// Texels of a row: TEXTURE_WIDTH of crates/anybit.
const TEXELS_WIDTH: u32 = 512u;

fn texels_place(i: u32) -> vec2<u32> {
    return vec2<u32>(i % TEXELS_WIDTH, i / TEXELS_WIDTH);
}
