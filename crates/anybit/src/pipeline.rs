//! Pipelines: the only place that makes shader modules, layouts and pipelines.

use std::collections::HashMap;
#[cfg(not(target_arch = "wasm32"))]
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
#[cfg(not(target_arch = "wasm32"))]
use std::thread;

use anybit_formats::Memory;
use anybit_shaders::Modules;

use crate::context::scoped;
use crate::error::{Error, Result};
use crate::matrix::TEXEL;
use crate::problem::Problem;
use crate::specialize::{ShaderKey, Specialization};

/// What a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Binding {
    Uniform,
    Read,
    Write,
    Texture,
    WriteTexture,
}

impl Binding {
    const fn layout_type(self) -> wgpu::BindingType {
        let ty = match self {
            Self::Uniform => wgpu::BufferBindingType::Uniform,
            Self::Read => wgpu::BufferBindingType::Storage { read_only: true },
            Self::Write => wgpu::BufferBindingType::Storage { read_only: false },
            Self::Texture => return texels(wgpu::StorageTextureAccess::ReadOnly),
            Self::WriteTexture => return texels(wgpu::StorageTextureAccess::WriteOnly),
        };
        wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: None,
        }
    }
}

const fn texels(access: wgpu::StorageTextureAccess) -> wgpu::BindingType {
    wgpu::BindingType::StorageTexture {
        access,
        format: TEXEL,
        view_dimension: wgpu::TextureViewDimension::D2,
    }
}

/// The bindings of a matrix that is read, codes and side data.
pub(crate) const fn operand_bindings(memory: Memory) -> [Binding; 2] {
    match memory {
        Memory::Buffers => [Binding::Read, Binding::Read],
        Memory::Textures => [Binding::Texture, Binding::Texture],
        Memory::TextureCodes => [Binding::Texture, Binding::Read],
    }
}

/// Bindings of the GEMM family, in order: parameters, activations, weights, output; then a residual and a table of experts,
/// of which there may be neither.
pub(crate) fn gemm_bindings(activation: Memory, weight: Memory, problem: &Problem) -> Vec<Binding> {
    let mut bindings = vec![Binding::Uniform];
    bindings.extend(operand_bindings(activation));
    bindings.extend(operand_bindings(weight));
    bindings.push(Binding::Write);
    bindings.extend(problem.residual.then_some(Binding::Read));
    bindings.extend(problem.experts.map(|_| Binding::Read));
    bindings
}

/// The number of the binding of the output.
pub(crate) const OUTPUT_BINDING: u32 = 5;

/// The number of the binding of the experts' offsets.
pub(crate) const fn experts_binding(problem: &Problem) -> usize {
    6 + problem.residual as usize
}

/// The bindings of what quantises into a matrix: parameters, input, codes, side data, inverses.
pub(crate) const fn quantize_bindings(memory: Memory) -> [Binding; 5] {
    let codes = match memory {
        Memory::Buffers => Binding::Write,
        Memory::Textures | Memory::TextureCodes => Binding::WriteTexture,
    };
    [
        Binding::Uniform,
        Binding::Read,
        codes,
        Binding::Write,
        Binding::Write,
    ]
}

/// The bindings of what decodes a matrix: parameters, the matrix, output.
pub(crate) const fn decode_bindings(memory: Memory) -> [Binding; 4] {
    let [codes, side] = operand_bindings(memory);
    [Binding::Uniform, codes, side, Binding::Write]
}

/// Parameters, two inputs, output.
pub(crate) const ELEMENTWISE_BINDINGS: &[Binding] = &[
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Write,
];

/// A layout of bindings, and of the pipelines that have it. All kernels with the same bindings share one.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) bind_group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A kernel's pipeline, compiled once by the first thread that needs it.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) layout: Arc<Layout>,
    device: wgpu::Device,
    specialization: Specialization,
    /// What the driver remembers of pipelines, where it lets us keep it.
    driver_cache: Option<wgpu::PipelineCache>,
    /// What to link from, if not the embedded modules.
    modules: Option<Arc<Modules<'static>>>,
    compiled: OnceLock<wgpu::ComputePipeline>,
    compiling: Mutex<()>,
}

impl Pipeline {
    /// The compiled pipeline, compiled now if nobody has. Another thread that is at it is waited for, so that none is
    /// compiled twice.
    pub(crate) fn compiled(&self) -> Result<&wgpu::ComputePipeline> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        // It guards nothing that a panic could leave broken.
        let _compiling = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        let compiled = self.compile()?;
        Ok(self.compiled.get_or_init(|| compiled))
    }

    /// What its shader is linked from.
    pub(crate) fn specialization(&self) -> &Specialization {
        &self.specialization
    }

    pub(crate) fn is_compiled(&self) -> bool {
        self.compiled.get().is_some()
    }

    fn compile(&self) -> Result<wgpu::ComputePipeline> {
        let id = self.specialization.id.as_str();
        let linked = match &self.modules {
            None => self.specialization.link(),
            Some(modules) => self.specialization.link_from(modules),
        };
        let linked = linked.map_err(|source| Error::Link {
            kernel: id.to_string(),
            source,
        })?;
        let compiled = scoped(&self.device, |device| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(id),
                source: wgpu::ShaderSource::Wgsl(linked.wgsl.into()),
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(id),
                layout: Some(&self.layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every cell of workgroup memory is written before it is read.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.driver_cache.as_ref(),
            })
        });
        compiled.map_err(|error| match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory {
                what: "a pipeline",
                bytes: 0,
            },
            error => Error::Pipeline {
                kernel: id.to_string(),
                message: locate(&error.to_string(), &linked.line_map),
            },
        })
    }
}

/// Every pipeline so far, by what decides its shader's text: formats that differ in parameters alone share one. And the
/// layouts, by their bindings.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    pipelines: Mutex<HashMap<ShaderKey, Arc<Pipeline>>>,
    layouts: Mutex<HashMap<Box<[Binding]>, Arc<Layout>>>,
    driver_cache: Option<wgpu::PipelineCache>,
    modules: Option<Arc<Modules<'static>>>,
}

impl PipelineCache {
    pub(crate) fn new(
        driver_cache: Option<wgpu::PipelineCache>,
        modules: Option<Modules<'static>>,
    ) -> Self {
        Self {
            driver_cache,
            modules: modules.map(Arc::new),
            ..Self::default()
        }
    }

    /// What the driver remembers of the pipelines, if the device can tell.
    pub(crate) fn driver_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.driver_cache.as_ref()
    }

    /// The pipeline of a specialisation, perhaps yet to be compiled. May be called from several threads.
    pub(crate) fn get(
        &self,
        device: &wgpu::Device,
        specialization: &Specialization,
        bindings: &[Binding],
    ) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = lock(&self.pipelines).get(&specialization.key) {
            return Ok(Arc::clone(pipeline));
        }
        let layout = self.layout(device, specialization, bindings)?;
        let mut pipelines = lock(&self.pipelines);
        let pipeline = pipelines
            .entry(specialization.key.clone())
            .or_insert_with(|| {
                Arc::new(Pipeline {
                    layout,
                    device: device.clone(),
                    specialization: specialization.clone(),
                    driver_cache: self.driver_cache.clone(),
                    modules: self.modules.clone(),
                    compiled: OnceLock::new(),
                    compiling: Mutex::default(),
                })
            });
        Ok(Arc::clone(pipeline))
    }

    fn layout(
        &self,
        device: &wgpu::Device,
        specialization: &Specialization,
        bindings: &[Binding],
    ) -> Result<Arc<Layout>> {
        let mut layouts = lock(&self.layouts);
        if let Some(layout) = layouts.get(bindings) {
            return Ok(Arc::clone(layout));
        }
        let layout = scoped(device, |device| make_layout(device, bindings));
        let layout = Arc::new(layout.map_err(|error| Error::Pipeline {
            kernel: specialization.id.clone(),
            message: error.to_string(),
        })?);
        layouts.insert(bindings.into(), Arc::clone(&layout));
        Ok(layout)
    }
}

/// Compiles pipelines on as many threads as the machine has to spare; of several errors it tells the first.
pub(crate) fn compile_all(pipelines: &[Arc<Pipeline>]) -> Result<()> {
    let mut waiting: Vec<&Arc<Pipeline>> = Vec::new();
    for pipeline in pipelines {
        // Each once, so that no thread waits for another while there is more to do.
        if !pipeline.is_compiled() && !waiting.iter().any(|other| Arc::ptr_eq(other, pipeline)) {
            waiting.push(pipeline);
        }
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(pipeline) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
            pipeline.compiled()?;
        }
        Ok(())
    };
    #[cfg(not(target_arch = "wasm32"))]
    {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        thread::scope(|scope| {
            // This thread is one of them; where the system gives no other, it is the only one.
            let helpers: Vec<_> = (1..threads.min(waiting.len()))
                .filter_map(|_| {
                    let builder = thread::Builder::new().name("anybit-compile".into());
                    builder.spawn_scoped(scope, work).ok()
                })
                .collect();
            let mut result = work();
            for helper in helpers {
                // A helper that panics is one that the driver or wgpu made panic, as this thread would have.
                let outcome = helper
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(outcome);
            }
            result
        })
    }
    #[cfg(target_arch = "wasm32")]
    work()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves maps of whole pipelines and layouts.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_layout(device: &wgpu::Device, bindings: &[Binding]) -> Layout {
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
    let bind_group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("anybit"),
        entries: &entries,
    });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("anybit"),
        bind_group_layouts: &[Some(&bind_group)],
        immediate_size: 0,
    });
    Layout {
        bind_group,
        pipeline,
    }
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
