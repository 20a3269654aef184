//! Keys and values of a block, as they are or rounded as the library's caches round them.

use half::f16;

/// Tokens that share a key's scale.
const BLOCK: usize = 32;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Kept {
    /// As they are.
    #[default]
    Exact,
    /// In f16.
    F16,
    /// In codes of so many bits, with f16 scales and minima: of keys for each channel and 32 tokens, of values for each token
    /// and up to 64 channels of a head. The 32 tokens before a query's own are kept in f16.
    Codes(u32),
}

/// Keys and values of one block: positions × (key heads · head dimension).
#[derive(Clone)]
pub(crate) struct Cache {
    kept: Kept,
    width: usize,
    group: usize,
    keys: Vec<f64>,
    values: Vec<f64>,
    /// Those of whole blocks of tokens, as they are once they are codes.
    older_keys: Vec<f64>,
    older_values: Vec<f64>,
}

impl Cache {
    pub(crate) fn new(kept: Kept, kv_heads: usize, head_dim: usize) -> Self {
        let group = [64, 32]
            .into_iter()
            .find(|&group| head_dim.is_multiple_of(group));
        Self {
            kept,
            width: kv_heads * head_dim,
            group: group.unwrap_or(head_dim),
            keys: Vec::new(),
            values: Vec::new(),
            older_keys: Vec::new(),
            older_values: Vec::new(),
        }
    }

    pub(crate) fn extend(&mut self, keys: Vec<f64>, values: Vec<f64>) {
        let rounded = |value: f64| match self.kept {
            Kept::Exact => value,
            Kept::F16 | Kept::Codes(_) => f16::from_f64(value).to_f64(),
        };
        self.keys.extend(keys.into_iter().map(rounded));
        self.values.extend(values.into_iter().map(rounded));
        let Kept::Codes(bits) = self.kept else {
            return;
        };
        let whole = BLOCK * self.width;
        while self.older_keys.len() + whole <= self.keys.len() {
            let block = self.older_keys.len()..self.older_keys.len() + whole;
            let (keys, values) = (&self.keys[block.clone()], &self.values[block]);
            let mut coded = keys.to_vec();
            for channel in 0..self.width {
                let column = || keys.iter().skip(channel).step_by(self.width);
                let code = coder(column().copied(), bits);
                let targets = coded.iter_mut().skip(channel).step_by(self.width);
                targets
                    .zip(column())
                    .for_each(|(target, &key)| *target = code(key));
            }
            self.older_keys.extend(coded);
            for values in values.chunks(self.group) {
                let code = coder(values.iter().copied(), bits);
                self.older_values
                    .extend(values.iter().map(|&value| code(value)));
            }
        }
    }

    /// The key and the value of the token at `seen`, of all heads, as a query at `position` reads them.
    pub(crate) fn read(&self, seen: usize, position: usize) -> (&[f64], &[f64]) {
        let row = seen * self.width..(seen + 1) * self.width;
        let older = BLOCK * (position / BLOCK).saturating_sub(1);
        match self.kept {
            Kept::Codes(_) if seen < older => {
                (&self.older_keys[row.clone()], &self.older_values[row])
            }
            _ => (&self.keys[row.clone()], &self.values[row]),
        }
    }
}

/// What values become that share a scale and a minimum with these.
fn coder(values: impl Iterator<Item = f64> + Clone, bits: u32) -> impl Fn(f64) -> f64 {
    let levels = f64::from((1u32 << bits) - 1);
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let scale = f16::from_f64((high - low) / levels).to_f64();
    let low = f16::from_f64(low).to_f64();
    move |value| {
        if scale <= 0.0 {
            return low;
        }
        ((value - low) / scale).round_ties_even().clamp(0.0, levels) * scale + low
    }
}
