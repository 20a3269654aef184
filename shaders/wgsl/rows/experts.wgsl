// The rows of X are sorted by expert, and each expert's rows meet its own rows of W, of which W holds w_operand().batch_rows an
// expert and a dispatch takes params.n. A table has the first row of
// each expert and the end of the last; whoever wrote it, no row past M is read or written, and every search ends.
//
// An expert's tiles begin at its first row, or before it, at a multiple of A_INTERLEAVE, where rows are read that many at a
// time. How many tiles each needs is not known on the host, so the grid has places for the worst case: expert e owns those
// from start(e) / TILE_M + e on, which are as many as it can need, or, where there are fewer rows than such places, a
// place for every row. Both grow with e, so a workgroup finds its expert by bisection. It leaves if its place is not used.
//
// Reads ROWS_BINDING.
//#needs params Tile part_first_k part_end_k part_end_block

@group(0) @binding(ROWS_BINDING) var<storage, read> rows_starts: array<u32>;

fn rows_start(expert: u32) -> u32 {
    return min(rows_starts[expert], params.m);
}

// Whether each row has a place; the host counts the places by the same rule.
fn rows_single() -> bool {
    return params.m < params.m / TILE_M + params.experts;
}

// The first place of an expert.
fn rows_place(expert: u32) -> u32 {
    if (rows_single()) {
        return rows_start(expert);
    }
    return rows_start(expert) / TILE_M + expert;
}

// Places run along M first, so that neighbouring workgroups share a tile of the weights.
fn rows_tile(index: u32, part: u32) -> Tile {
    let place = index % params.tiles_m;
    // The last expert whose first place is this one or before it.
    var expert = 0u;
    var above = params.experts;
    while (above - expert > 1u) {
        let middle = (expert + above) / 2u;
        if (rows_place(middle) <= place) {
            expert = middle;
        } else {
            above = middle;
        }
    }
    let begin = rows_start(expert);
    let end = rows_start(expert + 1u);
    let first = begin - begin % A_INTERLEAVE;
    // Tiles are counted before rows are, which could pass a u32.
    var tile = (place - first) / TILE_M;
    var used = place >= begin && place < end;
    if (rows_single()) {
        used = used && place == max(begin, first + tile * TILE_M);
    } else {
        tile = place - rows_place(expert);
        used = place >= rows_place(expert) && begin < end && tile <= (end - 1u - first) / TILE_M;
    }
    return Tile(
        select(params.tiles_n, index / params.tiles_m, used),
        first + tile * TILE_M,
        begin,
        end,
        0u,
        expert * params.weight.batch_rows,
        0u,
        part_first_k(part),
        part_end_k(part),
        part_end_block(part),
    );
}
