// Blocks of 32 tokens that the next tokens complete, from the cache's ring to codes of KV_BITS with a scale and a minimum, both f16:
// of keys for each channel over the block, of values for each token over VALUE_GROUP channels. A workgroup takes a block of a head.
//#import core/cache
//#import core/sequence

struct QuantizeCacheParams {
    rows: u32,
    grid_x: u32,
    // Blocks that the tokens may complete.
    blocks: u32,
    // 0, which no compiler knows: some take unpack2x16float(pack2x16float(x)) for x.
    zero: u32,
    cache: Cache,
}

@group(0) @binding(0) var<uniform> params: QuantizeCacheParams;
@group(0) @binding(1) var<storage, read> sequence: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;

const CODES: u32 = 32u / KV_BITS;
const WORDS: u32 = HEAD_DIM / CODES;
const LEVELS: f32 = f32((1u << KV_BITS) - 1u);
const GROUPS: u32 = HEAD_DIM / VALUE_GROUP;

// Scale and minimum of each channel's keys.
var<workgroup> key_scales: array<u32, HEAD_DIM>;

fn load_key(head: u32, token: u32, channel: u32) -> f32 {
    let chunk = cache_key_chunk(params.cache, head, token, channel / 8u);
    return unpack2x16float(cache[params.cache.keys + 4u * chunk + channel % 8u / 2u])[channel % 2u];
}

fn load_value(head: u32, token: u32, channel: u32) -> f32 {
    let row = cache_value_row(params.cache, head, token);
    return unpack2x16float(cache[params.cache.values + (row * HEAD_DIM + channel) / 2u])[channel % 2u];
}

fn pack_scale(low: f32, high: f32) -> u32 {
    return pack2x16float(vec2<f32>((high - low) / LEVELS, low));
}

// The code of a value under a stored scale; 0 where all values are alike.
fn encode(value: f32, scale: u32) -> u32 {
    let stored = unpack2x16float(scale ^ params.zero);
    if (stored.x <= 0.0) {
        return 0u;
    }
    return u32(clamp(round((value - stored.y) / stored.x), 0.0, LEVELS));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = group.y * params.grid_x + group.x;
    let head = index / params.blocks;
    let done = sequence[SEQUENCE_DONE];
    let block = done / 32u + index % params.blocks;
    if (head >= params.cache.heads || block >= (done + params.rows) / 32u) {
        return;
    }
    let first = 32u * block;
    let place = head * params.cache.blocks + block;

    for (var channel = local; channel < HEAD_DIM; channel += WORKGROUP) {
        var low = load_key(head, first, channel);
        var high = low;
        for (var t = 1u; t < 32u; t++) {
            let value = load_key(head, first + t, channel);
            low = min(low, value);
            high = max(high, value);
        }
        let scale = pack_scale(low, high);
        key_scales[channel] = scale;
        cache[params.cache.key_scales + place * HEAD_DIM + channel] = scale;
    }
    workgroupBarrier();
    for (var i = local; i < 32u * WORDS; i += WORKGROUP) {
        let token = i % 32u;
        var word = 0u;
        for (var c = 0u; c < CODES; c++) {
            let channel = i / 32u * CODES + c;
            word |= encode(load_key(head, first + token, channel), key_scales[channel]) << (KV_BITS * c);
        }
        cache[params.cache.key_codes + place * 32u * WORDS + i] = word;
    }
    for (var i = local; i < 32u * GROUPS; i += WORKGROUP) {
        let token = i / GROUPS;
        let channel = i % GROUPS * VALUE_GROUP;
        var low = load_value(head, first + token, channel);
        var high = low;
        for (var c = 1u; c < VALUE_GROUP; c++) {
            let value = load_value(head, first + token, channel + c);
            low = min(low, value);
            high = max(high, value);
        }
        let scale = pack_scale(low, high);
        cache[params.cache.value_scales + place * 32u * GROUPS + i] = scale;
        for (var w = 0u; w < VALUE_GROUP / CODES; w++) {
            var word = 0u;
            for (var c = 0u; c < CODES; c++) {
                let value = load_value(head, first + token, channel + w * CODES + c);
                word |= encode(value, scale) << (KV_BITS * c);
            }
            cache[params.cache.value_codes + (place * 32u + token) * WORDS + channel / CODES + w] = word;
        }
    }
}
