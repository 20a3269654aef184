//! Texts into ids of a model's vocabulary, and back.
//!
//! A [`Tokenizer`] is made of the vocabulary that a GGUF file carries: byte-level byte pair encoding (GPT-2, Llama 3,
//! Qwen, SmolLM) or SentencePiece (Llama 2, TinyLlama, Gemma). Its ids are those of llama.cpp.
//!
//! ```no_run
//! use anybit_import::gguf::GgufFile;
//! use anybit_llm::tokenizer::{Specials, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = GgufFile::open("model.gguf")?;
//! let tokenizer = Tokenizer::from_gguf(file.metadata())?;
//! let ids = tokenizer.encode("Hello, world!", Specials::AsText)?;
//! assert_eq!(tokenizer.decode(&ids)?, "Hello, world!");
//! # Ok(())
//! # }
//! ```

mod byte_level;
mod error;
mod pre_tokenizer;
mod sentence_piece;
mod special;
mod stream;
mod vocabulary;

use anybit_import::gguf::Metadata;

use self::byte_level::ByteLevel;
pub(crate) use self::error::shorten;
use self::sentence_piece::SentencePiece;
use self::special::{Defaults, Fragment, Fragments, SpecialIds};
use self::vocabulary::{Vocabulary, named_byte};

pub use self::error::TokenizerError;
pub use self::stream::DecodeStream;
pub use self::vocabulary::PieceKind;

const MODEL: &str = "tokenizer.ggml.model";

/// What names of control pieces (`<|im_end|>`, `</s>`) in a text are.
///
/// Pieces defined by the user are found in a text either way, as the models were trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specials {
    /// The pieces themselves: for prompts that a program has put together.
    Parse,
    /// Text like any other: for text of strangers, which may not speak to the model as a prompt does.
    AsText,
}

#[derive(Debug)]
enum Model {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
}

/// The vocabulary of a model, and how texts become its ids.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    special: SpecialIds,
    fragments: Fragments,
}

impl Tokenizer {
    /// The tokeniser that a file's `tokenizer.ggml.*` keys describe.
    ///
    /// # Errors
    /// A [`TokenizerError`] that says what about the keys is wrong or not supported.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let name = metadata.get_str(MODEL)?;
        let read = match name {
            "gpt2" => read_byte_level,
            "llama" => read_sentence_piece,
            _ => {
                return Err(TokenizerError::UnknownModel {
                    found: shorten(name),
                });
            }
        };
        let vocabulary = Vocabulary::read(metadata)?;
        let (model, defaults) = read(metadata, &vocabulary)?;
        let special = SpecialIds::read(metadata, &vocabulary, &defaults)?;
        let fragments = Fragments::new(&vocabulary)?;
        Ok(Self {
            vocabulary,
            model,
            special,
            fragments,
        })
    }

    /// How many pieces there are: ids are smaller than this. A model has as many rows in its embedding, or more.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The ids of a text, without pieces that begin or end a sequence.
    ///
    /// # Errors
    /// [`TokenizerError::Unencodable`] for a character that the vocabulary cannot spell, and [`TokenizerError::Split`].
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        let mut begins = true;
        for fragment in self.fragments.split(text, specials) {
            match (fragment, &self.model) {
                (Fragment::Piece(id), _) => ids.push(id),
                (Fragment::Text(text), Model::ByteLevel(model)) => model.encode(text, &mut ids)?,
                (Fragment::Text(text), Model::SentencePiece(model)) => {
                    model.encode(text, begins, &mut ids)?;
                }
            }
            begins = matches!(fragment, Fragment::Piece(_));
        }
        Ok(ids)
    }

    /// The ids of a whole sequence: those of the text between the pieces that the model wants every sequence to begin
    /// and end with, if any. A piece that the text itself begins or ends with, as prompts of chat templates may, is not
    /// put there again.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_sequence(
        &self,
        text: &str,
        specials: Specials,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text, specials)?;
        if let Some(first) = self
            .special
            .first
            .filter(|first| ids.first() != Some(first))
        {
            ids.insert(0, first);
        }
        if let Some(last) = self.special.last.filter(|last| ids.last() != Some(last)) {
            ids.push(last);
        }
        Ok(ids)
    }

    /// The text of a sequence's ids. Control pieces give no text, and a space that encoding puts in front of a text is
    /// taken away again; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::NoSuchPiece`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut stream = self.stream();
        let mut text = String::new();
        for &id in ids {
            if self.vocabulary.kind(id).is_none() {
                return Err(TokenizerError::NoSuchPiece {
                    id,
                    size: self.vocabulary.len(),
                });
            }
            text.extend(stream.push(id));
        }
        text.extend(stream.finish());
        Ok(text)
    }

    /// Decodes ids that come one by one, from the beginning of a text.
    pub fn stream(&self) -> DecodeStream<'_> {
        let drops_space = match &self.model {
            Model::ByteLevel(_) => false,
            Model::SentencePiece(model) => model.adds_space,
        };
        DecodeStream::new(self, drops_space)
    }

    /// Decodes ids that come one by one and go on from text that stands already: a space that comes first is meant.
    pub fn stream_continuation(&self) -> DecodeStream<'_> {
        DecodeStream::new(self, false)
    }

    /// The bytes of text that an id stands for, perhaps not whole characters; none for control pieces and the unknown
    /// one. `None` if the id lies outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let text = self.vocabulary.text(id)?;
        Some(match self.vocabulary.kind(id)? {
            PieceKind::Control | PieceKind::Unknown => Vec::new(),
            PieceKind::UserDefined => text.as_bytes().to_vec(),
            PieceKind::Byte => named_byte(text).into_iter().collect(),
            PieceKind::Normal | PieceKind::Unused => match &self.model {
                Model::ByteLevel(_) => ByteLevel::bytes(text),
                Model::SentencePiece(_) => SentencePiece::bytes(text),
            },
        })
    }

    /// A piece as the vocabulary spells it: `Ġthe`, `▁the`, `<|im_end|>`.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// What a piece is for.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.vocabulary.kind(id)
    }

    /// The piece that begins a sequence, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The piece that [`encode_sequence`](Self::encode_sequence) puts before a text, if the model wants one there.
    pub fn added_bos(&self) -> Option<u32> {
        self.special.first
    }

    /// The piece that ends a sequence, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether an id ends a generated text: the end of a sequence, of a turn or of a message.
    pub fn is_end(&self, id: u32) -> bool {
        self.special.ends.binary_search(&id).is_ok()
    }

    /// All ids that end a generated text, in order.
    pub fn ends(&self) -> &[u32] {
        &self.special.ends
    }
}

fn read_byte_level(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
) -> Result<(Model, Defaults), TokenizerError> {
    let (model, add_bos) = ByteLevel::read(metadata, vocabulary)?;
    let defaults = Defaults {
        bos: 11,
        eos: 11,
        add_bos,
    };
    Ok((Model::ByteLevel(Box::new(model)), defaults))
}

fn read_sentence_piece(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
) -> Result<(Model, Defaults), TokenizerError> {
    let model = SentencePiece::read(metadata, vocabulary)?;
    let defaults = Defaults {
        bos: 1,
        eos: 2,
        add_bos: true,
    };
    Ok((Model::SentencePiece(Box::new(model)), defaults))
}
