//! JSON objects as text with sorted keys: what registrations are kept, compared and digested as.
//!
//! A view of a large cluster has tens of thousands of fields. They are written to their text as they are read, and nothing
//! is allocated for each of them.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Bytes of most registrations.
const USUAL_BYTES: usize = 512;

/// A JSON object: compact text, keys sorted by their bytes at each level. Of duplicate keys the last one counts.
#[derive(Debug, Clone)]
pub(crate) struct CanonicalObject {
    json: Box<RawValue>,
    fields: Box<[Field]>,
    depth: usize,
}

/// Position of a field in the text.
#[derive(Debug, Clone)]
struct Field {
    /// With quotes.
    key: Range<usize>,
    value: Range<usize>,
}

impl CanonicalObject {
    /// Returns the text.
    pub(crate) fn json(&self) -> &RawValue {
        &self.json
    }

    /// Returns how deep the values are nested: 0 if none of them is an array or object.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the JSON texts of keys and values, sorted.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| (self.text(&field.key), self.text(&field.value)))
    }

    /// Returns the JSON text of a value. The key has no characters that JSON escapes.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let is_key = |quoted: &str| quoted.get(1..quoted.len() - 1) == Some(key);
        self.fields().find(|(quoted, _)| is_key(quoted)).map(|(_, value)| value)
    }

    /// Returns runs of adjacent fields as JSON text, without those whose key is left out: joined by commas, they are the object's
    /// other fields.
    pub(crate) fn runs_without(&self, is_left_out: impl Fn(&str) -> bool) -> Vec<&str> {
        let is_kept = |field: &Field| !is_left_out(self.text(&field.key));
        let runs = self.fields.chunk_by(|a, b| is_kept(a) == is_kept(b)).filter(|run| run.first().is_some_and(is_kept));
        let ends = runs.filter_map(|run| Some((run.first()?.key.start, run.last()?.value.end)));
        ends.map(|(start, end)| self.text(&(start..end))).collect()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        self.json.get().get(range.clone()).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for CanonicalObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = CanonicalObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CanonicalObject, A::Error> {
                let mut json = Vec::with_capacity(USUAL_BYTES);
                let (fields, depth) = write_object(&mut json, map)?;
                let text = String::from_utf8(json).map_err(A::Error::custom)?;
                let json = RawValue::from_string(text).map_err(A::Error::custom)?;
                Ok(CanonicalObject { json, fields: fields.into_boxed_slice(), depth })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed from the input if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Appends an object. Returns the positions of its fields, and how deep their values are nested.
fn write_object<'de, A: MapAccess<'de>>(text: &mut Vec<u8>, mut map: A) -> Result<(Vec<Field>, usize), A::Error> {
    let start = text.len();
    let (mut fields, mut deepest) = (Vec::new(), 0);
    let (mut last, mut is_sorted) = (None, true);
    text.push(b'{');
    while let Some(Key(key)) = map.next_key()? {
        if last.is_some() {
            text.push(b',');
        }
        let key_start = text.len();
        write_json(text, &*key)?;
        let key_end = text.len();
        text.push(b':');
        let value_start = text.len();
        deepest = deepest.max(map.next_value_seed(JsonWriter(text))?);
        fields.push(Field { key: key_start..key_end, value: value_start..text.len() });
        is_sorted &= last.is_none_or(|last| last < key);
        last = Some(key);
    }
    text.push(b'}');
    if !is_sorted {
        fields = sort_object(text, start, &fields).map_err(A::Error::custom)?;
    }
    Ok((fields, deepest))
}

/// Sorts the fields of the object that begins here, and removes those whose key occurs again. Returns their positions.
fn sort_object(text: &mut Vec<u8>, start: usize, fields: &[Field]) -> Result<Vec<Field>, serde_json::Error> {
    // Only this object is copied: hostile input may have many.
    let unsorted = text.split_off(start);
    let read = |range: &Range<usize>| unsorted.get(range.start - start..range.end - start).unwrap_or_default();
    let mut sorted = BTreeMap::new();
    for field in fields {
        sorted.insert(serde_json::from_slice::<String>(read(&field.key))?, field);
    }
    let mut append = |bytes: &[u8]| {
        let start = text.len();
        text.extend_from_slice(bytes);
        start..text.len()
    };
    let mut positions = Vec::with_capacity(sorted.len());
    append(b"{");
    for field in sorted.into_values() {
        if !positions.is_empty() {
            append(b",");
        }
        let key = append(read(&field.key));
        append(b":");
        positions.push(Field { key, value: append(read(&field.value)) });
    }
    append(b"}");
    Ok(positions)
}

fn write_json<E: Error>(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
    serde_json::to_writer(text, value).map_err(E::custom)
}

/// Writes any JSON value. Returns how deep it is nested.
struct JsonWriter<'a>(&'a mut Vec<u8>);

impl JsonWriter<'_> {
    fn scalar<E: Error>(self, value: &(impl Serialize + ?Sized)) -> Result<usize, E> {
        write_json(self.0, value).map(|()| 0)
    }
}

impl<'de> DeserializeSeed<'de> for JsonWriter<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonWriter<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<usize, E> {
        self.scalar(&())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<usize, E> {
        self.scalar(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<usize, E> {
        self.scalar(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<usize, E> {
        self.scalar(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<usize, E> {
        self.scalar(&value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<usize, E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
        let mut deepest = 0;
        self.0.push(b'[');
        let mut is_first = true;
        loop {
            let end = self.0.len();
            if !std::mem::take(&mut is_first) {
                self.0.push(b',');
            }
            let Some(depth) = items.next_element_seed(JsonWriter(self.0))? else {
                self.0.truncate(end);
                break;
            };
            deepest = deepest.max(depth);
        }
        self.0.push(b']');
        Ok(deepest + 1)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<usize, A::Error> {
        let (_, depth) = write_object(self.0, map)?;
        Ok(depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|fields| Value::from_iter::<
                    Map<String, Value>,
                >(
                    fields.into_iter().collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_is_that_of_sorted_maps(fields in prop::collection::btree_map(any::<String>(), any_json(), 0..6)) {
            let value = Value::from_iter(fields);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let object: CanonicalObject = serde_json::from_str(&pretty).unwrap();
            prop_assert_eq!(object.json().get(), value.to_string());
            let from_value: CanonicalObject = serde_json::from_value(value.clone()).unwrap();
            prop_assert_eq!(from_value.json().get(), value.to_string());
            let fields: Map<String, Value> = object.fields().map(|(key, value)| {
                (serde_json::from_str(key).unwrap(), serde_json::from_str(value).unwrap())
            }).collect();
            prop_assert_eq!(Value::from(fields), value);
            let without = |key: &str| key.len().is_multiple_of(3);
            let kept: Vec<String> = object.fields().filter(|(key, _)| !without(key)).map(|(key, value)| {
                format!("{key}:{value}")
            }).collect();
            prop_assert_eq!(object.runs_without(without).join(","), kept.join(","));
        }
    }

    #[test]
    fn keys_are_sorted_and_the_last_of_duplicates_counts() {
        let text = r#" {"b": [ {"z":1, "a":2.50, "z":"\u0041"}, [], {} ], "a":1, "a": null, "\u0062c": "é\n" } "#;
        let object: CanonicalObject = serde_json::from_str(text).unwrap();
        assert_eq!(object.json().get(), r#"{"a":null,"b":[{"a":2.5,"z":"A"},[],{}],"bc":"é\n"}"#);
        assert_eq!((object.get("bc"), object.get("c"), object.depth()), (Some(r#""é\n""#), None, 2));
        for bad in ["[]", "1", "{", r#"{"a":1"#, r#"{"a":x}"#, "{1:2}"] {
            assert!(serde_json::from_str::<CanonicalObject>(bad).is_err(), "{bad}");
        }
    }
}
