// Tables of clusters of eight invocations in workgroup memory. Value `index` of all invocations lies side by side, so
// that the entries of one table are eight neighbouring words: four clusters read from 32 banks of their own, and whoever
// meets in a bank meets at the same word. Every invocation must take part.
//#needs lut_cells

struct tab_input {
    @builtin(local_invocation_index) local: u32,
}

fn tab_place(input: tab_input) -> u32 {
    return input.local;
}

// Before and after a table is shared.
fn tab_wait() {
    workgroupBarrier();
}

fn tab_share(index: u32, word: u32, input: tab_input) {
    lut_cells[index * WORKGROUP + input.local] = word;
}

// Value `index` of invocation `entry` of the cluster.
fn tab_look(index: u32, own: u32, entry: u32, input: tab_input) -> u32 {
    return lut_cells[index * WORKGROUP + (input.local & ~7u) + entry];
}
