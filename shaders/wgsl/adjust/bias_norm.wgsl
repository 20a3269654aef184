// What becomes of a head's channels before they are rotated: a bias is added (BIAS), and queries and keys are normalised by RMSNorm
// (NORM) over the head.
//
// `vectors` holds the biases of all columns, then the norm's weights of queries and of keys, HEAD_DIM each; what BIAS or NORM
// leave out has no room there.
//#needs rot_load params

@group(0) @binding(6) var<storage, read> vectors: array<f32>;

fn adj_biased(row: u32, column: u32) -> f32 {
    var value = rot_load(row, column);
    if (BIAS) {
        value += vectors[column];
    }
    return value;
}

// What a head's channels are multiplied by beside the norm's weights.
fn adj_prepare(row: u32, head: u32, column: u32) -> f32 {
    if (!NORM || head >= params.query_heads + params.cache.heads) {
        return 1.0;
    }
    var squares = 0.0;
    for (var channel = 0u; channel < HEAD_DIM; channel++) {
        let value = adj_biased(row, column + channel);
        squares += value * value;
    }
    return inverseSqrt(squares / f32(HEAD_DIM) + params.epsilon);
}

fn adj_value(row: u32, head: u32, column: u32, channel: u32, factor: f32) -> f32 {
    let value = adj_biased(row, column + channel);
    if (!NORM || head >= params.query_heads + params.cache.heads) {
        return value;
    }
    let weights = params.norm_weights + select(0u, HEAD_DIM, head >= params.query_heads);
    return value * factor * vectors[weights + channel];
}
