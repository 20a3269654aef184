// Values of a packed matrix in any format and layout, four at a time.
//#import core/operand
//#import slot:codes_memory as w_
//#import slot:side_memory as w_
//#import slot:bindings
//#import slot:codes as w_
//#import slot:format as w_
//#import slot:scale as w_

// Values 4i .. 4i + 3 of a row.
fn decode_values(row: u32, i: u32) -> vec4<f32> {
    let words = w_fmt_row(row, 4u * i / w_FMT_STEP);
    return w_scl_apply(
        w_fmt_values(words, i % (w_FMT_STEP / 4u)),
        w_scl_load(row, 4u * i / W_GROUP_LENGTH),
    );
}
