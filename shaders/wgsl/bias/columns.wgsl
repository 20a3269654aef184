// What is added to the columns of queries, keys and values: a bias each.

@group(0) @binding(BIAS_BINDING) var<storage, read> bias_columns: array<f32>;

fn bias_add(column: u32, value: f32) -> f32 {
    return value + bias_columns[column];
}
