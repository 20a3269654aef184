//! Parts of a list in parallel where the `rayon` feature is on. Results are the same either way.

/// Below so many items, handing work to other threads costs more than it saves.
#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
const WORTH_THREADS: usize = 1 << 15;

/// Calls `work` with the number and the items of each part of `chunk` items; the last may be shorter.
#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
pub(crate) fn for_each_chunk_mut<T: Send>(
    items: &mut [T],
    chunk: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    use rayon::prelude::*;

    let chunk = chunk.max(1);
    if items.len() < WORTH_THREADS {
        items
            .chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, items)| work(index, items));
    } else {
        items
            .par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, items)| work(index, items));
    }
}

/// Calls `work` with the number and the items of each part of `chunk` items; the last may be shorter.
#[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
pub(crate) fn for_each_chunk_mut<T>(items: &mut [T], chunk: usize, work: impl Fn(usize, &mut [T])) {
    items
        .chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(index, items)| work(index, items));
}
