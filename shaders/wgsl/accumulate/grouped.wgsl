// Scales that change along K: integers inside a span, f32 across spans in ascending order.
//#import core/integer

alias acc_t = f32;

fn acc_span(acc: f32, codes: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> f32 {
    var value = f32(integer_product(codes, weight_codes, span, scale.zero)) * scale.scale;
    if (W_ZERO == 2u) {
        value += f32(span.integers) * scale.minimum;
    }
    if (A_GROUP != 0u) {
        value *= span.scale;
    }
    return acc + value;
}

fn acc_finish(acc: f32, weight_codes: i32, span: Span, scale: w_scl_t) -> f32 {
    if (A_GROUP != 0u) {
        return acc * params.fold;
    }
    return acc * span.scale * params.fold;
}
