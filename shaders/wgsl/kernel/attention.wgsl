// Grouped-query attention of the next tokens to all before them and themselves, with an online softmax. A workgroup takes a tile of
// ROWS positions, which begin at multiples of ROWS, and HEADS query heads that share keys; of the tokens, all or a stretch of SPLIT.
// Blocks of tokens and tiles lie at fixed positions, so that a row's result does not depend on what is computed with it.
//
// Of a block, an invocation first takes TOKENS tokens and weighs them for all rows of the tile; then eight channels of every TEAMSth
// token, and adds their values up.
//
// Reads HEAD_DIM; ROWS, a divisor of 32; HEADS; TOKENS; SPLIT, a multiple of a block, or 0; FEED_TOKENS; SOFT_CAP: whether scores are capped.
//#import core/cache
//#import core/cap
//#import core/ext_exp
//#import core/sequence
//#import slot:kv
//#import slot:join
//#import slot:feed
//#import slot:attended

struct AttentionParams {
    rows: u32,
    grid_x: u32,
    // Tiles of heads, of rows, and stretches of tokens.
    head_tiles: u32,
    row_tiles: u32,
    splits: u32,
    query_heads: u32,
    // Query heads that share a head of keys.
    group: u32,
    // Words from row to row.
    query_row: u32,
    output_row: u32,
    // The farthest that a query sees back, itself included.
    window: u32,
    // What scores are multiplied by; the cap.
    scale: f32,
    cap: f32,
    cache: Cache,
}

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> cache: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> sequence: array<u32>;

const VECTORS: u32 = HEAD_DIM / 4u;
const CHUNKS: u32 = HEAD_DIM / 8u;
const TEAMS: u32 = WORKGROUP / CHUNKS;
const TILE: u32 = ROWS * HEADS;
const TILE_VECTORS: u32 = (TILE + 3u) / 4u;
const BLOCK: u32 = WORKGROUP * TOKENS;

// The tile's queries, by vector and row; the weights of a block's tokens.
var<workgroup> tile_queries: array<vec4<f32>, VECTORS * TILE>;
var<workgroup> weights: array<vec4<f32>, BLOCK * TILE_VECTORS>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, input: join_input) {
    let local = feed_local(input);
    let index = group.y * params.grid_x + group.x;
    let head_tile = index % params.head_tiles;
    let row_tile = index / params.head_tiles % params.row_tiles;
    let split = index / params.head_tiles / params.row_tiles;
    let done = sequence[SEQUENCE_DONE];
    let first = (done / ROWS + row_tile) * ROWS;
    if (split >= params.splits || first >= done + params.rows) {
        return;
    }
    // The tokens that some row of the tile sees, in this stretch.
    let last = min(first + ROWS, done + params.rows);
    var begin = first - min(first, params.window - 1u);
    var end = last;
    if (SPLIT != 0u) {
        begin = max(begin, split * SPLIT);
        end = min(end, (split + 1u) * SPLIT);
        if (begin >= end) {
            return;
        }
    }
    let first_head = head_tile * HEADS;
    let cache_head = first_head / params.group;
    let older = cache_older(params.cache, first);

    for (var i = local; i < VECTORS * TILE; i += WORKGROUP) {
        let r = i % TILE;
        let row = clamp(first + r / HEADS, done, last - 1u) - done;
        let column = HEAD_DIM * (first_head + r % HEADS);
        tile_queries[i] = queries[(row * params.query_row + column) / 4u + i / TILE] * params.scale;
    }
    workgroupBarrier();

    let chunk = local % CHUNKS;
    let team = local / CHUNKS;
    var exponent: array<vec4<f32>, TILE_VECTORS>;
    var sum: array<vec4<f32>, TILE_VECTORS>;
    var low: array<vec4<f32>, TILE>;
    var high: array<vec4<f32>, TILE>;
    //#unroll
    for (var v = 0u; v < TILE_VECTORS; v++) {
        exponent[v] = vec4<f32>(EXT_NOTHING);
    }

    for (var block = begin / BLOCK * BLOCK; block < end; block += BLOCK) {
        var score = array<vec4<f32>, TOKENS * TILE_VECTORS>();
        for (var c = 0u; c < CHUNKS; c++) {
            var key = array<kv_t, TOKENS>();
            //#unroll
            for (var t = 0u; t < TOKENS; t++) {
                // Past the end, the last token's keys, for nothing.
                let token = min(block + t * WORKGROUP + local, end - 1u);
                key[t] = kv_key(cache_head, token, c, older);
            }
            let fed = feed_queries(c, input);
            //#unroll
            for (var r = 0u; r < TILE; r++) {
                let query_low = feed_low(fed, r);
                let query_high = feed_high(fed, r);
                //#unroll
                for (var t = 0u; t < TOKENS; t++) {
                    score[t * TILE_VECTORS + r / 4u][r % 4u] +=
                        dot(query_low, key[t].low) + dot(query_high, key[t].high);
                }
            }
        }

        var weight = array<ext_t, TOKENS * TILE_VECTORS>();
        var scales = array<vec4<f32>, TILE_VECTORS>();
        //#unroll
        for (var v = 0u; v < TILE_VECTORS; v++) {
            var largest = vec4<f32>(EXT_NOTHING);
            //#unroll
            for (var t = 0u; t < TOKENS; t++) {
                var x = score[t * TILE_VECTORS + v];
                if (SOFT_CAP) {
                    x = cap_soft(x, params.cap);
                }
                let token = block + t * WORKGROUP + local;
                let row = vec4<u32>(4u * v) + vec4<u32>(0u, 1u, 2u, 3u);
                let position = vec4<u32>(first) + row / HEADS;
                let back = position - vec4<u32>(token);
                let is_seen = (vec4<u32>(token) <= position) & (back < vec4<u32>(params.window))
                    & vec4<bool>(token < end);
                var part = ext_exp(x);
                part.m = select(vec4<f32>(0.0), part.m, is_seen);
                part.n = select(vec4<f32>(EXT_NOTHING), part.n, is_seen);
                largest = max(largest, part.n);
                weight[t * TILE_VECTORS + v] = part;
            }
            let joined = max(exponent[v], join_max(largest, input));
            let rescale = ext_power(exponent[v] - joined);
            exponent[v] = joined;
            sum[v] *= rescale;
            //#unroll
            for (var t = 0u; t < TOKENS; t++) {
                let part = weight[t * TILE_VECTORS + v];
                let value = part.m * ext_power(part.n - joined);
                sum[v] += value;
                weights[(t * WORKGROUP + local) * TILE_VECTORS + v] = value;
            }
            scales[v] = rescale;
        }
        //#unroll
        for (var r = 0u; r < TILE; r++) {
            low[r] *= scales[r / 4u][r % 4u];
            high[r] *= scales[r / 4u][r % 4u];
        }
        workgroupBarrier();

        let tokens = min(end - block, BLOCK);
        for (var first_token = 0u; first_token < tokens; first_token += TEAMS * FEED_TOKENS) {
            var own = array<vec4<f32>, TILE_VECTORS>();
            let own_token = min(first_token + TEAMS * (local % FEED_TOKENS) + team, BLOCK - 1u);
            //#unroll
            for (var v = 0u; v < TILE_VECTORS; v++) {
                own[v] = weights[own_token * TILE_VECTORS + v];
            }
            //#unroll
            for (var j = 0u; j < FEED_TOKENS; j++) {
                var four = array<vec4<f32>, TILE_VECTORS>();
                //#unroll
                for (var v = 0u; v < TILE_VECTORS; v++) {
                    four[v] = feed_share(own[v], j, input);
                }
                let t = first_token + TEAMS * j + team;
                if (team < TEAMS && t < tokens) {
                    let value = kv_value(cache_head, block + t, chunk, older);
                    //#unroll
                    for (var r = 0u; r < TILE; r++) {
                        low[r] += four[r / 4u][r % 4u] * value.low;
                        high[r] += four[r / 4u][r % 4u] * value.high;
                    }
                }
            }
        }
        workgroupBarrier();
    }

    //#unroll
    for (var v = 0u; v < TILE_VECTORS; v++) {
        sum[v] = join_sum(sum[v], input);
    }
    //#unroll
    for (var r = 0u; r < TILE; r++) {
        workgroupBarrier();
        weights[2u * local] = low[r];
        weights[2u * local + 1u] = high[r];
        workgroupBarrier();
        let position = first + r / HEADS;
        if (local < VECTORS && position >= done && position < last) {
            var total = vec4<f32>(0.0);
            for (var t = 0u; t < TEAMS; t++) {
                total += weights[2u * t * CHUNKS + local];
            }
            let head = first_head + r % HEADS;
            att_store(position - done, head, split, local, total, sum[r / 4u][r % 4u]);
            if (local == 0u) {
                att_store_sum(position - done, head, split, sum[r / 4u][r % 4u], exponent[r / 4u][r % 4u]);
            }
        }
    }
}
