// What RMSNorm multiplies a workgroup's row by: 1 / sqrt(mean square + epsilon). Every invocation must take part.
//
// Reads WORKGROUP, as core/row_join.
//#import core/row_join
//#needs params src_square

fn join_two(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return a + b;
}

fn row_norm_factor(row: u32, local: u32) -> f32 {
    for (var strand = local; strand < ROW_STRANDS; strand += WORKGROUP) {
        var squares = 0.0;
        for (var i = strand; 4u * i < params.columns; i += ROW_STRANDS) {
            squares += src_square(row, i);
        }
        row_strands[strand] = vec2<f32>(squares, 0.0);
    }
    return inverseSqrt(row_join(local).x / f32(params.columns) + params.epsilon);
}
