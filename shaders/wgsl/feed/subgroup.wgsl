// How attention's inner loops get what all invocations, or a team of them, share: each lane loads a part, and all take it from there.
// For subgroups of eight lanes or more.
//
// Reads FEED_TOKENS, the tokens whose weights are loaded at once: 8 where teams are eights of lanes, else 1.
//#needs tile_queries join_input

struct feed_t {
    low: vec4<f32>,
    high: vec4<f32>,
}

// The invocation's place, by lanes, whose order among the invocations is not known.
fn feed_local(input: join_input) -> u32 {
    return input.subgroup * input.size + input.lane;
}

fn feed_queries(chunk: u32, input: join_input) -> feed_t {
    let row = input.lane % TILE;
    return feed_t(tile_queries[2u * chunk * TILE + row], tile_queries[(2u * chunk + 1u) * TILE + row]);
}

fn feed_low(fed: feed_t, row: u32) -> vec4<f32> {
    return subgroupShuffle(fed.low, row);
}

fn feed_high(fed: feed_t, row: u32) -> vec4<f32> {
    return subgroupShuffle(fed.high, row);
}

fn feed_share(weight: vec4<f32>, token: u32, input: join_input) -> vec4<f32> {
    if (FEED_TOKENS == 1u) {
        return weight;
    }
    return subgroupShuffle(weight, input.lane / FEED_TOKENS * FEED_TOKENS + token);
}
