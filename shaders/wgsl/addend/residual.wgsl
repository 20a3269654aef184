// What is added to a row kernel's values: the row of a residual stream.
//#needs params

@group(0) @binding(ADD_BINDING) var<storage, read> add_rows: array<vec4<f32>>;

fn add_values(row: u32, i: u32, values: vec4<f32>) -> vec4<f32> {
    return values + add_rows[row * params.residual_row / 4u + i];
}
