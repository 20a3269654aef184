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
    judge(
        session,
        tokens,
        context,
        first,
        each,
        &mut |session, text| {
            let values = session.cross_entropies(text)?;
            Ok(values.into_iter().map(f64::from).collect())
        },
    )
}

/// The same, from logits that are read back: `row` gets those of every token that is given, `first` too, context by context, soft
/// cap applied. A last context of one token, which foretells nothing, is left out.
///
/// # Errors
///
/// Those of [`perplexity`], and of [`Session::logits`].
pub fn perplexity_with_logits(
    session: &mut Session,
    tokens: &[u32],
    context: usize,
    first: Option<u32>,
    row: &mut dyn FnMut(&[f32]),
    each: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity> {
    let cap = session.model().config().logit_cap;
    judge(
        session,
        tokens,
        context,
        first,
        each,
        &mut |session, text| {
            session.truncate(0)?;
            let mut values = Vec::new();
            let mut following = text.iter().skip(1);
            let mut capped = Vec::new();
            session.logits(text, &mut |logits| {
                capped.clear();
                capped.extend(logits.iter().map(|&logit| match cap {
                    Some(cap) => cap * (logit / cap).tanh(),
                    None => logit,
                }));
                row(&capped);
                if let Some(&next) = following.next() {
                    values.push(cross_entropy(&capped, next));
                }
            })?;
            Ok(values)
        },
    )
}

/// −ln of a token's probability.
fn cross_entropy(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials = logits.iter().map(|&logit| f64::from(logit - largest).exp());
    // Tokens of the vocabulary alone have been worked on.
    let own = logits.get(token as usize).copied().unwrap_or(f32::NAN);
    exponentials.sum::<f64>().ln() - f64::from(own - largest)
}

/// Takes the cross entropies of the tokens of a context after its first.
type CrossEntropies<'a> = dyn FnMut(&mut Session, &[u32]) -> Result<Vec<f64>> + 'a;

/// The perplexity by what `values` finds of each context.
fn judge(
    session: &mut Session,
    tokens: &[u32],
    context: usize,
    first: Option<u32>,
    each: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
    values: &mut CrossEntropies<'_>,
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
        for value in values(session, &text)? {
            perplexity.add(value);
        }
        if each(&perplexity).is_break() {
            break;
        }
    }
    Ok(perplexity)
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn cross_entropies_of_logits() {
        let even = [3.0_f32; 8];
        assert!((cross_entropy(&even, 5) - 8_f64.ln()).abs() < 1e-12);
        let logits = [1000.0, 1000.0 + 2_f32.ln(), -1000.0];
        assert!((cross_entropy(&logits, 1) - 1.5_f64.ln()).abs() < 1e-4);
        assert!((cross_entropy(&logits, 2) - (2000.0 + 3_f64.ln())).abs() < 1e-4);
        assert!(cross_entropy(&logits, 3).is_nan());
    }
}
