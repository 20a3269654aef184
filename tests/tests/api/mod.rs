//! The public API, as a stranger uses it.

mod errors;
mod lost;
mod nested;
mod stranger;
