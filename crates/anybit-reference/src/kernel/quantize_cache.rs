//! The twin of `kernel/quantize_cache.wgsl`.

use std::ops::Range;

use anybit_formats::FloatFormat;

use crate::cache::{BLOCK, Cache, CacheFormat, CodeScale, Side};

/// The codes of the blocks of 32 tokens that `rows` tokens after the first `done` complete, from the ring. A cache of floats
/// stays as it is.
pub fn quantize_cache(cache: &mut Cache, done: usize, rows: usize) {
    let shape = *cache.shape();
    let CacheFormat::Codes(bits) = shape.format else {
        return;
    };
    let levels = ((1_u32 << bits) - 1) as f32;
    for block in completed(done, rows) {
        let tokens = block * BLOCK..(block + 1) * BLOCK;
        for head in 0..shape.heads {
            // Keys share a scale over the tokens of a channel, values over the channels of a token.
            for channel in 0..shape.head_dim {
                let places = tokens.clone().map(|token| (head, token, channel));
                quantize(cache, Side::Key, &places.collect::<Vec<_>>(), levels);
            }
            for token in tokens.clone() {
                for group in (0..shape.head_dim).step_by(shape.value_group()) {
                    let channels = group..group + shape.value_group();
                    let places = channels.map(|channel| (head, token, channel));
                    quantize(cache, Side::Value, &places.collect::<Vec<_>>(), levels);
                }
            }
        }
    }
}

/// The blocks that so many tokens after `done` complete.
pub fn completed(done: usize, rows: usize) -> Range<usize> {
    done / BLOCK..(done + rows) / BLOCK
}

/// What shares a scale.
fn quantize(cache: &mut Cache, side: Side, places: &[(usize, usize, usize)], levels: f32) {
    let values: Vec<f32> = places
        .iter()
        .map(|&(head, token, channel)| cache.ring(side, head, token, channel))
        .collect();
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let stored = |value: f32| FloatFormat::F16.decode(FloatFormat::F16.encode(value));
    let scale = CodeScale {
        scale: stored((high - low) / levels),
        minimum: stored(low),
    };
    for (&place, &value) in places.iter().zip(&values) {
        cache.set_scale(side, place, scale);
        cache.set_code(side, place, code(value, scale, levels));
    }
}

/// The code of a value; 0 where all values are alike.
fn code(value: f32, scale: CodeScale, levels: f32) -> u32 {
    if scale.scale <= 0.0 {
        return 0;
    }
    let level = ((value - scale.minimum) / scale.scale).round_ties_even();
    level.clamp(0.0, levels) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheShape;

    #[test]
    fn codes_stand_for_the_values() {
        for bits in [8, 4, 2] {
            let shape = CacheShape {
                format: CacheFormat::Codes(bits),
                heads: 2,
                head_dim: 80,
                capacity: 100,
                step: 40,
            };
            let mut cache = Cache::new(shape);
            let value = |side, head: usize, token: usize, channel: usize| {
                let side = if side == Side::Key { 1 } else { 5 };
                ((head * 31 + token * 7 + channel * side) as f32).sin() * 3.0
            };
            for side in [Side::Key, Side::Value] {
                for head in 0..2 {
                    for token in 0..70 {
                        for channel in 0..80 {
                            let value = value(side, head, token, channel);
                            cache.set_ring(side, head, token, channel, value);
                        }
                    }
                }
            }
            quantize_cache(&mut cache, 0, 33);
            quantize_cache(&mut cache, 33, 37);
            // Half a level of a range of 6, and what f16 rounds.
            let bound = 3.0 / f64::from((1_u32 << bits) - 1) + 0.01;
            for side in [Side::Key, Side::Value] {
                for token in 0..64 {
                    let read = cache.read(side, (1, token, 77), 64, 0.0);
                    let value = f64::from(value(side, 1, token, 77));
                    assert!(
                        (read.value - value).abs() <= bound,
                        "{bits} {token}: {read:?} {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn blocks_are_completed_once() {
        assert_eq!(completed(0, 31), 0..0);
        assert_eq!(completed(31, 1), 0..1);
        assert_eq!(completed(32, 70), 1..3);
    }
}
