//! The values of a template.

use std::{collections::BTreeMap, iter, rc::Rc};

use super::STEP;

/// A value; to copy one costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'v> {
    Nil,
    Bool(bool),
    Int(i64),
    /// A byte of a text, by its number.
    Byte(u8),
    Float(f64),
    Text(Rc<str>),
    List(Rc<[Rc<str>]>),
    /// The variables.
    Map(&'v BTreeMap<String, String>),
}

impl<'v> Value<'v> {
    /// Whether it counts as true: it is not empty and not zero.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(bool) => *bool,
            Self::Int(int) => *int != 0,
            Self::Byte(byte) => *byte != 0,
            Self::Float(float) => *float != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// The name of its type in Go.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]string",
            Self::Map(_) => "map[string]string",
        }
    }

    /// How many bytes or elements it has, if it is of those that have any.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::List(list) => Some(list.len()),
            Self::Map(map) => Some(map.len()),
            _ => None,
        }
    }

    /// What it costs to look at it.
    pub(super) fn cost(&self) -> usize {
        let each = if matches!(self, Self::Text(_)) { 1 } else { STEP };
        self.length().unwrap_or_default().saturating_mul(each)
    }

    /// Its text; empty where it is none.
    pub(super) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// Its whole number, if it is one.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Byte(byte) => Some((*byte).into()),
            _ => None,
        }
    }

    /// What a loop goes through, with the keys; none if it cannot.
    pub(super) fn elements(&self) -> Option<Box<dyn Iterator<Item = (Self, Self)> + 'v>> {
        let text = |text: &String| Self::Text(text.as_str().into());
        match self {
            Self::Nil => Some(Box::new(iter::empty())),
            Self::Int(_) | Self::Byte(_) => {
                Some(Box::new((0..self.whole().unwrap_or_default()).map(|number| (Self::Nil, Self::Int(number)))))
            }
            Self::List(list) => {
                let list = Rc::clone(list);
                let texts = (0..list.len()).filter_map(move |place| list.get(place).cloned());
                Some(Box::new((0..).zip(texts).map(|(place, text)| (Self::Int(place), Self::Text(text)))))
            }
            Self::Map(map) => Some(Box::new(map.iter().map(move |(name, value)| (text(name), text(value))))),
            Self::Bool(_) | Self::Float(_) | Self::Text(_) => None,
        }
    }

    /// One of the variables, empty where there is none of the name.
    pub(super) fn variable(variables: &'v BTreeMap<String, String>, name: &str) -> Self {
        Self::Text(variables.get(name).map_or("", String::as_str).into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
