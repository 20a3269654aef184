//! Pipelines: the only place that makes shader modules, layouts and pipelines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anybit_formats::Memory;

use crate::context::resolve_now;
use crate::error::{Error, Result};
use crate::specialize::{ShaderKey, Specialization};

/// What a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Binding {
    Uniform,
    Read,
    Write,
    Texture,
}

impl Binding {
    const fn layout_type(self) -> wgpu::BindingType {
        let ty = match self {
            Self::Uniform => wgpu::BufferBindingType::Uniform,
            Self::Read => wgpu::BufferBindingType::Storage { read_only: true },
            Self::Write => wgpu::BufferBindingType::Storage { read_only: false },
            Self::Texture => {
                return wgpu::BindingType::Texture {
                    sample_type: wgpu::TextureSampleType::Uint,
                    view_dimension: wgpu::TextureViewDimension::D2,
                    multisampled: false,
                };
            }
        };
        wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: None,
        }
    }
}

/// Bindings of the GEMM family, in order: parameters, activation codes and side data, weight codes and side data, output.
pub(crate) const GEMM_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Read,
    Binding::Read,
    Binding::Write,
];
/// The same with weights in textures.
pub(crate) const GEMM_TEXTURE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Texture,
    Binding::Texture,
    Binding::Write,
];
/// The same with a residual at the end.
pub(crate) const GEMM_TEXTURE_RESIDUAL_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Texture,
    Binding::Texture,
    Binding::Write,
    Binding::Read,
];
/// Those of weights in buffers with a residual at the end.
pub(crate) const GEMM_RESIDUAL_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Read,
    Binding::Read,
    Binding::Write,
    Binding::Read,
];

/// The bindings of a problem's kernels.
pub(crate) const fn gemm_bindings(memory: Memory, residual: bool) -> &'static [Binding] {
    match (memory, residual) {
        (Memory::Buffers, false) => GEMM_BINDINGS,
        (Memory::Buffers, true) => GEMM_RESIDUAL_BINDINGS,
        (Memory::Textures, false) => GEMM_TEXTURE_BINDINGS,
        (Memory::Textures, true) => GEMM_TEXTURE_RESIDUAL_BINDINGS,
    }
}

/// Parameters, input, codes, side data, inverses.
pub(crate) const QUANTIZE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Write,
    Binding::Write,
    Binding::Write,
];
/// Parameters, codes, side data, output.
const DECODE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Write,
];

const DECODE_TEXTURE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Texture,
    Binding::Texture,
    Binding::Write,
];

/// The bindings of what decodes a matrix.
pub(crate) const fn decode_bindings(memory: Memory) -> &'static [Binding] {
    match memory {
        Memory::Buffers => DECODE_BINDINGS,
        Memory::Textures => DECODE_TEXTURE_BINDINGS,
    }
}

/// Parameters, two inputs, output.
pub(crate) const ELEMENTWISE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Write,
];

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// Every pipeline made so far, by what decides its shader's text: formats that differ in parameters alone share one.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    made: Mutex<HashMap<ShaderKey, Arc<Pipeline>>>,
}

impl PipelineCache {
    /// The pipeline of a specialisation, made now if it is new. May be called from several threads; two that want the
    /// same new pipeline may both make it, and one is kept.
    pub(crate) fn get(
        &self,
        device: &wgpu::Device,
        specialization: &Specialization,
        bindings: &[Binding],
    ) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.lock().get(&specialization.key) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(make(device, specialization, bindings)?);
        Ok(Arc::clone(
            self.lock()
                .entry(specialization.key.clone())
                .or_insert(pipeline),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ShaderKey, Arc<Pipeline>>> {
        // A panic elsewhere leaves a map of whole pipelines.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(
    device: &wgpu::Device,
    specialization: &Specialization,
    bindings: &[Binding],
) -> Result<Pipeline> {
    let id = specialization.id.as_str();
    let linked = specialization.link().map_err(|source| Error::Link {
        kernel: id.to_string(),
        source,
    })?;

    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(id),
        source: wgpu::ShaderSource::Wgsl(linked.wgsl.into()),
    });
    let entries: Vec<_> = bindings
        .iter()
        .zip(0..)
        .map(|(binding, index)| wgpu::BindGroupLayoutEntry {
            binding: index,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: binding.layout_type(),
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(id),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(id),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(id),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every cell of workgroup memory is written before it is read.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    let errors = [
        resolve_now(memory.pop()),
        resolve_now(internal.pop()),
        resolve_now(validation.pop()),
    ];
    if let Some(error) = errors.into_iter().flatten().next() {
        return Err(match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory {
                what: "a pipeline",
                bytes: 0,
            },
            error => Error::Pipeline {
                kernel: id.to_string(),
                message: locate(&error.to_string(), &linked.line_map),
            },
        });
    }
    Ok(Pipeline { pipeline, layout })
}

/// Appends the module and line of the first position in wgpu's message.
fn locate(message: &str, line_map: &anybit_shaders::LineMap) -> String {
    let line = message
        .split("wgsl:")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .and_then(|line| line.parse::<u32>().ok());
    match line.and_then(|line| line_map.locate(line)) {
        Some(location) => format!("{location}: {message}"),
        None => message.to_string(),
    }
}
