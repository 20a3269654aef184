//! What the configuration beside a model says of its quantisation.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::ImportError;

/// The longest configuration that is read. Those of models have some kilobytes, a few hundred with lists of layers.
pub(super) const CONFIG_LIMIT: u64 = 1 << 20;

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
    version: Text,
    weight_block_size: Option<[u64; 2]>,
    config_groups: Option<Groups>,
}

/// What the groups of compressed-tensors agree on. Several groups of layers may be quantised each in its way; then the
/// tensors must tell.
#[derive(Default)]
struct Groups {
    num_bits: Option<u32>,
    group_size: Option<i64>,
}

impl<'de> Deserialize<'de> for Groups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GroupsVisitor;

        impl<'de> Visitor<'de> for GroupsVisitor {
            type Value = Groups;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of groups")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Groups, A::Error> {
                let mut agreed: Option<GroupWeights> = None;
                while let Some((IgnoredAny, group)) = map.next_entry::<_, Group>()? {
                    let Some(weights) = group.weights else {
                        continue;
                    };
                    match &mut agreed {
                        None => agreed = Some(weights),
                        Some(agreed) => {
                            let same = agreed.num_bits == weights.num_bits;
                            agreed.num_bits = agreed.num_bits.filter(|_| same);
                            let same = agreed.group_size == weights.group_size;
                            agreed.group_size = agreed.group_size.filter(|_| same);
                        }
                    }
                }
                let agreed = agreed.unwrap_or_default();
                Ok(Groups {
                    num_bits: agreed.num_bits,
                    group_size: agreed.group_size,
                })
            }
        }

        deserializer.deserialize_map(GroupsVisitor)
    }
}

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

/// A text, or nothing of a value of another kind.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.to_owned())))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// Where a file has its settings. A configuration of a model has them inside, a quantize_config.json is nothing else.
#[derive(Default)]
struct Place {
    inside: bool,
    outside: bool,
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "snake_case")]
        enum Field {
            QuantizationConfig,
            #[serde(alias = "w_bit")]
            Bits,
            #[serde(other)]
            Other,
        }

        struct PlaceVisitor;

        impl<'de> Visitor<'de> for PlaceVisitor {
            type Value = Place;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
                let mut place = Place::default();
                while let Some((field, IgnoredAny)) = map.next_entry()? {
                    match field {
                        Field::QuantizationConfig => place.inside = true,
                        Field::Bits => place.outside = true,
                        Field::Other => {}
                    }
                }
                Ok(place)
            }
        }

        deserializer.deserialize_map(PlaceVisitor)
    }
}

#[derive(Deserialize)]
struct Model {
    quantization_config: Option<Settings>,
}

impl QuantizationConfig {
    /// Reads a `config.json` with a `quantization_config`, or a `quantize_config.json`. A text that says nothing of
    /// quantisation gives the default.
    ///
    /// # Errors
    /// [`ImportError::TooLong`] if it has more than 1 MiB; [`ImportError::InvalidJson`] if it is no JSON object, or a value
    /// that is read is of another kind.
    pub fn from_json(text: &[u8]) -> Result<Self, ImportError> {
        let length = text.len() as u64;
        if length > CONFIG_LIMIT {
            return Err(ImportError::TooLong {
                what: "the configuration",
                length,
                limit: CONFIG_LIMIT,
            });
        }
        // Never as a tree of values, which takes many times what the text has.
        let place: Place = parse(text)?;
        let settings = match place {
            Place { inside: true, .. } => parse::<Model>(text)?.quantization_config,
            Place { outside: true, .. } => Some(parse(text)?),
            Place { .. } => None,
        };
        let settings: Settings = settings.unwrap_or_default();
        let groups = settings.config_groups.unwrap_or_default();
        Ok(Self {
            method: settings.quant_method,
            bits: settings.bits.or(groups.num_bits),
            group_size: settings.group_size.or(groups.group_size),
            checkpoint_format: settings.checkpoint_format.or(settings.format),
            version: settings
                .version
                .0
                .map(|version| version.to_ascii_lowercase()),
            weight_block_size: settings.weight_block_size,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ImportError> {
    serde_json::from_slice(text).map_err(|source| ImportError::InvalidJson {
        what: "the configuration",
        source: source.into(),
    })
}
