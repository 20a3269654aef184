//! What the tokeniser does with vocabularies that lack something or make no sense.

mod common;

use std::collections::HashSet;

use anybit_import::gguf::{Array, Value};
use anybit_llm::{Specials, TokenizerError};
use common::{BYTE_LEVEL, Fields, PLAIN, WITH_SPACE, integers, strings, text, texts};
use proptest::prelude::*;

/// A change of a fixture that may leave it without sense.
#[derive(Clone, Debug)]
enum Mutation {
    Drop(String),
    Retype(String, u32),
    Shorten(String, usize),
    Number(String, u32),
    Text(String, String),
    Piece(usize, String),
    Merge(usize, String),
    Kind(usize, i32),
    Score(usize, f32),
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let keys = [
        "ggml.model",
        "ggml.pre",
        "ggml.tokens",
        "ggml.token_type",
        "ggml.merges",
        "ggml.scores",
        "ggml.bos_token_id",
        "ggml.eos_token_id",
        "ggml.add_bos_token",
        "ggml.add_space_prefix",
        "ggml.eot_token_id",
        "ggml.add_eos_token",
    ];
    let key = proptest::sample::select(keys.to_vec()).prop_map(str::to_owned);
    let words = prop_oneof![
        any::<String>(),
        Just("<0x41>".to_owned()),
        Just(String::new()),
        "[a-d]{1,2} [a-d]{1,2}",
        proptest::sample::select(vec!["gpt2", "llama", "qwen2", "llama-bpe", "default", "Ġ"])
            .prop_map(str::to_owned),
    ];
    let place = 0usize..620;
    prop_oneof![
        key.clone().prop_map(Mutation::Drop),
        (key.clone(), 0u32..7).prop_map(|(key, kind)| Mutation::Retype(key, kind)),
        (key.clone(), place.clone()).prop_map(|(key, length)| Mutation::Shorten(key, length)),
        (key.clone(), prop_oneof![0u32..700, any::<u32>()])
            .prop_map(|(key, number)| Mutation::Number(key, number)),
        (key, words.clone()).prop_map(|(key, words)| Mutation::Text(key, words)),
        (place.clone(), words.clone()).prop_map(|(place, words)| Mutation::Piece(place, words)),
        (place.clone(), words).prop_map(|(place, words)| Mutation::Merge(place, words)),
        (place.clone(), -1i32..9).prop_map(|(place, kind)| Mutation::Kind(place, kind)),
        (place, any::<f32>()).prop_map(|(place, score)| Mutation::Score(place, score)),
    ]
}

fn mutate(fields: Fields, mutation: &Mutation) -> Fields {
    match mutation.clone() {
        Mutation::Drop(key) => fields.without(&key),
        Mutation::Number(key, number) => fields.set(&key, Value::U32(number)),
        Mutation::Text(key, words) => fields.set(&key, text(&words)),
        Mutation::Retype(key, kind) => fields.set(
            &key,
            match kind {
                0 => Value::Bool(true),
                1 => Value::I32(-1),
                2 => Value::F32(0.5),
                3 => strings(["a", "b"]),
                4 => integers([1, 3]),
                5 => strings::<&str>([]),
                _ => Value::Array(Array::F32(vec![0.0])),
            },
        ),
        Mutation::Shorten(key, length) => fields.change(&key, |array| match array {
            Array::String(values) => values.truncate(length),
            Array::I32(values) => values.truncate(length),
            Array::F32(values) => values.truncate(length),
            _ => (),
        }),
        Mutation::Piece(place, words) => {
            fields.change("ggml.tokens", |array| put(array, place, words))
        }
        Mutation::Merge(place, words) => {
            fields.change("ggml.merges", |array| put(array, place, words))
        }
        Mutation::Kind(place, kind) => fields.change("ggml.token_type", |array| {
            if let Array::I32(kinds) = array {
                kinds
                    .iter_mut()
                    .skip(place)
                    .take(1)
                    .for_each(|old| *old = kind);
            }
        }),
        Mutation::Score(place, score) => fields.change("ggml.scores", |array| {
            if let Array::F32(scores) = array {
                scores
                    .iter_mut()
                    .skip(place)
                    .take(1)
                    .for_each(|old| *old = score);
            }
        }),
    }
}

fn put(array: &mut Array, place: usize, words: String) {
    if let Array::String(texts) = array {
        texts
            .iter_mut()
            .skip(place)
            .take(1)
            .for_each(|old| old.clone_from(&words));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_vocabulary_makes_it_panic(
        fixture in proptest::sample::select(vec![BYTE_LEVEL, WITH_SPACE, PLAIN]),
        changes in proptest::collection::vec(mutations(), 1..4),
        text in texts(),
        ids in proptest::collection::vec(any::<u32>().prop_map(|id| id % 800), 0..20),
    ) {
        let fields = changes.iter().fold(Fields::of(fixture), mutate);
        match fields.tokenizer() {
            Ok(tokenizer) => {
                for specials in [Specials::AsText, Specials::Parse] {
                    if let Ok(ids) = tokenizer.encode_sequence(&text, specials) {
                        prop_assert!(tokenizer.decode(&ids).is_ok());
                    }
                }
                let _ = tokenizer.decode(&ids);
                let mut stream = tokenizer.stream();
                for id in ids {
                    stream.push(id);
                }
                stream.finish();
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// The error of a changed fixture.
fn refusal(fields: Fields) -> TokenizerError {
    fields.tokenizer().map(|_| ()).unwrap_err()
}

#[test]
fn every_fault_has_its_own_error() {
    let byte_level = || Fields::of(BYTE_LEVEL);
    let spm = || Fields::of(WITH_SPACE);
    let piece = |place: usize, words: &str| {
        let words = words.to_owned();
        move |array: &mut Array| put(array, place, words)
    };

    for key in [
        "ggml.model",
        "ggml.tokens",
        "ggml.token_type",
        "ggml.merges",
    ] {
        let error = refusal(byte_level().without(key));
        assert!(
            matches!(error, TokenizerError::Metadata(_)),
            "{key}: {error:?}"
        );
    }
    let error = refusal(spm().without("ggml.scores"));
    assert!(matches!(error, TokenizerError::Metadata(_)), "{error:?}");
    let error = refusal(byte_level().set("ggml.tokens", integers([1])));
    assert!(matches!(error, TokenizerError::Metadata(_)), "{error:?}");
    let error = refusal(byte_level().set("ggml.model", text("bert")));
    assert!(
        matches!(error, TokenizerError::UnknownModel { .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().set("ggml.pre", text("klingon")));
    assert!(
        matches!(error, TokenizerError::UnknownPreTokenizer { .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().set("ggml.tokens", strings::<&str>([])));
    assert!(
        matches!(error, TokenizerError::EmptyVocabulary),
        "{error:?}"
    );
    let error = refusal(byte_level().set("ggml.token_type", integers([1, 1])));
    assert!(
        matches!(error, TokenizerError::LengthMismatch { found: 2, .. }),
        "{error:?}"
    );
    let error = refusal(spm().set("ggml.scores", Value::Array(Array::F32(vec![1.0]))));
    assert!(
        matches!(error, TokenizerError::LengthMismatch { found: 1, .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().change("ggml.tokens", piece(300, "a")));
    assert!(
        matches!(error, TokenizerError::DuplicatePiece { second: 300, .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().change("ggml.merges", piece(7, "ab")));
    assert!(
        matches!(error, TokenizerError::InvalidMerge { index: 7, .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().change("ggml.merges", piece(7, "a nothing")));
    assert!(
        matches!(error, TokenizerError::UnknownMergePiece { index: 7, .. }),
        "{error:?}"
    );
    // A merge longer than any piece: the library behind the merges does not check for it.
    let error = refusal(byte_level().change("ggml.merges", piece(7, "<|im_start|> <|im_start|>")));
    assert!(
        matches!(error, TokenizerError::UnknownMergePiece { index: 7, .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().set("ggml.eos_token_id", Value::U32(10_000)));
    assert!(
        matches!(error, TokenizerError::SpecialOutOfRange { id: 10_000, .. }),
        "{error:?}"
    );
    let error = refusal(byte_level().without("ggml.bos_token_id"));
    assert!(
        matches!(error, TokenizerError::MissingSpecial { .. }),
        "{error:?}"
    );
    let error = refusal(spm().change("ggml.tokens", piece(13, "<0xzz>")));
    assert!(
        matches!(error, TokenizerError::InvalidBytePiece { id: 13, .. }),
        "{error:?}"
    );
    let error = refusal(spm().change("ggml.tokens", piece(400, &"a".repeat(5000))));
    assert!(
        matches!(error, TokenizerError::PieceTooLong { length: 5000, .. }),
        "{error:?}"
    );

    let kinds = |kind: i32| {
        move |array: &mut Array| {
            if let Array::I32(kinds) = array {
                kinds[13] = kind;
            }
        }
    };
    let error = refusal(spm().change("ggml.token_type", kinds(1)));
    assert!(
        matches!(error, TokenizerError::MissingBytePieces { count: 1, .. }),
        "{error:?}"
    );
    let error = refusal(spm().change("ggml.token_type", kinds(9)));
    assert!(
        matches!(error, TokenizerError::UnknownPieceType { id: 13, found: 9 }),
        "{error:?}"
    );
    let error = refusal(spm().change("ggml.scores", |array| {
        if let Array::F32(scores) = array {
            scores[300] = f32::NAN;
        }
    }));
    assert!(
        matches!(error, TokenizerError::InvalidScore { id: 300, .. }),
        "{error:?}"
    );
}

#[test]
fn only_control_pieces_end_a_text_by_their_names() {
    let tokenizer = Fields::of(BYTE_LEVEL).tokenizer().unwrap();
    let ends: HashSet<&str> = tokenizer
        .ends()
        .iter()
        .filter_map(|&id| tokenizer.piece(id))
        .collect();
    assert_eq!(ends, HashSet::from(["<|endoftext|>", "<|im_end|>"]));
    let fields = Fields::of(BYTE_LEVEL);
    let place = fields
        .strings("ggml.tokens")
        .iter()
        .position(|piece| piece == "<|endoftext|>");
    let id = u32::try_from(place.unwrap()).unwrap();
    let as_text = fields.change("ggml.token_type", |array| {
        if let Array::I32(kinds) = array {
            kinds[place.unwrap()] = 1;
        }
    });
    let tokenizer = as_text.tokenizer().unwrap();
    assert!(!tokenizer.is_end(id));
    let named = as_text
        .set("ggml.eot_token_id", Value::U32(id))
        .tokenizer()
        .unwrap();
    assert!(named.is_end(id));
}

#[test]
fn what_files_leave_out_is_as_in_llama_cpp() {
    let spm = Fields::of(WITH_SPACE)
        .without("ggml.bos_token_id")
        .without("ggml.eos_token_id");
    let tokenizer = spm.tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(
        tokenizer.encode_sequence("", Specials::AsText).unwrap(),
        [1]
    );
    let silent = spm.set("ggml.add_bos_token", Value::Bool(false));
    let silent = silent
        .set("ggml.add_eos_token", Value::Bool(true))
        .tokenizer()
        .unwrap();
    assert_eq!(silent.encode_sequence("", Specials::AsText).unwrap(), [2]);

    let byte_level = Fields::of(BYTE_LEVEL).without("ggml.add_bos_token");
    let first = |pre: &str| {
        let tokenizer = byte_level
            .clone()
            .set("ggml.pre", text(pre))
            .tokenizer()
            .unwrap();
        tokenizer.encode_sequence("", Specials::AsText).unwrap()
    };
    assert!(first("qwen2").is_empty());
    assert_eq!(
        first("llama-bpe"),
        [byte_level.tokenizer().unwrap().bos().unwrap()]
    );
    // Byte-level files that name no pieces have none: id 11, llama.cpp's default, is a letter here.
    let unnamed = byte_level
        .without("ggml.bos_token_id")
        .without("ggml.eos_token_id");
    let tokenizer = unnamed.tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
}
