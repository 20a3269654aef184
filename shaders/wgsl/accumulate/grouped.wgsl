// Scales that change along K: integers inside a span, f32 across spans in ascending order.
//#import core/integer

alias acc_t = f32;

// What a sum of code products over a span starts from.
fn acc_start(acc: f32, span: Span) -> i32 {
    return integer_start(span);
}

fn acc_span(acc: f32, codes: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> f32 {
    let product = f32(integer_product(codes, weight_codes, span, scale.zero));
    if (A_GROUP != 0u) {
        var value = product * scale.scale;
        if (W_ZERO == 2u) {
            value += f32(span.integers) * scale.minimum;
        }
        return acc + value * span.scale;
    }
    // Two sums that devices can make multiply-adds of.
    var sum = acc + product * scale.scale;
    if (W_ZERO == 2u) {
        sum += f32(span.integers) * scale.minimum;
    }
    return sum;
}

fn acc_finish(acc: f32, weight_codes: i32, span: Span, scale: w_scl_t) -> f32 {
    if (A_GROUP != 0u) {
        return acc * params.fold;
    }
    return acc * span.scale * params.fold;
}
