// Tables of clusters of eight lanes in their registers, read by shuffles. The smallest subgroup has eight lanes or more;
// which invocation is which lane is read, never assumed.

struct tab_input {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

fn tab_place(input: tab_input) -> u32 {
    return input.subgroup * input.size + input.lane;
}

fn tab_wait() {
}

fn tab_share(index: u32, word: u32, input: tab_input) {
}

// Value `index` of lane `entry` of the cluster, `own` being that of this one.
fn tab_look(index: u32, own: u32, entry: u32, input: tab_input) -> u32 {
    return subgroupShuffle(own, (input.lane & ~7u) | entry);
}
