// Operands of the bitplane engine: words of one bit of 32 codes.
//
// Reads W_CARRY: 1 where a carry plane follows the planes of the weights, a second bit of weight 1. So plane p has the
// weight 2^(p % W_BITS).
//#import core/gemm

// Planes that a weight is read from.
const W_PLANES: u32 = W_BITS + W_CARRY;

// Plane words of four neighbouring rows; rows alternate in fours in the streams.
fn bitplane_activation(plane: u32, quad: u32, block: u32) -> vec4<u32> {
    let operand = params.activation;
    return a_mem_codes((operand.pieces.x + plane * operand.pieces.y) / 4u + quad * operand.blocks + block);
}

fn bitplane_weight(plane: u32, quad: u32, block: u32) -> vec4<u32> {
    let operand = params.weight;
    var start = operand.pieces.x + plane * operand.pieces.y;
    if (W_CARRY == 1u && plane == W_BITS) {
        start = operand.pieces.z;
    }
    return w_mem_codes(start / 4u + quad * operand.blocks + block);
}

// Where two plane words have a product of 1.
fn bitplane_product(w: u32, x: u32, s: u32) -> u32 {
    if (BIPOLAR) {
        return ~(w ^ x) & bitplane_mask(s);
    }
    return w & x;
}

// The bits of a word that belong to span s of a block.
fn bitplane_mask(s: u32) -> u32 {
    if (SPAN == 16u) {
        return 0x0f0f0f0fu << (4u * s);
    }
    return 0xffffffffu;
}
