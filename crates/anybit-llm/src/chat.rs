//! Conversations into prompts, by the template that a model was trained on.
//!
//! Templates are written in Jinja; GGUF files carry the model's own. They come from strangers as the rest of the file
//! does: what a template can take of time and memory is bounded.
//!
//! ```
//! use anybit_llm::chat::{ChatTemplate, Message};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let template = ChatTemplate::new(
//!     "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}\
//!      {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
//!     Some("<s>"),
//!     Some("</s>"),
//! )?;
//! let prompt = template.render(&[Message::new("user", "Hello!")], true)?;
//! assert_eq!(prompt, "<|user|>\nHello!</s>\n<|assistant|>\n");
//! # Ok(())
//! # }
//! ```

mod json;

use std::error::Error as _;
use std::fmt;

use anybit_import::ImportError;
use anybit_import::gguf::Metadata;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use crate::tokenizer::Tokenizer;

const TEMPLATE: &str = "tokenizer.chat_template";

/// The template's name in the engine, which its messages mention.
const NAME: &str = "chat template";

/// What a rendering may use up: about one for each step, and one for every 64 bytes that are made. A long conversation
/// takes some thousands.
const FUEL: u64 = 5_000_000;

/// Why there is no chat template, or no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The file has no template.
    #[error(
        "the file has no {TEMPLATE}: its model was perhaps not trained on conversations; give a template, or a plain text"
    )]
    Missing,
    /// The template in the file is no string.
    #[error("the file's chat template cannot be read")]
    Metadata(#[from] ImportError),
    /// The template is no Jinja, or uses what is not supported.
    #[error("the chat template cannot be parsed: {0}")]
    Syntax(#[source] Error),
    /// The template itself refuses the messages, for instance because their roles do not alternate.
    #[error("the chat template refuses the messages: {message}")]
    Refused {
        /// What the template says: the beginning, without control characters.
        message: String,
    },
    /// The template takes too long or makes too much.
    #[error("the chat template was stopped: it takes far more steps or memory than a prompt needs")]
    Runaway,
    /// The template failed on the messages.
    #[error("the chat template failed: {0}")]
    Render(#[source] Error),
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }

    fn value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", &self.content)])
    }
}

/// A template that makes prompts of conversations.
///
/// It is rendered as Hugging Face's `apply_chat_template` does: with `messages`, `add_generation_prompt`, `bos_token`
/// and `eos_token`, without tools and documents, with `raise_exception` and `strftime_now` (of the time in UTC), and
/// with the methods that Python's strings, lists and dictionaries have.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// A template from its source; `bos` and `eos` are the pieces that begin and end a sequence, where the model has
    /// them.
    ///
    /// # Errors
    /// [`ChatError::Syntax`].
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ChatError> {
        let mut environment = environment().map_err(ChatError::Syntax)?;
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(ChatError::Syntax)?;
        Ok(Self {
            environment,
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
        })
    }

    /// The template of a GGUF file whose vocabulary `tokenizer` was made of.
    ///
    /// # Errors
    /// [`ChatError::Missing`], [`ChatError::Metadata`] and [`ChatError::Syntax`].
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let source: Option<&str> = metadata.optional(TEMPLATE)?;
        let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id));
        Self::new(
            source.ok_or(ChatError::Missing)?,
            piece(tokenizer.bos()),
            piece(tokenizer.eos()),
        )
    }

    /// The prompt of a conversation; with `add_generation_prompt` it ends where the assistant's next answer begins.
    ///
    /// It holds the names of control pieces and often the one that begins a sequence, so encode it with
    /// [`Specials::Parse`](crate::tokenizer::Specials::Parse). What stands in the messages is not escaped.
    ///
    /// # Errors
    /// [`ChatError::Refused`], [`ChatError::Runaway`] and [`ChatError::Render`].
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(sort_error)?;
        let mut variables: Vec<(&str, Value)> = vec![
            ("messages", messages.iter().map(Message::value).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        // A piece that the model has not is not defined, and templates ask for that.
        let pieces = [("bos_token", &self.bos), ("eos_token", &self.eos)];
        for (name, piece) in pieces {
            variables.extend(
                piece
                    .as_ref()
                    .map(|piece| (name, Value::from(piece.as_str()))),
            );
        }
        let variables = Value::from_pairs(variables);
        template.render(variables).map_err(sort_error)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChatTemplate")
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// Jinja as Hugging Face sets it up.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::filter);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// Characters of a refusal that are shown.
const LONGEST_REFUSAL: usize = 400;

/// What a template says when it refuses the messages.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    let kind = ErrorKind::InvalidOperation;
    Err(Error::new(kind, "the template refuses the messages").with_source(Refusal(message)))
}

fn strftime_now(format: String) -> Result<String, Error> {
    format_time(&format, Timestamp::now())
}

fn format_time(format: &str, time: Timestamp) -> Result<String, Error> {
    let time = &time.to_zoned_datetime(TimeZone::UTC);
    jiff::fmt::strtime::format(format, time).map_err(|error| {
        let kind = ErrorKind::InvalidOperation;
        Error::new(kind, "strftime_now cannot write the time so").with_source(error)
    })
}

fn sort_error(error: Error) -> ChatError {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(Refusal(message)) = found.downcast_ref() {
            // The file's own words: a terminal must not act on them, nor be filled.
            let shown = message.chars().take(LONGEST_REFUSAL);
            let message = shown
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            return ChatError::Refused { message };
        }
        cause = found.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => ChatError::Runaway,
        _ => ChatError::Render(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> Result<String, ChatError> {
        let messages = [
            Message::new("user", "Hi <there>"),
            Message::new("assistant", "é\n"),
        ];
        ChatTemplate::new(source, Some("<s>"), None)?.render(&messages, false)
    }

    #[test]
    fn blocks_take_their_line_breaks_and_indentation_with_them() {
        let source = "{% for m in messages %}\n    {% if loop.first %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}";
        assert_eq!(rendered(source).unwrap(), "user\n");
    }

    #[test]
    fn nothing_is_escaped() {
        let text = rendered("{{ messages[0].content }}").unwrap();
        assert_eq!(text, "Hi <there>");
        assert_eq!(
            rendered("{{ messages | tojson }}").unwrap(),
            r#"[{"role": "user", "content": "Hi <there>"}, {"role": "assistant", "content": "é\n"}]"#
        );
    }

    #[test]
    fn pieces_that_the_model_has_not_are_undefined() {
        let text = rendered(
            "{{ bos_token }}{{ eos_token }}{% if eos_token is defined %}defined{% endif %}",
        );
        assert_eq!(text.unwrap(), "<s>");
        assert_eq!(rendered("{{ 'none' if tools is none }}").unwrap(), "none");
    }

    #[test]
    fn methods_of_python_work() {
        let source = "{{ ' a b '.strip().split(' ')[1] }}{{ 'x-y'.replace('-', '+').upper() }}\
                      {% if 'abc'.startswith('ab') %}!{% endif %}";
        assert_eq!(rendered(source).unwrap(), "bX+Y!");
    }

    #[test]
    fn a_refusal_carries_its_message() {
        let error = rendered("{{ raise_exception('roles must alternate') }}").unwrap_err();
        match error {
            ChatError::Refused { message } => assert_eq!(message, "roles must alternate"),
            other => panic!("{other:?}"),
        }
        let source = "{{ raise_exception('\u{1b}[2J' ~ 'x' * 5000) }}";
        match rendered(source).unwrap_err() {
            ChatError::Refused { message } => {
                assert!(message.starts_with(" [2Jxxx") && message.len() == LONGEST_REFUSAL);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_are_written_as_asked() {
        let time = Timestamp::UNIX_EPOCH;
        assert_eq!(format_time("%d %b %Y", time).unwrap(), "01 Jan 1970");
        assert!(format_time("%", time).is_err());
        assert_eq!(rendered("{{ strftime_now('%Y') }}").unwrap().len(), 4);
    }

    #[test]
    fn runaway_templates_are_stopped() {
        let steps = "{% for a in range(10000) %}{% for b in range(10000) %}{% set c = a %}{% endfor %}{% endfor %}";
        assert!(matches!(rendered(steps), Err(ChatError::Runaway)));
        let doubled =
            |first: &str, then: &str, last: &str| format!("{first}{}{last}", then.repeat(60));
        let text = doubled("{% set s = 'ab' %}", "{% set s = s ~ s %}", "{{ s }}");
        let list = doubled(
            "{% set s = [1] %}",
            "{% set s = [s, s] %}",
            "{{ s | tojson }}",
        );
        let indents = "{{ messages | tojson(indent=1000000000000) }}";
        for source in [&text, &list, indents, "{{ 'ab' * 1000000000000 }}"] {
            let error = rendered(source).unwrap_err();
            assert!(
                matches!(error, ChatError::Runaway | ChatError::Render(_)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_is_no_jinja_is_an_error() {
        assert!(matches!(rendered("{% for %}"), Err(ChatError::Syntax(_))));
        assert!(rendered("{{ messages | nosuchfilter }}").is_err());
    }
}
