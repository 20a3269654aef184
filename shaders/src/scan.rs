//! Finds what the linker needs to know of one module: its directives and what it declares.

use std::ops::Range;

use crate::error::{LinkError, Location};
use crate::tokens::{Directive, Token, TokenKind, is_identifier, tokenize};

/// A module, tokenised and understood as far as linking goes.
#[derive(Clone, Debug)]
pub(crate) struct ScannedModule<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) imports: Vec<Import<'a>>,
    pub(crate) needs: Vec<Need<'a>>,
    pub(crate) declarations: Vec<Declaration>,
    /// The `enable`, `requires` and `diagnostic` statements.
    pub(crate) hoisted: Vec<Range<usize>>,
    /// For each bracket token, the index of its partner; 0 for other tokens.
    pub(crate) partners: Vec<usize>,
}

/// An `//#import`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Import<'a> {
    pub(crate) target: ImportTarget<'a>,
    pub(crate) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportTarget<'a> {
    Module(&'a str),
    Slot { slot: &'a str, prefix: &'a str },
}

/// One name of an `//#needs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) name: &'a str,
    pub(crate) line: u32,
}

/// A declaration at module scope.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    /// Index of the token that is its name.
    pub(crate) name: usize,
    /// All its tokens from the keyword on.
    pub(crate) tokens: Range<usize>,
    pub(crate) kind: DeclarationKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeclarationKind {
    Function,
    Constant,
    Other,
}

/// Attributes whose arguments are names of their own, not references.
const NAME_ATTRIBUTES: &[&str] = &["builtin", "interpolate", "diagnostic"];

/// Reads the module `name`.
pub(crate) fn scan<'a>(name: &str, text: &'a str) -> Result<ScannedModule<'a>, LinkError> {
    let tokenized = tokenize(name, text)?;
    let mut tokens = tokenized.tokens;
    let partners = pair_brackets(name, &tokens)?;
    let mut imports = Vec::new();
    let mut needs = Vec::new();
    for directive in &tokenized.directives {
        read_directive(name, directive, &mut tokens, &mut imports, &mut needs)?;
    }
    let mut module = ScannedModule {
        tokens,
        imports,
        needs,
        declarations: Vec::new(),
        hoisted: Vec::new(),
        partners,
    };
    module.find_declarations();
    module.fix_attributes_and_members();
    Ok(module)
}

fn pair_brackets(name: &str, tokens: &[Token<'_>]) -> Result<Vec<usize>, LinkError> {
    let mut partners = vec![0; tokens.len()];
    let mut open: Vec<(usize, char)> = Vec::new();
    let unbalanced = |index: usize, bracket| LinkError::UnbalancedBracket {
        at: Location::new(name, tokens.get(index).map_or(0, |token| token.line)),
        bracket,
    };
    for (index, token) in tokens.iter().enumerate() {
        let bracket = match (token.kind, &*token.text) {
            (TokenKind::Punctuation, "(") => '(',
            (TokenKind::Punctuation, "[") => '[',
            (TokenKind::Punctuation, "{") => '{',
            (TokenKind::Punctuation, ")") => ')',
            (TokenKind::Punctuation, "]") => ']',
            (TokenKind::Punctuation, "}") => '}',
            _ => continue,
        };
        match bracket {
            '(' | '[' | '{' => open.push((index, bracket)),
            _ => match open.pop() {
                Some((partner, '(')) if bracket == ')' => pair(&mut partners, partner, index),
                Some((partner, '[')) if bracket == ']' => pair(&mut partners, partner, index),
                Some((partner, '{')) if bracket == '}' => pair(&mut partners, partner, index),
                _ => return Err(unbalanced(index, bracket)),
            },
        }
    }
    match open.pop() {
        Some((index, bracket)) => Err(unbalanced(index, bracket)),
        None => Ok(partners),
    }
}

fn pair(partners: &mut [usize], opening: usize, closing: usize) {
    partners[opening] = closing;
    partners[closing] = opening;
}

fn read_directive<'a>(
    module: &str,
    directive: &Directive<'a>,
    tokens: &mut [Token<'a>],
    imports: &mut Vec<Import<'a>>,
    needs: &mut Vec<Need<'a>>,
) -> Result<(), LinkError> {
    let at = || Location::new(module, directive.line);
    let malformed = |expected| LinkError::MalformedDirective {
        at: at(),
        directive: directive.text.to_owned(),
        expected,
    };
    let (keyword, arguments) = directive
        .text
        .split_once(char::is_whitespace)
        .unwrap_or((directive.text, ""));
    let arguments: Vec<&'a str> = arguments.split_whitespace().collect();
    match keyword {
        "unroll" => {
            if !arguments.is_empty() {
                return Err(malformed("nothing after `//#unroll`"));
            }
            match tokens.get_mut(directive.next_token) {
                Some(token) if token.is("for") => token.unroll = true,
                _ => return Err(LinkError::UnrollWithoutLoop { at: at() }),
            }
        }
        "import" | "needs" if directive.next_token > 0 => {
            return Err(LinkError::DirectiveAfterCode {
                at: at(),
                directive: directive.text.to_owned(),
            });
        }
        "import" => {
            let target = read_import(&arguments).map_err(malformed)?;
            imports.push(Import {
                target,
                line: directive.line,
            });
        }
        "needs" => {
            if arguments.is_empty() || !arguments.iter().all(|name| is_identifier(name)) {
                return Err(malformed("identifiers, apart by spaces"));
            }
            needs.extend(arguments.into_iter().map(|name| Need {
                name,
                line: directive.line,
            }));
        }
        _ => {
            return Err(LinkError::UnknownDirective {
                at: at(),
                directive: directive.text.to_owned(),
            });
        }
    }
    Ok(())
}

fn read_import<'a>(arguments: &[&'a str]) -> Result<ImportTarget<'a>, &'static str> {
    let (target, prefix) = match *arguments {
        [target] => (target, ""),
        [target, "as", prefix] => (target, prefix),
        _ => return Err("`//#import folder/module` or `//#import slot:name as prefix_`"),
    };
    match target.strip_prefix("slot:") {
        Some(slot) if !is_identifier(slot) => Err("an identifier as the slot's name"),
        Some(slot) if prefix.is_empty() || is_prefix(prefix) => {
            Ok(ImportTarget::Slot { slot, prefix })
        }
        Some(_) => Err("a prefix in lower case that ends with `_`, such as `w_`"),
        None if prefix.is_empty() => Ok(ImportTarget::Module(target)),
        None => Err("`as` after slots only: a module imported by name has no prefix"),
    }
}

fn is_prefix(text: &str) -> bool {
    is_identifier(text)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.ends_with('_')
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

impl ScannedModule<'_> {
    fn find_declarations(&mut self) {
        let mut index = 0;
        while index < self.tokens.len() {
            index = self.read_item(index);
        }
    }

    /// Reads the module-scope item that begins at token `start`; returns where the next one begins.
    fn read_item(&mut self, start: usize) -> usize {
        let end = self.item_end(start);
        let mut keyword = start;
        // Attributes come first: `@name` or `@name(…)`.
        while keyword + 1 < end && self.tokens[keyword].is("@") {
            keyword += 2;
            if keyword < end && self.tokens[keyword].is("(") {
                keyword = self.partners[keyword] + 1;
            }
        }
        if keyword >= end {
            return end;
        }
        let (name, kind) = match &*self.tokens[keyword].text {
            "enable" | "requires" | "diagnostic" => {
                for token in &mut self.tokens[start..end] {
                    token.hoisted = true;
                }
                self.hoisted.push(start..end);
                return end;
            }
            "fn" => (keyword + 1, DeclarationKind::Function),
            "const" => (keyword + 1, DeclarationKind::Constant),
            "struct" => {
                self.fix_members(keyword, end);
                (keyword + 1, DeclarationKind::Other)
            }
            "alias" | "override" => (keyword + 1, DeclarationKind::Other),
            "var" => (self.template_end(keyword + 1, end), DeclarationKind::Other),
            _ => return end,
        };
        if name < end && self.tokens[name].is_identifier() {
            self.declarations.push(Declaration {
                name,
                tokens: keyword..end,
                kind,
            });
        }
        end
    }

    /// Where the module-scope item that begins at `start` ends: after its `;`, or after the `}` of its body.
    fn item_end(&self, start: usize) -> usize {
        let mut index = start;
        while index < self.tokens.len() {
            match &*self.tokens[index].text {
                ";" => return index + 1,
                "{" => return self.partners[index] + 1,
                "(" | "[" => index = self.partners[index] + 1,
                _ => index += 1,
            }
        }
        index
    }

    /// Skips the `<…>` that may stand at `start` after `var`, marking what is in it as no reference.
    fn template_end(&mut self, start: usize, end: usize) -> usize {
        if start >= end || !self.tokens[start].is("<") {
            return start;
        }
        let mut index = start + 1;
        while index < end && !self.tokens[index].is(">") {
            self.tokens[index].fixed = true;
            index += 1;
        }
        index + 1
    }

    /// Marks the member names of the struct whose keyword is token `keyword`.
    fn fix_members(&mut self, keyword: usize, end: usize) {
        // Nothing else inside a struct's braces is followed by a colon.
        for index in keyword + 2..end.saturating_sub(1) {
            if self.tokens[index].is_identifier() && self.tokens[index + 1].is(":") {
                self.tokens[index].fixed = true;
            }
        }
    }

    /// Marks members after `.`, names of attributes, and arguments that only an attribute gives a meaning.
    fn fix_attributes_and_members(&mut self) {
        for index in 1..self.tokens.len() {
            if self.tokens[index - 1].is(".") {
                self.tokens[index].fixed = true;
            } else if self.tokens[index - 1].is("@") {
                self.tokens[index].fixed = true;
                let is_opening = self
                    .tokens
                    .get(index + 1)
                    .is_some_and(|token| token.is("("));
                if is_opening && NAME_ATTRIBUTES.contains(&&*self.tokens[index].text) {
                    let closing = self.partners[index + 1];
                    for token in &mut self.tokens[index + 2..closing] {
                        token.fixed = true;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> Vec<String> {
        let module = scan("test", text).expect("scans");
        module
            .declarations
            .iter()
            .map(|declaration| module.tokens[declaration.name].text.to_string())
            .collect()
    }

    #[test]
    fn every_kind_of_declaration() {
        let text = "
            enable f16;
            @group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
            var<private> state: u32 = 0u;
            const A: u32 = 1u;
            const_assert A == 1u;
            override B: u32;
            @id(3) override C = 2;
            alias word = u32;
            struct S { @size(16) x: u32, y: vec2<f32> };
            @compute @workgroup_size(A, 1) fn main(@builtin(position) p: u32) -> u32 { const INNER = 1; }
            ;
        ";
        assert_eq!(
            declared(text),
            ["codes", "state", "A", "B", "C", "word", "S", "main"]
        );
    }

    #[test]
    fn names_that_are_no_references() {
        let text = "struct S { a: b } fn f(@builtin(c) d: e) -> g { let v = h.i; } var<j> k: l;";
        let module = scan("test", text).expect("scans");
        let fixed: Vec<_> = module
            .tokens
            .iter()
            .filter(|token| token.fixed)
            .map(|token| &*token.text)
            .collect();
        assert_eq!(fixed, ["a", "builtin", "c", "i", "j"]);
    }

    #[test]
    fn directives() {
        let text = "// docs\n//#import core/index\n//#import slot:format as w_\n//#import slot:reduce\n//#needs codes SIDE\nenable f16;";
        let module = scan("test", text).expect("scans");
        let targets: Vec<_> = module.imports.iter().map(|i| (i.target, i.line)).collect();
        let slot = |slot, prefix| ImportTarget::Slot { slot, prefix };
        assert_eq!(
            targets,
            [
                (ImportTarget::Module("core/index"), 2),
                (slot("format", "w_"), 3),
                (slot("reduce", ""), 4)
            ]
        );
        let needs: Vec<_> = module.needs.iter().map(|n| (n.name, n.line)).collect();
        assert_eq!(needs, [("codes", 5), ("SIDE", 5)]);
        assert_eq!(module.hoisted, std::slice::from_ref(&(0..3)));
    }

    #[test]
    fn malformed_directives() {
        for text in [
            "//#import",
            "//#import a b",
            "//#import core/x as p_",
            "//#import slot:x as W_",
            "//#import slot:x as w",
            "//#import slot:x as",
            "//#import slot: as w_",
            "//#needs",
            "//#needs a,b",
            "//#unroll 4\nfor",
        ] {
            let error = scan("m", text).expect_err("is malformed");
            assert!(
                matches!(&error, LinkError::MalformedDirective { at, .. } if at.line == 1),
                "{text}: {error}"
            );
        }
        for text in ["//#", "//#if", "//# import a", "//#imports a"] {
            assert!(matches!(
                scan("m", text),
                Err(LinkError::UnknownDirective { .. })
            ));
        }
        for text in ["fn f() {}\n//#import a", "enable f16;\n//#needs a"] {
            assert!(matches!(
                scan("m", text),
                Err(LinkError::DirectiveAfterCode { at, .. }) if at == Location::new("m", 2)
            ));
        }
        for text in ["//#unroll", "//#unroll\nwhile", "//#unroll\n{ for"] {
            assert_eq!(
                scan("m", text.replace('{', "x").as_str()).err(),
                Some(LinkError::UnrollWithoutLoop {
                    at: Location::new("m", 1)
                })
            );
        }
    }

    #[test]
    fn unbalanced_brackets() {
        for (text, line, bracket) in [
            ("\n{ (\n}", 3, '}'),
            ("(\n[", 2, '['),
            ("\n)", 2, ')'),
            ("{\n(]", 2, ']'),
        ] {
            assert_eq!(
                scan("m", text).err(),
                Some(LinkError::UnbalancedBracket {
                    at: Location::new("m", line),
                    bracket
                })
            );
        }
    }
}
