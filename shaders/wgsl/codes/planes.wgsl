// Codes of 1 to 8 bits, stored as bit planes.
//
// Reads BITS and INTERLEAVE. Bit 8 * (c % 4) + c / 4 of a plane's word belongs to code c of the block.
//#import core/bytes
//#import core/operand
//#needs mem_word operand

const FMT_STEP: u32 = 32u;

// A word a plane.
alias fmt_row_t = array<u32, BITS>;

fn fmt_plane_address(plane: u32, row: u32, block: u32) -> u32 {
    return operand().pieces.x + plane * operand().pieces.y
        + ((row / INTERLEAVE) * operand().blocks + block) * INTERLEAVE + row % INTERLEAVE;
}

fn fmt_plane(plane: u32, row: u32, block: u32) -> u32 {
    return mem_word(fmt_plane_address(plane, row, block));
}

fn fmt_row(row: u32, block: u32) -> fmt_row_t {
    var words: fmt_row_t;
    //#unroll
    for (var plane = 0u; plane < BITS; plane++) {
        words[plane] = fmt_plane(plane, row, block);
    }
    return words;
}

fn fmt_bytes(words: fmt_row_t, t: u32) -> u32 {
    var bytes = 0u;
    //#unroll
    for (var plane = 0u; plane < BITS; plane++) {
        bytes |= ((words[plane] >> t) & BYTES_ONE) << plane;
    }
    return bytes;
}
