//! A device with its caches.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use anybit_shaders::Modules;

use crate::bind_groups::{BindGroups, Life};
use crate::caps::{Caps, DeviceClass, requested_features, wanted_limits};
use crate::choices::{Choices, Explanation, explain};
use crate::error::{Error, Result};
use crate::pipeline::{Binding, Pipeline, PipelineCache, compile_all};
use crate::pipeline_cache;
use crate::plan::{Plan, PlanOptions, plan_with};
use crate::problem::Problem;
#[cfg(not(target_arch = "wasm32"))]
use crate::readback::Poller;
use crate::self_check::Verdicts;
use crate::specialize::Specialization;
#[cfg(not(target_arch = "wasm32"))]
use crate::staging::Staging;

/// Which adapter to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Only adapters of these backends; all that the crate was built with, by default.
    pub backends: Option<wgpu::Backends>,
    /// Only adapters whose name holds this text, in any case.
    pub adapter: Option<String>,
    /// What [`Context::pipeline_cache_data`] returned in an earlier run, so that the driver need not compile the same
    /// pipelines again. Bytes that are damaged, or of another adapter or driver, do no harm and are of no use.
    ///
    /// They must come from a place that only the user who runs the program can write to. Their checksum tells damage, not
    /// malice: whoever can write them can compute it too, and drivers read what they are given without distrust.
    pub pipeline_cache: Option<Vec<u8>>,
}

impl ContextOptions {
    /// Only adapters of these backends.
    #[must_use]
    pub fn with_backends(mut self, backends: wgpu::Backends) -> Self {
        self.backends = Some(backends);
        self
    }

    /// Only adapters whose name holds this text, in any case.
    #[must_use]
    pub fn with_adapter(mut self, name: impl Into<String>) -> Self {
        self.adapter = Some(name.into());
        self
    }

    /// With the pipelines of an earlier run: see [`pipeline_cache`](Self::pipeline_cache).
    #[must_use]
    pub fn with_pipeline_cache(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.pipeline_cache = Some(data.into());
        self
    }
}

/// The adapters that fit some options: hardware before software, discrete GPUs first.
///
/// # Errors
///
/// [`Error::NoBackend`] if the crate was built without a backend for this platform.
pub async fn adapters(options: &ContextOptions) -> Result<Vec<wgpu::Adapter>> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Err(Error::NoBackend);
    }
    let backends = options.backends.unwrap_or(wgpu::Backends::all());
    let mut found = Vec::new();
    for (instance, backends) in instances(backends) {
        found.extend(instance.enumerate_adapters(backends).await);
    }
    found.retain(|adapter| {
        let info = adapter.get_info();
        info.backend != wgpu::Backend::Noop
            && adapter
                .get_downlevel_capabilities()
                .flags
                .contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    if let Some(name) = &options.adapter {
        let name = name.to_lowercase();
        found.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&name));
    }
    found.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend == wgpu::Backend::Gl)
    });
    Ok(found)
}

/// wgpu for each backend, and what to ask it for. It is the same each time: buffers are told apart by numbers within an instance, so
/// that only devices of one refuse what belongs to another. One for all backends would start drivers that nobody asked for.
#[cfg(not(target_arch = "wasm32"))]
fn instances(backends: wgpu::Backends) -> Vec<(wgpu::Instance, wgpu::Backends)> {
    static KEPT: Mutex<Vec<(wgpu::Backends, wgpu::Instance)>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut instances = Vec::new();
    for backend in (backends & wgpu::Instance::enabled_backend_features()).iter() {
        let known = kept.iter().find(|(of, _)| *of == backend);
        let instance = match known {
            Some((_, instance)) => instance.clone(),
            None => new_instance(backend),
        };
        // Adapters of OpenGL from one instance cannot be used by two threads: wgpu-hal 30 gives them the same context of OpenGL.
        if known.is_none() && backend != wgpu::Backends::GL {
            kept.push((backend, instance.clone()));
        }
        instances.push((instance, backend));
    }
    instances
}

/// wgpu in a browser, which tells devices apart itself.
#[cfg(target_arch = "wasm32")]
fn instances(backends: wgpu::Backends) -> [(wgpu::Instance, wgpu::Backends); 1] {
    [(new_instance(backends), backends)]
}

fn new_instance(backends: wgpu::Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // Debug flags make some backends compile shaders without optimisation.
        flags: wgpu::InstanceFlags::empty().with_env(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// A device and queue, with the pipelines made for it. Cheap to clone; may be shared between threads.
#[derive(Clone)]
pub struct Context {
    pub(crate) inner: Arc<Inner>,
    /// Where pipelines are noted that are to be compiled later, together.
    later: Option<Arc<Mutex<Vec<Arc<Pipeline>>>>>,
    choices: Arc<Choices>,
    /// What a dispatch may take at most, by a guess on the safe side.
    longest: Option<Duration>,
    /// Whether kernels are checked before they are planned.
    #[cfg(not(target_arch = "wasm32"))]
    checked: bool,
}

/// What a dispatch may take at most on GPUs unless it is said: drivers reset a GPU that does not answer for two seconds.
const LONGEST_DISPATCH: Duration = Duration::from_millis(500);

pub(crate) struct Inner {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) caps: Caps,
    pub(crate) pipelines: PipelineCache,
    pub(crate) bind_groups: Arc<BindGroups>,
    verdicts: Mutex<Verdicts>,
    /// What dispatches of one operation hand on to the next.
    scratch: Mutex<Option<(wgpu::Buffer, Arc<Life>)>>,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) staging: Staging,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) poller: Poller,
}

impl Inner {
    /// What self-checks have found.
    pub(crate) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        // A panic elsewhere leaves a whole map.
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("caps", &self.inner.caps)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context on a device of the caller, with its queue. anybit uses of it what it has and requires nothing; ask for
    /// [`wanted_features`](crate::wanted_features) and [`wanted_limits`] when making it.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::from_device_with(device, queue, None)
    }

    /// [`from_device`](Self::from_device) with the pipelines of an earlier run, if there are any and the device has
    /// [`PIPELINE_CACHE`](wgpu::Features::PIPELINE_CACHE): see [`ContextOptions::pipeline_cache`], also for where they must
    /// come from.
    pub fn from_device_with(
        device: wgpu::Device,
        queue: wgpu::Queue,
        pipeline_cache: Option<&[u8]>,
    ) -> Self {
        let caps = Caps::of_device(&device);
        Self::new(device, queue, caps, pipeline_cache, None)
    }

    /// [`from_device_with`](Self::from_device_with) on a device that was made from this adapter, which alone can tell what
    /// cooperative matrices it has. The engine [`Matrix`](crate::Engine::Matrix) needs it, and a device with
    /// [`wanted_experimental_features`](crate::wanted_experimental_features).
    pub fn from_device_of(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        pipeline_cache: Option<&[u8]>,
    ) -> Self {
        let caps = Caps::of_device_of(adapter, &device);
        Self::new(device, queue, caps, pipeline_cache, None)
    }

    /// [`from_device`](Self::from_device), planned for as a device of that class: for a driver that does not tell that it runs
    /// on a processor, or tells so wrongly.
    pub fn from_device_as(class: DeviceClass, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let mut caps = Caps::of_device(&device);
        caps.class = class;
        Self::new(device, queue, caps, None, None)
    }

    /// [`from_device`](Self::from_device) with other shaders than the embedded ones: for tests that change a module, as
    /// [`Specialization::link_from`] is.
    pub fn from_device_and_modules(
        device: wgpu::Device,
        queue: wgpu::Queue,
        modules: Modules<'static>,
    ) -> Self {
        let caps = Caps::of_device(&device);
        Self::new(device, queue, caps, None, Some(modules))
    }

    #[cfg_attr(
        target_arch = "wasm32",
        expect(
            clippy::arc_with_non_send_sync,
            reason = "a browser has one thread; Arc is what the other targets share"
        )
    )]
    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        caps: Caps,
        pipeline_cache: Option<&[u8]>,
        modules: Option<Modules<'static>>,
    ) -> Self {
        let longest = match caps.class {
            DeviceClass::Gpu => Some(LONGEST_DISPATCH),
            // Nobody watches over a processor.
            DeviceClass::Software => None,
        };
        Self {
            inner: Arc::new(Inner {
                #[cfg(not(target_arch = "wasm32"))]
                staging: Staging::default(),
                #[cfg(not(target_arch = "wasm32"))]
                poller: Poller::new(device.clone()),
                pipelines: PipelineCache::new(
                    pipeline_cache::create(&device, pipeline_cache),
                    modules,
                ),
                device,
                queue,
                caps,
                bind_groups: Arc::default(),
                verdicts: Mutex::default(),
                scratch: Mutex::default(),
            }),
            later: None,
            choices: Arc::new(Choices::builtin().clone()),
            longest,
            #[cfg(not(target_arch = "wasm32"))]
            checked: false,
        }
    }

    /// The same device, with another limit to what a dispatch of a product may take; none by `None`. Long products are several
    /// dispatches, cut along rows of X and of W, of which each output is the same, bit for bit; and what
    /// [`run`](Self::run) and [`submit_and_read`](Self::submit_and_read) submit is several submissions.
    ///
    /// Operating systems reset a GPU that does not answer for some time, two seconds on Windows, and a desktop stands still
    /// meanwhile. How long a dispatch takes is not known beforehand: it is reckoned for a slow device, a GPU of 10¹¹ multiply-adds
    /// a second or a software adapter of 10¹⁰, so that it is shorter on most. By default the limit is half a second on GPUs, and
    /// software adapters have none.
    ///
    /// A dispatch is not made shorter than some hundred rows of an operand take, and products whose K is split are not cut, which
    /// are those of few outputs.
    #[must_use]
    pub fn with_longest_dispatch(mut self, longest: Option<Duration>) -> Self {
        self.longest = longest;
        self
    }

    /// What a dispatch of a product may take at most: see [`with_longest_dispatch`](Self::with_longest_dispatch).
    pub fn longest_dispatch(&self) -> Option<Duration> {
        self.longest
    }

    /// The same device, for which no kernel is planned that it has not been seen to run rightly: a small case of each runs when it
    /// is first planned, and where a driver gets it wrong the next kernel takes its place, as in
    /// [`plan_checked`](Self::plan_checked). Kernels whose results are not exact by design have no such case, and are planned as
    /// ever.
    ///
    /// A check takes some milliseconds, and what the driver needs to compile the kernel. Verdicts are kept in the context and its
    /// clones, and from run to run by [`Verdicts::to_json`]. Planning so waits for the device: not for who polls it on the same
    /// thread ([`external_poll`](Self::external_poll)), nor for browsers, where [`plan_checked`](Self::plan_checked) can be
    /// awaited.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn with_self_checks(mut self) -> Self {
        self.checked = true;
        self
    }

    /// The same device with measured choices of kernels, beside those that it has and before them.
    ///
    /// Plans of one context never change, so nothing that relies on one kernel for every number of rows
    /// ([`PlanOptions::deterministic`]) mixes contexts with different choices.
    #[must_use]
    pub fn with_choices(mut self, choices: Choices) -> Self {
        Arc::make_mut(&mut self.choices).merge(choices);
        self
    }

    /// The same device with the cost model alone, without even the choices that come with the crate.
    #[must_use]
    pub fn without_choices(mut self) -> Self {
        self.choices = Arc::default();
        self
    }

    /// The measured choices that plans go by.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// A context on a device of its own: the best adapter that fits the options, with the features and limits that
    /// anybit wants.
    ///
    /// # Errors
    ///
    /// [`Error::NoAdapter`], which lists what was found; [`Error::NoBackend`]; [`Error::RequestDevice`].
    pub async fn request(options: &ContextOptions) -> Result<Self> {
        let Some(adapter) = adapters(options).await?.into_iter().next() else {
            let everything = ContextOptions::default();
            let found = adapters(&everything)
                .await?
                .iter()
                .map(|adapter| {
                    let info = adapter.get_info();
                    format!("{} ({})", info.name, info.backend)
                })
                .collect();
            return Err(Error::NoAdapter {
                wanted: describe(options),
                found,
            });
        };
        Self::from_adapter_with(&adapter, options.pipeline_cache.as_deref()).await
    }

    /// A context on a device made from an adapter, with the features and limits that anybit wants.
    ///
    /// # Errors
    ///
    /// [`Error::RequestDevice`].
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        Self::from_adapter_with(adapter, None).await
    }

    async fn from_adapter_with(
        adapter: &wgpu::Adapter,
        pipeline_cache: Option<&[u8]>,
    ) -> Result<Self> {
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("anybit"),
                required_features: requested_features(adapter),
                required_limits: wanted_limits(adapter),
                experimental_features: experimental_features(),
                ..Default::default()
            })
            .await
            .map_err(|source| Error::RequestDevice {
                adapter: adapter.get_info().name,
                source,
            })?;
        Ok(Self::from_device_of(adapter, device, queue, pipeline_cache))
    }

    /// As [`request`](Self::request), waiting for it.
    ///
    /// # Errors
    ///
    /// Those of [`request`](Self::request).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_blocking(options: &ContextOptions) -> Result<Self> {
        pollster::block_on(Self::request(options))
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// How this device does a problem.
    ///
    /// # Errors
    ///
    /// Those of [`plan()`](crate::plan()).
    pub fn plan(&self, problem: &Problem) -> Result<Plan> {
        self.plan_with(problem, &PlanOptions::default())
    }

    /// How this device does a problem, under restrictions.
    ///
    /// # Errors
    ///
    /// Those of [`plan()`](crate::plan()); with [self-checks](Self::with_self_checks), [`Error::OutOfMemory`] and
    /// [`Error::DeviceLost`].
    pub fn plan_with(&self, problem: &Problem, options: &PlanOptions) -> Result<Plan> {
        #[cfg(not(target_arch = "wasm32"))]
        if self.checked {
            return pollster::block_on(self.plan_passed(problem, options, true));
        }
        self.plan_any(problem, options)
    }

    /// A plan by what is known, without a check.
    pub(crate) fn plan_any(&self, problem: &Problem, options: &PlanOptions) -> Result<Plan> {
        plan_with(
            problem,
            &self.inner.caps,
            &self.with_own_verdicts(options),
            &self.choices,
        )
    }

    /// How this device comes to a kernel for a problem, under restrictions.
    ///
    /// # Errors
    ///
    /// Those of [`candidates`](crate::candidates).
    pub fn explain(&self, problem: &Problem, options: &PlanOptions) -> Result<Explanation> {
        explain(
            problem,
            &self.inner.caps,
            &self.with_own_verdicts(options),
            &self.choices,
        )
    }

    /// The options with what self-checks have found on this device.
    pub(crate) fn with_own_verdicts(&self, options: &PlanOptions) -> PlanOptions {
        let mut verdicts = self.verdicts();
        verdicts.add(&options.verdicts);
        options.clone().with_verdicts(verdicts)
    }

    /// Compiles the pipelines of plans ahead of their first use, on several threads, and waits for them. May be called from
    /// several threads: none compiles what another is compiling or has compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Pipeline`] if the driver rejects one.
    pub fn warm_up<'a>(&self, plans: impl IntoIterator<Item = &'a Plan>) -> Result<()> {
        let Inner {
            pipelines, device, ..
        } = &*self.inner;
        let pipelines = plans.into_iter().flat_map(|plan| {
            let bindings = plan.bindings();
            let product = pipelines.get(device, plan.specialization(), &bindings);
            let sum = plan.is_split().then(|| {
                let (specialization, bindings) = plan.add_parts();
                pipelines.get(device, &specialization, &bindings)
            });
            std::iter::once(product).chain(sum)
        });
        compile_all(&pipelines.collect::<Result<Vec<_>>>()?)
    }

    /// Runs `prepare` with a context that leaves pipelines to be compiled later; then compiles all that it has met, on
    /// several threads, and waits for them. For all that a model does before its first token: one pipeline after the other
    /// takes as many times as long as there are threads.
    ///
    /// What `prepare` returns is ready to be recorded. If it is recorded within `prepare` already, that compiles what it
    /// needs.
    ///
    /// # Errors
    ///
    /// Those of `prepare`; [`Error::Pipeline`] if the driver rejects a pipeline.
    ///
    /// ```no_run
    /// # use anybit::{Context, Error, Operands, Plan, Prepared};
    /// # fn both(context: &Context, plan: &Plan, x: Operands<'_>, y: Operands<'_>) -> Result<[Prepared; 2], Error> {
    /// context.prepare_together(|context| {
    ///     Ok([context.prepare(plan, x)?, context.prepare(plan, y)?])
    /// })
    /// # }
    /// ```
    pub fn prepare_together<T, E: From<Error>>(
        &self,
        prepare: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let later = Arc::<Mutex<Vec<_>>>::default();
        let prepared = prepare(&Self {
            later: Some(Arc::clone(&later)),
            ..self.clone()
        })?;
        let pipelines = std::mem::take(&mut *later.lock().unwrap_or_else(PoisonError::into_inner));
        compile_all(&pipelines)?;
        Ok(prepared)
    }

    /// This context, of which pipelines are compiled when they are asked for.
    pub(crate) fn compiling(&self) -> Self {
        Self {
            later: None,
            ..self.clone()
        }
    }

    /// The pipeline of a kernel: compiled, unless that is for later.
    pub(crate) fn pipeline(
        &self,
        specialization: &Specialization,
        bindings: &[Binding],
    ) -> Result<Arc<Pipeline>> {
        let Inner {
            pipelines, device, ..
        } = &*self.inner;
        let pipeline = pipelines.get(device, specialization, bindings)?;
        match &self.later {
            Some(later) if !pipeline.is_compiled() => {
                let mut later = later.lock().unwrap_or_else(PoisonError::into_inner);
                later.push(Arc::clone(&pipeline));
            }
            _ => {
                pipeline.compiled()?;
            }
        }
        Ok(pipeline)
    }

    /// What the driver remembers of the pipelines compiled so far, to be kept for a later run
    /// ([`ContextOptions::pipeline_cache`]). `None` where the device cannot tell: all but Vulkan, and devices of the caller
    /// without [`PIPELINE_CACHE`](wgpu::Features::PIPELINE_CACHE).
    ///
    /// Write it to a new file and rename that over the old one, so that it is whole or not there.
    pub fn pipeline_cache_data(&self) -> Option<Vec<u8>> {
        let cache = self.inner.pipelines.driver_cache()?;
        pipeline_cache::save(&self.inner.device, cache)
    }

    /// How many bind groups are kept for products that are prepared again: at most 1024, and none that a dropped matrix was
    /// in.
    pub fn kept_bind_groups(&self) -> usize {
        self.inner.bind_groups.len()
    }

    /// Leaves polling the device to the caller: no helper thread polls while reads are pending. Nothing that waits for a read
    /// returns before another thread has polled.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn external_poll(&self, external: bool) {
        self.inner.poller.set_external(external);
    }

    /// Calls wgpu, and catches its complaints: without the scopes they would reach the application's handler, which panics by
    /// default. What could be checked was checked before, so what is left is a device that is lost or has no memory, and work
    /// that the caller recorded.
    pub(crate) fn guard<T>(&self, call: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.guard_memory("what its driver needs for the work", 0, call)
    }

    /// [`guard`](Self::guard) of a call that takes memory for something of so many bytes.
    pub(crate) fn guard_memory<T>(
        &self,
        what: &'static str,
        bytes: u64,
        call: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T> {
        match scoped(&self.inner.device, call) {
            Ok(output) => Ok(output),
            Err(wgpu::Error::OutOfMemory { source }) => Err(match self.is_lost() {
                // Where more than a buffer was to be made, wgpu gives a device up that had no memory for it.
                true => Error::DeviceLost {
                    reason: format!("it had no memory for {what}: {source}"),
                },
                false => Error::OutOfMemory { what, bytes },
            }),
            Err(error) => Err(self.complaint(error.to_string())),
        }
    }

    /// What a complaint of wgpu means.
    fn complaint(&self, reason: String) -> Error {
        match self.is_lost() {
            true => Error::DeviceLost { reason },
            false => Error::Refused { reason },
        }
    }

    /// Whether the device is gone. Of one that is, wgpu makes buffers that are none without a word, and complains when they are
    /// used. A callback would tell, too, but there is room for one, which may be the application's.
    pub(crate) fn is_lost(&self) -> bool {
        let probe = scoped(&self.inner.device, |device| {
            let probe = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("is there a device"),
                size: 4,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            probe.map_async(wgpu::MapMode::Read, .., |_| ());
        });
        // One that has no memory even for this is not lost.
        !matches!(probe, Ok(()) | Err(wgpu::Error::OutOfMemory { .. }))
    }

    /// A buffer of so many bytes or more that all operations share: what one dispatch writes there is for the next of the
    /// same operation alone. Dispatches of a queue run in order, so operations do not get in each other's way.
    pub(crate) fn scratch(
        &self,
        what: &'static str,
        bytes: u64,
    ) -> Result<(wgpu::Buffer, Arc<Life>)> {
        let kept = &self.inner.scratch;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = kept.as_ref().filter(|(buffer, _)| buffer.size() >= bytes) {
            return Ok(scratch.clone());
        }
        let buffer = self.buffer(what, bytes, wgpu::BufferUsages::STORAGE)?;
        let scratch = (buffer, Life::new());
        *kept = Some(scratch.clone());
        Ok(scratch)
    }

    /// A buffer, or the error that says why there is none.
    pub(crate) fn buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.create_buffer(what, bytes, usage, false)
    }

    /// A buffer to copy from, mapped for writing.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn mapped_buffer(&self, what: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        self.create_buffer(what, bytes, usage, true)
    }

    fn create_buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer> {
        let limit = self.inner.caps.max_buffer;
        if bytes > limit {
            return Err(Error::BindingTooLarge { what, bytes, limit });
        }
        self.guard_memory(what, bytes, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size: bytes,
                usage,
                mapped_at_creation: mapped,
            })
        })
    }
}

/// wgpu's leave to use experimental features, which only the cargo feature `experimental` gives.
#[cfg(feature = "experimental")]
#[expect(
    unsafe_code,
    reason = "wgpu wants it acknowledged that its experimental features may be unsound"
)]
fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: there is nothing to uphold. wgpu asks that its bugs be reckoned with and reported; whoever turns the cargo
    // feature `experimental` on has read so in its documentation.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// wgpu's leave to use experimental features, which only the cargo feature `experimental` gives.
#[cfg(not(feature = "experimental"))]
const fn experimental_features() -> wgpu::ExperimentalFeatures {
    wgpu::ExperimentalFeatures::disabled()
}

fn describe(options: &ContextOptions) -> String {
    let mut parts = Vec::new();
    if let Some(name) = &options.adapter {
        parts.push(format!("the name {name:?}"));
    }
    if let Some(backends) = options.backends {
        parts.push(format!("the backends {backends:?}"));
    }
    if parts.is_empty() {
        "a compute shader".to_string()
    } else {
        parts.join(" and ")
    }
}

/// Calls wgpu and takes what it complains of: of memory first, since what comes after is for want of it.
pub(crate) fn scoped<T>(
    device: &wgpu::Device,
    make: impl FnOnce(&wgpu::Device) -> T,
) -> Result<T, wgpu::Error> {
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let made = make(device);
    let errors = [
        resolve_now(memory.pop()),
        resolve_now(internal.pop()),
        resolve_now(validation.pop()),
    ];
    match errors.into_iter().flatten().next() {
        Some(error) => Err(error),
        None => Ok(made),
    }
}

/// The output of a future that is ready already, as error scopes are on all native backends. In a browser it is not, and
/// errors reach the page's console instead.
fn resolve_now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut std::task::Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => None,
    }
}
