//! Evaluates a tree to text.

use std::{collections::BTreeMap, fmt::Write, mem, rc::Rc};

use super::{
    MAX_BYTES, MAX_DEPTH, MAX_WORK, STEP_BYTES,
    ast::{Command, Conditional, Node, Operand, Pipeline, Range, Template, Term},
    error::{LocatedError, TemplateErrorKind, excerpt},
    format::BoundedString,
    functions::{ArgKind, Function, FunctionBody, FunctionContext, FunctionError},
    regex::RegexCache,
    value::Value,
};

/// Renders a template.
pub(super) fn evaluate<'v>(
    template: &Template<'_>,
    dot: &Value<'v>,
    variables: &'v BTreeMap<String, String>,
) -> Result<String, LocatedError> {
    let mut evaluation = Evaluator {
        named: &template.named,
        host: FunctionContext { variables, patterns: RegexCache::default() },
        out: BoundedString::new(MAX_BYTES),
        scope: vec![("$", dot.clone())],
        depth: 0,
        left: MAX_WORK,
    };
    evaluation.nodes(&template.body, dot)?;
    Ok(evaluation.out.text)
}

struct Evaluator<'t, 'v> {
    named: &'t BTreeMap<String, Vec<Node<'t>>>,
    host: FunctionContext<'v>,
    out: BoundedString,
    /// Variables by name, the innermost last.
    scope: Vec<(&'t str, Value<'v>)>,
    depth: usize,
    /// Rest of [`MAX_WORK`].
    left: usize,
}

/// Continuation of the evaluation.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t, 'v> Evaluator<'t, 'v> {
    fn nodes(&mut self, nodes: &'t [Node<'t>], dot: &Value<'v>) -> Result<Flow, LocatedError> {
        for node in nodes {
            let known = self.scope.len();
            let flow = match node {
                Node::Text { at, text } => self.write(*at, text)?,
                Node::Value(pipeline) => self.value(pipeline, dot)?,
                Node::If(choice) => self.choice(choice, false, dot)?,
                Node::With(choice) => self.choice(choice, true, dot)?,
                Node::Range(range) => self.range(range, dot)?,
                Node::Template { at, name, with } => self.template(*at, name, with.as_ref(), dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
            if matches!(node, Node::If(_) | Node::With(_) | Node::Range(_)) {
                self.scope.truncate(known);
            }
        }
        Ok(Flow::On)
    }

    fn write(&mut self, at: usize, text: &str) -> Result<Flow, LocatedError> {
        self.out.write_str(text).map(|()| Flow::On).map_err(|_| TemplateErrorKind::Length(MAX_BYTES).at(at))
    }

    /// Writes a value, unless the pipeline declares a variable.
    fn value(&mut self, pipeline: &'t Pipeline<'t>, dot: &Value<'v>) -> Result<Flow, LocatedError> {
        match self.pipeline(pipeline, dot)? {
            _ if !pipeline.variables.is_empty() => Ok(Flow::On),
            Value::Nil => self.write(pipeline.at, "<no value>"),
            value => write!(self.out, "{value}")
                .map(|()| Flow::On)
                .map_err(|_| TemplateErrorKind::Length(MAX_BYTES).at(pipeline.at)),
        }
    }

    fn choice(&mut self, choice: &'t Conditional<'t>, with: bool, dot: &Value<'v>) -> Result<Flow, LocatedError> {
        for (condition, body) in &choice.branches {
            let value = self.pipeline(condition, dot)?;
            if value.is_true() {
                return self.deeper(condition.at, |inner| inner.nodes(body, if with { &value } else { dot }));
            }
        }
        self.nodes(&choice.else_branch, dot)
    }

    fn range(&mut self, range: &'t Range<'t>, dot: &Value<'v>) -> Result<Flow, LocatedError> {
        let Range { over, body, else_branch } = range;
        let value = self.pipeline(over, dot)?;
        let wrong =
            |expected| TemplateErrorKind::Type { what: "range".to_owned(), expected, found: value.kind() }.at(over.at);
        if value.whole().is_some() && over.variables.len() > 1 {
            return Err(wrong("a list or a map for two variables"));
        }
        let elements = value.elements().ok_or_else(|| wrong("a list, a map or a number"))?;
        let known = self.scope.len();
        let mut nothing = true;
        for (key, element) in elements {
            nothing = false;
            self.charge(over.at, STEP_BYTES)?;
            match over.variables.as_slice() {
                [] => {}
                [variable] => self.assign(over.at, variable, &element)?,
                [first, second, ..] => {
                    self.assign(over.at, first, &key)?;
                    self.assign(over.at, second, &element)?;
                }
            }
            let flow = self.deeper(over.at, |inner| inner.nodes(body, &element))?;
            self.scope.truncate(known);
            if flow == Flow::Break {
                return Ok(Flow::On);
            }
        }
        if !nothing {
            return Ok(Flow::On);
        }
        // As in Go, it is this loop that a break ends here.
        Ok(match self.nodes(else_branch, dot)? {
            Flow::Break => Flow::On,
            flow => flow,
        })
    }

    /// Evaluates another template, which sees no variables of this one.
    fn template(
        &mut self,
        at: usize,
        name: &str,
        with: Option<&'t Pipeline<'t>>,
        dot: &Value<'v>,
    ) -> Result<Flow, LocatedError> {
        self.charge(at, STEP_BYTES)?;
        let undefined = || TemplateErrorKind::Undefined { what: "template", name: excerpt(name) }.at(at);
        let nodes = self.named.get(name).ok_or_else(undefined)?;
        let dot = with.map_or(Ok(Value::Nil), |with| self.pipeline(with, dot))?;
        let scope = mem::replace(&mut self.scope, vec![("$", dot.clone())]);
        self.deeper(at, |inner| inner.nodes(nodes, &dot))?;
        self.scope = scope;
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &'t Pipeline<'t>, dot: &Value<'v>) -> Result<Value<'v>, LocatedError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Nil);
        for variable in &pipeline.variables {
            if pipeline.assigns {
                self.assign(pipeline.at, variable, &value)?;
            } else {
                self.scope.push((*variable, value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, at: usize, name: &str, value: &Value<'v>) -> Result<(), LocatedError> {
        self.charge(at, self.scope.len())?;
        let known = self.scope.iter_mut().rfind(|(known, _)| *known == name).ok_or_else(|| undefined(name, at))?;
        known.1 = value.clone();
        Ok(())
    }

    /// Evaluates a command, with the piped value.
    fn command(
        &mut self,
        command: &'t Command<'t>,
        dot: &Value<'v>,
        last: Option<Value<'v>>,
    ) -> Result<Value<'v>, LocatedError> {
        let Command { first, arguments } = command;
        let unexpected = |found: &str, expected: &str| {
            TemplateErrorKind::Unexpected { found: found.to_owned(), expected: expected.to_owned() }.at(first.at)
        };
        match &first.term {
            Term::Function(function) if first.fields.is_empty() => self.call(function, first.at, arguments, dot, last),
            _ if last.is_some() || !arguments.is_empty() => Err(unexpected("argument", "a function to give it to")),
            Term::Nil => Err(unexpected("nil", "a value")),
            _ => self.operand(first, dot),
        }
    }

    fn operand(&mut self, operand: &'t Operand<'t>, dot: &Value<'v>) -> Result<Value<'v>, LocatedError> {
        let Operand { at, term, fields } = operand;
        self.charge(*at, STEP_BYTES)?;
        let mut value = match term {
            Term::Nil => Value::Nil,
            Term::Bool(bool) => Value::Bool(*bool),
            Term::Int(int) => Value::Int(*int),
            Term::Float(float) => Value::Float(*float),
            Term::Text(text) => Value::Text(Rc::clone(text)),
            Term::Dot => dot.clone(),
            Term::Variable(name) => {
                self.charge(*at, self.scope.len())?;
                let known = self.scope.iter().rfind(|(known, _)| known == name);
                known.ok_or_else(|| undefined(name, *at))?.1.clone()
            }
            Term::Function(function) => self.call(function, *at, &[], dot, None)?,
            Term::Pipeline(pipeline) => self.deeper(*at, |inner| inner.pipeline(pipeline, dot))?,
        };
        for field in fields {
            value = match value {
                Value::Map(variables) => Value::variable(variables, field),
                Value::Record(fields) => {
                    let unknown = || TemplateErrorKind::Undefined { what: "field", name: excerpt(field) }.at(*at);
                    fields.get(*field).ok_or_else(unknown)?.into()
                }
                Value::Nil => Value::Nil,
                other => {
                    let what = format!("the value before .{}", excerpt(field));
                    return Err(
                        TemplateErrorKind::Type { what, expected: "map[string]string", found: other.kind() }.at(*at)
                    );
                }
            };
            self.charge(*at, value.cost())?;
        }
        Ok(value)
    }

    /// Calls a function. Its last argument may be the piped value.
    fn call(
        &mut self,
        function: &'static Function,
        at: usize,
        arguments: &'t [Operand<'t>],
        dot: &Value<'v>,
        last: Option<Value<'v>>,
    ) -> Result<Value<'v>, LocatedError> {
        let given = arguments.len() + usize::from(last.is_some());
        let fewest = function.takes.len();
        if given < fewest || given > fewest && !function.more {
            let expected = if function.more { format!("at least {fewest}") } else { fewest.to_string() };
            return Err(TemplateErrorKind::Count { function: function.name, expected, given }.at(at));
        }
        let mut values = Vec::with_capacity(given);
        for argument in arguments {
            let value = self.operand(argument, dot)?;
            check(function, values.len(), &value, argument.at)?;
            if matches!(function.body, FunctionBody::First(truth) if truth == value.is_true()) {
                return Ok(value);
            }
            values.push(value);
        }
        if let Some(last) = last {
            check(function, values.len(), &last, at)?;
            values.push(last);
        }
        let FunctionBody::Call(call) = function.body else { return Ok(values.pop().unwrap_or(Value::Nil)) };
        self.charge(at, values.iter().map(Value::cost).sum())?;
        let value = call(&mut self.host, &values).map_err(|refusal| match refusal {
            FunctionError::Reason(reason) => TemplateErrorKind::Call { function: function.name, reason }.at(at),
            FunctionError::Length => TemplateErrorKind::Length(MAX_BYTES).at(at),
            FunctionError::Work => TemplateErrorKind::Work.at(at),
        })?;
        self.charge(at, value.cost())?;
        Ok(value)
    }

    /// Evaluates this one level deeper.
    fn deeper<T>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Self) -> Result<T, LocatedError>,
    ) -> Result<T, LocatedError> {
        if self.depth == MAX_DEPTH {
            return Err(TemplateErrorKind::Depth(MAX_DEPTH).at(at));
        }
        self.depth += 1;
        let result = act(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn charge(&mut self, at: usize, cost: usize) -> Result<(), LocatedError> {
        self.left = self.left.checked_sub(cost).ok_or_else(|| TemplateErrorKind::Work.at(at))?;
        Ok(())
    }
}

/// Checks the type of an argument at a position.
fn check(function: &Function, position: usize, value: &Value<'_>, at: usize) -> Result<(), LocatedError> {
    let expected = match (function.takes.get(position), value) {
        (Some(ArgKind::Text), value) if !matches!(value, Value::Text(_)) => "string",
        (Some(ArgKind::List), value) if !matches!(value, Value::List(_) | Value::Nil) => "[]string",
        _ => return Ok(()),
    };
    let what = format!("argument {} of {}", position + 1, function.name);
    Err(TemplateErrorKind::Type { what, expected, found: value.kind() }.at(at))
}

fn undefined(name: &str, at: usize) -> LocatedError {
    TemplateErrorKind::Undefined { what: "variable", name: excerpt(name) }.at(at)
}
