//! Values on their way to what they mean.
//!
//! A reader takes a [`Field`] and gives what it means, or none after it noted what is wrong; reading goes on, so that all
//! mistakes are found. An [`Object`] is asked for its keys one by one: what was never asked for is unknown.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Display,
};

use super::{
    json5::{Member, Node, Position, Value},
    note::Notes,
};

/// Most characters of an offending text that a mistake repeats.
const SHOWN: usize = 60;
/// Longest unknown key that is compared with known ones, in bytes.
const LONGEST_KEY: usize = 40;
/// From which likeness on (0 to 1) a known key may be the one that was meant.
const ALIKE: f64 = 0.8;

/// A value, and the name that mistakes call it by: `services[0].ttl`.
pub(super) struct Field<'n, 't> {
    name: String,
    node: &'n Node<'t>,
    notes: &'n mut Notes,
}

impl<'n, 't> Field<'n, 't> {
    /// The whole configuration.
    pub(super) fn root(node: &'n Node<'t>, notes: &'n mut Notes) -> Self {
        Self { name: String::new(), node, notes }
    }

    pub(super) fn value(&self) -> &'n Value<'t> {
        &self.node.value
    }

    /// The value as it stands in the text.
    pub(super) fn written(&self) -> &'t str {
        self.node.written
    }

    /// A text, or a number that stands for one.
    pub(super) fn as_text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Number(_) => Some(self.node.written),
            _ => None,
        }
    }

    /// The same once more: to be refused after it was read in part.
    pub(super) fn again(&mut self) -> Field<'_, 't> {
        Field { name: self.name.clone(), node: self.node, notes: self.notes }
    }

    /// What was read of the value; when that is nothing, the value is refused.
    pub(super) fn judge<T>(self, read: Option<T>, expected: impl Display) -> Option<T> {
        read.or_else(|| self.refuse(expected))
    }

    /// Notes that the value is not what it should be.
    pub(super) fn refuse<T>(self, expected: impl Display) -> Option<T> {
        match shown(self.node.written) {
            missing if missing.is_empty() => self.fail(format_args!("is missing, expected {expected}")),
            found => self.fail(format_args!("is {found}, expected {expected}")),
        }
    }

    /// The same, with a reason.
    pub(super) fn refuse_as<T>(self, reason: impl Display, expected: impl Display) -> Option<T> {
        match shown(self.node.written) {
            missing if missing.is_empty() => self.refuse(expected),
            found => self.fail(format_args!("is {found} ({reason}), expected {expected}")),
        }
    }

    /// Notes a mistake, told after the name. For values that may hold secrets, which must not be told.
    pub(super) fn fail<T>(self, text: impl Display) -> Option<T> {
        let name = if self.name.is_empty() { "the configuration" } else { &self.name };
        self.notes.mistake(self.node.at, &format!("{name} {text}"));
        None
    }

    /// Reads an object, and notes keys that were never asked for.
    pub(super) fn object<T>(self, read: impl FnOnce(&mut Object<'_, 't>) -> Option<T>) -> Option<T> {
        let Value::Object(members) = &self.node.value else { return self.refuse("an object") };
        let mut object = Object {
            name: self.name,
            at: self.node.at,
            members: BTreeMap::new(),
            known: Vec::new(),
            notes: self.notes,
        };
        for member in members {
            object.insert(member);
        }
        let result = read(&mut object);
        object.close();
        result
    }

    /// Reads a list; `expected` says of what. Items that are wrong are left out.
    pub(super) fn list<T>(self, expected: &str, mut read: impl FnMut(Field<'_, 't>) -> Option<T>) -> Option<Vec<T>> {
        let Value::List(items) = &self.node.value else { return self.refuse(expected) };
        let named = |index| format!("{}[{index}]", self.name);
        let items = items.iter().enumerate();
        Some(items.filter_map(|(i, node)| read(Field { name: named(i), node, notes: self.notes })).collect())
    }
}

/// An object that is being read.
pub(super) struct Object<'n, 't> {
    name: String,
    at: Position,
    members: BTreeMap<&'n str, &'n Member<'t>>,
    known: Vec<&'static str>,
    notes: &'n mut Notes,
}

impl<'n, 't> Object<'n, 't> {
    fn insert(&mut self, member: &'n Member<'t>) {
        match self.members.entry(&member.key) {
            Entry::Vacant(vacant) => {
                vacant.insert(member);
            }
            Entry::Occupied(first) => {
                let name = named(&self.name, &shown(&member.key));
                self.notes
                    .mistake(member.at, &format!("{name} stands here and at {}, expected it once", first.get().at));
            }
        }
    }

    /// The value of a key; none also for null.
    fn node(&self, key: &str) -> Option<&'n Node<'t>> {
        self.members.get(key).map(|member| &member.value).filter(|node| !matches!(node.value, Value::Null))
    }

    /// What a key means. None when it is missing or null, and after its mistakes were noted.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let node = self.node(key)?;
        read(Field { name: named(&self.name, key), node, notes: self.notes })
    }

    /// What a key means that must be there. Readers refuse null, which stands for a missing value too.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let missing = Node { at: self.at, written: "", value: Value::Null };
        let node = self.members.get(key).map_or(&missing, |member| &member.value);
        read(Field { name: named(&self.name, key), node, notes: self.notes })
    }

    /// A list of objects; none are there when it is missing.
    pub(super) fn objects<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Object<'_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let list = self.optional(key, |field| field.list("a list of objects", |item| item.object(&mut read)));
        list.unwrap_or_default()
    }

    /// Whether a key has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Where the value of a key stands; where the object does if it has none.
    pub(super) fn at(&self, key: &str) -> Position {
        self.node(key).map_or(self.at, |node| node.at)
    }

    /// Notes a mistake of the object as a whole.
    pub(super) fn mistake(&mut self, text: &str) {
        self.notes.mistake(self.at, text);
    }

    /// Notes what is wrong with a value that could be read.
    pub(super) fn fail(&mut self, key: &str, text: impl Display) {
        let (at, name) = (self.at(key), named(&self.name, key));
        self.notes.mistake(at, &format!("{name} {text}"));
    }

    /// Notes what is odd about a value.
    pub(super) fn remark(&mut self, key: &str, text: impl Display) {
        let (at, name) = (self.at(key), named(&self.name, key));
        self.notes.remark(at, &format!("{name} {text}"));
    }

    /// Notes a mistake when another object goes by the same identity, which is told as `what`.
    pub(super) fn claim<I: Ord>(&mut self, seen: &mut Seen<I>, key: &str, identity: I, what: impl Display) {
        let here = format!("{} at {}", named(&self.name, key), self.at(key));
        match seen.0.entry(identity) {
            Entry::Vacant(vacant) => {
                vacant.insert(here);
            }
            Entry::Occupied(other) => {
                self.fail(key, format_args!("is {what}, as is {}, expected it once", other.get()));
            }
        }
    }

    fn close(self) {
        let unknown = self.members.iter().filter(|(key, _)| !self.known.contains(key));
        for (key, member) in unknown {
            let meant = closest(key, &self.known).map(|meant| format!(", did you mean {meant}?")).unwrap_or_default();
            let (name, known) = (named(&self.name, &shown(key)), self.known.join(", "));
            self.notes.mistake(member.at, &format!("{name} is unknown{meant} (known are {known})"));
        }
    }
}

/// What may be there only once, and where it is.
#[derive(Debug)]
pub(super) struct Seen<I>(BTreeMap<I, String>);

impl<I> Default for Seen<I> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

fn named(object: &str, key: &str) -> String {
    if object.is_empty() { key.to_owned() } else { format!("{object}.{key}") }
}

/// The known key that was probably meant.
fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    let key = key.to_lowercase();
    let alike = known.iter().map(|known| (strsim::jaro_winkler(&key, &known.to_lowercase()), *known));
    alike.filter(|(likeness, _)| *likeness >= ALIKE).max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, k)| k)
}

/// An offending text on one line, cut where it is long.
fn shown(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = words.chars().take(SHOWN).collect();
    if shown.len() < words.len() {
        shown.push('…');
    }
    shown
}
