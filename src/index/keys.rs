//! The keys of a document in an index.

use std::ops::ControlFlow;

use super::definition::{Definition, Shape};
use super::geo::geo_keys;
use super::text::{Posting, Words, text_key};
use crate::limits::{INDEX_DOCUMENT_BYTES_MAX, INDEX_KEY_BYTES_MAX, INDEX_KEYS_MAX, INDEX_TOKENS_MAX};
use crate::value::{Direction, Json, Kind, Leaf, Path, Pattern, Row, encode, encode_missing, encode_undefined};

/// The keys of one document in one index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Each in the form of [`encode`], field after field, or that of the kind of index; sorted, none twice.
    pub keys: Vec<Vec<u8>>,
    /// Of an index of text: how often the word of each key occurs, in the order of the keys.
    pub occurrences: Vec<u32>,
    /// Of an index of text: words of the document, each counted as often as it occurs.
    pub tokens: u32,
    /// Whether they are too many or too long, so that there are none: every scan must look at the document.
    pub overflow: bool,
}

/// Bytes of an entry besides its key and the id, about.
const ENTRY_BYTES: usize = 16;

impl Keys {
    /// The keys of a document. None at all, when the index leaves it out.
    #[must_use]
    pub fn of(definition: &Definition, row: Row<'_>) -> Self {
        if !definition.takes(row) {
            return Self::default();
        }
        let keys = match &definition.shape {
            Shape::Ordered(pattern) => ordered(pattern, definition.sparse, row),
            Shape::Geo(path) => {
                let keys = geo_keys(path, row, INDEX_KEYS_MAX);
                (keys.len() <= INDEX_KEYS_MAX).then_some(Self { keys, ..Self::default() })
            }
            Shape::Text(fields) => Words::of(fields, row, INDEX_TOKENS_MAX).map(|words| Self {
                keys: words.occurrences.keys().map(|word| text_key(word)).collect(),
                occurrences: words.occurrences.into_values().collect(),
                tokens: words.tokens,
                overflow: false,
            }),
        };
        let id = row.id.map_or(0, |id| id.text().len());
        keys.filter(|keys| keys.fit(id)).unwrap_or(Self { overflow: true, ..Self::default() })
    }

    /// Whether their entries are within bounds.
    fn fit(&self, id_bytes: usize) -> bool {
        let entries: usize = self.keys.iter().map(|key| key.len() + id_bytes + ENTRY_BYTES).sum();
        entries <= INDEX_DOCUMENT_BYTES_MAX && self.keys.iter().all(|key| key.len() <= INDEX_KEY_BYTES_MAX)
    }

    /// What the entry of the key at a position says besides, in an index of text.
    #[must_use]
    pub fn posting(&self, at: usize) -> Option<Posting> {
        self.occurrences.get(at).map(|occurrences| Posting { occurrences: *occurrences, tokens: self.tokens })
    }

    /// The pattern of an index, and the bytes that its keys start with when its first fields have these values.
    #[must_use]
    pub fn prefix(pattern: &Pattern, values: &[Json<'_>]) -> Vec<u8> {
        let mut key = Vec::new();
        for ((_, direction), value) in pattern.fields().iter().zip(values) {
            encode(*value, *direction, &mut key);
        }
        key
    }
}

/// The keys by the values of fields; `None` when they are too many or too long.
fn ordered(pattern: &Pattern, sparse: bool, row: Row<'_>) -> Option<Keys> {
    let mut any = false;
    let mut keys = vec![Vec::new()];
    for (path, direction) in pattern.fields() {
        let (values, found) = values(path, *direction, row);
        any |= found;
        keys = product(&keys, &values)?;
    }
    if sparse && !any {
        return Some(Keys::default());
    }
    keys.sort_unstable();
    keys.dedup();
    Some(Keys { keys, ..Keys::default() })
}

/// What one field adds to the keys, and whether the document has it at all.
fn values(path: &Path, direction: Direction, row: Row<'_>) -> (Vec<Vec<u8>>, bool) {
    let mut values = Vec::new();
    let mut found = false;
    let mut add = |put: &dyn Fn(&mut Vec<u8>)| {
        let mut value = Vec::new();
        put(&mut value);
        values.push(value);
        // One more than allowed is enough to know.
        if values.len() > INDEX_KEYS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let _: ControlFlow<()> = path.visit_row(row, Leaf::Keys, &mut |value| {
        let Some(value) = value else { return add(&|key| encode_missing(direction, key)) };
        found = true;
        if value.kind() != Kind::Array {
            return add(&|key| encode(value, direction, key));
        }
        if value.items().next().is_none() {
            return add(&|key| encode_undefined(direction, key));
        }
        value.items().try_for_each(|item| add(&|key| encode(item, direction, key)))
    });
    values.sort_unstable();
    values.dedup();
    (values, found)
}

/// Every beginning with every end; `None` when they are too many or too long.
fn product(beginnings: &[Vec<u8>], ends: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if beginnings.len() * ends.len() > INDEX_KEYS_MAX {
        return None;
    }
    let joined = beginnings.iter().flat_map(|beginning| ends.iter().map(move |end| [&beginning[..], end].concat()));
    joined.map(|key| (key.len() <= INDEX_KEY_BYTES_MAX).then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys(definition: Value, body: Value) -> Keys {
        let text = body.to_string();
        let row = Row { id: Some(Json::new(br#""x""#)), body: Json::new(text.as_bytes()), conflicts: 0 };
        Keys::of(&Definition::parse(&definition).unwrap(), row)
    }

    fn key(values: &[Value]) -> Vec<u8> {
        let mut key = Vec::new();
        values.iter().for_each(|value| encode(Json::new(value.to_string().as_bytes()), Direction::Ascending, &mut key));
        key
    }

    #[test]
    fn a_list_gives_a_key_for_each_item() {
        let of = |body| keys(json!({"fields": "a"}), body).keys;
        assert_eq!(of(json!({"a": 1})), [key(&[json!(1)])]);
        assert_eq!(of(json!({"a": [2, 1, 2]})), [key(&[json!(1)]), key(&[json!(2)])]);
        assert_eq!(of(json!({"a": [[1]]})), [key(&[json!([1])])]);
        assert_eq!(of(json!({})), [key(&[json!(null)])]);
        assert_eq!(of(json!({"a": []})), [[8]]);
        let inside = |body| keys(json!({"fields": "a.b"}), body).keys;
        assert_eq!(inside(json!({"a": [{"b": 1}, {}]})), [key(&[json!(null)]), key(&[json!(1)])]);
        assert_eq!(inside(json!({"a": [1, 2]})), [key(&[json!(null)])]);
        assert_eq!(inside(json!({"a": []})), [key(&[json!(null)])]);
        assert_eq!(inside(json!({"a": [5, {"b": 1}]})), [key(&[json!(null)]), key(&[json!(1)])]);
    }

    #[test]
    fn fields_are_combined_and_sparse_leaves_out() {
        let both = |body| keys(json!({"fields": "a,b", "sparse": true}), body).keys;
        assert_eq!(both(json!({"a": 1})), [key(&[json!(1), json!(null)])]);
        assert_eq!(both(json!({"a": [1, 2], "b": 3})), [key(&[json!(1), json!(3)]), key(&[json!(2), json!(3)])]);
        assert!(both(json!({"c": 1})).is_empty());
        assert_eq!(keys(json!({"fields": "_id"}), json!({})).keys, [key(&[json!("x")])]);
    }

    #[test]
    fn too_many_or_too_long_keys_are_none() {
        let list: Vec<u32> = (0..40).collect();
        let many = keys(json!({"fields": "a,b"}), json!({"a": list, "b": list}));
        assert!(many.overflow && many.keys.is_empty());
        let long = keys(json!({"fields": "a"}), json!({"a": "x".repeat(2_000)}));
        assert!(long.overflow && long.keys.is_empty());
    }
    #[test]
    fn a_filter_leaves_documents_out() {
        let partial = |body| keys(json!({"fields": "a", "filter": {"b": {"$gt": 1}}}), body);
        assert_eq!(partial(json!({"a": 1, "b": 2})).keys, [key(&[json!(1)])]);
        assert_eq!(partial(json!({"a": 1, "b": 1})), Keys::default());
        assert_eq!(partial(json!({"a": "x".repeat(2_000)})), Keys::default());
    }

    #[test]
    fn points_and_words_are_keys() {
        let points = |place| keys(json!({"type": "geo", "fields": "place"}), json!({ "place": place }));
        let rome = json!({"lat": 41.9, "lng": 12.5});
        assert_eq!(points(rome.clone()).keys.len(), 1);
        assert_eq!(points(json!([rome, {"lat": 0, "lng": 0}, rome])).keys.len(), 2);
        for place in [json!(null), json!({"lat": 91, "lng": 0}), json!([]), json!("Rome")] {
            assert_eq!(points(place), Keys::default());
        }
        let many: Vec<Value> = (0..1_100).map(|n| json!({"lat": f64::from(n) / 100.0, "lng": 0})).collect();
        assert!(points(many.into()).overflow);
        let words = |body| keys(json!({"type": "text", "fields": "a"}), body);
        let two = words(json!({"a": ["b a", "A"], "c": "c"}));
        assert_eq!((two.keys.clone(), two.tokens), (vec![b"a\0".to_vec(), b"b\0".to_vec()], 3));
        assert_eq!(two.posting(0), Some(Posting { occurrences: 2, tokens: 3 }));
        assert_eq!(words(json!({"a": 3})), Keys::default());
        assert!(words(json!({"a": "x".repeat(2_000)})).overflow);
        let many: Vec<String> = (0..INDEX_TOKENS_MAX).map(|n| n.to_string()).collect();
        assert!(words(json!({"a": many.join(" ")})).keys.len() == INDEX_TOKENS_MAX);
        assert!(words(json!({"a": format!("{} more", many.join(" "))})).overflow);
    }
}
