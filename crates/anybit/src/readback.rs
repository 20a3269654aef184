//! Reading results back: a copy recorded by the caller, then a future that the caller awaits after the submit.

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};

use crate::context::Context;
use crate::error::{Error, Result};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::Poller;

/// A copy on its way to the host. Submit the encoder that recorded it, then call [`read`](Self::read).
#[derive(Debug)]
#[must_use = "the words are lost unless they are read"]
pub(crate) struct PendingWords {
    context: Context,
    staging: wgpu::Buffer,
    words: usize,
}

impl PendingWords {
    pub(crate) fn new(context: &Context, staging: wgpu::Buffer, words: usize) -> Self {
        Self {
            context: context.clone(),
            staging,
            words,
        }
    }

    /// The words, once the device has written them. Call it after the submit that holds the copy.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`] if the device is gone.
    pub(crate) async fn read(self) -> Result<Vec<u32>> {
        if self.words == 0 {
            return Ok(Vec::new());
        }
        let (sender, receiver) = oneshot_channel();
        // Until the device has answered, also where nobody waits for it any more.
        #[cfg(not(target_arch = "wasm32"))]
        let pending = self.context.inner.poller.pending();
        self.context.guard(|_| {
            self.staging
                .map_async(wgpu::MapMode::Read, .., move |result| {
                    #[cfg(not(target_arch = "wasm32"))]
                    drop(pending);
                    // The receiver may be gone: a read dropped half-way.
                    let _ = sender.send(result);
                });
        })?;
        #[cfg(not(target_arch = "wasm32"))]
        self.context.inner.poller.see_to_it();
        self.finish(&receiver).await
    }

    async fn finish(
        &self,
        receiver: &OneshotReceiver<Result<(), wgpu::BufferAsyncError>>,
    ) -> Result<Vec<u32>> {
        let lost = |reason: &str| Error::DeviceLost {
            reason: reason.to_string(),
        };
        match receiver.receive().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(lost(&error.to_string())),
            None => return Err(lost("the device dropped a pending read")),
        }
        let words = {
            let view = self
                .staging
                .get_mapped_range(..(self.words * 4) as u64)
                .map_err(|error| lost(&error.to_string()))?;
            view.chunks_exact(4)
                .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect()
        };
        self.staging.unmap();
        Ok(words)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
    use std::thread::{self, JoinHandle};

    /// Polls the device on a thread of its own while reads are pending. The thread starts with the first read, sleeps
    /// between reads and ends before the poller is gone: were it to let go of the device later, a program could end
    /// while its driver is still closing, which crashes some.
    pub(crate) struct Poller {
        shared: Arc<Shared>,
    }

    struct Shared {
        device: wgpu::Device,
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct State {
        pending: usize,
        external: bool,
        thread: Option<JoinHandle<()>>,
        closed: bool,
    }

    impl Shared {
        fn lock(&self) -> MutexGuard<'_, State> {
            // Plain counters and flags: whole after any panic.
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A read under way. The device holds it, so it must not hold the device.
    pub(crate) struct Pending {
        shared: Weak<Shared>,
    }

    impl Drop for Pending {
        fn drop(&mut self) {
            if let Some(shared) = self.shared.upgrade() {
                shared.lock().pending -= 1;
            }
        }
    }

    impl Poller {
        pub(crate) fn new(device: wgpu::Device) -> Self {
            Self {
                shared: Arc::new(Shared {
                    device,
                    state: Mutex::default(),
                    changed: Condvar::new(),
                }),
            }
        }

        pub(crate) fn set_external(&self, external: bool) {
            self.shared.lock().external = external;
            self.see_to_it();
        }

        /// Notes a read.
        pub(crate) fn pending(&self) -> Pending {
            self.shared.lock().pending += 1;
            Pending {
                shared: Arc::downgrade(&self.shared),
            }
        }

        /// Sees to it that somebody polls while reads are pending, unless the caller does.
        pub(crate) fn see_to_it(&self) {
            let mut state = self.shared.lock();
            if state.pending > 0 && state.thread.is_none() && !state.external {
                let shared = Arc::clone(&self.shared);
                state.thread = thread::Builder::new()
                    .name("anybit-poll".into())
                    .spawn(move || run(&shared))
                    .ok();
                if state.thread.is_none() {
                    // Where the system gives no thread, this one waits.
                    drop(state);
                    let _ = self.shared.device.poll(wgpu::PollType::wait_indefinitely());
                    return;
                }
            }
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    impl Drop for Poller {
        fn drop(&mut self) {
            let thread = {
                let mut state = self.shared.lock();
                state.closed = true;
                state.thread.take()
            };
            self.shared.changed.notify_one();
            // A callback of the caller may hold the last context, and runs on this very thread.
            if let Some(thread) =
                thread.filter(|thread| thread.thread().id() != thread::current().id())
            {
                // It does not panic; and if it did, there would be nothing left to do.
                let _ = thread.join();
            }
        }
    }

    fn run(shared: &Shared) {
        loop {
            let mut state = shared.lock();
            while !state.closed && (state.pending == 0 || state.external) {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            drop(state);
            // Of a lost device the map callback tells. Without a time-out: where one runs out while another thread submits,
            // wgpu-core 30 may find the queue empty before the index that it waited for, and panics. A closed poller so ends
            // with the work that was submitted, for which a device that is dropped waits anyway.
            let _ = shared.device.poll(wgpu::PollType::wait_indefinitely());
        }
    }
}
