//! What a model is made of, from the metadata of its file.

use anybit_import::gguf::GgufFile;

use super::Error;

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// 2i with 2i + 1.
    Adjacent,
    /// i with i + d/2.
    Halves,
}

/// The function of the gate in the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// GELU, approximated with tanh.
    Gelu,
}

/// What sets an architecture apart from the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    pub(crate) pairing: Pairing,
    pub(crate) activation: Activation,
    /// Each head of the queries and keys is normalised before its rotation.
    pub(crate) head_norms: bool,
    /// What attention and the feed-forward part give is normalised before it is added.
    pub(crate) post_norms: bool,
    /// Embeddings are multiplied by the square root of their width.
    pub(crate) scaled_embedding: bool,
    /// Every so many blocks one sees the whole text, the others only a window of it. 0: all see the whole text.
    pub(crate) global_every: usize,
}

const LLAMA: Traits = Traits {
    pairing: Pairing::Adjacent,
    activation: Activation::Silu,
    head_norms: false,
    post_norms: false,
    scaled_embedding: false,
    global_every: 0,
};

/// The architectures, by the name in `general.architecture`. The biases of qwen2 are read wherever a file has them.
const ARCHITECTURES: [(&str, Traits); 4] = [
    ("llama", LLAMA),
    (
        "qwen2",
        Traits {
            pairing: Pairing::Halves,
            ..LLAMA
        },
    ),
    (
        "qwen3",
        Traits {
            pairing: Pairing::Halves,
            head_norms: true,
            ..LLAMA
        },
    ),
    (
        "gemma3",
        Traits {
            pairing: Pairing::Halves,
            activation: Activation::Gelu,
            head_norms: true,
            post_norms: true,
            scaled_embedding: true,
            global_every: 6,
        },
    ),
];

/// Blocks of Gemma 3 27B, the one size that scales its scores by the mean width of a head instead of the real one.
const GEMMA3_27B_BLOCKS: usize = 62;

/// The rotation base of the blocks with a window, where the file has none.
const LOCAL_ROPE_BASE: f64 = 10_000.0;

/// How positions turn heads in one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rope {
    pub(crate) base: f64,
    /// Positions are divided by it.
    pub(crate) factor: f64,
}

/// What a model is made of. Lengths are in elements.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) traits: Traits,
    pub(crate) blocks: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) feed_forward: usize,
    pub(crate) epsilon: f64,
    /// The first elements of a head that are rotated; the others are left as they are.
    pub(crate) rope_dim: usize,
    rope: Rope,
    local_rope: Rope,
    window: Option<usize>,
    /// Scores are multiplied by it.
    pub(crate) attention_scale: f64,
    pub(crate) attention_cap: Option<f64>,
    pub(crate) logit_cap: Option<f64>,
}

impl Config {
    pub(super) fn read(file: &GgufFile) -> Result<Self, Error> {
        let metadata = file.metadata();
        let name = metadata.get_str("general.architecture")?;
        let (_, traits) = ARCHITECTURES
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("the reference does not know the architecture {name:?}"))?;
        let key = |key: &str| format!("{name}.{key}");
        let count = |k: &str| -> Result<usize, Error> { positive(metadata.required(&key(k))?, k) };
        let optional_count = |k: &str| -> Result<Option<usize>, Error> {
            let value: Option<u64> = metadata.optional(&key(k))?;
            value.map(|value| positive(value, k)).transpose()
        };
        let float = |k: &str| -> Result<Option<f64>, Error> { Ok(metadata.optional(&key(k))?) };

        let hidden = count("embedding_length")?;
        let heads = count("attention.head_count")?;
        let kv_heads = optional_count("attention.head_count_kv")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads cannot share {kv_heads} key heads evenly").into());
        }
        let head_dim = optional_count("attention.key_length")?.unwrap_or(hidden / heads);
        if optional_count("attention.value_length")?.is_some_and(|length| length != head_dim) {
            return Err("the reference takes values to be as long as keys".into());
        }
        let rope_dim = optional_count("rope.dimension_count")?.unwrap_or(head_dim);
        if rope_dim > head_dim || rope_dim % 2 != 0 {
            return Err(
                format!("{rope_dim} elements of a head of {head_dim} cannot be rotated").into(),
            );
        }
        let factor = match metadata.optional::<&str>(&key("rope.scaling.type"))? {
            None | Some("none") => 1.0,
            Some("linear") => float("rope.scaling.factor")?
                .filter(|&factor| factor != 0.0)
                .unwrap_or(1.0),
            Some(other) => {
                return Err(
                    format!("the reference does not know the rotation scaling {other:?}").into(),
                );
            }
        };
        let blocks = count("block_count")?;
        let width = match name {
            "gemma3" if blocks == GEMMA3_27B_BLOCKS => hidden / heads,
            _ => head_dim,
        };
        Ok(Self {
            traits,
            blocks,
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: count("feed_forward_length")?,
            epsilon: metadata.required(&key("attention.layer_norm_rms_epsilon"))?,
            rope_dim,
            rope: Rope {
                base: float("rope.freq_base")?.unwrap_or(10_000.0),
                factor,
            },
            local_rope: Rope {
                base: float("rope.freq_base_swa")?.unwrap_or(LOCAL_ROPE_BASE),
                factor: 1.0,
            },
            window: optional_count("attention.sliding_window")?,
            attention_scale: 1.0 / (width as f64).sqrt(),
            attention_cap: float("attn_logit_softcapping")?,
            logit_cap: float("final_logit_softcapping")?,
        })
    }

    /// How many of the latest positions a block sees, the current one included; `None`: all.
    pub(crate) fn window(&self, block: usize) -> Option<usize> {
        self.window.filter(|_| !self.is_global(block))
    }

    /// How a block rotates its queries and keys.
    pub(crate) fn rope(&self, block: usize) -> Rope {
        if self.is_global(block) {
            self.rope
        } else {
            self.local_rope
        }
    }

    fn is_global(&self, block: usize) -> bool {
        match self.traits.global_every {
            0 => true,
            every => (block + 1).is_multiple_of(every),
        }
    }
}

fn positive(value: u64, key: &str) -> Result<usize, Error> {
    match usize::try_from(value) {
        Ok(0) | Err(_) => Err(format!("{key} is {value}").into()),
        Ok(value) => Ok(value),
    }
}
