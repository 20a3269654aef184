// All of K in one part: what a workgroup adds up are outputs.
//#needs params

fn part_batch(index: u32) -> u32 {
    return index;
}

fn part_first_k(index: u32) -> u32 {
    return 0u;
}

fn part_end_k(index: u32) -> u32 {
    return params.k;
}

fn part_end_block(index: u32) -> u32 {
    return params.weight.blocks;
}
