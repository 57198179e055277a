//! Values of a configuration with their names, for reading and error reporting.
//!
//! A reader takes a [`Field`] and returns its meaning, or `None` after it recorded an error. Reading continues after errors,
//! so that all of them are found. Readers request each key of an [`Object`] by name; keys never requested are unknown.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Display,
};

use ochopod_json5::{Member, Node, Position, Value};

use super::diagnostic::Diagnostics;

/// Maximum length of an invalid value repeated in an error, in characters.
const MAX_EXCERPT_CHARS: usize = 60;
/// Maximum length of an unknown key that is compared with known ones, in bytes.
const MAX_KEY_BYTES: usize = 40;
/// Minimum similarity (0 to 1) at which a known key is suggested for an unknown one.
const MIN_SIMILARITY: f64 = 0.8;

/// A value with its name in errors, such as `services[0].ttl`.
pub(super) struct Field<'n, 't> {
    name: String,
    node: &'n Node<'t>,
    diagnostics: &'n mut Diagnostics,
}

impl<'n, 't> Field<'n, 't> {
    /// Returns the field of the whole configuration.
    pub(super) fn root(node: &'n Node<'t>, diagnostics: &'n mut Diagnostics) -> Self {
        Self { name: String::new(), node, diagnostics }
    }

    pub(super) fn value(&self) -> &'n Value<'t> {
        &self.node.value
    }

    /// Returns the value as written in the text.
    pub(super) fn written(&self) -> &'t str {
        self.node.written
    }

    /// Returns a string, or a number as it is written.
    pub(super) fn as_text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Number(_) => Some(self.node.written),
            _ => None,
        }
    }

    /// Borrows the field again, so that errors can be recorded after a part of it was read.
    pub(super) fn reborrow(&mut self) -> Field<'_, 't> {
        Field { name: self.name.clone(), node: self.node, diagnostics: self.diagnostics }
    }

    /// Returns what was read of the value, or records it as invalid.
    pub(super) fn require<T>(self, read: Option<T>, expected: impl Display) -> Option<T> {
        read.or_else(|| self.invalid(expected))
    }

    /// Records the value as invalid or missing.
    pub(super) fn invalid<T>(self, expected: impl Display) -> Option<T> {
        match excerpt(self.node.written) {
            missing if missing.is_empty() => self.error(format_args!("missing, expected {expected}")),
            found => self.error(format_args!("invalid value {found}, expected {expected}")),
        }
    }

    /// Records the value as invalid, with a reason.
    pub(super) fn invalid_because<T>(self, reason: impl Display, expected: impl Display) -> Option<T> {
        match excerpt(self.node.written) {
            missing if missing.is_empty() => self.invalid(expected),
            found => self.error(format_args!("invalid value {found} ({reason}), expected {expected}")),
        }
    }

    /// Records an error that does not repeat the value, which may be a secret.
    pub(super) fn error<T>(mut self, text: impl Display) -> Option<T> {
        self.add_error(text);
        None
    }

    /// Records an error of a value whose meaning is known nevertheless.
    pub(super) fn add_error(&mut self, text: impl Display) {
        let name = if self.name.is_empty() { "configuration" } else { &self.name };
        self.diagnostics.error(self.node.at, &format!("{name}: {text}"));
    }

    /// Records a warning about the value.
    pub(super) fn warning(&mut self, text: impl Display) {
        self.diagnostics.warning(self.node.at, &format!("{}: {text}", self.name));
    }

    /// Reads an object, and records keys that were never requested as unknown.
    pub(super) fn object<T>(self, read: impl FnOnce(&mut Object<'_, 't>) -> Option<T>) -> Option<T> {
        let Value::Object(members) = &self.node.value else { return self.invalid("an object") };
        let mut object = Object {
            name: self.name,
            at: self.node.at,
            members: BTreeMap::new(),
            known: Vec::new(),
            diagnostics: self.diagnostics,
        };
        for member in members {
            object.insert(member);
        }
        let result = read(&mut object);
        object.close();
        result
    }

    /// Reads a list, leaving invalid items out. `expected` describes the list in errors.
    pub(super) fn list<T>(self, expected: &str, mut read: impl FnMut(Field<'_, 't>) -> Option<T>) -> Option<Vec<T>> {
        let Value::List(items) = &self.node.value else { return self.invalid(expected) };
        let named = |index| format!("{}[{index}]", self.name);
        let items = items.iter().enumerate();
        Some(
            items.filter_map(|(i, node)| read(Field { name: named(i), node, diagnostics: self.diagnostics })).collect(),
        )
    }
}

/// An object that is being read.
pub(super) struct Object<'n, 't> {
    name: String,
    at: Position,
    members: BTreeMap<&'n str, &'n Member<'t>>,
    known: Vec<&'static str>,
    diagnostics: &'n mut Diagnostics,
}

impl<'n, 't> Object<'n, 't> {
    fn insert(&mut self, member: &'n Member<'t>) {
        match self.members.entry(&member.key) {
            Entry::Vacant(vacant) => {
                vacant.insert(member);
            }
            Entry::Occupied(first) => {
                let name = named(&self.name, &excerpt(&member.key));
                let text = format!("{name}: duplicate key, first defined at {}", first.get().at);
                self.diagnostics.error(member.at, &text);
            }
        }
    }

    /// Returns the value of a key, unless it is missing or null.
    fn node(&self, key: &str) -> Option<&'n Node<'t>> {
        self.members.get(key).map(|member| &member.value).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Reads the value of an optional key. `None` if it is missing or null, and after errors were recorded.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let node = self.node(key)?;
        read(Field { name: named(&self.name, key), node, diagnostics: self.diagnostics })
    }

    /// Reads the value of a required key. Readers reject null, which also stands for a missing value.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let missing = Node { at: self.at, written: "", value: Value::Null };
        let node = self.members.get(key).map_or(&missing, |member| &member.value);
        read(Field { name: named(&self.name, key), node, diagnostics: self.diagnostics })
    }

    /// Reads a list of objects; empty if the key is missing.
    pub(super) fn objects<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Object<'_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let list = self.optional(key, |field| field.list("a list of objects", |item| item.object(&mut read)));
        list.unwrap_or_default()
    }

    /// Returns whether a key has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Returns the position of the value of a key, or of the object if the key has no value.
    pub(super) fn at(&self, key: &str) -> Position {
        self.node(key).map_or(self.at, |node| node.at)
    }

    /// Records an error of the object as a whole.
    pub(super) fn add_error(&mut self, text: &str) {
        self.diagnostics.error(self.at, text);
    }

    /// Records an error of a value that was read.
    pub(super) fn error(&mut self, key: &str, text: impl Display) {
        let (at, name) = (self.at(key), named(&self.name, key));
        self.diagnostics.error(at, &format!("{name}: {text}"));
    }

    /// Records an error of the value at this path of keys. If the value is missing, the error names the variable that
    /// provides it, or else the part of the path that exists.
    pub(super) fn error_within(&mut self, path: &[&str], variable: Option<&str>, text: &str) {
        let (mut name, mut at) = (self.name.clone(), self.at);
        let mut found = path.split_first().and_then(|(key, rest)| Some((*key, self.node(key)?, rest)));
        let mut is_whole = false;
        while let Some((key, node, rest)) = found {
            (name, at) = (named(&name, key), node.at);
            is_whole = rest.is_empty();
            found = rest.split_first().and_then(|(key, rest)| Some((*key, member_value(node, key)?, rest)));
        }
        match variable.filter(|_| !is_whole) {
            Some(variable) => self.diagnostics.error(at, &format!("{name}: {variable}: {text}")),
            None => self.diagnostics.error(at, &format!("{name}: {text}")),
        }
    }

    /// Records a warning about the value of a key.
    pub(super) fn warning(&mut self, key: &str, text: impl Display) {
        let (at, name) = (self.at(key), named(&self.name, key));
        self.diagnostics.warning(at, &format!("{name}: {text}"));
    }

    /// Records an error if another object has the same identity, which the error describes as `what`. Descriptions that
    /// differ do so in case only.
    pub(super) fn require_unique<I: Ord>(
        &mut self,
        unique: &mut UniqueKeys<I>,
        key: &str,
        identity: I,
        what: impl Display,
    ) {
        let (here, what) = (format!("{} at {}", named(&self.name, key), self.at(key)), what.to_string());
        match unique.0.entry(identity) {
            Entry::Vacant(vacant) => {
                vacant.insert((here, what));
            }
            Entry::Occupied(other) => {
                let (other, known) = other.get();
                if known.trim_matches('"') == what.trim_matches('"') {
                    self.error(key, format_args!("duplicate {what}, first used by {other}"));
                } else {
                    let only = "only in case, which Consul ignores; expected another name";
                    self.error(key, format_args!("{what} differs from {other} {only}"));
                }
            }
        }
    }

    fn close(self) {
        let unknown = self.members.iter().filter(|(key, _)| !self.known.contains(key));
        for (key, member) in unknown {
            let meant = closest(key, &self.known).map(|meant| format!(", did you mean {meant}?")).unwrap_or_default();
            let (name, known) = (named(&self.name, &excerpt(key)), self.known.join(", "));
            self.diagnostics.error(member.at, &format!("{name}: unknown key{meant} (known keys: {known})"));
        }
    }
}

/// Identities that must be unique, with the position and the description of their first use.
#[derive(Debug)]
pub(super) struct UniqueKeys<I>(BTreeMap<I, (String, String)>);

impl<I> Default for UniqueKeys<I> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// Returns the value of a key of an object, unless it is missing or null.
fn member_value<'n, 't>(object: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    let Value::Object(members) = &object.value else { return None };
    let member = members.iter().find(|member| member.key == key)?;
    Some(&member.value).filter(|node| !matches!(node.value, Value::Null))
}

fn named(object: &str, key: &str) -> String {
    if object.is_empty() { key.to_owned() } else { format!("{object}.{key}") }
}

/// Returns the known key that an unknown one probably stands for.
fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > MAX_KEY_BYTES {
        return None;
    }
    let key = key.to_lowercase();
    let similar = known.iter().map(|known| (strsim::jaro_winkler(&key, &known.to_lowercase()), *known));
    let similar = similar.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, key)| key)
}

/// Returns a text on one line, cut at [`MAX_EXCERPT_CHARS`].
fn excerpt(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut excerpt: String = words.chars().take(MAX_EXCERPT_CHARS).collect();
    if excerpt.len() < words.len() {
        excerpt.push('…');
    }
    excerpt
}
