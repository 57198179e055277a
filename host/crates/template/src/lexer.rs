//! Splits a template into plain text and the words of its actions.

use super::error::{LocatedError, TemplateErrorKind, excerpt};

/// Start of an action.
pub(super) const OPEN: &str = "{{";
/// End of an action.
pub(super) const CLOSE: &str = "}}";
/// Next to [`OPEN`] with a blank after it, or [`CLOSE`] with one before it: trims the blanks around the action.
const TRIM: char = '-';

/// Keywords of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

/// Token of a template. Literals are as written, with quotes; names are without their `.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Text(&'t str),
    Open,
    Close,
    Bool(bool),
    Nil,
    Character(&'t str),
    Number(&'t str),
    Quoted(&'t str),
    Raw(&'t str),
    Dot,
    Field(&'t str),
    Variable(&'t str),
    Name(&'t str),
    Keyword(Keyword),
    Pipe,
    OpenParenthesis,
    CloseParenthesis,
    Declare,
    Assign,
    Other(char),
    End,
}

/// A token and its position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'t> {
    pub(super) token: Token<'t>,
    /// Its first byte in the template.
    pub(super) at: usize,
    /// Whether blanks precede it.
    pub(super) spaced: bool,
    /// Its text, as written.
    pub(super) text: &'t str,
}

/// Splits a text into tokens.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    pub(super) text: &'t str,
    at: usize,
    /// Start of the current action.
    action: Option<usize>,
    /// Starts of the open parentheses.
    parentheses: Vec<usize>,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0, action: None, parentheses: Vec::new() }
    }

    /// Returns the next token; [`Token::End`] from the end on.
    pub(super) fn next(&mut self) -> Result<Item<'t>, LocatedError> {
        match self.action {
            Some(start) => self.word(start),
            None => self.outside(),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Returns the next so many bytes as a token.
    fn item(&mut self, token: Token<'t>, length: usize) -> Item<'t> {
        let at = self.at;
        self.at += length;
        Item { token, at, spaced: false, text: self.text.get(at..self.at).unwrap_or_default() }
    }

    /// Reads plain text, or the start of an action.
    fn outside(&mut self) -> Result<Item<'t>, LocatedError> {
        loop {
            let rest = self.rest();
            let Some(length) = rest.find(OPEN) else {
                let token = if rest.is_empty() { Token::End } else { Token::Text(rest) };
                return Ok(self.item(token, rest.len()));
            };
            let (plain, action) = rest.split_at(length);
            let inner = action.get(OPEN.len()..).unwrap_or_default();
            let trimmed = inner.strip_prefix(TRIM).filter(|inner| inner.starts_with(is_blank));
            let plain = if trimmed.is_some() { plain.trim_end_matches(is_blank) } else { plain };
            if !plain.is_empty() {
                let item = Item { text: plain, ..self.item(Token::Text(plain), length) };
                return Ok(item);
            }
            self.at += length;
            let marker = if trimmed.is_some() { TRIM.len_utf8() + 1 } else { 0 };
            if inner.get(marker..).is_some_and(|inner| inner.starts_with("/*")) {
                self.comment(marker)?;
                continue;
            }
            self.action = Some(self.at);
            self.parentheses.clear();
            return Ok(self.item(Token::Open, OPEN.len() + marker));
        }
    }

    /// Skips an action that is a comment.
    fn comment(&mut self, marker: usize) -> Result<(), LocatedError> {
        let start = self.at;
        self.at += OPEN.len() + marker;
        let unclosed = |expected| TemplateErrorKind::Unclosed { what: "comment", expected }.at(start);
        let end = self.rest().find("*/").ok_or_else(|| unclosed("*/"))?;
        self.at += end + "*/".len();
        if !self.close() {
            return Err(unclosed("}} right after */"));
        }
        Ok(())
    }

    /// Skips the end of an action and the blanks that it trims, if it is here.
    fn close(&mut self) -> bool {
        let rest = self.rest();
        if let Some(after) = rest.strip_prefix(CLOSE) {
            self.at = self.text.len() - after.len();
            return true;
        }
        let marked = rest.strip_prefix(is_blank).and_then(|rest| rest.strip_prefix(TRIM));
        let Some(after) = marked.and_then(|rest| rest.strip_prefix(CLOSE)) else { return false };
        self.at = self.text.len() - after.trim_start_matches(is_blank).len();
        true
    }

    /// Reads a word of the action that started there.
    fn word(&mut self, start: usize) -> Result<Item<'t>, LocatedError> {
        let rest = self.rest();
        let blanks = rest.len() - rest.trim_start_matches(is_blank).len();
        // The last blank may belong to the end of the action.
        self.at += blanks.saturating_sub(1);
        let end = self.at + blanks.min(1);
        if self.close() {
            return self.closed(end);
        }
        self.at = end;
        if self.close() {
            return self.closed(end);
        }
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Err(TemplateErrorKind::Unclosed { what: "action", expected: "}}" }.at(start));
        };
        let item = match first {
            '=' => self.item(Token::Assign, 1),
            ':' if rest.starts_with(":=") => self.item(Token::Declare, 2),
            '|' => self.item(Token::Pipe, 1),
            '(' => {
                self.parentheses.push(self.at);
                self.item(Token::OpenParenthesis, 1)
            }
            ')' => {
                if self.parentheses.pop().is_none() {
                    return Err(self.unexpected(self.at, "a parenthesis before it"));
                }
                self.item(Token::CloseParenthesis, 1)
            }
            '"' => self.quoted(first, "string")?,
            '\'' => self.quoted(first, "character")?,
            '`' => {
                let unclosed = TemplateErrorKind::Unclosed { what: "string", expected: "`" };
                let length = rest.get(1..).and_then(|rest| rest.find('`')).ok_or_else(|| unclosed.at(self.at))? + 2;
                self.item(Token::Raw(rest.get(..length).unwrap_or_default()), length)
            }
            '.' if rest.get(1..).is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit())) => {
                self.number()
            }
            '+' | '-' | '0'..='9' => self.number(),
            '.' | '$' => self.named(first)?,
            _ if is_of_name(first) => self.named(first)?,
            _ if first.is_ascii_graphic() => self.item(Token::Other(first), 1),
            _ => return Err(self.unexpected(self.at, "a value or a function")),
        };
        Ok(Item { spaced: blanks > 0, ..item })
    }

    /// Returns the end of the action, whose text was just skipped.
    fn closed(&mut self, at: usize) -> Result<Item<'t>, LocatedError> {
        if let Some(start) = self.parentheses.last() {
            return Err(TemplateErrorKind::Unclosed { what: "parenthesis", expected: ")" }.at(*start));
        }
        self.action = None;
        Ok(Item { token: Token::Close, at, spaced: false, text: CLOSE })
    }

    /// Reads a literal up to the same quote, on one line.
    fn quoted(&mut self, quote: char, what: &'static str) -> Result<Item<'t>, LocatedError> {
        let expected = if quote == '"' { "\" before the end of the line" } else { "' before the end of the line" };
        let rest = self.rest();
        let mut escaped = true;
        for (position, char) in rest.char_indices() {
            if char == '\n' {
                break;
            }
            if char == quote && !escaped {
                let literal = rest.get(..=position).unwrap_or_default();
                let token = if quote == '"' { Token::Quoted(literal) } else { Token::Character(literal) };
                return Ok(self.item(token, literal.len()));
            }
            escaped = char == '\\' && !escaped;
        }
        Err(TemplateErrorKind::Unclosed { what, expected }.at(self.at))
    }

    /// Reads everything that may belong to a number, which is validated later.
    fn number(&mut self) -> Item<'t> {
        let rest = self.rest();
        let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let hexadecimal = unsigned.starts_with("0x") || unsigned.starts_with("0X");
        let mut exponent = false;
        let length = unsigned.find(|char: char| {
            let signed = exponent && matches!(char, '+' | '-');
            exponent = matches!(char, 'e' | 'E') && !hexadecimal;
            !(is_of_name(char) || char == '.' || signed)
        });
        let length = rest.len() - unsigned.len() + length.unwrap_or(unsigned.len());
        self.item(Token::Number(rest.get(..length).unwrap_or_default()), length)
    }

    /// Reads a name, which starts with `.` for a field, with `$` for a variable.
    fn named(&mut self, first: char) -> Result<Item<'t>, LocatedError> {
        let rest = self.rest();
        let sign = usize::from(matches!(first, '.' | '$'));
        let name = rest.get(sign..).unwrap_or_default();
        let name = name.find(|char| !is_of_name(char)).and_then(|end| name.get(..end)).unwrap_or(name);
        let length = sign + name.len();
        let after = rest.get(length..).unwrap_or_default();
        let whole = rest.get(..length).unwrap_or_default();
        let ends = after.is_empty() || after.starts_with(CLOSE);
        if !ends && !after.starts_with(|next| is_blank(next) || ".,|:()".contains(next)) {
            return Err(self.unexpected(self.at + length, &format!("a blank, |, ) or }}}} after {}", excerpt(whole))));
        }
        let token = match (first, name) {
            ('$', _) => Token::Variable(whole),
            ('.', "") => Token::Dot,
            ('.', _) => Token::Field(name),
            _ => word(name),
        };
        Ok(self.item(token, length))
    }

    fn unexpected(&self, at: usize, expected: &str) -> LocatedError {
        let found = self.text.get(at..).and_then(|rest| rest.chars().next());
        let found = found.map_or_else(String::new, |found| {
            if found.is_control() { found.escape_default().to_string() } else { found.to_string() }
        });
        TemplateErrorKind::Unexpected { found, expected: expected.to_owned() }.at(at)
    }
}

/// Returns the token of a bare word.
fn word(name: &str) -> Token<'_> {
    match name {
        "true" => Token::Bool(true),
        "false" => Token::Bool(false),
        "nil" => Token::Nil,
        "block" => Token::Keyword(Keyword::Block),
        "break" => Token::Keyword(Keyword::Break),
        "continue" => Token::Keyword(Keyword::Continue),
        "define" => Token::Keyword(Keyword::Define),
        "else" => Token::Keyword(Keyword::Else),
        "end" => Token::Keyword(Keyword::End),
        "if" => Token::Keyword(Keyword::If),
        "range" => Token::Keyword(Keyword::Range),
        "template" => Token::Keyword(Keyword::Template),
        "with" => Token::Keyword(Keyword::With),
        _ => Token::Name(name),
    }
}

/// Returns whether it is white space in Go's templates.
fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\n')
}

fn is_of_name(char: char) -> bool {
    char == '_' || char.is_alphanumeric()
}
