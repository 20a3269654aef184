//! Errors in numbers.

use serde::{Serialize, Serializer};

/// How far values are from what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Deviation {
    /// The largest difference.
    #[serde(serialize_with = "number")]
    pub(crate) max: f64,
    /// The root of the mean squared difference.
    #[serde(serialize_with = "number")]
    pub(crate) rms: f64,
    /// The same over the root mean square of what the values should be; 0 without a difference.
    #[serde(serialize_with = "number")]
    pub(crate) relative_rms: f64,
    /// Signal to quantisation noise ratio in decibels, infinite without a difference.
    #[serde(serialize_with = "number")]
    pub(crate) sqnr_db: f64,
}

impl Deviation {
    /// Compares values pair by pair.
    pub(crate) fn between(
        expected: impl IntoIterator<Item = f64>,
        found: impl IntoIterator<Item = f64>,
    ) -> Self {
        let (mut max, mut noise, mut signal, mut count) = (0.0_f64, 0.0, 0.0, 0.0);
        for (expected, found) in expected.into_iter().zip(found) {
            let difference = (found - expected).abs();
            // Not f64::max, which leaves a NaN out.
            if difference > max || difference.is_nan() {
                max = difference;
            }
            noise += difference * difference;
            signal += expected * expected;
            count += 1.0;
        }
        let ratio = if noise == 0.0 { 0.0 } else { noise / signal };
        Self {
            max,
            rms: if count == 0.0 {
                0.0
            } else {
                (noise / count).sqrt()
            },
            relative_rms: ratio.sqrt(),
            sqnr_db: -10.0 * ratio.log10(),
        }
    }

    /// The figures in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "max {:.4e}, RMS {:.4e}, SQNR {}",
            self.max,
            self.rms,
            decibels(self.sqnr_db)
        )
    }
}

/// Decibels with their unit.
pub(crate) fn decibels(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2} dB")
    } else {
        format!("{value} dB")
    }
}

/// The name of a number that JSON has not: `NaN`, `inf`, `-inf`; `None` of finite ones.
pub(crate) fn special_name(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("inf"),
        f64::NEG_INFINITY => Some("-inf"),
        _ => None,
    }
}

/// Writes a number, or the string that stands for one that JSON has not.
pub(crate) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match special_name(*value) {
        Some(name) => serializer.serialize_str(name),
        None => serializer.serialize_f64(*value),
    }
}

/// The same of a number that may be missing.
pub(crate) fn special_number<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let deviation = Deviation::between([3.0, 4.0], [3.0, 4.5]);
        assert_eq!(deviation.max, 0.5);
        assert_eq!(deviation.rms, 0.125_f64.sqrt());
        assert_eq!(deviation.relative_rms, 0.1);
        assert!((deviation.sqnr_db - 20.0).abs() < 1e-12);
    }

    #[test]
    fn no_error_no_signal_and_no_values() {
        let none = Deviation::between([1.0], [1.0]);
        assert_eq!((none.max, none.relative_rms), (0.0, 0.0));
        assert_eq!(none.sqnr_db, f64::INFINITY);
        let silent = Deviation::between([0.0], [1.0]);
        assert_eq!(silent.sqnr_db, f64::NEG_INFINITY);
        assert_eq!(
            serde_json::to_string(&silent).unwrap(),
            r#"{"max":1.0,"rms":1.0,"relative_rms":"inf","sqnr_db":"-inf"}"#
        );
        assert!(Deviation::between([1.0, 1.0], [f64::NAN, 1.0]).max.is_nan());
        assert_eq!(Deviation::between([], []).rms, 0.0);
    }
}
