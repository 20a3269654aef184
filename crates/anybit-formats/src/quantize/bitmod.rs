//! The choice of BitMoD.
use crate::CodebookFormat;
/// What a group gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChosenGroup {
    /// The scale.
    pub scale: f32,
    /// The choice.
    pub choice: u8,
}
/// The choice of least square error.
pub fn choose(codebook: CodebookFormat, values: &[f32]) -> ChosenGroup {
    let absmax = super::rule::absmax(values);
    let count = codebook.choice().map_or(0, |choice| choice.values.len());
    let mut best = (
        f64::INFINITY,
        ChosenGroup {
            scale: 0.0,
            choice: 0,
        },
    );
    for choice in 0..count as u8 {
        let max = (0..=codebook.max_code()).fold(0.0_f32, |max, code| {
            max.max(codebook.value_with(code, choice).abs())
        });
        let scale = absmax / max;
        let inverse = if scale < f32::MIN_POSITIVE {
            0.0
        } else {
            1.0 / scale
        };
        let error: f64 = values
            .iter()
            .map(|&v| {
                let d = f64::from(v)
                    - f64::from(
                        scale * codebook.value_with(codebook.encode(v * inverse, choice), choice),
                    );
                d * d
            })
            .sum();
        if error < best.0 {
            best = (error, ChosenGroup { scale, choice });
        }
    }
    best.1
}
