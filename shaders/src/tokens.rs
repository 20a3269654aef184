//! Splits WGSL text into tokens and linker directives.
//!
//! The linker needs far less than a parser: identifiers apart from everything else, brackets, and where each token stood.
//! `>` is always a token of its own, so that closing template lists never need the template-discovery rules of the WGSL
//! specification.

use std::borrow::Cow;

use crate::error::{LinkError, Location};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An identifier or a keyword.
    Identifier,
    /// A numeric literal with its suffix.
    Number,
    /// An operator, a bracket or a separator.
    Punctuation,
}

/// What stood between a token and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Nothing.
    None,
    /// White space or a comment, on one line.
    Space,
    /// At least one line break, or the beginning of the file.
    Line,
}

/// One token of a module.
#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) text: Cow<'a, str>,
    /// Line in the file, from 1.
    pub(crate) line: u32,
    pub(crate) gap: Gap,
    /// Spaces and tabs that begin the token's line.
    pub(crate) indent: &'a str,
    /// An `//#unroll` directive stands before this token.
    pub(crate) unroll: bool,
    /// The token belongs to an `enable`, `requires` or `diagnostic` statement, which the linker hoists.
    pub(crate) hoisted: bool,
    /// The token is not a reference to a declaration (a member, an attribute, a built-in value), so it keeps its text.
    pub(crate) fixed: bool,
}

impl Token<'_> {
    /// Whether the token's text is `text`.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Whether the token is an identifier or keyword.
    pub(crate) fn is_identifier(&self) -> bool {
        self.kind == TokenKind::Identifier
    }
}

/// A `//#…` comment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directive<'a> {
    /// The text after `//#`, without white space at the end.
    pub(crate) text: &'a str,
    /// Line in the file, from 1.
    pub(crate) line: u32,
    /// Index of the first token after the directive.
    pub(crate) next_token: usize,
}

/// The tokens and directives of one module.
pub(crate) struct TokenizedText<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) directives: Vec<Directive<'a>>,
}

/// Operators of several characters, longest first.
const OPERATORS: &[&str] = &[
    "<<=", "->", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "==", "!=", "<=",
    "<<", "&&", "||",
];

const PUNCTUATION: &str = "{}()[]<>;:,.@=+-*/%&|^!~";

/// Whether `c` may begin an identifier.
fn begins_identifier(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

/// Whether `c` may stand inside an identifier.
fn continues_identifier(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Whether `text` is a WGSL identifier (keywords are not told apart).
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(begins_identifier)
        && text.chars().all(continues_identifier)
        && text != "_"
        && !text.starts_with("__")
}

/// Whether `text` is written like a constant: `UPPER_CASE`, digits allowed.
pub(crate) fn is_upper_case(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The line breaks of WGSL that end a line comment.
fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Splits `text` into tokens; `module` names the file in errors.
pub(crate) fn tokenize<'a>(module: &str, text: &'a str) -> Result<TokenizedText<'a>, LinkError> {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        indent: "",
    };
    reader.begin_line();
    let mut tokens = Vec::new();
    let mut directives = Vec::new();
    let mut gap = Gap::Line;
    loop {
        let rest = reader.rest;
        let Some(first) = rest.chars().next() else {
            break;
        };
        let line = reader.line;
        if first.is_whitespace() || matches!(first, '\u{200e}' | '\u{200f}') {
            reader.advance(first.len_utf8());
            gap = gap.widen(line != reader.line);
            continue;
        }
        if rest.starts_with("//") {
            let length = rest.find(is_line_break).unwrap_or(rest.len());
            let comment = reader.advance(length);
            if let Some(directive) = comment.strip_prefix("//#") {
                directives.push(Directive {
                    text: directive.trim_end(),
                    line,
                    next_token: tokens.len(),
                });
            }
            gap = gap.widen(false);
            continue;
        }
        if rest.starts_with("/*") {
            let length =
                block_comment_length(rest).ok_or_else(|| LinkError::UnterminatedComment {
                    at: Location::new(module, line),
                })?;
            reader.advance(length);
            gap = gap.widen(line != reader.line);
            continue;
        }
        let (kind, length) = if begins_identifier(first) {
            let length = rest
                .find(|c| !continues_identifier(c))
                .unwrap_or(rest.len());
            (TokenKind::Identifier, length)
        } else if begins_number(rest) {
            (TokenKind::Number, number_length(rest))
        } else if let Some(operator) = OPERATORS.iter().find(|o| rest.starts_with(**o)) {
            (TokenKind::Punctuation, operator.len())
        } else if PUNCTUATION.contains(first) {
            (TokenKind::Punctuation, first.len_utf8())
        } else {
            return Err(LinkError::UnexpectedCharacter {
                at: Location::new(module, line),
                character: first,
            });
        };
        let text = reader.advance(length);
        tokens.push(Token {
            kind,
            text: Cow::Borrowed(text),
            line,
            gap,
            indent: reader.indent,
            unroll: false,
            hoisted: false,
            fixed: false,
        });
        gap = Gap::None;
    }
    Ok(TokenizedText { tokens, directives })
}

impl Gap {
    /// The gap after a further stretch of white space or comment.
    fn widen(self, line_break: bool) -> Self {
        if line_break || self == Gap::Line {
            Gap::Line
        } else {
            Gap::Space
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    indent: &'a str,
}

impl<'a> Reader<'a> {
    /// Consumes `length` bytes, which must end on a character boundary, counting lines.
    fn advance(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        match taken.rfind('\n') {
            None => self.rest = rest,
            Some(last) => {
                let breaks = taken.bytes().filter(|byte| *byte == b'\n').count();
                self.line = self
                    .line
                    .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
                // The new line may begin inside what was taken (a block comment), so look from there.
                self.rest = &self.rest[last + 1..];
                self.begin_line();
                self.rest = rest;
            }
        }
        taken
    }

    /// Notes the white space that begins the line at `rest`.
    fn begin_line(&mut self) {
        let length = self
            .rest
            .find(|c| c != ' ' && c != '\t')
            .unwrap_or(self.rest.len());
        self.indent = &self.rest[..length];
    }
}

/// Length in bytes of the block comment that begins `text`; block comments nest. `None` if it does not end.
fn block_comment_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut index = 0;
    while index < bytes.len() {
        let rest = &bytes[index..];
        if rest.starts_with(b"/*") {
            depth += 1;
            index += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            index += 2;
            if depth == 0 {
                return Some(index);
            }
        } else {
            index += 1;
        }
    }
    None
}

fn begins_number(text: &str) -> bool {
    let digits = text.strip_prefix('.').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
}

/// Length in bytes of the numeric literal that begins `text`. Lenient: the shader compiler judges the literal.
fn number_length(text: &str) -> usize {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let bytes = text.as_bytes();
    let mut length = 0;
    while let Some(&byte) = bytes.get(length) {
        let exponent_sign = matches!(byte, b'+' | b'-')
            && length > 0
            && match bytes[length - 1] {
                b'e' | b'E' => !hexadecimal,
                b'p' | b'P' => hexadecimal,
                _ => false,
            }
            && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
        if byte.is_ascii_alphanumeric() || byte == b'.' || exponent_sign {
            length += 1;
        } else {
            break;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        tokenize("test", text)
            .expect("tokenizes")
            .tokens
            .into_iter()
            .map(|token| token.text.into_owned())
            .collect()
    }

    #[test]
    fn operators_and_numbers() {
        assert_eq!(
            texts("a+=1.5e-3f-0x1Fu;b.x<=.5h>>=1u"),
            [
                "a", "+=", "1.5e-3f", "-", "0x1Fu", ";", "b", ".", "x", "<=", ".5h", ">", ">", "=",
                "1u"
            ]
        );
        assert_eq!(texts("0xe-1"), ["0xe", "-", "1"]);
        assert_eq!(texts("0x1p-3f"), ["0x1p-3f"]);
        assert_eq!(
            texts("array<vec4<u32>>"),
            ["array", "<", "vec4", "<", "u32", ">", ">"]
        );
    }

    #[test]
    fn comments_leave_no_tokens() {
        assert_eq!(texts("a /* b /* c */ d */ e // f\n/**/g"), ["a", "e", "g"]);
        assert_eq!(texts("a // b\rc"), ["a", "c"]);
    }

    #[test]
    fn lines_indents_and_gaps() {
        let text = "a\n  b c/**/d\n\t/* x\n y */ e";
        let tokens = tokenize("test", text).expect("tokenizes").tokens;
        let places: Vec<_> = tokens
            .iter()
            .map(|token| (&*token.text, token.line, token.gap, token.indent))
            .collect();
        assert_eq!(
            places,
            [
                ("a", 1, Gap::Line, ""),
                ("b", 2, Gap::Line, "  "),
                ("c", 2, Gap::Space, "  "),
                ("d", 2, Gap::Space, "  "),
                ("e", 4, Gap::Line, " "),
            ]
        );
    }

    #[test]
    fn directives_are_line_comments_only() {
        let text = "//#import a/b \n/* //#import c */ // #import d\nx //#unroll\r\nfor";
        let result = tokenize("test", text).expect("tokenizes");
        let directives: Vec<_> = result
            .directives
            .iter()
            .map(|d| (d.text, d.line, d.next_token))
            .collect();
        assert_eq!(directives, [("import a/b", 1, 0), ("unroll", 3, 1)]);
    }

    #[test]
    fn errors_carry_the_line() {
        assert_eq!(
            tokenize("m", "a\n/* /* */").err(),
            Some(LinkError::UnterminatedComment {
                at: Location::new("m", 2)
            })
        );
        assert_eq!(
            tokenize("m", "a\n\nb $").err(),
            Some(LinkError::UnexpectedCharacter {
                at: Location::new("m", 3),
                character: '$'
            })
        );
    }
}
