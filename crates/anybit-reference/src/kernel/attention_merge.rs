//! The twin of `kernel/attention_merge.wgsl`.

use super::AttentionPart;

/// The parts that stretches of tokens gave, in ascending order, joined and divided. Parts of no tokens count for nothing.
pub fn attention_merge(parts: &[AttentionPart]) -> Vec<f64> {
    let parts = || parts.iter().filter(|part| part.sum > 0.0);
    let exponent = parts()
        .map(|part| part.exponent)
        .fold(f64::NEG_INFINITY, f64::max);
    let width = parts().map(|part| part.values.len()).max().unwrap_or(0);
    let mut values = vec![0.0; width];
    let mut sum = 0.0;
    for part in parts() {
        let scale = (part.exponent - exponent).exp2();
        sum += part.sum * scale;
        for (value, &part) in values.iter_mut().zip(&part.values) {
            *value += part * scale;
        }
    }
    values.into_iter().map(|value| value / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Attention, attention};
    use super::*;
    use crate::cache::{Cache, CacheFormat, CacheShape, Side};

    /// Parts of any stretches make the whole; a window and a cap change it.
    #[test]
    fn parts_make_the_whole() {
        let shape = CacheShape {
            format: CacheFormat::F32,
            heads: 1,
            head_dim: 8,
            capacity: 64,
            step: 64,
        };
        let mut cache = Cache::new(shape);
        for token in 0..64 {
            for channel in 0..8 {
                let value = ((token * 13 + channel * 5) as f32).sin();
                cache.set_ring(Side::Key, 0, token, channel, 40.0 * value);
                cache.set_ring(Side::Value, 0, token, channel, value * value);
            }
        }
        let query = [1.0, -2.0, 0.5, 3.0, -1.0, 0.1, 0.7, 2.0];
        let plain = Attention {
            scale: 1.0,
            window: None,
            cap: None,
        };
        let over = |options: &Attention, stretch: usize| {
            let parts: Vec<AttentionPart> = (0..64)
                .step_by(stretch)
                .map(|first| attention(options, &query, &cache, 0, 49, first..first + stretch))
                .collect();
            attention_merge(&parts)
        };
        let distance = |a: &[f64], b: &[f64]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max)
        };
        let whole = over(&plain, 64);
        assert!(distance(&whole, &over(&plain, 7)) < 1e-12);
        for other in [
            Attention {
                window: Some(5),
                ..plain
            },
            Attention {
                cap: Some(3.0),
                ..plain
            },
        ] {
            assert!(distance(&over(&other, 64), &over(&other, 7)) < 1e-12);
            assert!(distance(&over(&other, 64), &whole) > 1e-3);
        }
    }
}
