//! A byte-level vocabulary of some three hundred tokens, as GPT-2's is made.

use super::writer::{Value, integers, strings};

/// The tokens that no text is cut into: ids 0, 1 and 2.
pub(crate) const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// What is merged, the first first. Ġ stands for a space.
const MERGES: [&str; 46] = [
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n",
    "Ġ c", "i t", "i s", "a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n",
    "a l", "a r", "Ġt o", "Ġ m", "Ġo f", "Ġ in", "Ġ d", "Ġ h", "Ġan d", "i c", "a s", "l e",
    "Ġt h", "i on", "o m", "l l", "en t", "Ġ n", "Ġ l", "v e",
];

/// The tokens in the order of their ids: control tokens, all bytes, merges.
pub(crate) fn tokens() -> Vec<String> {
    let control = CONTROL.iter().map(|&token| token.to_owned());
    let bytes = byte_characters().into_iter().map(String::from);
    let merged = MERGES.iter().map(|merge| merge.replace(' ', ""));
    control.chain(bytes).chain(merged).collect()
}

/// GPT-2's characters for the bytes, in the order of the characters: printable bytes stand for themselves, the others
/// for the characters from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256u32).filter(|byte| !printable(byte)).count() as u32;
    (0..256u32)
        .filter(printable)
        .chain(0x100..0x100 + others)
        .filter_map(char::from_u32)
        .collect()
}

/// The metadata of the tokeniser, cut by the rule `pre`. With `length`, the vocabulary is cut or filled to it.
pub(crate) fn metadata(pre: &str, length: Option<usize>) -> Vec<(String, Value)> {
    const NORMAL: i32 = 1;
    const CONTROL_TYPE: i32 = 3;
    const UNUSED: i32 = 5;
    let mut tokens = tokens();
    let mut types = vec![CONTROL_TYPE; CONTROL.len()];
    types.resize(tokens.len(), NORMAL);
    if let Some(length) = length {
        tokens.truncate(length);
        tokens.extend((tokens.len()..length).map(|id| format!("<unused{id}>")));
        types.resize(length, UNUSED);
    }
    let merges = MERGES.iter().copied();
    [
        ("model", Value::String("gpt2".to_owned())),
        ("pre", Value::String(pre.to_owned())),
        ("tokens", strings(tokens)),
        ("token_type", integers(types)),
        ("merges", strings(merges)),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
        ("add_bos_token", Value::Bool(false)),
    ]
    .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
    .into()
}

#[test]
fn merges_stay_within_the_vocabulary() {
    let tokens = tokens();
    let distinct: std::collections::HashSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), tokens.len());
    assert_eq!(tokens.len(), CONTROL.len() + 256 + MERGES.len());
    for merge in MERGES {
        for half in merge.split(' ') {
            assert!(
                tokens.iter().any(|token| token == half),
                "{half:?} of {merge:?}"
            );
        }
    }
}
