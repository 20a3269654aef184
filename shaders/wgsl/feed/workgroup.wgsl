// How attention's inner loops get what all invocations, or a team of them, share: from workgroup memory.
//#needs tile_queries join_input

struct feed_t {
    vector: u32,
}

fn feed_local(input: join_input) -> u32 {
    return input.local;
}

fn feed_queries(chunk: u32, input: join_input) -> feed_t {
    return feed_t(2u * chunk * TILE);
}

fn feed_low(fed: feed_t, row: u32) -> vec4<f32> {
    return tile_queries[fed.vector + row];
}

fn feed_high(fed: feed_t, row: u32) -> vec4<f32> {
    return tile_queries[fed.vector + TILE + row];
}

fn feed_share(weight: vec4<f32>, token: u32, input: join_input) -> vec4<f32> {
    return weight;
}
