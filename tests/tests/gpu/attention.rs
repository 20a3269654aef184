//! Attention on the GPU: within its bounds over caches of every format, and independent of what is computed with a row.

use anybit::{Attention, Context, KvCache, KvFormat, KvShape};
use anybit_reference::bound::ErrorModel;
use anybit_reference::cache::Cache;
use anybit_reference::kernel;
use anybit_tests::compare;
use anybit_tests::cover::pairwise;
use anybit_tests::full;
use anybit_tests::kv::{random_cache, shape_of, upload};
use anybit_tests::model::{Outcome, bounded, filled, read, submit, values};
use anybit_tests::random::Random;
use anybit_tests::rig::on_each_adapter;

const CAPACITY: usize = 1100;
const STEP: usize = 64;

/// A cache on the device and on the host, and what a query of it looks like.
struct Fixture {
    context: Context,
    query_heads: usize,
    head_dim: usize,
    cache: KvCache,
    host: Cache,
}

impl Fixture {
    fn new(
        context: &Context,
        format: KvFormat,
        head_dim: usize,
        (heads, group): (usize, usize),
        capacity: usize,
        random: &mut Random,
    ) -> Outcome<Self> {
        let shape = KvShape {
            heads,
            head_dim,
            capacity,
            step: STEP,
        };
        let cache = context.kv_cache(format, shape)?;
        let host = random_cache(shape_of(format, shape), 2.0, random);
        upload(context, &cache, &host)?;
        Ok(Self {
            context: context.clone(),
            query_heads: heads * group,
            head_dim,
            cache,
            host,
        })
    }

    fn width(&self) -> usize {
        self.query_heads * self.head_dim
    }

    /// The attention of rows of queries from a position on.
    fn run(&self, attention: &Attention, queries: &[f32], done: usize) -> Outcome<Vec<f32>> {
        let rows = queries.len() / self.width();
        let shape = (rows, self.width());
        let sequence = self.context.sequence(self.cache.shape().capacity)?;
        self.context.write_done(&sequence, done)?;
        let input = filled(&self.context, queries, shape, 1)?;
        let output = filled(&self.context, &vec![0.0; queries.len()], shape, 2)?;
        let work =
            self.context
                .prepare_attention(attention, &input, &self.cache, &sequence, &output)?;
        submit(&self.context, &[&work]);
        read(&self.context, &output)
    }

    /// Compares with the reference; how wide the bounds are beside the values.
    fn check(&self, attention: &Attention, queries: &[f32], done: usize) -> Outcome<f64> {
        let found = self.run(attention, queries, done)?;
        let expected = ErrorModel::WGSL.attention(
            &host(attention),
            queries,
            self.query_heads,
            &self.host,
            done,
        );
        if let Some(wrong) = bounded(&found, &expected) {
            return Err(wrong.to_string().into());
        }
        let values: Vec<f64> = expected.iter().map(|expected| expected.value).collect();
        let bounds: Vec<f64> = expected.iter().map(|expected| expected.bound).collect();
        Ok(compare::resolution(&values, &bounds))
    }
}

fn host(attention: &Attention) -> kernel::Attention {
    kernel::Attention {
        scale: attention.scale,
        window: attention.window,
        cap: attention.cap,
    }
}

/// First positions and numbers of rows: the borders of blocks, of tiles and of stretches, and what lies beside them.
const PLACES: [(usize, usize); 16] = [
    (0, 1),
    (0, 5),
    (31, 1),
    (31, 2),
    (32, 33),
    (33, 1),
    (250, 64),
    (255, 1),
    (255, 2),
    (256, 1),
    (257, 5),
    (511, 1),
    (512, 1),
    (1000, 2),
    (1001, 33),
    (1090, 1),
];

const WINDOWS: [Option<usize>; 5] = [None, Some(1), Some(33), Some(256), Some(700)];

#[test]
fn attention_is_within_its_bounds() {
    on_each_adapter("attention_is_within_its_bounds", |rig| {
        let (dims, groups) = ([64, 80, 128, 256], [1, 2, 3, 7, 8]);
        // Format, channels, group, and whether without subgroups.
        let levels = [KvFormat::ALL.len(), dims.len(), groups.len(), 2];
        // Every format twice, and every number of channels and group at least that often.
        let some =
            || (0..10).map(|i| vec![i % 5, (i + i / 5) % 4, (3 * i + 4 * (i / 5)) % 5, i % 2]);
        let rows = if full() {
            pairwise(&levels, |_| true)
        } else {
            some().collect()
        };
        for (index, row) in rows.into_iter().enumerate() {
            let (format, head_dim, group) = (KvFormat::ALL[row[0]], dims[row[1]], groups[row[2]]);
            let context = if row[3] == 1 { rig.floor() } else { rig.best() };
            let mut random = Random::new(index as u64);
            let heads = if group > 3 { 1 } else { 2 };
            // Where all fits a block of tokens there are no stretches.
            let capacity = if index % 5 == 0 { 256 } else { CAPACITY };
            let fixture = Fixture::new(
                &context,
                format,
                head_dim,
                (heads, group),
                capacity,
                &mut random,
            );
            let fixture = match fixture {
                Ok(fixture) => fixture,
                Err(error) => {
                    rig.note(Err(format!("{format} {head_dim}: {error}")));
                    continue;
                }
            };
            // A shader with a cap, and the same without.
            let cap = (index % 3 == 0).then_some(4.0);
            for (turn, (done, rows)) in PLACES.into_iter().enumerate() {
                if done + rows > capacity || !(turn + index).is_multiple_of(2) {
                    continue;
                }
                let attention = Attention::new((head_dim as f32).sqrt().recip())
                    .with_window(WINDOWS[(turn / 2 + index) % WINDOWS.len()])
                    .with_cap(cap)
                    .with_deterministic(turn % 8 == 3 && rows < 8);
                let queries = values(rows * fixture.width(), 3.0, &mut random);
                let what = format!(
                    "{format}, {head_dim} channels, group {group}, {rows} rows at {done}, floor {}, {attention:?}",
                    row[3] == 1
                );
                rig.note(match fixture.check(&attention, &queries, done) {
                    Ok(width) if width < 1e-2 => Ok(()),
                    Ok(width) => Err(format!("{what}: the bounds are {width:e} of the values")),
                    Err(error) => Err(format!("{what}: {error}")),
                });
            }
        }
    });
}

/// Scores of ±10⁴ give finite outputs, within bounds that grow with the scores.
#[test]
fn large_scores_stay_finite() {
    on_each_adapter("large_scores_stay_finite", |rig| {
        let context = rig.best();
        for format in [KvFormat::F32, KvFormat::Int8] {
            let large = || -> Outcome<()> {
                let mut random = Random::new(3);
                let fixture = Fixture::new(&context, format, 64, (2, 2), 600, &mut random)?;
                for (done, rows) in [(0, 1), (300, 5), (530, 1)] {
                    let queries = values(rows * fixture.width(), 3.0, &mut random);
                    let attention = Attention::new(600.0);
                    let found = fixture.run(&attention, &queries, done)?;
                    if let Some(value) = found.iter().find(|value| !value.is_finite()) {
                        return Err(format!("{rows} rows at {done} gave {value}").into());
                    }
                    fixture.check(&attention, &queries, done)?;
                }
                Ok(())
            };
            rig.note(large().map_err(|error| format!("{format}: {error}")));
        }
    });
}

/// A query that sees one token takes its values as they are.
#[test]
fn one_token_gives_its_values() {
    on_each_adapter("one_token_gives_its_values", |rig| {
        let context = rig.best();
        let alone = || -> Outcome<()> {
            let mut random = Random::new(4);
            let fixture = Fixture::new(&context, KvFormat::F32, 64, (1, 1), 600, &mut random)?;
            let attention = Attention::new(0.125).with_window(Some(1));
            for position in [0, 5, 256, 599] {
                let queries = values(64, 3.0, &mut random);
                let bounds = ErrorModel::WGSL.attention(
                    &host(&attention),
                    &queries,
                    1,
                    &fixture.host,
                    position,
                );
                let found = fixture.run(&attention, &queries, position)?;
                for (channel, (found, bound)) in found.into_iter().zip(bounds).enumerate() {
                    let value = fixture.host.ring(
                        anybit_reference::cache::Side::Value,
                        0,
                        position,
                        channel,
                    );
                    if f64::from(value) != bound.value || !bound.holds(found) {
                        return Err(
                            format!("{found} at {position}, expected {value}: {bound:?}").into(),
                        );
                    }
                }
            }
            Ok(())
        };
        rig.note(alone().map_err(|error| error.to_string()));
    });
}

/// Rows in one step equal the same rows in several, bit for bit.
fn in_steps(
    fixture: &Fixture,
    attention: &Attention,
    queries: &[f32],
    done: usize,
    steps: &[usize],
) -> Outcome<Option<String>> {
    let whole = fixture.run(attention, queries, done)?;
    let mut parts = Vec::new();
    for &rows in steps {
        let first = parts.len();
        let queries = &queries[first..first + rows * fixture.width()];
        parts.extend(fixture.run(attention, queries, done + first / fixture.width())?);
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    Ok(compare::equal(&bits(parts), &bits(whole)).map(|wrong| wrong.to_string()))
}

#[test]
fn rows_do_not_depend_on_the_rows_of_their_step() {
    on_each_adapter("rows_do_not_depend_on_the_rows_of_their_step", |rig| {
        let context = rig.best();
        let cases = [
            (KvFormat::F16, 64, 3),
            (KvFormat::Int8, 80, 2),
            (KvFormat::Int2, 256, 1),
        ];
        for (format, head_dim, group) in cases {
            let mut random = Random::new(head_dim as u64);
            for window in [None, Some(100)] {
                let mut equal = || -> Outcome<Option<String>> {
                    let fixture =
                        Fixture::new(&context, format, head_dim, (1, group), 600, &mut random)?;
                    let queries = values(37 * fixture.width(), 3.0, &mut random);
                    let attention = Attention::new(0.1).with_window(window);
                    for (deterministic, done, steps) in [
                        (true, 243, &[1; 37][..]),
                        (true, 500, &[20, 1, 2, 14]),
                        // The kernel of several rows, in steps of several rows.
                        (false, 243, &[5, 3, 2, 20, 7]),
                        (false, 24, &[8, 2, 27]),
                    ] {
                        let attention = attention.with_deterministic(deterministic);
                        let wrong = in_steps(&fixture, &attention, &queries, done, steps)?;
                        if let Some(wrong) = wrong {
                            return Ok(Some(format!("{attention:?} at {done}: {wrong}")));
                        }
                    }
                    Ok(None)
                };
                rig.note(match equal() {
                    Ok(None) => Ok(()),
                    Ok(Some(wrong)) => Err(format!("{format} {head_dim}: {wrong}")),
                    Err(error) => Err(format!("{format} {head_dim}: {error}")),
                });
            }
        }
    });
}
