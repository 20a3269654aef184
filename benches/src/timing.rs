//! Timing of work on a device.
//!
//! Hardware: timestamps at the borders of a pass that holds the work several times. Software adapters, devices without
//! timestamps, and devices whose timestamps make no sense: wall clock from submit to completion of such a pass. The
//! result is the median over passes, divided by the repetitions in one.
//!
//! Repetitions read the same operands, so a cache that holds them serves all but the first.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use anybit::wgpu;
use anybit::{Context, DeviceClass};

use crate::{Error, cpu_time};

/// Where the seconds come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Timestamps,
    WallClock,
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Timestamps => "timestamp queries around repeated dispatches",
            Self::WallClock => "wall clock of repeated dispatches, submit to completion",
        })
    }
}

/// How long to measure one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Time after which no further pass is started.
    pub(crate) time: Duration,
    /// Passes that are made however long they take.
    pub(crate) passes: usize,
}

impl Budget {
    /// Enough for an impression.
    pub(crate) const QUICK: Self = Self {
        time: Duration::from_millis(100),
        passes: 3,
    };
    /// Enough for a median that repeats.
    pub(crate) const FULL: Self = Self {
        time: Duration::from_secs(1),
        passes: 7,
    };
    /// No more passes than this, however short.
    const MOST_PASSES: usize = 50;
}

/// What one repetition takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) seconds: f64,
    /// CPU time of this process, all threads together; `None` on hardware.
    pub(crate) cpu_seconds: Option<f64>,
}

/// Measures on one device.
#[derive(Debug)]
pub(crate) struct Timer {
    device: wgpu::Device,
    queue: wgpu::Queue,
    software: bool,
    method: Cell<Method>,
    /// A pair of timestamps, and where they are read; only with timestamps.
    queries: Option<Queries>,
}

#[derive(Debug)]
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    read: wgpu::Buffer,
}

const QUERY_BYTES: u64 = 16;

/// A pass should last so long, against the cost of a submit and the grain of clocks.
const PASS: Duration = Duration::from_millis(15);

const MOST_REPETITIONS: usize = 2000;

impl Timer {
    pub(crate) fn new(context: &Context) -> Self {
        let caps = context.caps();
        let software = caps.class == DeviceClass::Software;
        let device = context.device().clone();
        let queries = (caps.timestamps && !software).then(|| Queries {
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
            device,
            queue: context.queue().clone(),
            software,
            method: Cell::new(if queries.is_some() {
                Method::Timestamps
            } else {
                Method::WallClock
            }),
            queries,
        }
    }

    /// The method in use. Settled once something has been measured.
    pub(crate) fn method(&self) -> Method {
        self.method.get()
    }

    /// The time of one repetition of some work that has run before.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`], [`Error::Timestamps`] if the device is gone.
    pub(crate) fn measure(
        &self,
        budget: Budget,
        work: impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<Timing, Error> {
        // The first pass only warms caches; the second says how many repetitions fill a pass.
        self.pass(1, &work)?;
        let once = self.pass(1, &work)?.max(1e-7);
        let repetitions = (PASS.as_secs_f64() / once).ceil() as usize;
        let repetitions = repetitions.clamp(1, MOST_REPETITIONS);

        let start = Instant::now();
        let cpu_start = cpu_time::seconds();
        let mut seconds = Vec::new();
        while seconds.len() < budget.passes
            || (start.elapsed() < budget.time && seconds.len() < Budget::MOST_PASSES)
        {
            seconds.push(self.pass(repetitions, &work)? / repetitions as f64);
        }
        let cpu = cpu_time::seconds().zip(cpu_start).filter(|_| self.software);
        Ok(Timing {
            cpu_seconds: cpu
                .map(|(end, start)| (end - start) / (seconds.len() * repetitions) as f64),
            seconds: median(&mut seconds),
        })
    }

    /// Runs a pass and returns the seconds it took.
    fn pass(
        &self,
        repetitions: usize,
        work: &impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64, Error> {
        let queries = self
            .queries
            .as_ref()
            .filter(|_| self.method.get() == Method::Timestamps);
        let mut encoder = self.device.create_command_encoder(&Default::default());
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
        self.queue.submit([commands]);
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let wall = start.elapsed().as_secs_f64();
        let Some(queries) = queries else {
            return Ok(wall);
        };
        let [begin, end] = self.read(queries)?;
        if end > begin && begin > 0 {
            return Ok((end - begin) as f64 * f64::from(self.queue.get_timestamp_period()) * 1e-9);
        }
        // Some drivers have the feature and write nothing.
        self.method.set(Method::WallClock);
        Ok(wall)
    }

    fn read(&self, queries: &Queries) -> Result<[u64; 2], Error> {
        let (sender, receiver) = std::sync::mpsc::channel();
        queries
            .read
            .map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver waits below.
                let _ = sender.send(result);
            });
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let failed = |message: String| Error::Timestamps(message);
        match receiver.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(error) => return Err(failed(error.to_string())),
        }
        let times = {
            let view = queries
                .read
                .get_mapped_range(..)
                .map_err(|error| failed(error.to_string()))?;
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

fn median(values: &mut [f64]) -> f64 {
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
    }
}
