//! A Vulkan device that compiles pipelines and never runs one: no memory is allocated and nothing is submitted.

use std::collections::BTreeMap;

use ash::{Entry, Instance, ext, khr, vk};

/// What a binding of a shader holds, as far as a pipeline's layout is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Uniform,
    Storage,
}

/// What a driver tells of a pipeline that it has compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    /// By the driver's names.
    pub(super) statistics: BTreeMap<String, u64>,
    /// Invocations in a wave.
    pub(super) subgroup_size: u32,
    /// The disassembly.
    pub(super) assembly: String,
}

/// Why a device or a pipeline could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum VulkanError {
    #[error("the Vulkan loader cannot be used: {0}")]
    Loader(#[from] ash::LoadingError),
    #[error("the driver offers no device")]
    NoDevice,
    #[error("the driver lacks {0}")]
    Lacks(&'static str),
    #[error("{call} failed: {result}")]
    Call {
        call: &'static str,
        result: vk::Result,
    },
}

/// The name of a call, for its error.
fn failed(call: &'static str) -> impl Fn(vk::Result) -> VulkanError {
    move |result| VulkanError::Call { call, result }
}

/// A device of the only driver that the loader is told of.
pub(super) struct Device {
    /// `Mesa 22.3.6`.
    pub(super) driver: String,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    instance: Instance,
    /// The library that all functions come from.
    _entry: Entry,
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: nothing was submitted, every object made from the device is destroyed by the function that made it, and
        // neither handle is used again.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

impl Device {
    /// Opens the driver's first device as wgpu-hal 30 opens it for anybit's features, which are subgroups and timestamps:
    /// what a driver makes of a shader depends on what its device promises.
    ///
    /// # Errors
    ///
    /// [`VulkanError`].
    pub(super) fn open() -> Result<Self, VulkanError> {
        // SAFETY: the Vulkan loader's initialisers are safe to run in this process, which does nothing else.
        let entry = unsafe { Entry::load() }?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structure lives through the call and asks for neither layers nor extensions.
        let instance =
            unsafe { entry.create_instance(&info, None) }.map_err(failed("vkCreateInstance"))?;
        match Self::open_in(&instance) {
            Ok((driver, device)) => Ok(Self {
                driver,
                executables: khr::pipeline_executable_properties::Device::new(&instance, &device),
                device,
                instance,
                _entry: entry,
            }),
            Err(error) => {
                // SAFETY: no object of this instance is left.
                unsafe { instance.destroy_instance(None) };
                Err(error)
            }
        }
    }

    fn open_in(instance: &Instance) -> Result<(String, ash::Device), VulkanError> {
        // SAFETY: the instance is alive.
        let adapters = unsafe { instance.enumerate_physical_devices() }
            .map_err(failed("vkEnumeratePhysicalDevices"))?;
        let adapter = *adapters.first().ok_or(VulkanError::NoDevice)?;

        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: the adapter is this instance's, and the chain holds structures of Vulkan 1.2.
        unsafe { instance.get_physical_device_properties2(adapter, &mut properties) };
        if properties.properties.api_version < vk::API_VERSION_1_3 {
            return Err(VulkanError::Lacks("Vulkan 1.3"));
        }
        let driver = text(&driver.driver_info);

        // Those that bear on shaders of buffers and integers, of what wgpu-hal enables wherever there is any. `spirv` takes
        // them for granted, so a driver without one of them is refused.
        let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let mut robustness =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let mut small = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_int8(true);
        let mut dot = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default()
            .shader_integer_dot_product(true);
        let mut sizes =
            vk::PhysicalDeviceSubgroupSizeControlFeatures::default().subgroup_size_control(true);
        let mut inspection = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let extensions = [
            khr::pipeline_executable_properties::NAME.as_ptr(),
            ext::robustness2::NAME.as_ptr(),
        ];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue)
            .enabled_extension_names(&extensions)
            .enabled_features(&core)
            .push_next(&mut robustness)
            .push_next(&mut small)
            .push_next(&mut dot)
            .push_next(&mut sizes)
            .push_next(&mut inspection);
        // SAFETY: the adapter is this instance's, and the chain holds structures of Vulkan 1.3 and of the extensions asked
        // for. Extensions and features that the driver lacks are its errors, and every adapter has a queue family 0.
        let device = unsafe { instance.create_device(adapter, &info, None) }
            .map_err(failed("vkCreateDevice"))?;
        Ok((driver, device))
    }

    /// Compiles a compute shader whose entry point is `main` and whose bindings are all in group 0, by number.
    ///
    /// # Errors
    ///
    /// [`VulkanError`].
    pub(super) fn compile(
        &self,
        spirv: &[u32],
        bindings: &[Binding],
    ) -> Result<Compiled, VulkanError> {
        let bindings: Vec<_> = bindings
            .iter()
            .zip(0..)
            .map(|(binding, number)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(number)
                    .descriptor_type(match binding {
                        Binding::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                        Binding::Storage => vk::DescriptorType::STORAGE_BUFFER,
                    })
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the device is alive, and the structure lives through the call.
        let set_layout = unsafe { self.device.create_descriptor_set_layout(&info, None) }
            .map_err(failed("vkCreateDescriptorSetLayout"))?;
        let compiled = self.compile_with(spirv, set_layout);
        // SAFETY: what was made from the layout is destroyed.
        unsafe { self.device.destroy_descriptor_set_layout(set_layout, None) };
        compiled
    }

    fn compile_with(
        &self,
        spirv: &[u32],
        set_layout: vk::DescriptorSetLayout,
    ) -> Result<Compiled, VulkanError> {
        let set_layouts = [set_layout];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&set_layouts);
        // SAFETY: device and set layout are alive.
        let layout = unsafe { self.device.create_pipeline_layout(&info, None) }
            .map_err(failed("vkCreatePipelineLayout"))?;
        let info = vk::ShaderModuleCreateInfo::default().code(spirv);
        // SAFETY: naga wrote the code, for a version and capabilities that the device has.
        let module = unsafe { self.device.create_shader_module(&info, None) }
            .map_err(failed("vkCreateShaderModule"));
        let compiled = module.and_then(|module| {
            let compiled = self.compile_module(module, layout);
            // SAFETY: the pipeline made from the module needs it no longer.
            unsafe { self.device.destroy_shader_module(module, None) };
            compiled
        });
        // SAFETY: the pipeline made from the layout is destroyed.
        unsafe { self.device.destroy_pipeline_layout(layout, None) };
        compiled
    }

    fn compile_module(
        &self,
        module: vk::ShaderModule,
        layout: vk::PipelineLayout,
    ) -> Result<Compiled, VulkanError> {
        let stage = vk::PipelineShaderStageCreateInfo::default()
            // As wgpu-hal 30 does on a device with subgroups.
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default()
            .flags(
                vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                    | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
            )
            .stage(stage)
            .layout(layout);
        // SAFETY: device, module and layout are alive; the module has the entry point, and the layout its bindings.
        let made = unsafe {
            self.device
                .create_compute_pipelines(vk::PipelineCache::null(), &[info], None)
        };
        let pipelines = made.map_err(|(_, result)| failed("vkCreateComputePipelines")(result))?;
        let compiled = match pipelines[..] {
            [pipeline] => self.inspect(pipeline),
            _ => Err(VulkanError::Lacks("a pipeline for the module")),
        };
        for pipeline in pipelines {
            // SAFETY: the pipeline was never bound.
            unsafe { self.device.destroy_pipeline(pipeline, None) };
        }
        compiled
    }

    fn inspect(&self, pipeline: vk::Pipeline) -> Result<Compiled, VulkanError> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline is alive, and the device has the feature.
        let properties = unsafe { self.executables.get_pipeline_executable_properties(&info) }
            .map_err(failed("vkGetPipelineExecutablePropertiesKHR"))?;
        let [properties] = &properties[..] else {
            return Err(VulkanError::Lacks("one executable a compute pipeline"));
        };
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: as above; the pipeline was made to capture its statistics, and has an executable 0.
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&info) }
            .map_err(failed("vkGetPipelineExecutableStatisticsKHR"))?;
        let statistics = statistics
            .iter()
            .filter(|statistic| {
                statistic.format == vk::PipelineExecutableStatisticFormatKHR::UINT64
            })
            .map(|statistic| {
                // SAFETY: the format says which member of the union was written.
                let value = unsafe { statistic.value.u64 };
                (text(&statistic.name), value)
            })
            .collect();
        Ok(Compiled {
            statistics,
            subgroup_size: properties.subgroup_size,
            assembly: self.assembly(&info)?,
        })
    }

    fn assembly(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String, VulkanError> {
        const CALL: &str = "vkGetPipelineExecutableInternalRepresentationsKHR";
        // SAFETY: the pipeline is alive and was made to capture its representations; the first call asks for their sizes
        // alone.
        let mut representations = unsafe {
            self.executables
                .get_pipeline_executable_internal_representations(info)
        }
        .map_err(failed(CALL))?;
        let mut texts: Vec<Vec<u8>> = representations
            .iter()
            .map(|representation| vec![0; representation.data_size])
            .collect();
        for (representation, text) in representations.iter_mut().zip(&mut texts) {
            representation.p_data = text.as_mut_ptr().cast();
        }
        let mut count = representations.len() as u32;
        // SAFETY: as above; the count is that of the array, and each element points to as many bytes as it says, all of
        // which outlive the call.
        let result = unsafe {
            (self
                .executables
                .fp()
                .get_pipeline_executable_internal_representations_khr)(
                self.device.handle(),
                info,
                &mut count,
                representations.as_mut_ptr(),
            )
        };
        result.result().map_err(failed(CALL))?;
        representations
            .iter()
            .zip(&texts)
            .find(|(representation, _)| text(&representation.name) == "Assembly")
            .map(|(_, text)| {
                let end = text.iter().position(|byte| *byte == 0);
                String::from_utf8_lossy(&text[..end.unwrap_or(text.len())]).into_owned()
            })
            .ok_or(VulkanError::Lacks("a disassembly of its code"))
    }
}

/// A string in an array of a Vulkan structure.
fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters
        .iter()
        .map(|character| character.to_ne_bytes()[0])
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
