//! From text to tree: blocks and actions.

use std::{collections::VecDeque, mem};

use super::{
    DEPTH,
    error::{Mistake, Position, Problem, shown},
    lexer::{Item, Keyword, Lexer, Token},
    literal,
    tree::{Choice, Node, Range, Template},
};

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Template<'_>, Mistake> {
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

/// What is known while a text is read.
pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// What was looked at already.
    ahead: VecDeque<Item<'t>>,
    /// Variables that can be used here.
    pub(super) scope: Vec<&'t str>,
    depth: usize,
    /// How many loops it is in.
    ranges: usize,
    template: Template<'t>,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Ending {
    End,
    /// What comes after the word is not read.
    Else,
    Text,
}

impl<'t> Parser<'t> {
    pub(super) fn next(&mut self) -> Result<Item<'t>, Mistake> {
        self.ahead.pop_front().map_or_else(|| self.lexer.next(), Ok)
    }

    pub(super) fn peek(&mut self) -> Result<Item<'t>, Mistake> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&mut self, place: usize) -> Result<Item<'t>, Mistake> {
        loop {
            if let Some(item) = self.ahead.get(place) {
                return Ok(*item);
            }
            let item = self.lexer.next()?;
            self.ahead.push_back(item);
        }
    }

    pub(super) fn expect(&mut self, token: Token<'_>, expected: &str) -> Result<(), Mistake> {
        let item = self.next()?;
        if item.token == token { Ok(()) } else { Err(unexpected(item, expected)) }
    }

    /// Does this one level deeper.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut Self) -> Result<T, Mistake>,
    ) -> Result<T, Mistake> {
        if self.depth == DEPTH {
            return Err(Problem::Depth(DEPTH).at(at));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Everything until the block ends that began there, or until the text does.
    fn nodes(&mut self, block: Option<usize>) -> Result<(Vec<Node<'t>>, Ending), Mistake> {
        let mut nodes = Vec::new();
        loop {
            let item = self.next()?;
            match item.token {
                Token::Text(text) => nodes.push(Node::Text { at: item.at, text }),
                Token::End => {
                    let Some(about) = block else { return Ok((nodes, Ending::Text)) };
                    let began = Position::of(about, self.lexer.text);
                    return Err(Mistake { about, ..Problem::NoEnd { began }.at(item.at) });
                }
                _ => {
                    let word = self.peek()?;
                    match word.token {
                        Token::Keyword(Keyword::End) if block.is_some() => {
                            self.next()?;
                            self.expect(Token::Close, "}} after end")?;
                            return Ok((nodes, Ending::End));
                        }
                        Token::Keyword(Keyword::Else) if block.is_some() => {
                            self.next()?;
                            return Ok((nodes, Ending::Else));
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

    /// An action that began there with this word, which is not read yet.
    fn action(&mut self, at: usize, word: Item<'t>) -> Result<Node<'t>, Mistake> {
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

    /// `{{if}}` or `{{with}}`, and all of its branches.
    fn choice(&mut self, at: usize, keyword: Keyword) -> Result<Choice<'t>, Mistake> {
        let known = self.scope.len();
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.pipeline(false, Token::Close)?;
            let (body, ending) = self.nodes(Some(at))?;
            branches.push((condition, body));
            if ending == Ending::End {
                break;
            }
            if self.peek()?.token == Token::Keyword(keyword) {
                self.next()?;
                continue;
            }
            otherwise = self.otherwise(at)?;
            break;
        }
        self.scope.truncate(known);
        Ok(Choice { branches, otherwise })
    }

    /// `{{range}}`, and what is done when there is nothing.
    fn range(&mut self, at: usize) -> Result<Node<'t>, Mistake> {
        let known = self.scope.len();
        let over = self.pipeline(true, Token::Close)?;
        self.ranges += 1;
        let (body, ending) = self.nodes(Some(at))?;
        self.ranges -= 1;
        let otherwise = if ending == Ending::Else { self.otherwise(at)? } else { Vec::new() };
        self.scope.truncate(known);
        Ok(Node::Range(Range { over, body, otherwise }))
    }

    /// The last branch; its `else` is read.
    fn otherwise(&mut self, at: usize) -> Result<Vec<Node<'t>>, Mistake> {
        self.expect(Token::Close, "}} after else")?;
        let (nodes, ending) = self.nodes(Some(at))?;
        if ending == Ending::Else {
            let item = self.next()?;
            return Err(
                Problem::Unexpected { found: "second else".to_owned(), expected: "{{end}}".to_owned() }.at(item.at)
            );
        }
        Ok(nodes)
    }

    fn define(&mut self, at: usize) -> Result<(), Mistake> {
        let name = self.name()?;
        self.expect(Token::Close, "}} after the name")?;
        self.deeper(at, |parser| parser.definition(at, name))
    }

    /// A template of its own, which knows nothing of what is around it.
    fn definition(&mut self, at: usize, name: String) -> Result<(), Mistake> {
        let scope = mem::replace(&mut self.scope, vec!["$"]);
        let ranges = mem::take(&mut self.ranges);
        let (body, ending) = self.nodes(Some(at))?;
        if ending == Ending::Else {
            let item = self.next()?;
            return Err(Problem::Unexpected { found: "else".to_owned(), expected: "{{end}}".to_owned() }.at(item.at));
        }
        (self.scope, self.ranges) = (scope, ranges);
        let known = self.template.named.get(&name);
        if known.is_none_or(|known| is_blank(known)) {
            self.template.named.insert(name, body);
        } else if !is_blank(&body) {
            return Err(Problem::Redefined(shown(&name)).at(at));
        }
        Ok(())
    }

    /// The name of a template.
    fn name(&mut self) -> Result<String, Mistake> {
        let item = self.next()?;
        match item.token {
            Token::Quoted(text) => literal::quoted(text).ok_or_else(|| bad(item, "string")),
            Token::Raw(text) => Ok(literal::raw(text)),
            _ => Err(unexpected(item, "the name of a template, in quotes")),
        }
    }
}

/// Whether a template writes out white space at most.
fn is_blank(nodes: &[Node<'_>]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
}

/// The mistake that something else should stand there.
pub(super) fn unexpected(item: Item<'_>, expected: &str) -> Mistake {
    let found = if item.token == Token::End { "end of the text".to_owned() } else { shown(item.text) };
    Problem::Unexpected { found, expected: expected.to_owned() }.at(item.at)
}

/// The mistake that a literal is none.
pub(super) fn bad(item: Item<'_>, expected: &'static str) -> Mistake {
    Problem::Literal { found: shown(item.text), expected }.at(item.at)
}
