//! A template as the tree that it stands for.

use std::{collections::BTreeMap, rc::Rc};

use super::functions::Function;

/// What a text says.
#[derive(Debug, Default)]
pub(super) struct Template<'t> {
    pub(super) body: Vec<Node<'t>>,
    /// What `{{define}}` and `{{block}}` gave a name.
    pub(super) named: BTreeMap<String, Vec<Node<'t>>>,
}

/// A piece of what is written out.
#[derive(Debug)]
pub(super) enum Node<'t> {
    Text {
        at: usize,
        text: &'t str,
    },
    /// What is written out unless it declares a variable.
    Value(Pipeline<'t>),
    If(Choice<'t>),
    With(Choice<'t>),
    Range(Range<'t>),
    Template {
        at: usize,
        name: String,
        with: Option<Pipeline<'t>>,
    },
    Break,
    Continue,
}

/// The first branch whose condition is true, or else the last.
#[derive(Debug)]
pub(super) struct Choice<'t> {
    pub(super) branches: Vec<(Pipeline<'t>, Vec<Node<'t>>)>,
    pub(super) otherwise: Vec<Node<'t>>,
}

/// What is done for each element, or else when there is none.
#[derive(Debug)]
pub(super) struct Range<'t> {
    pub(super) over: Pipeline<'t>,
    pub(super) body: Vec<Node<'t>>,
    pub(super) otherwise: Vec<Node<'t>>,
}

/// Commands, each given the value of the one before it as its last argument; the value of the last is kept in variables.
#[derive(Debug)]
pub(super) struct Pipeline<'t> {
    pub(super) at: usize,
    pub(super) variables: Vec<&'t str>,
    /// Whether the variables are there already.
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

/// Where a value comes from.
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
