//! The twin of `kernel/rotate.wgsl`.

use std::f64::consts::TAU;

/// RMSNorm of each head of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNorm<'a> {
    /// Weights of the queries' channels.
    pub query: &'a [f32],
    /// Weights of the keys' channels.
    pub key: &'a [f32],
    /// What is added to the mean square.
    pub epsilon: f32,
}

/// What is done to the queries, keys and values of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary<'a> {
    /// Channels of a head.
    pub head_dim: usize,
    /// Heads of queries, which begin at column 0.
    pub query_heads: usize,
    /// Heads of keys, and of values.
    pub key_heads: usize,
    /// The columns at which keys and values begin.
    pub columns: [usize; 2],
    /// The angle of each pair of channels at position 1.
    pub frequencies: &'a [f64],
    /// Whether channel i pairs with i + half of the rotated channels, and not with its neighbour.
    pub halves: bool,
    /// A bias for each column.
    pub bias: Option<&'a [f32]>,
    /// RMSNorm of heads, after the bias.
    pub norm: Option<HeadNorm<'a>>,
}

/// What becomes of a row: queries, keys and values, head by head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rotated<T> {
    /// Queries, rotated.
    pub queries: Vec<T>,
    /// Keys, rotated.
    pub keys: Vec<T>,
    /// Values, not rotated.
    pub values: Vec<T>,
}

/// What a head holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadKind {
    Query,
    Key,
    Value,
}

impl<'a> Rotary<'a> {
    /// The heads in order: what each holds, and its first column.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (HeadKind, usize)> + use<> {
        let (head_dim, [keys, values]) = (self.head_dim, self.columns);
        let heads =
            move |kind, count, first| (0..count).map(move |head| (kind, first + head * head_dim));
        heads(HeadKind::Query, self.query_heads, 0)
            .chain(heads(HeadKind::Key, self.key_heads, keys))
            .chain(heads(HeadKind::Value, self.key_heads, values))
    }

    /// The channels of a pair.
    pub(crate) fn pair(&self, pair: usize) -> [usize; 2] {
        if self.halves {
            [pair, pair + self.frequencies.len()]
        } else {
            [2 * pair, 2 * pair + 1]
        }
    }

    /// The norm's weights of a head; none of values.
    pub(crate) fn norm_of(&self, kind: HeadKind) -> Option<(&'a [f32], f32)> {
        let norm = self.norm?;
        match kind {
            HeadKind::Query => Some((norm.query, norm.epsilon)),
            HeadKind::Key => Some((norm.key, norm.epsilon)),
            HeadKind::Value => None,
        }
    }

    /// The angle of a pair at a position, less whole turns.
    pub(crate) fn angle(&self, position: usize, pair: usize) -> f64 {
        (position as f64 * self.frequencies[pair]) % TAU
    }
}

impl<T> Rotated<T> {
    pub(crate) fn push(&mut self, kind: HeadKind, head: Vec<T>) {
        match kind {
            HeadKind::Query => self.queries.extend(head),
            HeadKind::Key => self.keys.extend(head),
            HeadKind::Value => self.values.extend(head),
        }
    }
}

/// The queries, keys and values of a token at a position, in f64: the bias is added, the head is normalised, and its pairs are
/// rotated. A row must hold all heads.
pub fn rotate(rotary: &Rotary<'_>, row: &[f32], position: usize) -> Rotated<f64> {
    let mut rotated = Rotated::default();
    for (kind, column) in rotary.heads() {
        let mut head: Vec<f64> = (column..column + rotary.head_dim)
            .map(|column| {
                let bias = rotary.bias.map_or(0.0, |bias| bias[column]);
                f64::from(row[column]) + f64::from(bias)
            })
            .collect();
        if let Some((weights, epsilon)) = rotary.norm_of(kind) {
            let squares: f64 = head.iter().map(|x| x * x).sum();
            let mean = squares / head.len() as f64 + f64::from(epsilon);
            for (x, &weight) in head.iter_mut().zip(weights) {
                *x *= f64::from(weight) / mean.sqrt();
            }
        }
        if kind != HeadKind::Value {
            for pair in 0..rotary.frequencies.len() {
                let [a, b] = rotary.pair(pair);
                let (sin, cos) = rotary.angle(position, pair).sin_cos();
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
        rotated.push(kind, head);
    }
    rotated
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of queries and keys depend on the distance of their positions alone.
    #[test]
    fn scores_depend_on_distances() {
        let frequencies = [1.0, 0.3, 0.01];
        let row: Vec<f32> = (0..24).map(|i| ((i * i) as f32 * 0.7).cos()).collect();
        for halves in [false, true] {
            let rotary = Rotary {
                head_dim: 8,
                query_heads: 1,
                key_heads: 1,
                columns: [8, 16],
                frequencies: &frequencies,
                halves,
                bias: None,
                norm: None,
            };
            let score = |query: usize, key: usize| {
                let queries = rotate(&rotary, &row, query).queries;
                let keys = rotate(&rotary, &row, key).keys;
                queries.iter().zip(&keys).map(|(q, k)| q * k).sum::<f64>()
            };
            assert!((score(7, 3) - score(100_004, 100_000)).abs() < 1e-9);
            assert!((score(7, 3) - score(7, 4)).abs() > 1e-3);
            let values = rotate(&rotary, &row, 9).values;
            assert!(
                values
                    .iter()
                    .zip(&row[16..])
                    .all(|(&v, &x)| v == f64::from(x))
            );
        }
    }
}
