//! Byte-level byte pair encoding, as GPT-2 has it: a text's bytes, each written as one printable character, are merged
//! pair by pair within words.

use std::collections::{HashMap, HashSet};

use anybit_import::gguf::Metadata;
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::error::{TokenizerError, shorten};
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::Vocabulary;

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

/// The characters that GPT-2 writes the 256 bytes with: printable bytes of Latin-1 as themselves, the others as the
/// characters from U+0100 on, in order.
const CHARACTERS: [char; 256] = {
    let mut characters = ['\0'; 256];
    let mut byte = 0;
    let mut others = 0;
    while byte < 256 {
        let code = if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
            byte
        } else {
            others += 1;
            255 + others
        };
        characters[byte as usize] = match char::from_u32(code) {
            Some(character) => character,
            None => panic!("no surrogates lie among the first 512 characters"),
        };
        byte += 1;
    }
    characters
};

#[derive(Debug)]
pub(super) struct ByteLevel {
    words: PreTokenizer,
    merges: BPE,
    /// Which bytes have a piece: some vocabularies lack bytes that their training never met.
    has_piece: Vec<bool>,
}

impl ByteLevel {
    /// The model, and whether its texts begin with the beginning-of-sequence piece where the file does not say.
    pub(super) fn read(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<(Self, bool), TokenizerError> {
        // As in llama.cpp, files from before the key was introduced get the split that was used then.
        let words = PreTokenizer::named(metadata.optional(PRE)?.unwrap_or("default"))?;
        let ids = vocabulary.ids()?;
        let merges = read_merges(metadata.get_strings(MERGES)?, vocabulary, &ids)?;
        let mergeable = vocabulary
            .iter()
            .filter(|(_, text, kind)| kind.is_mergeable() && !text.is_empty());
        let pieces: Vocab = mergeable
            .map(|(id, text, _)| (text.to_owned(), id))
            .collect();
        let has_piece = CHARACTERS
            .iter()
            .map(|character| pieces.contains_key(character.encode_utf8(&mut [0; 4]) as &str));
        let has_piece = has_piece.collect();
        let merges = BPE::builder()
            .vocab_and_merges(pieces, merges)
            .ignore_merges(words.whole_words)
            // Its caches live as long as the thread, not as the tokeniser.
            .cache_capacity(0)
            .build()
            .map_err(|source| TokenizerError::Library {
                what: "building the merges of the vocabulary",
                source,
            })?;
        let add_bos = words.add_bos;
        let model = Self {
            words,
            merges,
            has_piece,
        };
        Ok((model, add_bos))
    }

    /// Adds the ids of `text` to `ids`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut spelled = String::new();
        for word in self.words.split(text)? {
            spelled.clear();
            for character in word.chars() {
                self.spell(character, &mut spelled)?;
            }
            ids.extend(merged(&self.merges, &spelled)?);
        }
        Ok(())
    }

    fn spell(&self, character: char, spelled: &mut String) -> Result<(), TokenizerError> {
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            let place = usize::from(byte);
            match (CHARACTERS.get(place), self.has_piece.get(place)) {
                (Some(&written), Some(true)) => spelled.push(written),
                _ => return Err(TokenizerError::Unencodable { character, byte }),
            }
        }
        Ok(())
    }

    /// The bytes that a piece of text stands for. A piece with characters that stand for no byte is text as it is.
    pub(super) fn bytes(piece: &str) -> Vec<u8> {
        let bytes: Option<Vec<u8>> = piece.chars().map(byte_of).collect();
        bytes.unwrap_or_else(|| piece.as_bytes().to_vec())
    }
}

/// The ids of a word by the library's merges.
pub(super) fn merged(
    merges: &BPE,
    word: &str,
) -> Result<impl Iterator<Item = u32> + use<>, TokenizerError> {
    let tokens = merges
        .tokenize(word)
        .map_err(|source| TokenizerError::Library {
            what: "merging the pieces of a word",
            source,
        })?;
    Ok(tokens.into_iter().map(|token| token.id))
}

fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (33..=126 | 161..=172 | 174..=255) => u8::try_from(code).ok(),
        // The other bytes: 0 to 32, 127 to 160 and 173.
        code @ 256..=288 => u8::try_from(code - 256).ok(),
        code @ 289..=322 => u8::try_from(code - 289 + 127).ok(),
        323 => Some(173),
        _ => None,
    }
}

/// The pairs of pieces that the file merges, in order, after checking that the vocabulary has them.
fn read_merges(
    texts: &[String],
    vocabulary: &Vocabulary,
    ids: &HashMap<&str, u32>,
) -> Result<Merges, TokenizerError> {
    let mut merges = Merges::with_capacity(texts.len());
    let mut seen = HashSet::with_capacity(texts.len());
    let mut whole = String::new();
    for (index, merge) in texts.iter().enumerate() {
        let (left, right) = split_merge(merge).ok_or_else(|| TokenizerError::InvalidMerge {
            index,
            merge: shorten(merge),
        })?;
        whole.clear();
        whole.push_str(left);
        whole.push_str(right);
        let mut mergeable = true;
        for piece in [left, right, whole.as_str()] {
            let id = ids
                .get(piece)
                .ok_or_else(|| TokenizerError::UnknownMergePiece {
                    index,
                    piece: shorten(piece),
                })?;
            mergeable &= vocabulary.kind(*id).is_some_and(|kind| kind.is_mergeable());
        }
        // Of a pair that stands there twice, the first rank counts.
        if mergeable && seen.insert((left, right)) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// A merge's two pieces. The first may itself begin with a space.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (space, _) = merge.match_indices(' ').find(|&(place, _)| place > 0)?;
    let (left, right) = (merge.get(..space)?, merge.get(space + 1..)?);
    (!right.is_empty()).then_some((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_bytes_are_each_others_inverse() {
        for byte in 0..=255u8 {
            let character = CHARACTERS[usize::from(byte)];
            assert_eq!(byte_of(character), Some(byte), "{character:?}");
        }
        let all: HashSet<char> = CHARACTERS.into_iter().collect();
        assert_eq!(all.len(), 256);
        // As GPT-2 has them.
        assert_eq!(CHARACTERS[usize::from(b' ')], 'Ġ');
        assert_eq!(CHARACTERS[usize::from(b'\n')], 'Ċ');
        assert_eq!(CHARACTERS[usize::from(b'a')], 'a');
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of(' '), None);
    }

    #[test]
    fn merges_are_two_pieces() {
        assert_eq!(split_merge("a b"), Some(("a", "b")));
        assert_eq!(split_merge("  b"), Some((" ", "b")));
        assert_eq!(split_merge("ab"), None);
        assert_eq!(split_merge("a "), None);
        assert_eq!(split_merge(" b"), None);
        assert_eq!(split_merge(""), None);
    }
}
