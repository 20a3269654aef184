// A matrix in storage buffers: words of its codes, four at a time, and of its side data.
//#needs codes side

fn mem_codes(i: u32) -> vec4<u32> {
    return codes[i];
}

fn mem_word(word: u32) -> u32 {
    return codes[word / 4u][word % 4u];
}

// Two words from an even one on.
fn mem_pair(word: u32) -> vec2<u32> {
    return vec2<u32>(mem_word(word), mem_word(word + 1u));
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
