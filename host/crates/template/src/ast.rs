//! Tree of a template.

use std::{collections::BTreeMap, rc::Rc};

use super::functions::Function;

/// A parsed template.
#[derive(Debug, Default)]
pub(super) struct Template<'t> {
    pub(super) body: Vec<Node<'t>>,
    /// Named templates, by `{{define}}` and `{{block}}`.
    pub(super) named: BTreeMap<String, Vec<Node<'t>>>,
}

/// Node of a template.
#[derive(Debug)]
pub(super) enum Node<'t> {
    Text {
        at: usize,
        text: &'t str,
    },
    /// A value to write, unless it declares a variable.
    Value(Pipeline<'t>),
    If(Conditional<'t>),
    With(Conditional<'t>),
    Range(Range<'t>),
    Template {
        at: usize,
        name: String,
        with: Option<Pipeline<'t>>,
    },
    Break,
    Continue,
}

/// Branches, of which the first with a true condition is evaluated, or else the last.
#[derive(Debug)]
pub(super) struct Conditional<'t> {
    pub(super) branches: Vec<(Pipeline<'t>, Vec<Node<'t>>)>,
    pub(super) else_branch: Vec<Node<'t>>,
}

/// A loop over elements, with a branch for none.
#[derive(Debug)]
pub(super) struct Range<'t> {
    pub(super) over: Pipeline<'t>,
    pub(super) body: Vec<Node<'t>>,
    pub(super) else_branch: Vec<Node<'t>>,
}

/// Commands, each with the value of the one before it as its last argument. Variables store the value of the last.
#[derive(Debug)]
pub(super) struct Pipeline<'t> {
    pub(super) at: usize,
    pub(super) variables: Vec<&'t str>,
    /// Whether the variables are assigned instead of declared.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command<'t>>,
}

/// A value, or a function with its arguments.
#[derive(Debug)]
pub(super) struct Command<'t> {
    pub(super) first: Operand<'t>,
    pub(super) arguments: Vec<Operand<'t>>,
}

/// A value, or a field of one.
#[derive(Debug)]
pub(super) struct Operand<'t> {
    pub(super) at: usize,
    pub(super) term: Term<'t>,
    pub(super) fields: Vec<&'t str>,
}

/// Source of a value.
#[derive(Debug)]
pub(super) enum Term<'t> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    Dot,
    Variable(&'t str),
    Function(&'static Function),
    Pipeline(Box<Pipeline<'t>>),
}
