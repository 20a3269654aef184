// f32 values as integers of the same order, both zeros as one; of two that are equal the one with the lower index is larger.

fn key_of(value: f32) -> u32 {
    let stored = bitcast<u32>(value);
    let bits = select(stored, 0u, stored == 0x80000000u);
    return bits ^ select(0x80000000u, 0xffffffffu, bits >= 0x80000000u);
}

// The larger of two (key, index).
fn key_larger(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}
