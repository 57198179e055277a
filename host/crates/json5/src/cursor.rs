//! Position in a text that moves forward.

use super::Position;

/// Rest of a text and its position. Copies do not move along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'t> {
    rest: &'t str,
    at: Position,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text, at: Position { line: 1, column: 1 } }
    }

    pub(super) fn at(&self) -> Position {
        self.at
    }

    pub(super) fn rest(&self) -> &'t str {
        self.rest
    }

    /// Returns the character here. None at the end.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Passes and returns the character here.
    pub(super) fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        self.at = match character {
            '\n' => Position { line: self.at.line + 1, column: 1 },
            _ => Position { column: self.at.column + 1, ..self.at },
        };
        Some(character)
    }

    /// Passes this character if it is here. Returns whether it was.
    pub(super) fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Passes all characters that fit and returns them.
    pub(super) fn accept_while(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let start = *self;
        while self.peek().is_some_and(&fits) {
            self.next();
        }
        self.since(&start)
    }

    /// Passes so many characters.
    pub(super) fn skip(&mut self, characters: usize) {
        for _ in 0..characters {
            self.next();
        }
    }

    /// Returns the text passed since.
    pub(super) fn since(&self, start: &Self) -> &'t str {
        let passed = start.rest.len() - self.rest.len();
        start.rest.get(..passed).unwrap_or_default()
    }
}
