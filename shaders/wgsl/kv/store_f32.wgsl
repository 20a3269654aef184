// Writing keys and values of f32 to the ring, two channels at a time.
//#import core/cache
//#needs params cache

fn kv_store_key(head: u32, token: u32, channel: u32, values: vec2<f32>) {
    let chunk = cache_key_chunk(params.cache, head, token, channel / 8u);
    let word = params.cache.keys + 8u * chunk + channel % 8u;
    cache[word] = bitcast<u32>(values.x);
    cache[word + 1u] = bitcast<u32>(values.y);
}

fn kv_store_value(head: u32, token: u32, channel: u32, values: vec2<f32>) {
    let word = params.cache.values + cache_value_row(params.cache, head, token) * HEAD_DIM + channel;
    cache[word] = bitcast<u32>(values.x);
    cache[word + 1u] = bitcast<u32>(values.y);
}
