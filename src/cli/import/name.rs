//! The id of each document of an import: what it has under `_id`, or in a field of the caller's choice, or one made.
//!
//! An id is made here and not by the peer, from the run of the import and the place in the file: a document that is
//! sent twice, after an interruption, is then the same document. What is not read as an object goes to the peer as
//! it is, which says what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::resume::Run;
use crate::document::json;

/// A document that is ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) text: Bytes,
    /// The same for the same id.
    pub(super) hash: u64,
}

/// How documents get their ids.
#[derive(Debug)]
pub(super) struct Namer {
    pub(super) field: Option<String>,
    pub(super) run: Run,
}

impl Namer {
    /// Gives a document its id.
    ///
    /// # Errors
    /// Why it has none.
    pub(super) fn name(&self, number: u64, text: Bytes) -> Result<Named, String> {
        let mut reader = serde_json::Deserializer::from_slice(&text);
        let Ok(Found { id, field }) = Find(self.field.as_deref()).deserialize(&mut reader) else {
            return Ok(Named { text, hash: number });
        };
        let Some(wanted) = &self.field else {
            return Ok(match id {
                Some(id) => Named { text, hash: hash(id.as_str().unwrap_or_default()) },
                None => {
                    let made = self.run.id(number);
                    Named { hash: hash(&made), text: with_id(&text, &made) }
                }
            });
        };
        let found = if wanted == "_id" { id.clone() } else { field };
        let id = match (id, found) {
            (_, None | Some(Value::Null)) => return Err(format!("it has no field {wanted:?} to take the id from")),
            (Some(_), _) if wanted != "_id" => {
                return Err(format!("it has an _id beside the field {wanted:?}; leave --id out to use that"));
            }
            (_, Some(Value::String(id))) => id,
            (_, Some(number @ (Value::Number(_) | Value::Bool(_)))) => number.to_string(),
            (_, Some(Value::Array(_) | Value::Object(_))) => {
                return Err(format!("its field {wanted:?} is no text and no number, so it cannot be the id"));
            }
        };
        let text = if wanted == "_id" { replaced(&text, &id)? } else { with_id(&text, &id) };
        Ok(Named { hash: hash(&id), text })
    }
}

fn hash(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes were taken"))
}

/// An object with an id put before its other fields.
fn with_id(object: &[u8], id: &str) -> Bytes {
    let open = object.iter().position(|&byte| byte == b'{').expect("it was read as an object");
    let rest = &object[open + 1..];
    let is_empty = rest.trim_ascii_start().starts_with(b"}");
    let mut text = format!("{{\"_id\":{}", Value::from(id)).into_bytes();
    if !is_empty {
        text.push(b',');
    }
    text.extend_from_slice(rest);
    text.into()
}

/// An object with its id as text.
fn replaced(object: &[u8], id: &str) -> Result<Bytes, String> {
    let mut fields = json::parse_document(object).map_err(|error| error.to_string())?;
    fields.insert("_id".into(), id.into());
    Ok(Value::Object(fields).to_string().into())
}

/// Reads the id and one more field of an object, and passes over the rest.
struct Find<'a>(Option<&'a str>);

#[derive(Default)]
struct Found {
    id: Option<Value>,
    field: Option<Value>,
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = fields.next_key::<Cow<'_, str>>()? {
            if key == "_id" {
                found.id = Some(fields.next_value()?);
            } else if Some(&*key) == self.0 {
                found.field = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(field: Option<&str>, text: &str) -> Result<String, String> {
        let namer = Namer { field: field.map(str::to_owned), run: Run::default() };
        let named = namer.name(7, Bytes::copy_from_slice(text.as_bytes()))?;
        Ok(String::from_utf8(named.text.to_vec()).unwrap())
    }

    #[test]
    fn an_id_stays_and_a_missing_one_is_made_the_same_each_time() {
        assert_eq!(name(None, r#"{"_id":"a"}"#).unwrap(), r#"{"_id":"a"}"#);
        assert_eq!(name(None, r#"{"_id":null}"#).unwrap(), r#"{"_id":null}"#);
        for text in [" { } ", r#"{"n":1}"#] {
            let made = name(None, text).unwrap();
            let id = serde_json::from_str::<Value>(&made).unwrap()["_id"].as_str().unwrap().to_owned();
            assert_eq!(id.len(), 36);
            assert_eq!(made, name(None, text).unwrap());
        }
        for broken in ["{", "[1]", "", "{\"a\":1"] {
            assert_eq!(name(None, broken).unwrap(), broken);
        }
    }

    #[test]
    fn a_field_gives_the_id() {
        let value = |text: Result<String, String>| serde_json::from_str::<Value>(&text.unwrap()).unwrap();
        assert_eq!(value(name(Some("n"), r#"{"n":5}"#)), json!({"_id": "5", "n": 5}));
        assert_eq!(value(name(Some("_id"), r#"{"_id":5,"n":1}"#)), json!({"_id": "5", "n": 1}));
        assert!(name(Some("n"), r#"{"m":5}"#).is_err());
        assert!(name(Some("n"), r#"{"n":[]}"#).is_err());
        assert!(name(Some("n"), r#"{"n":1,"_id":"x"}"#).is_err());
    }

    #[test]
    fn the_same_id_has_the_same_hash() {
        let namer = Namer { field: None, run: Run::default() };
        let hash = |number, text: &'static str| namer.name(number, Bytes::from_static(text.as_bytes())).unwrap().hash;
        assert_eq!(hash(1, r#"{"_id":"a","n":1}"#), hash(2, r#"{"n":2,"_id":"\u0061"}"#));
        assert_ne!(hash(1, r#"{"n":1}"#), hash(2, r#"{"n":1}"#));
    }
}
