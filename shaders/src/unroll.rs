//! Writes out tokens, and the loops marked `//#unroll` as many times as they run.

use std::ops::Range;

use crate::constant::{Constants, Integer, IntegerType, evaluate, named_type};
use crate::error::{LinkError, Location};
use crate::scan::{DeclarationKind, ScannedModule};
use crate::tokens::{Gap, Token, TokenKind};

/// How many unrolled loops may be nested.
const MAX_NESTING: usize = 16;

/// The linked text as it grows.
pub(crate) struct Output {
    text: String,
    /// For each line begun, where it came from.
    origins: Vec<Option<(usize, u32)>>,
    max_lines: usize,
}

impl Output {
    pub(crate) fn new(max_lines: usize) -> Self {
        Self {
            text: String::new(),
            origins: Vec::new(),
            max_lines,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Begins a line with `text`.
    pub(crate) fn line(&mut self, text: &str, origin: Option<(usize, u32)>) {
        if !self.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.origins.push(origin);
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn finish(mut self) -> (String, Vec<Option<(usize, u32)>>) {
        if !self.is_empty() {
            self.text.push('\n');
        }
        (self.text, self.origins)
    }
}

/// Writes the tokens of one module.
pub(crate) struct Emitter<'a> {
    name: &'a str,
    /// The module's index in the line map.
    index: usize,
    module: &'a ScannedModule<'a>,
    constants: &'a Constants<'a>,
    output: &'a mut Output,
    /// The counters of the unrolled loops around the current token.
    counters: Vec<(String, Integer)>,
    /// The next token begins a line, whatever stood before it in the file.
    fresh_line: bool,
    /// Line in the file of the last token, for blank lines between declarations.
    last_line: u32,
}

/// The head of a loop to unroll.
struct LoopHead<'a> {
    counter: &'a str,
    first: Integer,
    bound: Integer,
    /// `<=` rather than `<`.
    inclusive: bool,
    step: i64,
    /// Index of the `{` of the body.
    body: usize,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(
        name: &'a str,
        index: usize,
        module: &'a ScannedModule<'a>,
        constants: &'a Constants<'a>,
        output: &'a mut Output,
    ) -> Self {
        Self {
            name,
            index,
            module,
            constants,
            output,
            counters: Vec::new(),
            fresh_line: true,
            last_line: 0,
        }
    }

    pub(crate) fn emit_module(mut self) -> Result<(), LinkError> {
        let mut end = 0;
        for declaration in &self.module.declarations {
            // What stands between declarations (attributes, assertions) goes with the one that follows.
            let range = end..declaration.tokens.end;
            end = range.end;
            self.separate(range.start);
            self.emit(range)?;
        }
        self.emit(end..self.module.tokens.len())
    }

    fn at(&self, line: u32) -> Location {
        Location::new(self.name, line)
    }

    /// Keeps one of the blank lines before a declaration.
    fn separate(&mut self, index: usize) {
        let Some(token) = self.module.tokens.get(index) else {
            return;
        };
        if self.last_line > 0 && token.line > self.last_line.saturating_add(1) {
            self.output.line("", None);
        }
    }

    fn emit(&mut self, range: Range<usize>) -> Result<(), LinkError> {
        let mut index = range.start;
        while index < range.end {
            let token = &self.module.tokens[index];
            if token.hoisted {
                self.fresh_line = true;
                index += 1;
            } else if token.unroll {
                index = self.unroll(index)?;
            } else {
                self.put(token)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn put(&mut self, token: &Token<'_>) -> Result<(), LinkError> {
        if self.fresh_line || token.gap == Gap::Line {
            if self.output.origins.len() >= self.output.max_lines {
                return Err(LinkError::TooManyLines {
                    at: self.at(token.line),
                    limit: self.output.max_lines,
                });
            }
            self.output
                .line(token.indent, Some((self.index, token.line)));
            self.fresh_line = false;
        } else if token.gap == Gap::Space {
            self.output.push(" ");
        }
        let counter = self
            .counters
            .iter()
            .find(|(counter, _)| token.is_identifier() && !token.fixed && token.is(counter));
        match counter {
            Some((_, value)) => self.output.push(&value.literal()),
            None => self.output.push(&token.text),
        }
        self.last_line = token.line;
        Ok(())
    }

    /// Writes the copies of the loop whose `for` is token `start`; returns the index after the loop.
    fn unroll(&mut self, start: usize) -> Result<usize, LinkError> {
        let module = self.module;
        let keyword = &module.tokens[start];
        if self.counters.len() >= MAX_NESTING {
            return Err(LinkError::UnrollTooDeep {
                at: self.at(keyword.line),
                limit: MAX_NESTING,
            });
        }
        let head = self.read_head(start)?;
        let end = module.partners[head.body];
        self.check_body(head.counter, head.body + 1..end)?;
        let opening = Token {
            gap: Gap::Line,
            indent: keyword.indent,
            ..module.tokens[head.body].clone()
        };
        let mut value = head.first.value;
        while value < head.bound.value || (head.inclusive && value == head.bound.value) {
            self.counters.push((
                head.counter.to_owned(),
                Integer {
                    value,
                    ..head.first
                },
            ));
            self.put(&opening)?;
            self.emit(head.body + 1..end + 1)?;
            self.counters.pop();
            value = value.saturating_add(head.step);
        }
        self.fresh_line = true;
        Ok(end + 1)
    }

    /// Reads `for (var COUNTER [: TYPE] = A; COUNTER < B; COUNTER += S)`.
    fn read_head(&self, start: usize) -> Result<LoopHead<'a>, LinkError> {
        let module = self.module;
        let tokens = &module.tokens;
        let line = tokens[start].line;
        let form = |expected| LinkError::UnrollForm {
            at: self.at(line),
            expected,
        };
        let is = |index: usize, text: &str| tokens.get(index).is_some_and(|token| token.is(text));

        if !is(start + 1, "(") {
            return Err(form("`(`"));
        }
        let close = module.partners[start + 1];
        let body = close + 1;
        if !is(body, "{") {
            return Err(form("`{` after the loop's head"));
        }
        let mut clauses = tokens[start + 2..close].split(|token| token.is(";"));
        let (Some(initial), Some(condition), Some(update), None) = (
            clauses.next(),
            clauses.next(),
            clauses.next(),
            clauses.next(),
        ) else {
            return Err(form("two `;` between the parentheses"));
        };

        let (counter, counter_type, first) = match initial {
            [var, counter, colon, type_name, equals, rest @ ..]
                if var.is("var") && counter.is_identifier() && colon.is(":") && equals.is("=") =>
            {
                let counter_type =
                    named_type(type_name).ok_or_else(|| form("`u32` or `i32` after `:`"))?;
                (counter, Some(counter_type), rest)
            }
            [var, counter, equals, rest @ ..]
                if var.is("var") && counter.is_identifier() && equals.is("=") =>
            {
                (counter, None, rest)
            }
            _ => return Err(form("`var counter = A` first")),
        };
        let counter: &'a str = &counter.text;
        let mut first = self.evaluate(start, first)?;
        if let Some(counter_type) = counter_type {
            first = first
                .converted(counter_type)
                .map_err(|reason| self.bound_error(line, initial, reason))?;
        }

        if first.integer_type == IntegerType::Abstract {
            Integer::new(first.value, IntegerType::I32)
                .map_err(|reason| self.bound_error(line, initial, reason))?;
        }

        let (bound, inclusive) = match condition {
            [name, operator, rest @ ..] if name.is(counter) && operator.is("<") => (rest, false),
            [name, operator, rest @ ..] if name.is(counter) && operator.is("<=") => (rest, true),
            _ => return Err(form("`counter < B` or `counter <= B` second")),
        };
        let bound = self.evaluate_as(start, bound, first.integer_type)?;

        let step = match update {
            [name, operator] if name.is(counter) && operator.is("++") => 1,
            [name, operator, rest @ ..] if name.is(counter) && operator.is("+=") => {
                let step = self.evaluate_as(start, rest, first.integer_type)?.value;
                if step < 1 {
                    let reason = format!("the step must be at least 1, not {step}");
                    return Err(self.bound_error(line, rest, reason));
                }
                step
            }
            _ => return Err(form("`counter++` or `counter += S` third")),
        };
        Ok(LoopHead {
            counter,
            first,
            bound,
            inclusive,
            step,
            body,
        })
    }

    fn bound_error(&self, line: u32, expression: &[Token<'_>], reason: String) -> LinkError {
        let mut text = String::new();
        for (index, token) in expression.iter().enumerate() {
            if index > 0 && token.gap != Gap::None {
                text.push(' ');
            }
            text.push_str(&token.text);
        }
        LinkError::UnrollBound {
            at: self.at(line),
            expression: text,
            reason,
        }
    }

    /// Evaluates a bound of the loop whose `for` is token `start`.
    fn evaluate(&self, start: usize, expression: &'a [Token<'a>]) -> Result<Integer, LinkError> {
        let error = |reason| self.bound_error(self.module.tokens[start].line, expression, reason);
        for token in expression.iter().filter(|token| token.is_identifier()) {
            let is_counter = self.counters.iter().any(|(name, _)| token.is(name));
            if !is_counter && self.is_declared_locally(&token.text, start) {
                return Err(error(format!(
                    "`{}` is declared inside the function",
                    token.text
                )));
            }
        }
        evaluate(expression, self.constants, &self.counters).map_err(error)
    }

    /// Evaluates a bound of the loop whose `for` is token `start` and whose counter has this type.
    fn evaluate_as(
        &self,
        start: usize,
        expression: &'a [Token<'a>],
        integer_type: IntegerType,
    ) -> Result<Integer, LinkError> {
        let error = |reason| self.bound_error(self.module.tokens[start].line, expression, reason);
        let value = self.evaluate(start, expression)?;
        if integer_type != IntegerType::Abstract {
            return value.converted(integer_type).map_err(error);
        }
        // `var i = 0` is an i32, and the loop must be valid WGSL without the directive too.
        if value.integer_type == IntegerType::U32 {
            return Err(error(
                "the counter is an i32, this a u32: begin with `0u`, not `0`".to_owned(),
            ));
        }
        value.converted(IntegerType::I32).map_err(error)
    }

    /// Whether the function around token `index` declares `name` as a parameter or, before that token, as a variable.
    fn is_declared_locally(&self, name: &str, index: usize) -> bool {
        let tokens = &self.module.tokens;
        let Some(function) = self.module.declarations.iter().find(|declaration| {
            declaration.kind == DeclarationKind::Function && declaration.tokens.contains(&index)
        }) else {
            return false;
        };
        let parameters = function.name + 1;
        let parameters_end = match tokens.get(parameters) {
            Some(token) if token.is("(") => self.module.partners[parameters],
            _ => parameters,
        };
        let is_parameter = (parameters..parameters_end)
            .any(|i| tokens[i].is(name) && !tokens[i].fixed && tokens[i + 1].is(":"));
        is_parameter || declared_names(&tokens[parameters..index]).any(|token| token.is(name))
    }

    /// Refuses what would change its meaning when the loop around it is written out.
    fn check_body(&self, counter: &str, body: Range<usize>) -> Result<(), LinkError> {
        let module = self.module;
        let tokens = &module.tokens[body.clone()];
        if let Some(token) = declared_names(tokens).find(|token| token.is(counter)) {
            return Err(LinkError::CounterShadowed {
                at: self.at(token.line),
                counter: counter.to_owned(),
            });
        }
        for (index, token) in tokens.iter().enumerate() {
            if token.is(counter) && !token.fixed && is_assigned(tokens, index) {
                return Err(LinkError::CounterAssigned {
                    at: self.at(token.line),
                    counter: counter.to_owned(),
                });
            }
        }
        self.check_exits(body)
    }

    /// Refuses `break` and `continue` that belong to the loop with this body.
    fn check_exits(&self, body: Range<usize>) -> Result<(), LinkError> {
        let tokens = &self.module.tokens;
        // Where the innermost loop and the innermost switch inside the body end.
        let mut loop_end = body.start;
        let mut switch_end = body.start;
        for index in body.clone() {
            let token = &tokens[index];
            let belongs = match &*token.text {
                "for" | "while" | "loop" => {
                    loop_end = loop_end.max(self.block_end(index + 1, body.end));
                    false
                }
                "switch" => {
                    switch_end = switch_end.max(self.block_end(index + 1, body.end));
                    false
                }
                "break" => index >= loop_end && index >= switch_end,
                "continue" => index >= loop_end,
                _ => false,
            };
            if belongs {
                return Err(LinkError::UnrollExit {
                    at: self.at(token.line),
                    keyword: token.text.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Where the first `{…}` at or after `start` ends.
    fn block_end(&self, start: usize, end: usize) -> usize {
        (start..end)
            .find(|index| self.module.tokens[*index].is("{"))
            .map_or(start, |index| self.module.partners[index])
    }
}

/// The names that `let`, `var` and `const` declare among `tokens`.
fn declared_names<'a>(tokens: &'a [Token<'a>]) -> impl Iterator<Item = &'a Token<'a>> {
    tokens.iter().enumerate().filter_map(|(index, token)| {
        if !matches!(&*token.text, "let" | "var" | "const") {
            return None;
        }
        let mut name = index + 1;
        if tokens.get(name)?.is("<") {
            // var<function> name
            name += 1 + tokens[name..].iter().position(|token| token.is(">"))?;
        }
        tokens.get(name)
    })
}

/// Whether the variable at `index` is the target of an assignment, an increment or a decrement, or has its address
/// taken.
fn is_assigned(tokens: &[Token<'_>], index: usize) -> bool {
    const ASSIGNMENTS: &[&str] = &[
        "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", "++", "--",
    ];
    let after = |offset: usize, text: &str| {
        tokens
            .get(index + offset)
            .is_some_and(|token| token.is(text) && (offset == 1 || token.gap == Gap::None))
    };
    let shifted_right = after(1, ">") && after(2, ">") && after(3, "=");
    // `&` is binary after an operand.
    let address_taken = index > 0
        && tokens[index - 1].is("&")
        && !(index > 1
            && (tokens[index - 2].kind != TokenKind::Punctuation
                || tokens[index - 2].is(")")
                || tokens[index - 2].is("]"))
            && !tokens[index - 2].is("return"));
    shifted_right
        || address_taken
        || tokens
            .get(index + 1)
            .is_some_and(|token| ASSIGNMENTS.contains(&&*token.text))
}
