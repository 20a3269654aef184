//! Chunks of a slice, in parallel where the `rayon` feature is on. Results are the same either way.

#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
mod implementation {
    use rayon::prelude::*;

    /// Below so many items, handing work to other threads costs more than it saves.
    const WORTH_THREADS: usize = 1 << 15;

    pub(crate) fn for_each_chunk_mut<T: Send>(
        items: &mut [T],
        chunk: usize,
        f: impl Fn(usize, &mut [T]) + Send + Sync,
    ) {
        if chunk == 0 {
            return;
        }
        if items.len() < WORTH_THREADS {
            items
                .chunks_mut(chunk)
                .enumerate()
                .for_each(|(index, chunk)| f(index, chunk));
        } else {
            items
                .par_chunks_mut(chunk)
                .enumerate()
                .for_each(|(index, chunk)| f(index, chunk));
        }
    }

    pub(crate) fn map_chunks<T: Sync, R: Send>(
        items: &[T],
        chunk: usize,
        f: impl Fn(&[T]) -> R + Send + Sync,
    ) -> Vec<R> {
        if chunk == 0 {
            return Vec::new();
        }
        if items.len() < WORTH_THREADS {
            items.chunks(chunk).map(f).collect()
        } else {
            items.par_chunks(chunk).map(f).collect()
        }
    }

    /// Maps `0..count`, in parallel if each call handles many items.
    pub(crate) fn map_range<R: Send>(
        count: usize,
        items_each: usize,
        f: impl Fn(usize) -> R + Send + Sync,
    ) -> Vec<R> {
        if items_each < WORTH_THREADS {
            (0..count).map(f).collect()
        } else {
            (0..count).into_par_iter().map(f).collect()
        }
    }
}

#[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
mod implementation {
    pub(crate) fn for_each_chunk_mut<T>(
        items: &mut [T],
        chunk: usize,
        f: impl Fn(usize, &mut [T]),
    ) {
        if chunk != 0 {
            items
                .chunks_mut(chunk)
                .enumerate()
                .for_each(|(index, chunk)| f(index, chunk));
        }
    }

    pub(crate) fn map_chunks<T, R>(items: &[T], chunk: usize, f: impl Fn(&[T]) -> R) -> Vec<R> {
        if chunk == 0 {
            Vec::new()
        } else {
            items.chunks(chunk).map(f).collect()
        }
    }

    pub(crate) fn map_range<R>(count: usize, _items_each: usize, f: impl Fn(usize) -> R) -> Vec<R> {
        (0..count).map(f).collect()
    }
}

pub(crate) use implementation::{for_each_chunk_mut, map_chunks, map_range};
