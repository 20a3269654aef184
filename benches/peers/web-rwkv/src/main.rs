//! Times the int8 and NF4 products of web-rwkv, and checks them.
//!
//! `cargo xtask bench --peers` builds and starts this program; `benches/src/peers.rs` reads its output: one JSON object
//! a line, as that file describes it.
//!
//! Timing is that of anybit's own bench: the work several times in one pass, wall clock from submit to completion and
//! CPU time of the process, the median over passes. The results are compared with an f64 product of the weights as
//! web-rwkv has rounded them, which are read back for it.

mod product;
mod timing;

use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use web_rwkv::context::{Context, ContextBuilder};
use web_rwkv::wgpu;

use product::{Kind, Operands, Weights};
use timing::{Budget, Timing};

type Error = Box<dyn std::error::Error>;

/// Times web-rwkv's products; JSON lines on standard output.
#[derive(Debug, Parser)]
struct Arguments {
    /// The adapter's full name
    #[arg(long)]
    adapter: String,

    /// Its graphics API
    #[arg(long)]
    backend: String,

    /// M×N×K: M tokens, N rows of weights, K columns of both
    #[arg(long, value_delimiter = ',', required = true)]
    shapes: Vec<String>,

    /// Passes that are made however long they take
    #[arg(long)]
    passes: usize,

    /// Time after which no further pass is started
    #[arg(long)]
    seconds: f64,

    /// Time after which fewer passes must do
    #[arg(long)]
    patience: f64,

    /// The adapter runs shaders on the CPU: take CPU time, too
    #[arg(long)]
    software: bool,
}

/// A line of output.
#[derive(Debug, Default, Serialize)]
struct Line {
    peer: &'static str,
    kernel: String,
    activation: &'static str,
    weight: &'static str,
    activation_bits: u32,
    weight_bits: u32,
    m: usize,
    n: usize,
    k: usize,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    /// Largest difference from the f64 product, against its largest value.
    error: Option<f64>,
    /// What `error` may be at most.
    bound: f64,
    /// Why there are no figures.
    failure: Option<String>,
}

/// f32 sums over some thousands of products.
const BOUND: f64 = 1e-4;

const PEER: &str = "web-rwkv 0.10.20";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let context = context(arguments)?;
    let budget = Budget {
        passes: arguments.passes,
        seconds: arguments.seconds,
        patience: arguments.patience,
        cpu: arguments.software,
    };
    for shape in &arguments.shapes {
        let (m, n, k) = sizes(shape).ok_or_else(|| format!("`{shape}` is not a shape"))?;
        for weights in [Weights::Int8, Weights::Nf4] {
            let operands = Operands::new(&context, weights, m, n, k);
            for &kind in Kind::of(m) {
                let mut line = Line {
                    peer: PEER,
                    kernel: format!("matmul_{}_{}", kind.name(), weights.name()),
                    activation: "f32",
                    weight: weights.name(),
                    activation_bits: 32,
                    weight_bits: weights.bits(),
                    m,
                    n,
                    k,
                    bound: BOUND,
                    ..Line::default()
                };
                match operands
                    .as_ref()
                    .map_err(ToString::to_string)
                    .and_then(|operands| {
                        measure(&context, operands, kind, budget).map_err(|error| error.to_string())
                    }) {
                    Ok((error, timing)) => {
                        line.error = Some(error);
                        line.seconds = Some(timing.seconds);
                        line.cpu_seconds = timing.cpu_seconds;
                    }
                    Err(error) => line.failure = Some(error),
                }
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    Ok(())
}

fn sizes(shape: &str) -> Option<(usize, usize, usize)> {
    let mut sizes = shape.split('x').map(|size| size.parse().ok());
    let shape = (sizes.next()??, sizes.next()??, sizes.next()??);
    sizes.next().is_none().then_some(shape)
}

fn context(arguments: &Arguments) -> Result<Context, Error> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters
        .into_iter()
        .find(|adapter| {
            let info = adapter.get_info();
            info.name == arguments.adapter && backend_name(info.backend) == arguments.backend
        })
        .ok_or_else(|| format!("web-rwkv's wgpu does not find {}", arguments.adapter))?;
    let limits = adapter.limits();
    Ok(pollster::block_on(
        ContextBuilder::new(adapter).limits(limits).build(),
    )?)
}

/// An API as anybit's bench calls it.
fn backend_name(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Dx12 => "dx12",
        other => other.to_str(),
    }
}

/// The error of one product, and its time.
fn measure(
    context: &Context,
    operands: &Operands,
    kind: Kind,
    budget: Budget,
) -> Result<(f64, Timing), Error> {
    let once = context.encode(&operands.product(kind, 1)?);
    context.queue.submit(once);
    let error = operands.error();
    let timing = timing::measure(context, budget, |count| operands.product(kind, count))?;
    Ok((error, timing))
}
