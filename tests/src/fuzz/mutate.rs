//! Damages right inputs: bytes anywhere, and in text its numbers, strings and brackets.

use super::{LONGEST, Target};
use crate::random::Random;

/// One of so many inputs grows as long as its target allows, where that is more than the others get.
const RARELY: usize = 256;

/// Numbers at the edges of their types, as text.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "64",
    "255",
    "256",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "-2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "-1e999",
    "1e-999",
    "0.5",
    "-0.0",
    "00",
    "1e5",
    "0x7fffffff",
    "99999999999999999999999999999999999999",
    "3u",
    "3i",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "[[1]]",
    "\"18446744073709551615\"",
    "",
];

/// Integers at the edges of their types.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    3,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 40,
    1 << 61,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// A source of damaged inputs. The same seed gives the same ones.
#[derive(Debug)]
pub struct Mutator<'a> {
    target: &'a Target,
    inputs: &'a [Vec<u8>],
    random: Random,
}

impl<'a> Mutator<'a> {
    /// Damages `inputs`, of which there is at least one.
    pub fn new(target: &'a Target, inputs: &'a [Vec<u8>], seed: u64) -> Self {
        Self {
            target,
            inputs,
            random: Random::new(seed),
        }
    }

    /// The next damaged input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick().clone();
        let mut count = 1;
        while count < 16 && self.random.one_in(2) {
            count += 1;
        }
        for _ in 0..count {
            let text = (self.target.text)(&input);
            match text {
                Some(range) if self.random.below(4) > 0 => {
                    let mut text = input[range.clone()].to_vec();
                    self.damage_text(&mut text);
                    input = (self.target.with_text)(&text, &input[range.end..]);
                }
                _ => self.damage_bytes(&mut input),
            }
            input.truncate(LONGEST);
        }
        if self.target.longest > LONGEST && self.random.one_in(RARELY) {
            let text = (self.target.text)(&input);
            match text {
                Some(range) => {
                    let mut text = input[range.clone()].to_vec();
                    self.grow(&mut text);
                    input = (self.target.with_text)(&text, &input[range.end..]);
                }
                None => self.grow(&mut input),
            }
            input.truncate(self.target.longest);
        }
        input
    }

    /// Repeats a stretch, or some elements of a list, until there is no more room.
    fn grow(&mut self, input: &mut Vec<u8>) {
        let commas = positions(input, |&byte| byte == b',');
        let range = match commas[..] {
            [_, _, ..] if self.random.below(4) > 0 => {
                let first = self.random.below(commas.len() - 1);
                let last = (first + 1 + self.random.below(4)).min(commas.len() - 1);
                commas[first]..commas[last]
            }
            _ => self.stretch(input),
        };
        if let Some(count) =
            (self.target.longest.saturating_sub(input.len())).checked_div(range.len())
        {
            let copies = input[range.clone()].repeat(count);
            input.splice(range.end..range.end, copies);
        }
    }

    fn pick(&mut self) -> &'a Vec<u8> {
        &self.inputs[self.random.below(self.inputs.len())]
    }

    /// A place in or after `input`.
    fn place(&mut self, input: &[u8]) -> usize {
        // Headers are at the start, and they decide most.
        let end = input.len() + 1;
        match self.random.one_in(3) {
            true => self.random.below(end.min(128)),
            false => self.random.below(end),
        }
    }

    /// A stretch of `input`, short ones more often.
    fn stretch(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.place(input);
        let longest = match self.random.below(4) {
            0 => input.len(),
            1 => 64,
            _ => 8,
        };
        let length = self.random.below(longest + 1);
        start..(start + length).min(input.len())
    }

    fn damage_bytes(&mut self, input: &mut Vec<u8>) {
        let place = self.place(input);
        match self.random.below(10) {
            0 => {
                if let Some(byte) = input.get_mut(place) {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            1 => {
                let random = self.random.bits() as u8;
                if let Some(byte) = input.get_mut(place) {
                    *byte = self.random.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff, random]);
                }
            }
            2 | 3 => {
                // Lengths, counts and offsets are words of two, four or eight bytes, aligned in most files.
                let size = self.random.pick(&[2, 4, 8]);
                let place = match self.random.one_in(2) {
                    true => place / size * size,
                    false => place,
                };
                let edge = self.random.pick(EDGES);
                let near = self.random.below(9) as u64;
                let word = match self.random.below(4) {
                    0 => (input.len() as u64 + near).wrapping_sub(4),
                    1 => edge.wrapping_add(near).wrapping_sub(4),
                    _ => edge,
                };
                let end = (place + size).min(input.len());
                if let Some(bytes) = input.get_mut(place..end) {
                    let word = word.to_le_bytes();
                    bytes.copy_from_slice(&word[..bytes.len()]);
                }
            }
            4 => input.truncate(place),
            5 => {
                let range = self.stretch(input);
                input.drain(range);
            }
            6 => {
                let byte = self.random.bits() as u8;
                let count = 1 + self.random.below(16);
                let bytes: Vec<u8> = match self.random.one_in(2) {
                    true => vec![byte; count],
                    false => (0..count).map(|_| self.random.bits() as u8).collect(),
                };
                input.splice(place..place, bytes);
            }
            7 => {
                let range = self.stretch(input);
                let copy = input[range].to_vec();
                input.splice(place..place, copy);
            }
            8 => {
                let range = self.stretch(input);
                let copy = input[range].to_vec();
                let end = (place + copy.len()).min(input.len());
                if let Some(bytes) = input.get_mut(place..end) {
                    bytes.copy_from_slice(&copy[..bytes.len()]);
                }
            }
            _ => {
                let other = self.pick();
                let start = self.place(other);
                input.truncate(place);
                input.extend_from_slice(&other[start.min(other.len())..]);
            }
        }
    }

    fn damage_text(&mut self, text: &mut Vec<u8>) {
        match self.random.below(8) {
            0 | 1 => {
                let number = self.random.pick(NUMBERS).as_bytes();
                self.replace(text, u8::is_ascii_digit, number);
            }
            2 => {
                let word = self.word();
                self.replace(text, is_of_word, &word);
            }
            3 => {
                let word = self.word();
                let place = self.place(text);
                text.splice(place..place, word);
            }
            4 => self.nest(text),
            5 => {
                // A line, or an element of a list, twice.
                let separator = self.random.pick(b"\n,;");
                let starts = positions(text, |&byte| byte == separator);
                if let [first, .., last] = starts[..] {
                    let from = self.random.pick(&starts);
                    let to = starts.iter().copied().find(|&next| next > from);
                    let copy = text[from..to.unwrap_or(last.max(from))].to_vec();
                    let place = self.random.pick(&[first, from, last]);
                    text.splice(place..place, copy);
                }
            }
            6 => {
                // A bracket or quote goes, or becomes another.
                let marks = positions(text, |byte| b"{}[]()<>\"':,;=".contains(byte));
                if !marks.is_empty() {
                    let place = self.random.pick(&marks);
                    let other = self.random.pick(b"{}[]()\"':,;= ");
                    match self.random.one_in(2) {
                        true => drop(text.remove(place)),
                        false => text[place] = other,
                    }
                }
            }
            _ => self.damage_bytes(text),
        }
    }

    fn word(&mut self) -> Vec<u8> {
        match self.target.words {
            [] => NUMBERS[self.random.below(NUMBERS.len())].into(),
            words => words[self.random.below(words.len())].into(),
        }
    }

    /// Puts `new` in place of a stretch of such bytes.
    fn replace(&mut self, text: &mut Vec<u8>, is_such: fn(&u8) -> bool, new: &[u8]) {
        let starts: Vec<usize> = positions(text, is_such)
            .into_iter()
            .filter(|&start| start == 0 || !is_such(&text[start - 1]))
            .collect();
        if starts.is_empty() {
            return;
        }
        let start = self.random.pick(&starts);
        let length = text[start..]
            .iter()
            .take_while(|byte| is_such(byte))
            .count();
        text.splice(start..start + length, new.iter().copied());
    }

    /// Brackets around a stretch, many times over.
    fn nest(&mut self, text: &mut Vec<u8>) {
        let range = self.stretch(text);
        let depth = self.random.pick(&[1, 2, 9, 17, 65, 127, 129, 1000, 10_000]);
        let (open, close) = self.random.pick(&[
            (&b"["[..], &b"]"[..]),
            (b"{\"a\":", b"}"),
            (b"(", b")"),
            (b"{", b"}"),
            (b"/*", b"*/"),
        ]);
        let inner = text[range.clone()].to_vec();
        // Some are left open.
        let closed = if self.random.one_in(3) { 0 } else { depth };
        let nested = [open.repeat(depth), inner, close.repeat(closed)].concat();
        text.splice(range, nested);
    }
}

fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

fn positions(text: &[u8], is_such: impl Fn(&u8) -> bool) -> Vec<usize> {
    (0..text.len())
        .filter(|&index| is_such(&text[index]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fuzz::TARGETS;

    #[test]
    fn a_seed_decides_the_inputs() {
        for target in TARGETS {
            let inputs = (target.seeds)();
            let some = |seed| {
                let mut mutator = Mutator::new(target, &inputs, seed);
                (0..50).map(|_| mutator.next_input()).collect::<Vec<_>>()
            };
            assert_eq!(some(1), some(1), "{}", target.name);
            assert_ne!(some(1), some(2), "{}", target.name);
        }
    }

    #[test]
    fn inputs_are_many_and_not_too_long() {
        for target in TARGETS {
            let inputs = (target.seeds)();
            let mut mutator = Mutator::new(target, &inputs, 7);
            let found: BTreeSet<Vec<u8>> = (0..2000).map(|_| mutator.next_input()).collect();
            assert!(found.len() > 1500, "{}: only {}", target.name, found.len());
            assert!(found.iter().all(|input| input.len() <= target.longest));
            let long = found.iter().filter(|input| input.len() > LONGEST).count();
            let most = if target.longest > LONGEST { 30 } else { 0 };
            assert!(
                long <= most && (long > 0) == (most > 0),
                "{}: {long}",
                target.name
            );
        }
    }
}
