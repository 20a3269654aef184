//! SentencePiece's byte pair encoding: of all pairs of neighbours whose joint is a piece, the one with the best score is
//! merged first. What the vocabulary cannot spell is written in bytes.

use std::cmp::Ordering;
use std::collections::HashMap;

use anybit_import::gguf::Metadata;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::byte_level::merged;
use super::error::TokenizerError;
use super::vocabulary::{PieceKind, Vocabulary, byte_piece, read_scores};

const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// What a space is written as.
const SPACE: char = '\u{2581}';

/// The longest piece, in bytes. Every split of every piece is looked up, which takes the square of this. SentencePiece
/// itself is content with 16 characters unless told otherwise.
const PIECE_LIMIT: usize = 1024;

#[derive(Debug)]
pub(super) struct SentencePiece {
    merges: BPE,
    /// Whether a space is put in front of a text, so that its first word is written as those in its middle.
    pub(super) adds_space: bool,
}

impl SentencePiece {
    pub(super) fn read(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TokenizerError> {
        let adds_space = metadata.optional(SPACE_PREFIX)?.unwrap_or(true);
        let scores = read_scores(metadata, vocabulary.len())?;
        let ids = vocabulary.ids()?;
        check_bytes(vocabulary, &ids)?;
        let spelled = vocabulary.iter().filter(|(_, text, kind)| {
            (kind.is_mergeable() || *kind == PieceKind::Byte) && !text.is_empty()
        });
        let pieces: Vocab = spelled.map(|(id, text, _)| (text.to_owned(), id)).collect();
        let merges = derive_merges(vocabulary, &scores, &pieces)?;
        let merges = BPE::builder()
            .vocab_and_merges(pieces, merges)
            .byte_fallback(true)
            // A text is one word here, hardly ever the same again.
            .cache_capacity(0)
            .build()
            .map_err(|source| TokenizerError::Library {
                what: "building the merges of the vocabulary",
                source,
            })?;
        Ok(Self { merges, adds_space })
    }

    /// Adds the ids of `text` to `ids`; `begins` tells whether the text stands at the beginning or behind a special
    /// piece.
    pub(super) fn encode(
        &self,
        text: &str,
        begins: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut spelled = String::with_capacity(text.len() + SPACE.len_utf8());
        if begins && self.adds_space {
            spelled.push(SPACE);
        }
        spelled.extend(text.chars().map(|character| match character {
            ' ' => SPACE,
            other => other,
        }));
        ids.extend(merged(&self.merges, &spelled)?);
        Ok(())
    }

    /// The bytes that a piece of text stands for.
    pub(super) fn bytes(piece: &str) -> Vec<u8> {
        piece.replace(SPACE, " ").into_bytes()
    }
}

fn check_bytes(vocabulary: &Vocabulary, ids: &HashMap<&str, u32>) -> Result<(), TokenizerError> {
    let is_byte = |name: &str| {
        let kind = ids.get(name).and_then(|&id| vocabulary.kind(id));
        kind == Some(PieceKind::Byte)
    };
    let mut missing = (0..=255).map(byte_piece).filter(|name| !is_byte(name));
    match missing.next() {
        Some(first) => Err(TokenizerError::MissingBytePieces {
            first,
            count: 1 + missing.count(),
        }),
        None => Ok(()),
    }
}

/// A pair of pieces that make a third.
#[derive(Clone, Copy, Debug)]
struct Pair<'v> {
    score: f32,
    /// The ids of the whole and of its left part, which settle an order among equal scores.
    order: (u32, u32),
    left: &'v str,
    right: &'v str,
}

impl Pair<'_> {
    /// Better scores come first.
    fn order(&self, other: &Self) -> Ordering {
        let scores = other.score.total_cmp(&self.score);
        scores.then(self.order.cmp(&other.order))
    }
}

/// The merges that SentencePiece finds by looking: every split of a piece into two others, best scores first.
///
/// SentencePiece takes the leftmost of pairs with equal scores. Here an order of all pairs is fixed beforehand, so
/// equal scores of different pieces, which its trainer does not give, may be merged in another order.
fn derive_merges(
    vocabulary: &Vocabulary,
    scores: &[f32],
    pieces: &Vocab,
) -> Result<Merges, TokenizerError> {
    let mergeable = |text: &str| {
        let id = *pieces.get(text)?;
        vocabulary.kind(id)?.is_mergeable().then_some(id)
    };
    let mut pairs = Vec::new();
    for ((id, text, kind), &score) in vocabulary.iter().zip(scores) {
        if !kind.is_mergeable() {
            continue;
        }
        if text.len() > PIECE_LIMIT {
            return Err(TokenizerError::PieceTooLong {
                id,
                length: text.len(),
                limit: PIECE_LIMIT,
            });
        }
        for (place, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(place);
            if let (Some(left_id), Some(_)) = (mergeable(left), mergeable(right)) {
                let order = (id, left_id);
                pairs.push(Pair {
                    score,
                    order,
                    left,
                    right,
                });
            }
        }
    }
    pairs.sort_unstable_by(Pair::order);
    let merges = pairs.iter();
    Ok(merges
        .map(|pair| (pair.left.to_owned(), pair.right.to_owned()))
        .collect())
}
