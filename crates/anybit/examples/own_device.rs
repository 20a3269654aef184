//! A linear layer of 4-bit weights in an application with wgpu of its own: its device, buffers, compute pass and submit.
//!
//! `cargo run --release -p anybit --example own_device`; WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.

use anybit::formats::quantize;
use anybit::wgpu::util::{BufferInitDescriptor, DeviceExt, initialize_adapter_from_env_or_default};
use anybit::{Context, DeviceMatrix, Operands, OutputFormat, OutputMatrix, Problem, wgpu};

/// What the application itself does with the layer's outputs.
const RELU: &str = "@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(64) fn relu(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&values) { values[id.x] = max(values[id.x], 0.0); }
}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Rows of inputs, outputs, inputs. In buffers of the caller, rows of f32 begin at multiples of 4 elements.
    let (m, n, k) = (4, 64, 128);
    let wave = |step: f32| move |index: usize| (index as f32 * step).sin();
    let inputs: Vec<f32> = (0..m * k).map(wave(0.11)).collect();
    let weights: Vec<f32> = (0..n * k).map(wave(0.37)).collect();

    // The application: its device, a buffer of inputs, one of outputs, a pipeline.
    let instance = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let instance = wgpu::Instance::new(instance);
    let adapter = pollster::block_on(initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: anybit::wanted_features(&adapter),
        required_limits: anybit::wanted_limits(&adapter),
        ..Default::default()
    }))?;
    let buffer = |values: &[f32]| {
        device.create_buffer_init(&BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let (input_buffer, output_buffer) = (buffer(&inputs), buffer(&vec![0.0; m * n]));
    let relu = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(RELU.into()),
        }),
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let (binding, resource) = (0, output_buffer.as_entire_binding());
    let relu_bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &relu.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding, resource }],
    });

    // The layer, made once: 4-bit weights with an f16 scale every 32 columns, 8-bit activations with a scale a row.
    let (weight_format, activation_format) = ("i4g32h".parse()?, "i8rf".parse()?);
    let packed = quantize(&weights, n, k, weight_format, None)?;
    let context = Context::from_device(device.clone(), queue.clone());
    let plan = context.plan(&Problem::new((m, n, k), activation_format, weight_format))?;
    let activation = context.allocate(activation_format, m, k, &plan.activation_layout())?;
    let input = DeviceMatrix::from_buffer(&input_buffer, 0, (m, k), k)?;
    let output = OutputMatrix::from_buffer(&output_buffer, 0, OutputFormat::F32, (m, n), n)?;
    let quantizing = context.prepare_quantize(&input, &activation)?.work;
    let operands = Operands {
        activation: &activation,
        weight: &context.upload(&packed, &plan.weight_layout())?,
        output: &output,
    };
    let product = context.prepare(&plan, operands)?;

    // Every frame: one pass of the application with anybit's work in it, and its one submit.
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    quantizing.encode(&mut pass);
    product.encode(&mut pass);
    pass.set_pipeline(&relu);
    pass.set_bind_group(0, &relu_bindings, &[]);
    pass.dispatch_workgroups((m * n).div_ceil(64) as u32, 1, 1);
    drop(pass);
    let pending = context.encode_read(&mut encoder, &output)?;
    queue.submit([encoder.finish()]);
    let found = pending.read_blocking()?.into_f32().expect("an f32 output");

    // On the CPU, from decoded weights. 8 bits move inputs within ±1 by up to 0.5/127; 0.01/127 is for f32's rounding.
    let decoded = packed.decode();
    for (index, found) in found.iter().enumerate() {
        let x = &inputs[index / n * k..][..k];
        let w = &decoded[index % n * k..][..k];
        let exact = x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>().max(0.0);
        let bound: f32 = w.iter().map(|w| w.abs() * 0.51 / 127.0).sum();
        let error = (found - exact).abs();
        assert!(error <= bound, "output {index}: {found}, not {exact}");
    }
    println!("{m}×{n} outputs, from {:.3?}, as on the CPU", &found[..4]);
    println!("on {}", adapter.get_info().name);
    Ok(())
}
