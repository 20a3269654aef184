//! Writes out tokens, and the loops marked `//#unroll` as many times as they run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::constant::{Constants, Integer, IntegerType, evaluate, named_type};
use crate::error::{LinkError, Location};
use crate::scan::{DeclarationKind, ScannedModule};
use crate::tokens::{Gap, Token, TokenKind};

/// How many unrolled loops may be nested.
const MAX_NESTING: usize = 16;

/// The most bytes of a linked text with unrolled loops: of a few lines many, or of many long ones.
const MAX_BYTES: usize = 8 << 20;

/// The most that unrolling may look at, in tokens: loops may run often and write nothing. Kernels take three million at most.
const MAX_WORK: usize = 1 << 26;

/// The linked text as it grows.
pub(crate) struct Output {
    text: String,
    /// For each line begun, where it came from.
    origins: Vec<Option<(usize, u32)>>,
    /// Turns of unrolled loops so far, which may have no lines.
    turns: usize,
    /// Tokens that were looked at in unrolled loops so far.
    work: Cell<usize>,
    max_lines: usize,
}

impl Output {
    pub(crate) fn new(max_lines: usize) -> Self {
        Self {
            text: String::new(),
            origins: Vec::new(),
            turns: 0,
            work: Cell::new(0),
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
    /// How many unrolled loops are around the current token.
    nesting: usize,
    /// Names that have values at the current token: counters of the unrolled loops around it, and what `let` names in them.
    values: Vec<(String, Integer)>,
    /// Whether the expression of these tokens is an integer with a value; its names say so, whatever the turn of a loop.
    named: BTreeMap<(usize, usize), bool>,
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
            nesting: 0,
            values: Vec::new(),
            named: BTreeMap::new(),
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
        // Where the blocks around the token end, and how many names had values before each.
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        let mut index = range.start;
        while index < range.end {
            let token = &self.module.tokens[index];
            if token.hoisted {
                self.fresh_line = true;
                index += 1;
            } else if token.unroll {
                index = self.unroll(index)?;
            } else if self.nesting == 0 {
                self.put(token)?;
                index += 1;
            } else {
                if token.is("{") {
                    blocks.push((self.module.partners[index], self.values.len()));
                } else if token.is("}")
                    && let Some((_, outer)) = blocks.pop()
                {
                    self.values.truncate(outer);
                }
                let end = blocks.last().map_or(range.end, |&(end, _)| end);
                // Each name with a value is compared with the token.
                self.work(1 + self.values.len(), token.line)?;
                index = self.emit_folded(index, end)?;
            }
        }
        Ok(())
    }

    /// Writes what begins at token `index` inside an unrolled loop, with integer expressions as their values: compilers of
    /// WGSL make an object of every literal and operator, and some take time that grows with the square of their number.
    /// `end` is where the block around it ends. Returns the index after it.
    fn emit_folded(&mut self, index: usize, end: usize) -> Result<usize, LinkError> {
        let module = self.module;
        let token = &module.tokens[index];
        if let Some(next) = self.fold_let(index, end)? {
            return Ok(next);
        }
        self.put(token)?;
        if !(token.is("(") || token.is("[") || token.is(",")) {
            return Ok(index + 1);
        }
        let first = index + 1;
        let close = self.expression_end(first, end);
        // A single token is written as its value anyway.
        if close > first + 1
            && let Some(value) = self.value_of(first, close)?
        {
            let literal = Token {
                kind: TokenKind::Number,
                text: value.literal().into(),
                ..module.tokens[first].clone()
            };
            self.put(&literal)?;
            return Ok(close);
        }
        Ok(first)
    }

    /// The index after the statement `let NAME = EXPRESSION;` at token `index`, if it is one of an integer with a value. NAME
    /// has that value then, until its block ends.
    fn fold_let(&mut self, index: usize, end: usize) -> Result<Option<usize>, LinkError> {
        let tokens = &self.module.tokens;
        let Some([keyword, name, equals, ..]) = tokens.get(index..end) else {
            return Ok(None);
        };
        if !keyword.is("let") || !equals.is("=") {
            return Ok(None);
        }
        let first = index + 3;
        let close = self.expression_end(first, end);
        if !tokens.get(close).is_some_and(|token| token.is(";")) {
            return Ok(None);
        }
        // A block inside may give the name another meaning.
        self.work(end - close, keyword.line)?;
        if declared_names(&tokens[close..end]).any(|other| other.is(&name.text)) {
            return Ok(None);
        }
        let Some(mut value) = self.value_of(first, close)? else {
            return Ok(None);
        };
        if value.integer_type == IntegerType::Abstract {
            match value.converted(IntegerType::I32) {
                Ok(converted) => value = converted,
                Err(_) => return Ok(None),
            }
        }
        self.values.push((name.text.to_string(), value));
        self.fresh_line = true;
        Ok(Some(close + 1))
    }

    /// The index of what ends the expression that begins at `first`: a separator or the bracket that closes around it.
    fn expression_end(&self, first: usize, end: usize) -> usize {
        let mut index = first;
        while index < end {
            match &*self.module.tokens[index].text {
                "(" | "[" | "{" => index = self.module.partners[index],
                ")" | "]" | "}" | "," | ";" => return index,
                _ => {}
            }
            index += 1;
        }
        end
    }

    /// The integer that these tokens are, if they are one.
    fn value_of(&mut self, first: usize, end: usize) -> Result<Option<Integer>, LinkError> {
        let Some(tokens) = self.module.tokens.get(first..end) else {
            return Ok(None);
        };
        let Some(token) = tokens.first() else {
            return Ok(None);
        };
        let named = match self.named.get(&(first, end)) {
            Some(named) => *named,
            None => {
                // Each name is looked for in the function so far.
                let names = tokens.iter().filter(|token| token.is_identifier()).count();
                self.work(tokens.len() + names.saturating_mul(first), token.line)?;
                let named = tokens.iter().all(|token| self.may_fold(token, first))
                    && evaluate(tokens, self.constants, &self.values).is_ok();
                self.named.insert((first, end), named);
                named
            }
        };
        if !named {
            return Ok(None);
        }
        self.work(tokens.len(), token.line)?;
        Ok(evaluate(tokens, self.constants, &self.values).ok())
    }

    /// Whether a token of an expression at `index` may be part of an integer with a value.
    fn may_fold(&self, token: &Token<'_>, index: usize) -> bool {
        match token.kind {
            TokenKind::Number => true,
            TokenKind::Punctuation => {
                matches!(&*token.text, "+" | "-" | "*" | "/" | "%" | "(" | ")")
            }
            TokenKind::Identifier => {
                !token.fixed
                    && (self.values.iter().any(|(name, _)| token.is(name))
                        || !self.is_declared_locally(&token.text, index))
            }
        }
    }

    fn put(&mut self, token: &Token<'_>) -> Result<(), LinkError> {
        if self.nesting > 0 && self.output.text.len() > MAX_BYTES {
            return Err(LinkError::TooManyBytes {
                at: self.at(token.line),
                limit: MAX_BYTES,
            });
        }
        if self.fresh_line || token.gap == Gap::Line {
            self.check_lines(self.output.origins.len(), token.line)?;
            self.output
                .line(token.indent, Some((self.index, token.line)));
            self.fresh_line = false;
        } else if token.gap == Gap::Space {
            self.output.push(" ");
        }
        let value = self
            .values
            .iter()
            .find(|(name, _)| token.is_identifier() && !token.fixed && token.is(name));
        match value {
            Some((_, value)) => self.output.push(&value.literal()),
            None => self.output.push(&token.text),
        }
        self.last_line = token.line;
        Ok(())
    }

    /// Counts tokens that unrolling looks at for what begins at `line`.
    fn work(&self, tokens: usize, line: u32) -> Result<(), LinkError> {
        let work = self.output.work.get().saturating_add(tokens);
        self.output.work.set(work);
        match work > MAX_WORK {
            true => Err(LinkError::TooMuchUnrolling { at: self.at(line) }),
            false => Ok(()),
        }
    }

    fn check_lines(&self, lines: usize, line: u32) -> Result<(), LinkError> {
        let limit = self.output.max_lines;
        match lines >= limit {
            true => Err(LinkError::TooManyLines {
                at: self.at(line),
                limit,
            }),
            false => Ok(()),
        }
    }

    /// Writes the copies of the loop whose `for` is token `start`; returns the index after the loop.
    fn unroll(&mut self, start: usize) -> Result<usize, LinkError> {
        let module = self.module;
        let keyword = &module.tokens[start];
        if self.nesting >= MAX_NESTING {
            return Err(LinkError::UnrollTooDeep {
                at: self.at(keyword.line),
                limit: MAX_NESTING,
            });
        }
        // The names of the head are looked for in the function so far, and the body is read through.
        self.work(start, keyword.line)?;
        let head = self.read_head(start)?;
        let end = module.partners[head.body];
        self.work(end - start, keyword.line)?;
        self.check_body(head.counter, head.body + 1..end)?;
        let opening = Token {
            gap: Gap::Line,
            indent: keyword.indent,
            ..module.tokens[head.body].clone()
        };
        // Without declarations of its own, a turn needs no block.
        let body = head.body + 1..end;
        let block = self.declares(body.clone());
        let mut value = head.first.value;
        self.nesting += 1;
        while value < head.bound.value || (head.inclusive && value == head.bound.value) {
            self.check_lines(self.output.turns, keyword.line)?;
            self.output.turns += 1;
            let outer = self.values.len();
            self.values.push((
                head.counter.to_owned(),
                Integer {
                    value,
                    ..head.first
                },
            ));
            if block {
                self.put(&opening)?;
                self.emit(body.clone())?;
                self.put(&module.tokens[end])?;
            } else {
                self.fresh_line = true;
                self.emit(body.clone())?;
            }
            self.values.truncate(outer);
            value = value.saturating_add(head.step);
        }
        self.nesting -= 1;
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

    /// Whether the block of these tokens declares names, other than in blocks inside it.
    fn declares(&self, body: Range<usize>) -> bool {
        let mut index = body.start;
        while index < body.end {
            match &*self.module.tokens[index].text {
                "{" | "(" => index = self.module.partners[index],
                "let" | "var" | "const" => return true,
                _ => {}
            }
            index += 1;
        }
        false
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
            let has_value = self.values.iter().any(|(name, _)| token.is(name));
            if !has_value && self.is_declared_locally(&token.text, start) {
                return Err(error(format!(
                    "`{}` is declared inside the function",
                    token.text
                )));
            }
        }
        evaluate(expression, self.constants, &self.values).map_err(error)
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
