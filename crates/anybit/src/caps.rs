//! What an adapter or device can do, in the numbers that decide kernel choice.

use std::fmt;

use wgpu::{
    AdapterInfo, Backend, CooperativeMatrixProperties, CooperativeScalarType, DeviceType, Features,
    Limits,
};

/// Optional features that anybit uses when a device has them. It requires none.
///
/// Make a device with `adapter.features() & wanted_features(..)` to let anybit run as fast as it can on it.
pub fn wanted_features(adapter: &wgpu::Adapter) -> Features {
    let wanted = Features::SUBGROUP | Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE;
    adapter.features() & wanted
}

/// The features that anybit makes its own devices with.
pub(crate) fn requested_features(adapter: &wgpu::Adapter) -> Features {
    let experimental = if cfg!(feature = "experimental") {
        wanted_experimental_features(adapter)
    } else {
        Features::empty()
    };
    wanted_features(adapter) | experimental
}

/// Experimental features of wgpu that [`Engine::Matrix`](crate::Engine::Matrix) needs, with those that go with them, on
/// adapters that have the matrices for it; nothing on others.
///
/// A device with them is made under wgpu's
/// [`ExperimentalFeatures::enabled`](wgpu::ExperimentalFeatures::enabled), which is `unsafe`: wgpu warns that such features
/// may have bugs that break memory safety. So anybit asks for them by itself only with the cargo feature `experimental`;
/// without it, make the device yourself and hand it over with [`Context::from_device_of`](crate::Context::from_device_of).
pub fn wanted_experimental_features(adapter: &wgpu::Adapter) -> Features {
    let wanted = MATRIX_FEATURES;
    if adapter.features().contains(wanted)
        && fragment_of(&adapter.cooperative_matrix_properties()).is_some()
    {
        wanted
    } else {
        Features::empty()
    }
}

/// What the kernels of the engine `matrix` declare.
pub(crate) const MATRIX_FEATURES: Features = Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(Features::SHADER_F16)
    .union(Features::SUBGROUP);

/// Fragments of cooperative matrices: what a subgroup multiplies at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fragment {
    /// 8 × 8 × 8.
    Eight,
    /// 16 × 16 × 16.
    Sixteen,
}

impl Fragment {
    /// Rows and columns.
    pub const fn size(self) -> u32 {
        match self {
            Self::Eight => 8,
            Self::Sixteen => 16,
        }
    }
}

/// What a device lacks for [`Engine::Matrix`](crate::Engine::Matrix).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoMatrix {
    /// The device was made without features that it takes.
    Features(Features),
    /// The context was made without the adapter, which alone tells the sizes of its matrices:
    /// [`Context::from_device_of`](crate::Context::from_device_of).
    Adapter,
    /// The adapter has no square matrices of 8 or 16 that multiply f16 and add up f32.
    Sizes,
}

impl fmt::Display for NoMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Features(features) => {
                write!(formatter, "the device was made without")?;
                for (index, (name, _)) in features.iter_names().enumerate() {
                    let separator = if index == 0 { "" } else { "," };
                    write!(formatter, "{separator} {name}")?;
                }
                Ok(())
            }
            Self::Adapter => write!(
                formatter,
                "the sizes of the device's matrices are unknown: make the context with Context::from_device_of"
            ),
            Self::Sizes => write!(
                formatter,
                "the adapter has no 8x8 or 16x16 matrices of f16 with sums in f32"
            ),
        }
    }
}

/// The largest fragments of f16 with sums in f32 that WGSL can name.
fn fragment_of(properties: &[CooperativeMatrixProperties]) -> Option<Fragment> {
    [Fragment::Sixteen, Fragment::Eight]
        .into_iter()
        .find(|fragment| {
            let size = fragment.size();
            properties.iter().any(|found| {
                [found.m_size, found.n_size, found.k_size] == [size; 3]
                    && found.ab_type == CooperativeScalarType::F16
                    && found.cr_type == CooperativeScalarType::F32
                    && !found.saturating_accumulation
            })
        })
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
    /// The fragments of cooperative matrices that the device multiplies, or why it does not.
    pub matrix: Result<Fragment, NoMatrix>,
    /// Whether a pass can be timed.
    pub timestamps: bool,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Texels of each dimension of a texture; 0 where shaders read fewer than four of them, as products of two matrices do.
    pub max_texture: u32,
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
            matrix: Err(NoMatrix::Features(MATRIX_FEATURES)),
            timestamps: false,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_texture: limits.max_texture_dimension_2d,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
        }
    }

    /// What a device can do. For a device of the caller, its own features and limits are the truth, not the adapter's.
    ///
    /// The sizes of cooperative matrices are for the adapter to tell: [`of_device_of`](Self::of_device_of).
    pub fn of_device(device: &wgpu::Device) -> Self {
        Self::new(
            &device.adapter_info(),
            device.features(),
            &device.limits(),
            None,
        )
    }

    /// [`of_device`](Self::of_device) with what only the adapter that the device was made from can tell.
    pub fn of_device_of(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Self {
        Self::new(
            &device.adapter_info(),
            device.features(),
            &device.limits(),
            Some(&adapter.cooperative_matrix_properties()),
        )
    }

    /// What a device made from an adapter with its wanted features and limits could do.
    pub fn of_adapter(adapter: &wgpu::Adapter) -> Self {
        Self::new(
            &adapter.get_info(),
            requested_features(adapter),
            &wanted_limits(adapter),
            Some(&adapter.cooperative_matrix_properties()),
        )
    }

    fn new(
        info: &AdapterInfo,
        features: Features,
        limits: &Limits,
        matrices: Option<&[CooperativeMatrixProperties]>,
    ) -> Self {
        let driver = [info.driver.as_str(), info.driver_info.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        // A driver that reports no sizes is treated as having no subgroups.
        let subgroup = (features.contains(Features::SUBGROUP) && info.subgroup_min_size > 0)
            .then_some((info.subgroup_min_size, info.subgroup_max_size));
        let missing = MATRIX_FEATURES - features;
        let matrix = match matrices {
            _ if !missing.is_empty() => Err(NoMatrix::Features(missing)),
            None => Err(NoMatrix::Adapter),
            Some(matrices) => fragment_of(matrices).ok_or(NoMatrix::Sizes),
        };
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
            matrix,
            timestamps: features.contains(Features::TIMESTAMP_QUERY),
            // Offsets are u32 words, and a binding ends on a multiple of four.
            max_binding: limits
                .max_storage_buffer_binding_size
                .min(u64::from(u32::MAX))
                & !3,
            max_buffer: limits.max_buffer_size & !3,
            max_texture: match limits.max_storage_textures_per_shader_stage {
                ..4 => 0,
                _ => limits.max_texture_dimension_2d,
            },
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(
        size: [u32; 3],
        types: [CooperativeScalarType; 2],
    ) -> CooperativeMatrixProperties {
        CooperativeMatrixProperties {
            m_size: size[0],
            n_size: size[1],
            k_size: size[2],
            ab_type: types[0],
            cr_type: types[1],
            saturating_accumulation: false,
        }
    }

    #[test]
    fn fragments_are_square_and_add_up_f32() {
        use CooperativeScalarType::{F16, F32};
        let eight = properties([8; 3], [F16, F32]);
        let sixteen = properties([16; 3], [F16, F32]);
        assert_eq!(fragment_of(&[]), None);
        assert_eq!(fragment_of(&[eight]), Some(Fragment::Eight));
        assert_eq!(fragment_of(&[eight, sixteen]), Some(Fragment::Sixteen));
        for other in [
            properties([16, 8, 16], [F16, F32]),
            properties([16; 3], [F16, F16]),
            properties([8; 3], [F32, F32]),
            CooperativeMatrixProperties {
                saturating_accumulation: true,
                ..sixteen
            },
        ] {
            assert_eq!(fragment_of(&[other]), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let caps = |features, matrices: Option<&[CooperativeMatrixProperties]>| {
            let info = AdapterInfo::new(DeviceType::DiscreteGpu, Backend::Vulkan);
            Caps::new(&info, features, &Limits::default(), matrices).matrix
        };
        let listed = [properties(
            [16; 3],
            [CooperativeScalarType::F16, CooperativeScalarType::F32],
        )];
        assert_eq!(caps(MATRIX_FEATURES, Some(&listed)), Ok(Fragment::Sixteen));
        assert_eq!(caps(MATRIX_FEATURES, Some(&[])), Err(NoMatrix::Sizes));
        assert_eq!(caps(MATRIX_FEATURES, None), Err(NoMatrix::Adapter));
        for missing in [
            Features::SHADER_F16,
            Features::SUBGROUP,
            Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
        ] {
            let found = caps(MATRIX_FEATURES - missing, Some(&listed));
            assert_eq!(found, Err(NoMatrix::Features(missing)));
        }
        let lack = NoMatrix::Features(Features::SHADER_F16).to_string();
        assert_eq!(lack, "the device was made without SHADER_F16");
    }
}
