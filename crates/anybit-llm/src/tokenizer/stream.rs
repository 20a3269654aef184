//! Text of ids that come one by one.

use super::Tokenizer;

/// Turns ids into text as they come; see [`Tokenizer::stream`].
///
/// A character may be spread over several ids: its bytes are held back until it is whole, so what is handed out never
/// ends within a character. Control pieces give no text. All that is handed out, joined, is what [`Tokenizer::decode`]
/// makes of all ids.
#[derive(Clone, Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character.
    held: Vec<u8>,
    /// Whether a space that stands first is the one that encoding put there.
    drops_space: bool,
}

impl<'t> DecodeStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, drops_space: bool) -> Self {
        Self {
            tokenizer,
            held: Vec::new(),
            drops_space,
        }
    }

    /// The text that becomes whole with the next id, if any. Bytes that are no UTF-8 become U+FFFD, and so does an id
    /// outside the vocabulary, which [`Tokenizer::decode`] refuses.
    pub fn push(&mut self, id: u32) -> Option<String> {
        match self.tokenizer.token_bytes(id) {
            Some(bytes) => self.push_bytes(&bytes),
            None => self.held.extend("\u{fffd}".bytes()),
        }
        let text = self.take_whole();
        (!text.is_empty()).then_some(text)
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.held);
        (!text.is_empty()).then(|| text.into_owned())
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        let shown = match bytes {
            [b' ', rest @ ..] if self.drops_space => rest,
            all => all,
        };
        self.drops_space &= bytes.is_empty();
        self.held.extend_from_slice(shown);
    }

    /// Takes whole characters, leaving the beginning of one that more bytes may complete.
    fn take_whole(&mut self) -> String {
        let whole = self.held.len() - incomplete(&self.held);
        let bytes: Vec<u8> = self.held.drain(..whole).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// How many bytes at the end begin a character without completing it.
fn incomplete(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map(|chunk| chunk.invalid());
    match last {
        // An invalid sequence at the very end may be the beginning of a valid one: then UTF-8 has no fault but its end.
        Some(invalid)
            if std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) =>
        {
            invalid.len()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::incomplete;

    #[test]
    fn only_the_beginning_of_a_character_is_held_back() {
        assert_eq!(incomplete(b""), 0);
        assert_eq!(incomplete(b"abc"), 0);
        assert_eq!(incomplete("ab€".as_bytes()), 0);
        assert_eq!(incomplete(&"ab€".as_bytes()[..4]), 2);
        assert_eq!(incomplete(&"ab€".as_bytes()[..3]), 1);
        assert_eq!(incomplete(&"😀".as_bytes()[..3]), 3);
        assert_eq!(incomplete(b"\xff"), 0);
        assert_eq!(incomplete(b"\xe2a"), 0);
        assert_eq!(incomplete(b"\xff\xe2\x82"), 2);
        // A surrogate: no byte behind these makes a character.
        assert_eq!(incomplete(b"\xed\xa0"), 0);
    }
}
