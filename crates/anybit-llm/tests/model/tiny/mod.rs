//! Tiny models with seeded random weights, of every architecture, as bytes of a GGUF file; and broken ones.

mod storage;
pub(crate) mod vocabulary;
pub(crate) mod writer;

use anybit_import::gguf::GgufFile;

pub(crate) use self::storage::Storage;
use self::writer::{Tensor, Value};

/// What a tiny model is made of: every field may be changed before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) architecture: &'static str,
    pub(crate) blocks: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Written as `attention.key_length` and `value_length` unless it is hidden / heads.
    pub(crate) head_dim: usize,
    pub(crate) feed_forward: usize,
    pub(crate) context: usize,
    /// The type of all matrices but the embedding and the output.
    pub(crate) storage: Storage,
    /// The type of the embedding and the output.
    pub(crate) embedding_storage: Storage,
    /// Without one, the embedding serves as the output.
    pub(crate) output: bool,
    pub(crate) rope_base: f32,
    /// Linear scaling of positions.
    pub(crate) rope_scaling: Option<f32>,
    /// Whether there is a tensor `rope_freqs.weight`.
    pub(crate) rope_factors: bool,
    pub(crate) window: Option<u32>,
    pub(crate) attention_cap: Option<f32>,
    pub(crate) logit_cap: Option<f32>,
    pub(crate) seed: u64,
    pub(crate) damage: Option<Damage>,
}

/// What is wrong with a file.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// Leaves out the tensor of this name.
    NoTensor(String),
    /// Gives a tensor these dimensions, columns first, and zeros to fill them; it becomes F32.
    Shape(String, Vec<u64>),
    /// Adds an F32 tensor of this name and length.
    ExtraTensor(String, u64),
    /// Leaves out the metadata of this key.
    NoKey(String),
    /// Gives a key this value, and adds it where it is missing.
    Key(String, Value),
    /// Has as many tokens in its vocabulary as this, whatever the rows of the embedding.
    Vocabulary(usize),
    /// Keeps only so many bytes of the file.
    Truncate(usize),
}

impl Tiny {
    /// Three blocks of llama: grouped queries, embedding and output in one.
    pub(crate) fn llama() -> Self {
        Self {
            architecture: "llama",
            blocks: 3,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            feed_forward: 160,
            context: 128,
            storage: Storage::F32,
            embedding_storage: Storage::F32,
            output: false,
            rope_base: 10_000.0,
            rope_scaling: None,
            rope_factors: false,
            window: None,
            attention_cap: None,
            logit_cap: None,
            seed: 1,
            damage: None,
        }
    }

    /// Two blocks of qwen2: biases, three query heads to a key head, an output of its own.
    pub(crate) fn qwen2() -> Self {
        Self {
            architecture: "qwen2",
            blocks: 2,
            hidden: 96,
            heads: 6,
            output: true,
            rope_base: 1_000_000.0,
            seed: 2,
            ..Self::llama()
        }
    }

    /// Two blocks of qwen3: normalised heads, wider than hidden / heads.
    pub(crate) fn qwen3() -> Self {
        Self {
            architecture: "qwen3",
            blocks: 2,
            head_dim: 24,
            rope_base: 1_000_000.0,
            seed: 3,
            ..Self::llama()
        }
    }

    /// Seven blocks of gemma3, the sixth of which sees the whole text and the others eight positions.
    pub(crate) fn gemma3() -> Self {
        Self {
            architecture: "gemma3",
            blocks: 7,
            head_dim: 32,
            rope_base: 1_000_000.0,
            window: Some(8),
            seed: 4,
            ..Self::llama()
        }
    }

    /// One model of each architecture.
    pub(crate) fn all() -> [Self; 4] {
        [Self::llama(), Self::qwen2(), Self::qwen3(), Self::gemma3()]
    }

    /// The same model with its matrices stored as `storage`. The embedding and the output become Q8_0 where that is
    /// finer, as quantisers leave them.
    pub(crate) fn stored(self, storage: Storage) -> Self {
        let embedding_storage = match storage {
            Storage::Q4_0 | Storage::Q4_1 => Storage::Q8_0,
            other => other,
        };
        Self {
            storage,
            embedding_storage,
            ..self
        }
    }

    /// The same model, broken.
    pub(crate) fn damaged(self, damage: Damage) -> Self {
        Self {
            damage: Some(damage),
            ..self
        }
    }

    /// How many tokens there are.
    pub(crate) fn vocabulary() -> usize {
        vocabulary::tokens().len()
    }

    /// `count` random tokens that are no control tokens.
    pub(crate) fn text(count: usize, seed: u64) -> Vec<u32> {
        let first = vocabulary::CONTROL.len() as u64;
        let mut random = Random(seed);
        (0..count)
            .map(|_| (first + random.bits() % (Self::vocabulary() as u64 - first)) as u32)
            .collect()
    }

    /// The file, opened.
    ///
    /// # Panics
    /// If damage keeps its header from being read.
    pub(crate) fn file(&self) -> GgufFile {
        GgufFile::from_bytes(self.bytes()).expect("the file is written right")
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut metadata = self.metadata();
        let mut tensors = self.tensors();
        match &self.damage {
            None | Some(Damage::Vocabulary(_) | Damage::Truncate(_)) => {}
            Some(Damage::NoTensor(name)) => remove(&mut tensors, |tensor| tensor.name == *name),
            Some(Damage::Shape(name, dimensions)) => {
                let tensor = tensors.iter_mut().find(|tensor| tensor.name == *name);
                let tensor = tensor.expect("the model has the tensor");
                *tensor = zeros(name, dimensions.clone());
            }
            Some(Damage::ExtraTensor(name, length)) => tensors.push(zeros(name, vec![*length])),
            Some(Damage::NoKey(key)) => remove(&mut metadata, |(found, _)| found == key),
            Some(Damage::Key(key, value)) => {
                metadata.retain(|(found, _)| found != key);
                metadata.push((key.clone(), value.clone()));
            }
        }
        let mut bytes = writer::write(&metadata, &tensors);
        if let Some(Damage::Truncate(length)) = self.damage {
            bytes.truncate(length);
        }
        bytes
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let mut metadata = vec![(
            "general.architecture".to_owned(),
            Value::String(self.architecture.to_owned()),
        )];
        let mut put =
            |key: &str, value| metadata.push((format!("{}.{key}", self.architecture), value));
        let count = |count: usize| Value::U32(count as u32);
        put("block_count", count(self.blocks));
        put("context_length", count(self.context));
        put("embedding_length", count(self.hidden));
        put("feed_forward_length", count(self.feed_forward));
        put("attention.head_count", count(self.heads));
        put("attention.head_count_kv", count(self.kv_heads));
        put("attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        put("rope.freq_base", Value::F32(self.rope_base));
        if self.head_dim * self.heads != self.hidden {
            put("attention.key_length", count(self.head_dim));
            put("attention.value_length", count(self.head_dim));
        }
        if self.architecture == "llama" {
            put("rope.dimension_count", count(self.head_dim));
        }
        if let Some(factor) = self.rope_scaling {
            put("rope.scaling.type", Value::String("linear".to_owned()));
            put("rope.scaling.factor", Value::F32(factor));
        }
        let options = [
            ("attention.sliding_window", self.window.map(Value::U32)),
            ("attn_logit_softcapping", self.attention_cap.map(Value::F32)),
            ("final_logit_softcapping", self.logit_cap.map(Value::F32)),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                put(key, value);
            }
        }
        let pre = match self.architecture {
            "qwen2" | "qwen3" => "qwen2",
            _ => "smollm",
        };
        let length = match self.damage {
            Some(Damage::Vocabulary(length)) => Some(length),
            _ => None,
        };
        metadata.extend(vocabulary::metadata(pre, length));
        metadata
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut maker = Maker {
            random: Random(self.seed),
            tensors: Vec::new(),
        };
        let vocabulary = Self::vocabulary();
        maker.matrix(
            "token_embd.weight",
            vocabulary,
            self.hidden,
            0.5,
            self.embedding_storage,
        );
        if self.rope_factors {
            maker.vector("rope_freqs.weight", self.head_dim / 2, 2.0, 1.0);
        }
        for block in 0..self.blocks {
            self.block(&mut maker, block);
        }
        maker.vector("output_norm.weight", self.hidden, 1.0, 0.3);
        if self.output {
            let scale = 4.0 / (self.hidden as f32).sqrt();
            maker.matrix(
                "output.weight",
                vocabulary,
                self.hidden,
                scale,
                self.embedding_storage,
            );
        }
        maker.tensors
    }

    fn block(&self, maker: &mut Maker, block: usize) {
        let name = |part: &str| format!("blk.{block}.{part}");
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        // Products of normalised states then vary by 2, so that attention is neither even nor on one token.
        let matrix = |maker: &mut Maker, part: &str, rows: usize, columns: usize| {
            let scale = 2.0 / (columns as f32).sqrt();
            maker.matrix(
                &name(&format!("{part}.weight")),
                rows,
                columns,
                scale,
                self.storage,
            );
        };
        maker.vector(&name("attn_norm.weight"), self.hidden, 1.0, 0.3);
        matrix(maker, "attn_q", queries, self.hidden);
        matrix(maker, "attn_k", keys, self.hidden);
        matrix(maker, "attn_v", keys, self.hidden);
        matrix(maker, "attn_output", self.hidden, queries);
        matrix(maker, "ffn_gate", self.feed_forward, self.hidden);
        matrix(maker, "ffn_up", self.feed_forward, self.hidden);
        matrix(maker, "ffn_down", self.hidden, self.feed_forward);
        maker.vector(&name("ffn_norm.weight"), self.hidden, 1.0, 0.3);
        if self.architecture == "qwen2" {
            maker.vector(&name("attn_q.bias"), queries, 0.0, 1.0);
            maker.vector(&name("attn_k.bias"), keys, 0.0, 1.0);
            maker.vector(&name("attn_v.bias"), keys, 0.0, 1.0);
        }
        if matches!(self.architecture, "qwen3" | "gemma3") {
            maker.vector(&name("attn_q_norm.weight"), self.head_dim, 1.5, 0.3);
            maker.vector(&name("attn_k_norm.weight"), self.head_dim, 1.5, 0.3);
        }
        if self.architecture == "gemma3" {
            maker.vector(&name("post_attention_norm.weight"), self.hidden, 1.0, 0.3);
            maker.vector(&name("post_ffw_norm.weight"), self.hidden, 1.0, 0.3);
        }
    }
}

fn zeros(name: &str, dimensions: Vec<u64>) -> Tensor {
    let length: u64 = dimensions.iter().product();
    Tensor {
        name: name.to_owned(),
        dimensions,
        id: Storage::F32.id(),
        bytes: vec![0; 4 * length as usize],
    }
}

fn remove<T>(things: &mut Vec<T>, is_it: impl Fn(&T) -> bool) {
    let place = things.iter().position(is_it);
    things.remove(place.expect("the model has what is to be removed"));
}

struct Maker {
    random: Random,
    tensors: Vec<Tensor>,
}

impl Maker {
    /// Random values around 0 with this standard deviation.
    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        deviation: f32,
        storage: Storage,
    ) {
        let values = self.values(rows * columns, 0.0, deviation);
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dimensions: vec![columns as u64, rows as u64],
            id: storage.id(),
            bytes: storage.store(&values),
        });
    }

    /// Values around `mean`, F32; all of them positive for deviations up to half the mean.
    fn vector(&mut self, name: &str, length: usize, mean: f32, deviation: f32) {
        let values = self.values(length, mean, deviation);
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dimensions: vec![length as u64],
            id: Storage::F32.id(),
            bytes: Storage::F32.store(&values),
        });
    }

    fn values(&mut self, count: usize, mean: f32, deviation: f32) -> Vec<f32> {
        (0..count)
            .map(|_| mean + deviation * self.random.deviate())
            .collect()
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A value from −√3 to √3, even: its mean is 0 and its variance 1.
    pub(crate) fn deviate(&mut self) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1u32 << 24) as f32;
        (2.0 * unit - 1.0) * 3.0f32.sqrt()
    }
}
