//! Linear layers of candle that anybit takes over: 4-bit weights, on the GPU. Start it with `cargo run` in this folder.

use anybit::formats::{ElementFormat, MatrixFormat, quantize};
use anybit::{Context, ContextOptions, DeviceMatrix, Operands, OutputFormat, PlanOptions, Problem};
use candle_core::{Device::Cpu, Error, Module, Result, Tensor};
use candle_nn::{Activation, Linear, Sequential, seq};

const WEIGHT: MatrixFormat = MatrixFormat::weight_default(ElementFormat::INT4);
const INPUT: MatrixFormat = MatrixFormat::activation_default(ElementFormat::INT8);

/// Takes the place of a [`Linear`] for f32 tensors.
struct QuantizedLinear {
    context: Context,
    weight: DeviceMatrix,
    bias: Option<Tensor>,
}

impl QuantizedLinear {
    /// Quantises and uploads the weights, once.
    fn new(context: &Context, linear: &Linear) -> Result<Self> {
        let (n, k) = linear.weight().dims2()?;
        let values = linear.weight().flatten_all()?.to_vec1()?;
        let packed = quantize(&values, n, k, WEIGHT, None).map_err(Error::wrap)?;
        let problem = Problem::new((1, n, k), INPUT, WEIGHT);
        let layout = context.plan(&problem).map_err(Error::wrap)?.weight_layout();
        Ok(Self {
            context: context.clone(),
            weight: context.upload(&packed, &layout).map_err(Error::wrap)?,
            bias: linear.bias().cloned(),
        })
    }

    /// X · Wᵀ of row-major values.
    fn multiply(&self, values: &[f32]) -> anybit::Result<Vec<f32>> {
        let (context, weight) = (&self.context, &self.weight);
        let m = values.len() / weight.columns();
        // Each number of rows may have its own kernel, among those that read the weights as they lie on the device.
        let problem = Problem::new((m, weight.rows(), weight.columns()), INPUT, WEIGHT);
        let plan = context.plan_with(&problem, &PlanOptions::default().with_weight(weight))?;
        let x = context.upload_f32(values, m, weight.columns())?;
        let activation = &context.allocate(INPUT, m, x.columns(), &plan.activation_layout())?;
        let output = &context.output(OutputFormat::F32, m, weight.rows())?;
        let quantizing = context.prepare_quantize(&x, activation)?.work;
        let operands = Operands {
            activation,
            weight,
            output,
        };
        let product = context.prepare(&plan, operands)?;
        let pending = context.submit_and_read(&[&quantizing, &product], output)?;
        Ok(pending.read_blocking()?.into_f32().expect("an f32 output"))
    }

    /// candle's layer with the same 4-bit weights.
    fn rounded(&self) -> Result<Linear> {
        let packed = self.context.download(&self.weight).map_err(Error::wrap)?;
        let weight = Tensor::from_vec(packed.decode(), (packed.rows(), packed.columns()), &Cpu)?;
        Ok(Linear::new(weight, self.bias.clone()))
    }
}

impl Module for QuantizedLinear {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut shape = xs.dims().to_vec();
        shape.pop();
        shape.push(self.weight.rows());
        let values = xs.flatten_all()?.to_vec1()?;
        let product = self.multiply(&values).map_err(Error::wrap)?;
        let ys = Tensor::from_vec(product, shape, xs.device())?;
        let mut bias = self.bias.iter();
        bias.try_fold(ys, |ys, bias| ys.broadcast_add(bias))
    }
}

fn mlp<M: Module + 'static>([first, last]: [M; 2]) -> Sequential {
    seq().add(first).add(Activation::Relu).add(last)
}

fn main() -> Result<()> {
    let random = |shape: &[usize], deviation: f32| Tensor::randn(0.0, deviation, shape, &Cpu);
    let layers = [
        Linear::new(random(&[512, 256], 0.06)?, Some(random(&[512], 1.0)?)),
        Linear::new(random(&[64, 512], 0.04)?, Some(random(&[64], 1.0)?)),
    ];
    let context = Context::request_blocking(&ContextOptions::default()).map_err(Error::wrap)?;
    let quantize = |layer| QuantizedLinear::new(&context, layer);
    let quantized = [quantize(&layers[0])?, quantize(&layers[1])?];
    let rounded = [quantized[0].rounded()?, quantized[1].rounded()?];
    let xs = random(&[8, 256], 1.0)?;
    let found = mlp(quantized).forward(&xs)?;
    for (weights, model, limit) in [("f32", mlp(layers), 0.15), ("4-bit", mlp(rounded), 0.02)] {
        let exact = model.forward(&xs)?;
        let square = |tensor: Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f32>();
        let error = (square((&found - &exact)?)? / square(exact)?).sqrt();
        println!("error beside candle with {weights} weights: {error:.4}");
        assert!(error <= limit, "that is over {limit}");
    }
    Ok(())
}
