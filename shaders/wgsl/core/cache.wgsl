// Where the keys and values of a layer lie in its cache, in words.
//
// Recent tokens lie in a ring, as f16 or f32: of keys, 32 tokens take turns chunk by chunk of 8 channels, so that invocations that
// have a token each load neighbouring vectors; of values, a token's channels adjoin. Caches of codes keep whole blocks of 32
// older tokens beside it: keys with a scale and minimum a channel and block, values with one a token and group of channels.
//
// Reads HEAD_DIM.

struct Cache {
    // Tokens that the ring has room for, a multiple of 32; heads.
    ring: u32,
    heads: u32,
    // First words of the ring's keys and values.
    keys: u32,
    values: u32,
    // First words of the older keys' and values' codes and scales.
    key_codes: u32,
    key_scales: u32,
    value_codes: u32,
    value_scales: u32,
    // Blocks of older tokens that there is room for.
    blocks: u32,
    // Whole blocks before that of the query that are still read from the ring.
    recent_blocks: u32,
    padding_0: u32,
    padding_1: u32,
}

const CACHE_CHUNKS: u32 = HEAD_DIM / 8u;

// The first of a token's channels of a key in the ring, in units of a chunk's words: those of one chunk of a token adjoin.
fn cache_key_chunk(cache: Cache, head: u32, token: u32, chunk: u32) -> u32 {
    let slot = token % cache.ring;
    return ((head * (cache.ring / 32u) + slot / 32u) * CACHE_CHUNKS + chunk) * 32u + slot % 32u;
}

// A token's row of values in the ring, in units of HEAD_DIM channels.
fn cache_value_row(cache: Cache, head: u32, token: u32) -> u32 {
    return head * cache.ring + token % cache.ring;
}

// Tokens that a query at a position reads as codes: all before the block that is `recent_blocks` before its own.
fn cache_older(cache: Cache, position: u32) -> u32 {
    let block = position / 32u;
    return 32u * (block - min(block, cache.recent_blocks));
}
