//! Bounds of cross entropy, and the tokens that may be drawn.

use anybit_formats::quantize::rounding::random;

use super::interval::Interval;
use super::softmax::VANISHED;
use super::{Bounded, ErrorModel, FLUSH};
use crate::kernel::{
    Sampling, by_key, cross_entropy, drawing_order, key_of, largest_index, least_of_top_k, part_of,
};

impl ErrorModel {
    /// The cross entropy of a row of logits and a token, and how far the kernel's may be from it.
    pub fn cross_entropy(self, logits: &[f32], cap: Option<f32>, id: u32) -> Bounded {
        let value = cross_entropy(logits, cap, id);
        let input = |&logit: &f32| {
            let exact = Interval::input(logit).bounded(f64::from(logit));
            self.maybe_capped(exact, cap)
        };
        let scores: Vec<Bounded> = logits.iter().map(input).collect();
        let count = scores.len() as f64;
        let gamma = self.gamma(scores.len());
        let weights = self.weights(&scores);
        let off: f64 = weights
            .iter()
            .map(|&(p, r)| p * ((1.0 + r) * (1.0 + gamma) - 1.0))
            .sum();
        let sum = -(1.0 - off - count * VANISHED).ln();
        // Of log2: 2⁻²¹ near 1, else 3 units in the last place.
        let near = 2_f64.powi(-21);
        let logarithm = near.max(3.0 * f64::from(f32::EPSILON) * (4.0 * count).log2());
        let token = (id as usize).min(scores.len().saturating_sub(1));
        let logit = scores.get(token).copied().unwrap_or_default();
        let whole = (value + logit.value).abs() + sum + logarithm;
        // The exponent is added, ln 2 is rounded, and their product.
        let error = sum + std::f64::consts::LN_2 * logarithm + self.gamma(3) * whole + logit.bound;
        let bound =
            error + (value.abs() + error) * (self.unit_roundoff() + 1e3 * f64::EPSILON) + FLUSH;
        Bounded {
            value,
            bound: if bound.is_nan() { f64::INFINITY } else { bound },
        }
    }

    /// The tokens that `draw` may draw from logits for a place of the sequence: one, unless the drawn number is as near to the
    /// edge between two as masses may be off.
    pub fn draw(self, logits: &[f32], sampling: &Sampling, place: u32) -> Vec<usize> {
        let Some(best) = largest_index(logits) else {
            return Vec::new();
        };
        if sampling.temperature == 0.0 {
            return vec![best];
        }
        let keys: Vec<u32> = logits.iter().map(|&logit| key_of(logit)).collect();
        let [low, high] = self.masses(logits, best, sampling);
        let least = least_of_top_k(&keys, sampling.top_k);
        let total = |masses: &[u32], least: u32| -> u64 {
            let kept = keys.iter().zip(masses).filter(|&(&key, _)| key >= least);
            kept.map(|(_, &mass)| u64::from(mass)).sum()
        };
        let mut thresholds = vec![least];
        if sampling.top_p != u32::MAX {
            let need =
                [&low, &high].map(|masses| part_of(total(masses, least), sampling.top_p) + 1);
            thresholds.clear();
            let mut held = [0, 0];
            for ((key, low), (_, high)) in by_key(&keys, &low).into_iter().zip(by_key(&keys, &high))
            {
                let before = held[0];
                held = [held[0] + low, held[1] + high];
                if held[1] >= need[0] && before < need[1] {
                    thresholds.push(least.max(key));
                }
            }
            thresholds.dedup();
        }
        let drawn = random(sampling.seed, u64::from(place));
        let mut allowed = Vec::new();
        for least in thresholds {
            let number = [&low, &high].map(|masses| part_of(total(masses, least), drawn));
            let mut before = [0, 0];
            for token in drawing_order(keys.len()).filter(|&token| keys[token] >= least) {
                let after = [
                    before[0] + u64::from(low[token]),
                    before[1] + u64::from(high[token]),
                ];
                if before[0] <= number[1] && number[0] < after[1] && high[token] > 0 {
                    allowed.push(token);
                }
                before = after;
            }
        }
        allowed.sort_unstable();
        allowed.dedup();
        allowed
    }

    /// The least and the largest mass that a kernel may give to each logit.
    fn masses(self, logits: &[f32], best: usize, sampling: &Sampling) -> [Vec<u32>; 2] {
        let capped = |logit: f32| {
            let input = Interval::input(logit);
            sampling.cap.map_or(input, |cap| self.capped(input, cap))
        };
        let largest = capped(logits[best]);
        let temperature = Interval::exact(f64::from(sampling.temperature));
        let ends: Vec<[u32; 2]> = logits
            .iter()
            .map(|&logit| {
                let x = if key_of(logit) == key_of(logits[best]) {
                    Interval::exact(0.0)
                } else {
                    let distance = capped(logit).minus(largest).rounded(self);
                    distance.divided_by(temperature, self)
                };
                let mass = x.clamp(-80.0, 0.0).exp();
                [mass.low, mass.high].map(|mass| (mass * 2_147_483_648.0) as u32)
            })
            .collect();
        [0, 1].map(|end| ends.iter().map(|ends| ends[end]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::draw;

    #[test]
    fn cross_entropy_is_sharp() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) as f32).sin() * 9.0).collect();
        for cap in [None, Some(5.0)] {
            let bound = ErrorModel::WGSL.cross_entropy(&logits, cap, 7);
            assert!(bound.bound < 1e-3, "{bound:?}");
        }
    }

    /// The token of exact masses is allowed, and nearly always the only one.
    #[test]
    fn drawn_tokens_are_allowed() {
        let logits: Vec<f32> = (0..700).map(|i| ((i * 91) as f32).sin() * 4.0).collect();
        let mut sure = 0;
        let mut all = 0;
        for (top_k, top_p) in [
            (0, u32::MAX),
            (5, u32::MAX),
            (0, 1 << 31),
            (40, 1 << 30),
            (0, 0),
        ] {
            for place in 0..100 {
                let sampling = Sampling {
                    temperature: 0.8,
                    top_k,
                    top_p,
                    seed: 3,
                    cap: None,
                };
                let allowed = ErrorModel::WGSL.draw(&logits, &sampling, place);
                let drawn = draw(&logits, &sampling, place).unwrap();
                assert!(allowed.contains(&drawn), "{drawn} {allowed:?}");
                all += 1;
                sure += usize::from(allowed.len() == 1);
            }
        }
        assert!(sure * 100 >= all * 97, "{sure} of {all}");
    }
}
