//! The twin of `kernel/cross_entropy.wgsl`.

use super::soft_cap;

/// −ln of the probability that a row of logits gives to a token, in f64; an id past the logits counts as the last.
pub fn cross_entropy(logits: &[f32], cap: Option<f32>, id: u32) -> f64 {
    let capped = |&logit: &f32| soft_cap(f64::from(logit), cap);
    let largest = logits.iter().map(capped).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| (capped(logit) - largest).exp())
        .sum();
    let token = (id as usize).min(logits.len().saturating_sub(1));
    largest + sum.ln() - logits.get(token).map_or(0.0, capped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_it_is_the_logarithm_of_their_number() {
        for size in [1, 7, 1024] {
            for logit in [0.0, 1.0e4, -1.0e4] {
                let found = cross_entropy(&vec![logit; size], None, 0);
                assert!((found - (size as f64).ln()).abs() < 1e-9);
            }
        }
        assert!((cross_entropy(&[0.0, 1.0e4], None, 0) - 1.0e4).abs() < 1e-9);
        assert!((cross_entropy(&[0.0, 1.0e4], Some(30.0), 0) - 30.0).abs() < 1e-9);
    }
}
