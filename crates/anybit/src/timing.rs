//! How long work takes on a device: timestamps around a pass where they can be trusted, else wall clock.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::caps::DeviceClass;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::readback::poll;

/// Where the seconds come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimingMethod {
    /// Timestamps at the borders of a pass.
    Timestamps,
    /// Wall clock from submit to completion.
    WallClock,
}

impl fmt::Display for TimingMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Timestamps => "timestamp queries around repeated dispatches",
            Self::WallClock => "wall clock of repeated dispatches, submit to completion",
        })
    }
}

/// Times passes on one device.
///
/// Hardware is timed by timestamps at the borders of the pass. Software adapters, devices without timestamps, and devices
/// whose timestamps make no sense are timed by wall clock from submit to completion.
#[derive(Debug)]
pub struct PassTimer {
    context: Context,
    /// A pair of timestamps, and where they are read; only with timestamps.
    queries: Option<Queries>,
    /// Some drivers have the feature and write nothing.
    senseless: AtomicBool,
}

#[derive(Debug)]
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    read: wgpu::Buffer,
}

const QUERY_BYTES: u64 = 16;

impl PassTimer {
    /// A timer for a context's device.
    pub fn new(context: &Context) -> Self {
        let caps = context.caps();
        let device = context.device();
        let trusted = caps.timestamps && caps.class != DeviceClass::Software;
        let queries = trusted.then(|| Queries {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timing"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: QUERY_BYTES,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            read: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps, read"),
                size: QUERY_BYTES,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
        });
        Self {
            context: context.clone(),
            queries,
            senseless: AtomicBool::new(false),
        }
    }

    /// The method in use. Settled once something has been timed.
    pub fn method(&self) -> TimingMethod {
        match self.trusted() {
            Some(_) => TimingMethod::Timestamps,
            None => TimingMethod::WallClock,
        }
    }

    fn trusted(&self) -> Option<&Queries> {
        let senseless = self.senseless.load(Ordering::Relaxed);
        self.queries.as_ref().filter(|_| !senseless)
    }

    /// Submits a pass that holds some work so many times, waits for it, and returns the seconds that all of it took.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub fn run(
        &self,
        repetitions: usize,
        work: impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64> {
        let queries = self.trusted();
        let start = self.context.guard(|device| {
            let mut encoder = device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some("timing"),
                    timestamp_writes: queries.map(|queries| wgpu::ComputePassTimestampWrites {
                        query_set: &queries.set,
                        beginning_of_pass_write_index: Some(0),
                        end_of_pass_write_index: Some(1),
                    }),
                });
                for _ in 0..repetitions {
                    work(&mut pass);
                }
            }
            if let Some(queries) = queries {
                encoder.resolve_query_set(&queries.set, 0..2, &queries.resolved, 0);
                encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.read, 0, QUERY_BYTES);
            }
            let commands = encoder.finish();
            let start = Instant::now();
            self.context.queue().submit([commands]);
            start
        })?;
        self.wait()?;
        let wall = start.elapsed().as_secs_f64();
        let Some(queries) = queries else {
            return Ok(wall);
        };
        let [begin, end] = self.read(queries)?;
        if end > begin && begin > 0 {
            let period = f64::from(self.context.queue().get_timestamp_period());
            return Ok((end - begin) as f64 * period * 1e-9);
        }
        self.senseless.store(true, Ordering::Relaxed);
        Ok(wall)
    }

    fn wait(&self) -> Result<()> {
        poll(self.context.device(), wgpu::PollType::wait_indefinitely())
            .map_err(lost)?
            .map(drop)
            .map_err(|error| lost(error.to_string()))
    }

    fn read(&self, queries: &Queries) -> Result<[u64; 2]> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.context.guard(|_| {
            queries
                .read
                .map_async(wgpu::MapMode::Read, .., move |result| {
                    // The receiver waits below.
                    let _ = sender.send(result);
                });
        })?;
        self.wait()?;
        match receiver.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(error) => return Err(lost(error.to_string())),
        }
        let times = {
            let view = queries
                .read
                .get_mapped_range(..)
                .map_err(|error| lost(error.to_string()))?;
            let mut times = [0; 2];
            for (time, bytes) in times.iter_mut().zip(view.chunks_exact(8)) {
                let mut word = [0; 8];
                word.copy_from_slice(bytes);
                *time = u64::from_le_bytes(word);
            }
            times
        };
        queries.read.unmap();
        Ok(times)
    }
}

const fn lost(reason: String) -> Error {
    Error::DeviceLost { reason }
}

/// The middle of some values; of an even number the mean of the middle two, of none NaN.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_outliers() {
        assert_eq!(median(&mut [3.0, 100.0, 1.0]), 3.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(&mut [5.0]), 5.0);
        assert!(median(&mut []).is_nan());
    }
}
