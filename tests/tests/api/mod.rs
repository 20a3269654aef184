//! The public API, as a stranger uses it.
