//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output;

/// Set by the first Ctrl-C, so that the command can stop at a good place: an unfinished file goes away, and a GPU is not left in
/// the midst of its work. A second one ends it at once.
pub(crate) fn watch() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let handler = {
        let interrupted = Arc::clone(&interrupted);
        move || {
            if interrupted.swap(true, Ordering::Relaxed) {
                std::process::exit(output::INTERRUPTED.into());
            }
        }
    };
    // Without a handler, an interrupt ends the command and leaves an unfinished file behind.
    let _ = ctrlc::set_handler(handler);
    interrupted
}
