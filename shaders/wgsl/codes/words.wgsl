// Floats stored as they are, row-major, four words at a time.
//
// Reads BITS: 32 or 16.
//#import core/operand
//#needs mem_codes operand

// Values that one fmt_row brings.
const FMT_STEP: u32 = 128u / BITS;

alias fmt_row_t = vec4<u32>;

fn fmt_row(row: u32, index: u32) -> fmt_row_t {
    return mem_codes((operand().pieces.x + row * operand().row_words) / 4u + index);
}
