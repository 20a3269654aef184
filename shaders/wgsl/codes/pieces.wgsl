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

fn fmt_address(stream: u32, width: u32, major: u32, minor: u32, index: u32) -> u32 {
    return operand_unit(operand(), stream, width, INTERLEAVE, major, minor, index);
}

// The same of pieces of 4 and 8 bits, in vectors.
fn fmt_vector(width: u32, major: u32, minor: u32, index: u32) -> u32 {
    let units = operand().blocks * (width / 4u);
    return operand().pieces.x / 4u + (major * units + index) * INTERLEAVE + minor;
}

// Of row `minor` of the `major`th rows that alternate.
fn fmt_words(major: u32, minor: u32, block: u32) -> fmt_row_t {
    var words: fmt_row_t;
    if (P0 == 8u) {
        let at = fmt_vector(8u, major, minor, 2u * block);
        words.low = mem_codes(at);
        words.high = mem_codes(at + INTERLEAVE);
    } else if (P0 == 4u) {
        words.low = mem_codes(fmt_vector(4u, major, minor, block));
    } else if (P0 == 2u) {
        let pair = mem_pair(fmt_address(0u, 2u, major, minor, block));
        words.low.x = pair.x;
        words.low.y = pair.y;
    } else {
        words.low.x = mem_word(fmt_address(0u, 1u, major, minor, block));
    }
    if (P1 == 2u) {
        words.second = mem_pair(fmt_address(1u, 2u, major, minor, block));
    } else if (P1 == 1u) {
        words.second.x = mem_word(fmt_address(1u, 1u, major, minor, block));
    }
    if (P2 == 1u) {
        words.third = mem_word(fmt_address(2u, 1u, major, minor, block));
    }
    return words;
}

fn fmt_row(row: u32, block: u32) -> fmt_row_t {
    return fmt_words(row / INTERLEAVE, row % INTERLEAVE, block);
}

// The same for row r of four from `first` on, a multiple of four, where rows alternate in fours: r is a constant, and so
// are the distances between the four addresses.
fn fmt_row_of(first: u32, r: u32, block: u32) -> fmt_row_t {
    if (INTERLEAVE == 4u) {
        return fmt_words(first / 4u, r, block);
    }
    return fmt_row(first + r, block);
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
