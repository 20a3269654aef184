//! What the configuration beside a model says of its quantisation.

use serde::Deserialize;
use serde_json::Value;

use crate::ImportError;

/// How a model was quantised, where its tensors alone do not say: what is read of `quantize_config.json`, or of
/// `quantization_config` in `config.json`. Every field may be missing; the default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantizationConfig {
    /// The method: `gptq`, `awq`, `fp8`, `bitsandbytes`, `compressed-tensors`.
    pub method: Option<String>,
    /// Bits of a code.
    pub bits: Option<u32>,
    /// Columns that share a scale; −1 for all of them.
    pub group_size: Option<i64>,
    /// Which layout the method stores: for GPTQ `gptq`, whose zero points are one less than they mean, or `gptq_v2`,
    /// where they are as they mean; for compressed-tensors `pack-quantized` and others.
    pub checkpoint_format: Option<String>,
    /// The variant of AWQ: `gemm` and others.
    pub version: Option<String>,
    /// Rows and columns of the blocks that share a scale, of FP8 weights.
    pub weight_block_size: Option<[u64; 2]>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    quant_method: Option<String>,
    #[serde(alias = "w_bit")]
    bits: Option<u32>,
    #[serde(alias = "q_group_size")]
    group_size: Option<i64>,
    checkpoint_format: Option<String>,
    format: Option<String>,
    version: Option<Value>,
    weight_block_size: Option<[u64; 2]>,
    config_groups: Option<Groups>,
}

/// The groups of compressed-tensors.
#[derive(Deserialize)]
#[serde(transparent)]
struct Groups(std::collections::BTreeMap<String, Group>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Group {
    weights: Option<GroupWeights>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupWeights {
    num_bits: Option<u32>,
    group_size: Option<i64>,
}

impl QuantizationConfig {
    /// Reads a `config.json` with a `quantization_config`, or a `quantize_config.json`. A text that says nothing of
    /// quantisation gives the default.
    ///
    /// # Errors
    /// [`ImportError::InvalidJson`] if it is not JSON, or a value that is read is of another kind.
    pub fn from_json(text: &[u8]) -> Result<Self, ImportError> {
        let invalid = |source: serde_json::Error| ImportError::InvalidJson {
            what: "the configuration",
            source: source.into(),
        };
        let mut file: Value = serde_json::from_slice(text).map_err(invalid)?;
        // A configuration of a model has it inside, a quantize_config.json is nothing else.
        let settings = match file.get_mut("quantization_config").map(Value::take) {
            Some(settings) => settings,
            None if file.get("bits").is_some() || file.get("w_bit").is_some() => file,
            None => Value::Null,
        };
        let settings: Option<Settings> = serde_json::from_value(settings).map_err(invalid)?;
        let settings = settings.unwrap_or_default();
        // Several groups of layers may be quantised each in its way; then the tensors must tell.
        let groups = settings.config_groups.map_or(Vec::new(), |Groups(groups)| {
            groups
                .into_values()
                .filter_map(|group| group.weights)
                .collect()
        });
        let agreed = |bits: fn(&GroupWeights) -> Option<i64>| {
            let first = groups.first().and_then(bits);
            groups
                .iter()
                .all(|group| bits(group) == first)
                .then_some(first)
                .flatten()
        };
        let group_bits = agreed(|group| group.num_bits.map(i64::from));
        Ok(Self {
            method: settings.quant_method,
            bits: settings
                .bits
                .or(group_bits.and_then(|bits| u32::try_from(bits).ok())),
            group_size: settings.group_size.or(agreed(|group| group.group_size)),
            checkpoint_format: settings.checkpoint_format.or(settings.format),
            version: settings
                .version
                .and_then(|version| version.as_str().map(str::to_ascii_lowercase)),
            weight_block_size: settings.weight_block_size,
        })
    }
}
