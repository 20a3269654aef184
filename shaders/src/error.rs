//! What can go wrong when linking.

use std::fmt;

use thiserror::Error;

/// The module name under which lines of the generated [`Header`](crate::Header) are located.
pub const HEADER_MODULE: &str = "<header>";

/// A line of a module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Name of the module, such as `format/minifloat`, or [`HEADER_MODULE`].
    pub module: String,
    /// Line, counted from 1.
    pub line: u32,
}

impl Location {
    /// The line `line` (from 1) of `module`.
    pub fn new(module: impl Into<String>, line: u32) -> Self {
        Self {
            module: module.into(),
            line,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extension = if self.module == HEADER_MODULE {
            ""
        } else {
            ".wgsl"
        };
        write!(f, "{}{extension}:{}", self.module, self.line)
    }
}

/// Why modules could not be linked. Every variant that concerns a file says where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The root module does not exist.
    #[error("no module is named `{name}`: the root of a link must be one of `MODULES`")]
    UnknownRoot {
        /// The name asked for.
        name: String,
    },
    /// An `//#import` names a module that does not exist.
    #[error("{at}: imports `{name}`, but no module has that name")]
    UnknownImport {
        /// The directive.
        at: Location,
        /// The name asked for.
        name: String,
    },
    /// The request fills a slot with a module that does not exist.
    #[error("{at}: slot `{slot}` is filled with `{name}`, but no module has that name")]
    UnknownSlotModule {
        /// The directive that imports the slot.
        at: Location,
        /// The slot.
        slot: String,
        /// The module named by the request.
        name: String,
    },
    /// Modules import each other in a circle.
    #[error("{at}: imports in a circle: {}", path.join(" -> "))]
    ImportCycle {
        /// The directive that closes the circle.
        at: Location,
        /// The modules of the circle, the first one repeated at the end.
        path: Vec<String>,
    },
    /// A file imports a slot that the request does not fill.
    #[error("{at}: slot `{slot}` is not filled: name a module for it in `LinkRequest::slots`")]
    UnfilledSlot {
        /// The directive.
        at: Location,
        /// The slot.
        slot: String,
    },
    /// The request fills a slot that no linked file imports.
    #[error("slot `{slot}` is filled, but no linked module imports it: remove it from the request")]
    UnusedSlotArgument {
        /// The slot.
        slot: String,
    },
    /// The request fills a slot twice.
    #[error("slot `{slot}` is filled twice: name one module for it")]
    DuplicateSlotArgument {
        /// The slot.
        slot: String,
    },
    /// A module that fills a slot imports a slot itself.
    #[error("{at}: a module that fills a slot cannot import slot `{slot}`")]
    SlotInSlot {
        /// The directive.
        at: Location,
        /// The slot.
        slot: String,
    },
    /// An `//#import` or `//#needs` stands after code.
    #[error("{at}: `//#{directive}` stands after code: move it to the top of the file")]
    DirectiveAfterCode {
        /// The directive.
        at: Location,
        /// The directive's text after `//#`.
        directive: String,
    },
    /// A `//#` comment is none of the linker's directives.
    #[error(
        "{at}: `//#{directive}` is no directive: expected `//#import`, `//#needs` or `//#unroll`"
    )]
    UnknownDirective {
        /// The comment.
        at: Location,
        /// Its text after `//#`.
        directive: String,
    },
    /// A directive is not written as it should be.
    #[error("{at}: `//#{directive}` is malformed: expected {expected}")]
    MalformedDirective {
        /// The directive.
        at: Location,
        /// Its text after `//#`.
        directive: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// Two declarations of the linked text have one name.
    #[error("{second}: `{name}` is already declared at {first}")]
    DuplicateSymbol {
        /// The name, prefix included.
        name: String,
        /// The declaration that comes first in the linked text.
        first: Location,
        /// The other one.
        second: Location,
    },
    /// A name listed by `//#needs` is declared nowhere.
    #[error("{at}: needs `{name}`, which no linked module and no header line declares")]
    UnmetNeed {
        /// The directive.
        at: Location,
        /// The name, prefix included.
        name: String,
    },
    /// A name listed by `//#needs` is declared by the same file.
    #[error("{at}: needs `{name}`, which this file declares itself: remove one of the two")]
    NeedDeclared {
        /// The directive.
        at: Location,
        /// The name as listed.
        name: String,
    },
    /// A block comment does not end.
    #[error("{at}: the block comment that begins here does not end")]
    UnterminatedComment {
        /// Its beginning.
        at: Location,
    },
    /// A character has no place in WGSL.
    #[error("{at}: unexpected character {character:?}")]
    UnexpectedCharacter {
        /// The line.
        at: Location,
        /// The character.
        character: char,
    },
    /// Brackets do not pair up.
    #[error("{at}: `{bracket}` has no partner in this file")]
    UnbalancedBracket {
        /// The bracket.
        at: Location,
        /// Which one.
        bracket: char,
    },
    /// An `//#unroll` is not followed by a `for`.
    #[error("{at}: `//#unroll` must be followed by a `for` loop")]
    UnrollWithoutLoop {
        /// The directive.
        at: Location,
    },
    /// The head of an unrolled loop has a form the linker does not unroll.
    #[error(
        "{at}: cannot unroll this loop: expected {expected}; \
         the form is `for (var i = A; i < B; i += S) {{ … }}`, with `<=` and `i++` too"
    )]
    UnrollForm {
        /// The loop.
        at: Location,
        /// What should have come next.
        expected: &'static str,
    },
    /// A bound of an unrolled loop is no integer constant.
    #[error("{at}: cannot evaluate `{expression}`, a bound of an unrolled loop: {reason}")]
    UnrollBound {
        /// The loop.
        at: Location,
        /// The bound.
        expression: String,
        /// Why it has no value.
        reason: String,
    },
    /// The body of an unrolled loop declares the counter's name again.
    #[error("{at}: `{counter}` shadows the counter of an unrolled loop: rename one of them")]
    CounterShadowed {
        /// The declaration.
        at: Location,
        /// The counter.
        counter: String,
    },
    /// The body of an unrolled loop assigns to the counter.
    #[error("{at}: the counter `{counter}` of an unrolled loop is a constant and cannot change")]
    CounterAssigned {
        /// The assignment.
        at: Location,
        /// The counter.
        counter: String,
    },
    /// An unrolled loop has a `break` or `continue` of its own.
    #[error("{at}: `{keyword}` would leave an unrolled loop, which is no loop any more")]
    UnrollExit {
        /// The statement.
        at: Location,
        /// `break` or `continue`.
        keyword: String,
    },
    /// Unrolled loops are nested too deeply.
    #[error("{at}: more than {limit} unrolled loops are nested")]
    UnrollTooDeep {
        /// The loop.
        at: Location,
        /// The deepest nesting allowed.
        limit: usize,
    },
    /// The linked text has too many lines.
    #[error("{at}: the linked text passes {limit} lines here: unroll less")]
    TooManyLines {
        /// What was being emitted.
        at: Location,
        /// The most lines allowed.
        limit: usize,
    },
    /// The linked text has too many bytes.
    #[error("{at}: the linked text passes {limit} bytes here: unroll less")]
    TooManyBytes {
        /// What was being emitted.
        at: Location,
        /// The most bytes allowed.
        limit: usize,
    },
    /// Loops to unroll are so long and many that writing them out would take too long.
    #[error("{at}: unrolling up to here looks at too many tokens: unroll less")]
    TooMuchUnrolling {
        /// What was being unrolled.
        at: Location,
    },
    /// Modules import each other in a chain that is too long.
    #[error("{at}: imports `{name}` at the end of a chain of {limit} modules")]
    ImportTooDeep {
        /// The directive.
        at: Location,
        /// The module that it names.
        name: String,
        /// The longest chain allowed.
        limit: usize,
    },
    /// A header line has a name that is no identifier.
    #[error("header line `{name}`: the name is no WGSL identifier")]
    HeaderName {
        /// The name.
        name: String,
    },
    /// Two header lines have one name.
    #[error("header line `{name}` is given twice")]
    HeaderDuplicate {
        /// The name.
        name: String,
    },
    /// A header line has a value that WGSL cannot write.
    #[error("header line `{name}` = `{value}`: expected {expected}")]
    HeaderValue {
        /// The name.
        name: String,
        /// The value.
        value: String,
        /// What a value must be.
        expected: &'static str,
    },
}
