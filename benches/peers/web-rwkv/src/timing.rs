//! The method of anybit's bench (`benches/src/timing.rs`), over web-rwkv's operations.

use std::time::Instant;

use web_rwkv::context::Context;
use web_rwkv::tensor::TensorError;
use web_rwkv::tensor::ops::TensorOp;
use web_rwkv::wgpu;

use crate::Error;

/// How long to measure, as the command line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) passes: usize,
    pub(crate) seconds: f64,
    pub(crate) patience: f64,
    /// Whether CPU time is taken.
    pub(crate) cpu: bool,
}

/// What one product takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) seconds: f64,
    /// CPU time of this process; only where shaders run on the CPU.
    pub(crate) cpu_seconds: Option<f64>,
}

/// A pass should last so long, against the cost of a submit and the grain of clocks.
const PASS: f64 = 0.015;

const MOST_REPETITIONS: usize = 2000;
const MOST_PASSES: usize = 50;

/// The time of one product; `work` gives as many as it is told.
pub(crate) fn measure(
    context: &Context,
    budget: Budget,
    work: impl Fn(usize) -> Result<TensorOp, TensorError>,
) -> Result<Timing, Error> {
    let once = work(1)?;
    pass(context, &once)?;
    let estimate = pass(context, &once)?.max(1e-7);
    let repetitions = ((PASS / estimate).ceil() as usize).clamp(1, MOST_REPETITIONS);
    let work = work(repetitions)?;

    let start = Instant::now();
    let cpu_start = cpu_seconds();
    let mut seconds = Vec::new();
    loop {
        let elapsed = start.elapsed().as_secs_f64();
        let enough = seconds.len() >= budget.passes && elapsed >= budget.seconds;
        let late = !seconds.is_empty() && elapsed > budget.patience;
        if enough || late || seconds.len() >= MOST_PASSES {
            break;
        }
        seconds.push(pass(context, &work)? / repetitions as f64);
    }
    let cpu = cpu_seconds().zip(cpu_start).filter(|_| budget.cpu);
    Ok(Timing {
        cpu_seconds: cpu.map(|(end, start)| (end - start) / (seconds.len() * repetitions) as f64),
        seconds: median(&mut seconds),
    })
}

/// Seconds from submit to completion.
fn pass(context: &Context, work: &TensorOp) -> Result<f64, Error> {
    let commands = context.encode(work);
    let start = Instant::now();
    context.queue.submit(commands);
    context.device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(unix)]
fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
fn cpu_seconds() -> Option<f64> {
    None
}
