// Writes codes of one piece of 4 or 8 bits (codes/pieces) into a texture: their blocks are whole texels.
//
// Reads P0 and INTERLEAVE.
//#import core/operand
//#import core/texels
//#needs params

@group(0) @binding(2) var codes: texture_storage_2d<rgba32uint, write>;

const STORE_TEXELS: u32 = P0 / 4u;
const STORE_MASK: u32 = ((1u << P0) - 1u) * 0x01010101u;

// A block of 32 codes: words of four codes, one a byte.
fn store_block(row: u32, block: u32, bytes: array<u32, 8>) {
    //#unroll
    for (var unit = 0u; unit < STORE_TEXELS; unit++) {
        var words = vec4<u32>();
        //#unroll
        for (var w = 0u; w < 4u; w++) {
            //#unroll
            for (var i = 0u; i < 8u / P0; i++) {
                words[w] |= (bytes[(4u * unit + w) * (8u / P0) + i] & STORE_MASK) << (P0 * i);
            }
        }
        let texel = operand_address(params.output, 0u, P0, INTERLEAVE, row, STORE_TEXELS * block + unit) / 4u;
        textureStore(codes, texels_place(texel), words);
    }
}
