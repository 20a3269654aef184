// Keys and values of f16, eight channels at a time.
//#import core/cache
//#needs params cache

struct kv_t {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn kv_unpack(words: vec4<u32>) -> kv_t {
    return kv_t(
        vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
        vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)),
    );
}

fn kv_key(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    return kv_unpack(cache[params.cache.keys / 4u + cache_key_chunk(params.cache, head, token, chunk)]);
}

fn kv_value(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    return kv_unpack(
        cache[params.cache.values / 4u + cache_value_row(params.cache, head, token) * CACHE_CHUNKS + chunk],
    );
}
