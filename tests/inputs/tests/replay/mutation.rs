//! Mutations of a corpus, the same ones in each run.

use fastrand::Rng;

/// Where the mutations begin.
const SEED: u64 = 7;
/// Most changes to one input.
const CHANGES: usize = 6;
/// Longest mutation, in bytes.
const LONGEST: usize = 8 * 1024;
/// What parsers trip over.
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

/// An endless row of inputs.
pub(crate) struct Mutation<'a> {
    corpus: &'a [Vec<u8>],
    random: Rng,
}

impl<'a> Mutation<'a> {
    pub(crate) fn new(corpus: &'a [Vec<u8>]) -> Self {
        Self { corpus, random: Rng::with_seed(SEED) }
    }

    /// One of the corpus, changed in some places.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.one().to_vec();
        for _ in 0..self.random.usize(1..=CHANGES) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
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
