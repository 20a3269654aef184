//! Linked shaders through naga: parsing, wgpu's validation, and translation to every language a driver is fed.

use std::collections::HashMap;

use anybit::wgpu::{DownlevelFlags, Features};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{ModuleInfo, ValidationFlags};
use naga::{
    AddressSpace, EntryPoint, Handle, ImageClass, Module, ResourceBinding, ShaderStage,
    StorageAccess, TypeInner,
};

/// Whether shaders clear workgroup memory where the API leaves that to them: pipelines of anybit ask for none of it. SPIR-V is
/// written before wgpu knows.
const CLEARED: bool = false;

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

    /// SPIR-V as wgpu's Vulkan backend has it written: for a recent driver, which has packed dot products, keeps accesses to
    /// buffers and images in bounds and clears workgroup memory; or for one that has none of this, so that the shader does it.
    ///
    /// # Errors
    ///
    /// naga's message.
    pub fn spirv(&self, recent: bool) -> Result<Vec<u32>, String> {
        use spv::Capability as C;
        // Those that wgpu grants to every device, and the subgroup operations.
        let mut plain = vec![
            C::Shader,
            C::Matrix,
            C::ImageQuery,
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
        let (memory, cleared) = match recent {
            true => (
                BoundsCheckPolicy::Unchecked,
                spv::ZeroInitializeWorkgroupMemoryMode::Native,
            ),
            false => (
                BoundsCheckPolicy::Restrict,
                spv::ZeroInitializeWorkgroupMemoryMode::Polyfill,
            ),
        };
        let options = spv::Options {
            lang_version: if recent { (1, 6) } else { (1, 3) },
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            capabilities: (!recent).then(|| plain.into_iter().collect()),
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer: memory,
                image_load: memory,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: cleared,
            ..spv::Options::default()
        };
        spv::write_vec(&self.module, &self.info, &options, None)
            .map_err(|error| format!("SPIR-V: {error}"))
    }

    /// The bindings of group 0 with their numbers in naga's terms.
    fn resources(&self) -> Result<impl Iterator<Item = (ResourceBinding, Bound)>, String> {
        let numbered = (0..).zip(self.bindings()?);
        Ok(numbered.map(|(binding, bound)| (ResourceBinding { group: 0, binding }, bound)))
    }

    /// Metal's language, version 2.4, with the slots and checks that wgpu's Metal backend asks for.
    ///
    /// # Errors
    ///
    /// naga's message.
    pub fn msl(&self) -> Result<String, String> {
        let (mut buffers, mut textures) = (0, 0);
        let mut next = |bound| {
            let slot = match bound {
                Bound::Texture | Bound::WriteTexture => &mut textures,
                _ => &mut buffers,
            };
            *slot += 1;
            *slot - 1
        };
        let resources = self.resources()?.map(|(binding, bound)| {
            let slot = Some(next(bound));
            let (buffer, texture) = match bound {
                Bound::Texture | Bound::WriteTexture => (None, slot),
                _ => (slot, None),
            };
            let target = msl::BindTarget {
                buffer,
                texture,
                mutable: matches!(bound, Bound::Write | Bound::WriteTexture),
                ..msl::BindTarget::default()
            };
            (binding, target)
        });
        let resources = resources.collect();
        let entry = msl::EntryPointResources {
            resources,
            immediates_buffer: None,
            // After the others, for the lengths of arrays.
            sizes_buffer: Some(buffers),
        };
        let options = msl::Options {
            lang_version: (2, 4),
            per_entry_point_map: [("main".to_owned(), entry)].into(),
            fake_missing_bindings: false,
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer: BoundsCheckPolicy::Restrict,
                image_load: BoundsCheckPolicy::Restrict,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: CLEARED,
            ..msl::Options::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((ShaderStage::Compute, "main".to_owned())),
            ..msl::PipelineOptions::default()
        };
        let (text, info) = msl::write_string(&self.module, &self.info, &options, &pipeline)
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
        let bindings = self.resources()?.map(|(binding, _)| {
            // Kinds of registers have numbers of their own, so that those of the bindings will do.
            let target = hlsl::BindTarget {
                register: binding.binding,
                restrict_indexing: true,
                ..hlsl::BindTarget::default()
            };
            (binding, target)
        });
        let options = hlsl::Options {
            shader_model,
            binding_map: bindings.collect(),
            // Where the number of workgroups stands is not told.
            fake_missing_bindings: true,
            zero_initialize_workgroup_memory: CLEARED,
            restrict_indexing: true,
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
        let (mut uniforms, mut buffers, mut images) = (0, 0, 0);
        let bindings = self.resources()?.map(|(binding, bound)| {
            let slot = match bound {
                Bound::Uniform(_) => &mut uniforms,
                Bound::Read | Bound::Write => &mut buffers,
                Bound::Texture | Bound::WriteTexture => &mut images,
            };
            *slot += 1;
            (binding, *slot - 1)
        });
        let options = glsl::Options {
            version,
            writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE
                | glsl::WriterFlags::FORCE_POINT_SIZE,
            binding_map: bindings.collect(),
            zero_initialize_workgroup_memory: CLEARED,
        };
        let image_load = match version {
            glsl::Version::Desktop(430..) => BoundsCheckPolicy::ReadZeroSkipWrite,
            _ => BoundsCheckPolicy::Unchecked,
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
            BoundsCheckPolicies {
                image_load,
                ..BoundsCheckPolicies::default()
            },
        )
        .and_then(|mut writer| writer.write())
        .map_err(|error| format!("GLSL {version}: {error}"))?;
        Ok(text)
    }
}
