//! Evaluates the constant expressions that bound unrolled loops, and those inside them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::header::{Header, HeaderValue};
use crate::tokens::{Token, TokenKind};

/// How deeply expressions and the constants they name may be nested.
const MAX_EXPRESSION_DEPTH: usize = 64;

/// The integer types of WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntegerType {
    /// A literal without suffix, which takes the type it is used with.
    Abstract,
    I32,
    U32,
}

/// An integer constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Integer {
    pub(crate) value: i64,
    pub(crate) integer_type: IntegerType,
}

impl Integer {
    /// The value, if it fits the type; else why not.
    pub(crate) fn new(value: i64, integer_type: IntegerType) -> Result<Self, String> {
        let fits = match integer_type {
            IntegerType::Abstract => true,
            IntegerType::I32 => i32::try_from(value).is_ok(),
            IntegerType::U32 => u32::try_from(value).is_ok(),
        };
        if fits {
            Ok(Self {
                value,
                integer_type,
            })
        } else {
            Err(format!("{value} does not fit its type"))
        }
    }

    /// The value as `integer_type`, as WGSL converts: abstract integers only.
    pub(crate) fn converted(self, integer_type: IntegerType) -> Result<Self, String> {
        if self.integer_type == integer_type {
            Ok(self)
        } else if self.integer_type == IntegerType::Abstract {
            Self::new(self.value, integer_type)
        } else {
            Err("it mixes u32 and i32".to_owned())
        }
    }

    /// The type that two operands have in common.
    fn common_type(self, other: Self) -> IntegerType {
        if self.integer_type == IntegerType::Abstract {
            other.integer_type
        } else {
            self.integer_type
        }
    }

    /// The value as a WGSL expression of its type.
    pub(crate) fn literal(self) -> String {
        let value = self.value;
        match self.integer_type {
            IntegerType::U32 => format!("{value}u"),
            IntegerType::I32 if value < 0 => format!("i32({value})"),
            IntegerType::I32 => format!("{value}i"),
            IntegerType::Abstract if value < 0 => format!("({value})"),
            IntegerType::Abstract => value.to_string(),
        }
    }
}

/// The constants that such expressions may name.
pub(crate) struct Constants<'a> {
    header: &'a Header,
    /// Tokens of the `const` declarations at module scope, by name.
    declarations: BTreeMap<&'a str, &'a [Token<'a>]>,
    /// Values found so far, lest constants that name others several times be evaluated without end.
    known: RefCell<BTreeMap<String, Integer>>,
}

impl<'a> Constants<'a> {
    /// `declarations` are the tokens of `const` declarations, from the keyword on.
    pub(crate) fn new(
        header: &'a Header,
        declarations: impl Iterator<Item = &'a [Token<'a>]>,
    ) -> Self {
        let declarations = declarations
            .filter_map(|tokens| Some((&*tokens.get(1)?.text, tokens)))
            .collect();
        Self {
            header,
            declarations,
            known: RefCell::default(),
        }
    }

    /// The value of the constant `name`.
    fn value(&self, name: &str, depth: usize) -> Result<Integer, String> {
        match self.header.value(name) {
            Some(HeaderValue::U32(value)) => {
                return Integer::new(i64::from(*value), IntegerType::U32);
            }
            Some(HeaderValue::I32(value)) => {
                return Integer::new(i64::from(*value), IntegerType::I32);
            }
            Some(_) => return Err(format!("`{name}` is no integer")),
            None => {}
        }
        if let Some(value) = self.known.borrow().get(name) {
            return Ok(*value);
        }
        let tokens = self
            .declarations
            .get(name)
            .ok_or_else(|| format!("`{name}` is no header constant or module-scope const"))?;
        // const NAME [: TYPE] = EXPRESSION ;
        let (integer_type, expression) = match tokens.get(2..) {
            Some([colon, type_name, equals, rest @ ..]) if colon.is(":") && equals.is("=") => {
                let integer_type = named_type(type_name)
                    .ok_or_else(|| format!("`{name}` is no u32, i32 or abstract integer"))?;
                (Some(integer_type), rest)
            }
            Some([equals, rest @ ..]) if equals.is("=") => (None, rest),
            _ => return Err(format!("`{name}` is no integer")),
        };
        let expression = match expression {
            [rest @ .., semicolon] if semicolon.is(";") => rest,
            other => other,
        };
        let value = Evaluator {
            constants: self,
            values: &[],
            tokens: expression,
            depth,
        }
        .evaluate()?;
        let value = match integer_type {
            Some(integer_type) => value.converted(integer_type)?,
            None => value,
        };
        self.known.borrow_mut().insert(name.to_owned(), value);
        Ok(value)
    }
}

/// The integer type that a token names.
pub(crate) fn named_type(token: &Token<'_>) -> Option<IntegerType> {
    match &*token.text {
        "u32" => Some(IntegerType::U32),
        "i32" => Some(IntegerType::I32),
        _ => None,
    }
}

/// Evaluates the expression `tokens`; `values` are names that have values besides the constants. The error says why it
/// has no value.
pub(crate) fn evaluate(
    tokens: &[Token<'_>],
    constants: &Constants<'_>,
    values: &[(String, Integer)],
) -> Result<Integer, String> {
    Evaluator {
        constants,
        values,
        tokens,
        depth: 0,
    }
    .evaluate()
}

/// Evaluates a constant expression by recursive descent.
struct Evaluator<'a> {
    constants: &'a Constants<'a>,
    values: &'a [(String, Integer)],
    /// What is left to read.
    tokens: &'a [Token<'a>],
    depth: usize,
}

impl<'a> Evaluator<'a> {
    fn evaluate(mut self) -> Result<Integer, String> {
        let value = self.sum()?;
        match self.tokens.first() {
            Some(token) => Err(format!("did not expect `{}`", token.text)),
            None => Ok(value),
        }
    }

    fn next(&mut self) -> Result<&'a Token<'a>, String> {
        let (first, rest) = self
            .tokens
            .split_first()
            .ok_or_else(|| "it ends too early".to_owned())?;
        self.tokens = rest;
        Ok(first)
    }

    /// Takes the next token if it is one of `operators`.
    fn take(&mut self, operators: &[&str]) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        operators.contains(&&*first.text).then(|| {
            self.tokens = rest;
            &*first.text
        })
    }

    fn sum(&mut self) -> Result<Integer, String> {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&["+", "-"]) {
            let right = self.product()?;
            left = apply(operator, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Integer, String> {
        let mut left = self.factor()?;
        while let Some(operator) = self.take(&["*", "/", "%"]) {
            let right = self.factor()?;
            left = apply(operator, left, right)?;
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Integer, String> {
        if self.depth >= MAX_EXPRESSION_DEPTH {
            return Err("it is nested too deeply, or a constant depends on itself".to_owned());
        }
        self.depth += 1;
        let token = self.next()?;
        let value = match (token.kind, &*token.text) {
            (TokenKind::Number, text) => integer_literal(text)?,
            (TokenKind::Punctuation, "-") => {
                let value = self.factor()?;
                if value.integer_type == IntegerType::U32 {
                    return Err("it negates a u32".to_owned());
                }
                let zero = Integer { value: 0, ..value };
                apply("-", zero, value)?
            }
            (TokenKind::Punctuation, "(") => self.parenthesised()?,
            (TokenKind::Identifier, "u32" | "i32")
                if self.tokens.first().is_some_and(|t| t.is("(")) =>
            {
                self.next()?;
                let value = self.parenthesised()?.value;
                let integer_type = named_type(token).unwrap_or(IntegerType::Abstract);
                Integer::new(value, integer_type)?
            }
            (TokenKind::Identifier, name) => {
                match self.values.iter().find(|(known, _)| known == name) {
                    Some((_, value)) => *value,
                    None => self.constants.value(name, self.depth)?,
                }
            }
            (TokenKind::Punctuation, text) => return Err(format!("did not expect `{text}`")),
        };
        self.depth -= 1;
        Ok(value)
    }

    /// The rest of `(…)` after the opening parenthesis.
    fn parenthesised(&mut self) -> Result<Integer, String> {
        let value = self.sum()?;
        match self.take(&[")"]) {
            Some(_) => Ok(value),
            None => Err("a parenthesis does not close".to_owned()),
        }
    }
}

fn apply(operator: &str, left: Integer, right: Integer) -> Result<Integer, String> {
    let integer_type = left.common_type(right);
    let left = left.converted(integer_type)?.value;
    let right = right.converted(integer_type)?.value;
    let value = match operator {
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        "/" => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    match value {
        Some(value) => Integer::new(value, integer_type),
        None if right == 0 => Err("it divides by zero".to_owned()),
        None => Err("it overflows".to_owned()),
    }
}

fn integer_literal(text: &str) -> Result<Integer, String> {
    let (digits, integer_type) = if let Some(digits) = text.strip_suffix('u') {
        (digits, IntegerType::U32)
    } else if let Some(digits) = text.strip_suffix('i') {
        (digits, IntegerType::I32)
    } else {
        (text, IntegerType::Abstract)
    };
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let value = match hexadecimal {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    match value {
        Ok(value) => Integer::new(value, integer_type),
        Err(_) => Err(format!("`{text}` is no integer literal")),
    }
}
