//! Timing of work on a device: the median over passes that hold the work several times, divided by the repetitions in
//! one. [`PassTimer`] says how a pass is timed.
//!
//! Repetitions read the same operands, so a cache that holds them serves all but the first.

use std::time::{Duration, Instant};

use anybit::wgpu;
use anybit::{Context, DeviceClass, PassTimer, TimingMethod};

use crate::{Error, cpu_time};

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
    passes: PassTimer,
    software: bool,
}

/// A pass should last so long, against the cost of a submit and the grain of clocks.
const PASS: Duration = Duration::from_millis(15);

/// How long a GPU is kept busy before it is measured, in passes of so many repetitions.
const WAKE: Duration = Duration::from_millis(250);
const WAKE_REPETITIONS: usize = 8;

const MOST_REPETITIONS: usize = 2000;

impl Timer {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            passes: PassTimer::new(context),
            software: context.caps().class == DeviceClass::Software,
        }
    }

    /// Keeps an idle GPU busy until its clocks are up: an H200 idles at a fifth of them, between checks on the CPU, and ran
    /// the first rows of a bench at a fifth of their speed.
    fn wake(&self, work: &impl Fn(&mut wgpu::ComputePass<'_>)) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < WAKE {
            self.passes.run(WAKE_REPETITIONS, work)?;
        }
        Ok(())
    }

    /// The method in use. Settled once something has been measured.
    pub(crate) fn method(&self) -> TimingMethod {
        self.passes.method()
    }

    /// The time of one repetition of some work that has run before.
    ///
    /// # Errors
    ///
    /// [`Error::Anybit`] if the device is gone.
    pub(crate) fn measure(
        &self,
        budget: Budget,
        work: impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<Timing, Error> {
        // The first pass only warms caches; the second says how many repetitions fill a pass.
        self.passes.run(1, &work)?;
        if !self.software {
            self.wake(&work)?;
        }
        let once = self.passes.run(1, &work)?.max(1e-7);
        let repetitions = (PASS.as_secs_f64() / once).ceil() as usize;
        let repetitions = repetitions.clamp(1, MOST_REPETITIONS);

        let start = Instant::now();
        let cpu_start = cpu_time::seconds();
        let mut seconds = Vec::new();
        while seconds.len() < budget.passes
            || (start.elapsed() < budget.time && seconds.len() < Budget::MOST_PASSES)
        {
            seconds.push(self.passes.run(repetitions, &work)? / repetitions as f64);
        }
        let cpu = cpu_time::seconds().zip(cpu_start).filter(|_| self.software);
        Ok(Timing {
            cpu_seconds: cpu
                .map(|(end, start)| (end - start) / (seconds.len() * repetitions) as f64),
            seconds: median(&mut seconds),
        })
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
