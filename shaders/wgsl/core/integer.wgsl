// What the integer engines add to a sum of code products, by the identity
//   sum (aw * u + cw)(ax * s + bx) = aw * (ax * sum(s * u) + bx * sum(u)) + cw * sum(x)
// over a span of K, where x = ax * s + bx are the activation's integers, s its codes (less their centre, in dot4) and
// u the weight's codes. So encodings are coefficients in the parameters, never another pipeline.
//#import core/gemm

// The activation's part of a span.
struct Span {
    // Sum of s over the span, its padding included.
    codes: i32,
    // Sum of the integers x over the part of the span that lies inside K.
    integers: i32,
    // bx: what is left of an activation integer at s = 0.
    offset: i32,
    scale: f32,
}

// Codes of the span that lie inside K.
fn integer_inside(first: u32, length: u32) -> i32 {
    return i32(min(first + length, params.k)) - i32(min(first, params.k));
}

fn integer_span(codes: i32, first: u32, length: u32, centre: i32, zero: i32, scale: f32) -> Span {
    let operand = params.activation;
    let inside = integer_inside(first, length);
    let offset = operand.multiplier * centre + operand.offset - zero;
    // A padded code is 0, so its s is -centre.
    let inner_codes = codes + (i32(length) - inside) * centre;
    return Span(codes, operand.multiplier * inner_codes + inside * offset, offset, scale);
}

// The integer product over a span.
fn integer_product(codes: i32, weight_codes: i32, span: Span, weight_zero: i32) -> i32 {
    let weight = params.weight;
    var product = params.activation.multiplier * codes;
    if (WEIGHT_SUMS) {
        product += span.offset * weight_codes;
    }
    var offset = weight.offset;
    if (W_ZERO == 1u) {
        offset -= weight_zero;
    }
    return weight.multiplier * product + offset * span.integers;
}
