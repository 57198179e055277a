//! Parses blocks and actions into a tree.

use std::{collections::VecDeque, mem};

use super::{
    MAX_DEPTH,
    ast::{Conditional, Node, Range, Template},
    error::{LocatedError, Position, TemplateErrorKind, excerpt},
    lexer::{Item, Keyword, Lexer, Token},
    literal,
};

/// Parses a template.
pub(super) fn parse(text: &str) -> Result<Template<'_>, LocatedError> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
        ahead: VecDeque::new(),
        scope: vec!["$"],
        depth: 0,
        ranges: 0,
        template: Template::default(),
    };
    let (body, _) = parser.nodes(None)?;
    Ok(Template { body, ..parser.template })
}

/// State while a text is parsed.
pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// Items read in advance.
    ahead: VecDeque<Item<'t>>,
    /// Variables in scope.
    pub(super) scope: Vec<&'t str>,
    depth: usize,
    /// Number of enclosing loops.
    ranges: usize,
    template: Template<'t>,
}

/// End of a list of nodes.
#[derive(PartialEq)]
enum BlockEnd {
    End,
    /// The text after the word is not read.
    Else,
    Text,
}

impl<'t> Parser<'t> {
    pub(super) fn next(&mut self) -> Result<Item<'t>, LocatedError> {
        self.ahead.pop_front().map_or_else(|| self.lexer.next(), Ok)
    }

    pub(super) fn peek(&mut self) -> Result<Item<'t>, LocatedError> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&mut self, position: usize) -> Result<Item<'t>, LocatedError> {
        loop {
            if let Some(item) = self.ahead.get(position) {
                return Ok(*item);
            }
            let item = self.lexer.next()?;
            self.ahead.push_back(item);
        }
    }

    pub(super) fn expect(&mut self, token: Token<'_>, expected: &str) -> Result<(), LocatedError> {
        let item = self.next()?;
        if item.token == token { Ok(()) } else { Err(unexpected(item, expected)) }
    }

    /// Parses this one level deeper.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut Self) -> Result<T, LocatedError>,
    ) -> Result<T, LocatedError> {
        if self.depth == MAX_DEPTH {
            return Err(TemplateErrorKind::Depth(MAX_DEPTH).at(at));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Parses everything up to the end of the block that started there, or of the text.
    fn nodes(&mut self, block: Option<usize>) -> Result<(Vec<Node<'t>>, BlockEnd), LocatedError> {
        let mut nodes = Vec::new();
        loop {
            let item = self.next()?;
            match item.token {
                Token::Text(text) => nodes.push(Node::Text { at: item.at, text }),
                Token::End => {
                    let Some(about) = block else { return Ok((nodes, BlockEnd::Text)) };
                    let start = Position::of(about, self.lexer.text);
                    return Err(LocatedError { about, ..TemplateErrorKind::NoEnd { start }.at(item.at) });
                }
                _ => {
                    let word = self.peek()?;
                    match word.token {
                        Token::Keyword(Keyword::End) if block.is_some() => {
                            self.next()?;
                            self.expect(Token::Close, "}} after end")?;
                            return Ok((nodes, BlockEnd::End));
                        }
                        Token::Keyword(Keyword::Else) if block.is_some() => {
                            self.next()?;
                            return Ok((nodes, BlockEnd::Else));
                        }
                        Token::Keyword(Keyword::Define) if block.is_none() => {
                            self.next()?;
                            self.define(item.at)?;
                        }
                        _ => nodes.push(self.action(item.at, word)?),
                    }
                }
            }
        }
    }

    /// Parses an action that started there, with this word next.
    fn action(&mut self, at: usize, word: Item<'t>) -> Result<Node<'t>, LocatedError> {
        let Token::Keyword(keyword) = word.token else {
            return Ok(Node::Value(self.pipeline(false, Token::Close)?));
        };
        self.next()?;
        match keyword {
            Keyword::If => Ok(Node::If(self.deeper(at, |parser| parser.choice(at, keyword))?)),
            Keyword::With => Ok(Node::With(self.deeper(at, |parser| parser.choice(at, keyword))?)),
            Keyword::Range => self.deeper(at, |parser| parser.range(at)),
            Keyword::Template => {
                let name = self.name()?;
                let with = match self.peek()?.token {
                    Token::Close => self.next().map(|_| None)?,
                    _ => Some(self.pipeline(false, Token::Close)?),
                };
                Ok(Node::Template { at, name, with })
            }
            Keyword::Block => {
                let name = self.name()?;
                let with = Some(self.pipeline(false, Token::Close)?);
                self.deeper(at, |parser| parser.definition(at, name.clone()))?;
                Ok(Node::Template { at, name, with })
            }
            Keyword::Break | Keyword::Continue if self.ranges == 0 => {
                Err(unexpected(word, "it between {{range}} and its {{end}}"))
            }
            Keyword::Break => self.expect(Token::Close, "}} after break").map(|()| Node::Break),
            Keyword::Continue => self.expect(Token::Close, "}} after continue").map(|()| Node::Continue),
            Keyword::Define => Err(unexpected(word, "it outside of any block")),
            Keyword::Else | Keyword::End => Err(unexpected(word, "a block that it could belong to")),
        }
    }

    /// Parses `{{if}}` or `{{with}}` with all branches.
    fn choice(&mut self, at: usize, keyword: Keyword) -> Result<Conditional<'t>, LocatedError> {
        let known = self.scope.len();
        let mut branches = Vec::new();
        let mut else_branch = Vec::new();
        loop {
            let condition = self.pipeline(false, Token::Close)?;
            let (body, ending) = self.nodes(Some(at))?;
            branches.push((condition, body));
            if ending == BlockEnd::End {
                break;
            }
            if self.peek()?.token == Token::Keyword(keyword) {
                self.next()?;
                continue;
            }
            else_branch = self.else_branch(at)?;
            break;
        }
        self.scope.truncate(known);
        Ok(Conditional { branches, else_branch })
    }

    /// Parses `{{range}}` with its else branch.
    fn range(&mut self, at: usize) -> Result<Node<'t>, LocatedError> {
        let known = self.scope.len();
        let over = self.pipeline(true, Token::Close)?;
        self.ranges += 1;
        let (body, ending) = self.nodes(Some(at))?;
        self.ranges -= 1;
        let else_branch = if ending == BlockEnd::Else { self.else_branch(at)? } else { Vec::new() };
        self.scope.truncate(known);
        Ok(Node::Range(Range { over, body, else_branch }))
    }

    /// Parses the last branch, after its `else`.
    fn else_branch(&mut self, at: usize) -> Result<Vec<Node<'t>>, LocatedError> {
        self.expect(Token::Close, "}} after else")?;
        let (nodes, ending) = self.nodes(Some(at))?;
        if ending == BlockEnd::Else {
            let item = self.next()?;
            return Err(TemplateErrorKind::Unexpected {
                found: "second else".to_owned(),
                expected: "{{end}}".to_owned(),
            }
            .at(item.at));
        }
        Ok(nodes)
    }

    fn define(&mut self, at: usize) -> Result<(), LocatedError> {
        let name = self.name()?;
        self.expect(Token::Close, "}} after the name")?;
        self.deeper(at, |parser| parser.definition(at, name))
    }

    /// Parses a named template, which sees no variables around it.
    fn definition(&mut self, at: usize, name: String) -> Result<(), LocatedError> {
        let scope = mem::replace(&mut self.scope, vec!["$"]);
        let ranges = mem::take(&mut self.ranges);
        let (body, ending) = self.nodes(Some(at))?;
        if ending == BlockEnd::Else {
            let item = self.next()?;
            return Err(
                TemplateErrorKind::Unexpected { found: "else".to_owned(), expected: "{{end}}".to_owned() }.at(item.at)
            );
        }
        (self.scope, self.ranges) = (scope, ranges);
        let known = self.template.named.get(&name);
        if known.is_none_or(|known| is_blank(known)) {
            self.template.named.insert(name, body);
        } else if !is_blank(&body) {
            return Err(TemplateErrorKind::Redefined(excerpt(&name)).at(at));
        }
        Ok(())
    }

    /// Parses the name of a template.
    fn name(&mut self) -> Result<String, LocatedError> {
        let item = self.next()?;
        match item.token {
            Token::Quoted(text) => literal::quoted(text).ok_or_else(|| bad(item, "string")),
            Token::Raw(text) => Ok(literal::raw(text)),
            _ => Err(unexpected(item, "the name of a template, in quotes")),
        }
    }
}

/// Returns whether a template writes at most white space.
fn is_blank(nodes: &[Node<'_>]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
}

/// Returns the error that something else was expected.
pub(super) fn unexpected(item: Item<'_>, expected: &str) -> LocatedError {
    let found = if item.token == Token::End { "end of the text".to_owned() } else { excerpt(item.text) };
    TemplateErrorKind::Unexpected { found, expected: expected.to_owned() }.at(item.at)
}

/// Returns the error that a literal is invalid.
pub(super) fn bad(item: Item<'_>, expected: &'static str) -> LocatedError {
    TemplateErrorKind::Literal { found: excerpt(item.text), expected }.at(item.at)
}
