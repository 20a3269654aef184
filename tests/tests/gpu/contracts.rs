//! f32 outputs lie within the bounds of the error model.
