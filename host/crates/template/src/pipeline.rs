//! Parses pipelines, the content of actions.

use super::{
    ast::{Command, Operand, Pipeline, Term},
    error::{LocatedError, TemplateErrorKind, excerpt},
    functions,
    lexer::{Item, Token},
    literal::{self, Number},
    parser::{Parser, bad, unexpected},
};

impl<'t> Parser<'t> {
    /// Parses a pipeline and its end. That of a `{{range}}` may declare two variables.
    pub(super) fn pipeline(&mut self, range: bool, end: Token<'t>) -> Result<Pipeline<'t>, LocatedError> {
        let at = self.peek()?.at;
        let (variables, assigns) = self.variables(range)?;
        let mut commands: Vec<Command<'t>> = Vec::new();
        loop {
            let item = self.peek()?;
            if item.token == end && !commands.is_empty() {
                self.next()?;
                break;
            }
            let command = self.command()?;
            if !commands.is_empty() && !is_callable(&command.first) {
                return Err(unexpected(item, "a function after |"));
            }
            commands.push(command);
            let item = self.peek()?;
            if item.token == Token::Pipe {
                self.next()?;
            } else if item.token != end {
                return Err(unexpected(item, "| or the end"));
            }
        }
        if !assigns {
            self.scope.extend(&variables);
        }
        Ok(Pipeline { at, variables, assigns, commands })
    }

    /// Parses the variables of the value, and whether they are assigned instead of declared.
    fn variables(&mut self, range: bool) -> Result<(Vec<&'t str>, bool), LocatedError> {
        let mut variables = Vec::new();
        loop {
            let item = self.peek()?;
            let Token::Variable(name) = item.token else {
                return if variables.is_empty() { Ok((variables, false)) } else { Err(unexpected(item, "a variable")) };
            };
            let after = self.peek_at(1)?;
            let another = range && variables.is_empty() && after.token == Token::Other(',');
            match after.token {
                Token::Declare => {}
                Token::Assign if self.scope.contains(&name) => {}
                Token::Assign => return Err(undefined("variable", name, item.at)),
                _ if another => {}
                Token::Other(',') => return Err(unexpected(after, ":= after the variable")),
                _ if variables.is_empty() => return Ok((variables, false)),
                _ => return Err(unexpected(after, ":= after the variables")),
            }
            self.next()?;
            self.next()?;
            variables.push(name);
            if !another {
                return Ok((variables, after.token == Token::Assign));
            }
        }
    }

    fn command(&mut self) -> Result<Command<'t>, LocatedError> {
        let Some(first) = self.operand()? else {
            return Err(unexpected(self.peek()?, "a value or a function"));
        };
        let mut arguments = Vec::new();
        loop {
            let item = self.peek()?;
            if matches!(item.token, Token::Close | Token::CloseParenthesis | Token::Pipe) {
                return Ok(Command { first, arguments });
            }
            let argument = if item.spaced { self.operand()? } else { None };
            arguments.push(argument.ok_or_else(|| unexpected(item, "a blank and a value, | or the end"))?);
        }
    }

    /// Parses a value and its fields, if one follows.
    fn operand(&mut self) -> Result<Option<Operand<'t>>, LocatedError> {
        let item = self.peek()?;
        let at = item.at;
        let mut fields = Vec::new();
        let term = if let Token::Field(name) = item.token {
            self.next()?;
            fields.push(name);
            Term::Dot
        } else {
            match self.term(item)? {
                Some(term) => term,
                None => return Ok(None),
            }
        };
        loop {
            let next = self.peek()?;
            let Token::Field(name) = next.token else { break };
            if next.spaced {
                break;
            }
            if fields.is_empty() && !matches!(term, Term::Variable(_) | Term::Function(_) | Term::Pipeline(_)) {
                return Err(unexpected(next, "a blank before it"));
            }
            self.next()?;
            fields.push(name);
        }
        Ok(Some(Operand { at, term, fields }))
    }

    /// Parses the next item as a term.
    fn term(&mut self, item: Item<'t>) -> Result<Option<Term<'t>>, LocatedError> {
        let term = match item.token {
            Token::Nil => Term::Nil,
            Token::Bool(bool) => Term::Bool(bool),
            Token::Dot => Term::Dot,
            Token::Number(text) => match literal::number(text).ok_or_else(|| bad(item, "number"))? {
                Number::Int(int) => Term::Int(int),
                Number::Float(float) => Term::Float(float),
            },
            Token::Character(text) => Term::Int(literal::character(text).ok_or_else(|| bad(item, "character"))?),
            Token::Quoted(text) => Term::Text(literal::quoted(text).ok_or_else(|| bad(item, "string"))?.into()),
            Token::Raw(text) => Term::Text(literal::raw(text).into()),
            Token::Variable(name) if self.scope.contains(&name) => Term::Variable(name),
            Token::Variable(name) => return Err(undefined("variable", name, item.at)),
            Token::Name(name) => {
                Term::Function(functions::find(name).ok_or_else(|| undefined("function", name, item.at))?)
            }
            Token::OpenParenthesis => {
                self.next()?;
                let inner = |parser: &mut Self| parser.pipeline(false, Token::CloseParenthesis);
                return Ok(Some(Term::Pipeline(Box::new(self.deeper(item.at, inner)?))));
            }
            _ => return Ok(None),
        };
        self.next()?;
        Ok(Some(term))
    }
}

/// Returns whether it accepts the value before a `|`.
fn is_callable(first: &Operand<'_>) -> bool {
    let constant = matches!(first.term, Term::Nil | Term::Bool(_) | Term::Int(_) | Term::Float(_) | Term::Text(_));
    !constant && (!matches!(first.term, Term::Dot) || !first.fields.is_empty())
}

fn undefined(what: &'static str, name: &str, at: usize) -> LocatedError {
    TemplateErrorKind::Undefined { what, name: excerpt(name) }.at(at)
}
