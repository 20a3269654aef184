//! Rotary embedding and KV caches on the GPU: what a step adds to a cache, and that it changes nothing else.

use anybit::{
    Context, HeadNorm, KvCache, KvFormat, KvShape, Pairing, Rotary, RotaryTable, Sequence,
};
use anybit_reference::bound::{Bounded, ErrorModel, f16_output};
use anybit_reference::cache::{BLOCK, Cache, CacheFormat, Section, Side};
use anybit_reference::kernel::{self, Rotated, completed};
use anybit_tests::cover::pairwise;
use anybit_tests::kv::download;
use anybit_tests::model::{Outcome, bounded, filled, input, read, submit, values};
use anybit_tests::random::Random;
use anybit_tests::rig::on_each_adapter;

/// One layer's rotary embedding and cache.
#[derive(Clone, Copy, Debug)]
struct Layer {
    format: KvFormat,
    head_dim: usize,
    rotated: usize,
    pairing: Pairing,
    query_heads: usize,
    heads: usize,
    bias: bool,
    norm: bool,
    capacity: usize,
    step: usize,
}

/// A layer's vectors on the host.
struct Vectors {
    frequencies: Vec<f64>,
    bias: Vec<f32>,
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
}

impl Layer {
    fn columns(&self) -> [usize; 2] {
        let keys = self.query_heads * self.head_dim;
        [keys, keys + self.heads * self.head_dim]
    }

    /// Columns of the input; a few more than the heads have.
    fn width(&self) -> usize {
        (self.query_heads + 2 * self.heads) * self.head_dim + 3
    }

    fn vectors(&self, random: &mut Random) -> Vectors {
        let rotated = self.rotated as f64;
        let pairs = 0..self.rotated / 2;
        Vectors {
            frequencies: pairs
                .map(|pair| 10_000_f64.powf(-2.0 * pair as f64 / rotated))
                .collect(),
            bias: values(self.width(), 2.0, random),
            query_norm: values(self.head_dim, 2.0, random),
            key_norm: values(self.head_dim, 2.0, random),
        }
    }

    fn host<'a>(&self, vectors: &'a Vectors) -> kernel::Rotary<'a> {
        kernel::Rotary {
            head_dim: self.head_dim,
            query_heads: self.query_heads,
            key_heads: self.heads,
            columns: self.columns(),
            frequencies: &vectors.frequencies,
            halves: self.pairing == Pairing::Halves,
            bias: self.bias.then_some(&vectors.bias[..]),
            norm: self.norm.then_some(kernel::HeadNorm {
                query: &vectors.query_norm,
                key: &vectors.key_norm,
                epsilon: 1.0e-6,
            }),
        }
    }
}

/// A layer on the device.
struct OnDevice<'a> {
    context: &'a Context,
    layer: Layer,
    vectors: Vectors,
    table: RotaryTable,
    sequence: Sequence,
    cache: KvCache,
}

impl<'a> OnDevice<'a> {
    fn new(context: &'a Context, layer: Layer, random: &mut Random) -> Outcome<Self> {
        let vectors = layer.vectors(random);
        let shape = KvShape {
            heads: layer.heads,
            head_dim: layer.head_dim,
            capacity: layer.capacity,
            step: layer.step,
        };
        Ok(Self {
            context,
            layer,
            table: context.rotary_table(&vectors.frequencies, layer.capacity)?,
            sequence: context.sequence(layer.capacity)?,
            cache: context.kv_cache(layer.format, shape)?,
            vectors,
        })
    }

    /// Rotates rows, and quantises what they complete; the queries.
    fn step(&self, rows: &[f32], count: usize) -> Outcome<Vec<f32>> {
        let Self { context, layer, .. } = self;
        let width = layer.width();
        let source = filled(context, rows, (count, width), 1)?;
        let columns = layer.query_heads * layer.head_dim;
        let queries = filled(context, &vec![0.0; count * columns], (count, columns), 1)?;
        let bias = input(context, &self.vectors.bias, (1, width), 0)?;
        let norms = [&self.vectors.query_norm, &self.vectors.key_norm]
            .map(|norm| input(context, norm, (1, layer.head_dim), 0));
        let [query, key] = norms;
        let (query, key) = (query?, key?);
        let rotary = Rotary {
            table: &self.table,
            pairing: layer.pairing,
            query_heads: layer.query_heads,
            columns: layer.columns(),
            bias: layer.bias.then_some(&bias),
            norm: layer.norm.then_some(HeadNorm {
                query: &query,
                key: &key,
                epsilon: 1.0e-6,
            }),
        };
        let rotate =
            context.prepare_rotate(&rotary, &source, &self.sequence, &queries, &self.cache)?;
        let quantize = context.prepare_quantize_cache(&self.cache, &self.sequence, count)?;
        let advance = context.prepare_advance(&self.sequence, count)?;
        submit(context, &[&rotate, &quantize, &advance]);
        read(context, &queries)
    }
}

/// What a channel may be in a cache whose f32 value is known.
fn as_stored(format: KvFormat, expected: Bounded) -> Bounded {
    match format {
        KvFormat::F32 => expected,
        _ => f16_output(expected.value, expected.bound),
    }
}

/// Checks the ring for a step's tokens.
fn check_ring(
    cache: &Cache,
    layer: &Layer,
    rotated: &[Rotated<Bounded>],
    done: usize,
) -> Result<(), String> {
    for (row, rotated) in rotated.iter().enumerate() {
        for (side, expected) in [(Side::Key, &rotated.keys), (Side::Value, &rotated.values)] {
            for (index, &expected) in expected.iter().enumerate() {
                let (head, channel) = (index / layer.head_dim, index % layer.head_dim);
                let found = cache.ring(side, head, done + row, channel);
                let expected = as_stored(layer.format, expected);
                if !expected.holds(found) {
                    return Err(format!(
                        "{side:?} of token {}, head {head}, channel {channel}: {found:e}, expected {expected:?}",
                        done + row
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks the codes of the blocks that a step completes; how many are sure, and how many there are.
fn check_codes(cache: &Cache, done: usize, rows: usize) -> Result<(usize, usize), String> {
    let shape = *cache.shape();
    let CacheFormat::Codes(bits) = shape.format else {
        return Ok((0, 0));
    };
    let model = ErrorModel::WGSL;
    let (mut sure, mut all) = (0, 0);
    let mut check = |side, places: &[(usize, usize, usize)]| -> Result<(), String> {
        let ring = |&(head, token, channel): &(usize, usize, usize)| {
            cache.ring(side, head, token, channel)
        };
        let values: Vec<f32> = places.iter().map(ring).collect();
        let (head, token, channel) = places[0];
        let scale = cache.scale(side, head, token, channel);
        let bounds = model.cache_scale(&values, bits);
        if !(bounds[0].holds(scale.scale) && bounds[1].holds(scale.minimum)) {
            return Err(format!(
                "{side:?} at {:?}: {scale:?}, expected {bounds:?}",
                places[0]
            ));
        }
        for (&place, value) in places.iter().zip(values) {
            let (head, token, channel) = place;
            let code = cache.code(side, head, token, channel);
            let allowed = model.cache_code(value, scale, bits);
            if !allowed.contains(&code) {
                return Err(format!(
                    "{side:?} at {place:?}: {value:e} under {scale:?} became {code}, expected {allowed:?}"
                ));
            }
            all += 1;
            sure += usize::from(allowed.start() == allowed.end());
        }
        Ok(())
    };
    for block in completed(done, rows) {
        let tokens = block * BLOCK..(block + 1) * BLOCK;
        for head in 0..shape.heads {
            for channel in 0..shape.head_dim {
                let places = tokens.clone().map(|token| (head, token, channel));
                check(Side::Key, &places.collect::<Vec<_>>())?;
            }
            for token in tokens.clone() {
                for group in (0..shape.head_dim).step_by(shape.value_group()) {
                    let channels = group..group + shape.value_group();
                    let places = channels.map(|channel| (head, token, channel));
                    check(Side::Value, &places.collect::<Vec<_>>())?;
                }
            }
        }
    }
    Ok((sure, all))
}

/// The cache before a step with what the step may write as it is after: equal to it unless something else was written.
fn with_step(before: &Cache, after: &Cache, done: usize, rows: usize) -> Cache {
    let shape = *before.shape();
    let mut expected = before.clone();
    let each = |tokens: std::ops::Range<usize>| {
        (0..shape.heads).flat_map(move |head| {
            tokens.clone().flat_map(move |token| {
                (0..shape.head_dim).map(move |channel| (head, token, channel))
            })
        })
    };
    for side in [Side::Key, Side::Value] {
        for (head, token, channel) in each(done..done + rows) {
            let value = after.ring(side, head, token, channel);
            expected.set_ring(side, head, token, channel, value);
        }
        if let CacheFormat::Codes(_) = shape.format {
            let blocks = completed(done, rows);
            for place @ (head, token, channel) in each(blocks.start * BLOCK..blocks.end * BLOCK) {
                expected.set_scale(side, place, after.scale(side, head, token, channel));
                expected.set_code(side, place, after.code(side, head, token, channel));
            }
        }
    }
    expected
}

/// Steps of these lengths from a position on.
fn check_steps(
    context: &Context,
    layer: Layer,
    start: usize,
    steps: &[usize],
    seed: u64,
) -> Outcome<(usize, usize)> {
    let mut random = Random::new(seed);
    let device = OnDevice::new(context, layer, &mut random)?;
    context.write_done(&device.sequence, start)?;
    let (mut done, mut sure, mut all) = (start, 0, 0);
    let mut before = download(context, &device.cache)?;
    for &count in steps {
        let rows = values(count * layer.width(), 3.0, &mut random);
        let queries = device.step(&rows, count)?;
        let after = download(context, &device.cache)?;
        let host = layer.host(&device.vectors);
        let rotated: Vec<Rotated<Bounded>> = rows
            .chunks(layer.width())
            .zip(done..)
            .map(|(row, position)| ErrorModel::WGSL.rotate(&host, row, position))
            .collect();
        let at = |reason: String| format!("{count} rows at {done}: {reason}");
        let expected: Vec<Bounded> = rotated
            .iter()
            .flat_map(|rotated| rotated.queries.clone())
            .collect();
        if let Some(wrong) = bounded(&queries, &expected) {
            return Err(at(format!("queries: {wrong}")).into());
        }
        check_ring(&after, &layer, &rotated, done).map_err(at)?;
        let counts = check_codes(&after, done, count).map_err(at)?;
        (sure, all) = (sure + counts.0, all + counts.1);
        let expected = with_step(&before, &after, done, count);
        if let Some(word) =
            (0..after.words().len()).find(|&word| expected.words()[word] != after.words()[word])
        {
            let section = Section::ALL
                .into_iter()
                .find(|&section| after.shape().section(section).contains(&word));
            return Err(at(format!("word {word} of {section:?} was written")).into());
        }
        before = after;
        done += count;
    }
    Ok((sure, all))
}

fn note(rig: &mut anybit_tests::rig::Rig, layer: Layer, start: usize, steps: &[usize], seed: u64) {
    let context = rig.best();
    rig.note(match check_steps(&context, layer, start, steps, seed) {
        // f16 values lie on a grid, so some are ties.
        Ok((sure, all)) if 100 * sure >= 95 * all => Ok(()),
        Ok((sure, all)) => Err(format!("{layer:?}: only {sure} of {all} codes are sure")),
        Err(error) => Err(format!("{layer:?}, seed {seed}: {error}")),
    });
}

#[test]
fn steps_fill_the_cache() {
    on_each_adapter("steps_fill_the_cache", |rig| {
        let dims = [64, 80, 128, 256];
        let pairings = [Pairing::Neighbours, Pairing::Halves];
        let steps: [&[usize]; 3] = [
            &[1, 31, 5, 33, 64, 2, 60],
            &[64, 64, 63, 1],
            &[32, 7, 57, 40],
        ];
        // Format, channels, pairing, how many are rotated, bias, norm.
        let levels = [KvFormat::ALL.len(), dims.len(), 2, 3, 2, 2];
        for (index, row) in pairwise(&levels, |_| true).into_iter().enumerate() {
            let head_dim = dims[row[1]];
            let layer = Layer {
                format: KvFormat::ALL[row[0]],
                head_dim,
                rotated: [head_dim, head_dim / 2, 4][row[3]],
                pairing: pairings[row[2]],
                query_heads: 1 + index % 3,
                heads: 1 + index % 2,
                bias: row[4] == 1,
                norm: row[5] == 1,
                capacity: 200,
                step: 64,
            };
            note(rig, layer, 0, steps[index % steps.len()], index as u64);
        }
    });
}

/// f32 keeps its precision at positions of six digits.
#[test]
fn far_positions_are_rotated_as_precisely() {
    on_each_adapter("far_positions_are_rotated_as_precisely", |rig| {
        for format in [KvFormat::F32, KvFormat::Int4] {
            for pairing in [Pairing::Neighbours, Pairing::Halves] {
                let layer = Layer {
                    format,
                    head_dim: 16,
                    rotated: 16,
                    pairing,
                    query_heads: 2,
                    heads: 1,
                    bias: false,
                    norm: false,
                    capacity: 100_040,
                    step: 8,
                };
                note(rig, layer, 99_997, &[8, 1, 8], 7);
            }
        }
    });
}

/// Constant, zero and large channels.
#[test]
fn extreme_blocks_are_quantised() {
    on_each_adapter("extreme_blocks_are_quantised", |rig| {
        let context = rig.best();
        for format in [KvFormat::Int8, KvFormat::Int4, KvFormat::Int2] {
            let quantised = || -> Outcome<()> {
                let layer = Layer {
                    format,
                    head_dim: 80,
                    rotated: 4,
                    pairing: Pairing::Halves,
                    query_heads: 1,
                    heads: 1,
                    bias: false,
                    norm: false,
                    capacity: 64,
                    step: 32,
                };
                let mut random = Random::new(5);
                let device = OnDevice::new(&context, layer, &mut random)?;
                context.write_done(&device.sequence, 0)?;
                let width = layer.width();
                let mut rows = values(32 * width, 1.0, &mut random);
                for (index, value) in rows.iter_mut().enumerate() {
                    match index % width % 8 {
                        0 => *value = 0.0,
                        1 => *value = -3.0,
                        2 => *value *= 30_000.0,
                        3 => *value *= 1.0e-5,
                        _ => {}
                    }
                }
                device.step(&rows, 32)?;
                check_codes(&download(&context, &device.cache)?, 0, 32)?;
                Ok(())
            };
            rig.note(quantised().map_err(|error| format!("{format}: {error}")));
        }
    });
}
