//! A quantised linear layer on a device and an encoder of the caller's own, with nothing but the public API.

use anybit::formats::{DeviceLayout, MatrixFormat, quantize};
use anybit::{
    Context, DeviceMatrix, Operands, OutputFormat, Problem, formats, wanted_features,
    wanted_limits, wgpu,
};
use anybit_tests::adapter;

const TOKENS: usize = 3;
const INPUTS: usize = 96;
const OUTPUTS: usize = 40;

/// Plain numbers of about one.
fn wave(count: usize, step: f32) -> Vec<f32> {
    (0..count)
        .map(|index| (index as f32 * step).sin())
        .collect()
}

#[test]
fn a_linear_layer_on_the_callers_device() {
    for adapter in adapter::selected("a_linear_layer_on_the_callers_device") {
        layer(&adapter).unwrap_or_else(|error| panic!("{}: {error}", adapter::describe(&adapter)));
    }
}

fn layer(adapter: &wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: wanted_features(adapter),
        required_limits: wanted_limits(adapter),
        ..Default::default()
    }))?;
    let context = Context::from_device(device.clone(), queue.clone());

    // Weights: 4-bit codes with an f16 scale per 32. Activations: 8-bit codes with a scale a row, made on the GPU.
    let weights = wave(OUTPUTS * INPUTS, 0.37);
    let weight_format: MatrixFormat = "i4g32h".parse()?;
    let packed = quantize(&weights, OUTPUTS, INPUTS, weight_format, None)?;
    let activation_format = MatrixFormat::activation_default(formats::ElementFormat::INT8);
    let problem = Problem::new((TOKENS, OUTPUTS, INPUTS), activation_format, weight_format);
    let plan = context.plan(&problem)?;
    context.warm_up(std::slice::from_ref(&plan))?;

    let weight = context.upload(&packed, &plan.weight_layout())?;
    let activation =
        context.allocate(activation_format, TOKENS, INPUTS, &plan.activation_layout())?;
    let hidden = context.output(OutputFormat::F32, TOKENS, OUTPUTS)?;

    // The caller's own f32 values, in the caller's own buffer.
    let values = wave(TOKENS * INPUTS, 0.11);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * values.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
    let input = DeviceMatrix::from_buffer(&buffer, 0, (TOKENS, INPUTS), INPUTS)?;

    let quantizing = context.prepare_quantize(&input, &activation)?;
    let product = context.prepare(
        &plan,
        Operands {
            activation: &activation,
            weight: &weight,
            output: &hidden,
        },
    )?;

    // Recorded twice before any submit, in a pass of the caller.
    let mut encoder = device.create_command_encoder(&Default::default());
    for _ in 0..2 {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        quantizing.work.encode(&mut pass);
        product.encode(&mut pass);
    }
    let pending = context.encode_read(&mut encoder, &hidden)?;
    queue.submit([encoder.finish()]);
    let found = pending.read_blocking()?.into_f32().ok_or("f32 outputs")?;

    // Plain arithmetic on the values: quantising moves a weight by half a step of about 1/7 at most, an activation by
    // half a step of 1/127.
    let decoded = packed.decode();
    for token in 0..TOKENS {
        for output in 0..OUTPUTS {
            let x = &values[token * INPUTS..][..INPUTS];
            let w = &decoded[output * INPUTS..][..INPUTS];
            let exact: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
            let slack: f32 = w.iter().map(|w| w.abs() * 0.51 / 127.0).sum();
            let found = found[token * OUTPUTS + output];
            assert!(
                (found - exact).abs() <= slack,
                "({token}, {output}): {found}, not {exact}"
            );
        }
    }

    // The output is the next layer's input without leaving the device.
    let next = hidden.as_activation().ok_or("an f32 output")?;
    assert_eq!((next.rows(), next.columns()), (TOKENS, OUTPUTS));
    let identity: Vec<f32> = (0..OUTPUTS * OUTPUTS)
        .map(|index| f32::from(u8::from(index / OUTPUTS == index % OUTPUTS)))
        .collect();
    let identity = context.upload_f32(&identity, OUTPUTS, OUTPUTS)?;
    let plan = context.plan(&Problem::new(
        (TOKENS, OUTPUTS, OUTPUTS),
        MatrixFormat::F32,
        MatrixFormat::F32,
    ))?;
    assert_eq!(plan.weight_layout(), DeviceLayout::ROW_MAJOR);
    let last = context.output(OutputFormat::F32, TOKENS, OUTPUTS)?;
    let prepared = context.prepare(
        &plan,
        Operands {
            activation: &next,
            weight: &identity,
            output: &last,
        },
    )?;
    assert_eq!(
        context.run(&prepared, &last)?.into_f32().as_ref(),
        Some(&found)
    );
    Ok(())
}
