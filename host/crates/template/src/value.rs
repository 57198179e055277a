//! Values of templates.

use std::{collections::BTreeMap, iter, rc::Rc};

use super::{STEP_BYTES, data::Data};

/// A value, cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'v> {
    Nil,
    Bool(bool),
    Int(i64),
    /// A byte of a text.
    Byte(u8),
    Float(f64),
    Text(Rc<str>),
    List(Rc<[Rc<str>]>),
    /// The variables.
    Map(&'v BTreeMap<String, String>),
    /// A list of data other than texts.
    Items(&'v [Data]),
    /// A record of data.
    Record(&'v BTreeMap<&'static str, Data>),
}

impl<'v> Value<'v> {
    /// Returns whether it counts as true: it is not empty and not zero.
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
            Self::Items(items) => !items.is_empty(),
            // As a struct in Go.
            Self::Record(_) => true,
        }
    }

    /// Returns the name of its type in Go.
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
            Self::Items(_) => "[]struct",
            Self::Record(_) => "struct",
        }
    }

    /// Returns the number of its bytes or elements, if its type has any.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::List(list) => Some(list.len()),
            Self::Map(map) => Some(map.len()),
            Self::Items(items) => Some(items.len()),
            _ => None,
        }
    }

    /// Returns the cost of processing it.
    pub(super) fn cost(&self) -> usize {
        let each = if matches!(self, Self::Text(_)) { 1 } else { STEP_BYTES };
        self.length().unwrap_or_default().saturating_mul(each)
    }

    /// Returns its text, or an empty one if it is not a text.
    pub(super) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// Returns its whole number, if it is one.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Byte(byte) => Some((*byte).into()),
            _ => None,
        }
    }

    /// Iterates over its elements with their keys. None if it has no elements.
    pub(super) fn elements(&self) -> Option<Box<dyn Iterator<Item = (Self, Self)> + 'v>> {
        let text = |text: &String| Self::Text(text.as_str().into());
        match self {
            Self::Nil => Some(Box::new(iter::empty())),
            Self::Int(_) | Self::Byte(_) => {
                Some(Box::new((0..self.whole().unwrap_or_default()).map(|number| (Self::Nil, Self::Int(number)))))
            }
            Self::List(list) => {
                let list = Rc::clone(list);
                let texts = (0..list.len()).filter_map(move |position| list.get(position).cloned());
                Some(Box::new((0..).zip(texts).map(|(position, text)| (Self::Int(position), Self::Text(text)))))
            }
            Self::Map(map) => Some(Box::new(map.iter().map(move |(name, value)| (text(name), text(value))))),
            Self::Items(items) => {
                Some(Box::new((0..).zip(*items).map(|(position, item)| (Self::Int(position), item.into()))))
            }
            Self::Bool(_) | Self::Float(_) | Self::Text(_) | Self::Record(_) => None,
        }
    }

    /// Returns a variable, empty if it is not set.
    pub(super) fn variable(variables: &'v BTreeMap<String, String>, name: &str) -> Self {
        Self::Text(variables.get(name).map_or("", String::as_str).into())
    }
}

impl<'v> From<&'v Data> for Value<'v> {
    fn from(data: &'v Data) -> Self {
        match data {
            Data::Text(text) => Self::Text(text.as_str().into()),
            Data::Number(number) => Self::Int(*number),
            Data::Texts(texts) => Self::List(texts.iter().map(|text| text.as_str().into()).collect()),
            Data::List(items) => Self::Items(items),
            Data::Record(fields) => Self::Record(fields),
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
