//! The functions that a template can call: Go's own, those that ContainerPilot added, and `json`.
//!
//! How many arguments there are, and of which types, is checked before a function is called.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    rc::Rc,
};

use super::{
    LONGEST, STEP, compare, escape,
    format::{self, Bounded},
    pattern::{PatternError, Patterns},
    value::Value,
};

/// A function by its name.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) takes: &'static [Kind],
    /// Whether any number of other values may follow.
    pub(super) more: bool,
    pub(super) body: Body,
}

/// What an argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Text,
    /// Or nil, which is an empty one.
    List,
}

/// How a function comes to its value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// It is the first argument with this truth, or else the last; those after it are not looked at.
    First(bool),
    /// It is made of all arguments.
    Call(Call),
}

type Call = for<'v> fn(&mut Host<'v>, &[Value<'v>]) -> Result<Value<'v>, Refusal>;

/// What functions need besides their arguments.
#[derive(Debug)]
pub(super) struct Host<'v> {
    pub(super) variables: &'v BTreeMap<String, String>,
    pub(super) patterns: Patterns,
}

/// Why a function has no value for its arguments.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    Reason(String),
    /// The value would be too long.
    Length,
    /// It takes too long.
    Work,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// A [`Bounded`] text is full.
impl From<fmt::Error> for Refusal {
    fn from(_: fmt::Error) -> Self {
        Self::Length
    }
}

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        match error {
            PatternError::Bad(reason) => Self::Reason(reason),
            PatternError::Text => Self::Reason("the text is too long to be searched".to_owned()),
            PatternError::Length => Self::Length,
            PatternError::Time => Self::Work,
        }
    }
}

/// The function of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const fn exactly(name: &'static str, takes: &'static [Kind], call: Call) -> Function {
    Function { name, takes, more: false, body: Body::Call(call) }
}

const fn at_least(name: &'static str, takes: &'static [Kind], call: Call) -> Function {
    Function { name, takes, more: true, body: Body::Call(call) }
}

const ONE: &[Kind] = &[Kind::Any];
const TWO: &[Kind] = &[Kind::Any; 2];

static FUNCTIONS: [Function; 25] = [
    Function { name: "and", takes: ONE, more: true, body: Body::First(false) },
    Function { name: "or", takes: ONE, more: true, body: Body::First(true) },
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
    at_least("printf", &[Kind::Text], |_, values| {
        written(|out| format::printf(out, text(values, 0), values.get(1..).unwrap_or_default()))
    }),
    at_least("html", &[], |_, values| Ok(escape::html(&plain(values)?).into())),
    at_least("js", &[], |_, values| Ok(escape::js(&plain(values)?).into())),
    at_least("urlquery", &[], |_, values| Ok(escape::url_query(&plain(values)?).into())),
    exactly("default", TWO, |_, values| match value(values, 1) {
        Value::Text(text) if !text.is_empty() => Ok(Value::Text(text)),
        _ => written(|out| format::print(out, values.get(..1).unwrap_or_default())),
    }),
    exactly("env", &[Kind::Text], |host, values| Ok(Value::variable(host.variables, text(values, 0)))),
    exactly("json", ONE, |_, values| json(&value(values, 0))),
    exactly("split", &[Kind::Text; 2], |_, values| split(text(values, 0), text(values, 1))),
    exactly("join", &[Kind::Text, Kind::List], |_, values| join(text(values, 0), &value(values, 1))),
    exactly("replaceAll", &[Kind::Text; 3], |_, values| replace_all(text(values, 0), text(values, 1), text(values, 2))),
    exactly("regexReplaceAll", &[Kind::Text; 3], |host, values| {
        let (pattern, to, text) = (text(values, 0), text(values, 1), text(values, 2));
        Ok(host.patterns.replace_all(pattern, to, text, LONGEST)?.into())
    }),
];

fn value<'v>(values: &[Value<'v>], place: usize) -> Value<'v> {
    values.get(place).cloned().unwrap_or(Value::Nil)
}

fn text<'a>(values: &'a [Value<'_>], place: usize) -> &'a str {
    values.get(place).map_or("", Value::text)
}

/// What is written, unless that is too long.
fn written<'v>(write: impl FnOnce(&mut Bounded) -> fmt::Result) -> Result<Value<'v>, Refusal> {
    let mut out = Bounded::new(LONGEST);
    write(&mut out)?;
    Ok(out.text.into())
}

/// What is to be escaped.
fn plain(values: &[Value<'_>]) -> Result<String, Refusal> {
    let shown: Vec<_> = values
        .iter()
        .map(|value| if *value == Value::Nil { "<no value>".to_owned().into() } else { value.clone() })
        .collect();
    let mut out = Bounded::new(LONGEST);
    format::print(&mut out, &shown)?;
    Ok(out.text)
}

fn ordered<'v>(values: &[Value<'v>], decide: fn(bool, bool) -> bool) -> Result<Value<'v>, Refusal> {
    let (left, right) = (value(values, 0), value(values, 1));
    Ok(Value::Bool(decide(compare::is_less(&left, &right)?, compare::is_equal(&left, &right)?)))
}

fn length<'v>(value: &Value<'v>) -> Result<Value<'v>, Refusal> {
    let length = value.length().ok_or_else(|| format!("{} has no length", value.kind()))?;
    Ok(Value::Int(length.try_into().unwrap_or(i64::MAX)))
}

/// A byte of a text, an element of a list or one of the variables, by its place or name.
fn index<'v>(values: &[Value<'v>]) -> Result<Value<'v>, Refusal> {
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
            _ => return Err(format!("{} has no elements", item.kind()).into()),
        };
    }
    Ok(item)
}

fn element<'a, T>(elements: &'a [T], index: &Value<'_>) -> Result<&'a T, Refusal> {
    let place = place(index, elements.len())?;
    elements.get(place).ok_or_else(|| format!("index out of range: {place}").into())
}

/// An index that is no more than this.
fn place(index: &Value<'_>, most: usize) -> Result<usize, Refusal> {
    let Some(number) = index.whole() else {
        return Err(format!("expected a number as the index, got {}", index.kind()).into());
    };
    let place = usize::try_from(number).ok().filter(|place| *place <= most);
    place.ok_or_else(|| format!("index out of range: {number}").into())
}

/// From the first index to before the second. A third one, which limits how far a list can grow in Go, changes nothing.
fn slice<'v>(values: &[Value<'v>]) -> Result<Value<'v>, Refusal> {
    let (item, indexes) = (value(values, 0), values.get(1..).unwrap_or_default());
    let most = match &item {
        Value::Text(text) if indexes.len() < 3 => text.len(),
        Value::List(list) if indexes.len() < 4 => list.len(),
        Value::Text(_) | Value::List(_) => return Err("too many indexes".to_owned().into()),
        _ => return Err(format!("{} cannot be sliced", item.kind()).into()),
    };
    let places: Vec<usize> = indexes.iter().map(|index| place(index, most)).collect::<Result<_, _>>()?;
    if !places.is_sorted() {
        return Err("the indexes are not in order".to_owned().into());
    }
    let range = places.first().copied().unwrap_or(0)..places.get(1).copied().unwrap_or(most);
    Ok(match &item {
        Value::List(list) => Value::List(list.get(range).unwrap_or_default().into()),
        item => String::from_utf8_lossy(item.text().as_bytes().get(range).unwrap_or_default()).into_owned().into(),
    })
}

/// The pieces between separators; none of a blank text.
fn split<'v>(separator: &str, text: &str) -> Result<Value<'v>, Refusal> {
    let text = text.trim();
    if text.matches(separator).count() > LONGEST / STEP {
        return Err(Refusal::Length);
    }
    Ok(Value::List(match (text, separator) {
        ("", _) => Rc::from([]),
        (_, "") => text.chars().map(|char| char.to_string().into()).collect(),
        _ => text.split(separator).map(Rc::from).collect(),
    }))
}

fn join<'v>(separator: &str, list: &Value<'v>) -> Result<Value<'v>, Refusal> {
    let Value::List(list) = list else { return Ok(String::new().into()) };
    written(|out| {
        list.iter().enumerate().try_for_each(|(place, text)| {
            let before = if place == 0 { "" } else { separator };
            write!(out, "{before}{text}")
        })
    })
}

fn replace_all<'v>(from: &str, to: &str, text: &str) -> Result<Value<'v>, Refusal> {
    let places = text.matches(from).count();
    let kept = text.len() - places * from.len();
    if kept.saturating_add(places.saturating_mul(to.len())) > LONGEST {
        return Err(Refusal::Length);
    }
    Ok(text.replace(from, to).into())
}

/// As it stands in a JSON text, a string with its quotes.
fn json<'v>(value: &Value<'v>) -> Result<Value<'v>, Refusal> {
    let text = match value {
        Value::Nil => Ok("null".to_owned()),
        Value::Bool(bool) => serde_json::to_string(bool),
        Value::Int(int) => serde_json::to_string(int),
        Value::Byte(byte) => serde_json::to_string(byte),
        Value::Float(float) => serde_json::to_string(float),
        Value::Text(text) => serde_json::to_string(&**text),
        Value::List(list) => serde_json::to_string(&list.iter().map(|text| &**text).collect::<Vec<_>>()),
        Value::Map(map) => serde_json::to_string(map),
    };
    text.map(Value::from).map_err(|error| error.to_string().into())
}
