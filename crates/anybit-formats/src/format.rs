//! The families of element formats, one file each.

pub(crate) mod affine;
pub(crate) mod codebook;
pub(crate) mod float;
pub(crate) mod minifloat;
pub(crate) mod scale_codes;
