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

    /// Which run of so many items is the first that has a wrong one.
    pub(crate) fn first_run<T: Sync>(
        items: &[T],
        run: usize,
        has_wrong: impl Fn(&[T]) -> bool + Send + Sync,
    ) -> Option<usize> {
        if items.len() < WORTH_THREADS {
            items.chunks(run).position(has_wrong)
        } else {
            items.par_chunks(run).position_first(has_wrong)
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

    pub(crate) fn first_run<T>(
        items: &[T],
        run: usize,
        has_wrong: impl Fn(&[T]) -> bool,
    ) -> Option<usize> {
        items.chunks(run).position(has_wrong)
    }

    pub(crate) fn map_range<R>(count: usize, _items_each: usize, f: impl Fn(usize) -> R) -> Vec<R> {
        (0..count).map(f).collect()
    }
}

pub(crate) use implementation::{for_each_chunk_mut, map_chunks, map_range};

/// The place of the first item that is wrong, as almost never one is.
pub(crate) fn find<T: Sync>(
    items: &[T],
    is_wrong: impl Fn(&T) -> bool + Send + Sync,
) -> Option<usize> {
    const RUN: usize = 1 << 12;
    // Without an early end, which would keep the compiler from looking at several items at once.
    let has_wrong = |run: &[T]| run.iter().fold(false, |found, item| found | is_wrong(item));
    let start = implementation::first_run(items, RUN, has_wrong)? * RUN;
    let place = items.get(start..)?.iter().position(is_wrong)?;
    Some(start + place)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_first_wrong_item_is_found() {
        for len in [0, 1, 5000, 100_000] {
            let mut items = vec![0_u8; len];
            assert_eq!(find(&items, |&item| item != 0), None);
            for place in [99_999, 40_000, 4096, 4095, 1, 0] {
                if let Some(item) = items.get_mut(place) {
                    *item = 1;
                    assert_eq!(find(&items, |&item| item != 0), Some(place));
                }
            }
        }
    }
}
