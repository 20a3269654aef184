//! The tokeniser against other tokenisers: ids of llama.cpp, SentencePiece and a plain byte pair encoding, made by
//! `data/make_tokenizer_goldens.py`.

mod common;

use std::fs;

use anybit_llm::{Specials, Tokenizer, TokenizerError};
use common::{Fields, data, sample_model, text};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    texts: Vec<String>,
    goldens: Vec<Golden>,
}

/// The ids of every text, in three ways; null where the vocabulary cannot spell the text.
#[derive(Deserialize)]
struct Golden {
    vocabulary: String,
    pre: String,
    /// Names of control pieces are text.
    text: Vec<Option<Vec<u32>>>,
    /// They are pieces.
    parse: Option<Vec<Option<Vec<u32>>>>,
    /// As before, with the pieces that begin and end a sequence.
    sequence: Option<Vec<Option<Vec<u32>>>>,
    /// Texts without a golden.
    #[serde(default)]
    skip: Vec<usize>,
}

fn goldens() -> Goldens {
    let json = fs::read_to_string(data("tokenizer/goldens.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn compare(
    golden: &Golden,
    texts: &[String],
    way: &str,
    expected: &[Option<Vec<u32>>],
    encode: impl Fn(&str) -> Result<Vec<u32>, TokenizerError>,
) {
    assert_eq!(texts.len(), expected.len());
    for (place, (text, expected)) in texts.iter().zip(expected).enumerate() {
        if golden.skip.contains(&place) {
            continue;
        }
        let case = format!("{}, {}, {way}: {text:?}", golden.vocabulary, golden.pre);
        match (encode(text), expected) {
            (Ok(ids), Some(expected)) => assert_eq!(&ids, expected, "{case}"),
            (Err(TokenizerError::Unencodable { .. }), None) => (),
            (other, _) => panic!("{case}: {other:?}, expected {expected:?}"),
        }
    }
}

fn check(golden: &Golden, texts: &[String], tokenizer: &Tokenizer) {
    compare(golden, texts, "text", &golden.text, |text| {
        tokenizer.encode(text, Specials::AsText)
    });
    if let Some(expected) = &golden.parse {
        compare(golden, texts, "parse", expected, |text| {
            tokenizer.encode(text, Specials::Parse)
        });
    }
    if let Some(expected) = &golden.sequence {
        compare(
            golden,
            texts,
            "sequence",
            &once(expected, tokenizer),
            |text| tokenizer.encode_sequence(text, Specials::Parse),
        );
    }
    for (text, ids) in texts.iter().zip(&golden.text) {
        // What stands for spaces in SentencePiece's pieces cannot be told from spaces.
        let ambiguous = golden.vocabulary.starts_with("spm") && text.contains('\u{2581}');
        if let (Some(ids), false) = (ids, ambiguous) {
            assert_eq!(
                &tokenizer.decode(ids).unwrap(),
                text,
                "{}",
                golden.vocabulary
            );
        }
    }
}

/// llama.cpp puts the first piece before a text that begins with it already, and warns; here it stands once.
fn once(expected: &[Option<Vec<u32>>], tokenizer: &Tokenizer) -> Vec<Option<Vec<u32>>> {
    let strip = |ids: &Vec<u32>| match ids.as_slice() {
        [first, rest @ ..] if Some(*first) == tokenizer.bos() && rest.first() == Some(first) => {
            rest.to_vec()
        }
        all => all.to_vec(),
    };
    expected.iter().map(|ids| ids.as_ref().map(strip)).collect()
}

fn check_fixture(vocabulary: &str) {
    let Goldens { texts, goldens } = goldens();
    let of_this = goldens
        .iter()
        .filter(|golden| golden.vocabulary == vocabulary);
    let mut checked = 0;
    for golden in of_this {
        let fields = Fields::of(&format!("{vocabulary}.gguf")).set("ggml.pre", text(&golden.pre));
        check(golden, &texts, &fields.tokenizer().unwrap());
        checked += 1;
    }
    assert!(checked > 0, "no goldens of {vocabulary}");
}

#[test]
fn byte_level_ids_under_every_pre_tokenizer() {
    check_fixture("byte-level");
}

#[test]
fn sentence_piece_ids_with_a_space_in_front() {
    check_fixture("spm-prefix");
}

#[test]
fn sentence_piece_ids_with_pieces_of_the_user() {
    check_fixture("spm-plain");
}

#[test]
fn sample_model_ids() {
    let Some(file) = sample_model("sample_model_ids") else {
        return;
    };
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let Goldens { texts, goldens } = goldens();
    let golden = goldens
        .iter()
        .find(|golden| golden.vocabulary == "sample")
        .unwrap();
    check(golden, &texts, &tokenizer);

    assert_eq!(tokenizer.vocabulary_size(), 49152);
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(tokenizer.eos(), Some(2));
    assert_eq!(tokenizer.ends(), [0, 2]);
    assert_eq!(tokenizer.piece(1), Some("<|im_start|>"));
}
