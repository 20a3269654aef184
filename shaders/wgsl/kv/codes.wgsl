// Keys and values of KV_BITS (2, 4 or 8) with scale and minimum; recent ones of f16. Eight channels at a time.
//
// Reads VALUE_GROUP, the channels that share a value's scale.
//#import core/cache
//#needs params cache

struct kv_t {
    low: vec4<f32>,
    high: vec4<f32>,
}

const KV_CODES: u32 = 32u / KV_BITS;
const KV_WORDS: u32 = HEAD_DIM / KV_CODES;
const KV_MASK: u32 = (1u << KV_BITS) - 1u;

fn kv_word(word: u32) -> u32 {
    return cache[word / 4u][word % 4u];
}

fn kv_unpack(words: vec4<u32>) -> kv_t {
    return kv_t(
        vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
        vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)),
    );
}

// Four of a chunk's eight codes: `word` holds them from bit `shift` on.
fn kv_codes(word: u32, shift: u32) -> vec4<f32> {
    let shifts = vec4<u32>(shift) + KV_BITS * vec4<u32>(0u, 1u, 2u, 3u);
    return vec4<f32>((vec4<u32>(word) >> shifts) & vec4<u32>(KV_MASK));
}

// The codes of a chunk, whose row's words are `stride` apart from `first` on.
fn kv_chunk(first: u32, stride: u32, chunk: u32) -> kv_t {
    let code = 8u * chunk;
    let low = kv_word(first + code / KV_CODES * stride);
    if (KV_BITS == 8u) {
        return kv_t(kv_codes(low, 0u), kv_codes(kv_word(first + (code / KV_CODES + 1u) * stride), 0u));
    }
    let shift = code % KV_CODES * KV_BITS;
    return kv_t(kv_codes(low, shift), kv_codes(low, shift + 4u * KV_BITS));
}

fn kv_key(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    if (token >= older) {
        return kv_unpack(cache[params.cache.keys / 4u + cache_key_chunk(params.cache, head, token, chunk)]);
    }
    let block = head * params.cache.blocks + token / 32u;
    let codes = kv_chunk(params.cache.key_codes + block * 32u * KV_WORDS + token % 32u, 32u, chunk);
    let first = (params.cache.key_scales + block * HEAD_DIM + 8u * chunk) / 4u;
    let low = cache[first];
    let high = cache[first + 1u];
    var value: kv_t;
    //#unroll
    for (var c = 0u; c < 4u; c++) {
        let low_scale = unpack2x16float(low[c]);
        let high_scale = unpack2x16float(high[c]);
        value.low[c] = codes.low[c] * low_scale.x + low_scale.y;
        value.high[c] = codes.high[c] * high_scale.x + high_scale.y;
    }
    return value;
}

fn kv_value(head: u32, token: u32, chunk: u32, older: u32) -> kv_t {
    if (token >= older) {
        let row = cache_value_row(params.cache, head, token);
        return kv_unpack(cache[params.cache.values / 4u + row * CACHE_CHUNKS + chunk]);
    }
    let row = head * params.cache.blocks * 32u + token;
    let codes = kv_chunk(params.cache.value_codes + row * KV_WORDS, 1u, chunk);
    let group = row * (HEAD_DIM / VALUE_GROUP) + 8u * chunk / VALUE_GROUP;
    let scale = unpack2x16float(kv_word(params.cache.value_scales + group));
    return kv_t(codes.low * scale.x + scale.y, codes.high * scale.x + scale.y);
}
