//! From Automerge to JSON: the view of a document.
//!
//! The mapping is total and depends only on the document's state, so that peers with the same changes write the
//! same bytes: objects are written in the order of their keys, without spaces.
//!
//! | Automerge | JSON |
//! |---|---|
//! | map, list | object, array |
//! | text, string | string |
//! | int, uint, counter, timestamp (ms) | number |
//! | f64 | number; `null` when not finite |
//! | bytes | `{"$bytes": "<base64>"}` |
//! | null, unknown types | `null` |

use std::io;

use automerge::ScalarValue;
use automerge::hydrate;
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Map, Number, Value};

use crate::limits::DOCUMENT_VIEW_BYTES_MAX;

/// The view as JSON text.
pub(super) fn text(value: &hydrate::Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(value, &mut out);
    out
}

fn write(value: &hydrate::Value, out: &mut Vec<u8>) {
    match value {
        hydrate::Value::Map(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by_key(|&(key, _)| key);
            out.push(b'{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json(key, out);
                out.push(b':');
                write(&field.value, out);
            }
            out.push(b'}');
        }
        hydrate::Value::List(list) => {
            out.push(b'[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(&item.value, out);
            }
            out.push(b']');
        }
        hydrate::Value::Text(text) => write_json(&String::from(text), out),
        hydrate::Value::Scalar(ScalarValue::Str(text)) => write_json(text.as_str(), out),
        hydrate::Value::Scalar(value) => write_json(&scalar(value), out),
    }
}

/// A view beyond the limit, which only hostile writers can make, is replaced by a note on every peer alike.
#[must_use]
pub fn bounded(view: Bytes) -> Bytes {
    if view.len() <= DOCUMENT_VIEW_BYTES_MAX {
        return view;
    }
    format!("{{\"$too_large_bytes\":{}}}", view.len()).into()
}

/// One scalar or string as JSON text.
pub(super) fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a scalar is JSON and a Vec takes it");
}

/// Bytes of a value as JSON text.
pub(super) fn json_bytes<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a value is JSON, and counting does not fail");
    count.0
}

/// The view as a value.
pub(super) fn value(value: hydrate::Value) -> Value {
    match value {
        hydrate::Value::Map(map) => Value::Object(object(map)),
        hydrate::Value::List(list) => Value::Array(list.iter().map(|item| self::value(item.value.clone())).collect()),
        hydrate::Value::Text(text) => Value::String(String::from(&text)),
        hydrate::Value::Scalar(value) => scalar(&value),
    }
}

/// The fields of a map as values.
pub(super) fn object(mut map: hydrate::Map) -> Map<String, Value> {
    map.drain().map(|(key, field)| (key, value(field.value))).collect()
}

/// One scalar as JSON.
pub(super) fn scalar(value: &ScalarValue) -> Value {
    match value {
        ScalarValue::Str(text) => Value::String(text.to_string()),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => Value::from(*number),
        ScalarValue::Uint(number) => Value::from(*number),
        ScalarValue::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ScalarValue::Counter(counter) => Value::from(i64::from(counter)),
        ScalarValue::Boolean(flag) => Value::Bool(*flag),
        ScalarValue::Bytes(bytes) => {
            Value::Object(Map::from_iter([("$bytes".to_owned(), Value::String(BASE64.encode(bytes)))]))
        }
        ScalarValue::Null | ScalarValue::Unknown { .. } => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ObjType, ROOT};

    use super::*;

    #[test]
    fn whatever_a_document_holds_has_one_view() {
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
        let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "\"é").unwrap();
        for value in [
            ScalarValue::Bytes(vec![0, 255]),
            ScalarValue::Timestamp(-1),
            ScalarValue::counter(i64::MIN),
            ScalarValue::Uint(u64::MAX),
            ScalarValue::F64(f64::NAN),
            ScalarValue::F64(f64::INFINITY),
            ScalarValue::F64(-0.0),
            ScalarValue::F64(1e308),
            ScalarValue::Boolean(true),
            ScalarValue::Unknown { type_code: 12, bytes: vec![1] },
        ] {
            tx.insert(&list, 0, value).unwrap();
        }
        tx.put(ROOT, "a\u{0}", ScalarValue::Null).unwrap();
        tx.commit();
        let hydrated = doc.hydrate(None);
        let expected = "{\"a\\u0000\":null,\"list\":[null,true,1e+308,-0.0,null,null,18446744073709551615,\
                        -9223372036854775808,-1,{\"$bytes\":\"AP8=\"}],\"text\":\"\\\"é\"}";
        assert_eq!(String::from_utf8(super::text(&hydrated)).unwrap(), expected);
        assert_eq!(serde_json::to_string(&value(hydrated)).unwrap(), expected);
    }
}
