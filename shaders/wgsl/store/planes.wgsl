// Writes codes as bit planes (codes/planes).
//
// Reads BITS and INTERLEAVE.
//#import core/bytes
//#needs params

@group(0) @binding(2) var<storage, read_write> codes: array<u32>;

// A block of 32 codes: words of four codes, one a byte.
fn store_block(row: u32, block: u32, bytes: array<u32, 8>) {
    //#unroll
    for (var plane = 0u; plane < BITS; plane++) {
        var word = 0u;
        //#unroll
        for (var t = 0u; t < 8u; t++) {
            word |= ((bytes[t] >> plane) & BYTES_ONE) << t;
        }
        codes[params.output.pieces.x + plane * params.output.pieces.y
            + ((row / INTERLEAVE) * params.output.blocks + block) * INTERLEAVE + row % INTERLEAVE] = word;
    }
}
