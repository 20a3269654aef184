//! The reference kernels against exact arithmetic: the twins stay inside the bounds that GPUs are held to.
