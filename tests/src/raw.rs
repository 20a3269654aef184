//! Runs a GEMM shader without anybit's host code: for shaders that are wrong on purpose, and as a second opinion on the
//! parameters, which are written here by the names that the shader gives them.

use anybit::{Context, Engine, Plan, Values, wgpu};
use anybit_formats::{
    AffineFormat, DeviceImage, DeviceLayout, ElementFormat, Encoding, Granularity, MatrixFormat,
    Nesting, PackedMatrix, PieceLayout, Zeros,
};
use naga::{Module, TypeInner};

use crate::rig::buffer_of;
use crate::shader::Shader;

/// Y = X · Wᵀ by the shader `wgsl`, made for `plan`: one batch, no chunks. Activations of dot4 have 8 bits. Where the plan
/// reads weights at fewer bits than they are stored in, `w` is the stored matrix.
///
/// # Errors
///
/// What naga or anybit says.
///
/// # Panics
///
/// If a parameter of the shader is not known here, or wgpu rejects the shader.
pub fn multiply(
    context: &Context,
    plan: &Plan,
    wgsl: &str,
    x: &PackedMatrix,
    w: &PackedMatrix,
) -> Result<Values, Box<dyn std::error::Error>> {
    let problem = plan.problem();
    let shader = Shader::new(wgsl, context.device().features())?;
    let (m, n) = (problem.m as u32, problem.n as u32);
    let tile = plan.tile();
    let tiles = [m.div_ceil(tile.m), n.div_ceil(tile.n)];
    let stride = n.next_multiple_of(8);
    let activation = x.to_device(&plan.activation_layout())?;
    let bits = problem.weight.element().bits();
    let planes = plan.weight_layout().pieces == PieceLayout::Planes;
    let widths = match plan.nesting() {
        Some(Nesting::DoubleRounding) if planes => vec![bits as u8],
        _ => Vec::new(),
    };
    let weight = w.to_device_with_carries(&plan.weight_layout(), &widths)?;

    let mut params = Params::new(&shader.module);
    for (name, value) in [
        ("m", m),
        ("n", n),
        ("k", problem.k as u32),
        ("tiles_m", tiles[0]),
        ("tiles_n", tiles[1]),
        ("grid_x", tiles[0] * tiles[1]),
        ("output_offset", 0),
        ("output_row", stride),
        ("output_batch", m * stride),
    ] {
        params.set(name, value);
    }
    let mut centre = 0;
    let mut fold = 1.0;
    if plan.engine() == Engine::Dot4 {
        if x.format().element().affine().is_some() {
            assert_eq!(
                x.format().element().bits(),
                8,
                "the centre of 8-bit codes is known"
            );
            centre = 128;
        }
        for format in [&problem.activation, &problem.weight] {
            fold *= format.element().lift_unit().expect("dot4 lifts it");
        }
    }
    params.set("fold", fold.to_bits());
    params.set("experts", 0);
    params.set("parts", 1);
    params.operand("activation", x, &activation, centre);
    params.operand("weight", w, &weight, 0);
    if plan.nesting().is_some() {
        let pieces = &weight.sections.pieces;
        if planes {
            let carry = weight.sections.carries.first();
            params.set("weight.pieces.0", pieces[8 - bits as usize]);
            params.set("weight.pieces.1", pieces[1]);
            params.set("weight.pieces.2", carry.map_or(0, |carry| carry.offset));
        }
        // Value = 2^(8 - bits) (u - 2^(bits - 1)) in units of the stored scales.
        let scaled = problem.output == anybit::OutputFormat::F32 && w.format().scales().is_some();
        let unit = if scaled { 1 << (8 - bits) } else { 1 };
        params.set("weight.multiplier", unit);
        params.set("weight.offset", (unit << (bits - 1)).wrapping_neg());
    }

    let output_words = (m * stride) as usize * problem.output.bytes() / 4;
    let output = buffer_of(context, (0..output_words).map(|_| 0));
    let buffers = [
        params.buffer(context),
        buffer_of(context, activation.codes.iter().copied()),
        buffer_of(context, activation.side.iter().copied()),
        buffer_of(context, weight.codes.iter().copied()),
        buffer_of(context, weight.side.iter().copied()),
    ];
    dispatch(
        context,
        wgsl,
        buffers.iter().chain([&output]),
        tiles[0] * tiles[1],
    );

    let view = anybit::OutputMatrix::from_buffer(
        &output,
        0,
        problem.output,
        (problem.m, problem.n),
        stride as usize,
    )?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let pending = context.encode_read(&mut encoder, &view)?;
    context.queue().submit([encoder.finish()]);
    Ok(pending.read_blocking()?)
}

/// The bits of the f32 values of codes 0, 1, 2 … of a format without scales, by the shader that decodes it. Here are the
/// codes that no matrix may hold: those of infinities and NaN.
///
/// # Errors
///
/// What naga or anybit says.
///
/// # Panics
///
/// As [`multiply`].
pub fn decode_all_codes(
    context: &Context,
    element: ElementFormat,
) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let layout = DeviceLayout::ROW_MAJOR;
    let format = MatrixFormat::new(element, None)?;
    let specialization = anybit::decode_specialization(&format, &layout);
    let wgsl = specialization.link()?.wgsl;
    let shader = Shader::new(&wgsl, context.device().features())?;

    // Integers of the same width have a code for every bit pattern.
    let same_width = AffineFormat::new(element.bits() as u8, Encoding::Unsigned)?;
    let integers = MatrixFormat::new(same_width.into(), None)?;
    let codes: Vec<u8> = (0..=same_width.max_code()).collect();
    let columns = codes.len();
    let matrix = PackedMatrix::from_codes(integers, 1, columns, &codes, &[], Zeros::None)?;
    let mut image = matrix.to_device(&layout)?;
    if let Some(codebook) = element.codebook() {
        // The table of a large codebook.
        image.side = codebook
            .values()
            .iter()
            .map(|value| value.to_bits())
            .collect();
        image.side.resize(256, 0);
    }

    let mut params = Params::new(&shader.module);
    let workgroups = (columns as u32)
        .div_ceil(4)
        .div_ceil(specialization.workgroup);
    for (name, value) in [
        ("rows", 1),
        ("columns", columns as u32),
        ("grid_x", workgroups),
        ("output_offset", 0),
        ("output_row", columns as u32),
    ] {
        params.set(name, value);
    }
    params.operand("operand", &matrix, &image, 0);
    params.element("operand", element);
    let words = columns.next_multiple_of(4);
    let output = buffer_of(context, (0..words).map(|_| 0));
    let buffers = [
        params.buffer(context),
        buffer_of(context, image.codes.iter().copied()),
        buffer_of(context, image.side.iter().copied()),
    ];
    dispatch(context, &wgsl, buffers.iter().chain([&output]), workgroups);
    let view = anybit::OutputMatrix::from_buffer(
        &output,
        0,
        anybit::OutputFormat::I32,
        (1, columns),
        words,
    )?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let pending = context.encode_read(&mut encoder, &view)?;
    context.queue().submit([encoder.finish()]);
    let bits = pending.read_blocking()?.into_i32().unwrap_or_default();
    Ok(bits.into_iter().map(i32::cast_unsigned).collect())
}

/// Runs a shader. Its buffers are bindings 0, 1 … of group 0: the first is the parameters if there are more than two, the
/// last the one that is written.
pub fn dispatch<'a>(
    context: &Context,
    wgsl: &str,
    buffers: impl Iterator<Item = &'a wgpu::Buffer>,
    workgroups: u32,
) {
    let device = context.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    });
    let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
        .zip(0..)
        .map(|(buffer, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    let last = entries.len() as u32 - 1;
    let layout_entries: Vec<_> = entries
        .iter()
        .map(|entry| wgpu::BindGroupLayoutEntry {
            binding: entry.binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match entry.binding {
                    0 if last > 1 => wgpu::BufferBindingType::Uniform,
                    binding => wgpu::BufferBindingType::Storage {
                        read_only: binding != last,
                    },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &layout_entries,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(
            &device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            }),
        ),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &entries,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(workgroups, 1, 1);
    drop(pass);
    context.queue().submit([encoder.finish()]);
}

/// The words of a uniform struct, by the path of their member.
#[derive(Clone, Debug)]
pub struct Params {
    members: Vec<(String, usize)>,
    words: Vec<Option<u32>>,
}

impl Params {
    /// The struct of a shader's only uniform, without values.
    ///
    /// # Panics
    ///
    /// If the shader has no uniform.
    pub fn new(module: &Module) -> Self {
        let uniform = module
            .global_variables
            .iter()
            .find(|(_, global)| global.space == naga::AddressSpace::Uniform)
            .map(|(_, global)| global.ty)
            .unwrap_or_else(|| panic!("the shader has no parameters"));
        let mut members = Vec::new();
        collect(module, uniform, String::new(), 0, &mut members);
        let words = module.types[uniform].inner.size(module.to_ctx()) / 4;
        Self {
            members,
            words: vec![None; words as usize],
        }
    }

    /// Sets a word by the path of its member.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    pub fn set(&mut self, name: &str, value: u32) {
        let at = self
            .members
            .iter()
            .find(|(path, _)| path == name)
            .unwrap_or_else(|| panic!("the shader has no parameter {name}"))
            .1;
        self.words[at / 4] = Some(value);
    }

    fn operand(&mut self, name: &str, matrix: &PackedMatrix, image: &DeviceImage, centre: i32) {
        let (format, columns) = (matrix.format(), matrix.columns());
        let sections = &image.sections;
        for piece in 0..4 {
            let start = sections.pieces.get(piece).copied().unwrap_or(0);
            self.set(&format!("{name}.pieces.{piece}"), start);
        }
        let tensor = format
            .scales()
            .is_none_or(|layout| layout.granularity == Granularity::Tensor);
        let row_words = match format.element() {
            ElementFormat::Float(float) => columns.div_ceil(32) as u32 * float.bits(),
            _ => 0,
        };
        for (member, value) in [
            ("rows", matrix.rows() as u32),
            ("batch_rows", 0),
            ("row_words", row_words),
            ("blocks", columns.div_ceil(32) as u32),
            ("scales", sections.scales),
            ("zeros", sections.zeros),
            ("sums", sections.sums),
            (
                "groups",
                if tensor {
                    0
                } else {
                    format.groups(columns) as u32
                },
            ),
            ("centre", centre.cast_unsigned()),
            ("second", sections.second),
            ("second_minima", sections.second_minima),
            ("second_groups", format.second_groups(columns) as u32),
            ("table_words", sections.table),
        ] {
            self.set(&format!("{name}.{member}"), value);
        }
        self.element(name, format.element());
    }

    /// What the codes of an element stand for.
    fn element(&mut self, name: &str, element: ElementFormat) {
        let (multiplier, offset) = match element {
            ElementFormat::Affine(element) => element.coefficients(),
            _ => (1, 0),
        };
        let minifloat = element.minifloat();
        let first_special = minifloat.and_then(|format| {
            (0..format.sign_code()).find(|&code| !format.decode(code).is_finite())
        });
        let infinite = minifloat
            .zip(first_special)
            .is_some_and(|(format, code)| format.decode(code).is_infinite());
        for (member, value) in [
            ("multiplier", multiplier.cast_unsigned()),
            ("offset", offset.cast_unsigned()),
            (
                "mantissa",
                minifloat.map_or(0, |format| u32::from(format.mantissa_bits())),
            ),
            ("special", first_special.map_or(u32::MAX, u32::from)),
            ("infinite", u32::from(infinite)),
        ] {
            self.set(&format!("{name}.{member}"), value);
        }
        let codebook = element.codebook();
        let choice = codebook.and_then(|codebook| codebook.choice());
        let lift = codebook.and_then(|_| element.lift_unit());
        self.set(
            &format!("{name}.lift"),
            lift.map_or(0.0, f32::recip).to_bits(),
        );
        self.set(
            &format!("{name}.choice_code"),
            choice.map_or(0, |choice| u32::from(choice.code)),
        );
        for index in 0..16 {
            let chosen = choice.is_some_and(|choice| usize::from(choice.code) == index);
            let values = codebook.map_or(&[][..], |codebook| codebook.values());
            let value = match values.get(index) {
                // The mark of the code that a group chooses for.
                Some(_) if chosen => 3.0e38,
                Some(&value) => value,
                None => 0.0,
            };
            let path = format!("{name}.table.{}.{}", index / 4, index % 4);
            self.set(&path, value.to_bits());
        }
        for index in 0..4 {
            let values = choice.map_or(&[][..], |choice| choice.values);
            let value = values.get(index).copied().unwrap_or(0.0);
            self.set(&format!("{name}.choices.{index}"), value.to_bits());
        }
    }

    /// A uniform buffer of the words, all of which must be set but for padding.
    ///
    /// # Panics
    ///
    /// If one is not.
    pub fn buffer(&self, context: &Context) -> wgpu::Buffer {
        for (path, at) in &self.members {
            assert!(
                self.words[at / 4].is_some() || path.contains("padding"),
                "the parameter {path} is not known to the tests"
            );
        }
        let bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.unwrap_or(0).to_le_bytes())
            .collect();
        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        context.queue().write_buffer(&buffer, 0, &bytes);
        buffer
    }
}

/// The 32-bit members of a type, with their byte offsets.
fn collect(
    module: &Module,
    ty: naga::Handle<naga::Type>,
    path: String,
    offset: usize,
    members: &mut Vec<(String, usize)>,
) {
    let join = |name: &str| match path.is_empty() {
        true => name.to_owned(),
        false => format!("{path}.{name}"),
    };
    match &module.types[ty].inner {
        TypeInner::Struct { members: inner, .. } => {
            for (index, member) in inner.iter().enumerate() {
                let name = member.name.clone().unwrap_or_else(|| index.to_string());
                collect(
                    module,
                    member.ty,
                    join(&name),
                    offset + member.offset as usize,
                    members,
                );
            }
        }
        TypeInner::Vector { size, .. } => {
            members.extend(
                (0..*size as usize).map(|index| (join(&index.to_string()), offset + 4 * index)),
            );
        }
        TypeInner::Array { base, size, stride } => {
            let naga::ArraySize::Constant(count) = size else {
                panic!("{path} has no fixed size");
            };
            for index in 0..count.get() {
                let offset = offset + (index * stride) as usize;
                collect(module, *base, join(&index.to_string()), offset, members);
            }
        }
        _ => members.push((path, offset)),
    }
}
