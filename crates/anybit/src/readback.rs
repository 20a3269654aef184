//! Reading results back: a copy recorded by the caller, then a future that the caller awaits after the submit.

#[cfg(not(target_arch = "wasm32"))]
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_intrusive::channel::shared::{OneshotReceiver, OneshotSender, oneshot_channel};

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
        let pending = self.context.inner.poller.pending(sender);
        #[cfg(target_arch = "wasm32")]
        let pending = Pending { sender };
        self.context.guard(|_| {
            self.staging
                .map_async(wgpu::MapMode::Read, .., move |result| {
                    pending.answer(result.map_err(|error| error.to_string()));
                });
        })?;
        #[cfg(not(target_arch = "wasm32"))]
        self.context.inner.poller.see_to_it();
        self.finish(&receiver).await
    }

    async fn finish(&self, receiver: &OneshotReceiver<Answer>) -> Result<Vec<u32>> {
        let lost = |reason: &str| Error::DeviceLost {
            reason: reason.to_string(),
        };
        match receiver.receive().await {
            Some(Ok(())) => {}
            Some(Err(reason)) => return Err(lost(&reason)),
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

/// What becomes of a read, or why nothing does.
type Answer = Result<(), String>;

/// A read under way.
#[cfg(target_arch = "wasm32")]
struct Pending {
    sender: OneshotSender<Answer>,
}

#[cfg(target_arch = "wasm32")]
impl Pending {
    fn answer(self, answer: Answer) {
        // The receiver may be gone: a read dropped half-way.
        let _ = self.sender.send(answer);
    }
}

/// Polls a device. Of one that a driver has lost, wgpu 30 panics: see [`unwound`].
///
/// # Errors
///
/// Why the device is lost.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn poll(
    device: &wgpu::Device,
    wait: wgpu::PollType,
) -> Result<Result<wgpu::PollStatus, wgpu::PollError>, String> {
    unwound(|| device.poll(wait))
}

/// What a call gives, or with which words it panics.
#[cfg(not(target_arch = "wasm32"))]
fn unwound<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // wgpu holds no lock when it panics, and nothing of ours is half done.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("wgpu panicked").to_owned()
    })
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
    use std::thread::{self, JoinHandle};

    use super::{Answer, OneshotSender};

    /// Polls the device on a thread of its own while reads are pending. The thread starts with the first read, sleeps
    /// between reads and ends before the poller is gone: were it to let go of the device later, a program could end
    /// while its driver is still closing, which crashes some.
    pub(crate) struct Poller {
        shared: Arc<Shared>,
    }

    struct Shared {
        /// Waits for the device, or says why it is lost. It holds the device.
        poll: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct State {
        /// Reads under way, by number.
        reads: Vec<(u64, Arc<OneshotSender<Answer>>)>,
        next: u64,
        external: bool,
        thread: Option<JoinHandle<()>>,
        closed: bool,
        /// Why the device is lost, if it is.
        lost: Option<String>,
    }

    impl Shared {
        fn lock(&self) -> MutexGuard<'_, State> {
            // Plain lists and flags: whole after any panic.
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Waits for the device once. If it is lost, no read hears of it by wgpu: its callbacks are never called.
        fn poll(&self) {
            if let Err(reason) = (self.poll)() {
                self.lock().lost = Some(reason);
                self.tell();
            }
        }

        /// Tells all reads of a device that is lost.
        fn tell(&self) {
            let mut state = self.lock();
            let Some(reason) = state.lost.clone() else {
                return;
            };
            let reads = std::mem::take(&mut state.reads);
            drop(state);
            for (_, sender) in reads {
                // The receiver may be gone, or have heard.
                let _ = sender.send(Err(reason.clone()));
            }
        }
    }

    /// A read under way. The device holds it, so it must not hold the device.
    pub(crate) struct Pending {
        shared: Weak<Shared>,
        number: u64,
        sender: Arc<OneshotSender<Answer>>,
    }

    impl Pending {
        pub(crate) fn answer(self, answer: Answer) {
            // The receiver may be gone: a read dropped half-way.
            let _ = self.sender.send(answer);
        }
    }

    impl Drop for Pending {
        fn drop(&mut self) {
            if let Some(shared) = self.shared.upgrade() {
                let mut state = shared.lock();
                state.reads.retain(|(number, _)| *number != self.number);
            }
        }
    }

    impl Poller {
        pub(crate) fn new(device: wgpu::Device) -> Self {
            // Without a time-out: where one runs out while another thread submits, wgpu-core 30 may find the queue empty before the
            // index that it waited for, and panics. A closed poller so ends with the work that was submitted, for which a
            // device that is dropped waits anyway.
            Self::polling(move || {
                super::poll(&device, wgpu::PollType::wait_indefinitely()).map(|_| ())
            })
        }

        fn polling(poll: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
            Self {
                shared: Arc::new(Shared {
                    poll: Box::new(poll),
                    state: Mutex::default(),
                    changed: Condvar::new(),
                }),
            }
        }

        pub(crate) fn set_external(&self, external: bool) {
            self.shared.lock().external = external;
            self.see_to_it();
        }

        /// Notes a read, which is to be answered by this.
        pub(crate) fn pending(&self, sender: OneshotSender<Answer>) -> Pending {
            let sender = Arc::new(sender);
            let mut state = self.shared.lock();
            let number = state.next;
            state.next += 1;
            state.reads.push((number, Arc::clone(&sender)));
            Pending {
                shared: Arc::downgrade(&self.shared),
                number,
                sender,
            }
        }

        /// Sees to it that somebody polls while reads are pending, unless the caller does.
        pub(crate) fn see_to_it(&self) {
            let mut state = self.shared.lock();
            if state.lost.is_some() {
                drop(state);
                self.shared.tell();
                return;
            }
            if !state.reads.is_empty() && state.thread.is_none() && !state.external {
                let shared = Arc::clone(&self.shared);
                state.thread = thread::Builder::new()
                    .name("anybit-poll".into())
                    .spawn(move || run(&shared))
                    .ok();
                // Where the system gives no thread, this one waits.
                if state.thread.is_none() {
                    while !state.reads.is_empty() && !state.external {
                        drop(state);
                        self.shared.poll();
                        state = self.shared.lock();
                    }
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
                // Polling does not unwind; and if the thread panicked, there would be nothing left to do.
                let _ = thread.join();
            }
        }
    }

    fn run(shared: &Shared) {
        loop {
            let mut state = shared.lock();
            while !state.closed && (state.reads.is_empty() || state.external) {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed || state.lost.is_some() {
                return;
            }
            drop(state);
            shared.poll();
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;
        use std::time::Duration;

        use futures_intrusive::channel::shared::oneshot_channel;

        use super::*;

        /// A read of a poller, which the device never answers.
        fn read(poller: &Poller) -> (Pending, Option<Answer>) {
            let (sender, receiver) = oneshot_channel();
            let pending = poller.pending(sender);
            poller.see_to_it();
            let (heard, hearing) = mpsc::channel();
            thread::spawn(move || heard.send(pollster::block_on(receiver.receive())));
            let answer = hearing.recv_timeout(Duration::from_secs(60));
            (pending, answer.expect("an answer"))
        }

        #[test]
        fn reads_of_a_device_that_its_driver_lost_end() {
            // As wgpu does where a driver says so.
            let poller = Poller::polling(|| super::super::unwound(|| panic!("the driver lost it")));
            let lost = Some(Err("the driver lost it".to_owned()));
            let (_first, answer) = read(&poller);
            assert_eq!(answer, lost);
            // Nor does one wait that is begun later.
            let (_second, answer) = read(&poller);
            assert_eq!(answer, lost);
        }

        #[test]
        fn reads_are_polled_for_until_they_are_answered() {
            let (polls, polled) = mpsc::channel();
            let polls = Mutex::new(polls);
            let poller = Poller::polling(move || {
                let polls = polls.lock().unwrap_or_else(PoisonError::into_inner);
                // Who listens has heard enough, or not.
                let _ = polls.send(());
                thread::sleep(Duration::from_millis(1));
                Ok(())
            });
            let (sender, receiver) = oneshot_channel();
            let pending = poller.pending(sender);
            poller.see_to_it();
            for _ in 0..3 {
                polled
                    .recv_timeout(Duration::from_secs(60))
                    .expect("another poll");
            }
            pending.answer(Ok(()));
            assert_eq!(pollster::block_on(receiver.receive()), Some(Ok(())));
            assert!(poller.shared.lock().reads.is_empty());
        }
    }
}
