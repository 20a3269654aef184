// All rows of a batch of X meet all rows of the batch's W.
//#needs params Tile

// Tiles run along M first, so that neighbouring workgroups share a tile of the weights.
fn rows_tile(index: u32, batch: u32) -> Tile {
    return Tile(
        index / params.tiles_m,
        (index % params.tiles_m) * TILE_M,
        0u,
        params.m,
        batch * params.activation.batch_rows,
        batch * params.weight.batch_rows,
        batch * params.output_batch,
    );
}
