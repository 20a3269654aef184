// What becomes of a head's channels before they are rotated: those of queries and keys are normalised by RMSNorm over the head, each
// with weights of its own.
//#needs rot_load params

@group(0) @binding(NORM_BINDING) var<storage, read> norm_queries: array<f32>;
@group(0) @binding(NORM_BINDING + 1) var<storage, read> norm_keys: array<f32>;

fn norm_is_value(head: u32) -> bool {
    return head >= params.query_heads + params.cache.heads;
}

// What a head's channels are multiplied by beside the weights.
fn norm_factor(row: u32, head: u32, column: u32) -> f32 {
    if (norm_is_value(head)) {
        return 1.0;
    }
    var squares = 0.0;
    for (var channel = 0u; channel < HEAD_DIM; channel++) {
        let value = rot_load(row, column + channel);
        squares += value * value;
    }
    return inverseSqrt(squares / f32(HEAD_DIM) + params.epsilon);
}

fn norm_value(row: u32, head: u32, column: u32, channel: u32, factor: f32) -> f32 {
    let value = rot_load(row, column + channel);
    if (norm_is_value(head)) {
        return value;
    }
    if (head < params.query_heads) {
        return value * factor * norm_queries[channel];
    }
    return value * factor * norm_keys[channel];
}
