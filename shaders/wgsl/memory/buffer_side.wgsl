// Words of a matrix's side data in a storage buffer.
//#needs side

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
