//! Gathering, cross entropy and drawing on the GPU.

use anybit::{Context, Sampling, wgpu};
use anybit_formats::{DeviceLayout, Memory, PackedMatrix, PieceLayout};
use anybit_reference::bound::{Bounded, ErrorModel};
use anybit_reference::kernel;
use anybit_tests::model::{CANARY, Outcome, bounded, filled, read, submit, values, words};
use anybit_tests::operand::{Fill, format, operand};
use anybit_tests::random::Random;
use anybit_tests::rig::{device, on_each_adapter};

/// Gathers ids after `done` others; what no id names must stay.
fn gather(
    context: &Context,
    matrix: &PackedMatrix,
    layout: &DeviceLayout,
    factor: f32,
    ids: &[u32],
    done: usize,
) -> Outcome<Option<String>> {
    let columns = matrix.columns();
    let uploaded = context.upload(matrix, layout)?;
    let sequence = context.sequence(done + ids.len())?;
    context.write_tokens(&sequence, done, ids)?;
    context.write_done(&sequence, done)?;
    let shape = (ids.len(), columns);
    let before = vec![f32::from_bits(CANARY); ids.len() * columns];
    let output = filled(context, &before, shape, 1)?;
    let work = context.prepare_gather(&uploaded, factor, &sequence, &output)?;
    submit(context, &[&work]);
    let found = read(context, &output)?;

    let mut expected = before;
    kernel::gather(matrix, ids, factor, &mut expected);
    let distances = ErrorModel::WGSL.gather(matrix, factor);
    for (row, &id) in ids.iter().enumerate() {
        let found = &found[row * columns..][..columns];
        let first = id as usize * columns;
        let Some(bounds) = distances.get(first..first + columns) else {
            if found.iter().any(|value| value.to_bits() != CANARY) {
                return Ok(Some(format!("row {row}: id {id} wrote {found:?}")));
            }
            continue;
        };
        if let Some(wrong) = bounded(found, bounds) {
            return Ok(Some(format!("row {row}, id {id}: {wrong}")));
        }
        // The twin itself lies within the bounds.
        if let Some(wrong) = bounded(&expected[row * columns..][..columns], bounds) {
            return Ok(Some(format!("the twin of row {row}, id {id}: {wrong}")));
        }
    }
    Ok(None)
}

#[test]
fn rows_are_gathered() {
    on_each_adapter("rows_are_gathered", |rig| {
        let context = rig.best();
        let names = [
            "f32", "f16", "bf16", "i8g32h", "u4g32hm", "e4m3rf", "nf4g32h", "i3rf", "u4g32sm",
        ];
        let layouts = [
            (PieceLayout::Pieces, 1),
            (PieceLayout::Pieces, 4),
            (PieceLayout::Planes, 32),
        ];
        for (turn, name) in names.into_iter().enumerate() {
            for (second, columns) in [32_usize, 96, 256, 7].into_iter().enumerate() {
                let format = format(name);
                let columns = match name.contains('g') {
                    true if name.contains('s') => 256 * (1 + second),
                    true => columns.next_multiple_of(32),
                    false => columns,
                };
                let (pieces, interleave) = layouts[(turn + second) % 3];
                let layout = match format.element().has_codes() {
                    true => DeviceLayout {
                        pieces,
                        interleave,
                        memory: [Memory::Buffers, Memory::Textures, Memory::TextureCodes]
                            [second % 3],
                        ..DeviceLayout::ROW_MAJOR
                    },
                    false => DeviceLayout::ROW_MAJOR,
                };
                let mut random = Random::new(turn as u64);
                let matrix = operand(&format, (37, columns), Fill::Random, &mut random);
                let ids = [0, 36, 5, 5, 37, u32::MAX, 17];
                let factor = random.pick(&[1.0, 24.0, -0.37]);
                let found = gather(&context, &matrix, &layout, factor, &ids, 5 * second);
                rig.note(match found {
                    Ok(None) => Ok(()),
                    Ok(Some(wrong)) => Err(format!("{name} {columns} {layout:?}: {wrong}")),
                    Err(error) => Err(format!("{name} {columns} {layout:?}: {error}")),
                });
            }
        }
    });
}

/// A matrix in several bindings gathers as one in one.
#[test]
fn rows_are_gathered_from_every_chunk() {
    on_each_adapter("rows_are_gathered_from_every_chunk", |rig| {
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: 1 << 16,
            ..wgpu::Limits::default().or_worse_values_from(&rig.adapter().limits())
        };
        let context = device(rig.adapter(), wgpu::Features::empty(), limits);
        let matrix = operand(
            &format("f16"),
            (400, 256),
            Fill::Random,
            &mut Random::new(3),
        );
        let ids = [0, 399, 127, 128, 129, 256, 400, 300];
        let found = gather(&context, &matrix, &DeviceLayout::ROW_MAJOR, 1.0, &ids, 0);
        rig.note(match found {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(error) => Err(error.to_string()),
        });
    });
}

fn logits(rows: usize, columns: usize, kind: usize, random: &mut Random) -> Vec<f32> {
    (0..rows * columns)
        .map(|index| match kind {
            0 => 6.0 * random.signed(),
            1 => 1.0e4 * random.signed(),
            2 if index % 5 == 0 => 1.0e4,
            2 => -1.0e4,
            _ => 3.25,
        })
        .collect()
}

fn cross_entropy(
    context: &Context,
    values: &[f32],
    (rows, columns): (usize, usize),
    cap: Option<f32>,
    random: &mut Random,
) -> Outcome<Option<String>> {
    let (done, first) = (random.below(9), random.below(3));
    let ids: Vec<u32> = (0..rows)
        .map(|_| random.below(columns + 1) as u32)
        .collect();
    let sequence = context.sequence(done + first + rows + 1)?;
    context.write_tokens(&sequence, done + first + 1, &ids)?;
    context.write_done(&sequence, done)?;
    let input = filled(context, values, (rows, columns), random.below(2))?;
    let output = filled(context, &vec![0.0; rows], (rows, 1), 0)?;
    let work = context.prepare_cross_entropy(&input, cap, &sequence, first, &output)?;
    submit(context, &[&work]);
    let found = read(context, &output)?;
    let expected: Vec<Bounded> = values
        .chunks(columns)
        .zip(ids)
        .map(|(logits, id)| ErrorModel::WGSL.cross_entropy(logits, cap, id))
        .collect();
    if expected.iter().any(|expected| !expected.bound.is_finite()) {
        return Err(format!("no bound: {expected:?}").into());
    }
    Ok(bounded(&found, &expected).map(|wrong| wrong.to_string()))
}

#[test]
fn cross_entropies_are_within_their_bounds() {
    on_each_adapter("cross_entropies_are_within_their_bounds", |rig| {
        for floor in [false, true] {
            let context = if floor { rig.floor() } else { rig.best() };
            for (turn, columns) in [1, 7, 255, 1024, 1025, 49_152].into_iter().enumerate() {
                for kind in 0..4 {
                    for cap in [None, Some(30.0)] {
                        let rows = 1 + 2 * (turn % 2);
                        let mut random = Random::new(columns as u64 + kind as u64);
                        let values = logits(rows, columns, kind, &mut random);
                        let shape = (rows, columns);
                        let what = format!("{shape:?}, kind {kind}, cap {cap:?}, floor {floor}");
                        rig.note(
                            match cross_entropy(&context, &values, shape, cap, &mut random) {
                                Ok(None) => Ok(()),
                                Ok(Some(wrong)) => Err(format!("{what}: {wrong}")),
                                Err(error) => Err(format!("{what}: {error}")),
                            },
                        );
                    }
                }
            }
        }
    });
}

/// The tokens that a step of one row draws from the same logits, again and again.
fn draw(
    context: &Context,
    logits: &[f32],
    cap: Option<f32>,
    sampling: &Sampling,
    draws: usize,
) -> Outcome<Vec<u32>> {
    let sequence = context.sequence((draws + 1).next_multiple_of(4))?;
    context.write_done(&sequence, 0)?;
    let input = filled(context, logits, (1, logits.len()), 0)?;
    let work = context.prepare_draw(&input, cap, sampling, &sequence, 1)?;
    submit(context, &vec![&work; draws]);
    let words = words(context, sequence.buffer())?;
    let (head, ids) = words.split_at(4);
    if head[0] as usize != draws || head[1] != ids[draws] {
        return Err(format!("{draws} draws left the sequence at {head:?}").into());
    }
    Ok(ids[1..=draws].to_vec())
}

fn host(sampling: &Sampling, cap: Option<f32>) -> kernel::Sampling {
    kernel::Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: match sampling.top_p {
            1.0 => u32::MAX,
            // Scaled by a power of two, exactly.
            part => (f64::from(part) * 4_294_967_296.0) as u32,
        },
        seed: sampling.seed,
        cap,
    }
}

#[test]
fn drawn_tokens_are_those_of_the_reference() {
    on_each_adapter("drawn_tokens_are_those_of_the_reference", |rig| {
        let context = rig.best();
        let (mut sure, mut all) = (0, 0);
        let mut turn = 0;
        for columns in [1, 7, 255, 1024, 1025, 49_152] {
            for top_k in [0, 1, 5, columns] {
                for top_p in [1.0, 0.0, 0.5] {
                    turn += 1;
                    let mut random = Random::new(turn);
                    let cap = (turn % 4 == 0).then_some(20.0);
                    let temperature = random.pick(&[1.0, 0.7, 5.0, 0.05]);
                    let sampling = Sampling::temperature(temperature, random.bits() as u32)
                        .with_top_k(top_k)
                        .with_top_p(top_p);
                    let logits = logits(1, columns, [0, 0, 1, 3][turn as usize % 4], &mut random);
                    let draws = if columns > 2000 { 3 } else { 12 };
                    let what = format!("{columns} logits, {sampling:?}, cap {cap:?}");
                    let result = draw(&context, &logits, cap, &sampling, draws);
                    let ids = match result {
                        Ok(ids) => ids,
                        Err(error) => {
                            rig.note(Err(format!("{what}: {error}")));
                            continue;
                        }
                    };
                    let host = host(&sampling, cap);
                    for (id, place) in ids.into_iter().zip(1..) {
                        let allowed = ErrorModel::WGSL.draw(&logits, &host, place);
                        all += 1;
                        sure += usize::from(allowed.len() == 1);
                        rig.note(match allowed.contains(&(id as usize)) {
                            true => Ok(()),
                            false => Err(format!(
                                "{what}: place {place} drew {id}, expected {allowed:?}"
                            )),
                        });
                    }
                }
            }
        }
        rig.note(match 100 * sure >= 95 * all {
            true => Ok(()),
            false => Err(format!("only {sure} of {all} draws are sure")),
        });
    });
}

#[test]
fn greedy_drawing_takes_the_first_of_the_largest() {
    on_each_adapter("greedy_drawing_takes_the_first_of_the_largest", |rig| {
        let context = rig.best();
        let mut cases: Vec<(Vec<f32>, u32)> = vec![
            (vec![-1.0, 2.0, 2.0, 1.0], 1),
            (vec![-0.0, 0.0], 0),
            (vec![-3.0; 5], 0),
            (vec![f32::MIN, -1.0e38, -1.0e38], 1),
        ];
        for place in [0, 63, 64, 1023, 1024, 2047, 3000] {
            let mut logits = values(3001, 1.0, &mut Random::new(place as u64));
            logits[place] = 1.5;
            logits[3000] = 1.5;
            cases.push((logits, place as u32));
        }
        let subnormal = Sampling::temperature(1.0e-40, 9);
        for (logits, expected) in cases {
            for sampling in [Sampling::GREEDY, subnormal] {
                let found = draw(&context, &logits, None, &sampling, 1);
                rig.note(match found {
                    Ok(ids) if ids == [expected] => Ok(()),
                    other => Err(format!("expected {expected}, found {other:?}")),
                });
            }
        }
    });
}

/// Counts over many draws are within four standard deviations of their expectation.
#[test]
fn tokens_are_drawn_as_often_as_their_probability() {
    on_each_adapter("tokens_are_drawn_as_often_as_their_probability", |rig| {
        const DRAWS: usize = 3000;
        let context = rig.best();
        let logits: [f32; 8] = [0.3, 2.0, -1.0, 0.0, 1.2, -4.0, 0.7, 2.0];
        for temperature in [1.0, 2.5] {
            let sampling = Sampling::temperature(temperature, 77);
            let ids = match draw(&context, &logits, None, &sampling, DRAWS) {
                Ok(ids) => ids,
                Err(error) => return rig.note(Err(error.to_string())),
            };
            let weights = logits.map(|x| f64::from(x / temperature).exp());
            let sum: f64 = weights.iter().sum();
            for (token, weight) in weights.into_iter().enumerate() {
                let p = weight / sum;
                let expected = DRAWS as f64 * p;
                let count = ids.iter().filter(|&&id| id as usize == token).count() as f64;
                let deviation = (expected * (1.0 - p)).sqrt();
                rig.note(match (count - expected).abs() < 4.0 * deviation {
                    true => Ok(()),
                    false => Err(format!(
                        "token {token} came {count} times, expected {expected:.1} ± {deviation:.1}"
                    )),
                });
            }
        }
    });
}

#[test]
fn a_step_ends_with_its_tokens_done() {
    on_each_adapter("a_step_ends_with_its_tokens_done", |rig| {
        let context = rig.best();
        let advanced = || -> Outcome<Vec<u32>> {
            let sequence = context.sequence(60)?;
            context.write_done(&sequence, 7)?;
            let steps = [
                context.prepare_advance(&sequence, 5)?,
                context.prepare_advance(&sequence, 0)?,
            ];
            submit(&context, &[&steps[0], &steps[1], &steps[0]]);
            words(&context, sequence.buffer())
        };
        let mut expected = 7;
        for rows in [5, 0, 5] {
            kernel::advance(&mut expected, rows);
        }
        rig.note(match advanced() {
            Ok(words) if words[0] == expected && words[1..].iter().all(|&word| word == 0) => Ok(()),
            other => Err(format!("expected {expected}, found {other:?}")),
        });
    });
}
