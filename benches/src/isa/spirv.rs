//! From a kernel to the SPIR-V that a driver is fed when anybit runs it.

use anybit::Specialization;
use anybit::wgpu::{DownlevelFlags, Features};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ValidationFlags;
use naga::{AddressSpace, ShaderStage};
use wgpu_naga_bridge::{create_validator, features_to_naga_capabilities};

use super::vulkan::Binding;
use crate::Error;

/// A kernel for a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shader {
    pub(super) spirv: Vec<u32>,
    /// Of group 0, by number.
    pub(super) bindings: Vec<Binding>,
}

/// What anybit asks of a GPU.
const FEATURES: Features = Features::SUBGROUP.union(Features::TIMESTAMP_QUERY);

/// Translates a kernel as wgpu 30 does for Vulkan.
///
/// # Errors
///
/// [`Error::Link`] and [`Error::Spirv`], which are bugs of anybit.
pub(super) fn translate(kernel: &Specialization) -> Result<Shader, Error> {
    let linked = kernel.link().map_err(|source| Error::Link {
        kernel: kernel.id.clone(),
        source,
    })?;
    of_wgsl(&linked.wgsl).map_err(|message| Error::Spirv {
        kernel: kernel.id.clone(),
        message,
    })
}

fn of_wgsl(wgsl: &str) -> Result<Shader, String> {
    let downlevel = DownlevelFlags::all();
    let mut options = naga::front::wgsl::Options::new();
    options.capabilities = features_to_naga_capabilities(FEATURES, downlevel);
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(wgsl)
        .map_err(|error| error.emit_to_string(wgsl))?;
    let info = create_validator(FEATURES, downlevel, ValidationFlags::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(wgsl))?;

    let mut bindings = Vec::new();
    for (_, global) in module.global_variables.iter() {
        let binding = match global.space {
            AddressSpace::Uniform => Binding::Uniform,
            AddressSpace::Storage { .. } => Binding::Storage,
            _ => continue,
        };
        let place = global
            .binding
            .filter(|place| place.group == 0)
            .ok_or("a buffer is not bound in group 0")?;
        bindings.push((place, binding));
    }
    bindings.sort_by_key(|(place, _)| place.binding);
    // wgpu-hal hands naga the numbers that the layout has in Vulkan, which are these, with a gap closed where there is one.
    if !bindings
        .iter()
        .zip(0..)
        .all(|((place, _), number)| place.binding == number)
    {
        return Err("the bindings have a gap".to_owned());
    }
    let mut options = options_of_wgpu();
    options.binding_map = bindings
        .iter()
        .map(|(place, _)| {
            let info = spv::BindingInfo {
                descriptor_set: place.group,
                binding: place.binding,
                binding_array_size: None,
            };
            (*place, info)
        })
        .collect();
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: "main".to_owned(),
    };
    let spirv = spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map_err(|error| error.to_string())?;
    Ok(Shader {
        spirv,
        bindings: bindings.into_iter().map(|(_, binding)| binding).collect(),
    })
}

/// What wgpu-hal 30 hands naga (`vulkan/adapter.rs` and `compile_stage` of `vulkan/device.rs`) on a device of Vulkan 1.3
/// that has `robustBufferAccess2`, packed dot products and 8-bit integers, for a module and a pipeline as anybit's
/// `pipeline.rs` makes them: all of wgpu's checks on, workgroup memory not zeroed. In detail:
///
/// - indices into arrays of a shader's own are clamped, those into buffers are left to the hardware
///   (`robustBufferAccess2`);
/// - every loop is bounded, so that a driver may take it to end;
/// - integer division guards against zero;
/// - names stay out of the module, since anybit's instances have no debug flag;
/// - of the capabilities, those that every device has, subgroups, packed dot products and `Int8`.
fn options_of_wgpu() -> spv::Options<'static> {
    use spv::Capability as C;
    let capabilities = [
        C::Shader,
        C::Matrix,
        C::Sampled1D,
        C::Image1D,
        C::ImageQuery,
        C::DerivativeControl,
        C::StorageImageExtendedFormats,
        C::SampledCubeArray,
        C::SampleRateShading,
        C::GroupNonUniform,
        C::GroupNonUniformVote,
        C::GroupNonUniformArithmetic,
        C::GroupNonUniformBallot,
        C::GroupNonUniformShuffle,
        C::GroupNonUniformShuffleRelative,
        C::GroupNonUniformQuad,
        C::DotProductInputAllKHR,
        C::DotProductInput4x8BitKHR,
        C::DotProductInput4x8BitPackedKHR,
        C::DotProductKHR,
        C::Int8,
    ];
    spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: true,
        ray_query_initialization_tracking: true,
        use_storage_input_output_16: false,
        fake_missing_bindings: false,
        debug_info: None,
        task_dispatch_limits: None,
        mesh_shader_primitive_indices_clamp: true,
        trace_ray_argument_validation: true,
        emit_int_div_checks: true,
        ..spv::Options::default()
    }
}
