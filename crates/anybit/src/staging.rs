//! Uploads: words made straight in memory that the device copies from, a few chunks of it in turn.
//!
//! wgpu's own way, `write_buffer`, takes new memory for each write and keeps it until some later submit is done, so that a model
//! would be in memory twice until its first token. Large matrices therefore go through chunks of this module, each submitted
//! as soon as it is full and used again when the device has copied it.

use anybit_formats::DeviceRows;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::matrix::STAGED;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::Staging;

/// Words that are made at a time, in memory of their own that the nearest cache holds.
const STRETCH: usize = 1 << 13;

/// What is uploaded.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// Words that are made as they are needed.
    Codes(&'a DeviceRows<'a>),
    Words(&'a [u32]),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Codes(rows) => rows.sections().codes_words,
            Self::Words(words) => words.len(),
        }
    }

    /// Writes its words from `first` on, on several threads where that is worth it.
    fn write(&self, first: usize, target: wgpu::WriteOnly<'_, [u8]>) {
        let (stretches, rest) = target.into_chunks::<{ 4 * STRETCH }>();
        let last = first + stretches.len() * STRETCH;
        // Of WriteOnly, those of a fixed size may go to other threads.
        let stretches: Vec<_> = stretches.into_iter().enumerate().collect();
        each(stretches, |(index, stretch)| {
            self.write_stretch(first + index * STRETCH, stretch.into());
        });
        self.write_stretch(last, rest);
    }

    fn write_stretch(&self, first: usize, mut target: wgpu::WriteOnly<'_, [u8]>) {
        let range = first..first + target.len() / 4;
        let stored = match self {
            Self::Codes(rows) => rows.stored_codes(range.clone()),
            Self::Words(words) => words.get(range.clone()),
        };
        let mut made = [0; STRETCH];
        let words = match (stored, self) {
            (Some(words), _) if cfg!(target_endian = "little") => words,
            (stored, source) => {
                let made = &mut made[..range.len()];
                match (stored, source) {
                    (None, Self::Codes(rows)) => rows.fill_codes(first, made),
                    (stored, _) => made.copy_from_slice(stored.unwrap_or_default()),
                }
                for word in &mut *made {
                    *word = word.to_le();
                }
                made
            }
        };
        target.copy_from_slice(bytemuck::cast_slice(words));
    }
}

#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
fn each<T: Send>(items: Vec<T>, f: impl Fn(T) + Send + Sync) {
    use rayon::prelude::*;

    /// Below so many stretches, handing work to other threads costs more than it saves.
    const WORTH_THREADS: usize = 16;
    if items.len() < WORTH_THREADS {
        items.into_iter().for_each(f);
    } else {
        items.into_par_iter().for_each(f);
    }
}

#[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
fn each<T>(items: Vec<T>, f: impl Fn(T)) {
    items.into_iter().for_each(f);
}

impl Context {
    /// Uploads rows of a matrix: codes and side data to these places of a buffer.
    pub(crate) fn upload_rows(
        &self,
        rows: &DeviceRows<'_>,
        buffer: &wgpu::Buffer,
        [codes, side]: [u64; 2],
    ) -> Result<()> {
        let side_words = rows.side();
        let sources = [
            (Source::Codes(rows), codes),
            (Source::Words(&side_words), side),
        ];
        #[cfg(not(target_arch = "wasm32"))]
        let words = sources.iter().map(|(source, _)| source.len()).sum();
        #[cfg(not(target_arch = "wasm32"))]
        if native::is_worth_staging(self, words) {
            return self.stage(&sources, buffer);
        }
        for (source, offset) in sources {
            self.write_source(source, buffer, offset)?;
        }
        Ok(())
    }

    /// Uploads a source with the next submit.
    fn write_source(&self, source: Source<'_>, buffer: &wgpu::Buffer, offset: u64) -> Result<()> {
        let Some(bytes) = wgpu::BufferSize::new(4 * source.len() as u64) else {
            return Ok(());
        };
        let queue = &self.inner.queue;
        let view = self.guard_memory(STAGED, bytes.get(), |_| {
            queue.write_buffer_with(buffer, offset, bytes)
        })?;
        let mut view = view.ok_or_else(|| Error::DeviceLost {
            reason: "it gave no memory to write to".into(),
        })?;
        // Outside of error scopes: while a thread waits for others it may do other work of the application.
        source.write(0, view.slice(..));
        self.guard(|_| drop(view))?;
        #[cfg(not(target_arch = "wasm32"))]
        if self.inner.staging.note_write(bytes.get()) {
            self.guard(|_| queue.submit([]))?;
        }
        Ok(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use super::Source;
    use crate::context::Context;
    use crate::error::{Error, Result};
    use crate::readback::poll;

    /// Words of a chunk: 4 MiB.
    const CHUNK: usize = 1 << 20;
    /// Chunks, unless more uploads than that are under way at once.
    const CHUNKS: usize = 4;
    /// Words from which on an upload goes through the chunks.
    const LEAST: usize = CHUNK / 4;
    /// Bytes of smaller uploads after which they are submitted, so that wgpu can hand their memory back.
    const UNSUBMITTED: u64 = 4 * (CHUNK * CHUNKS) as u64;
    /// How long a chunk may take to come back when the device is done with it already.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Whether an upload of so many words goes through the chunks.
    pub(super) fn is_worth_staging(context: &Context, words: usize) -> bool {
        words >= LEAST && context.inner.caps.max_buffer >= 4 * CHUNK as u64
    }

    /// The chunks that the device copies from.
    #[derive(Debug, Default)]
    pub(crate) struct Staging {
        state: Mutex<State>,
        unsubmitted: AtomicU64,
    }

    #[derive(Debug, Default)]
    struct State {
        /// Chunks on their way back, oldest first.
        used: VecDeque<Used>,
        /// Chunks that there are, those in the hands of uploads included.
        count: usize,
    }

    #[derive(Debug)]
    struct Used {
        buffer: wgpu::Buffer,
        submission: wgpu::SubmissionIndex,
        mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    }

    /// A chunk in the hands of an upload. If it is dropped, there is one less.
    struct Taken<'a> {
        staging: &'a Staging,
        buffer: Option<wgpu::Buffer>,
    }

    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            if self.buffer.is_some() {
                self.staging.lock().count -= 1;
            }
        }
    }

    impl Staging {
        fn lock(&self) -> MutexGuard<'_, State> {
            // Nothing in here panics half-way.
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Notes bytes that wait for a submit; tells whether it is time for one.
        pub(super) fn note_write(&self, bytes: u64) -> bool {
            let waiting = self.unsubmitted.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if waiting >= UNSUBMITTED {
                self.unsubmitted.store(0, Ordering::Relaxed);
            }
            waiting >= UNSUBMITTED
        }

        /// A chunk to write to: one that is back, a new one, or, if there are enough, the next to come back.
        fn take(&self, context: &Context) -> Result<Taken<'_>> {
            let device = &context.inner.device;
            poll(device, wgpu::PollType::Poll)
                .map_err(|reason| Error::DeviceLost { reason })?
                .ok();
            let mut state = self.lock();
            let returned = match state.used.front().map(|used| used.mapped.try_recv()) {
                Some(Ok(result)) => {
                    let used = state.used.pop_front();
                    used.map(|used| (used, Some(result)))
                }
                _ if state.count >= CHUNKS => state.used.pop_front().map(|used| (used, None)),
                _ => None,
            };
            if returned.is_none() {
                state.count += 1;
            }
            // Nothing is waited for with the lock held: a thread that waits may be one that another upload needs.
            drop(state);
            let mut taken = Taken {
                staging: self,
                buffer: None,
            };
            let Some((used, result)) = returned else {
                let buffer = context.mapped_buffer("staging memory", 4 * CHUNK as u64);
                if buffer.is_err() {
                    self.lock().count -= 1;
                }
                taken.buffer = Some(buffer?);
                return Ok(taken);
            };
            taken.buffer = Some(used.buffer);
            let lost = |reason: String| Error::DeviceLost { reason };
            let result = match result {
                Some(result) => result,
                None => {
                    let wait = wgpu::PollType::Wait {
                        submission_index: Some(used.submission),
                        timeout: None,
                    };
                    poll(device, wait)
                        .map_err(lost)?
                        .map_err(|error| lost(error.to_string()))?;
                    used.mapped
                        .recv_timeout(PATIENCE)
                        .map_err(|error| lost(error.to_string()))?
                }
            };
            result.map_err(|error| lost(error.to_string()))?;
            Ok(taken)
        }

        /// Takes a chunk back that the device copies from.
        fn give(&self, used: Used) {
            let mut state = self.lock();
            if state.count <= CHUNKS {
                state.used.push_back(used);
            } else {
                state.count -= 1;
            }
        }
    }

    impl Context {
        /// Uploads sources to their places of a buffer through the chunks, as many as fit in each.
        pub(super) fn stage(
            &self,
            sources: &[(Source<'_>, u64)],
            buffer: &wgpu::Buffer,
        ) -> Result<()> {
            // The source that is under way, and its next word.
            let (mut index, mut first) = (0, 0);
            while index < sources.len() {
                let mut taken = self.inner.staging.take(self)?;
                let Some(chunk) = taken.buffer.clone() else {
                    return Ok(());
                };
                let view = chunk.get_mapped_range_mut(..);
                let mut view = view.map_err(|error| Error::DeviceLost {
                    reason: error.to_string(),
                })?;
                let (mut copies, mut place) = (Vec::new(), 0);
                while let Some((source, offset)) = sources.get(index).filter(|_| place < CHUNK) {
                    let words = (source.len() - first).min(CHUNK - place);
                    // Outside of error scopes and locks: while a thread waits for others it may do other work of the application.
                    source.write(first, view.slice(4 * place..4 * (place + words)));
                    let bytes = |words: usize| 4 * words as u64;
                    copies.push((bytes(place), offset + bytes(first), bytes(words)));
                    place += words;
                    first += words;
                    if first == source.len() {
                        (index, first) = (index + 1, 0);
                    }
                }
                drop(view);
                let used = self.guard(|device| {
                    chunk.unmap();
                    let mut encoder = device.create_command_encoder(&Default::default());
                    for &(place, target, bytes) in &copies {
                        encoder.copy_buffer_to_buffer(&chunk, place, buffer, target, bytes);
                    }
                    let submission = self.inner.queue.submit([encoder.finish()]);
                    let (sender, mapped) = channel();
                    chunk.map_async(wgpu::MapMode::Write, .., move |result| {
                        // The chunk may be one too many.
                        let _ = sender.send(result);
                    });
                    Used {
                        buffer: chunk.clone(),
                        submission,
                        mapped,
                    }
                })?;
                taken.buffer = None;
                self.inner.staging.give(used);
            }
            Ok(())
        }
    }
}
