//! How byte-level vocabularies split a text into words, inside which pieces are merged.
//!
//! Every model was trained with one set of regular expressions and wants the same again. GGUF names the set
//! (`tokenizer.ggml.pre`); the names are llama.cpp's, the expressions those of the models' own `tokenizer.json`.

use fancy_regex::Regex;

use super::error::{TokenizerError, shorten};

/// A set of expressions: each splits what the ones before it left, into what it matches and what lies between.
#[derive(Debug)]
struct Row {
    /// The names that GGUF has for the set.
    names: &'static [&'static str],
    expressions: &'static [&'static str],
    /// Whether a word that is a piece is taken whole, even if no merges lead to it.
    whole_words: bool,
    /// Whether a text begins with the beginning-of-sequence piece if the file does not say.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r##"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##
);

const ROWS: &[Row] = &[
    Row {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &[
            "gpt-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "phi-2",
            "trillion",
        ],
        expressions: &[GPT2],
        whole_words: false,
        add_bos: false,
    },
    // Digits are words of their own.
    Row {
        names: &[
            "smollm",
            "codeshell",
            "command-r",
            "exaone",
            "mellum2",
            "minerva-7b",
            "refact",
            "starcoder",
        ],
        expressions: &[r"\p{N}", GPT2],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "lfm2",
            "midm-2.0",
            "pixtral",
        ],
        expressions: &[LLAMA3],
        whole_words: true,
        add_bos: true,
    },
    Row {
        names: &["dbrx", "chatglm-bpe", "glm4", "smaug-bpe"],
        expressions: &[LLAMA3],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "f2llmv2",
            "grok-2",
            "hunyuan",
            "kormo",
            "megrez",
            "solar-open",
            "stablelm2",
        ],
        expressions: &[QWEN2],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &["qwen35"],
        expressions: &[QWEN35],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &["gpt-4o", "kanana2", "llama4", "minimax-m2"],
        expressions: &[GPT4O],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &["tekken"],
        expressions: &[TEKKEN],
        whole_words: true,
        add_bos: true,
    },
    Row {
        names: &["falcon"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &["deepseek-coder"],
        expressions: &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u{4e00}-\u{9fa5}\u{0800}-\u{4e00}\u{ac00}-\u{d7ff}]+",
            r"\p{N}",
        ],
        whole_words: false,
        add_bos: false,
    },
    Row {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        expressions: &[
            r"\p{N}{1,3}",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            DEEPSEEK_V3,
        ],
        whole_words: false,
        add_bos: false,
    },
];

/// The compiled expressions of a row.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    expressions: Vec<Regex>,
    /// See [`Row::whole_words`].
    pub(super) whole_words: bool,
    /// See [`Row::add_bos`].
    pub(super) add_bos: bool,
}

impl PreTokenizer {
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let row = ROWS.iter().find(|row| row.names.contains(&name));
        let row = row.ok_or_else(|| TokenizerError::UnknownPreTokenizer {
            found: shorten(name),
            known: names().collect(),
        })?;
        let compiled = row.expressions.iter().map(|text| Regex::new(text));
        let expressions = compiled.collect::<Result<_, _>>();
        Ok(Self {
            expressions: expressions.map_err(|error| TokenizerError::Library {
                what: "compiling the pre-tokeniser's expressions",
                source: Box::new(error),
            })?,
            whole_words: row.whole_words,
            add_bos: row.add_bos,
        })
    }

    /// The words of `text`, none of them empty; joined they are `text` again.
    ///
    /// The `Split` of the library behind the merges would do the same, but where an expression gives up (on a million
    /// blanks in a row), it takes the rest of the text for one word and tells nobody.
    pub(super) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, TokenizerError> {
        let mut words = vec![text];
        for expression in &self.expressions {
            let mut parts = Vec::with_capacity(words.len());
            for word in words {
                isolate(expression, word, &mut parts)?;
            }
            words = parts;
        }
        Ok(words)
    }
}

/// Adds what the expression matches, and what lies between, to `parts`.
fn isolate<'t>(
    expression: &Regex,
    text: &'t str,
    parts: &mut Vec<&'t str>,
) -> Result<(), TokenizerError> {
    let mut end = 0;
    let between = |start, end| text.get(start..end).filter(|part| !part.is_empty());
    for found in expression.find_iter(text) {
        let found = found.map_err(|error| TokenizerError::Split(Box::new(error)))?;
        parts.extend(between(end, found.start()));
        parts.extend(between(found.start(), found.end()));
        end = found.end();
    }
    parts.extend(between(end, text.len()));
    Ok(())
}

/// All names of the table.
fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().flat_map(|row| row.names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let split = PreTokenizer::named(name).unwrap().split(text).unwrap();
        assert_eq!(split.concat(), text);
        split
    }

    #[test]
    fn every_row_compiles_and_no_name_stands_twice() {
        let mut seen = std::collections::HashSet::new();
        for name in names() {
            assert!(seen.insert(name), "{name} stands in the table twice");
            words(name, "It's 1234 o'clock,\n\n  isn't it?\t\r\n ");
        }
    }

    #[test]
    fn digits_are_split_as_each_model_was_trained() {
        assert_eq!(words("smollm", "in 2024"), ["in", " ", "2", "0", "2", "4"]);
        assert_eq!(words("gpt-2", "in 2024"), ["in", " 2024"]);
        assert_eq!(words("llama-bpe", "in 2024"), ["in", " ", "202", "4"]);
        assert_eq!(words("qwen2", "in 2024"), ["in", " ", "2", "0", "2", "4"]);
    }

    #[test]
    fn blanks_leave_the_last_to_the_word_behind() {
        assert_eq!(
            words("gpt-2", "a   b\n\nc"),
            ["a", "  ", " b", "\n", "\n", "c"]
        );
        assert_eq!(
            words("llama-bpe", "a   b\n\nc"),
            ["a", "  ", " b", "\n\n", "c"]
        );
    }

    #[test]
    fn contractions_in_capitals_are_words_where_the_model_says_so() {
        assert_eq!(words("gpt-2", "I'M"), ["I", "'", "M"]);
        assert_eq!(words("llama-bpe", "I'M"), ["I", "'M"]);
    }

    #[test]
    fn a_text_that_an_expression_gives_up_on_is_an_error() {
        let text = format!("a{}b", " ".repeat(1_500_000));
        let split = PreTokenizer::named("gpt-2")
            .unwrap()
            .split(&text)
            .map(|words| words.len());
        assert!(matches!(split, Err(TokenizerError::Split(_))), "{split:?}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = PreTokenizer::named("klingon").unwrap_err().to_string();
        assert!(error.contains("klingon") && error.contains("smollm") && error.contains("qwen2"));
    }
}
