//! The set of shaders under test.

use std::collections::BTreeMap;

use anybit::{
    Caps, OutputFormat, PlanOptions, Problem, Specialization, candidates, decode_specialization,
    quantize_specialization,
};
use anybit_formats::{
    DeviceLayout, ElementFormat, Encoding, FORMATS, Granularity, MatrixFormat, PieceLayout,
    ScaleLayout, ScaleType, SumLayout, ZeroKind,
};
use anybit_tests::cover::pairwise;
use anybit_tests::full;

/// A shader's text with the specialisation that first led to it.
pub(super) struct Text {
    pub(super) specialization: Specialization,
    pub(super) wgsl: String,
}

/// Texts, each once.
#[derive(Default)]
pub(super) struct Texts {
    by_text: BTreeMap<String, Specialization>,
}

impl Texts {
    pub(super) fn add(&mut self, specialization: Specialization) {
        let linked = specialization
            .link()
            .unwrap_or_else(|error| panic!("{}: {error}", specialization.id));
        // Each line leads back to a module, but for the modules' names and what stands between them.
        for (line, text) in (1..).zip(linked.wgsl.lines()) {
            let located = linked.line_map.locate(line).is_some();
            let between = text.is_empty() || text.starts_with("//");
            assert!(
                located || between,
                "{}: line {line}: {text}",
                specialization.id
            );
        }
        self.by_text.entry(linked.wgsl).or_insert(specialization);
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

/// Element formats whose shaders may differ: all widths, and an encoding without and with an offset.
fn elements() -> Vec<ElementFormat> {
    FORMATS
        .iter()
        .map(|row| row.element)
        .filter(|element| {
            full()
                || element
                    .affine()
                    .is_none_or(|affine| affine.encoding() != Encoding::Bipolar)
        })
        .collect()
}

fn matrix_format(element: ElementFormat, [granularity, scale, zero]: [usize; 3]) -> MatrixFormat {
    let layout = ScaleLayout {
        granularity: GRANULARITIES[granularity],
        scale: SCALES[scale],
        zero: ZEROS[zero],
    };
    MatrixFormat::new(element, element.affine().map(|_| layout)).expect("a format")
}

/// Problems that meet each two of: elements and scales of both operands, M, and the device.
fn problems() -> Vec<(Problem, Caps)> {
    let (elements, devices) = (elements(), devices());
    let scales = [GRANULARITIES.len(), SCALES.len(), ZEROS.len()];
    let rows = [1, 8, 64];
    let levels = [
        elements.len(),
        elements.len(),
        scales[0],
        scales[1],
        scales[2],
        scales[0],
        scales[1],
        scales[2],
        rows.len(),
        devices.len(),
    ];
    let supported = |row: &[usize]| {
        let (x, w) = (elements[row[0]], elements[row[1]]);
        // Codes meet codes, without minima; floats meet anything. Floats have no scales: one row of them is enough.
        let float_scales = |element: ElementFormat, scales: &[usize]| {
            element.affine().is_some() || scales == [0, 0, 0]
        };
        (x.affine().is_none() || w.affine().is_some() && ZEROS[row[4]] != ZeroKind::Minimum)
            && float_scales(x, &row[2..5])
            && float_scales(w, &row[5..8])
    };
    pairwise(&levels, supported)
        .into_iter()
        .map(|row| {
            let activation = matrix_format(elements[row[0]], [row[2], row[3], row[4]]);
            let weight = matrix_format(elements[row[1]], [row[5], row[6], row[7]]);
            let problem = Problem::new((rows[row[8]], 96, 192), activation, weight);
            (problem, devices[row[9]].clone())
        })
        .collect()
}

/// Problems of bare codes with integer outputs: every pair of widths.
fn integer_problems() -> Vec<(Problem, Caps)> {
    let mut problems = Vec::new();
    let devices = devices();
    for activation_bits in 1..=8 {
        for weight_bits in 1..=8 {
            let name = |bits: usize, index: usize| format!("{}{bits}", ["u", "i", "b"][index % 3]);
            let index = activation_bits + 3 * weight_bits;
            let activation = name(activation_bits, index).parse().expect("a format");
            let weight = name(weight_bits, index / 3).parse().expect("a format");
            let m = [1, 8, 64][index % 3];
            let problem =
                Problem::new((m, 96, 192), activation, weight).with_output(OutputFormat::I32);
            problems.push((problem, devices[index / 2 % devices.len()].clone()));
        }
    }
    problems
}

/// The GEMM shaders.
pub(super) fn gemms() -> Vec<Text> {
    let mut texts = Texts::default();
    for (problem, caps) in problems().into_iter().chain(integer_problems()) {
        let (accepted, _) = candidates(&problem, &caps, &PlanOptions::default())
            .unwrap_or_else(|error| panic!("{}: {error}", problem.contract()));
        assert!(!accepted.is_empty(), "no kernel for {}", problem.contract());
        for candidate in accepted {
            texts.add(candidate.specialization);
        }
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
