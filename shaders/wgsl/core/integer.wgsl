// What the integer engines add to a sum of code products, by the identity
//   sum (aw * u + cw)(ax * s + bx) = aw * (ax * sum(s * u) + bx * sum(u)) + cw * sum(x)
// over a span of K, where x = ax * s + bx are the activation's integers, s its codes (less their centre, in dot4) and
// u the weight's codes. So encodings are coefficients in the parameters, never another pipeline; what is known to be 0 or 1
// of them is left out: WEIGHT_SUMS, ACTIVATION_SUMS and MULTIPLIED say what is not.
//
// BIPOLAR: both operands' bits stand for 1 and -1 (bit planes alone). Where two planes agree, the product is 1, else -1, so
//   sum x * w = 2 * sum over planes of 2^(i + j) * agreements - (2^A_BITS - 1)(2^W_BITS - 1) * length
// and neither sums of codes nor coefficients come in. Padding agrees.
//#import core/gemm

// The activation's part of a span.
struct Span {
    // Sum of the integers x over the part of the span that lies inside K.
    integers: i32,
    // bx: what is left of an activation integer at s = 0.
    offset: i32,
    scale: f32,
    // What a product has of the activations alone: cw * sum(x) but for zero points of the weights, and what weights whose
    // bytes are less than their codes lack. If BIPOLAR, what it has of the length alone.
    start: i32,
}

// Codes of the span that lie inside K.
fn integer_inside(first: u32, length: u32) -> i32 {
    return i32(min(first + length, params.k)) - i32(min(first, params.k));
}

// A span of `length` codes from `first` on, whose sum is `codes`, padding included. `lift` is what the products with them
// lack.
fn integer_span(codes: i32, lift: i32, first: u32, length: u32, centre: i32, zero: i32, scale: f32) -> Span {
    let operand = params.activation;
    let inside = integer_inside(first, length);
    let offset = operand.multiplier * centre + operand.offset - zero;
    // A padded code is 0, so its s is -centre.
    let inner_codes = codes + (i32(length) - inside) * centre;
    var integers = inner_codes;
    if (MULTIPLIED) {
        integers *= operand.multiplier;
    }
    return integer_sums(integers + inside * offset, lift, offset, scale, first, length);
}

// Less each product of signs, and once more those of padding.
fn integer_signs(first: u32, length: u32) -> i32 {
    return (integer_inside(first, length) - 2 * i32(length)) * i32(((1u << A_BITS) - 1u) * ((1u << W_BITS) - 1u));
}

// The span of all columns that a tile adds up, from its sums.
fn integer_total(tile: Tile, integers: i32, lift: i32, offset: i32, scale: f32) -> Span {
    return integer_sums(integers, lift, offset, scale, tile.first_k, 32u * tile.end_block - tile.first_k);
}

fn integer_sums(integers: i32, lift: i32, offset: i32, scale: f32, first: u32, length: u32) -> Span {
    var start = 0;
    if (ACTIVATION_SUMS) {
        start = integer_multiply(lift) + params.weight.offset * integers;
    }
    if (BIPOLAR) {
        start = integer_signs(first, length);
    }
    return Span(integers, offset, scale, start);
}

// A sum of code products times aw * ax, which are powers of two.
fn integer_multiply(codes: i32) -> i32 {
    if (BIPOLAR) {
        return codes << 1u;
    }
    if (MULTIPLIED) {
        return codes << firstTrailingBit(u32(params.weight.multiplier * params.activation.multiplier));
    }
    return codes;
}

// What the sum of code products over a span starts from.
fn integer_start(span: Span) -> i32 {
    if (ACTIVATION_SUMS && !MULTIPLIED) {
        return span.start;
    }
    return 0;
}

// The integer product over a span, from the sum of code products.
fn integer_product(codes: i32, weight_codes: i32, span: Span, weight_zero: i32) -> i32 {
    var product = integer_multiply(codes);
    if (BIPOLAR || (ACTIVATION_SUMS && MULTIPLIED)) {
        product += span.start;
    }
    if (WEIGHT_SUMS) {
        // The first product is the same for all rows of X, but for zero points of theirs.
        product += (params.weight.multiplier * span.offset) * weight_codes;
    }
    if (W_ZERO == 1u) {
        product -= weight_zero * span.integers;
    }
    return product;
}
