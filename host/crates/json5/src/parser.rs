//! The grammar.

use super::{
    MAX_DEPTH, Member, Node, Position, SyntaxError, SyntaxErrorKind, Value,
    cursor::Cursor,
    number::number,
    text::{ends_line, quoted, unicode},
};

/// Most characters of a word that an error repeats.
const MAX_SHOWN: usize = 40;

/// Recursive descent parser.
pub(super) struct Parser<'t> {
    cursor: Cursor<'t>,
    /// Number of enclosing lists and objects.
    depth: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { cursor: Cursor::new(text), depth: 0 }
    }

    /// Parses the whole text.
    pub(super) fn document(&mut self) -> Result<Node<'t>, SyntaxError> {
        self.blank()?;
        let node = self.value()?;
        self.blank()?;
        match self.cursor.peek() {
            None => Ok(node),
            Some(_) => Err(self.unexpected("the end of the text")),
        }
    }

    fn value(&mut self) -> Result<Node<'t>, SyntaxError> {
        let start = self.cursor;
        let value = match start.peek() {
            Some('{') => self.nested(Self::object)?,
            Some('[') => self.nested(Self::list)?,
            Some('"' | '\'') => Value::Text(quoted(&mut self.cursor)?),
            Some('+' | '-' | '.' | '0'..='9') => self.number()?,
            Some(first) if starts_word(first) => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at: start.at(), written: self.cursor.since(&start), value })
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value<'t>, SyntaxError>,
    ) -> Result<Value<'t>, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(SyntaxErrorKind::TooDeep));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value<'t>, SyntaxError> {
        let start = self.cursor.at();
        self.cursor.next();
        let mut members = Vec::new();
        while self.has_next("object", start, '}')? {
            members.push(self.member()?);
            self.separator("',' or '}'", '}')?;
        }
        Ok(Value::Object(members))
    }

    fn list(&mut self) -> Result<Value<'t>, SyntaxError> {
        let start = self.cursor.at();
        self.cursor.next();
        let mut items = Vec::new();
        while self.has_next("list", start, ']')? {
            items.push(self.value()?);
            self.separator("',' or ']'", ']')?;
        }
        Ok(Value::List(items))
    }

    /// Returns whether another item follows. Passes the end if not.
    fn has_next(&mut self, what: &'static str, start: Position, end: char) -> Result<bool, SyntaxError> {
        self.blank()?;
        match self.cursor.peek() {
            None => Err(self.error(SyntaxErrorKind::Unterminated { what, start })),
            Some(',') => Err(self.error(SyntaxErrorKind::ExtraComma)),
            _ => Ok(!self.cursor.accept(end)),
        }
    }

    /// Passes the comma between two items, unless this is the last one. [`Self::has_next`] reports a missing end.
    fn separator(&mut self, expected: &'static str, end: char) -> Result<(), SyntaxError> {
        self.blank()?;
        match self.cursor.peek() {
            Some(',') => self.cursor.skip(1),
            Some(other) if other != end => return Err(self.unexpected(expected)),
            _ => {}
        }
        Ok(())
    }

    fn member(&mut self) -> Result<Member<'t>, SyntaxError> {
        let at = self.cursor.at();
        let key = match self.cursor.peek() {
            Some('"' | '\'') => quoted(&mut self.cursor)?,
            _ => self.identifier()?,
        };
        self.blank()?;
        if !self.cursor.accept(':') {
            return Err(self.unexpected("':' after a key"));
        }
        self.blank()?;
        match self.cursor.peek() {
            Some(found @ (',' | '}')) => Err(self.error(SyntaxErrorKind::Hole { found })),
            _ => Ok(Member { key, at, value: self.value()? }),
        }
    }

    /// Parses a key without quotes.
    fn identifier(&mut self) -> Result<String, SyntaxError> {
        let mut key = String::new();
        loop {
            let start = self.cursor;
            let fits = if key.is_empty() { starts_word } else { is_in_word };
            let character = match start.peek() {
                Some('\\') => unicode(&mut self.cursor)?,
                Some(character) if fits(character) => {
                    self.cursor.next();
                    character
                }
                _ if key.is_empty() => return Err(self.unexpected("a key or '}'")),
                _ => return Ok(key),
            };
            if !fits(character) {
                let problem = SyntaxErrorKind::Escape(self.cursor.since(&start).to_owned());
                return Err(SyntaxError { at: start.at(), problem });
            }
            key.push(character);
        }
    }

    fn number(&mut self) -> Result<Value<'t>, SyntaxError> {
        let start = self.cursor;
        self.cursor.accept_while(|c| matches!(c, '+' | '-'));
        while self.cursor.peek().is_some_and(|c| c == '.' || is_in_word(c)) {
            let exponent = self.cursor.next().is_some_and(|c| matches!(c, 'e' | 'E'));
            if exponent && !self.cursor.since(&start).contains(['x', 'X']) {
                self.cursor.accept_while(|c| matches!(c, '+' | '-'));
            }
        }
        let word = self.cursor.since(&start);
        let problem = || SyntaxErrorKind::Number(excerpt_of(word));
        number(word).map(Value::Number).ok_or_else(|| SyntaxError { at: start.at(), problem: problem() })
    }

    fn word(&mut self) -> Result<Value<'t>, SyntaxError> {
        let at = self.cursor.at();
        match self.cursor.accept_while(is_in_word) {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            word => {
                let problem = || SyntaxErrorKind::Word(excerpt_of(word));
                number(word).map(Value::Number).ok_or_else(|| SyntaxError { at, problem: problem() })
            }
        }
    }

    /// Passes white space and comments.
    fn blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.cursor.accept_while(is_blank);
            let rest = self.cursor.rest();
            if rest.starts_with("//") {
                self.cursor.accept_while(|c| !ends_line(c));
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let Some((comment, _)) = comment.split_once("*/") else {
                    let start = self.cursor.at();
                    return Err(self.error(SyntaxErrorKind::Unterminated { what: "comment", start }));
                };
                self.cursor.skip("/**/".len() + comment.chars().count());
            } else {
                return Ok(());
            }
        }
    }

    fn error(&self, problem: SyntaxErrorKind) -> SyntaxError {
        SyntaxError { at: self.cursor.at(), problem }
    }

    /// Returns the error that something else is here.
    fn unexpected(&self, expected: &'static str) -> SyntaxError {
        let mut here = self.cursor;
        let found = match here.peek() {
            None => "the end of the text".to_owned(),
            Some(character) if is_in_word(character) => format!("{:?}", excerpt_of(here.accept_while(is_in_word))),
            Some(character) => format!("{character:?}"),
        };
        self.error(SyntaxErrorKind::Unexpected { expected, found })
    }
}

fn excerpt_of(word: &str) -> String {
    word.chars().take(MAX_SHOWN).collect()
}

fn starts_word(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '$' | '_')
}

/// Returns whether a word may contain it. The last two characters join letters.
fn is_in_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '$' | '_' | '\u{200c}' | '\u{200d}')
}

/// Returns whether it is white space in JSON5: not the next line (U+0085), but the byte order mark.
fn is_blank(character: char) -> bool {
    character.is_whitespace() && character != '\u{85}' || character == '\u{feff}'
}
