//! The set of shaders under test.

use std::collections::BTreeMap;

use anybit::{
    Caps, KERNELS, KernelRow, OutputFormat, PlanOptions, Problem, Specialization, Tile, candidates,
    decode_specialization, quantize_specialization,
};
use anybit_formats::{
    AffineFormat, DeviceLayout, ElementFormat, Encoding, FORMATS, Granularity, MatrixFormat,
    PieceLayout, ScaleLayout, ScaleType, SumLayout, ZeroKind,
};
use anybit_tests::cover::pairwise;

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

/// Devices that get different shaders: without subgroups, and with small and large ones.
pub(super) fn devices() -> Vec<Caps> {
    [None, Some((8, 8)), Some((32, 32))]
        .into_iter()
        .map(|subgroup| {
            let mut caps = Caps::floor();
            caps.subgroup = subgroup;
            caps
        })
        .collect()
}

const GRANULARITIES: [Granularity; 5] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(16),
    Granularity::Group(32),
    Granularity::Group(96),
];
const ZEROS: [ZeroKind; 3] = [ZeroKind::None, ZeroKind::Integer, ZeroKind::Minimum];
const SCALES: [ScaleType; 2] = [ScaleType::F32, ScaleType::F16];

fn matrix_format(element: ElementFormat, [granularity, scale, zero]: [usize; 3]) -> MatrixFormat {
    let layout = ScaleLayout {
        granularity: GRANULARITIES[granularity],
        scale: SCALES[scale],
        zero: ZEROS[zero],
    };
    MatrixFormat::new(element, element.affine().map(|_| layout)).expect("a format")
}

/// Widths of elements: 1 to 8 bits, then f32, f16, bf16.
const WIDTHS: usize = 11;

/// An element of a width. Shaders know encodings only by whether an integer is its code (`unsigned`) or not.
fn element(width: usize, unsigned: bool) -> ElementFormat {
    let encoding = match unsigned {
        true => Encoding::Unsigned,
        false => [Encoding::TwosComplement, Encoding::Bipolar][width % 2],
    };
    match width {
        8 => ElementFormat::F32,
        9 => ElementFormat::F16,
        10 => ElementFormat::BF16,
        _ => AffineFormat::new(width as u8 + 1, encoding)
            .expect("1 to 8 bits")
            .into(),
    }
}

/// The GEMM shaders: each two of kernel with tile, element and scales of both operands, output, and device.
pub(super) fn gemms() -> Vec<Text> {
    let devices = devices();
    let kernels: Vec<(&KernelRow, Tile)> = KERNELS
        .iter()
        .flat_map(|&row| row.tiles.iter().map(move |&tile| (row, tile)))
        .collect();
    let problem = |row: &[usize]| {
        let activation = element(row[1], row[2] == 1);
        let weight = element(row[6], row[6].is_multiple_of(2));
        // All kernels take eight rows; the text does not depend on their number.
        let shape = (8, 96, 192);
        if row[10] == 1 {
            let bare = |element| MatrixFormat::new(element, None).expect("a format");
            Problem::new(shape, bare(activation), bare(weight)).with_output(OutputFormat::I32)
        } else {
            let activation = matrix_format(activation, [row[3], row[4], row[5]]);
            Problem::new(
                shape,
                activation,
                matrix_format(weight, [row[7], row[8], row[9]]),
            )
        }
    };
    let find = |row: &[usize]| {
        let (kernel, tile) = kernels[row[0]];
        let (accepted, _) = candidates(
            &problem(row),
            &devices[row[11]],
            &PlanOptions::engine(kernel.engine),
        )
        .ok()?;
        let found = accepted
            .into_iter()
            .find(|candidate| candidate.skeleton == kernel.skeleton && candidate.tile == tile);
        Some(found?.specialization)
    };
    let scales = [GRANULARITIES.len(), SCALES.len(), ZEROS.len()];
    let mut levels = vec![kernels.len(), WIDTHS, 2];
    levels.extend(scales);
    levels.push(WIDTHS);
    levels.extend(scales);
    levels.extend([2, devices.len()]);
    let mut texts = Texts::default();
    for row in pairwise(&levels, |row| find(row).is_some()) {
        texts.add(find(&row).expect("the row is allowed"));
    }
    texts.into_vec()
}

fn layouts(element: ElementFormat) -> Vec<DeviceLayout> {
    let affine = element.affine().is_some();
    let pieces = [PieceLayout::Pieces, PieceLayout::Planes];
    let interleaves = [1, 2, 4, 8, 16, 32];
    let mut layouts = Vec::new();
    for pieces in pieces.into_iter().take(if affine { 2 } else { 1 }) {
        for interleave in interleaves.into_iter().take(if affine { 6 } else { 1 }) {
            for sums in [SumLayout::None, SumLayout::Blocks] {
                if affine || sums == SumLayout::None {
                    layouts.push(DeviceLayout {
                        pieces,
                        interleave,
                        sums,
                    });
                }
            }
        }
    }
    layouts
}

/// The shaders that quantise: every element that they take, in every layout.
pub(super) fn quantizers() -> Vec<Text> {
    let mut texts = Texts::default();
    for row in FORMATS.iter().filter(|row| row.element.affine().is_some()) {
        for granularity in 1..GRANULARITIES.len() {
            let format = matrix_format(row.element, [granularity, 0, 0]);
            for layout in layouts(row.element) {
                match quantize_specialization(&format, &layout) {
                    Ok(specialization) => texts.add(specialization),
                    Err(error) => panic!("{format} {layout:?}: {error}"),
                }
            }
        }
    }
    texts.into_vec()
}

/// The shaders that decode: every element in every layout, under covering scales.
pub(super) fn decoders() -> Vec<Text> {
    let mut texts = Texts::default();
    let scales = pairwise(&[GRANULARITIES.len(), SCALES.len(), ZEROS.len()], |_| true);
    for row in FORMATS {
        for layout in layouts(row.element) {
            let bare = MatrixFormat::new(row.element, None).expect("a format");
            texts.add(decode_specialization(&bare, &layout));
            for scales in &scales {
                let format = matrix_format(row.element, [scales[0], scales[1], scales[2]]);
                texts.add(decode_specialization(&format, &layout));
            }
        }
    }
    texts.into_vec()
}
