//! What an adapter or device can do, in the numbers that decide kernel choice.

use wgpu::{AdapterInfo, Backend, DeviceType, Features, Limits};

/// Optional features that anybit uses when a device has them. It requires none.
///
/// Make a device with `adapter.features() & wanted_features(..)` to let anybit run as fast as it can on it.
pub fn wanted_features(adapter: &wgpu::Adapter) -> Features {
    let wanted = Features::SUBGROUP | Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE;
    adapter.features() & wanted
}

/// Limits that serve anybit best on an adapter: WebGPU's defaults, raised where large matrices need it.
pub fn wanted_limits(adapter: &wgpu::Adapter) -> Limits {
    let available = adapter.limits();
    let mut limits = Limits::default().or_worse_values_from(&available);
    limits.max_storage_buffer_binding_size = available.max_storage_buffer_binding_size;
    limits.max_buffer_size = available.max_buffer_size;
    limits
}

/// Classes of device with the same trade-offs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceClass {
    /// A GPU, of any kind.
    Gpu,
    /// A driver that runs shaders on the CPU (lavapipe, SwiftShader, WARP): loads are dear, registers are many.
    Software,
}

/// What a device can do. Plain numbers, so that planning can be tested on made-up ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// The device's name.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API under wgpu.
    pub backend: Backend,
    /// What kind of device it is.
    pub class: DeviceClass,
    /// Smallest and largest subgroup size, where the device has the subgroup feature.
    pub subgroup: Option<(u32, u32)>,
    /// Whether a pass can be timed.
    pub timestamps: bool,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Bytes of workgroup memory.
    pub max_workgroup_memory: u32,
    /// Invocations a workgroup.
    pub max_invocations: u32,
    /// Workgroups in each dimension of a dispatch.
    pub max_workgroups: u32,
}

impl Caps {
    /// The floor: WebGPU's default limits and no optional feature.
    pub fn floor() -> Self {
        let limits = Limits::default();
        Self {
            name: "WebGPU defaults".into(),
            driver: String::new(),
            backend: Backend::Noop,
            class: DeviceClass::Gpu,
            subgroup: None,
            timestamps: false,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
        }
    }

    /// What a device can do. For a device of the caller, its own features and limits are the truth, not the adapter's.
    pub fn of_device(device: &wgpu::Device) -> Self {
        Self::new(&device.adapter_info(), device.features(), &device.limits())
    }

    /// What a device made from an adapter with its wanted features and limits could do.
    pub fn of_adapter(adapter: &wgpu::Adapter) -> Self {
        Self::new(
            &adapter.get_info(),
            wanted_features(adapter),
            &wanted_limits(adapter),
        )
    }

    fn new(info: &AdapterInfo, features: Features, limits: &Limits) -> Self {
        let driver = [info.driver.as_str(), info.driver_info.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        // A driver that reports no sizes is treated as having no subgroups.
        let subgroup = (features.contains(Features::SUBGROUP) && info.subgroup_min_size > 0)
            .then_some((info.subgroup_min_size, info.subgroup_max_size));
        Self {
            name: info.name.clone(),
            driver,
            backend: info.backend,
            class: if info.device_type == DeviceType::Cpu {
                DeviceClass::Software
            } else {
                DeviceClass::Gpu
            },
            subgroup,
            timestamps: features.contains(Features::TIMESTAMP_QUERY),
            // Offsets are u32 words, and a binding ends on a multiple of four.
            max_binding: limits
                .max_storage_buffer_binding_size
                .min(u64::from(u32::MAX))
                & !3,
            max_buffer: limits.max_buffer_size & !3,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
        }
    }
}
