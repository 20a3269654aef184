//! Fuzzing: what one input of any bytes does with each parser, and a bounded run of damaged inputs.
//!
//! A [`Target`] takes bytes as a stranger's file and uses what it is read as, as a program would. It panics where a promise
//! does not hold: a round trip that changes something, an error whose message would garble a terminal, or a panic of the
//! library itself. `cargo xtask fuzz` runs them with damaged seeds ([`mutate`], [`runner`]); `tests/fuzz` gives the same
//! functions to libFuzzer.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;

mod choices;
mod gguf;
mod linker;
mod model;
pub mod mutate;
mod npy;
mod packing;
pub mod runner;
mod safetensors;
mod verdicts;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was read, and used.
    Accepted,
    /// It was refused with an error.
    Refused,
}

/// A parser and how to use it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and of its folders of inputs.
    pub name: &'static str,
    /// Reads an input and uses it. Panics where a promise does not hold.
    pub run: fn(&[u8]) -> Verdict,
    /// Inputs that are right.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Where an input has text, and how a file is made of other text and the rest.
    text: fn(&[u8]) -> Option<Range<usize>>,
    with_text: fn(&[u8], &[u8]) -> Vec<u8>,
    /// Bytes of the longest input: some grow so far, by which it shows what takes more than its share of time or memory.
    longest: usize,
    /// Words of the text's language.
    words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    gguf::TARGET,
    safetensors::TARGET,
    npy::TARGET,
    choices::TARGET,
    verdicts::TARGET,
    linker::TARGET,
    packing::TARGET,
];

impl Target {
    /// The target called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Where inputs are kept that found something, or reach what others do not.
    pub fn corpus(&self) -> PathBuf {
        folder().join("corpus").join(self.name)
    }

    /// Where a run leaves inputs that fail.
    pub fn artifacts(&self) -> PathBuf {
        folder().join("artifacts").join(self.name)
    }
}

/// Runs an input of the target called `name`, for another fuzzer.
///
/// # Panics
///
/// If there is no such target, or a promise does not hold.
pub fn run(name: &str, input: &[u8]) {
    let target = Target::named(name).unwrap_or_else(|| panic!("there is no target {name:?}"));
    (target.run)(input);
}

/// Bytes of the longest input of most targets, and of nearly all of the others.
const LONGEST: usize = 1 << 16;

/// The folder of the cargo-fuzz package. The program runs where it was built.
fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

/// An input without text.
fn no_text(_: &[u8]) -> Option<Range<usize>> {
    None
}

/// An input that is all text.
fn all_text(input: &[u8]) -> Option<Range<usize>> {
    Some(0..input.len())
}

/// Such an input with other text; there is no rest.
fn only_text(text: &[u8], _: &[u8]) -> Vec<u8> {
    text.to_vec()
}

/// The longest message an error may have. Lists of what would do may be long, texts of the file may not.
const LONGEST_MESSAGE: usize = 4096;

/// Checks the messages of an error that a file has caused, and of its sources: what the file holds must not reach a
/// terminal as it is, nor fill it.
///
/// # Panics
///
/// If a message has control characters or is too long.
fn check_error(error: &dyn Error) {
    let mut next = Some(error);
    while let Some(error) = next {
        check_message(&error.to_string());
        next = error.source();
    }
}

/// The same for a message.
fn check_message(message: &str) {
    assert!(!message.is_empty(), "an error without a message");
    assert!(
        message.len() <= LONGEST_MESSAGE,
        "a message of {} bytes: {}…",
        message.len(),
        message.chars().take(200).collect::<String>()
    );
    assert!(
        !message.chars().any(char::is_control),
        "control characters in {message:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_accepted() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for (index, seed) in seeds.iter().enumerate() {
                let verdict = (target.run)(seed);
                assert_eq!(verdict, Verdict::Accepted, "{} {index}", target.name);
            }
        }
    }

    #[test]
    fn text_is_found_and_put_back() {
        for target in TARGETS {
            for seed in (target.seeds)() {
                if let Some(range) = (target.text)(&seed) {
                    let same = (target.with_text)(&seed[range.clone()], &seed[range.end..]);
                    assert_eq!(same, seed, "{}", target.name);
                }
            }
        }
    }

    #[test]
    fn nothing_and_noise_are_refused() {
        for target in TARGETS.iter().filter(|target| target.name != "packing") {
            for noise in [&[][..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
                let verdict = (target.run)(noise);
                assert_eq!(verdict, Verdict::Refused, "{} {noise:?}", target.name);
            }
        }
    }

    #[test]
    fn messages_that_would_garble_a_terminal_are_found() {
        check_message("expected one thing, found another");
        for wrong in ["", "\u{1b}[31m", "a\nb", &"x".repeat(5000)] {
            let found = std::panic::catch_unwind(|| check_message(wrong));
            assert!(found.is_err(), "{wrong:?}");
        }
    }
}
