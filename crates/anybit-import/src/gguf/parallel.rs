//! Two pieces of work at once where the `rayon` feature is on. Results are the same either way.

#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
pub(super) use rayon::join;

#[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
pub(super) fn join<A, B>(one: impl FnOnce() -> A, other: impl FnOnce() -> B) -> (A, B) {
    (one(), other())
}
