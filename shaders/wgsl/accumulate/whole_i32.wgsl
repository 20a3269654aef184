// The exact integer product, without scales.
//#import core/integer

alias acc_t = i32;

fn acc_span(acc: i32, codes: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> i32 {
    return acc + codes;
}

fn acc_finish(acc: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> i32 {
    return integer_product(acc, weight_codes, span, scale.zero);
}
