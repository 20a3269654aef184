//! Properties of the tokeniser on arbitrary texts and ids.

mod common;

use std::sync::LazyLock;

use anybit_import::gguf::{Array, Value};
use anybit_llm::{PieceKind, Specials, Tokenizer, TokenizerError};
use common::{BYTE_LEVEL, Fields, PLAIN, WITH_SPACE, texts};
use proptest::prelude::*;

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let fixtures = [BYTE_LEVEL, WITH_SPACE, PLAIN];
    fixtures
        .map(|name| Fields::of(name).tokenizer().unwrap())
        .into()
});

/// The ids handed to a stream, one by one: what it hands out, and the same joined.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
    let mut stream = tokenizer.stream();
    let mut parts: Vec<String> = ids.iter().filter_map(|&id| stream.push(id)).collect();
    parts.extend(stream.finish());
    let whole = parts.concat();
    (parts, whole)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_text_comes_back(text in texts()) {
        for (tokenizer, is_spm) in TOKENIZERS.iter().zip([false, true, true]) {
            // What stands for spaces in SentencePiece's pieces cannot be told from spaces.
            let text = if is_spm { text.replace('\u{2581}', "") } else { text.clone() };
            let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text);
            for id in ids {
                let kind = tokenizer.kind(id).unwrap();
                prop_assert!(!matches!(kind, PieceKind::Control | PieceKind::Unknown), "{:?}", tokenizer.piece(id));
            }
        }
    }

    #[test]
    fn a_stream_is_what_decoding_makes_of_all_ids(ids in proptest::collection::vec(any::<u32>(), 0..40)) {
        for tokenizer in TOKENIZERS.iter() {
            let size = u32::try_from(tokenizer.vocabulary_size()).unwrap();
            let ids: Vec<u32> = ids.iter().map(|id| id % size).collect();
            let (parts, whole) = streamed(tokenizer, &ids);
            prop_assert!(parts.iter().all(|part| !part.is_empty()));
            prop_assert_eq!(&whole, &tokenizer.decode(&ids).unwrap());
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
            let lossy = String::from_utf8_lossy(&bytes);
            prop_assert!(whole == lossy || Some(whole.as_str()) == lossy.strip_prefix(' '), "{:?}", lossy);
        }
    }

    #[test]
    fn a_stream_hands_out_whole_characters(text in any::<String>()) {
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
            let (parts, whole) = streamed(tokenizer, &ids);
            prop_assert_eq!(whole, tokenizer.decode(&ids).unwrap());
            let replaced = parts.concat().matches('\u{fffd}').count();
            prop_assert_eq!(replaced, text.matches('\u{fffd}').count());
        }
    }

    #[test]
    fn sentence_pieces_are_merged_by_score(text in texts()) {
        let fields = Fields::of(WITH_SPACE);
        let tokenizer = &TOKENIZERS[1];
        prop_assert_eq!(tokenizer.encode(&text, Specials::AsText).unwrap(), merged_by_score(&fields, &text));
    }

    #[test]
    fn sequences_differ_from_texts_by_their_ends_alone(text in texts()) {
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, Specials::Parse).unwrap();
            let sequence = tokenizer.encode_sequence(&text, Specials::Parse).unwrap();
            prop_assert_eq!(sequence.first().copied(), tokenizer.bos());
            let inner = sequence.strip_prefix(&[tokenizer.bos().unwrap()]).unwrap();
            prop_assert!(inner == ids || sequence == ids);
        }
    }
}

/// SentencePiece's algorithm by its definition: merges the pair of neighbours with the best score, the leftmost of
/// equals, as long as one makes a piece.
fn merged_by_score(fields: &Fields, text: &str) -> Vec<u32> {
    let pieces = fields.strings("ggml.tokens");
    let (Value::Array(Array::F32(scores)), Value::Array(Array::I32(kinds))) =
        (fields.get("ggml.scores"), fields.get("ggml.token_type"))
    else {
        panic!("the fixture has scores and types")
    };
    let place = |piece: &str| pieces.iter().position(|other| other == piece);
    let normal = |piece: &str| place(piece).filter(|&place| kinds[place] == 1);
    if text.is_empty() {
        return Vec::new();
    }
    let mut symbols: Vec<String> = format!(" {text}")
        .replace(' ', "\u{2581}")
        .chars()
        .map(String::from)
        .collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for (left, pair) in symbols.windows(2).enumerate() {
            let score = normal(&pair.concat()).map(|place| scores[place]);
            if let Some(score) = score.filter(|&score| best.is_none_or(|(other, _)| score > other))
            {
                best = Some((score, left));
            }
        }
        let Some((_, left)) = best else { break };
        let right = symbols.remove(left + 1);
        symbols[left].push_str(&right);
    }
    let ids = symbols.iter().flat_map(|symbol| match normal(symbol) {
        Some(place) => vec![place],
        None => symbol
            .bytes()
            .filter_map(|byte| place(&format!("<0x{byte:02X}>")))
            .collect(),
    });
    ids.map(|place| u32::try_from(place).unwrap()).collect()
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let tokenizer = &TOKENIZERS[0];
    let size = u32::try_from(tokenizer.vocabulary_size()).unwrap();
    assert!(matches!(
        tokenizer.decode(&[size]),
        Err(TokenizerError::NoSuchPiece { .. })
    ));
    assert_eq!(tokenizer.piece(size), None);
    assert_eq!(tokenizer.token_bytes(size), None);
    assert!(!tokenizer.is_end(size));
    assert_eq!(tokenizer.stream().push(size).as_deref(), Some("\u{fffd}"));
}

#[test]
fn continued_text_keeps_its_first_space() {
    let tokenizer = &TOKENIZERS[1];
    let ids = tokenizer.encode("the lazy dog", Specials::AsText).unwrap();
    let mut stream = tokenizer.stream_continuation();
    let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
    text.extend(stream.finish());
    assert_eq!(text, " the lazy dog");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "the lazy dog");
}
