// The exact integer product, without scales.
//#import core/integer

alias acc_t = i32;

// A sum of code products goes on where the last span's ended.
fn acc_start(acc: i32, span: Span) -> i32 {
    return acc;
}

fn acc_span(acc: i32, codes: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> i32 {
    return codes;
}

fn acc_finish(acc: i32, weight_codes: i32, span: Span, scale: w_scl_t) -> i32 {
    return integer_product(acc + integer_start(span), weight_codes, span, scale.zero);
}
