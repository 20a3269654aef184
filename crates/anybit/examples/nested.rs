//! One matrix of 8-bit weights on the GPU, read at 8, 6, 4, 3 and 2 bits: error and bytes of each way.
//!
//! ```sh
//! cargo run --release -p anybit --example nested
//! ```
//!
//! WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.
//!
//! The matrix is 1024 × 1024 normal random numbers, always the same, quantised to `int8` with an f32 scale a row. Eight rows
//! of activations in `int8` meet it; the error is that of the products against f64 products with the unquantised weights,
//! as a part of the products' own root mean square. So it is the weights' rounding alone.

use std::error::Error;

use anybit::formats::{
    DeviceLayout, ElementFormat, MatrixFormat, Memory, Nesting, PieceLayout, SumLayout, quantize,
};
use anybit::{
    Context, ContextOptions, DeviceMatrix, Operands, OutputFormat, PlanOptions, Problem, wgpu,
};

const M: usize = 8;
const N: usize = 1024;
const K: usize = 1024;
const WIDTHS: [u8; 5] = [8, 6, 4, 3, 2];

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Random(1);
    let weights: Vec<f32> = (0..N * K).map(|_| random.normal()).collect();
    let activations: Vec<f32> = (0..M * K).map(|_| random.normal()).collect();
    let rows = MatrixFormat::activation_default(ElementFormat::INT8);
    let stored = quantize(&weights, N, K, rows, None)?;
    let input = quantize(&activations, M, K, rows, None)?;
    let exact = product(&input.decode_f64(), &weights);

    let mut options = ContextOptions::default();
    options.backends = wgpu::Backends::from_env();
    options.adapter = std::env::var("WGPU_ADAPTER_NAME").ok();
    let context = Context::request_blocking(&options)?;
    let layout = |pieces| DeviceLayout {
        pieces,
        interleave: 4,
        sums: SumLayout::None,
        memory: Memory::Buffers,
    };
    // Once as planes with carry planes for four widths, once as bytes.
    let planes =
        context.upload_with_carries(&stored, &layout(PieceLayout::Planes), &[6, 4, 3, 2])?;
    let bytes = context.upload(&stored, &layout(PieceLayout::Pieces))?;

    println!("| bits | way | engine | bytes read | of the codes | error |");
    println!("|---|---|---|---|---|---|");
    for bits in WIDTHS {
        for (way, nesting, whole) in [
            ("truncation, top planes", Nesting::Truncation, &planes),
            (
                "Double Rounding, carry plane",
                Nesting::DoubleRounding,
                &planes,
            ),
            (
                "Double Rounding, all bytes",
                Nesting::DoubleRounding,
                &bytes,
            ),
        ] {
            let weight = whole.nested(bits, nesting)?;
            let way = match weight.nesting() {
                None => "as stored",
                Some(_) => way,
            };
            if bits == 8 && nesting == Nesting::Truncation {
                // The same planes as in the next line.
                continue;
            }
            let (engine, values) = multiply(&context, &input, &weight)?;
            println!(
                "| {bits} | {way} | `{engine}` | {} | {:.3} | {:.2} % |",
                weight.bytes_read(),
                weight.code_bytes_read() as f64 / whole.code_bytes_read() as f64,
                100.0 * relative_error(&values, &exact),
            );
        }
    }
    Ok(())
}

/// The engine that reads weights laid out so, and its products.
fn multiply(
    context: &Context,
    input: &anybit::formats::PackedMatrix,
    weight: &DeviceMatrix,
) -> Result<(String, Vec<f32>), Box<dyn Error>> {
    let problem = Problem::new((M, N, K), *input.format(), *weight.format());
    let plan = context.plan_with(&problem, &PlanOptions::default().with_weight(weight))?;
    let activation = context.upload(input, &plan.activation_layout())?;
    let output = context.output(OutputFormat::F32, M, N)?;
    let operands = Operands {
        activation: &activation,
        weight,
        output: &output,
    };
    let prepared = context.prepare(&plan, operands)?;
    let values = context.run(&prepared, &output)?;
    let values = values.into_f32().ok_or("the output is f32")?;
    Ok((plan.engine().to_string(), values))
}

/// X · Wᵀ in f64.
fn product(x: &[f64], w: &[f32]) -> Vec<f64> {
    let dot =
        |x: &[f64], w: &[f32]| -> f64 { x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum() };
    x.chunks(K)
        .flat_map(|x| w.chunks(K).map(move |w| dot(x, w)))
        .collect()
}

/// Root mean square of the differences over that of the exact values.
fn relative_error(found: &[f32], exact: &[f64]) -> f64 {
    let differences = found.iter().zip(exact);
    let error: f64 = differences
        .map(|(found, exact)| (f64::from(*found) - exact).powi(2))
        .sum();
    let size: f64 = exact.iter().map(|exact| exact.powi(2)).sum();
    (error / size).sqrt()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normal, by Box and Muller.
    fn normal(&mut self) -> f32 {
        let (radius, angle) = (1.0 - self.unit(), std::f64::consts::TAU * self.unit());
        ((-2.0 * radius.ln()).sqrt() * angle.cos()) as f32
    }
}
