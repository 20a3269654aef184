//! The pieces of a vocabulary, as GGUF holds them.

use std::collections::HashMap;

use anybit_import::gguf::{Array, Metadata};

use super::error::{TokenizerError, shorten};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// llama.cpp's ids are i32.
const SIZE_LIMIT: usize = i32::MAX as usize;

/// What a piece of the vocabulary is for: GGUF's `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PieceKind {
    /// A piece of text.
    Normal,
    /// Stands for what the vocabulary cannot spell.
    Unknown,
    /// A mark for the model, such as the end of a turn, and no text.
    Control,
    /// Text that is always one piece.
    UserDefined,
    /// Not used by the model.
    Unused,
    /// A single byte, written `<0x0A>`.
    Byte,
}

impl PieceKind {
    fn from_type(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether pieces of this kind may come of ordinary text by merging. Control pieces may not: a text would else
    /// speak to the model in the voice of its prompt.
    pub(super) fn is_mergeable(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }

    /// Whether pieces of this kind are no text.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

#[derive(Clone, Debug)]
struct Piece {
    text: String,
    kind: PieceKind,
}

/// The pieces by id.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    pieces: Vec<Piece>,
}

impl Vocabulary {
    pub(super) fn read(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let texts = metadata.get_strings(TOKENS)?;
        if texts.is_empty() {
            return Err(TokenizerError::EmptyVocabulary);
        }
        if texts.len() > SIZE_LIMIT {
            return Err(TokenizerError::VocabularyTooLarge {
                size: texts.len(),
                limit: SIZE_LIMIT,
            });
        }
        let kinds = read_kinds(metadata, texts.len())?;
        let pieces = texts.iter().cloned().zip(kinds);
        let vocabulary = Self {
            pieces: pieces.map(|(text, kind)| Piece { text, kind }).collect(),
        };
        for (id, text, kind) in vocabulary.iter() {
            if kind == PieceKind::Byte && named_byte(text).is_none() {
                return Err(TokenizerError::InvalidBytePiece {
                    id,
                    piece: shorten(text),
                });
            }
        }
        Ok(vocabulary)
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.piece(id).map(|piece| piece.text.as_str())
    }

    pub(super) fn kind(&self, id: u32) -> Option<PieceKind> {
        self.piece(id).map(|piece| piece.kind)
    }

    fn piece(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(usize::try_from(id).ok()?)
    }

    /// Ids, texts and kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, PieceKind)> {
        let ids = 0u32..;
        ids.zip(&self.pieces)
            .map(|(id, piece)| (id, piece.text.as_str(), piece.kind))
    }

    /// Ids by text. Empty pieces, which some files have as padding, are never met in a text and are left out.
    ///
    /// # Errors
    /// [`TokenizerError::DuplicatePiece`].
    pub(super) fn ids(&self) -> Result<HashMap<&str, u32>, TokenizerError> {
        let mut ids = HashMap::with_capacity(self.len());
        for (id, text, _) in self.iter().filter(|(_, text, _)| !text.is_empty()) {
            if let Some(first) = ids.insert(text, id) {
                return Err(TokenizerError::DuplicatePiece {
                    piece: shorten(text),
                    first,
                    second: id,
                });
            }
        }
        Ok(ids)
    }
}

fn read_kinds(metadata: &Metadata, size: usize) -> Result<Vec<PieceKind>, TokenizerError> {
    let array = metadata.get_array(TYPES)?;
    check_length(TYPES, array, size)?;
    let numbers: Vec<i64> = match array {
        Array::I32(numbers) => numbers.iter().copied().map(i64::from).collect(),
        Array::U32(numbers) => numbers.iter().copied().map(i64::from).collect(),
        other => return Err(wrong_elements(TYPES, "i32", other)),
    };
    let ids = 0u32..;
    ids.zip(numbers)
        .map(|(id, found)| {
            PieceKind::from_type(found).ok_or(TokenizerError::UnknownPieceType { id, found })
        })
        .collect()
}

/// The scores of the pieces, finite and as many as they.
pub(super) fn read_scores(metadata: &Metadata, size: usize) -> Result<Vec<f32>, TokenizerError> {
    let array = metadata.get_array(SCORES)?;
    check_length(SCORES, array, size)?;
    let scores: Vec<f32> = match array {
        Array::F32(scores) => scores.clone(),
        // llama.cpp takes whole numbers too.
        Array::I32(scores) => scores.iter().map(|&score| score as f32).collect(),
        other => return Err(wrong_elements(SCORES, "f32", other)),
    };
    let ids = 0u32..;
    match ids.zip(&scores).find(|(_, score)| !score.is_finite()) {
        Some((id, &score)) => Err(TokenizerError::InvalidScore { id, score }),
        None => Ok(scores),
    }
}

fn check_length(key: &'static str, array: &Array, expected: usize) -> Result<(), TokenizerError> {
    let found = array.len();
    if found != expected {
        return Err(TokenizerError::LengthMismatch {
            key,
            found,
            expected,
        });
    }
    Ok(())
}

fn wrong_elements(key: &'static str, expected: &'static str, array: &Array) -> TokenizerError {
    TokenizerError::WrongElementType {
        key,
        expected,
        found: array.element_type(),
    }
}

/// The name of a byte's piece.
pub(super) fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte that a piece such as `<0x0A>` names.
pub(super) fn named_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let byte = u8::from_str_radix(digits, 16).ok()?;
    (piece == byte_piece(byte)).then_some(byte)
}
