// Operands of the bitplane engine: words of one bit of 32 codes.
//#import core/gemm

// Plane words of four neighbouring rows; rows alternate in fours in the streams.
fn bitplane_activation(plane: u32, quad: u32, block: u32) -> vec4<u32> {
    let operand = params.activation;
    return a_codes[(operand.pieces.x + plane * operand.pieces.y) / 4u + quad * operand.blocks + block];
}

fn bitplane_weight(plane: u32, quad: u32, block: u32) -> vec4<u32> {
    let operand = params.weight;
    return w_codes[(operand.pieces.x + plane * operand.pieces.y) / 4u + quad * operand.blocks + block];
}

// The bits of a word that belong to span s of a block.
fn bitplane_mask(s: u32) -> u32 {
    if (SPAN == 16u) {
        return 0x0f0f0f0fu << (4u * s);
    }
    return 0xffffffffu;
}
