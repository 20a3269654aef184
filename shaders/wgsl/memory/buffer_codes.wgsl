// Words of a matrix's codes in a storage buffer, four at a time.
//#needs codes

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
