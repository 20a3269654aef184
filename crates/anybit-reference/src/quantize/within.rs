//! Codes of values that are known within bounds.

use anybit_formats::{MatrixFormat, QuantizeRowsOptions};

use super::{AllowedCodes, Coder, Kind, neighbours, sum_neighbours};
use crate::bound::Bounded;

/// [`codes_allowed_with`](super::codes_allowed_with) of values that are known within bounds: the codes from that of the
/// smallest to that of the largest product that a kernel may have.
///
/// Of minifloats and codebooks, whose codes are not in the order of their values, a bound must not span more than two codes; one
/// that reaches codes on both sides of zero, as of rows whose squares vanish, allows every code.
pub fn codes_within(
    values: &[Bounded],
    inverse: f32,
    format: &MatrixFormat,
    options: &QuantizeRowsOptions,
    first: u64,
) -> Vec<AllowedCodes> {
    let coder = Coder::new(format, options);
    let bare = format.scales().is_none();
    let allowed = |(value, index): (&Bounded, u64)| {
        let ends = [value.value - value.bound, value.value + value.bound];
        let factor = if bare { 1.0 } else { f64::from(inverse) };
        // The ends are exact neither in f64, so a step further for them.
        let (mut low, mut high) = (
            neighbours(ends[0] * factor).0.next_down(),
            neighbours(ends[1] * factor).1.next_up(),
        );
        let flushed = low.abs() < f32::MIN_POSITIVE || high.abs() < f32::MIN_POSITIVE;
        if flushed {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if let Kind::Affine(affine) = &coder.kind
            && affine.add != 0.0
        {
            low = sum_neighbours(affine.add, low).0;
            high = sum_neighbours(affine.add, high).1;
        }
        let (low_code, high_code) = (coder.code(low, index), coder.code(high, index));
        let spans_zero = low <= 0.0 && high >= 0.0;
        let zeros = match &coder.kind {
            Kind::Other(_) if spans_zero => [-0.0, 0.0].map(|zero| coder.code(zero, index)),
            _ => [low_code, high_code],
        };
        let is_zero = |code| zeros.contains(&code);
        if matches!(coder.kind, Kind::Other(_))
            && spans_zero
            && !is_zero(low_code)
            && !is_zero(high_code)
        {
            return AllowedCodes {
                codes: [0, u8::MAX, 0, 0],
                between: true,
            };
        }
        AllowedCodes {
            codes: [low_code, high_code, zeros[0], zeros[1]],
            between: !matches!(coder.kind, Kind::Other(_)),
        }
    };
    values.iter().zip(first..).map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::super::codes_given;
    use super::*;

    #[test]
    fn the_code_of_the_value_is_allowed_and_mostly_the_only_one() {
        let values: Vec<f32> = (0..400)
            .map(|i| ((i * 37) as f32 * 0.11).sin() * 3.0)
            .collect();
        let inverse = 17.3_f32;
        for name in ["i8rf", "i4rf", "b1rf", "b4rf", "e4m3rf", "e2m1rf", "nf4rf"] {
            let format: MatrixFormat = name.parse().unwrap();
            let given = codes_given(&values, inverse, &format);
            let known: Vec<Bounded> = values
                .iter()
                .map(|&value| Bounded {
                    value: f64::from(value),
                    bound: 1e-6,
                })
                .collect();
            let options = QuantizeRowsOptions::default();
            let allowed = codes_within(&known, inverse, &format, &options, 0);
            assert!(
                given
                    .iter()
                    .zip(&allowed)
                    .all(|(&code, allowed)| allowed.contains(code))
            );
            let sure = allowed
                .iter()
                .filter(|allowed| allowed.only().is_some())
                .count();
            assert!(sure > 380, "{name}: {sure}");
        }
    }
}
