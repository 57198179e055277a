//! Mutations of a corpus, the same ones in each run.

use fastrand::Rng;

/// Seed of the mutations.
const SEED: u64 = 7;
/// Maximum number of changes to one input.
const MAX_CHANGES: usize = 6;
/// Maximum length of a mutation, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// Texts that parsers often mishandle.
const TOKENS: [&[u8]; 24] = [
    b"\0",
    b"\r\n",
    b"\n",
    b" ",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"[",
    b"]",
    b"}",
    b":",
    b",",
    b"@",
    b"://",
    b"/",
    b"..",
    b"-1",
    b"0",
    b"1e999",
    b"0.30000000000000004",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\xc3\xa9",
];

/// An endless sequence of inputs.
pub(crate) struct Mutation<'a> {
    corpus: &'a [Vec<u8>],
    random: Rng,
}

impl<'a> Mutation<'a> {
    pub(crate) fn new(corpus: &'a [Vec<u8>]) -> Self {
        Self { corpus, random: Rng::with_seed(SEED) }
    }

    /// Returns one of the corpus, changed at some positions.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.one().to_vec();
        for _ in 0..self.random.usize(1..=MAX_CHANGES) {
            self.change(&mut input);
        }
        input.truncate(MAX_BYTES);
        input
    }

    fn one(&mut self) -> &'a [u8] {
        &self.corpus[self.random.usize(..self.corpus.len())]
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let start = self.random.usize(..=input.len());
        let end = self.random.usize(start..=input.len().min(start + 32));
        match self.random.u8(..6) {
            0 if start < input.len() => input[start] ^= 1 << self.random.u8(..8),
            1 if start < input.len() => input[start] = self.random.u8(..),
            2 => drop(input.drain(start..end)),
            3 => {
                let copy = input[start..end].repeat(self.random.usize(1..8));
                input.splice(start..start, copy);
            }
            4 => {
                let other = self.one();
                let from = self.random.usize(..=other.len());
                let to = self.random.usize(from..=other.len());
                input.splice(start..end, other[from..to].iter().copied());
            }
            _ => {
                let token = TOKENS[self.random.usize(..TOKENS.len())];
                input.splice(start..end, token.iter().copied());
            }
        }
    }
}
