//! Keys and values of past tokens as a device keeps them: `core/cache.wgsl`.

use std::ops::Range;

use anybit_formats::FloatFormat;

use crate::ReferenceError;
use crate::bound::Bounded;

/// Tokens that share a key's scales.
pub const BLOCK: usize = 32;

/// Whole blocks before a query's own that caches of codes still read from the ring.
pub const RECENT_BLOCKS: usize = 1;

/// Channels of a key that lie together in the ring.
const CHUNK: usize = 8;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// f32.
    F32,
    /// f16.
    F16,
    /// Older tokens in codes of so many bits, recent ones in f16.
    Codes(u32),
}

/// The sizes of a cache, as `KvShape` of anybit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// How keys and values are kept.
    pub format: CacheFormat,
    /// Heads of keys and values.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens that there is room for.
    pub capacity: usize,
    /// The most tokens of a step.
    pub step: usize,
}

/// A part of a cache's words, in the order in which they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The ring of keys: 32 tokens take turns chunk by chunk of 8 channels.
    Keys,
    /// The ring of values, token by token.
    Values,
    /// Codes of older keys: of a block, word by word of all its tokens.
    KeyCodes,
    /// Scale and minimum of a channel and block.
    KeyScales,
    /// Codes of older values, token by token.
    ValueCodes,
    /// Scale and minimum of a token and group of channels.
    ValueScales,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Keys,
        Self::Values,
        Self::KeyCodes,
        Self::KeyScales,
        Self::ValueCodes,
        Self::ValueScales,
    ];
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Keys.
    Key,
    /// Values.
    Value,
}

impl CacheShape {
    /// Tokens of whole blocks that there is room for.
    pub fn tokens(&self) -> usize {
        self.capacity.next_multiple_of(BLOCK)
    }

    /// Tokens of the ring: all of a cache of floats; else what the first query of a step may still read there, and what the
    /// step adds.
    pub fn ring(&self) -> usize {
        match self.format {
            CacheFormat::F32 | CacheFormat::F16 => self.tokens(),
            CacheFormat::Codes(_) => {
                let recent = BLOCK * (RECENT_BLOCKS + 2);
                (self.step.next_multiple_of(BLOCK) + recent).min(self.tokens())
            }
        }
    }

    /// Channels of a value that share a scale.
    pub fn value_group(&self) -> usize {
        [64, 32]
            .into_iter()
            .find(|&group| self.head_dim.is_multiple_of(group))
            .unwrap_or(self.head_dim)
    }

    /// Tokens that a query at a position reads as codes: all before the block that is [`RECENT_BLOCKS`] before its own; none of
    /// a cache of floats.
    pub fn older(&self, position: usize) -> usize {
        match self.format {
            CacheFormat::F32 | CacheFormat::F16 => 0,
            CacheFormat::Codes(_) => BLOCK * (position / BLOCK).saturating_sub(RECENT_BLOCKS),
        }
    }

    /// Where the words of a section lie.
    pub fn section(&self, section: Section) -> Range<usize> {
        let mut start = 0;
        for other in Section::ALL {
            let words = self.section_words(other);
            if other == section {
                return start..start + words;
            }
            start += words.next_multiple_of(4);
        }
        start..start
    }

    /// The words of all sections.
    pub fn words(&self) -> usize {
        self.section(Section::ValueScales).end.next_multiple_of(4)
    }

    fn section_words(&self, section: Section) -> usize {
        let channels = self.heads * self.head_dim;
        let (bits, halves) = match self.format {
            CacheFormat::F32 => (0, 1),
            CacheFormat::F16 => (0, 2),
            CacheFormat::Codes(bits) => (bits as usize, 2),
        };
        let coded = usize::from(bits > 0);
        match section {
            Section::Keys | Section::Values => self.ring() * channels / halves,
            Section::KeyCodes | Section::ValueCodes => self.tokens() * channels * bits / 32,
            Section::KeyScales => coded * self.tokens() / BLOCK * channels,
            Section::ValueScales => {
                coded * self.tokens() * self.heads * (self.head_dim / self.value_group())
            }
        }
    }
}

/// The words of a layer's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    shape: CacheShape,
    words: Vec<u32>,
}

/// What a code of a cache stands for is code · scale + minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CodeScale {
    /// The scale.
    pub scale: f32,
    /// The minimum.
    pub minimum: f32,
}

impl Cache {
    /// A cache of zeros.
    pub fn new(shape: CacheShape) -> Self {
        Self {
            shape,
            words: vec![0; shape.words()],
        }
    }

    /// A cache of these words.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Length`] for another number of words than the shape has.
    pub fn from_words(shape: CacheShape, words: Vec<u32>) -> Result<Self, ReferenceError> {
        if words.len() == shape.words() {
            return Ok(Self { shape, words });
        }
        Err(ReferenceError::Length {
            what: "words of a cache",
            expected: shape.words(),
            found: words.len(),
        })
    }

    /// Its sizes.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Its words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The words of a section.
    pub fn section_mut(&mut self, section: Section) -> &mut [u32] {
        &mut self.words[self.shape.section(section)]
    }

    /// A channel of a token in the ring.
    pub fn ring(&self, side: Side, head: usize, token: usize, channel: usize) -> f32 {
        let (word, half) = self.ring_place(side, head, token, channel);
        match self.shape.format {
            CacheFormat::F32 => f32::from_bits(self.words[word]),
            _ => halves(self.words[word])[half],
        }
    }

    /// Writes a channel of a token to the ring, rounded to nearest.
    pub fn set_ring(&mut self, side: Side, head: usize, token: usize, channel: usize, value: f32) {
        let (word, half) = self.ring_place(side, head, token, channel);
        match self.shape.format {
            CacheFormat::F32 => self.words[word] = value.to_bits(),
            _ => {
                let bits = FloatFormat::F16.encode(value) << (16 * half);
                self.words[word] = self.words[word] & !(0xffff << (16 * half)) | bits;
            }
        }
    }

    /// The word of a channel in the ring, and which half of it.
    fn ring_place(&self, side: Side, head: usize, token: usize, channel: usize) -> (usize, usize) {
        let ring = self.shape.ring();
        let slot = token % ring;
        let element = match side {
            Side::Key => {
                let chunks = self.shape.head_dim / CHUNK;
                let group = head * (ring / BLOCK) + slot / BLOCK;
                let chunk = (group * chunks + channel / CHUNK) * BLOCK + slot % BLOCK;
                chunk * CHUNK + channel % CHUNK
            }
            Side::Value => (head * ring + slot) * self.shape.head_dim + channel,
        };
        let start = self.start(match side {
            Side::Key => Section::Keys,
            Side::Value => Section::Values,
        });
        match self.shape.format {
            CacheFormat::F32 => (start + element, 0),
            _ => (start + element / 2, element % 2),
        }
    }

    fn start(&self, section: Section) -> usize {
        self.shape.section(section).start
    }

    /// The word that holds the scale of an older token's channel.
    pub fn scale_place(&self, side: Side, head: usize, token: usize, channel: usize) -> usize {
        let CacheShape { head_dim, .. } = self.shape;
        match side {
            Side::Key => {
                let block = head * (self.shape.tokens() / BLOCK) + token / BLOCK;
                self.start(Section::KeyScales) + block * head_dim + channel
            }
            Side::Value => {
                let group = self.shape.value_group();
                let row = head * self.shape.tokens() + token;
                self.start(Section::ValueScales) + row * (head_dim / group) + channel / group
            }
        }
    }

    /// The scale of an older token's channel.
    pub fn scale(&self, side: Side, head: usize, token: usize, channel: usize) -> CodeScale {
        let [scale, minimum] = halves(self.words[self.scale_place(side, head, token, channel)]);
        CodeScale { scale, minimum }
    }

    /// Writes a scale, rounded to f16.
    pub fn set_scale(
        &mut self,
        side: Side,
        (head, token, channel): (usize, usize, usize),
        scale: CodeScale,
    ) {
        let place = self.scale_place(side, head, token, channel);
        self.words[place] =
            FloatFormat::F16.encode(scale.scale) | FloatFormat::F16.encode(scale.minimum) << 16;
    }

    /// The word of an older token's code, and the bit from which on it lies.
    fn code_place(&self, side: Side, head: usize, token: usize, channel: usize) -> (usize, u32) {
        let bits = self.bits();
        let per_word = (32 / bits) as usize;
        let row_words = self.shape.head_dim / per_word;
        let row = head * self.shape.tokens() + token;
        let word = match side {
            Side::Key => {
                let block = row / BLOCK;
                self.start(Section::KeyCodes)
                    + (block * row_words + channel / per_word) * BLOCK
                    + token % BLOCK
            }
            Side::Value => self.start(Section::ValueCodes) + row * row_words + channel / per_word,
        };
        (word, bits * (channel % per_word) as u32)
    }

    /// Bits of a code; 32 of a cache that has none.
    pub fn bits(&self) -> u32 {
        match self.shape.format {
            CacheFormat::Codes(bits) => bits,
            CacheFormat::F32 | CacheFormat::F16 => 32,
        }
    }

    /// The code of an older token's channel.
    pub fn code(&self, side: Side, head: usize, token: usize, channel: usize) -> u32 {
        let (word, shift) = self.code_place(side, head, token, channel);
        self.words[word] >> shift & ((1 << self.bits()) - 1)
    }

    /// Writes a code.
    pub fn set_code(
        &mut self,
        side: Side,
        (head, token, channel): (usize, usize, usize),
        code: u32,
    ) {
        let (word, shift) = self.code_place(side, head, token, channel);
        let mask = ((1 << self.bits()) - 1) << shift;
        self.words[word] = self.words[word] & !mask | code << shift;
    }

    /// A channel of a token as a query reads it that takes the tokens before `older` for codes; and how far what a device
    /// decodes may be from it, by an error model whose γ(2) is given.
    pub(crate) fn read(
        &self,
        side: Side,
        (head, token, channel): (usize, usize, usize),
        older: usize,
        gamma: f64,
    ) -> Bounded {
        if token >= older {
            let value = self.ring(side, head, token, channel);
            let stored = match self.shape.format {
                CacheFormat::F32 => FloatFormat::F32,
                CacheFormat::F16 | CacheFormat::Codes(_) => FloatFormat::F16,
            };
            return Bounded {
                value: f64::from(value),
                bound: crate::integers::lost(value, stored),
            };
        }
        let CodeScale { scale, minimum } = self.scale(side, head, token, channel);
        let code = f64::from(self.code(side, head, token, channel));
        let lost = |value: f32| crate::integers::lost(value, FloatFormat::F16);
        let (product, minimum_size) = (code * f64::from(scale), f64::from(minimum.abs()));
        let flushed = code * lost(scale) + lost(minimum) + 2.0 * f64::from(f32::MIN_POSITIVE);
        Bounded {
            value: product + f64::from(minimum),
            bound: gamma * (product.abs() + minimum_size) + (1.0 + gamma) * flushed,
        }
    }
}

/// The two f16 of a word.
pub(crate) fn halves(word: u32) -> [f32; 2] {
    [word & 0xffff, word >> 16].map(|half| FloatFormat::F16.decode(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every channel has a place of its own.
    #[test]
    fn places_are_apart() {
        for format in [
            CacheFormat::F32,
            CacheFormat::F16,
            CacheFormat::Codes(8),
            CacheFormat::Codes(4),
            CacheFormat::Codes(2),
        ] {
            let shape = CacheShape {
                format,
                heads: 2,
                head_dim: 80,
                capacity: 250,
                step: 40,
            };
            let mut cache = Cache::new(shape);
            let places = |tokens: usize| {
                (0..2).flat_map(move |head| {
                    (0..tokens).flat_map(move |token| (0..80).map(move |c| (head, token, c)))
                })
            };
            let value = |side, (head, token, channel): (usize, usize, usize)| {
                let side = if side == Side::Key { 0 } else { 1 };
                ((head * 7 + token * 13 + channel * 3 + side) % 211) as f32
            };
            for side in [Side::Key, Side::Value] {
                for place @ (head, token, channel) in places(shape.ring()) {
                    cache.set_ring(side, head, token, channel, value(side, place));
                }
                if let CacheFormat::Codes(bits) = format {
                    for place in places(shape.tokens()) {
                        cache.set_code(side, place, value(side, place) as u32 % (1 << bits));
                    }
                }
            }
            for side in [Side::Key, Side::Value] {
                for place @ (head, token, channel) in places(shape.ring()) {
                    assert_eq!(cache.ring(side, head, token, channel), value(side, place));
                }
                if let CacheFormat::Codes(bits) = format {
                    for place @ (head, token, channel) in places(shape.tokens()) {
                        let code = cache.code(side, head, token, channel);
                        assert_eq!(code, value(side, place) as u32 % (1 << bits));
                    }
                }
            }
        }
    }

    #[test]
    fn the_own_block_and_the_one_before_are_recent() {
        let shape = CacheShape {
            format: CacheFormat::Codes(4),
            heads: 1,
            head_dim: 64,
            capacity: 4096,
            step: 64,
        };
        let older: Vec<usize> = [0, 31, 32, 63, 64, 95, 96].map(|p| shape.older(p)).to_vec();
        assert_eq!(older, [0, 0, 0, 0, 32, 32, 64]);
        assert_eq!(shape.ring(), 160);
        let floats = CacheShape {
            format: CacheFormat::F16,
            ..shape
        };
        assert_eq!((floats.older(4000), floats.ring()), (0, 4096));
    }
}
