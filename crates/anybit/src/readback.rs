//! Reading results back: a copy recorded by the caller, then a future that the caller awaits after the submit.

use std::sync::Arc;

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};

use crate::context::Context;
use crate::error::{Error, Result};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::Poller;

#[cfg(target_arch = "wasm32")]
pub(crate) struct Poller;

#[cfg(target_arch = "wasm32")]
impl Poller {
    pub(crate) fn new(_device: wgpu::Device) -> Self {
        Self
    }
}

/// A copy on its way to the host. Submit the encoder that recorded it, then call [`read`](Self::read).
#[derive(Debug)]
#[must_use = "the words are lost unless they are read"]
pub struct PendingRead {
    context: Context,
    staging: wgpu::Buffer,
    words: usize,
}

impl PendingRead {
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
    pub async fn read(self) -> Result<Vec<u32>> {
        if self.words == 0 {
            return Ok(Vec::new());
        }
        let (sender, receiver) = oneshot_channel();
        self.staging
            .map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver may be gone: a read dropped half-way.
                let _ = sender.send(result);
            });
        #[cfg(not(target_arch = "wasm32"))]
        let _pending = self.context.inner.poller.pending();
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

    /// As [`read`](Self::read), waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`] if the device is gone.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(self) -> Result<Vec<u32>> {
        pollster::block_on(self.read())
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex, PoisonError, Weak};
    use std::time::Duration;

    use super::Arc;

    /// Polls the device on a thread of its own while reads are pending, and sleeps otherwise.
    pub(crate) struct Poller {
        state: Arc<State>,
    }

    struct State {
        device: wgpu::Device,
        pending: AtomicUsize,
        external: AtomicBool,
        running: Mutex<bool>,
        wake: Condvar,
    }

    /// A read under way.
    pub(crate) struct Pending {
        state: Arc<State>,
    }

    impl Drop for Pending {
        fn drop(&mut self) {
            self.state.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How long one poll may wait: short enough that a dropped context ends its thread soon.
    const WAIT: Duration = Duration::from_millis(100);

    impl Poller {
        pub(crate) fn new(device: wgpu::Device) -> Self {
            Self {
                state: Arc::new(State {
                    device,
                    pending: AtomicUsize::new(0),
                    external: AtomicBool::new(false),
                    running: Mutex::new(false),
                    wake: Condvar::new(),
                }),
            }
        }

        pub(crate) fn set_external(&self, external: bool) {
            self.state.external.store(external, Ordering::Release);
        }

        /// Notes a read, and sees to it that somebody polls.
        pub(crate) fn pending(&self) -> Pending {
            self.state.pending.fetch_add(1, Ordering::AcqRel);
            if !self.state.external.load(Ordering::Acquire) {
                let mut running = self
                    .state
                    .running
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if *running {
                    self.state.wake.notify_one();
                } else {
                    let weak = Arc::downgrade(&self.state);
                    *running = std::thread::Builder::new()
                        .name("anybit-poll".into())
                        .spawn(move || run(&weak))
                        .is_ok();
                }
            }
            Pending {
                state: Arc::clone(&self.state),
            }
        }
    }

    impl Drop for Poller {
        fn drop(&mut self) {
            self.state.wake.notify_one();
        }
    }

    fn run(state: &Weak<State>) {
        while let Some(state) = state.upgrade() {
            if state.pending.load(Ordering::Acquire) > 0 {
                // A time-out is no failure, and of a lost device the map callback tells.
                let _ = state.device.poll(wgpu::PollType::Wait {
                    submission_index: None,
                    timeout: Some(WAIT),
                });
            } else {
                let running = state.running.lock().unwrap_or_else(PoisonError::into_inner);
                // Spurious wakes only check again.
                drop(state.wake.wait_timeout(running, WAIT));
            }
        }
    }
}
