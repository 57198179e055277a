//! Functions of templates: Go's, those that ContainerPilot added, and `json`.
//!
//! Number and types of the arguments are checked before a function is called.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    rc::Rc,
};

use super::{
    MAX_BYTES, STEP_BYTES, compare, escape,
    format::{self, BoundedString},
    regex::{RegexCache, RegexError},
    value::Value,
};

/// A function and its signature.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Required arguments.
    pub(super) takes: &'static [ArgKind],
    /// Whether more values may follow.
    pub(super) more: bool,
    pub(super) body: FunctionBody,
}

/// Type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgKind {
    Any,
    Text,
    /// A list, or nil for an empty one.
    List,
}

/// Implementation of a function.
#[derive(Debug, Clone, Copy)]
pub(super) enum FunctionBody {
    /// Returns the first argument with this truth, or else the last; those after it are not evaluated.
    First(bool),
    /// Called with all arguments.
    Call(Call),
}

type Call = for<'v> fn(&mut FunctionContext<'v>, &[Value<'v>]) -> Result<Value<'v>, FunctionError>;

/// State of functions in addition to their arguments.
#[derive(Debug)]
pub(super) struct FunctionContext<'v> {
    pub(super) variables: &'v BTreeMap<String, String>,
    pub(super) patterns: RegexCache,
}

/// Cause of a failed call.
#[derive(Debug, PartialEq)]
pub(super) enum FunctionError {
    Reason(String),
    /// The result would be too long.
    Length,
    /// The call takes too long.
    Work,
}

impl From<String> for FunctionError {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// A [`BoundedString`] is full.
impl From<fmt::Error> for FunctionError {
    fn from(_: fmt::Error) -> Self {
        Self::Length
    }
}

impl From<RegexError> for FunctionError {
    fn from(error: RegexError) -> Self {
        match error {
            RegexError::Bad(reason) => Self::Reason(reason),
            RegexError::Text => Self::Reason("text too long to be searched".to_owned()),
            RegexError::Length => Self::Length,
            RegexError::Time => Self::Work,
        }
    }
}

/// Finds a function by name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const fn exactly(name: &'static str, takes: &'static [ArgKind], call: Call) -> Function {
    Function { name, takes, more: false, body: FunctionBody::Call(call) }
}

const fn at_least(name: &'static str, takes: &'static [ArgKind], call: Call) -> Function {
    Function { name, takes, more: true, body: FunctionBody::Call(call) }
}

const ONE: &[ArgKind] = &[ArgKind::Any];
const TWO: &[ArgKind] = &[ArgKind::Any; 2];

static FUNCTIONS: [Function; 25] = [
    Function { name: "and", takes: ONE, more: true, body: FunctionBody::First(false) },
    Function { name: "or", takes: ONE, more: true, body: FunctionBody::First(true) },
    exactly("not", ONE, |_, values| Ok(Value::Bool(!value(values, 0).is_true()))),
    at_least("eq", ONE, |_, values| Ok(Value::Bool(compare::equals_any(values)?))),
    exactly("ne", TWO, |_, values| Ok(Value::Bool(!compare::equals_any(values)?))),
    exactly("lt", TWO, |_, values| ordered(values, |less, _| less)),
    exactly("le", TWO, |_, values| ordered(values, |less, equal| less || equal)),
    exactly("gt", TWO, |_, values| ordered(values, |less, equal| !less && !equal)),
    exactly("ge", TWO, |_, values| ordered(values, |less, _| !less)),
    exactly("len", ONE, |_, values| length(&value(values, 0))),
    at_least("index", ONE, |_, values| index(values)),
    at_least("slice", ONE, |_, values| slice(values)),
    at_least("print", &[], |_, values| written(|out| format::print(out, values))),
    at_least("println", &[], |_, values| written(|out| format::println(out, values))),
    at_least("printf", &[ArgKind::Text], |_, values| {
        written(|out| format::printf(out, text(values, 0), values.get(1..).unwrap_or_default()))
    }),
    at_least("html", &[], |_, values| Ok(escape::html(&plain(values)?).into())),
    at_least("js", &[], |_, values| Ok(escape::js(&plain(values)?).into())),
    at_least("urlquery", &[], |_, values| Ok(escape::url_query(&plain(values)?).into())),
    exactly("default", TWO, |_, values| match value(values, 1) {
        Value::Text(text) if !text.is_empty() => Ok(Value::Text(text)),
        _ => written(|out| format::print(out, values.get(..1).unwrap_or_default())),
    }),
    exactly("env", &[ArgKind::Text], |host, values| Ok(Value::variable(host.variables, text(values, 0)))),
    exactly("json", ONE, |_, values| json(&value(values, 0))),
    exactly("split", &[ArgKind::Text; 2], |_, values| split(text(values, 0), text(values, 1))),
    exactly("join", &[ArgKind::Text, ArgKind::List], |_, values| join(text(values, 0), &value(values, 1))),
    exactly("replaceAll", &[ArgKind::Text; 3], |_, values| {
        replace_all(text(values, 0), text(values, 1), text(values, 2))
    }),
    exactly("regexReplaceAll", &[ArgKind::Text; 3], |host, values| {
        let (pattern, to, text) = (text(values, 0), text(values, 1), text(values, 2));
        Ok(host.patterns.replace_all(pattern, to, text, MAX_BYTES)?.into())
    }),
];

fn value<'v>(values: &[Value<'v>], position: usize) -> Value<'v> {
    values.get(position).cloned().unwrap_or(Value::Nil)
}

fn text<'a>(values: &'a [Value<'_>], position: usize) -> &'a str {
    values.get(position).map_or("", Value::text)
}

/// Returns the written text, unless it is too long.
fn written<'v>(write: impl FnOnce(&mut BoundedString) -> fmt::Result) -> Result<Value<'v>, FunctionError> {
    let mut out = BoundedString::new(MAX_BYTES);
    write(&mut out)?;
    Ok(out.text.into())
}

/// Prints the values that are to be escaped.
fn plain(values: &[Value<'_>]) -> Result<String, FunctionError> {
    let excerpt: Vec<_> = values
        .iter()
        .map(|value| if *value == Value::Nil { "<no value>".to_owned().into() } else { value.clone() })
        .collect();
    let mut out = BoundedString::new(MAX_BYTES);
    format::print(&mut out, &excerpt)?;
    Ok(out.text)
}

fn ordered<'v>(values: &[Value<'v>], decide: fn(bool, bool) -> bool) -> Result<Value<'v>, FunctionError> {
    let (left, right) = (value(values, 0), value(values, 1));
    Ok(Value::Bool(decide(compare::is_less(&left, &right)?, compare::is_equal(&left, &right)?)))
}

fn length<'v>(value: &Value<'v>) -> Result<Value<'v>, FunctionError> {
    let length = value.length().ok_or_else(|| format!("{} has no length", value.kind()))?;
    Ok(Value::Int(length.try_into().unwrap_or(i64::MAX)))
}

/// Returns a byte of a text, an element of a list or a variable, by index or name.
fn index<'v>(values: &[Value<'v>]) -> Result<Value<'v>, FunctionError> {
    let mut item = value(values, 0);
    if item == Value::Nil {
        return Err("nil has no elements".to_owned().into());
    }
    for index in values.iter().skip(1) {
        item = match (&item, index) {
            (Value::Map(variables), Value::Text(name)) => Value::variable(variables, name),
            (Value::Map(_), _) => return Err(format!("expected a string as the index, got {}", index.kind()).into()),
            (Value::Text(text), _) => Value::Byte(*element(text.as_bytes(), index)?),
            (Value::List(list), _) => Value::Text(Rc::clone(element(list, index)?)),
            (Value::Items(items), _) => element(items, index)?.into(),
            _ => return Err(format!("{} has no elements", item.kind()).into()),
        };
    }
    Ok(item)
}

fn element<'a, T>(elements: &'a [T], index: &Value<'_>) -> Result<&'a T, FunctionError> {
    let position = position(index, elements.len())?;
    elements.get(position).ok_or_else(|| format!("index out of range: {position}").into())
}

/// Converts an index of at most this.
fn position(index: &Value<'_>, max: usize) -> Result<usize, FunctionError> {
    let Some(number) = index.whole() else {
        return Err(format!("expected a number as the index, got {}", index.kind()).into());
    };
    let position = usize::try_from(number).ok().filter(|position| *position <= max);
    position.ok_or_else(|| format!("index out of range: {number}").into())
}

/// Returns the part from the first index to before the second. A third one, a list's capacity in Go, has no effect.
fn slice<'v>(values: &[Value<'v>]) -> Result<Value<'v>, FunctionError> {
    let (item, indexes) = (value(values, 0), values.get(1..).unwrap_or_default());
    let max = match &item {
        Value::Text(text) if indexes.len() < 3 => text.len(),
        Value::List(list) if indexes.len() < 4 => list.len(),
        Value::Items(items) if indexes.len() < 4 => items.len(),
        Value::Text(_) | Value::List(_) | Value::Items(_) => return Err("too many indexes".to_owned().into()),
        _ => return Err(format!("{} cannot be sliced", item.kind()).into()),
    };
    let places: Vec<usize> = indexes.iter().map(|index| position(index, max)).collect::<Result<_, _>>()?;
    if !places.is_sorted() {
        return Err("the indexes are not in order".to_owned().into());
    }
    let range = places.first().copied().unwrap_or(0)..places.get(1).copied().unwrap_or(max);
    Ok(match &item {
        Value::List(list) => Value::List(list.get(range).unwrap_or_default().into()),
        Value::Items(items) => Value::Items(items.get(range).unwrap_or_default()),
        item => String::from_utf8_lossy(item.text().as_bytes().get(range).unwrap_or_default()).into_owned().into(),
    })
}

/// Splits a text at separators. A blank text has no pieces.
fn split<'v>(separator: &str, text: &str) -> Result<Value<'v>, FunctionError> {
    let text = text.trim();
    if text.matches(separator).count() > MAX_BYTES / STEP_BYTES {
        return Err(FunctionError::Length);
    }
    Ok(Value::List(match (text, separator) {
        ("", _) => Rc::from([]),
        (_, "") => text.chars().map(|char| char.to_string().into()).collect(),
        _ => text.split(separator).map(Rc::from).collect(),
    }))
}

fn join<'v>(separator: &str, list: &Value<'v>) -> Result<Value<'v>, FunctionError> {
    let Value::List(list) = list else { return Ok(String::new().into()) };
    written(|out| {
        list.iter().enumerate().try_for_each(|(position, text)| {
            let before = if position == 0 { "" } else { separator };
            write!(out, "{before}{text}")
        })
    })
}

fn replace_all<'v>(from: &str, to: &str, text: &str) -> Result<Value<'v>, FunctionError> {
    let places = text.matches(from).count();
    let rest = text.len() - places * from.len();
    if rest.saturating_add(places.saturating_mul(to.len())) > MAX_BYTES {
        return Err(FunctionError::Length);
    }
    Ok(text.replace(from, to).into())
}

/// Converts a value to JSON, a string with its quotes.
fn json<'v>(value: &Value<'v>) -> Result<Value<'v>, FunctionError> {
    let text = match value {
        Value::Nil => Ok("null".to_owned()),
        Value::Bool(bool) => serde_json::to_string(bool),
        Value::Int(int) => serde_json::to_string(int),
        Value::Byte(byte) => serde_json::to_string(byte),
        Value::Float(float) => serde_json::to_string(float),
        Value::Text(text) => serde_json::to_string(&**text),
        Value::List(list) => serde_json::to_string(&list.iter().map(|text| &**text).collect::<Vec<_>>()),
        Value::Map(map) => serde_json::to_string(map),
        Value::Items(items) => serde_json::to_string(items),
        Value::Record(fields) => serde_json::to_string(fields),
    };
    text.map(Value::from).map_err(|error| error.to_string().into())
}
