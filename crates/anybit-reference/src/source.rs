//! What row kernels work on: `source/*.wgsl`.

use crate::ReferenceError;

/// The function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// x / (1 + e^−x).
    Silu,
    /// GELU by its tanh approximation: 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
}

impl Gate {
    /// Twice the argument of the tanh, or that of the logistic function: the gate is x / (1 + e^−argument).
    pub(crate) fn argument(self, x: f64) -> f64 {
        match self {
            Self::Silu => x,
            Self::GeluTanh => {
                2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + GELU_CUBE * x * x * x)
            }
        }
    }

    /// The gate of a value.
    pub fn apply(self, x: f64) -> f64 {
        x / (1.0 + (-self.argument(x)).exp())
    }
}

/// The factor of x³ in GELU's tanh approximation.
const GELU_CUBE: f64 = 0.044715;

/// What a row kernel makes of rows of f32 before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source<'a> {
    /// The rows as they are.
    Rows,
    /// RMSNorm: x · weight / √(mean of x² + epsilon).
    RmsNorm {
        /// A weight a column.
        weight: &'a [f32],
        /// What is added to the mean square.
        epsilon: f32,
    },
    /// act(gate) · up: a row has `columns` gates and, from column `up` on, as many factors.
    Gated {
        /// The function of the gates.
        gate: Gate,
        /// Columns of the result.
        columns: usize,
        /// The column of the first factor.
        up: usize,
    },
}

impl Source<'_> {
    /// Columns of the result for rows of `columns`.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Length`] for weights of another number, or rows that are too short.
    pub fn columns(&self, columns: usize) -> Result<usize, ReferenceError> {
        let (what, expected, found, result) = match *self {
            Self::Rows => return Ok(columns),
            Self::RmsNorm { weight, .. } => ("weights", columns, weight.len(), columns),
            Self::Gated {
                columns: gates, up, ..
            } => (
                "columns of gates and factors",
                up.saturating_add(gates),
                columns,
                gates,
            ),
        };
        let fits = match self {
            Self::Gated { .. } => found >= expected,
            _ => found == expected,
        };
        if fits {
            Ok(result)
        } else {
            Err(ReferenceError::Length {
                what,
                expected,
                found,
            })
        }
    }

    /// The exact values of a row, up to f64's own rounding.
    ///
    /// # Errors
    ///
    /// Those of [`columns`](Self::columns).
    pub fn values(&self, row: &[f32]) -> Result<Vec<f64>, ReferenceError> {
        let columns = self.columns(row.len())?;
        let values = row.iter().map(|&x| f64::from(x));
        Ok(match *self {
            Self::Rows => values.collect(),
            Self::RmsNorm { weight, epsilon } => {
                let squares: f64 = values.clone().map(|x| x * x).sum();
                let mean = squares / row.len() as f64 + f64::from(epsilon);
                let weights = weight.iter().map(|&weight| f64::from(weight));
                values
                    .zip(weights)
                    .map(|(x, w)| x * w / mean.sqrt())
                    .collect()
            }
            Self::Gated { gate, up, .. } => {
                let factors = row[up..].iter().map(|&up| f64::from(up));
                let gates = values.take(columns);
                gates
                    .zip(factors)
                    .map(|(x, up)| gate.apply(x) * up)
                    .collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definitions with e^x and tanh.
    #[test]
    fn gates_are_those_of_their_definitions() {
        for step in -40..40 {
            let x = f64::from(step) * 0.17;
            let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let gelu = 0.5 * x * (1.0 + z.tanh());
            assert!((Gate::GeluTanh.apply(x) - gelu).abs() < 1e-14, "{x}");
            let silu = x * x.exp() / (1.0 + x.exp());
            assert!((Gate::Silu.apply(x) - silu).abs() < 1e-14, "{x}");
        }
        // GELU itself, from tables of the normal distribution: 1 · Φ(1) = 0.8413.
        assert!((Gate::GeluTanh.apply(1.0) - 0.8413).abs() < 3e-4);
    }

    #[test]
    fn a_norm_has_mean_square_one() {
        let row = [3.0_f32, -4.0, 0.0, 12.0];
        let weight = [1.0; 4];
        let source = Source::RmsNorm {
            weight: &weight,
            epsilon: 0.0,
        };
        let values = source.values(&row).unwrap();
        let mean: f64 = values.iter().map(|x| x * x).sum::<f64>() / 4.0;
        assert!((mean - 1.0).abs() < 1e-12);
        assert!(source.values(&row[..3]).is_err());
    }
}
