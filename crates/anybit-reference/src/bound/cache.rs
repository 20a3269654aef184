//! Bounds of what `quantize_cache` writes.

use std::ops::RangeInclusive;

use anybit_formats::FloatFormat;

use super::interval::Interval;
use super::{Bounded, ErrorModel, f16_output};
use crate::cache::CodeScale;
use crate::integers::lost;

/// The largest code of so many bits.
fn levels(bits: u32) -> f64 {
    f64::from((1_u32 << bits) - 1)
}

/// An f16 that a device reads: 0 too, if it is subnormal.
fn stored(value: f32) -> Interval {
    Interval::exact(f64::from(value)).widen(0.0, lost(value, FloatFormat::F16))
}

impl ErrorModel {
    /// The scale and the minimum that values share, as f16: a difference, a division, and one rounding to either neighbour; the
    /// minimum is one of the values.
    pub fn cache_scale(self, values: &[f32], bits: u32) -> [Bounded; 2] {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exact = (f64::from(high) - f64::from(low)) / levels(bits);
        let scale = stored(high)
            .minus(stored(low))
            .rounded(self)
            .divided_by(Interval::exact(levels(bits)), self)
            .bounded(exact);
        [
            f16_output(scale.value, scale.bound),
            f16_output(f64::from(low), lost(low, FloatFormat::F16)),
        ]
    }

    /// The codes that a value may get under a stored scale: one, unless it lies as near to the middle between two as a
    /// difference and a division may be off.
    pub fn cache_code(self, value: f32, scale: CodeScale, bits: u32) -> RangeInclusive<u32> {
        if scale.scale <= 0.0 {
            return 0..=0;
        }
        let level = stored(value)
            .minus(stored(scale.minimum))
            .rounded(self)
            .divided_by(Interval::exact(f64::from(scale.scale)), self)
            .clamp(0.0, levels(bits));
        let [low, high] = [level.low, level.high].map(|level| level.round_ties_even() as u32);
        // A scale that a device takes for 0 has the code 0 alone.
        let flushed = lost(scale.scale, FloatFormat::F16) > 0.0;
        if flushed { 0..=high } else { low..=high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, CacheFormat, CacheShape, Side};
    use crate::kernel::quantize_cache;

    /// What the twin writes is within the bounds, and codes are nearly always sure.
    #[test]
    fn the_twin_is_within_its_bounds() {
        let shape = CacheShape {
            format: CacheFormat::Codes(4),
            heads: 1,
            head_dim: 64,
            capacity: 32,
            step: 32,
        };
        let mut cache = Cache::new(shape);
        for token in 0..32 {
            for channel in 0..64 {
                let value = ((token * 29 + channel * 17) as f32).sin() * 5.0;
                cache.set_ring(Side::Key, 0, token, channel, value);
                cache.set_ring(Side::Value, 0, token, channel, value);
            }
        }
        quantize_cache(&mut cache, 0, 32);
        let mut sure = 0;
        for token in 0..32 {
            let values: Vec<f32> = (0..64)
                .map(|c| cache.ring(Side::Value, 0, token, c))
                .collect();
            let scale = cache.scale(Side::Value, 0, token, 0);
            let bounds = ErrorModel::NEAREST.cache_scale(&values, 4);
            assert!(bounds[0].holds(scale.scale) && bounds[1].holds(scale.minimum));
            for (channel, &value) in values.iter().enumerate() {
                let codes = ErrorModel::NEAREST.cache_code(value, scale, 4);
                let code = cache.code(Side::Value, 0, token, channel);
                assert!(codes.contains(&code), "{value} {scale:?}: {code} {codes:?}");
                sure += usize::from(codes.start() == codes.end());
            }
        }
        assert!(sure > 32 * 64 - 8, "{sure}");
    }
}
