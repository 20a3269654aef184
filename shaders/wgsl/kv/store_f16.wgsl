// Writing keys and values of f16 to the ring, two channels at a time.
//#import core/cache
//#needs params cache

fn kv_store_key(head: u32, token: u32, channel: u32, values: vec2<f32>) {
    let chunk = cache_key_chunk(params.cache, head, token, channel / 8u);
    cache[params.cache.keys + 4u * chunk + channel % 8u / 2u] = pack2x16float(values);
}

fn kv_store_value(head: u32, token: u32, channel: u32, values: vec2<f32>) {
    let row = cache_value_row(params.cache, head, token);
    cache[params.cache.values + (row * HEAD_DIM + channel) / 2u] = pack2x16float(values);
}
