// All rows of a batch of X meet all rows of the batch's W.
//#needs params Tile part_batch part_first_k part_end_k part_end_block

// Tiles run along M first, so that neighbouring workgroups share a tile of the weights.
// `part` counts the parts of K within batches.
fn rows_tile(index: u32, part: u32) -> Tile {
    let batch = part_batch(part);
    return Tile(
        index / params.tiles_m,
        (index % params.tiles_m) * TILE_M,
        0u,
        params.m,
        batch * params.activation.batch_rows,
        batch * params.weight.batch_rows,
        part * params.output_batch,
        part_first_k(part),
        part_end_k(part),
        part_end_block(part),
    );
}
