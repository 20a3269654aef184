// Keys and values of f32, eight channels at a time.
//#import core/cache
//#needs params cache

struct kv_t {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn kv_load(vector: u32) -> kv_t {
    return kv_t(bitcast<vec4<f32>>(cache[vector]), bitcast<vec4<f32>>(cache[vector + 1u]));
}

fn kv_key(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    return kv_load(params.cache.keys / 4u + 2u * cache_key_chunk(params.cache, head, token, chunk));
}

fn kv_value(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    let row = cache_value_row(params.cache, head, token);
    return kv_load(params.cache.values / 4u + 2u * (row * CACHE_CHUNKS + chunk));
}
