// Codes of 1 to 8 bits, stored as power-of-two pieces.
//
// Reads P0, P1, P2: the widths of the pieces, low bits first, 0 where there is none; INTERLEAVE: rows that alternate in
// the streams. Padding has code 0.
//#import core/operand
//#needs mem_codes mem_word mem_pair operand

// Codes that one fmt_row brings.
const FMT_STEP: u32 = 32u;
const FMT_MASK_0: u32 = ((1u << P0) - 1u) * 0x01010101u;
const FMT_MASK_1: u32 = ((1u << P1) - 1u) * 0x01010101u;
const FMT_MASK_2: u32 = ((1u << P2) - 1u) * 0x01010101u;

// The words of 32 codes of one row.
struct fmt_row_t {
    low: vec4<u32>,
    high: vec4<u32>,
    second: vec2<u32>,
    third: u32,
}

fn fmt_address(stream: u32, width: u32, row: u32, index: u32) -> u32 {
    return operand_address(operand(), stream, width, INTERLEAVE, row, index);
}

fn fmt_row(row: u32, block: u32) -> fmt_row_t {
    var words: fmt_row_t;
    if (P0 == 8u) {
        let at = fmt_address(0u, 8u, row, 2u * block) / 4u;
        words.low = mem_codes(at);
        words.high = mem_codes(at + INTERLEAVE);
    } else if (P0 == 4u) {
        words.low = mem_codes(fmt_address(0u, 4u, row, block) / 4u);
    } else if (P0 == 2u) {
        let pair = mem_pair(fmt_address(0u, 2u, row, block));
        words.low.x = pair.x;
        words.low.y = pair.y;
    } else {
        words.low.x = mem_word(fmt_address(0u, 1u, row, block));
    }
    if (P1 == 2u) {
        words.second = mem_pair(fmt_address(1u, 2u, row, block));
    } else if (P1 == 1u) {
        words.second.x = mem_word(fmt_address(1u, 1u, row, block));
    }
    if (P2 == 1u) {
        words.third = mem_word(fmt_address(2u, 1u, row, block));
    }
    return words;
}

// Codes 4t .. 4t + 3, one a byte.
fn fmt_bytes(words: fmt_row_t, t: u32) -> u32 {
    if (P0 == 8u) {
        return select(words.high[t % 4u], words.low[t % 4u], t < 4u);
    }
    var bytes = (words.low[t * P0 / 8u] >> (t * P0 % 8u)) & FMT_MASK_0;
    if (P1 != 0u) {
        bytes |= ((words.second[t * P1 / 8u] >> (t * P1 % 8u)) & FMT_MASK_1) << P0;
    }
    if (P2 != 0u) {
        bytes |= ((words.third >> t) & FMT_MASK_2) << (P0 + P1);
    }
    return bytes;
}
