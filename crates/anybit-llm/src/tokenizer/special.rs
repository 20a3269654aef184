//! Pieces that are more than text: where they stand in a text, which begin and end one.

use aho_corasick::{AhoCorasick, MatchKind};
use anybit_import::gguf::Metadata;

use super::Specials;
use super::error::TokenizerError;
use super::vocabulary::{PieceKind, Vocabulary};

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// Control pieces that end a turn or a text in one family of models or another. Files name only one or two of a model's.
const END_PIECES: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

/// What a kind of model has where the file is silent: llama.cpp's defaults.
pub(super) struct Defaults {
    pub(super) bos: u32,
    pub(super) eos: u32,
    pub(super) add_bos: bool,
}

/// The ids of special pieces.
#[derive(Clone, Debug)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// The piece that every text begins with.
    pub(super) first: Option<u32>,
    /// The piece that every text ends with.
    pub(super) last: Option<u32>,
    /// Ids that end a generated text, in order.
    pub(super) ends: Vec<u32>,
}

impl SpecialIds {
    pub(super) fn read(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        defaults: &Defaults,
    ) -> Result<Self, TokenizerError> {
        // A default is taken only where it can be meant: llama.cpp's for byte-level vocabularies are Falcon's.
        let control = |id: u32| (vocabulary.kind(id) == Some(PieceKind::Control)).then_some(id);
        let bos = read_id(metadata, vocabulary, BOS)?.or(control(defaults.bos));
        let eos = read_id(metadata, vocabulary, EOS)?.or(control(defaults.eos));
        let eot = read_id(metadata, vocabulary, EOT)?;
        let eom = read_id(metadata, vocabulary, EOM)?;
        let first = match metadata.optional(ADD_BOS)? {
            Some(true) => Some(bos.ok_or(missing(ADD_BOS, BOS))?),
            Some(false) => None,
            None => bos.filter(|_| defaults.add_bos),
        };
        let last = match metadata.optional(ADD_EOS)? {
            Some(true) => Some(eos.ok_or(missing(ADD_EOS, EOS))?),
            Some(false) | None => None,
        };
        let mut ends = known_ends(vocabulary);
        ends.extend([eos, eot, eom].into_iter().flatten());
        ends.sort_unstable();
        ends.dedup();
        Ok(Self {
            bos,
            eos,
            first,
            last,
            ends,
        })
    }
}

fn missing(flag: &'static str, key: &'static str) -> TokenizerError {
    TokenizerError::MissingSpecial { flag, key }
}

fn read_id(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    key: &'static str,
) -> Result<Option<u32>, TokenizerError> {
    let Some(id) = metadata.optional::<i64>(key)? else {
        return Ok(None);
    };
    match u32::try_from(id) {
        Ok(valid) if vocabulary.kind(valid).is_some() => Ok(Some(valid)),
        _ => Err(TokenizerError::SpecialOutOfRange {
            key,
            id,
            size: vocabulary.len(),
        }),
    }
}

fn known_ends(vocabulary: &Vocabulary) -> Vec<u32> {
    let control = vocabulary
        .iter()
        .filter(|(_, text, kind)| *kind == PieceKind::Control && END_PIECES.contains(text));
    let mut found: Vec<(u32, &str)> = control.map(|(id, text, _)| (id, text)).collect();
    // Where messages have parts, <|end|> ends a part, and these two the turn.
    let has = |name: &str| found.iter().any(|&(_, text)| text == name);
    if has("<|return|>") && has("<|call|>") {
        found.retain(|&(_, text)| text != "<|end|>");
    }
    found.into_iter().map(|(id, _)| id).collect()
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Ordinary text, not empty.
    Text(&'t str),
    /// A piece that the text names.
    Piece(u32),
}

/// Finds pieces that a text names, the leftmost first, and of those the longest.
#[derive(Debug)]
struct Finder {
    names: AhoCorasick,
    ids: Vec<u32>,
}

impl Finder {
    /// A finder of the pieces of some kinds, or nothing if there are none.
    fn new(
        vocabulary: &Vocabulary,
        wanted: fn(PieceKind) -> bool,
    ) -> Result<Option<Self>, TokenizerError> {
        let pieces = vocabulary
            .iter()
            .filter(|&(_, text, kind)| wanted(kind) && !text.is_empty());
        let (ids, texts): (Vec<u32>, Vec<&str>) = pieces.map(|(id, text, _)| (id, text)).unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let names = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| TokenizerError::Library {
                what: "building the search for special pieces",
                source: Box::new(error),
            })?;
        Ok(Some(Self { names, ids }))
    }

    fn split<'t>(&self, text: &'t str) -> Vec<Fragment<'t>> {
        let mut fragments = Vec::new();
        let mut end = 0;
        let between = |start, end| {
            let part = text.get(start..end).filter(|part| !part.is_empty());
            part.map(Fragment::Text)
        };
        for found in self.names.find_iter(text) {
            fragments.extend(between(end, found.start()));
            let id = self.ids.get(found.pattern().as_usize());
            fragments.extend(id.map(|&id| Fragment::Piece(id)));
            end = found.end();
        }
        fragments.extend(between(end, text.len()));
        fragments
    }
}

/// Takes texts apart at the pieces that they name.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Pieces defined by the user alone: they are text, and always found.
    defined: Option<Finder>,
    /// These and the control pieces.
    all: Option<Finder>,
}

impl Fragments {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let defined = |kind| kind == PieceKind::UserDefined;
        let all = |kind: PieceKind| kind == PieceKind::UserDefined || kind.is_hidden();
        Ok(Self {
            defined: Finder::new(vocabulary, defined)?,
            all: Finder::new(vocabulary, all)?,
        })
    }

    pub(super) fn split<'t>(&self, text: &'t str, specials: Specials) -> Vec<Fragment<'t>> {
        let finder = match specials {
            Specials::Parse => &self.all,
            Specials::AsText => &self.defined,
        };
        match finder {
            Some(finder) => finder.split(text),
            None if text.is_empty() => Vec::new(),
            None => vec![Fragment::Text(text)],
        }
    }
}
