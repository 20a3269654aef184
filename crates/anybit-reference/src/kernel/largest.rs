//! The twin of `kernel/largest.wgsl`.

/// An f32 as an integer of the same order; both zeros are one.
pub fn key_of(value: f32) -> u32 {
    let bits = match value.to_bits() {
        0x8000_0000 => 0,
        bits => bits,
    };
    if bits < 0x8000_0000 {
        bits ^ 0x8000_0000
    } else {
        !bits
    }
}

/// The key and index of the largest of each `stretch` logits, of equal ones the first.
pub fn largest(logits: &[f32], stretch: usize) -> Vec<(u32, u32)> {
    let keys: Vec<(u32, u32)> = logits
        .iter()
        .zip(0..)
        .map(|(&logit, index)| (key_of(logit), index))
        .collect();
    keys.chunks(stretch.max(1)).filter_map(largest_of).collect()
}

/// The largest of some keys, of equal ones the one of the lowest index.
pub(super) fn largest_of(keys: &[(u32, u32)]) -> Option<(u32, u32)> {
    keys.iter().copied().reduce(|a, b| {
        if b.0 > a.0 || b.0 == a.0 && b.1 < a.1 {
            b
        } else {
            a
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_floats() {
        let values = [f32::MIN, -1.0, -1.0e-40, 0.0, 1.0e-40, 0.5, 1.0, f32::MAX];
        assert!(
            values
                .windows(2)
                .all(|pair| key_of(pair[0]) < key_of(pair[1]))
        );
        assert_eq!(key_of(0.0), key_of(-0.0));
        assert_eq!(largest(&[-0.0, 0.0, -1.0, 2.0, 2.0], 3)[0].1, 0);
        assert_eq!(largest(&[-0.0, 0.0, -1.0, 2.0, 2.0], 3)[1].1, 3);
    }
}
