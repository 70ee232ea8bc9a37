//! Where a document stands in an order by several paths.
//!
//! As in MongoDB an array gives a document several places, one for each item, of which the first counts: upwards a field
//! that holds an array stands at its smallest item, downwards at its greatest. Paths through one array take their values
//! from the same item: by `a.x,a.y` the smallest pair of one element counts, not the smallest of each. An item that is no
//! object has no fields, so that they are null; so are those of an empty array, which itself stands before null. A part of
//! a path that is a number names an item, unless an object in the array has a field of that name.
//!
//! MongoDB refuses to sort by two arrays of one document; here each stands at its own first item.
//!
//! Source: the server's `BtreeKeyGenerator`.

use super::json::{Json, Kind};
use super::key::{Direction, encode, encode_missing, encode_undefined};
use super::path::{Part, Path, Row};

/// What a path leads to without a choice among the items of an array.
#[derive(Clone, Copy)]
enum Reached<'a, 'p> {
    Value(Json<'a>),
    Missing,
    /// An array, any item of which may be meant, and what is left of the path.
    Array(Json<'a>, &'p [Part]),
}

/// A field of the order, on its way.
struct Field<'a, 'p> {
    number: usize,
    direction: Direction,
    reached: Reached<'a, 'p>,
}

/// Appends the key of a document: keys compare as documents are sorted.
pub fn sort_key(fields: &[(Path, Direction)], row: Row<'_>, key: &mut Vec<u8>) {
    let start = key.len();
    for (path, direction) in fields {
        match from_row(path, row) {
            Reached::Value(value) => encode(value, *direction, key),
            Reached::Missing => encode_missing(*direction, key),
            Reached::Array(..) => {
                key.truncate(start);
                return through_arrays(fields, row, key);
            }
        }
    }
}

fn through_arrays(fields: &[(Path, Direction)], row: Row<'_>, key: &mut Vec<u8>) {
    let mut keys = vec![Vec::new(); fields.len()];
    let fields = fields.iter().enumerate();
    let fields = fields.map(|(number, (path, direction))| {
        let reached = from_row(path, row);
        Field { number, direction: *direction, reached }
    });
    first(fields.collect(), &mut keys);
    keys.iter().for_each(|part| key.extend_from_slice(part));
}

/// Writes the keys of fields, by their numbers: of those in one array the ones of the item that comes first. Recurses as
/// deep as arrays are nested in the document.
fn first(fields: Vec<Field<'_, '_>>, keys: &mut [Vec<u8>]) {
    let mut arrays: Vec<(Json<'_>, Vec<Field<'_, '_>>)> = Vec::new();
    for field in fields {
        let key = &mut keys[field.number];
        key.clear();
        match field.reached {
            Reached::Value(value) => encode(value, field.direction, key),
            Reached::Missing => encode_missing(field.direction, key),
            Reached::Array(array, _) => {
                let same = |(other, _): &&mut (Json<'_>, _)| other.text().as_ptr() == array.text().as_ptr();
                match arrays.iter_mut().find(same) {
                    Some((_, fields)) => fields.push(field),
                    None => arrays.push((array, vec![field])),
                }
            }
        }
    }
    for (array, fields) in arrays {
        let mut best: Option<Vec<Vec<u8>>> = None;
        for (position, item) in array.items().enumerate() {
            first(fields.iter().map(|field| field.within(item, position)).collect(), keys);
            let found: Vec<Vec<u8>> = fields.iter().map(|field| std::mem::take(&mut keys[field.number])).collect();
            if best.as_ref().is_none_or(|best| found < *best) {
                best = Some(found);
            }
        }
        let best = best.unwrap_or_else(|| fields.iter().map(Field::of_nothing).collect());
        for (field, key) in fields.iter().zip(best) {
            keys[field.number] = key;
        }
    }
}

impl<'a, 'p> Field<'a, 'p> {
    /// The field in an item of the array that it has come to.
    fn within(&self, item: Json<'a>, position: usize) -> Self {
        let reached = match self.reached {
            // An array in the array stands for itself.
            Reached::Array(_, []) => Reached::Value(item),
            Reached::Array(_, rest) if item.kind() == Kind::Object => reach(item, rest),
            Reached::Array(_, [part, rest @ ..]) if part.index == Some(position) => reach(item, rest),
            Reached::Array(..) | Reached::Value(_) | Reached::Missing => Reached::Missing,
        };
        Self { reached, ..*self }
    }

    /// Its key in an array without items.
    fn of_nothing(&self) -> Vec<u8> {
        let mut key = Vec::new();
        match self.reached {
            Reached::Array(_, []) => encode_undefined(self.direction, &mut key),
            Reached::Array(..) | Reached::Value(_) | Reached::Missing => encode_missing(self.direction, &mut key),
        }
        key
    }
}

fn from_row<'a, 'p>(path: &'p Path, row: Row<'a>) -> Reached<'a, 'p> {
    if path.is_id() { row.id.map_or(Reached::Missing, |id| reach(id, &[])) } else { reach(row.body, &path.parts) }
}

fn reach<'a, 'p>(mut value: Json<'a>, mut rest: &'p [Part]) -> Reached<'a, 'p> {
    loop {
        let Some((part, behind)) = rest.split_first() else {
            return if value.kind() == Kind::Array { Reached::Array(value, rest) } else { Reached::Value(value) };
        };
        let next = match value.kind() {
            Kind::Object => value.get(&part.name),
            Kind::Array => match named(value, part) {
                Some(item) => Some(item),
                None => return Reached::Array(value, rest),
            },
            Kind::Null | Kind::Number | Kind::String | Kind::Bool => None,
        };
        let Some(next) = next else { return Reached::Missing };
        (value, rest) = (next, behind);
    }
}

/// The item that a part of a path names by its position and by nothing else.
fn named<'a>(array: Json<'a>, part: &Part) -> Option<Json<'a>> {
    let item = array.items().nth(part.index?)?;
    let has_field = |item: Json<'_>| item.kind() == Kind::Object && item.get(&part.name).is_some();
    if array.items().any(has_field) { None } else { Some(item) }
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;

    fn key(sort: &str, text: &str) -> Vec<u8> {
        let pattern = Pattern::parse(&sort.into()).unwrap();
        let mut key = vec![7];
        sort_key(pattern.fields(), Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 }, &mut key);
        assert_eq!(key.remove(0), 7, "what was there stays");
        key
    }

    /// The key of values in place of each other, the direction of each as in the order.
    fn of(values: &[(&str, Direction)]) -> Vec<u8> {
        let mut key = Vec::new();
        for (text, direction) in values {
            match *text {
                "undefined" => encode_undefined(*direction, &mut key),
                text => encode(Json::new(text.as_bytes()), *direction, &mut key),
            }
        }
        key
    }

    #[test]
    fn paths_through_one_array_take_the_first_pair_of_one_item() {
        use Direction::{Ascending as Up, Descending as Down};
        let pairs = r#"{"a":[{"x":1,"y":9},{"x":1,"y":5},{"x":2,"y":1}],"b":[4,3]}"#;
        for (sort, text, expected) in [
            ("a.x,a.y", pairs, vec![("1", Up), ("5", Up)]),
            ("a.y,a.x", pairs, vec![("1", Up), ("2", Up)]),
            ("-a.x,a.y", pairs, vec![("2", Down), ("1", Up)]),
            ("a.x,-a.y", pairs, vec![("1", Up), ("9", Down)]),
            ("a.x,b,a.y", pairs, vec![("1", Up), ("3", Up), ("5", Up)]),
            ("a.x,a.y", r#"{"a":[{"y":2},{"x":1}]}"#, vec![("null", Up), ("2", Up)]),
            ("a.b.x,a.y", r#"{"a":[{"b":[{"x":3},{"x":1}],"y":2},{"b":{"x":1},"y":0}]}"#, vec![("1", Up), ("0", Up)]),
            ("a.b", r#"{"a":[5,{"b":1}]}"#, vec![("null", Up)]),
            ("-a.b", r#"{"a":[5,{"b":1}]}"#, vec![("1", Down)]),
            ("a.b", r#"{"a":[[{"b":1}],{"b":2}]}"#, vec![("null", Up)]),
            ("a.b", r#"{"a":[]}"#, vec![("null", Up)]),
            ("a", r#"{"a":[]}"#, vec![("undefined", Up)]),
            ("a,a.b", r#"{"a":[]}"#, vec![("undefined", Up), ("null", Up)]),
            ("a", r#"{"a":[[1,2],[0,9]]}"#, vec![("[0,9]", Up)]),
            ("a.0", r#"{"a":[5,3]}"#, vec![("5", Up)]),
            ("a.0.x,a.1.x", r#"{"a":[{"x":5},{"x":3}]}"#, vec![("5", Up), ("3", Up)]),
            ("a.0", r#"{"a":[[7,6]]}"#, vec![("6", Up)]),
            ("a.0", r#"{"a":[{"0":4},3]}"#, vec![("null", Up)]),
            ("-a.0", r#"{"a":[3,{"0":4}]}"#, vec![("4", Down)]),
        ] {
            assert_eq!(key(sort, text), of(&expected), "{sort} of {text}");
        }
    }
}
