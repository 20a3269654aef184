// What is added to the columns of queries, keys and values: nothing.

fn bias_add(column: u32, value: f32) -> f32 {
    return value;
}
