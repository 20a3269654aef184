//! The GPU against the reference.

mod attention;
mod cache;
mod composites;
mod contracts;
mod decode;
mod exact;
mod experts;
mod l_mul;
mod limits;
mod model_mutation;
mod mutation;
mod nested;
mod outputs;
mod quantize;
mod residual;
mod rows_of_sources;
mod self_check;
mod sequence;
mod shapes;
mod split;
mod transfer;
mod tuning;
