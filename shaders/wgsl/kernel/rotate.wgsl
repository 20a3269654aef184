// Rotary position embedding of the next tokens' queries and keys; keys and values go to the cache. An invocation takes four channels
// of a head, two of its pairs.
//
// Cosines and sines of an angle are products of two entries of a table: those of the position's multiple of 256 and of the rest,
// so that positions of any size keep f32's precision.
//
// Reads HEAD_DIM; ROTATED: how many channels of a head are rotated, a multiple of four; HALVES: whether channel i pairs with
// i + ROTATED / 2 and not with its neighbour.
//#import core/cache
//#import core/sequence
//#import slot:store
//#import slot:bias
//#import slot:head_norm

struct RotateParams {
    rows: u32,
    grid_x: u32,
    // Words from row to row of the input: queries, keys and values of all heads, from these columns on.
    input_row: u32,
    key_column: u32,
    value_column: u32,
    query_heads: u32,
    // Words from row to row of the rotated queries.
    query_row: u32,
    epsilon: f32,
    cache: Cache,
}

@group(0) @binding(0) var<uniform> params: RotateParams;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> sequence: array<u32>;
// Cosine and sine by pair: of positions 0 to 255, then of the multiples of 256.
@group(0) @binding(3) var<storage, read> angles: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> queries: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;

const PAIRS: u32 = ROTATED / 2u;
const QUADS: u32 = HEAD_DIM / 4u;

fn rot_load(row: u32, column: u32) -> f32 {
    return bias_add(column, input[row * params.input_row + column]);
}

fn rot_turn(values: vec2<f32>, position: u32, pair: u32) -> vec2<f32> {
    let low = angles[position % 256u * PAIRS + pair];
    let high = angles[(256u + position / 256u) * PAIRS + pair];
    let turn = vec2<f32>(high.x * low.x - high.y * low.y, high.y * low.x + high.x * low.y);
    return vec2<f32>(values.x * turn.x - values.y * turn.y, values.x * turn.y + values.y * turn.x);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = (group.y * params.grid_x + group.x) * WORKGROUP + local;
    let heads = params.query_heads + 2u * params.cache.heads;
    let quad = index % QUADS;
    let head = index / QUADS % heads;
    let row = index / QUADS / heads;
    if (row >= params.rows) {
        return;
    }
    let position = sequence[SEQUENCE_DONE] + row;
    let is_query = head < params.query_heads;
    let is_value = head >= params.query_heads + params.cache.heads;
    let cache_head = (head - params.query_heads) % params.cache.heads;
    var column = HEAD_DIM * head;
    if (!is_query) {
        column = select(params.key_column, params.value_column, is_value) + HEAD_DIM * cache_head;
    }

    // The first channels of two pairs or, where channels pair by halves, of two halves of two pairs.
    var first = vec2<u32>(4u * quad, 4u * quad + 2u);
    let is_rotated = !is_value && 4u * quad < ROTATED;
    if (HALVES && is_rotated) {
        first = vec2<u32>(2u * quad, 2u * quad + PAIRS);
    }
    let factor = norm_factor(row, head, column);
    let a = vec2<f32>(
        norm_value(row, head, column, first.x, factor),
        norm_value(row, head, column, first.x + 1u, factor),
    );
    let b = vec2<f32>(
        norm_value(row, head, column, first.y, factor),
        norm_value(row, head, column, first.y + 1u, factor),
    );
    var low = a;
    var high = b;
    if (is_rotated) {
        let pair = 2u * quad;
        if (HALVES) {
            let even = rot_turn(vec2<f32>(a.x, b.x), position, pair);
            let odd = rot_turn(vec2<f32>(a.y, b.y), position, pair + 1u);
            low = vec2<f32>(even.x, odd.x);
            high = vec2<f32>(even.y, odd.y);
        } else {
            low = rot_turn(a, position, pair);
            high = rot_turn(b, position, pair + 1u);
        }
    }
    if (is_query) {
        let word = row * params.query_row + HEAD_DIM * head;
        queries[word + first.x] = low.x;
        queries[word + first.x + 1u] = low.y;
        queries[word + first.y] = high.x;
        queries[word + first.y + 1u] = high.y;
    } else if (is_value) {
        kv_store_value(cache_head, position, first.x, low);
        kv_store_value(cache_head, position, first.y, high);
    } else {
        kv_store_key(cache_head, position, first.x, low);
        kv_store_key(cache_head, position, first.y, high);
    }
}
