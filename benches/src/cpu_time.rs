//! Process CPU time: on a shared machine it repeats where wall time does not.

/// CPU time that this process has used so far, all threads together, in seconds; `None` where the system has no such
/// clock.
#[cfg(unix)]
pub(crate) fn seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// CPU time that this process has used so far, all threads together, in seconds; `None` where the system has no such
/// clock.
#[cfg(not(unix))]
pub(crate) fn seconds() -> Option<f64> {
    None
}
