//! The set of shaders under test.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anybit::{
    Caps, DeviceClass, Engine, Fragment, KERNELS, KernelRow, OutputFormat, PlanOptions, Problem,
    Specialization, Tile, candidates, decode_specialization, l_mul_specialization,
    model_specializations, quantize_specialization, quantize_specialization_with,
};
use anybit_formats::{
    AffineFormat, DeviceLayout, ElementFormat, Encoding, FORMATS, Granularity, LMul, LMulReading,
    MatrixFormat, Memory, Nesting, Overflow, PieceLayout, QuantizeRowsOptions, Rounding,
    ScaleLayout, ScaleRule, ScaleType, SumLayout, ZeroKind, layout::piece_widths,
};
use anybit_tests::cover::pairwise;
use anybit_tests::full;
use anybit_tests::operand::format;

/// A shader's text, or why it does not link, with the specialisation that first led to it.
pub(super) struct Text {
    pub(super) specialization: Specialization,
    pub(super) wgsl: Result<String, String>,
}

/// Texts, each once.
#[derive(Default)]
pub(super) struct Texts {
    by_text: BTreeMap<Result<String, String>, Specialization>,
}

impl Texts {
    pub(super) fn add(&mut self, specialization: Specialization) {
        let wgsl = link(&specialization);
        self.by_text.entry(wgsl).or_insert(specialization);
    }

    pub(super) fn into_vec(self) -> Vec<Text> {
        self.by_text
            .into_iter()
            .map(|(wgsl, specialization)| Text {
                specialization,
                wgsl,
            })
            .collect()
    }
}

fn link(specialization: &Specialization) -> Result<String, String> {
    let linked = specialization.link().map_err(|error| error.to_string())?;
    // Each line leads back to a module, but for the modules' names and what stands between them.
    for (line, text) in (1..).zip(linked.wgsl.lines()) {
        let between = text.is_empty() || text.starts_with("//");
        if linked.line_map.locate(line).is_none() && !between {
            return Err(format!("line {line} leads nowhere: {text}"));
        }
    }
    Ok(linked.wgsl)
}

/// Devices that get different shaders: without subgroups, and with tiny, small and large ones.
pub(super) fn devices() -> Vec<Caps> {
    // Software adapters get weights in textures.
    [
        (None, DeviceClass::Gpu),
        (Some((8, 8)), DeviceClass::Gpu),
        (Some((32, 32)), DeviceClass::Gpu),
        (Some((4, 4)), DeviceClass::Software),
        (Some((8, 8)), DeviceClass::Software),
    ]
    .into_iter()
    .map(|(subgroup, class)| {
        let mut caps = Caps::floor();
        caps.subgroup = subgroup;
        caps.class = class;
        caps
    })
    .collect()
}

const GRANULARITIES: [Granularity; 5] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(128),
];
const ZEROS: [ZeroKind; 4] = [
    ZeroKind::None,
    ZeroKind::Integer,
    ZeroKind::Minimum,
    ZeroKind::Choice,
];

/// The format of an element under some scales, if it takes them; floats as they are.
fn matrix_format(
    element: ElementFormat,
    [granularity, scale, zero]: [usize; 3],
) -> Option<MatrixFormat> {
    let layout = ScaleLayout {
        granularity: GRANULARITIES[granularity],
        scale: ScaleType::ALL[scale],
        zero: ZEROS[zero],
    };
    MatrixFormat::new(element, element.has_codes().then_some(layout)).ok()
}

/// Elements that bring pipelines of their own: integers of 1 to 8 bits, floats, minifloats of all widths with and without
/// special codes, codebooks small and large, with choices and without.
fn elements() -> Vec<ElementFormat> {
    let mut elements: Vec<ElementFormat> = (1..=8)
        .map(|bits| {
            // Shaders know encodings only by whether an integer is its code (`unsigned`) or not.
            let encoding = [
                Encoding::Unsigned,
                Encoding::TwosComplement,
                Encoding::Bipolar,
            ][usize::from(bits) % 3];
            AffineFormat::new(bits, encoding)
                .expect("1 to 8 bits")
                .into()
        })
        .collect();
    elements.extend(
        [
            "uint8", "int4", "f32", "f16", "bf16", "e4m3", "e5m2", "e3m4", "e3m3", "e3m2", "e2m3",
            "e2m1", "e1m2", "e3m0", "e1m0", "nf4", "bitmod3", "bitmod4", "shift2", "shift3",
            "power5", "dynamic8",
        ]
        .map(|name| name.parse::<ElementFormat>().expect("a format")),
    );
    elements
}

/// The GEMM shaders of all devices: each two of kernel with tile, element and scales of both operands, output, and device.
/// Several tests look at them, and they take long to find.
pub(super) fn gemms() -> &'static [Text] {
    static GEMMS: OnceLock<Vec<Text>> = OnceLock::new();
    GEMMS.get_or_init(|| gemms_of(&devices(), &elements(), |engine| engine != Engine::Matrix))
}

/// Devices with fragments of either size.
fn matrix_devices() -> Vec<Caps> {
    [Fragment::Eight, Fragment::Sixteen]
        .into_iter()
        .map(|fragment| Caps {
            subgroup: Some((32, 32)),
            matrix: Ok(fragment),
            ..Caps::floor()
        })
        .collect()
}

/// The GEMM shaders with cooperative matrices, likewise.
pub(super) fn matrix_gemms() -> Vec<Text> {
    let mut elements = elements();
    elements.retain(|element| element.fits_f16());
    gemms_of(&matrix_devices(), &elements, |engine| {
        engine == Engine::Matrix
    })
}

fn gemms_of(
    devices: &[Caps],
    elements: &[ElementFormat],
    is_asked_for: impl Fn(Engine) -> bool,
) -> Vec<Text> {
    let kernels: Vec<(&KernelRow, Tile)> = KERNELS
        .iter()
        .filter(|row| is_asked_for(row.engine))
        .flat_map(|&row| row.tiles.iter().map(move |&tile| (row, tile)))
        .collect();
    let problem = |row: &[usize]| {
        let (activation, weight) = (elements[row[1]], elements[row[5]]);
        // All kernels take eight rows; the text does not depend on their number.
        let shape = (8, 96, 384);
        if row[9] == 1 {
            let bare = |element| MatrixFormat::new(element, None).ok();
            let problem = Problem::new(shape, bare(activation)?, bare(weight)?);
            Some(problem.with_output(OutputFormat::I32))
        } else {
            let activation = matrix_format(activation, [row[2], row[3], row[4]])?;
            let weight = matrix_format(weight, [row[6], row[7], row[8]])?;
            let output = [OutputFormat::F32, OutputFormat::F16][row[9] / 2];
            Some(Problem::new(shape, activation, weight).with_output(output))
        }
    };
    let find = |row: &[usize]| {
        let (kernel, tile) = kernels[row[0]];
        // Of software adapters, one takes activations of every format from textures.
        let mut options = PlanOptions::engine(kernel.engine)
            .with_uploaded(row[10] == 4)
            .with_unchecked(true);
        options.skeleton = Some(kernel.skeleton);
        let (accepted, _) = candidates(&problem(row)?, &devices[row[10]], &options).ok()?;
        let found = accepted
            .into_iter()
            .find(|candidate| candidate.skeleton == kernel.skeleton && candidate.tile == tile);
        Some(found?.specialization)
    };
    let scales = [GRANULARITIES.len(), ScaleType::ALL.len(), ZEROS.len()];
    let mut levels = vec![kernels.len(), elements.len()];
    levels.extend(scales);
    levels.push(elements.len());
    levels.extend(scales);
    levels.extend([3, devices.len()]);
    let mut texts = Texts::default();
    for row in pairwise(&levels, |row| find(row).is_some()) {
        texts.add(find(&row).expect("the row is allowed"));
    }
    texts.into_vec()
}

/// The shaders of language models beside the products.
pub(super) fn model_kernels() -> Vec<Text> {
    let mut texts = Texts::default();
    for caps in devices() {
        for specialization in model_specializations(&caps) {
            texts.add(specialization);
        }
    }
    texts.into_vec()
}

/// The GEMM shaders that read weights at fewer bits than they are stored in: each two of kernel with tile, width, way, scales,
/// output, and device.
pub(super) fn nested_gemms() -> Vec<Text> {
    let devices = devices();
    let kernels: Vec<(&KernelRow, Tile)> = KERNELS
        .iter()
        .filter(|row| !matches!(row.engine, Engine::Fma | Engine::Matrix))
        .flat_map(|&row| row.tiles.iter().map(move |&tile| (row, tile)))
        .collect();
    let formats = [
        ("i8", "i8"),
        ("i8rf", "i8rfm"),
        ("b3rf", "i8g16h"),
        ("u2g32f", "i8g32h"),
    ]
    .map(|(activation, stored)| (format(activation), format(stored)));
    let find = |row: &[usize]| {
        let (kernel, tile) = kernels[row[0]];
        let (activation, stored) = formats[row[3]];
        let read = stored.nested(2 + row[1] as u8).ok()?;
        let problem = Problem::new((8, 96, 384), activation, read)
            .with_output([OutputFormat::F32, OutputFormat::I32][row[4]]);
        let mut options = PlanOptions::engine(kernel.engine).with_nesting(Nesting::ALL[row[2]]);
        options.skeleton = Some(kernel.skeleton);
        let (accepted, _) = candidates(&problem, &devices[row[5]], &options).ok()?;
        let found = accepted
            .into_iter()
            .find(|candidate| candidate.skeleton == kernel.skeleton && candidate.tile == tile);
        Some(found?.specialization)
    };
    let levels = [
        kernels.len(),
        6,
        Nesting::ALL.len(),
        formats.len(),
        2,
        devices.len(),
    ];
    let mut texts = Texts::default();
    for row in pairwise(&levels, |row| find(row).is_some()) {
        texts.add(find(&row).expect("the row is allowed"));
    }
    texts.into_vec()
}

/// The GEMM shaders of mixtures of experts: each two of kernel with tile, formats with output, residual, and device.
pub(super) fn expert_gemms() -> Vec<Text> {
    variants(|problem, options| (problem.with_experts(3), options))
}

/// The GEMM shaders that split K, likewise.
pub(super) fn split_gemms() -> Vec<Text> {
    variants(|problem, options| (problem, options.with_parts(2)))
}

/// Every tile with each kind of output, with a residual and without, on every device, of problems and options that are made
/// others first.
fn variants(vary: impl Fn(Problem, PlanOptions) -> (Problem, PlanOptions)) -> Vec<Text> {
    let devices = devices();
    let kernels: Vec<(&KernelRow, Tile)> = KERNELS
        .iter()
        .flat_map(|&row| row.tiles.iter().map(move |&tile| (row, tile)))
        .collect();
    let contracts = [
        ("f32", "i4g32h", OutputFormat::F32),
        ("i8rf", "u4g32hm", OutputFormat::F16),
        ("i3", "u2", OutputFormat::I32),
    ]
    .map(|(activation, weight, output)| (format(activation), format(weight), output));
    let find = |row: &[usize]| {
        let (kernel, tile) = kernels[row[0]];
        let (activation, weight, output) = contracts[row[1]];
        let mut problem = Problem::new((8, 96, 384), activation, weight).with_output(output);
        problem.residual = row[2] == 1;
        let (problem, mut options) = vary(problem, PlanOptions::engine(kernel.engine));
        options.skeleton = Some(kernel.skeleton);
        let (accepted, _) = candidates(&problem, &devices[row[3]], &options).ok()?;
        let found = accepted
            .into_iter()
            .find(|candidate| candidate.skeleton == kernel.skeleton && candidate.tile == tile);
        Some(found?.specialization)
    };
    let levels = [kernels.len(), contracts.len(), 2, devices.len()];
    let mut texts = Texts::default();
    for row in pairwise(&levels, |row| find(row).is_some()) {
        texts.add(find(&row).expect("the row is allowed"));
    }
    texts.into_vec()
}

/// The layouts of an element, unless `full` every seventh of several, in turn with the elements before it.
fn layouts(element: ElementFormat, turn: &mut usize) -> Vec<DeviceLayout> {
    let coded = element.has_codes();
    let pieces = [PieceLayout::Pieces, PieceLayout::Planes];
    let interleaves = [1, 2, 4, 8, 16, 32];
    let mut layouts = Vec::new();
    for pieces in pieces.into_iter().take(if coded { 2 } else { 1 }) {
        for interleave in interleaves.into_iter().take(if coded { 6 } else { 1 }) {
            for sums in [SumLayout::None, SumLayout::Blocks] {
                if coded || sums == SumLayout::None {
                    layouts.push(DeviceLayout {
                        pieces,
                        interleave,
                        sums,
                        memory: Memory::Buffers,
                    });
                }
            }
        }
    }
    if coded && !full() {
        layouts.retain(|_| {
            *turn += 1;
            (*turn).is_multiple_of(7)
        });
    }
    layouts
}

/// Each rounding and each rule for powers of two, with both kinds of overflow.
fn quantize_options() -> [QuantizeRowsOptions; 4] {
    let options = QuantizeRowsOptions::default();
    [
        options.with_overflow(Overflow::Special),
        options
            .with_rounding(Rounding::HalfAway)
            .with_scale_rule(ScaleRule::Ceil),
        options
            .with_rounding(Rounding::Truncate)
            .with_scale_rule(ScaleRule::Nearest),
        options
            .with_rounding(Rounding::Stochastic { seed: 1 })
            .with_overflow(Overflow::Special),
    ]
}

/// The shaders that quantise: every element that they take, in every layout.
pub(super) fn quantizers() -> Vec<Text> {
    let mut texts = Texts::default();
    let gpu = Caps::floor();
    let software = Caps {
        class: DeviceClass::Software,
        ..Caps::floor()
    };
    let mut turn = 0;
    for row in FORMATS.iter().filter(|row| row.element.has_codes()) {
        let bare = MatrixFormat::new(row.element, None);
        let scaled = (1..GRANULARITIES.len())
            .flat_map(|granularity| [0, 2].map(|scale| [granularity, scale, 0]))
            .filter_map(|scales| matrix_format(row.element, scales));
        for format in bare.into_iter().chain(scaled) {
            // Powers of two scale groups; the larger codebooks and those with choices are for the host.
            let codebook = row.element.codebook();
            let refused = codebook.is_some_and(|codebook| codebook.bits() > 4)
                || format.to_string().ends_with("re");
            for layout in layouts(row.element, &mut turn) {
                match quantize_specialization(&gpu, &format, &layout) {
                    Ok(specialization) => {
                        assert!(!refused, "{format}");
                        texts.add(specialization);
                        let in_texels = DeviceLayout {
                            memory: Memory::TextureCodes,
                            ..layout
                        };
                        let whole = [[4], [8]].iter().any(|widths| {
                            piece_widths(row.element, layout.pieces) == widths.as_slice()
                        });
                        let written = quantize_specialization(&software, &format, &in_texels);
                        assert_eq!(written.is_ok(), whole, "{format} {layout:?}");
                        written.into_iter().for_each(|written| texts.add(written));
                        // The rest of the text is the same.
                        if layout == DeviceLayout::ROW_MAJOR {
                            for options in quantize_options() {
                                let other = quantize_specialization_with(
                                    &software, &format, &layout, &options,
                                );
                                other.into_iter().for_each(|other| texts.add(other));
                            }
                        }
                    }
                    Err(error) => assert!(refused, "{format} {layout:?}: {error}"),
                }
            }
        }
    }
    texts.into_vec()
}

/// The shaders of L-Mul, element by element: every multiplier.
pub(super) fn l_muls() -> Vec<Text> {
    let mut texts = Texts::default();
    for bits in 1..=23 {
        for reading in [LMulReading::Bits, LMulReading::Formula] {
            let l_mul = LMul::new(bits).expect("1 to 23 bits");
            texts.add(l_mul_specialization(l_mul.with_reading(reading)));
        }
    }
    texts.into_vec()
}

/// The shaders that decode: every element in every layout, under covering scales.
pub(super) fn decoders() -> Vec<Text> {
    let mut texts = Texts::default();
    let levels = [GRANULARITIES.len(), ScaleType::ALL.len(), ZEROS.len()];
    let scales = pairwise(&levels, |_| true);
    let mut turn = 0;
    for row in FORMATS {
        for layout in layouts(row.element, &mut turn) {
            if let Ok(bare) = MatrixFormat::new(row.element, None) {
                texts.add(decode_specialization(&bare, &layout));
            }
            for memory in [Memory::Textures, Memory::TextureCodes] {
                let in_textures = DeviceLayout { memory, ..layout };
                if let Some(format) = matrix_format(row.element, [3, 1, 2]) {
                    texts.add(decode_specialization(&format, &in_textures));
                }
            }
            for scales in &scales {
                if let Some(format) = matrix_format(row.element, [scales[0], scales[1], scales[2]])
                {
                    texts.add(decode_specialization(&format, &layout));
                }
            }
        }
    }
    texts.into_vec()
}
