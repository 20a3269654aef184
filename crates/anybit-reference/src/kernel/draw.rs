//! The twin of `kernel/draw.wgsl`.

use anybit_formats::quantize::rounding::random;

use super::largest::{key_of, largest, largest_of};
use super::soft_cap;

/// Invocations of the kernel: a token's place in the order of drawing is its index modulo this.
const WORKGROUP: usize = 256;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the largest.
    pub temperature: f32,
    /// Only from so many likeliest; 0: from all.
    pub top_k: usize,
    /// Only from the fewest likeliest that hold this fraction of 2³² of the probability; `u32::MAX`: from all.
    pub top_p: u32,
    /// Which random numbers.
    pub seed: u32,
    /// A soft cap of the logits.
    pub cap: Option<f32>,
}

/// The token that is drawn from logits for a place of the sequence: exact, given the masses ([`draw_from`]), which are those of
/// f64 here.
pub fn draw(logits: &[f32], sampling: &Sampling, place: u32) -> Option<usize> {
    let best = largest_index(logits)?;
    if sampling.temperature == 0.0 {
        return Some(best);
    }
    let capped = |logit: f32| soft_cap(f64::from(logit), sampling.cap);
    let masses: Vec<u32> = logits
        .iter()
        .map(|&logit| {
            let x = (capped(logit) - capped(logits[best])) / f64::from(sampling.temperature);
            (x.clamp(-80.0, 0.0).exp() * 2_147_483_648.0) as u32
        })
        .collect();
    draw_from(logits, &masses, sampling, place)
}

/// The index of the largest logit, of equal ones the first.
pub fn largest_index(logits: &[f32]) -> Option<usize> {
    Some(largest_of(&largest(logits, 1024))?.1 as usize)
}

/// The token that is drawn by masses: probabilities as integers, in units of 2⁻³¹ of the largest.
pub fn draw_from(logits: &[f32], masses: &[u32], sampling: &Sampling, place: u32) -> Option<usize> {
    let keys: Vec<u32> = logits.iter().map(|&logit| key_of(logit)).collect();
    let mut least = least_of_top_k(&keys, sampling.top_k);
    let total_from = |least: u32| -> u64 {
        let kept = keys.iter().zip(masses).filter(|&(&key, _)| key >= least);
        kept.map(|(_, &mass)| u64::from(mass)).sum()
    };
    if sampling.top_p != u32::MAX {
        // At least one unit, so that the likeliest is always kept.
        let need = part_of(total_from(least), sampling.top_p) + 1;
        let mut held = 0;
        for (key, mass) in by_key(&keys, masses) {
            held += mass;
            if held >= need {
                least = least.max(key);
                break;
            }
        }
    }
    let drawn = part_of(total_from(least), random(sampling.seed, u64::from(place)));
    let mut before = 0;
    drawing_order(keys.len()).find(|&token| {
        if keys[token] >= least {
            before += u64::from(masses[token]);
        }
        keys[token] >= least && drawn < before
    })
}

/// The key of the last of the `top_k` likeliest; 0 for all.
pub(crate) fn least_of_top_k(keys: &[u32], top_k: usize) -> u32 {
    if top_k == 0 || top_k >= keys.len() {
        return 0;
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted[top_k - 1]
}

/// The keys in descending order, each once, with the mass of its tokens.
pub(crate) fn by_key(keys: &[u32], masses: &[u32]) -> Vec<(u32, u64)> {
    let mut sorted: Vec<(u32, u64)> = keys
        .iter()
        .zip(masses)
        .map(|(&key, &mass)| (key, u64::from(mass)))
        .collect();
    sorted.sort_unstable_by_key(|&(key, _)| std::cmp::Reverse(key));
    let mut joined: Vec<(u32, u64)> = Vec::with_capacity(sorted.len());
    for (key, mass) in sorted {
        match joined.last_mut() {
            Some(last) if last.0 == key => last.1 += mass,
            _ => joined.push((key, mass)),
        }
    }
    joined
}

/// Tokens in the order in which the drawn number runs over them: invocation by invocation, and of each its own in order.
pub(crate) fn drawing_order(tokens: usize) -> impl Iterator<Item = usize> {
    (0..WORKGROUP.min(tokens)).flat_map(move |first| (first..tokens).step_by(WORKGROUP))
}

/// A fraction of 2³² of an integer, rounded down: of its upper and its lower word apart, as the kernel has it.
pub(crate) fn part_of(whole: u64, fraction: u32) -> u64 {
    (whole >> 32) * u64::from(fraction) + (((whole & 0xffff_ffff) * u64::from(fraction)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: u32::MAX,
        seed: 5,
        cap: None,
    };

    #[test]
    fn tokens_come_as_often_as_their_probability() {
        let logits = [0.0_f32, 1.0, 2.0, -1.0, 0.5];
        let mut counts = [0_u32; 5];
        const DRAWS: u32 = 20_000;
        for place in 0..DRAWS {
            counts[draw(&logits, &PLAIN, place).unwrap()] += 1;
        }
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for (&count, &logit) in counts.iter().zip(&logits) {
            let p = f64::from(logit).exp() / sum;
            let deviation = (f64::from(DRAWS) * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - f64::from(DRAWS) * p).abs() < 4.0 * deviation);
        }
    }

    #[test]
    fn the_likeliest_are_kept() {
        let logits = [0.0_f32, 3.0, 2.0, 3.0, -1.0];
        let drawn = |sampling: Sampling| {
            let mut found: Vec<usize> = (0..2000)
                .map(|place| draw(&logits, &sampling, place).unwrap())
                .collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(drawn(Sampling { top_k: 1, ..PLAIN }), [1, 3]);
        assert_eq!(drawn(Sampling { top_k: 3, ..PLAIN }), [1, 2, 3]);
        assert_eq!(drawn(Sampling { top_p: 0, ..PLAIN }), [1, 3]);
        assert_eq!(
            drawn(Sampling {
                top_p: u32::MAX - 1,
                ..PLAIN
            }),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(
            drawn(Sampling {
                temperature: 0.0,
                ..PLAIN
            }),
            [1]
        );
        assert_eq!(
            drawn(Sampling {
                temperature: 1e-3,
                top_k: 0,
                ..PLAIN
            }),
            [1, 3]
        );
    }
}
