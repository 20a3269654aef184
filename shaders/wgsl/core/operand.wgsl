// Where one operand's streams lie. Offsets are in words; codes and side data have their own offsets.

struct Operand {
    // First word of each piece's stream. A plane layout uses x for the first plane, y for the distance to the
    // next and z for a carry plane.
    pieces: vec4<u32>,
    // Rows of the whole, batched matrix.
    rows: u32,
    // Rows from one batch to the next; 0 broadcasts one matrix over all batches.
    batch_rows: u32,
    // Words from one row to the next, of the float formats.
    row_words: u32,
    // Blocks of 32 codes a row.
    blocks: u32,
    // First word of the scales, of the zero points or minima, and of the sums.
    scales: u32,
    zeros: u32,
    sums: u32,
    // Scale groups a row; 0 when one scale serves the whole matrix.
    groups: u32,
    // An integer value is multiplier * code + offset (before its zero point).
    multiplier: i32,
    offset: i32,
    // The code that dot4 maps to the signed byte 0.
    centre: i32,
    // Of minifloats: bits of the mantissa; the least magnitude that is infinite or NaN, and 1 if it is infinite.
    mantissa: u32,
    special: u32,
    infinite: u32,
    // First word of the second level of the scales and of the minima, and its entries a row.
    second: u32,
    second_minima: u32,
    second_groups: u32,
    // Of codebooks: first word of a table of 256 values in the side data; the code whose value the group chooses, the
    // values it chooses from; and the values of up to 16 codes.
    table_words: u32,
    choice_code: u32,
    // 2^lift, which makes integers of the values.
    lift: f32,
    choices: vec4<f32>,
    table: array<vec4<f32>, 4>,
}

// Word of unit `index` of a row in the stream of pieces of `width` bits; rows alternate in groups of `interleave`.
fn operand_address(operand: Operand, stream: u32, width: u32, interleave: u32, row: u32, index: u32) -> u32 {
    return operand_unit(operand, stream, width, interleave, row / interleave, row % interleave, index);
}

// The same of row `minor` of the `major`th group.
fn operand_unit(
    operand: Operand, stream: u32, width: u32, interleave: u32, major: u32, minor: u32, index: u32,
) -> u32 {
    let unit = min(width, 4u);
    let units = operand.blocks * (width / unit);
    return operand.pieces[stream] + ((major * units + index) * interleave + minor) * unit;
}

// Entry of a row's group in a side section of `groups` entries a row.
fn operand_side(groups: u32, interleave: u32, row: u32, group: u32) -> u32 {
    return ((row / interleave) * groups + group) * interleave + row % interleave;
}
