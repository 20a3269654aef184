// Writes codes as pieces (codes/pieces).
//
// Reads P0, P1, P2 and INTERLEAVE.
//#import core/operand
//#needs params

@group(0) @binding(2) var<storage, read_write> codes: array<u32>;

const STORE_MASK_0: u32 = ((1u << P0) - 1u) * 0x01010101u;
const STORE_MASK_1: u32 = ((1u << P1) - 1u) * 0x01010101u;
const STORE_MASK_2: u32 = ((1u << P2) - 1u) * 0x01010101u;

// A block of 32 codes: words of four codes, one a byte.
fn store_block(row: u32, block: u32, bytes: array<u32, 8>) {
    //#unroll
    for (var w = 0u; w < P0; w++) {
        var word = 0u;
        //#unroll
        for (var i = 0u; i < 8u / P0; i++) {
            word |= (bytes[w * (8u / P0) + i] & STORE_MASK_0) << (P0 * i);
        }
        let unit = w / 4u;
        let units = max(P0 / 4u, 1u);
        codes[operand_address(params.output, 0u, P0, INTERLEAVE, row, units * block + unit) + w % 4u] = word;
    }
    //#unroll
    for (var w = 0u; w < P1; w++) {
        var word = 0u;
        //#unroll
        for (var i = 0u; i < 8u / P1; i++) {
            word |= ((bytes[w * (8u / P1) + i] >> P0) & STORE_MASK_1) << (P1 * i);
        }
        codes[operand_address(params.output, 1u, P1, INTERLEAVE, row, block) + w] = word;
    }
    //#unroll
    for (var w = 0u; w < P2; w++) {
        var word = 0u;
        //#unroll
        for (var i = 0u; i < 8u; i++) {
            word |= ((bytes[i] >> (P0 + P1)) & STORE_MASK_2) << i;
        }
        codes[operand_address(params.output, 2u, P2, INTERLEAVE, row, block) + w] = word;
    }
}
