//! Linked shaders through naga: parsing, wgpu's validation, and translation to every language a driver is fed.

use std::collections::HashMap;

use anybit::wgpu::{DownlevelFlags, Features};
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{ModuleInfo, ValidationFlags};
use naga::{
    AddressSpace, EntryPoint, Handle, ImageClass, Module, ShaderStage, StorageAccess, TypeInner,
};

/// A shader that wgpu would accept.
#[derive(Debug)]
pub struct Shader {
    /// naga's module.
    pub module: Module,
    /// What validation found.
    pub info: ModuleInfo,
}

/// What a binding of group 0 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A uniform buffer of so many bytes.
    Uniform(u32),
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that may be written.
    Write,
    /// A texture that is only read.
    Texture,
    /// A texture that is only written.
    WriteTexture,
}

impl Shader {
    /// Parses WGSL and validates it as wgpu would on a device with these features.
    ///
    /// # Errors
    ///
    /// naga's message, with the place in the text.
    pub fn new(wgsl: &str, features: Features) -> Result<Self, String> {
        let module =
            naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
        // WebGPU's floor.
        let downlevel = DownlevelFlags::compliant();
        let info = wgpu_naga_bridge::create_validator(features, downlevel, ValidationFlags::all())
            .validate(&module)
            .map_err(|error| error.emit_to_string(wgsl))?;
        Ok(Self { module, info })
    }

    /// The only entry point.
    ///
    /// # Errors
    ///
    /// If there is another number of them, or it is no compute shader called `main`.
    pub fn entry_point(&self) -> Result<&EntryPoint, String> {
        match &self.module.entry_points[..] {
            [entry] if entry.name == "main" && entry.stage == ShaderStage::Compute => Ok(entry),
            entries => Err(format!(
                "{} entry points; one, main, is expected",
                entries.len()
            )),
        }
    }

    /// The bindings of group 0, by number.
    ///
    /// # Errors
    ///
    /// For a binding in another group, one that leaves a gap, or one that is no buffer.
    pub fn bindings(&self) -> Result<Vec<Bound>, String> {
        let mut found = HashMap::new();
        for (_, global) in self.module.global_variables.iter() {
            let Some(binding) = &global.binding else {
                continue;
            };
            let name = global.name.as_deref().unwrap_or("?");
            if binding.group != 0 {
                return Err(format!("{name} is in group {}", binding.group));
            }
            let bound = match global.space {
                AddressSpace::Uniform => Bound::Uniform(self.size(global.ty)),
                AddressSpace::Storage { access } if access == StorageAccess::LOAD => Bound::Read,
                AddressSpace::Storage { .. } => Bound::Write,
                AddressSpace::Handle => match self.module.types[global.ty].inner {
                    TypeInner::Image {
                        class: ImageClass::Storage { access, .. },
                        ..
                    } if access == StorageAccess::STORE => Bound::WriteTexture,
                    TypeInner::Image {
                        class: ImageClass::Storage { access, .. },
                        ..
                    } if access == StorageAccess::LOAD => Bound::Texture,
                    _ => return Err(format!("{name} is no texture that is read or written")),
                },
                space => return Err(format!("{name} is in the address space {space:?}")),
            };
            if found.insert(binding.binding, bound).is_some() {
                return Err(format!("binding {} is declared twice", binding.binding));
            }
        }
        (0..found.len() as u32)
            .map(|index| {
                found
                    .remove(&index)
                    .ok_or(format!("there is no binding {index}"))
            })
            .collect()
    }

    /// Bytes of a type.
    pub fn size(&self, ty: Handle<naga::Type>) -> u32 {
        self.module.types[ty].inner.size(self.module.to_ctx())
    }

    /// Bytes of workgroup memory that the entry point uses.
    pub fn workgroup_memory(&self) -> u32 {
        let entry = self.info.get_entry_point(0);
        self.module
            .global_variables
            .iter()
            .filter(|(handle, global)| {
                global.space == AddressSpace::WorkGroup && !entry[*handle].is_empty()
            })
            .map(|(_, global)| self.size(global.ty))
            .sum()
    }

    /// Whether the module has cooperative matrices, which only SPIR-V and Metal's language can say: naga panics where it is to
    /// write them for others.
    pub fn has_cooperative_matrices(&self) -> bool {
        let is_matrix =
            |(_, ty): (_, &naga::Type)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. });
        self.module.types.iter().any(is_matrix)
    }

    /// Invocations a workgroup.
    pub fn invocations(&self) -> u32 {
        self.module.entry_points[0].workgroup_size.iter().product()
    }

    /// SPIR-V; with the packed dot product or, where `dot_product` is false, with what stands in for it.
    ///
    /// # Errors
    ///
    /// naga's message.
    pub fn spirv(&self, dot_product: bool) -> Result<Vec<u32>, String> {
        use spv::Capability as C;
        // Those that wgpu's Vulkan backend grants to every device, and the subgroup operations.
        let mut plain = vec![
            C::Shader,
            C::Matrix,
            C::GroupNonUniform,
            C::GroupNonUniformVote,
            C::GroupNonUniformArithmetic,
            C::GroupNonUniformBallot,
            C::GroupNonUniformShuffle,
            C::GroupNonUniformShuffleRelative,
            C::GroupNonUniformQuad,
        ];
        if self.has_cooperative_matrices() {
            // Those that the features of such shaders grant.
            plain.extend([C::CooperativeMatrixKHR, C::VulkanMemoryModel]);
            plain.extend([C::Float16, C::StorageBuffer16BitAccess]);
        }
        let options = spv::Options {
            lang_version: (1, 3),
            capabilities: (!dot_product).then(|| plain.into_iter().collect()),
            ..spv::Options::default()
        };
        let pipeline = spv::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: "main".into(),
        };
        spv::write_vec(&self.module, &self.info, &options, Some(&pipeline))
            .map_err(|error| format!("SPIR-V: {error}"))
    }

    /// Metal's language, version 2.4.
    ///
    /// # Errors
    ///
    /// naga's message.
    pub fn msl(&self) -> Result<String, String> {
        let options = msl::Options {
            lang_version: (2, 4),
            fake_missing_bindings: true,
            ..msl::Options::default()
        };
        let (text, info) = msl::write_string(
            &self.module,
            &self.info,
            &options,
            &msl::PipelineOptions::default(),
        )
        .map_err(|error| format!("MSL: {error}"))?;
        for name in info.entry_point_names {
            name.map_err(|error| format!("MSL: {error}"))?;
        }
        Ok(text)
    }

    /// Refuses what naga would panic at.
    fn check_translatable(&self, language: &str) -> Result<(), String> {
        match self.has_cooperative_matrices() {
            true => Err(format!(
                "{language}: cooperative matrices cannot be written"
            )),
            false => Ok(()),
        }
    }

    /// Direct3D's language.
    ///
    /// # Errors
    ///
    /// naga's message; and for cooperative matrices, which it does not write.
    pub fn hlsl(&self, shader_model: hlsl::ShaderModel) -> Result<String, String> {
        self.check_translatable("HLSL")?;
        let options = hlsl::Options {
            shader_model,
            fake_missing_bindings: true,
            ..hlsl::Options::default()
        };
        let pipeline = hlsl::PipelineOptions::default();
        let mut text = String::new();
        let info = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&self.module, &self.info, None)
            .map_err(|error| format!("HLSL {shader_model:?}: {error}"))?;
        for name in info.entry_point_names {
            name.map_err(|error| format!("HLSL {shader_model:?}: {error}"))?;
        }
        Ok(text)
    }

    /// OpenGL's language.
    ///
    /// # Errors
    ///
    /// naga's message; and for cooperative matrices, which it does not write.
    pub fn glsl(&self, version: glsl::Version) -> Result<String, String> {
        self.check_translatable("GLSL")?;
        let options = glsl::Options {
            version,
            ..glsl::Options::default()
        };
        let pipeline = glsl::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: "main".into(),
            multiview: None,
        };
        let mut text = String::new();
        glsl::Writer::new(
            &mut text,
            &self.module,
            &self.info,
            &options,
            &pipeline,
            naga::proc::BoundsCheckPolicies::default(),
        )
        .and_then(|mut writer| writer.write())
        .map_err(|error| format!("GLSL {version}: {error}"))?;
        Ok(text)
    }
}
