//! Ceilings: how fast an adapter's arithmetic and memory can be at best, by kernels that do nothing else.

use anybit::wgpu;
use anybit::{Context, DeviceClass, Engine};
use anybit_shaders::{Header, LinkRequest, Modules};

use crate::Error;
use crate::timing::{Budget, Timer, Timing};

/// A ceiling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceiling {
    /// 10⁹ operations or bytes a second.
    pub(crate) rate: f64,
    /// The same for each second of CPU time: of one core of a software adapter.
    pub(crate) rate_per_core: Option<f64>,
}

/// What an adapter can do at best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceilings {
    pub(crate) multiply_add: Ceiling,
    pub(crate) dot4_signed: Ceiling,
    pub(crate) dot4_unsigned: Ceiling,
    /// Of one-bit operations.
    pub(crate) bit_count: Ceiling,
    pub(crate) swar: Ceiling,
    pub(crate) load: Ceiling,
    pub(crate) copy: Ceiling,
}

impl Ceilings {
    /// The ceiling of an engine's arithmetic, and how many of its operations a product of codes of so many bits is; `None`
    /// of engines that no probe is for.
    pub(crate) fn arithmetic(
        &self,
        engine: Engine,
        (activation_bits, weight_bits): (u32, u32),
    ) -> Option<(Ceiling, u32)> {
        match engine {
            Engine::Fma => Some((self.multiply_add, 1)),
            Engine::Dot4 => Some((self.dot4_signed, 1)),
            Engine::Swar => Some((self.swar, 1)),
            // A product of p and q bits is p·q one-bit products.
            Engine::Bitplane => Some((self.bit_count, activation_bits * weight_bits)),
            _ => None,
        }
    }

    /// The fraction that some work reaches of what the adapter's arithmetic allows for an engine and codes of so many
    /// bits. On software adapters both are for each second of CPU time, since wall time there depends on what else the
    /// machine does.
    pub(crate) fn fraction(
        &self,
        engine: Engine,
        bits: (u32, u32),
        operations: f64,
        timing: Timing,
    ) -> Option<f64> {
        let (ceiling, products) = self.arithmetic(engine, bits)?;
        let found = rate(f64::from(products) * operations, timing);
        Some(match (found.rate_per_core, ceiling.rate_per_core) {
            (Some(found), Some(ceiling)) => found / ceiling,
            _ => found.rate / ceiling.rate,
        })
    }

    /// Name, unit and ceiling of each, for the report.
    pub(crate) fn named(&self) -> [(&'static str, &'static str, Ceiling); 7] {
        [
            ("f32 multiply-add", "Gop/s", self.multiply_add),
            ("dot4 signed", "Gop/s", self.dot4_signed),
            ("dot4 unsigned", "Gop/s", self.dot4_unsigned),
            ("two-in-one multiply", "Gop/s", self.swar),
            ("bit count, one-bit", "Gop/s", self.bit_count),
            ("load", "GB/s", self.load),
            ("copy", "GB/s", self.copy),
        ]
    }
}

/// A register loop over one kind of step.
struct Arithmetic {
    name: &'static str,
    module: &'static str,
    text: &'static str,
    /// Operations of a step.
    operations: f64,
    /// Accumulators and unrolled steps to try; the best counts.
    tiles: &'static [(u32, u32)],
}

const MULTIPLY_ADD: Arithmetic = Arithmetic {
    name: "f32 multiply-add",
    module: "step_f32",
    text: include_str!("../wgsl/probe/step_f32.wgsl"),
    operations: 2.0,
    tiles: &[(16, 8), (32, 4), (64, 4)],
};
const DOT4_SIGNED: Arithmetic = Arithmetic {
    name: "dot4 signed",
    module: "step_dot4_signed",
    text: include_str!("../wgsl/probe/step_dot4_signed.wgsl"),
    operations: 8.0,
    tiles: &[(16, 8)],
};
const DOT4_UNSIGNED: Arithmetic = Arithmetic {
    name: "dot4 unsigned",
    module: "step_dot4_unsigned",
    text: include_str!("../wgsl/probe/step_dot4_unsigned.wgsl"),
    operations: 8.0,
    tiles: &[(16, 8)],
};
const BIT_COUNT: Arithmetic = Arithmetic {
    name: "bit count",
    module: "step_bit_count",
    text: include_str!("../wgsl/probe/step_bit_count.wgsl"),
    operations: 64.0,
    tiles: &[(16, 8)],
};
const SWAR: Arithmetic = Arithmetic {
    name: "two-in-one multiply",
    module: "step_swar",
    text: include_str!("../wgsl/probe/step_swar.wgsl"),
    operations: 4.0,
    tiles: &[(16, 8)],
};

const ARITHMETIC: &str = include_str!("../wgsl/probe/arithmetic.wgsl");
const LOAD: &str = include_str!("../wgsl/probe/load.wgsl");
const COPY: &str = include_str!("../wgsl/probe/copy.wgsl");

const WORKGROUP: u32 = 64;

/// Bytes that the memory probes read: more than most caches hold.
const MEMORY: u64 = 64 << 20;

/// Measures every ceiling.
///
/// # Errors
///
/// [`Error::Probe`], [`Error::ProbeRejected`], and those of the timer.
pub(crate) fn ceilings(context: &Context, timer: &Timer) -> Result<Ceilings, Error> {
    let probes = Probes { context, timer };
    Ok(Ceilings {
        multiply_add: probes.arithmetic(&MULTIPLY_ADD)?,
        dot4_signed: probes.arithmetic(&DOT4_SIGNED)?,
        dot4_unsigned: probes.arithmetic(&DOT4_UNSIGNED)?,
        bit_count: probes.arithmetic(&BIT_COUNT)?,
        swar: probes.arithmetic(&SWAR)?,
        load: probes.memory("load", LOAD, 1)?,
        copy: probes.memory("copy", COPY, 2)?,
    })
}

struct Probes<'a> {
    context: &'a Context,
    timer: &'a Timer,
}

/// A probe on the device.
struct Ready {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    uniform: wgpu::Buffer,
}

impl Probes<'_> {
    fn arithmetic(&self, probe: &Arithmetic) -> Result<Ceiling, Error> {
        let mut best: Option<Ceiling> = None;
        for &(accumulators, unroll) in probe.tiles {
            let header = Header::new()
                .constant_u32("WORKGROUP", WORKGROUP)
                .constant_u32("ACCUMULATORS", accumulators)
                .constant_u32("UNROLL", unroll);
            let wgsl = Modules::new()
                .with("probe/arithmetic", ARITHMETIC)
                .with(probe.module, probe.text)
                .link(&LinkRequest {
                    root: "probe/arithmetic",
                    slots: &[("step", probe.module)],
                    header: &header,
                })
                .map_err(|source| Error::Probe {
                    name: probe.name,
                    source,
                })?
                .wgsl;
            let workgroups = self.workgroups();
            let invocations = workgroups * WORKGROUP;
            let ready = self.prepare(probe.name, wgsl, u64::from(invocations) * 4, None)?;
            // Twice as many iterations until a pass is long against a submit.
            let mut iterations = 64;
            let timing = loop {
                let timing = self.time(&ready, iterations, workgroups)?;
                if timing.seconds > 5e-3 || iterations >= 1 << 20 {
                    break timing;
                }
                iterations *= if timing.seconds > 1e-3 { 4 } else { 16 };
            };
            let steps = f64::from(invocations) * f64::from(iterations * unroll * accumulators);
            let found = rate(probe.operations * steps, timing);
            if best.is_none_or(|best| found.rate > best.rate) {
                best = Some(found);
            }
        }
        Ok(best.unwrap_or(Ceiling {
            rate: f64::NAN,
            rate_per_core: None,
        }))
    }

    fn memory(
        &self,
        name: &'static str,
        text: &'static str,
        crossings: u64,
    ) -> Result<Ceiling, Error> {
        let caps = self.context.caps();
        let header = Header::new().constant_u32("WORKGROUP", WORKGROUP);
        let wgsl = Modules::new()
            .with("probe", text)
            .link(&LinkRequest {
                root: "probe",
                slots: &[],
                header: &header,
            })
            .map_err(|source| Error::Probe { name, source })?
            .wgsl;
        let workgroups = self.workgroups();
        let invocations = workgroups * WORKGROUP;
        let line = u64::from(invocations) * 16;
        let iterations = (MEMORY.min(caps.max_binding) / line).max(1);
        let bytes = iterations * line;
        // A copy writes as much as it reads.
        let written = if crossings == 2 { bytes } else { line };
        let ready = self.prepare(name, wgsl, written, Some(bytes))?;
        let iterations = u32::try_from(iterations).unwrap_or(u32::MAX);
        let timing = self.time(&ready, iterations, workgroups)?;
        Ok(rate((crossings * bytes) as f64, timing))
    }

    /// Enough to fill the device.
    fn workgroups(&self) -> u32 {
        match self.context.caps().class {
            DeviceClass::Software => 64,
            _ => 4096,
        }
    }

    fn time(&self, ready: &Ready, iterations: u32, workgroups: u32) -> Result<Timing, Error> {
        // Seed of the register loops, and distance of an invocation's loads: the number of invocations.
        let parameters = [iterations, workgroups * WORKGROUP, 0, 0];
        let queue = self.context.queue();
        queue.write_buffer(&ready.uniform, 0, bytemuck::bytes_of(&parameters));
        self.timer.measure(Budget::QUICK, |pass| {
            pass.set_pipeline(&ready.pipeline);
            pass.set_bind_group(0, &ready.bind_group, &[]);
            pass.dispatch_workgroups(workgroups, 1, 1);
        })
    }

    fn prepare(
        &self,
        name: &'static str,
        wgsl: String,
        output: u64,
        source: Option<u64>,
    ) -> Result<Ready, Error> {
        let device = self.context.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(name),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let uniform = buffer(
            16,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        );
        let mut buffers = vec![buffer(output, wgpu::BufferUsages::STORAGE)];
        buffers.extend(source.map(|size| buffer(size, wgpu::BufferUsages::STORAGE)));
        let types = [
            wgpu::BufferBindingType::Uniform,
            wgpu::BufferBindingType::Storage { read_only: false },
            wgpu::BufferBindingType::Storage { read_only: true },
        ];
        let (layout_entries, entries): (Vec<_>, Vec<_>) = std::iter::once(&uniform)
            .chain(&buffers)
            .zip(types)
            .zip(0..)
            .map(|((buffer, ty), binding)| {
                let layout = wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty,
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                };
                let entry = wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                };
                (layout, entry)
            })
            .unzip();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &layout_entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &layout,
            entries: &entries,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(Error::ProbeRejected {
                name,
                message: error.to_string(),
            }),
            None => Ok(Ready {
                pipeline,
                bind_group,
                uniform,
            }),
        }
    }
}

fn rate(amount: f64, timing: Timing) -> Ceiling {
    Ceiling {
        rate: amount / timing.seconds / 1e9,
        rate_per_core: timing.cpu_seconds.map(|seconds| amount / seconds / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_compare_like_with_like() {
        let ceiling = |rate, rate_per_core| Ceiling {
            rate,
            rate_per_core,
        };
        let mut ceilings = Ceilings {
            multiply_add: ceiling(10.0, Some(5.0)),
            dot4_signed: ceiling(20.0, None),
            dot4_unsigned: ceiling(30.0, None),
            bit_count: ceiling(600.0, None),
            swar: ceiling(40.0, None),
            load: ceiling(1.0, None),
            copy: ceiling(1.0, None),
        };
        let timing = |cpu_seconds| Timing {
            seconds: 2.0,
            cpu_seconds,
        };
        let fraction = |ceilings: &Ceilings, engine, bits, cpu_seconds| {
            ceilings.fraction(engine, bits, 1e10, timing(cpu_seconds))
        };
        assert_eq!(fraction(&ceilings, Engine::Fma, (32, 4), None), Some(0.5));
        assert_eq!(fraction(&ceilings, Engine::Dot4, (8, 4), None), Some(0.25));
        assert_eq!(
            fraction(&ceilings, Engine::Bitplane, (2, 3), None),
            Some(0.05)
        );
        // One core was busy, at 4 of its 5.
        assert_eq!(
            fraction(&ceilings, Engine::Fma, (32, 4), Some(2.5)),
            Some(0.8)
        );
        ceilings.multiply_add.rate_per_core = None;
        assert_eq!(
            fraction(&ceilings, Engine::Fma, (32, 4), Some(2.5)),
            Some(0.5)
        );
    }
}
