//! Dotted paths, with MongoDB's way of looking into arrays.
//!
//! `a.b` of `{"a":[{"b":1},{"b":2}]}` finds 1 and 2: on the way through an array every object in it is looked into, and
//! a part of the path that is a number is also a position. At the end of a path an array stands for its items and for
//! itself, unless the path named it by its position in another array. A path that ends early in something that is not an
//! array finds *nothing*, once; an array on the way in which nothing has the rest of the path finds not even that.
//!
//! Source: MongoDB manual, "Query on Arrays", "Query for Null or Missing Fields"; for positions the server's
//! `BSONElementIterator`.

use std::ops::ControlFlow;

use super::json::{Json, Kind};
use crate::limits::DOCUMENT_DEPTH_MAX;
use crate::{Error, Result};

/// The path to a field, such as `address.city` or `tags.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) name: String,
    /// What it is as a position in an array.
    pub(super) index: Option<usize>,
}

/// What an array at the end of a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// Its items, and then itself.
    Items,
    /// Itself only.
    Whole,
    /// Itself only; and every item of an array on the way that is no object counts as *nothing*, as does such an array
    /// without items. What an index holds.
    Keys,
}

/// A document as queries see it: what it holds, and its id under `_id`.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// What stands under `_id`. Of a stored document it is its id, a string, and not in the body.
    pub id: Option<Json<'a>>,
    /// The object that it holds.
    pub body: Json<'a>,
    /// Of a stored document: places at which edits that did not know of each other left several values.
    pub conflicts: u64,
}

/// The name under which queries know a document's id.
pub const ID_FIELD: &str = "_id";

/// The name under which a query shows how many conflicts a document has.
pub const CONFLICTS_FIELD: &str = "_conflicts";

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "." }, part.name)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |name: &str| {
            let index = name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten();
            Part { index: index.filter(|_| name == "0" || !name.starts_with('0')), name: name.to_owned() }
        };
        let parts: Vec<Part> = text.split('.').map(part).collect();
        if parts.iter().any(|part| part.name.is_empty()) {
            return Err(Error::invalid(format!("the path {text:?} has an empty part; parts are names joined by dots")));
        }
        if parts.len() > DOCUMENT_DEPTH_MAX {
            let message = format!("the path {text:.40}... has more than {DOCUMENT_DEPTH_MAX} parts");
            return Err(Error::invalid(message));
        }
        Ok(Self { parts })
    }
}

impl Path {
    /// Its parts.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    /// Its first part.
    #[must_use]
    pub fn first(&self) -> &str {
        &self.parts[0].name
    }

    /// Whether one is the other or within it: `a.b` and `a`.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.parts.iter().zip(&other.parts).all(|(own, other)| own.name == other.name)
    }

    /// Whether a part of it may be a position in an array.
    #[must_use]
    pub fn has_position(&self) -> bool {
        self.parts.iter().any(|part| part.index.is_some())
    }

    /// Whether it names the document's id.
    #[must_use]
    pub fn is_id(&self) -> bool {
        matches!(self.parts.as_slice(), [only] if only.name == ID_FIELD)
    }

    /// As [`Path::visit`], in a document.
    pub fn visit_row<'a, B>(
        &self,
        row: Row<'a>,
        leaf: Leaf,
        visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if self.is_id() { visit(row.id) } else { self.visit(row.body, leaf, visit) }
    }

    /// Calls `visit` with everything that the path finds in a value, until it breaks; with `None` for nothing.
    pub fn visit<'a, B>(
        &self,
        root: Json<'a>,
        leaf: Leaf,
        visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        descend(root, &self.parts, leaf, visit)
    }

    /// As [`Path::visit`] with a path that leads to a value.
    pub fn visit_end<'a, B>(
        value: Json<'a>,
        leaf: Leaf,
        visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        arrive(value, &[], leaf, visit)
    }

    /// The value that the path finds without looking into arrays, which positions do not count as.
    #[must_use]
    pub fn plain<'a>(&self, root: Json<'a>) -> Option<Json<'a>> {
        self.parts.iter().try_fold(root, |value, part| value.get(&part.name))
    }
}

/// The parts of a path from an object on.
fn descend<'a, B>(
    object: Json<'a>,
    parts: &[Part],
    leaf: Leaf,
    visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let Some((part, rest)) = parts.split_first() else { return ControlFlow::Continue(()) };
    match object.get(&part.name) {
        None => visit(None),
        Some(value) => arrive(value, rest, leaf, visit),
    }
}

/// What the rest of a path finds in a value.
fn arrive<'a, B>(
    value: Json<'a>,
    rest: &[Part],
    leaf: Leaf,
    visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    match (value.kind(), rest.first()) {
        (Kind::Array, None) => {
            if leaf == Leaf::Items {
                for item in value.items() {
                    visit(Some(item))?;
                }
            }
            visit(Some(value))
        }
        (_, None) => visit(Some(value)),
        (Kind::Object, Some(_)) => descend(value, rest, leaf, visit),
        (Kind::Array, Some(part)) => {
            let mut is_empty = true;
            for (position, item) in value.items().enumerate() {
                is_empty = false;
                let (is_object, is_named) = (item.kind() == Kind::Object, part.index == Some(position));
                if is_object {
                    descend(item, rest, leaf, visit)?;
                }
                if is_named {
                    at_position(item, &rest[1..], leaf, visit)?;
                }
                if leaf == Leaf::Keys && !is_object && !is_named {
                    visit(None)?;
                }
            }
            if leaf == Leaf::Keys && is_empty { visit(None) } else { ControlFlow::Continue(()) }
        }
        (Kind::Null | Kind::Number | Kind::String | Kind::Bool, Some(_)) => visit(None),
    }
}

/// What the rest of a path finds in an item that it named by its position.
fn at_position<'a, B>(
    item: Json<'a>,
    rest: &[Part],
    leaf: Leaf,
    visit: &mut dyn FnMut(Option<Json<'a>>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    match item.kind() {
        // An array at the end that was named by its position stands for itself alone.
        _ if rest.is_empty() => visit(Some(item)),
        Kind::Object | Kind::Array => arrive(item, rest, leaf, visit),
        Kind::Null | Kind::Number | Kind::String | Kind::Bool if leaf == Leaf::Keys => visit(None),
        Kind::Null | Kind::Number | Kind::String | Kind::Bool => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, leaf: Leaf) -> Vec<String> {
        let path: Path = path.parse().unwrap();
        let mut found = Vec::new();
        let _: ControlFlow<()> = path.visit(Json::new(text.as_bytes()), leaf, &mut |value| {
            found.push(value.map_or("-".to_owned(), |value| String::from_utf8_lossy(value.text()).into_owned()));
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn paths_look_into_arrays_as_the_manual_says() {
        let items = |path, text| found(path, text, Leaf::Items);
        assert_eq!(items("a", r#"{"a":1}"#), ["1"]);
        assert_eq!(items("a.b", r#"{"a":{"b":{"c":1}}}"#), [r#"{"c":1}"#]);
        assert_eq!(items("a", r#"{"a":[1,[2]]}"#), ["1", "[2]", "[1,[2]]"]);
        assert_eq!(items("a", r#"{"a":[]}"#), ["[]"]);
        assert_eq!(items("a.b", r#"{"a":[{"b":1},{"b":[2,3]},4,{}]}"#), ["1", "2", "3", "[2,3]", "-"]);
        assert_eq!(items("a.0", r#"{"a":[7,8]}"#), ["7"]);
        assert_eq!(items("a.0", r#"{"a":[[7,8]]}"#), ["[7,8]"]);
        assert_eq!(items("a.0.1", r#"{"a":[[7,[8]]]}"#), ["[8]"]);
        assert_eq!(items("a.0", r#"{"a":[{"0":[7]}]}"#), ["7", "[7]", r#"{"0":[7]}"#]);
        assert_eq!(items("a.0.b", r#"{"a":[[{"b":[7]}]]}"#), ["7", "[7]"]);
        assert_eq!(items("a.1.b", r#"{"a":[{"b":1},{"b":2}]}"#), ["-", "-", "2"]);
        assert_eq!(items("a.0", r#"{"a":{"0":5}}"#), ["5"]);
        assert_eq!(found("a", r#"{"a":[1,2]}"#, Leaf::Whole), ["[1,2]"]);
    }

    #[test]
    fn nothing_is_found_once_where_a_path_ends_early_and_never_in_an_array_without_objects() {
        let items = |path, text| found(path, text, Leaf::Items);
        assert_eq!(items("a", "{}"), ["-"]);
        assert_eq!(items("a.b", r#"{"a":5}"#), ["-"]);
        assert_eq!(items("a.b", r#"{"a":null}"#), ["-"]);
        assert_eq!(items("a.b", r#"{"a":[]}"#), Vec::<String>::new());
        assert_eq!(items("a.b", r#"{"a":[1,2]}"#), Vec::<String>::new());
    }

    #[test]
    fn for_keys_what_is_no_object_on_the_way_counts_as_nothing() {
        let keys = |path, text| found(path, text, Leaf::Keys);
        assert_eq!(keys("a.b", r#"{"a":[5,{"b":1},[{"b":2}]]}"#), ["-", "1", "-"]);
        assert_eq!(keys("a.b.c", r#"{"a":[{"b":[]},{"b":{"c":1}}]}"#), ["-", "1"]);
        assert_eq!(keys("a.0", r#"{"a":[5]}"#), ["5"]);
        assert_eq!(keys("a.0.b", r#"{"a":[5]}"#), ["-"]);
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b", &"a.".repeat(200)] {
            assert!(path.parse::<Path>().is_err(), "{path}");
        }
        assert_eq!("a.b.0".parse::<Path>().unwrap().to_string(), "a.b.0");
    }
}
