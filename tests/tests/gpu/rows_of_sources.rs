//! RMSNorm and gates on the GPU, as f32 and quantised.

use anybit::{Context, Gate, RowSource};
use anybit_formats::{DeviceLayout, MatrixFormat, PieceLayout, QuantizeRowsOptions};
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_reference::quantize::codes_within;
use anybit_reference::{Gate as HostGate, Source};
use anybit_tests::model::{Outcome, bounded, filled, input, read, submit, values, words};
use anybit_tests::operand::format;
use anybit_tests::random::Random;
use anybit_tests::rig::on_each_adapter;

/// Aligned, ragged, tiny, one row, more columns than a workgroup takes at once.
const SHAPES: [(usize, usize); 9] = [
    (1, 1),
    (1, 4),
    (3, 7),
    (5, 64),
    (2, 257),
    (4, 576),
    (1, 1030),
    (70, 33),
    (9, 96),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Norm(f32),
    Gated(Gate),
}

const KINDS: [Kind; 4] = [
    Kind::Norm(1.0e-5),
    Kind::Norm(0.5),
    Kind::Gated(Gate::Silu),
    Kind::Gated(Gate::GeluTanh),
];

/// A source with the rows that it works on.
struct Case {
    kind: Kind,
    shape: (usize, usize),
    /// Columns of the rows, and the column of the first factor.
    width: usize,
    up: usize,
    rows: Vec<f32>,
    weight: Vec<f32>,
}

impl Case {
    fn new(kind: Kind, shape: (usize, usize), random: &mut Random) -> Self {
        let (rows, columns) = shape;
        let (up, width) = match kind {
            Kind::Norm(_) => (0, columns),
            Kind::Gated(_) => {
                let up = columns.next_multiple_of(4) + 4 * random.below(3);
                (up, up + columns + random.below(5))
            }
        };
        let mut case = Self {
            kind,
            shape,
            width,
            up,
            rows: Vec::with_capacity(rows * width),
            weight: values(columns, 3.0, random),
        };
        for row in 0..rows {
            for column in 0..width {
                let x = random.signed();
                case.rows.push(match (row + columns) % 9 {
                    1 => 0.0,
                    2 => x * 1.0e9,
                    3 => x * 1.0e-12,
                    4 => x * 1.0e-39,
                    5 if column % 29 == 0 => 3000.0,
                    6 => 90.0 * x,
                    7 => 7.5,
                    _ => 4.0 * x,
                });
            }
        }
        case
    }

    fn host(&self) -> Source<'_> {
        match self.kind {
            Kind::Norm(epsilon) => Source::RmsNorm {
                weight: &self.weight,
                epsilon,
            },
            Kind::Gated(gate) => Source::Gated {
                gate: match gate {
                    Gate::Silu => HostGate::Silu,
                    Gate::GeluTanh => HostGate::GeluTanh,
                },
                columns: self.shape.1,
                up: self.up,
            },
        }
    }

    /// The values that the source makes, row by row.
    fn expected(&self) -> Outcome<Vec<Bounded>> {
        let mut expected = Vec::new();
        for row in self.rows.chunks(self.width) {
            expected.extend(ErrorModel::WGSL.source(&self.host(), row)?);
        }
        Ok(expected)
    }

    /// Runs a part of a test with the source on the device.
    fn on_device<T>(
        &self,
        context: &Context,
        extra: usize,
        run: impl FnOnce(&anybit::DeviceMatrix, &RowSource<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let rows = input(context, &self.rows, (self.shape.0, self.width), extra)?;
        let weight = input(context, &self.weight, (1, self.shape.1), 1)?;
        let source = match self.kind {
            Kind::Norm(epsilon) => RowSource::RmsNorm {
                weight: &weight,
                epsilon,
            },
            Kind::Gated(gate) => RowSource::Gated {
                gate,
                columns: self.shape.1,
                up: self.up,
            },
        };
        run(&rows, &source)
    }
}

fn write(context: &Context, case: &Case, residual: bool, seed: u64) -> Outcome<Option<String>> {
    let mut random = Random::new(seed);
    let mut expected = case.expected()?;
    let count = case.shape.0 * case.shape.1;
    let residuals = values(count, 5.0, &mut random);
    let extra = random.below(3);
    let found = case.on_device(context, random.below(2), |rows, source| {
        let output = filled(context, &vec![0.0; count], case.shape, extra)?;
        let added = filled(context, &residuals, case.shape, extra)?;
        let work = context.prepare_rows(rows, source, residual.then_some(&added), &output)?;
        submit(context, &[&work]);
        read(context, &output)
    })?;
    if residual {
        for (expected, &residual) in expected.iter_mut().zip(&residuals) {
            *expected = ErrorModel::WGSL.with_residual(*expected, residual);
        }
    }
    Ok(bounded(&found, &expected).map(|wrong| wrong.to_string()))
}

#[test]
fn norms_and_gates_are_within_their_bounds() {
    on_each_adapter("norms_and_gates_are_within_their_bounds", |rig| {
        // Their workgroups differ.
        let contexts = rig.of_each_class();
        for (turn, shape) in SHAPES.into_iter().enumerate() {
            for kind in KINDS {
                for residual in [false, true] {
                    let seed = turn as u64;
                    let case = Case::new(kind, shape, &mut Random::new(seed));
                    let what = format!("{kind:?} {shape:?} residual {residual} seed {seed}");
                    for context in &contexts {
                        rig.note(match write(context, &case, residual, seed) {
                            Ok(None) => Ok(()),
                            Ok(Some(wrong)) => Err(format!("{what}: {wrong}")),
                            Err(error) => Err(format!("{what}: {error}")),
                        });
                    }
                }
            }
        }
    });
}

/// Whether the codes that the GPU made follow from the scale that it emitted, and that from the source.
fn quantize(
    context: &Context,
    case: &Case,
    format: MatrixFormat,
    layout: &DeviceLayout,
) -> Outcome<(usize, usize)> {
    let (rows, columns) = case.shape;
    let options = QuantizeRowsOptions::default();
    let expected = case.expected()?;
    let (matrix, inverses) = case.on_device(context, 1, |input, source| {
        let output = context.allocate(format, rows, columns, layout)?;
        let prepared = context.prepare_quantize_source(input, source, &output, &options)?;
        let inverses = prepared.inverses.ok_or("the matrix is not empty")?;
        // Copied to a length that can be read.
        let size = inverses.size().next_multiple_of(16);
        let copy = anybit_tests::rig::buffer_of(context, (0..size / 4).map(|_| 0));
        let mut encoder = context.device().create_command_encoder(&Default::default());
        prepared.work.encode_pass(&mut encoder);
        encoder.copy_buffer_to_buffer(&inverses, 0, &copy, 0, inverses.size());
        context.queue().submit([encoder.finish()]);
        Ok((context.download(&output)?, words(context, &copy)?))
    })?;
    let (groups, length) = (format.groups(columns), format.group_len(columns));
    let (mut sure, mut all) = (0, 0);
    for row in 0..rows {
        for group in 0..groups {
            let first = row * columns + group * length;
            let values = &expected[first..][..length];
            let scale = matrix.scale(row, group);
            let inverse = f32::from_bits(inverses[row * groups + group]);
            let place = format!("row {row}, group {group}");
            let model = ErrorModel::WGSL;
            let bound = model.scale_within(values, &format, options.scale_rule)?;
            if !bound.holds(scale) {
                return Err(format!("{place}: the scale is {scale:e}, expected {bound:?}").into());
            }
            let bound = model.inverse(scale);
            if !bound.holds(inverse) {
                return Err(format!("{place}: the inverse of {scale:e} is {inverse:e}").into());
            }
            let allowed = codes_within(values, inverse, &format, &options, first as u64);
            for (index, allowed) in allowed.into_iter().enumerate() {
                let code = matrix.code(row, group * length + index).ok_or("a code")?;
                if !allowed.contains(code) {
                    return Err(format!(
                        "{place}: {:?} times {inverse:e} became {code}, expected {allowed:?}",
                        values[index]
                    )
                    .into());
                }
                all += 1;
                sure += usize::from(allowed.only().is_some());
            }
        }
    }
    Ok((sure, all))
}

#[test]
fn quantised_sources_follow_from_the_emitted_scale() {
    on_each_adapter("quantised_sources_follow_from_the_emitted_scale", |rig| {
        let contexts = rig.of_each_class();
        let rows = [
            "i8rf", "i4rf", "u4rf", "b1rf", "b4rf", "trf", "e4m3rf", "nf4rf",
        ];
        let groups = ["i8g32f", "i4g16f", "e2m1g32e", "u8g96f"];
        let layouts = [
            (PieceLayout::Pieces, 1),
            (PieceLayout::Pieces, 4),
            (PieceLayout::Planes, 4),
        ];
        let (mut sure, mut all) = (0, 0);
        for (turn, name) in rows.into_iter().chain(groups).enumerate() {
            let format = format(name);
            let (pieces, interleave) = layouts[turn % layouts.len()];
            let layout = DeviceLayout {
                pieces,
                interleave,
                ..DeviceLayout::ROW_MAJOR
            };
            for kind in [KINDS[turn % 2], KINDS[2 + turn % 2]] {
                let shapes = match name.contains('g') {
                    true => [(1, 96), (10, 96), (3, 480)],
                    false => [(1, 5), (12, 70), (10, 576)],
                };
                for shape in shapes {
                    let case = Case::new(kind, shape, &mut Random::new(turn as u64));
                    for context in &contexts {
                        let found = quantize(context, &case, format, &layout);
                        rig.note(match found {
                            Ok(counts) => {
                                (sure, all) = (sure + counts.0, all + counts.1);
                                Ok(())
                            }
                            Err(error) => Err(format!("{name} {kind:?} {shape:?}: {error}")),
                        });
                    }
                }
            }
        }
        // Rows of zeros and of subnormals leave some codes open.
        rig.note(match 10 * sure >= 7 * all {
            true => Ok(()),
            false => Err(format!("only {sure} of {all} codes are sure")),
        });
    });
}
