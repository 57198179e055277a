//! The grammar.

use super::{
    DEEPEST, Member, Node, Position, Problem, SyntaxError, Value,
    cursor::Cursor,
    number::number,
    text::{ends_line, quoted, unicode},
};

/// Most characters of a word that an error shows.
const SHOWN: usize = 40;

/// Descends through a text.
pub(super) struct Parser<'t> {
    cursor: Cursor<'t>,
    /// In how many lists and objects it is.
    depth: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { cursor: Cursor::new(text), depth: 0 }
    }

    /// The whole text.
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
            Some(first) if begins_word(first) => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at: start.at(), written: self.cursor.since(&start), value })
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value<'t>, SyntaxError>,
    ) -> Result<Value<'t>, SyntaxError> {
        if self.depth == DEEPEST {
            return Err(self.error(Problem::TooDeep));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value<'t>, SyntaxError> {
        let began = self.cursor.at();
        self.cursor.next();
        let mut members = Vec::new();
        while self.goes_on("object", began, '}')? {
            members.push(self.member()?);
            self.separator("',' or '}'", '}')?;
        }
        Ok(Value::Object(members))
    }

    fn list(&mut self) -> Result<Value<'t>, SyntaxError> {
        let began = self.cursor.at();
        self.cursor.next();
        let mut items = Vec::new();
        while self.goes_on("list", began, ']')? {
            items.push(self.value()?);
            self.separator("',' or ']'", ']')?;
        }
        Ok(Value::List(items))
    }

    /// Whether there is another item; passes the end if not.
    fn goes_on(&mut self, what: &'static str, began: Position, end: char) -> Result<bool, SyntaxError> {
        self.blank()?;
        match self.cursor.peek() {
            None => Err(self.error(Problem::Unended { what, began })),
            Some(',') => Err(self.error(Problem::ExtraComma)),
            _ => Ok(!self.cursor.take(end)),
        }
    }

    /// Passes what stands between two items, if this is not the last one. That nothing ends here is told by
    /// [`Self::goes_on`].
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
        if !self.cursor.take(':') {
            return Err(self.unexpected("':' after a key"));
        }
        self.blank()?;
        match self.cursor.peek() {
            Some(found @ (',' | '}')) => Err(self.error(Problem::Hole { found })),
            _ => Ok(Member { key, at, value: self.value()? }),
        }
    }

    /// A key without quotes.
    fn identifier(&mut self) -> Result<String, SyntaxError> {
        let mut key = String::new();
        loop {
            let start = self.cursor;
            let fits = if key.is_empty() { begins_word } else { is_in_word };
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
                let problem = Problem::Escape(self.cursor.since(&start).to_owned());
                return Err(SyntaxError { at: start.at(), problem });
            }
            key.push(character);
        }
    }

    fn number(&mut self) -> Result<Value<'t>, SyntaxError> {
        let start = self.cursor;
        self.cursor.take_while(|c| matches!(c, '+' | '-'));
        while self.cursor.peek().is_some_and(|c| c == '.' || is_in_word(c)) {
            let exponent = self.cursor.next().is_some_and(|c| matches!(c, 'e' | 'E'));
            if exponent && !self.cursor.since(&start).contains(['x', 'X']) {
                self.cursor.take_while(|c| matches!(c, '+' | '-'));
            }
        }
        let word = self.cursor.since(&start);
        let problem = || Problem::Number(shortened(word));
        number(word).map(Value::Number).ok_or_else(|| SyntaxError { at: start.at(), problem: problem() })
    }

    fn word(&mut self) -> Result<Value<'t>, SyntaxError> {
        let at = self.cursor.at();
        match self.cursor.take_while(is_in_word) {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            word => {
                let problem = || Problem::Word(shortened(word));
                number(word).map(Value::Number).ok_or_else(|| SyntaxError { at, problem: problem() })
            }
        }
    }

    /// Passes white space and comments.
    fn blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.cursor.take_while(is_blank);
            let rest = self.cursor.rest();
            if rest.starts_with("//") {
                self.cursor.take_while(|c| !ends_line(c));
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let Some((comment, _)) = comment.split_once("*/") else {
                    let began = self.cursor.at();
                    return Err(self.error(Problem::Unended { what: "comment", began }));
                };
                self.cursor.skip("/**/".len() + comment.chars().count());
            } else {
                return Ok(());
            }
        }
    }

    fn error(&self, problem: Problem) -> SyntaxError {
        SyntaxError { at: self.cursor.at(), problem }
    }

    /// Something else is here.
    fn unexpected(&self, expected: &'static str) -> SyntaxError {
        let mut here = self.cursor;
        let found = match here.peek() {
            None => "the end of the text".to_owned(),
            Some(character) if is_in_word(character) => format!("{:?}", shortened(here.take_while(is_in_word))),
            Some(character) => format!("{character:?}"),
        };
        self.error(Problem::Unexpected { expected, found })
    }
}

fn shortened(word: &str) -> String {
    word.chars().take(SHOWN).collect()
}

fn begins_word(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '$' | '_')
}

/// The last two join letters.
fn is_in_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '$' | '_' | '\u{200c}' | '\u{200d}')
}

/// Unicode has the next line (U+0085) as white space, JSON5 has the byte order mark.
fn is_blank(character: char) -> bool {
    character.is_whitespace() && character != '\u{85}' || character == '\u{feff}'
}
