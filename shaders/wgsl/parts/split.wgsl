// K in params.parts parts, each the work of other workgroups: whole steps of PART_STEP columns, shared out as evenly as they
// go, but that the last part may end within a step. The host makes no more parts than there are steps, so none is empty.
// What a workgroup adds up is stored by batch and part, for add_parts.
//#needs params

// Where a part begins, and the one before it ends.
fn part_begin(part: u32) -> u32 {
    let steps = (params.k + PART_STEP - 1u) / PART_STEP;
    return part * steps / params.parts * PART_STEP;
}

fn part_batch(index: u32) -> u32 {
    return index / params.parts;
}

fn part_first_k(index: u32) -> u32 {
    return part_begin(index % params.parts);
}

fn part_end_k(index: u32) -> u32 {
    return min(part_begin(index % params.parts + 1u), params.k);
}

// Steps are whole blocks.
fn part_end_block(index: u32) -> u32 {
    return min(part_begin(index % params.parts + 1u) / 32u, params.weight.blocks);
}
