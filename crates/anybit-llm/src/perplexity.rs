//! How well a model foretells a text.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::session::Session;

/// The perplexity of a text, so far or whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Tokens that were foretold.
    pub tokens: usize,
    /// Tokens that will be.
    pub total: usize,
    /// The mean of −ln of their probabilities, in nats.
    pub mean: f64,
    /// The sum of squared differences from the mean.
    squares: f64,
}

impl Perplexity {
    /// e to the mean.
    pub fn value(&self) -> f64 {
        self.mean.exp()
    }

    /// The standard error of [`value`](Self::value), from that of the mean: how far another text of this kind and length would
    /// be from it.
    pub fn error(&self) -> f64 {
        if self.tokens < 2 {
            return 0.0;
        }
        let tokens = self.tokens as f64;
        self.value() * (self.squares / (tokens - 1.0) / tokens).sqrt()
    }

    /// Takes one more token in (Welford's method).
    fn add(&mut self, value: f64) {
        self.tokens += 1;
        let before = value - self.mean;
        self.mean += before / self.tokens as f64;
        self.squares += before * (value - self.mean);
    }
}

/// The perplexity of a text, cut into contexts of so many tokens from its start, the last one shorter. Each is judged from nothing: `first`, if there is one (a token that begins
/// texts), or else its own first token is given, and every further token foretold from those before it in its context.
///
/// `each` is called after every context and may break off.
///
/// # Errors
///
/// [`Error::TooFewTokens`] for texts or contexts of less than two tokens; [`Error::Context`] for contexts that the session has
/// no room for; those of [`Session::cross_entropies`].
pub fn perplexity(
    session: &mut Session,
    tokens: &[u32],
    context: usize,
    first: Option<u32>,
    each: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity> {
    let given = usize::from(first.is_some());
    for (what, actual) in [
        ("the context", context),
        ("the text whose perplexity is taken", tokens.len() + given),
    ] {
        if actual < 2 {
            return Err(Error::TooFewTokens {
                what,
                least: 2,
                actual,
            });
        }
    }
    if context > session.capacity() {
        return Err(Error::Context {
            needed: context,
            limit: session.capacity(),
        });
    }
    let windows = tokens.chunks(context - given);
    let mut perplexity = Perplexity {
        total: windows.clone().map(|window| window.len() + given - 1).sum(),
        ..Perplexity::default()
    };
    for window in windows {
        let text: Vec<u32> = first.into_iter().chain(window.iter().copied()).collect();
        // A last context of one token foretells nothing.
        if text.len() < 2 {
            continue;
        }
        for value in session.cross_entropies(&text)? {
            perplexity.add(f64::from(value));
        }
        if each(&perplexity).is_break() {
            break;
        }
    }
    Ok(perplexity)
}
