//! Sums over the lanes of a team: `reduce/*.wgsl`.

/// The sum that an xor butterfly leaves in every lane: neighbours first, then neighbouring pairs, and so on. The number
/// of lanes is a power of two.
pub(super) fn butterfly<T: Copy>(mut lanes: Vec<T>, join: impl Fn(T, T) -> T) -> Option<T> {
    while lanes.len() > 1 {
        lanes = lanes
            .chunks_exact(2)
            .map(|pair| join(pair[0], pair[1]))
            .collect();
    }
    lanes.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_of_an_xor_butterfly_ends_with_this_sum() {
        for log2 in 0..7 {
            let lanes: Vec<f32> = (0..1_usize << log2)
                .map(|lane| (lane as f32 * 1.7).sin() * 10_f32.powi(lane as i32 % 5))
                .collect();
            let mut cells = lanes.clone();
            for e in 0..log2 {
                cells = (0..cells.len())
                    .map(|lane| cells[lane] + cells[lane ^ (1 << e)])
                    .collect();
            }
            let sum = butterfly(lanes, |a, b| a + b);
            assert!(cells.iter().all(|&cell| Some(cell) == sum));
        }
    }
}
