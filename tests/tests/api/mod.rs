//! The public API, as a stranger uses it.

mod errors;
mod faults;
mod host;
mod lost;
mod model_errors;
mod nested;
mod stranger;
