//! Writing a document anew: which of its fields remain, and what is set into it.
//!
//! A shape is a tree of fields that is walked beside the document's own, both in the order of keys, so that one pass
//! over the text writes the other. Inside of arrays a path goes on in every object, as in MongoDB, but where `$lookup` and
//! `$unwind` set something: an object takes the place of an array on the way. What reads a projection or a stage makes the
//! shape; nothing is parsed here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::Peekable;

use serde_json::Value;

use super::fault;
use crate::Result;
use crate::filter::Element;
use crate::filter::expression::Found;
use crate::limits::DOCUMENT_VIEW_BYTES_MAX;
use crate::value::{Fields, ID_FIELD, Json, Kind, Path, Row};

/// How a document is written anew.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    tree: Tree,
    /// Whether fields that it does not name remain.
    keeps_rest: bool,
    /// Whether an array on the way to what is set is replaced.
    replaces_arrays: bool,
}

/// What becomes of a field.
#[derive(Debug, Clone)]
pub(super) enum Leaf {
    /// It remains.
    Keep,
    /// It goes.
    Drop,
    /// It gets one of the values that are given with the document; it goes when that is missing.
    Set(usize),
    /// Of an array some items remain.
    Slice(Slice),
    /// Of an array the first item remains of which this holds.
    First(Element),
    /// Something becomes of fields in it.
    Within(Tree),
}

/// The fields of an object of which something becomes.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    fields: BTreeMap<String, Leaf>,
    /// Whether something is set in it, so that it comes to be where it is not.
    sets: bool,
}

/// A part of an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// Items that are left out before it; negative to count from the end.
    pub(super) skip: i64,
    /// Items at most.
    pub(super) count: u64,
}

impl Shape {
    pub(super) fn new(keeps_rest: bool) -> Self {
        Self { tree: Tree::default(), keeps_rest, replaces_arrays: false }
    }

    /// What sets fields, over arrays on the way; all other fields remain.
    pub(super) fn over_arrays() -> Self {
        Self { replaces_arrays: true, ..Self::new(true) }
    }

    /// Says what becomes of the field at a path.
    ///
    /// # Errors
    /// When something was said of that field, of one in it, or of one that it is in.
    pub(super) fn insert(&mut self, path: &Path, leaf: Leaf, at: &str) -> Result<()> {
        let sets = matches!(leaf, Leaf::Set(_));
        let clash = || fault(at, format!("{path} is named twice, or together with a field that it is in"));
        let (parts, mut tree) = (path.parts().collect::<Vec<_>>(), &mut self.tree);
        let Some((last, way)) = parts.split_last() else { return Ok(()) };
        for part in way {
            tree.sets |= sets;
            let next = tree.fields.entry((*part).to_owned()).or_insert_with(|| Leaf::Within(Tree::default()));
            let Leaf::Within(inner) = next else { return Err(clash()) };
            tree = inner;
        }
        tree.sets |= sets;
        if tree.fields.contains_key(*last) {
            return Err(clash());
        }
        tree.fields.insert((*last).to_owned(), leaf);
        Ok(())
    }

    /// The text of a document in this shape.
    ///
    /// # Errors
    /// When it is larger than a view may be.
    pub(super) fn apply(&self, row: Row<'_>, values: &[Found<'_>], at: &str) -> Result<Vec<u8>> {
        let mut writer = Writer { out: Vec::new(), shape: self, values, at };
        writer.object(&self.tree, &mut TopFields { body: row.body.fields().peekable(), id: row.id })?;
        Ok(writer.out)
    }
}

/// The fields of a document, its id among them.
struct TopFields<'a> {
    body: Peekable<Fields<'a>>,
    id: Option<Json<'a>>,
}

impl<'a> Iterator for TopFields<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(id) = self.id {
            let order = self.body.peek().map(|(key, _)| key.as_ref().cmp(ID_FIELD));
            match order {
                Some(std::cmp::Ordering::Less) => {}
                // It is in the body as well.
                Some(std::cmp::Ordering::Equal) => self.id = None,
                Some(std::cmp::Ordering::Greater) | None => {
                    self.id = None;
                    return Some((Cow::Borrowed(ID_FIELD), id));
                }
            }
        }
        self.body.next()
    }
}

type AnyFields<'i, 'a> = &'i mut dyn Iterator<Item = (Cow<'a, str>, Json<'a>)>;

struct Writer<'v> {
    out: Vec<u8>,
    shape: &'v Shape,
    values: &'v [Found<'v>],
    at: &'v str,
}

impl Writer<'_> {
    fn object<'a>(&mut self, tree: &Tree, fields: AnyFields<'_, 'a>) -> Result<()> {
        self.out.push(b'{');
        let mut named = tree.fields.iter().peekable();
        for (key, value) in fields {
            while let Some((name, leaf)) = named.next_if(|(name, _)| name.as_str() < key.as_ref()) {
                self.absent(name, leaf)?;
            }
            match named.next_if(|(name, _)| name.as_str() == key.as_ref()) {
                Some((_, leaf)) => self.present(&key, value, leaf)?,
                None if self.shape.keeps_rest => self.field(&key, value.text())?,
                None => {}
            }
        }
        for (name, leaf) in named {
            self.absent(name, leaf)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A field that is named, and that the document has.
    fn present(&mut self, key: &str, value: Json<'_>, leaf: &Leaf) -> Result<()> {
        match leaf {
            Leaf::Keep => self.field(key, value.text()),
            Leaf::Drop => Ok(()),
            Leaf::Set(_) => self.absent(key, leaf),
            Leaf::Slice(slice) if value.kind() == Kind::Array => {
                let (skip, count) = slice.within(value);
                self.key(key);
                self.items(value.items().skip(skip).take(count))
            }
            Leaf::Slice(_) => self.field(key, value.text()),
            Leaf::First(element) => match value.items().find(|item| element.is(*item)) {
                None => Ok(()),
                Some(item) => {
                    self.key(key);
                    self.items(std::iter::once(item))
                }
            },
            Leaf::Within(tree) => match value.kind() {
                Kind::Object => {
                    self.key(key);
                    self.object(tree, &mut value.fields())
                }
                Kind::Array if tree.sets && self.shape.replaces_arrays => self.absent(key, leaf),
                Kind::Array => {
                    self.key(key);
                    self.array(tree, value)
                }
                Kind::Null | Kind::Number | Kind::String | Kind::Bool if tree.sets => self.absent(key, leaf),
                Kind::Null | Kind::Number | Kind::String | Kind::Bool if self.shape.keeps_rest => {
                    self.field(key, value.text())
                }
                Kind::Null | Kind::Number | Kind::String | Kind::Bool => Ok(()),
            },
        }
    }

    /// A field that is named, and whose old value does not matter.
    fn absent(&mut self, key: &str, leaf: &Leaf) -> Result<()> {
        match leaf {
            Leaf::Set(index) => match self.values.get(*index) {
                Some(Some(value)) => self.field(key, value),
                Some(None) | None => Ok(()),
            },
            Leaf::Within(tree) if tree.sets => {
                self.key(key);
                self.object(tree, &mut std::iter::empty())
            }
            Leaf::Keep | Leaf::Drop | Leaf::Slice(_) | Leaf::First(_) | Leaf::Within(_) => Ok(()),
        }
    }

    /// An array in whose items something becomes of fields.
    fn array(&mut self, tree: &Tree, array: Json<'_>) -> Result<()> {
        self.out.push(b'[');
        for item in array.items() {
            match item.kind() {
                Kind::Object => {
                    self.comma();
                    self.object(tree, &mut item.fields())?;
                }
                Kind::Array => {
                    self.comma();
                    self.array(tree, item)?;
                }
                Kind::Null | Kind::Number | Kind::String | Kind::Bool if tree.sets => {
                    self.comma();
                    self.object(tree, &mut std::iter::empty())?;
                }
                Kind::Null | Kind::Number | Kind::String | Kind::Bool if self.shape.keeps_rest => {
                    self.comma();
                    self.put(item.text())?;
                }
                Kind::Null | Kind::Number | Kind::String | Kind::Bool => {}
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn items<'a>(&mut self, items: impl Iterator<Item = Json<'a>>) -> Result<()> {
        self.out.push(b'[');
        for item in items {
            self.comma();
            self.put(item.text())?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn field(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.key(key);
        self.put(value)
    }

    fn key(&mut self, key: &str) {
        self.comma();
        put_key(key, &mut self.out);
    }

    /// Something else in the same brackets was written.
    fn comma(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    fn put(&mut self, text: &[u8]) -> Result<()> {
        if self.out.len() + text.len() > DOCUMENT_VIEW_BYTES_MAX {
            let message =
                format!("makes a document of more than {DOCUMENT_VIEW_BYTES_MAX} bytes; leave out what is not needed");
            return Err(fault(self.at, message));
        }
        self.out.extend_from_slice(text);
        Ok(())
    }
}

/// Writes a key and its colon.
pub(super) fn put_key(key: &str, out: &mut Vec<u8>) {
    if key.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
    } else {
        out.extend_from_slice(Value::from(key).to_string().as_bytes());
        out.push(b':');
    }
}

impl Slice {
    /// How many items of an array are skipped, and how many remain.
    fn within(self, array: Json<'_>) -> (usize, usize) {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let skip = usize::try_from(self.skip.unsigned_abs()).unwrap_or(usize::MAX);
        if self.skip >= 0 {
            return (skip, count);
        }
        (array.items().count().saturating_sub(skip), count)
    }
}
